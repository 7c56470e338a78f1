/** Connections to other nodes by name, made when first needed and shared by all who ask. */
import type { NodeEntry, Role } from "../proto/cluster_config.ts";
import { RpcPeer } from "./net/rpc_peer.ts";
import type { RpcServices } from "./net/rpc_service.ts";
import type { RoleContext } from "./role_context.ts";

/** The secret as the handshake wants it. */
export const secretText = (context: RoleContext): string => context.secret.toHex();

/**
 * Control and bulk go over connections of their own, so that a large append cannot delay a
 * heartbeat behind it.
 */
export type Lane = "control" | "bulk";

/** Another node as something to talk to: over sockets, or simulated. */
export type PeerLink = Pick<RpcPeer, "call" | "send">;

export interface PeerLinks {
  readonly coordinator: PeerLink;
  of(role: Role, id: number, lane?: Lane): PeerLink;
  close(): void;
}

export class Peers implements PeerLinks {
  readonly #context: RoleContext;
  readonly #name: string;
  readonly #services: RpcServices | undefined;
  readonly #peers = new Map<string, RpcPeer>();

  constructor(context: RoleContext, options: { services?: RpcServices } = {}) {
    this.#context = context;
    this.#name = `${context.node.role}/${context.node.id}`;
    this.#services = options.services;
  }

  get coordinator(): RpcPeer {
    const entry = this.#context.config.node.find((node) => node.role === "coordinator")!;
    return this.of("coordinator", entry.id);
  }

  /** @throws when the configuration has no such node */
  of(role: Role, id: number, lane: Lane = "control"): RpcPeer {
    const key = `${role}/${id} ${lane}`;
    let peer = this.#peers.get(key);
    if (peer === undefined) {
      peer = this.#make(this.#entry(role, id));
      this.#peers.set(key, peer);
    }
    return peer;
  }

  close(): void {
    for (const peer of this.#peers.values()) peer.close();
  }

  #entry(role: Role, id: number): NodeEntry {
    const entry = this.#context.config.node.find((node) => node.role === role && node.id === id);
    if (entry === undefined) throw new Error(`The configuration has no node ${role}/${id}`);
    return entry;
  }

  #make(entry: NodeEntry): RpcPeer {
    const { env, config } = this.#context;
    return new RpcPeer({
      hostname: entry.host,
      port: entry.port,
      secret: secretText(this.#context),
      clusterName: config.cluster.name,
      name: this.#name,
      expectedPeer: `${entry.role}/${entry.id}`,
      ...(this.#services === undefined ? {} : { services: this.#services }),
      onError: (error, where) => {
        const { message } = error as Error;
        env.log("warning", "a message failed", { peer: where.peer, method: where.method, message });
      },
      backoffMsMin: 20,
      backoffMsMax: 250,
    });
  }
}
