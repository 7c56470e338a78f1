/**
 * Modules that no packaging tool finds by itself: scripts that run in a Worker, and what
 * `importLater` (roles/import_later.ts) keeps out of sight until it is needed.
 *
 *     new Worker(new URL("./x_worker.ts", import.meta.url))
 *     importLater<typeof import("./x.ts")>("./x.ts", import.meta.url)
 */
import { join } from "node:path";

const FOLDERS = ["kv", "roles", "apps", "web", "cli"];
const WORKER = /new URL\(\s*"(\.\/[\w/]*_worker)\.ts"\s*,\s*import\.meta\.url\s*\)/g;
const LATER =
  /importLater<\s*typeof import\(\s*"([^"]+)"\s*\)\s*>\(\s*"([^"]+)",\s*import\.meta\.url,?\s*\)/g;

export interface HiddenModules {
  /** Paths below the repository's root. */
  readonly workers: readonly string[];
  readonly later: readonly string[];
}

export async function findHiddenModules(): Promise<HiddenModules> {
  const workers = new Set<string>(), later = new Set<string>();
  const sources = ["main.ts"];
  for (const folder of FOLDERS) for await (const path of sourcesBelow(folder)) sources.push(path);
  for (const path of sources) {
    const text = await Deno.readTextFile(path);
    for (const [, name] of text.matchAll(WORKER)) workers.add(join(path, "..", `${name}.ts`));
    for (const [, , name] of text.matchAll(LATER)) later.add(join(path, "..", name!));
  }
  return { workers: [...workers].sort(), later: [...later].sort() };
}

/**
 * The source of one module as a bundler understands it: plain imports, and workers beside the file
 * that starts them, under the name of their bundle.
 */
export function plainImports(source: string): string {
  return source
    .replace(LATER, (_, _type, name: string) => `import("${name}")`)
    .replace(
      WORKER,
      (_, name: string) => `new URL("./${name.split("/").at(-1)}.js", import.meta.url)`,
    );
}

async function* sourcesBelow(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory && entry.name !== "dist") yield* sourcesBelow(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}
