/** PennCloud as `penncloud up` starts it: coordinator and three backends, everything fsynced. */
import { join } from "node:path";
import { metricOf } from "../../tests/cluster/cluster_calls.ts";
import { processesOf, startCluster, type TestCluster } from "../../tests/cluster/harness.ts";
import type { Role } from "../../proto/cluster_config.ts";
import type { RunningSystem, System } from "./system.ts";

export interface PennCloudOptions {
  /** A file of the repository, or an absolute path. */
  readonly config?: string;
  /** Which roles run; the store alone by default. */
  readonly only?: readonly Role[] | "all";
  readonly env?: Readonly<Record<string, string>>;
}

export interface RunningPennCloud extends RunningSystem {
  readonly cluster: TestCluster;
}

export class PennCloud implements System {
  readonly name = "penncloud";
  readonly #options: PennCloudOptions;

  constructor(options: PennCloudOptions = {}) {
    this.#options = options;
  }

  whyNot(): Promise<null> {
    return Promise.resolve(null);
  }

  async start(dir: string): Promise<RunningPennCloud> {
    const { config = "cluster.small.toml", only = ["coordinator", "backend"], env } = this.#options;
    const dataDir = join(dir, "penncloud");
    const cluster = await startCluster({
      config,
      dir: dataDir,
      ...(only === "all" ? {} : { only }),
      ...(env === undefined ? {} : { env }),
    });
    const backends = cluster.config.node.filter(({ role }) => role === "backend");
    const names = backends.map(({ role, id }) => `${role}/${id}`);
    return {
      name: this.name,
      about: `${backends.length} backends, every write synced on ${cluster.config.store.replicas}`,
      cluster,
      target: {
        system: "penncloud",
        configFile: cluster.configFile,
        portOffset: cluster.portOffset,
        dir: dataDir,
      },
      pids: () => processesOf(dataDir),
      counters: async () => ({
        fsyncs: await sumOf(cluster, names, "penncloud_log_fsyncs_total"),
        logBytes: await sumOf(cluster, names, "penncloud_log_written_bytes_total"),
      }),
      stop: () => cluster.stop(),
    };
  }
}

async function sumOf(cluster: TestCluster, names: string[], metric: string): Promise<number> {
  const values = await Promise.all(names.map((name) => metricOf(cluster, name, metric)));
  return values.reduce((sum, value) => sum + value, 0);
}
