/** Makes a connection to another node: TCP, then the handshake. Keeping one alive is rpc_peer.ts. */
import { HelloError } from "../../proto/hello.ts";
import { closeQuietly, greetServer } from "./handshake.ts";
import { RpcConnection, type RpcErrorListener } from "./rpc_connection.ts";
import { RpcError } from "./rpc_error.ts";
import type { RpcLimits } from "./rpc_limits.ts";
import { handshakeOptions } from "./rpc_server.ts";
import { NO_SERVICES, type RpcServices } from "./rpc_service.ts";

export interface RpcClientOptions {
  readonly hostname: string;
  readonly port: number;
  readonly secret: string;
  readonly clusterName: string;
  /** This end's name: `backend/4`, `frontend/0`, `client`. */
  readonly name: string;
  /** Who must answer there. Absent: anybody who knows the secret. */
  readonly expectedPeer?: string;
  /** What the other end may ask of us over this connection. */
  readonly services?: RpcServices;
  readonly onError: RpcErrorListener;
  readonly limits?: Partial<RpcLimits>;
  readonly connectTimeoutMs?: number;
  readonly handshakeTimeoutMs?: number;
}

/** A host that is up answers in milliseconds; one that is down never does. */
const CONNECT_TIMEOUT_MS = 2_000;

/** @throws {RpcError} `unreachable` or `refused`, with `sent` false */
export async function connectRpc(options: RpcClientOptions): Promise<RpcConnection> {
  const conn = await connectTcp(options);
  try {
    const { peer, decoder } = await greetServer(conn, handshakeOptions(options));
    const expected = options.expectedPeer;
    if (expected !== undefined && peer !== expected) {
      throw new HelloError("bad_hello", `"${peer}" listens there, not "${expected}"`);
    }
    const { onError, services = NO_SERVICES, limits = {} } = options;
    return new RpcConnection({ conn, decoder, peer, services, limits, onError });
  } catch (cause) {
    closeQuietly(conn);
    // A hang-up within the handshake is a node that is going down, not one that refuses us.
    const refused = cause instanceof HelloError && cause.code !== "bad_hello";
    throw failedToConnect(options, refused ? "refused" : "unreachable", cause);
  }
}

async function connectTcp(options: RpcClientOptions): Promise<Deno.TcpConn> {
  const { hostname, port } = options;
  const timeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
  const abort = new AbortController();
  const deadline = setTimeout(() => abort.abort(), timeoutMs);
  try {
    return await Deno.connect({ hostname, port, transport: "tcp", signal: abort.signal });
  } catch (cause) {
    const reason = abort.signal.aborted ? new Error(`no answer within ${timeoutMs} ms`) : cause;
    throw failedToConnect(options, "unreachable", reason);
  } finally {
    clearTimeout(deadline);
  }
}

function failedToConnect(
  { hostname, port, expectedPeer }: RpcClientOptions,
  code: "unreachable" | "refused",
  cause: unknown,
): RpcError {
  const where = expectedPeer === undefined
    ? `${hostname}:${port}`
    : `${expectedPeer} at ${hostname}:${port}`;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new RpcError(code, `Cannot connect to ${where}: ${reason}`, { sent: false, cause });
}
