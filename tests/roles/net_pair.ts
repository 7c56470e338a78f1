/** A real server and real connections to it, for the tests of roles/net. */
import assert from "node:assert/strict";
import { z } from "zod";
import { KvError } from "../../kv/errors.ts";
import { proveHello } from "../../proto/hello.ts";
import { method, oneWay } from "../../proto/rpc.ts";
import { PROTOCOL_VERSION } from "../../proto/version.ts";
import { connectRpc, type RpcClientOptions } from "../../roles/net/rpc_client.ts";
import type { RpcConnection } from "../../roles/net/rpc_connection.ts";
import { RpcError } from "../../roles/net/rpc_error.ts";
import { type RpcServer, type RpcServerOptions, serveRpc } from "../../roles/net/rpc_server.ts";
import { type Handlers, service } from "../../roles/net/rpc_service.ts";

export const CHAT = {
  /** Answers with the same words and the bytes reversed. */
  echo: method(z.object({ words: z.string() }), z.object({ words: z.string() })),
  /** Answers when the test lets it: see `Pair.held`. */
  hold: method(z.object({}), z.object({})),
  fail: method(z.object({ how: z.enum(["kv", "details", "bug", "rpc", "loop"]) }), z.object({})),
  /** Answers what its own schema does not allow. */
  lie: method(z.object({}), z.object({ truth: z.literal(true) })),
  note: oneWay(z.object({ words: z.string() })),
} as const;

export interface Pair extends AsyncDisposable {
  readonly server: RpcServer;
  /** What `note` brought, in order. */
  readonly notes: string[];
  /** One function per `hold` that waits; calling it answers. */
  readonly held: (() => void)[];
  readonly serverErrors: unknown[];
  connect(options?: Partial<RpcClientOptions>): Promise<RpcConnection>;
}

/** Ours in every hello. */
export const NONCE = "ab".repeat(16);
export const IDENTITY = { secret: "open sesame", clusterName: "home", hostname: "127.0.0.1" };

export function openPair(options: Partial<RpcServerOptions> = {}): Pair {
  const notes: string[] = [], held: (() => void)[] = [], serverErrors: unknown[] = [];
  const connections: RpcConnection[] = [];
  const handlers: Handlers<typeof CHAT> = {
    echo: ({ words }, payload) => ({ body: { words }, payload: payload.reverse() }),
    hold: () => new Promise((resolve) => held.push(() => resolve({}))),
    fail({ how }) {
      if (how === "kv") throw new KvError("row_too_large", "Cannot grow the row");
      if (how === "rpc") throw new RpcError("own_code", "No such luck", { details: { luck: 0 } });
      if (how === "loop") {
        const loop: Record<string, unknown> = {};
        loop.loop = loop;
        return loop as never; // what JSON cannot say
      }
      if (how === "bug") throw new TypeError("undefined is not a function");
      throw Object.assign(new KvError("not_primary", "Ask another"), { details: { hint: 3 } });
    },
    lie: () => ({ truth: false } as never),
    note: ({ words }) => void notes.push(words),
  };
  const server = serveRpc({
    ...IDENTITY,
    port: 0,
    name: "backend/1",
    services: service(CHAT, handlers),
    onError: (error) => serverErrors.push(error),
    ...options,
  });
  return {
    server,
    notes,
    held,
    serverErrors,
    async connect(clientOptions = {}) {
      const connection = await connectRpc({
        ...IDENTITY,
        port: server.port,
        name: "client",
        onError: () => {},
        ...clientOptions,
      });
      connections.push(connection);
      return connection;
    },
    async [Symbol.asyncDispose]() {
      for (const connection of connections) connection.close();
      await server.close();
    },
  };
}

/** Polls until `condition` holds. */
export async function until(condition: () => boolean, what: string, limitMs = 60_000) {
  const endMs = performance.now() + limitMs;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`Waited ${limitMs} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A client that shook hands like a node and then writes whatever it likes. */
export async function connectRaw(port: number): Promise<RawClient> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  return new RawClient(conn);
}

export class RawClient implements Disposable {
  #buffered = "";
  readonly #chunk = new Uint8Array(64 * 1024);
  constructor(readonly conn: Deno.TcpConn) {}

  async write(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    for (let at = 0; at < bytes.length;) at += await this.conn.write(bytes.subarray(at));
  }

  /** The next line, or null at the end of the stream or when it was reset. */
  async readLine(): Promise<string | null> {
    for (;;) {
      const end = this.#buffered.indexOf("\n");
      if (end !== -1) {
        const line = this.#buffered.slice(0, end);
        this.#buffered = this.#buffered.slice(end + 1);
        return line;
      }
      const count = await this.conn.read(this.#chunk).catch(() => null);
      if (count === null) return null;
      this.#buffered += new TextDecoder().decode(this.#chunk.subarray(0, count));
    }
  }

  /** Every line until the other end hangs up. */
  async readToEnd(): Promise<string[]> {
    const lines: string[] = [];
    for (let line; (line = await this.readLine()) !== null;) lines.push(line);
    return lines;
  }

  [Symbol.dispose](): void {
    try {
      this.conn.close();
    } catch {
      // Closed by the test.
    }
  }
}

/** The proof of somebody who knows the secret, as one line. */
export async function honestHello(client: RawClient): Promise<string> {
  const { nonce: serverNonce } = JSON.parse((await client.readLine())!);
  const proof = await proveHello({
    secret: IDENTITY.secret,
    cluster: IDENTITY.clusterName,
    serverNonce,
    clientNonce: NONCE,
    direction: "client",
    from: "backend/4",
  });
  const hello = { penncloud: PROTOCOL_VERSION, cluster: IDENTITY.clusterName, from: "backend/4" };
  return JSON.stringify({ ...hello, nonce: NONCE, proof }) + "\n";
}

/** A client that has said the right hello and may go on as it likes. */
export async function shakenHands(pair: Pair): Promise<RawClient> {
  const client = await connectRaw(pair.server.port);
  await client.write(await honestHello(client));
  assert.match((await client.readLine())!, /"re":"hello"/);
  return client;
}
