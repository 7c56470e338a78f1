/** A cluster.toml of the bench's own: the small cluster's, with other sizes. */
import { join } from "node:path";
import { parse, stringify } from "smol-toml";
import { REPOSITORY } from "../../tests/cluster/harness.ts";

export interface ConfigChange {
  readonly backends?: number;
  readonly memoryBytes?: number;
}

interface RawConfig {
  readonly store: Record<string, unknown>;
  node: { readonly role: string; readonly id: number; readonly host: string; port: number }[];
}

/** @returns the path of the file, in `dir` */
export async function writeConfig(dir: string, change: ConfigChange): Promise<string> {
  const text = await Deno.readTextFile(join(REPOSITORY, "cluster.small.toml"));
  const config = parse(text) as unknown as RawConfig;
  const { backends, memoryBytes } = change;
  if (memoryBytes !== undefined) config.store.memory_bytes = memoryBytes;
  if (backends !== undefined) {
    // Evenly over the letters, whatever their number.
    delete config.store.split_keys;
    const [first] = config.node.filter(({ role }) => role === "backend");
    config.node = config.node.filter(({ role }) => role !== "backend");
    for (let id = 0; id < backends; id++) {
      config.node.push({ ...first!, id, port: first!.port + id });
    }
  }
  const path = join(dir, "cluster.toml");
  await Deno.writeTextFile(path, stringify(config));
  return path;
}
