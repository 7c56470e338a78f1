/** PennCloud as its own processes use it: `KvClient` over the connections of roles/. */
import type { Role } from "../../proto/cluster_config.ts";
import { compareAndPut, type Kv, put } from "../../kv/kv.ts";
import type { Version } from "../../proto/ids.ts";
import { openClusterFolder } from "../../roles/cluster_folder.ts";
import { loadConfig } from "../../roles/config_file.ts";
import { realEnv } from "../../roles/env.ts";
import { connectKv, type KvConnection } from "../../roles/kv_connection.ts";
import { openLog } from "../../roles/log.ts";
import type { StoreClient, StoreTarget } from "./store_client.ts";

const COLUMN = "c";

export async function connectPennCloud(target: StoreTarget): Promise<StoreClient> {
  const { kv, close } = await connectCluster(target);
  return storeClient(kv, close);
}

/** The store itself, for what a peer does not have. */
export async function connectCluster(target: StoreTarget): Promise<KvConnection> {
  if (target.system !== "penncloud") throw new Error(`${target.system} is not PennCloud`);
  const { config } = await loadConfig({ path: target.configFile, portOffset: target.portOffset });
  const { secret, clusterId } = await openClusterFolder(target.dir, { config, create: false });
  return connectKv({
    config,
    node: { role: "client" as Role, id: Deno.pid, host: "", port: 0, zone: "" },
    dataDir: "",
    clusterDir: target.dir,
    secret,
    clusterId,
    spawnId: "",
    env: realEnv({ node: "bench", log: openLog({ node: "bench", threshold: "off" }) }),
  });
}

export function storeClient(kv: Kv, close: () => void): StoreClient {
  const versions = new Map<string, Version>();
  const versionOf = async (row: string) =>
    versions.get(row) ?? (await kv.get(row, COLUMN))?.version ?? 0 as Version;
  return {
    async put(key, value) {
      await put(kv, key, COLUMN, value);
    },
    async get(key) {
      return (await kv.get(key, COLUMN))?.size ?? null;
    },
    async compareAndPut(key, value) {
      const cell = { row: key, column: COLUMN, value, expected: await versionOf(key) };
      const result = await compareAndPut(kv, cell);
      if (!result.applied) throw new Error(`Somebody else wrote "${key}"`);
      versions.set(key, result.version);
    },
    async scan(start, limit) {
      return (await kv.scan({ startRow: start, limit })).cells.length;
    },
    close,
  };
}
