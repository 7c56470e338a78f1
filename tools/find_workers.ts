/**
 * Scripts that run in a Worker. A bundler does not follow `new Worker(new URL("./x.ts",
 * import.meta.url))`, so each of them has to be bundled as a program of its own.
 */
import { join } from "node:path";

const FOLDERS = ["kv", "roles", "apps", "web"];
export const WORKER_URL = /new URL\(\s*"(\.\/[\w/]*_worker)\.ts"\s*,\s*import\.meta\.url\s*\)/g;

/** Their paths below the repository's root. */
export async function findWorkers(): Promise<string[]> {
  const workers = new Set<string>();
  for (const folder of FOLDERS) {
    for await (const file of sourcesBelow(folder)) {
      for (const [, name] of (await Deno.readTextFile(file)).matchAll(WORKER_URL)) {
        workers.add(join(file, "..", `${name}.ts`));
      }
    }
  }
  return [...workers].sort();
}

async function* sourcesBelow(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory && entry.name !== "dist") yield* sourcesBelow(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}
