/**
 * Tells the coordinator that a process has ended: the proof of death that lets it elect at once
 * instead of waiting out a lease.
 *
 * A report is tried again while the coordinator is away, for as long as the lease could still
 * matter; after that the coordinator has found out by itself.
 */
import type { ClusterConfig, NodeEntry } from "../proto/cluster_config.ts";
import { coordinatorConversation } from "../proto/control.ts";
import { RpcPeer } from "./net/rpc_peer.ts";

const TRY_FOR_MS = 30_000;
const RETRY_MS = 100;
/** Nodes that crash in a loop must not pile up reports. */
const WAITING_MAX = 200;

export interface ExitedProcess {
  readonly node: NodeEntry;
  /** The life of the process that ended: its spawn id. */
  readonly spawn: string;
}

export class ExitReporter {
  readonly #coordinator: RpcPeer | null;
  readonly #waiting = new Set<Promise<void>>();
  readonly #stop = new AbortController();

  constructor({ config, secret }: {
    readonly config: ClusterConfig;
    readonly secret: Uint8Array;
  }) {
    const coordinator = config.node.find((node) => node.role === "coordinator");
    this.#coordinator = coordinator === undefined ? null : new RpcPeer({
      hostname: coordinator.host,
      port: coordinator.port,
      secret: secret.toHex(),
      clusterName: config.cluster.name,
      name: "supervisor",
      expectedPeer: `coordinator/${coordinator.id}`,
      onError: () => {},
    });
  }

  /** Returns at once; the report is on its way. */
  report(exited: ExitedProcess): void {
    // The coordinator's own end is news to nobody who could act on it.
    if (exited.node.role === "coordinator" || this.#waiting.size >= WAITING_MAX) return;
    const sent = this.#send(exited).finally(() => this.#waiting.delete(sent));
    this.#waiting.add(sent);
  }

  /** Gives up what is still on its way. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#coordinator?.close();
    await Promise.all(this.#waiting);
  }

  async #send({ node, spawn }: ExitedProcess): Promise<void> {
    const untilMs = performance.now() + TRY_FOR_MS;
    const { signal } = this.#stop;
    while (!signal.aborted && performance.now() < untilMs) {
      try {
        const body = { spawn, node: `${node.role}/${node.id}` };
        await this.#coordinator?.call(coordinatorConversation, "exited", body, undefined, {
          signal,
        });
        return;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }
}
