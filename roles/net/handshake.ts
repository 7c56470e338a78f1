/**
 * The handshake of proto/hello.ts on a real connection, both ends of it, with its deadline.
 *
 * On success the caller goes on with the returned decoder, which may hold the first frames already.
 * On failure the other end has been told why, where the reason is its own, and the caller closes.
 */
import type { z } from "zod";
import {
  encodeFrame,
  FRAME_LIMITS,
  FrameDecoder,
  FrameError,
  type FrameLimits,
} from "../../proto/codec.ts";
import {
  checkProof,
  checkVersion,
  ClientHello,
  HELLO_LIMITS,
  HELLO_TIMEOUT_MS,
  HelloError,
  type HelloErrorCode,
  proveHello,
  ServerHello,
  Welcome,
} from "../../proto/hello.ts";
import { readEnvelope } from "../../proto/rpc.ts";
import { PROTOCOL_VERSION } from "../../proto/version.ts";

export interface HandshakeOptions {
  readonly secret: string;
  readonly clusterName: string;
  /** Our own name: `backend/4`, `supervisor`, `client`. */
  readonly name: string;
  readonly timeoutMs?: number;
  /** Of the frames that come after the handshake. */
  readonly frameLimits?: FrameLimits;
}

export interface Handshaken {
  readonly peer: string;
  readonly decoder: FrameDecoder;
}

/** @throws {HelloError | FrameError} the client is not let in, and has been told */
export function welcomeClient(conn: Deno.Conn, options: HandshakeOptions): Promise<Handshaken> {
  return withDeadline(conn, options, async (decoder) => {
    try {
      const serverNonce = freshNonce();
      await writeLine(conn, { penncloud: PROTOCOL_VERSION, nonce: serverNonce });
      const hello = parseHello(ClientHello, await readLine(conn, decoder));
      if (hello.cluster !== options.clusterName) {
        throw new HelloError(
          "wrong_cluster",
          `Cannot let in a node of cluster "${hello.cluster}": this is "${options.clusterName}"`,
        );
      }
      const terms = {
        secret: options.secret,
        cluster: options.clusterName,
        serverNonce,
        clientNonce: hello.nonce,
      };
      if (!await checkProof({ ...terms, direction: "client", from: hello.from }, hello.proof)) {
        throw new HelloError(
          "wrong_secret",
          `Cannot let in "${hello.from}": its cluster secret is not ours`,
        );
      }
      const proof = await proveHello({ ...terms, direction: "server", from: options.name });
      await writeLine(conn, { re: "hello", from: options.name, proof });
      return hello.from;
    } catch (error) {
      if (error instanceof HelloError || error instanceof FrameError) {
        const { code, message } = error;
        await writeLine(conn, { error: { code, message } }).catch(() => {});
      }
      throw error;
    }
  });
}

/** @throws {HelloError | FrameError} the server refuses us, or we refuse it */
export function greetServer(conn: Deno.Conn, options: HandshakeOptions): Promise<Handshaken> {
  return withDeadline(conn, options, async (decoder) => {
    const server = parseHello(ServerHello, await readLine(conn, decoder));
    const clientNonce = freshNonce();
    const terms = {
      secret: options.secret,
      cluster: options.clusterName,
      serverNonce: server.nonce,
      clientNonce,
    };
    await writeLine(conn, {
      penncloud: PROTOCOL_VERSION,
      cluster: options.clusterName,
      from: options.name,
      nonce: clientNonce,
      proof: await proveHello({ ...terms, direction: "client", from: options.name }),
    });
    const welcome = parseHello(Welcome, await readLine(conn, decoder));
    if (!await checkProof({ ...terms, direction: "server", from: welcome.from }, welcome.proof)) {
      throw new HelloError(
        "wrong_secret",
        `Cannot trust "${welcome.from}": it does not know our cluster secret`,
      );
    }
    return welcome.from;
  });
}

/** Closes the connection when the time is up, which ends whatever read or write is under way. */
async function withDeadline(
  conn: Deno.Conn,
  options: HandshakeOptions,
  shake: (decoder: FrameDecoder) => Promise<string>,
): Promise<Handshaken> {
  const timeoutMs = options.timeoutMs ?? HELLO_TIMEOUT_MS;
  const decoder = new FrameDecoder(HELLO_LIMITS);
  let late = false;
  const deadline = setTimeout(() => {
    late = true;
    closeQuietly(conn);
  }, timeoutMs);
  try {
    const peer = await shake(decoder);
    decoder.limits = options.frameLimits ?? FRAME_LIMITS;
    return { peer, decoder };
  } catch (error) {
    if (!late) throw error;
    throw new HelloError(
      "bad_hello",
      `Cannot finish the handshake: not done after ${timeoutMs} ms`,
    );
  } finally {
    clearTimeout(deadline);
  }
}

export function closeQuietly(closable: { close(): void }): void {
  try {
    closable.close();
  } catch {
    // It is closed already.
  }
}

async function readLine(
  conn: Deno.Conn,
  decoder: FrameDecoder,
): Promise<Readonly<Record<string, unknown>>> {
  for (;;) {
    const frame = decoder.next();
    if (frame !== null) return frame.line;
    const buffer = new Uint8Array(HELLO_LIMITS.lineBytesMax);
    const count = await conn.read(buffer);
    if (count === null) {
      throw new HelloError("bad_hello", "Cannot finish the handshake: the other end hung up");
    }
    decoder.push(buffer.subarray(0, count));
  }
}

async function writeLine(conn: Deno.Conn, line: Record<string, unknown>): Promise<void> {
  for (const part of encodeFrame(line)) {
    for (let written = 0; written < part.length;) {
      written += await conn.write(part.subarray(written));
    }
  }
}

/** The version is looked at first: another version's hello may have another shape. */
function parseHello<T>(schema: z.ZodType<T>, line: Readonly<Record<string, unknown>>): T {
  if (typeof line.penncloud === "number") checkVersion(line.penncloud);
  const hello = schema.safeParse(line);
  if (hello.success) return hello.data;
  const envelope = line.error === undefined ? null : readEnvelope(line);
  if (envelope?.kind === "broken") {
    const { code, message } = envelope.error;
    throw new HelloError(code as HelloErrorCode, `The other end refused: ${message}`);
  }
  throw new HelloError("bad_hello", "Cannot finish the handshake: that is no hello");
}

function freshNonce(): string {
  return crypto.getRandomValues(new Uint8Array(16)).toHex();
}
