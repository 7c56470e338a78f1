/**
 * Listens for other nodes, shakes hands with each and serves it until one side hangs up.
 *
 * A stranger costs little: at most `handshakesMax` connections that have not proved themselves, each
 * for five seconds and one kilobyte, and none of them takes the place of a peer that has. One bad
 * connection never disturbs the others.
 */
import { encodeFrame } from "../../proto/codec.ts";
import { closeQuietly, type HandshakeOptions, welcomeClient } from "./handshake.ts";
import { RpcConnection, type RpcErrorListener } from "./rpc_connection.ts";
import { RPC_LIMITS, type RpcLimits } from "./rpc_limits.ts";
import type { RpcServices } from "./rpc_service.ts";

export interface RpcServerOptions {
  readonly hostname: string;
  /** 0 for any free port; see `RpcServer.port`. */
  readonly port: number;
  readonly secret: string;
  readonly clusterName: string;
  /** This node's name, which clients check: `backend/4`. */
  readonly name: string;
  /** See `service()` and `services()`. */
  readonly services: RpcServices;
  readonly onError: RpcErrorListener;
  readonly onConnection?: (connection: RpcConnection) => void;
  readonly limits?: Partial<RpcLimits>;
  /** Peers let in, and besides them those that are still shaking hands. */
  readonly connectionsMax?: number;
  readonly handshakesMax?: number;
  readonly handshakeTimeoutMs?: number;
}

export interface RpcServer {
  readonly hostname: string;
  readonly port: number;
  /** Those that have shaken hands. */
  readonly connections: ReadonlySet<RpcConnection>;
  /** Stops listening and ends every connection. */
  close(): Promise<void>;
}

const CONNECTIONS_MAX = 1024;
const HANDSHAKES_MAX = 128;
/** After a failed accept (no file descriptors left), so that the loop does not spin. */
const ACCEPT_PAUSE_MS = 100;

/** @throws {Deno.errors.AddrInUse} and whatever else keeps a process from listening */
export function serveRpc(options: RpcServerOptions): RpcServer {
  const { hostname, port } = options;
  const listener = Deno.listen({ hostname, port, transport: "tcp" });
  const connections = new Set<RpcConnection>();
  const strangers = new Set<Deno.TcpConn>();
  let closed = false;

  const accepting = (async () => {
    while (!closed) {
      try {
        const conn = await listener.accept();
        if (
          connections.size >= (options.connectionsMax ?? CONNECTIONS_MAX) ||
          strangers.size >= (options.handshakesMax ?? HANDSHAKES_MAX)
        ) {
          turnAway(conn);
        } else {
          strangers.add(conn);
          void admit(conn);
        }
      } catch (error) {
        if (closed) return;
        options.onError(error, { peer: "listener", method: null });
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_PAUSE_MS));
      }
    }
  })();

  async function admit(conn: Deno.TcpConn): Promise<void> {
    try {
      const { peer, decoder } = await welcomeClient(conn, handshakeOptions(options));
      if (closed) return closeQuietly(conn);
      const { services, onError } = options;
      const limits = options.limits ?? {};
      const connection = new RpcConnection({ conn, decoder, peer, services, limits, onError });
      connections.add(connection);
      void connection.closed.then(() => connections.delete(connection));
      options.onConnection?.(connection);
    } catch (error) {
      closeQuietly(conn);
      const { hostname, port } = conn.remoteAddr;
      if (!closed) options.onError(error, { peer: `${hostname}:${port}`, method: null });
    } finally {
      strangers.delete(conn);
    }
  }

  return {
    hostname: listener.addr.hostname,
    port: listener.addr.port,
    connections,
    async close() {
      closed = true;
      listener.close();
      for (const conn of strangers) closeQuietly(conn);
      for (const connection of [...connections]) connection.close();
      await accepting;
    },
  };
}

export function handshakeOptions(options: {
  readonly secret: string;
  readonly clusterName: string;
  readonly name: string;
  readonly handshakeTimeoutMs?: number;
  readonly limits?: Partial<RpcLimits>;
}): HandshakeOptions {
  const { secret, clusterName, name, handshakeTimeoutMs } = options;
  return {
    secret,
    clusterName,
    name,
    frameLimits: options.limits?.frame ?? RPC_LIMITS.frame,
    ...(handshakeTimeoutMs === undefined ? {} : { timeoutMs: handshakeTimeoutMs }),
  };
}

/** Says why, if the socket takes it at once, and hangs up. */
function turnAway(conn: Deno.TcpConn): void {
  const message = "Cannot take on another connection: the limit is reached";
  const line = encodeFrame({ error: { code: "busy", message } })[0]!;
  conn.write(line).catch(() => {}).finally(() => closeQuietly(conn));
}
