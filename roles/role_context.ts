/**
 * What a process is told when it starts as one node, and what it gives back.
 *
 * Every role exports `run<Role>(context: RoleContext): Promise<RunningRole>`. main.ts reads flags and
 * `cluster.toml`, makes the context, calls the one role that was asked for, and on SIGTERM calls
 * `stop()`. A role opens sockets and files; it does not read flags, catch signals or exit.
 */
import type { Env } from "../kv/env.ts";
import type { ClusterConfig, NodeEntry } from "../proto/cluster_config.ts";

export interface RoleContext {
  /** The whole cluster, with `--port-offset` already added to every port. */
  readonly config: ClusterConfig;
  /** The node that this process is. */
  readonly node: NodeEntry;
  /** This node's own folder, `<data>/<role>-<id>`; it exists. Nobody else writes there. */
  readonly dataDir: string;
  /** The folder of the cluster on this host: secret, certificate, and the nodes' folders. */
  readonly clusterDir: string;
  /**
   * What nodes prove to each other before anything else is answered: 32 bytes. `serveRpc` and
   * `connectRpc` take it as `secret.toHex()`.
   */
  readonly secret: Uint8Array;
  /** Made at the first start; data of one cluster never meets that of another. */
  readonly clusterId: string;
  /** Names this one life of the process: the supervisor reports its end under this id. */
  readonly spawnId: string;
  readonly env: Env;
}

/** drain: hand over to others first, this node alone goes. shutdown: the whole host goes down now. */
export type StopReason = "drain" | "shutdown";

export interface RunningRole {
  /** Resolves when the node serves (what `/readyz` says); rejects when it never will. */
  readonly ready: Promise<void>;
  /**
   * Takes no new work, finishes what it has, closes everything. A shutdown ends within 5 s; a drain
   * hands over first (a backend its primaries) and may take 25 s.
   */
  stop(reason: StopReason): Promise<void>;
}
