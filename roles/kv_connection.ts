/**
 * The store's client over real connections: `connectKv()` gives a process its `Kv`.
 *
 * Routes come from the coordinator and from backends, of each group the newest, so a frontend can start
 * and serve without a coordinator.
 */
import type { NodeId } from "../proto/ids.ts";
import { kvConversation } from "../proto/kv_wire.ts";
import { coordinatorConversation } from "../proto/control.ts";
import type { RouteTable } from "../proto/routes.ts";
import { KvClient, type KvMethod, type KvTransport, NotAnsweredError } from "../kv/client.ts";
import { RpcError } from "./net/rpc_error.ts";
import { type Lane, type PeerLink, type PeerLinks, Peers } from "./peers.ts";
import type { RoleContext } from "./role_context.ts";

/** Values above this travel on the bulk connection. */
const BULK_BYTES = 64 * 1024;
const ROUTES_TIMEOUT_MS = 600;

export interface KvConnection {
  readonly kv: KvClient;
  readonly peers: Peers;
  close(): void;
}

/** The store for a process of `context`; connections are made as they are needed. */
export function connectKv(context: RoleContext): KvConnection {
  const peers = new Peers(context);
  const kv = new KvClient({ env: context.env, transport: new RpcTransport(context, peers) });
  return { kv, peers, close: () => peers.close() };
}

export class RpcTransport implements KvTransport {
  readonly #peers: PeerLinks;
  readonly #links: Record<Lane, PeerLink[]> = { control: [], bulk: [] };
  readonly #backends: readonly NodeId[];
  #turn = 0;

  constructor(context: Pick<RoleContext, "config">, peers: PeerLinks) {
    this.#peers = peers;
    this.#backends = context.config.node.filter((node) => node.role === "backend")
      .map((node) => node.id as NodeId);
  }

  call(
    node: NodeId,
    method: KvMethod,
    body: Record<string, unknown>,
    payload: readonly Uint8Array[],
    options: { timeoutMs: number; signal?: AbortSignal },
  ): Promise<{ body: unknown; payload: Uint8Array }> {
    let bytes = 0;
    for (const part of payload) bytes += part.length;
    const link = this.#linkTo(node, bytes > BULK_BYTES ? "bulk" : "control");
    // The body is what the client of this conversation composed; the server parses it.
    // deno-lint-ignore no-explicit-any -- one call site for all methods
    return link.call(kvConversation, method, body as any, payload, options).catch((error) => {
      if (!(error instanceof RpcError) || options.signal?.aborted) throw error;
      throw new NotAnsweredError(error.message, error.sent, { cause: error });
    });
  }

  #linkTo(node: NodeId, lane: Lane): PeerLink {
    return this.#links[lane][node] ??= this.#peers.of("backend", node, lane);
  }

  async fetchRoutes(
    preferred: readonly NodeId[],
    offer: (table: RouteTable) => void,
  ): Promise<void> {
    const options = { timeoutMs: ROUTES_TIMEOUT_MS };
    const fromCoordinator = this.#peers.coordinator
      .call(coordinatorConversation, "routes", {}, undefined, options)
      .then(({ body }) => offer(body));
    const asked = preferred.length > 0 ? preferred.slice(0, 2) : this.#someBackends();
    const fromBackends = asked.map(async (node) => {
      const peer = this.#peers.of("backend", node);
      offer((await peer.call(kvConversation, "routes", {}, undefined, options)).body);
    });
    // Mostly the coordinator knows first. It may be away, though, or work with old records, and a
    // backend may take long to answer, so nobody has the last word and nobody has to be waited for.
    const all = Promise.allSettled(fromBackends).then(() => {});
    await fromCoordinator.catch(() => all);
  }

  #someBackends(): NodeId[] {
    const count = Math.min(3, this.#backends.length);
    return Array.from({ length: count }, () => {
      this.#turn = (this.#turn + 1) % this.#backends.length;
      return this.#backends[this.#turn]!;
    });
  }
}
