/**
 * Another node as something to talk to: one connection, made when it is first needed and made again
 * after it was lost.
 *
 * A call waits for a connection attempt that is under way, and fails at once, with `unreachable`,
 * while the peer is known to be away: whoever routes around dead nodes wants to hear of it early.
 * Attempts are spaced by a back-off with jitter. A request is never sent twice.
 */
import type { CallName, Conversation, NoticeName, ReplyOf, RequestOf } from "../../proto/rpc.ts";
import { connectRpc, type RpcClientOptions } from "./rpc_client.ts";
import { CALL_TIMEOUT_MS, type CallOptions, type RpcConnection } from "./rpc_connection.ts";
import { RpcError } from "./rpc_error.ts";
import type { Payload } from "./rpc_limits.ts";

export interface RpcPeerOptions extends RpcClientOptions {
  readonly backoffMsMin?: number;
  readonly backoffMsMax?: number;
  readonly onConnected?: (connection: RpcConnection) => void;
  /** The connection was lost, or an attempt to make one failed. A reason to suspect, no proof. */
  readonly onDisconnected?: (reason: string) => void;
}

const BACKOFF_MS_MIN = 20;
const BACKOFF_MS_MAX = 500;
/** Notices that wait for a connection attempt; they are news, and old news is worthless. */
const WAITING_NOTICES_MAX = 64;

export class RpcPeer {
  readonly #options: RpcPeerOptions;
  #connection: RpcConnection | null = null;
  #attempt: Promise<RpcConnection> | null = null;
  #failures = 0;
  #notBeforeMs = 0;
  #lastError: RpcError | null = null;
  #waitingNotices = 0;
  #closed = false;

  constructor(options: RpcPeerOptions) {
    this.#options = options;
  }

  /** The open connection, or null. */
  get connection(): RpcConnection | null {
    return this.#connection;
  }

  get queuedBytes(): number {
    return this.#connection?.queuedBytes ?? 0;
  }

  /** As `RpcConnection.call`; the time to connect counts towards the timeout. */
  call<C extends Conversation, Name extends CallName<C>>(
    conversation: C,
    name: Name,
    body: RequestOf<C[Name]>,
    payload?: Payload,
    options: CallOptions = {},
  ): Promise<{ body: ReplyOf<C[Name]>; payload: Uint8Array }> {
    if (this.#connection !== null) {
      return this.#connection.call(conversation, name, body, payload, options);
    }
    return this.#callWhenConnected(conversation, name, body, payload, options);
  }

  /** As `RpcConnection.send`. Waits for an attempt under way, and is dropped when that fails. */
  send<C extends Conversation, Name extends NoticeName<C>>(
    conversation: C,
    name: Name,
    body: RequestOf<C[Name]>,
    payload?: Payload,
    onWritten?: () => void,
  ): void {
    if (this.#connection !== null) {
      return this.#connection.send(conversation, name, body, payload, onWritten);
    }
    if (this.#waitingNotices >= WAITING_NOTICES_MAX) return;
    this.#waitingNotices++;
    this.connect().then(
      (connection) => connection.send(conversation, name, body, payload, onWritten),
      () => {},
    ).finally(() => this.#waitingNotices--);
  }

  /**
   * The connection: the open one, or the outcome of the attempt under way or of a new one.
   *
   * @throws {RpcError} `unreachable`, `refused` or `closed`, with `sent` false
   */
  connect(): Promise<RpcConnection> {
    if (this.#connection !== null) return Promise.resolve(this.#connection);
    if (this.#closed) return Promise.reject(this.#closedError());
    if (this.#attempt !== null) return this.#attempt;
    if (performance.now() < this.#notBeforeMs) {
      const { code, message, cause } = this.#lastError!;
      return Promise.reject(new RpcError(code, message, { sent: false, cause }));
    }
    this.#attempt = this.#connect().finally(() => this.#attempt = null);
    return this.#attempt;
  }

  /** Ends the connection and refuses calls from now on. */
  close(): void {
    this.#closed = true;
    this.#connection?.close();
  }

  async #connect(): Promise<RpcConnection> {
    let connection: RpcConnection;
    try {
      connection = await connectRpc(this.#options);
    } catch (error) {
      this.#backOff(error as RpcError);
      throw error;
    }
    if (this.#closed) {
      connection.close();
      throw this.#closedError();
    }
    this.#connection = connection;
    this.#failures = 0;
    void connection.closed.then(() => {
      this.#connection = null;
      const reason = connection.closeReason!;
      // The first attempt after a loss is made at once: the other side may just have restarted.
      if (!this.#closed) this.#options.onDisconnected?.(reason);
    });
    this.#options.onConnected?.(connection);
    return connection;
  }

  #backOff(error: RpcError): void {
    const { backoffMsMin = BACKOFF_MS_MIN, backoffMsMax = BACKOFF_MS_MAX } = this.#options;
    const fullMs = Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(this.#failures, 16));
    this.#failures++;
    this.#lastError = error;
    this.#notBeforeMs = performance.now() + fullMs * (0.5 + Math.random() / 2);
    this.#options.onDisconnected?.(error.message);
  }

  async #callWhenConnected<C extends Conversation, Name extends CallName<C>>(
    conversation: C,
    name: Name,
    body: RequestOf<C[Name]>,
    payload: Payload | undefined,
    options: CallOptions,
  ): Promise<{ body: ReplyOf<C[Name]>; payload: Uint8Array }> {
    const { timeoutMs = CALL_TIMEOUT_MS, signal } = options;
    const startMs = performance.now();
    const connection = await this.#connectWithin(timeoutMs, signal);
    const leftMs = timeoutMs - (performance.now() - startMs);
    return await connection.call(conversation, name, body, payload, {
      ...options,
      timeoutMs: leftMs,
    });
  }

  #connectWithin(timeoutMs: number, signal: AbortSignal | undefined): Promise<RpcConnection> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const { hostname, port } = this.#options;
      const message = `Cannot connect to ${hostname}:${port}: not done after ${timeoutMs} ms`;
      const onAbort = () => finish(() => reject(signal!.reason));
      const timer = setTimeout(
        () => finish(() => reject(new RpcError("unreachable", message, { sent: false }))),
        timeoutMs,
      );
      const finish = (settle: () => void) => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        settle();
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.connect().then(
        (connection) => finish(() => resolve(connection)),
        (error) => finish(() => reject(error)),
      );
    });
  }

  #closedError(): RpcError {
    const { hostname, port } = this.#options;
    const message = `Cannot talk to ${hostname}:${port}: this node is stopping`;
    return new RpcError("closed", message, { sent: false });
  }
}
