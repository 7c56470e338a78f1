/**
 * The flags that every command shares, and what they lead to: the configuration with the ports that
 * the running cluster really uses, and the cluster's secret.
 */
import type { ClusterConfig } from "../proto/cluster_config.ts";
import { openClusterFolder, readUpLock } from "../roles/cluster_folder.ts";
import { loadConfig } from "../roles/config_file.ts";

/** A type and not an interface, because commander's types ask for an implicit index signature. */
export type ClusterFlags = {
  readonly config?: string | undefined;
  readonly data?: string | undefined;
  readonly portOffset?: number | undefined;
  readonly json?: boolean | undefined;
};

export interface OpenCluster {
  readonly config: ClusterConfig;
  readonly clusterDir: string;
  readonly clusterId: string;
  readonly secret: Uint8Array;
}

/**
 * Finds the cluster that the flags mean. Without `--port-offset` it is the offset of the `up` that
 * runs on the data folder, so that people need not remember it.
 */
export async function openCluster(flags: ClusterFlags): Promise<OpenCluster> {
  const request = { path: flags.config, dataDir: flags.data };
  const loaded = await loadConfig(request);
  const { clusterDir } = loaded;
  const { clusterId, secret } = await openClusterFolder(clusterDir, {
    config: loaded.config,
    create: false,
  });
  const portOffset = flags.portOffset ?? (await readUpLock(clusterDir))?.portOffset ?? 0;
  const { config } = portOffset === 0 ? loaded : await loadConfig({ ...request, portOffset });
  return { config, clusterDir, clusterId, secret };
}
