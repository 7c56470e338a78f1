/**
 * One connection between two nodes after its handshake: many calls in both directions at once.
 *
 * Promises: a call settles, by answer, error, timeout or the connection's end, and tells whether it
 * may have reached the other side. What the peer sends is checked; a peer that breaks the protocol
 * is told and cut off. No queue grows without limit: see {@link RpcLimits}. Requests run at the same
 * time and are answered in the order in which they finish; they start in the order of arrival.
 *
 * Not here: making connections (rpc_server.ts, rpc_peer.ts), and doing anything twice. Start at
 * {@link RpcConnection.call} for the one side and served_requests.ts for the other. proto/rpc.ts draws the
 * messages.
 */
import { encodeLine, type FrameDecoder, FrameError } from "../../proto/codec.ts";
import {
  type CallName,
  type Conversation,
  type NoticeName,
  readEnvelope,
  type ReplyOf,
  type RequestOf,
} from "../../proto/rpc.ts";
import { FrameWriter } from "./frame_writer.ts";
import { payloadPool } from "./payload_pool.ts";
import { closeQuietly } from "./handshake.ts";
import { unwatchLiveness, watchLiveness } from "./liveness.ts";
import { type PendingCall, PendingCalls } from "./pending_calls.ts";
import { errorFromWire, RpcError } from "./rpc_error.ts";
import {
  byteCount,
  describeExcess,
  type Payload,
  RPC_LIMITS,
  type RpcLimits,
  toParts,
} from "./rpc_limits.ts";
import type { RpcServices } from "./rpc_service.ts";
import { describeIssue, type IncomingRequest, ServedRequests } from "./served_requests.ts";

export const CALL_TIMEOUT_MS = 5_000;

/** Told about our own failures and about peers that break the protocol, never about plain KvErrors. */
export type RpcErrorListener = (
  error: unknown,
  where: { readonly peer: string; readonly method: string | null },
) => void;

export interface CallOptions {
  /** {@link CALL_TIMEOUT_MS} when absent. */
  readonly timeoutMs?: number;
  /** Ends the wait with the signal's reason; the other side goes on with the request. */
  readonly signal?: AbortSignal;
}

export interface RpcConnectionOptions {
  readonly conn: Deno.TcpConn;
  readonly decoder: FrameDecoder;
  readonly peer: string;
  readonly services: RpcServices;
  readonly limits?: Partial<RpcLimits>;
  readonly onError: RpcErrorListener;
}

const READ_BYTES = 64 * 1024;
const LINGER_MS = 1_000;
/**
 * Of so many requests in one line the first half is answered before the other is looked at, as far as they
 * can be answered at once: the peer works on those answers while we work on the rest.
 */
const HALVED_COUNT_MIN = 48;

export class RpcConnection {
  /** The other end's name, from the handshake. */
  readonly peer: string;
  /** Resolves when the connection has ended, whatever the reason. */
  readonly closed: Promise<void>;
  /** Notices lost because a queue was full: ours on the way out, or the peer's on the way in. */
  droppedNotices = 0;
  readonly #options: RpcConnectionOptions;
  readonly #limits: RpcLimits;
  readonly #conn: Deno.TcpConn;
  readonly #writer: FrameWriter;
  readonly #pending: PendingCalls;
  readonly #served: ServedRequests;
  #lastId = 0;
  #receivedMs = performance.now();
  #pinged = false;
  /** Set once no more messages are taken; `#ended` once the socket is closed too. */
  #closeReason: string | null = null;
  #ended = false;
  #resumeReading: (() => void) | null = null;
  #resolveClosed!: () => void;

  /** For rpc_server.ts and rpc_peer.ts, which shake hands first. Starts reading at once. */
  constructor(options: RpcConnectionOptions) {
    this.#options = options;
    this.#limits = { ...RPC_LIMITS, ...options.limits };
    this.peer = options.peer;
    this.#conn = options.conn;
    this.closed = new Promise((resolve) => this.#resolveClosed = resolve);
    this.#writer = new FrameWriter({
      conn: this.#conn,
      onFailure: (error) => this.#end(`the socket failed: ${messageOf(error)}`),
      onDrained: () => this.#maybeResume(),
    });
    this.#pending = new PendingCalls((call) => this.#failTimedOut(call));
    this.#served = new ServedRequests({
      services: options.services,
      limits: this.#limits,
      connection: this,
      onError: options.onError,
      sendAnswer: (line, parts, onWritten) => this.#sendAnswer(line, parts, onWritten),
      onSettled: () => this.#maybeResume(),
    });
    this.#conn.setNoDelay(true);
    this.#conn.setKeepAlive(true);
    // Only handlers know of the pool: answers are the caller's for good.
    options.decoder.allocate = (bytes, line) =>
      line.re === undefined ? payloadPool.take(bytes) : new Uint8Array(bytes);
    watchLiveness(this);
    void this.#readAll();
  }

  /** Bytes that wait for the socket. */
  get queuedBytes(): number {
    return this.#writer.queuedBytes;
  }

  /** Calls that wait for an answer. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** Requests of the peer that are being handled. */
  get servedCount(): number {
    return this.#served.count;
  }

  get isClosed(): boolean {
    return this.#closeReason !== null;
  }

  /** Why the connection ended; null while it is open. */
  get closeReason(): string | null {
    return this.#closeReason;
  }

  /**
   * Asks the other side and waits for its answer.
   *
   * @param payload at most 8 MiB in all; must not change until the promise settles
   * @returns the parsed body, and the bytes behind the answer, which belong to the caller
   * @throws {KvError} the handler threw one: same code, same message, `RemoteKvError.details`
   * @throws {RpcError} everything else; `sent` false means that nothing happened over there
   */
  call<C extends Conversation, Name extends CallName<C>>(
    conversation: C,
    name: Name,
    body: RequestOf<C[Name]>,
    payload?: Payload,
    options: CallOptions = {},
  ): Promise<{ body: ReplyOf<C[Name]>; payload: Uint8Array }> {
    const unsent = (code: string, message: string) =>
      Promise.reject(
        new RpcError(code, `Cannot call ${name} of ${this.peer}: ${message}`, { sent: false }),
      );
    const { signal } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#closeReason !== null) return unsent("closed", this.#closeReason);
    if (this.#pending.size >= this.#limits.pendingMax) {
      return unsent("busy", `${this.#pending.size} calls wait for an answer`);
    }
    if (this.#writer.queuedBytes > this.#limits.queuedBytesMax) {
      return unsent("busy", `${this.#writer.queuedBytes} bytes wait to be sent`);
    }
    const parts = toParts(payload), bytes = byteCount(parts);
    const id = ++this.#lastId;
    const line = encodeLine(
      bytes === 0 ? { id, m: name, b: body } : { id, m: name, b: body, bytes },
    );
    const excess = describeExcess(this.#limits.frame, { line, payloadBytes: bytes });
    if (excess !== null) return unsent("too_large", excess);
    const method = conversation[name]!;
    return new Promise((resolve, reject) => {
      const onAbort = signal === undefined ? null : () => {
        this.#pending.take(id);
        reject(signal.reason);
      };
      if (onAbort !== null) signal!.addEventListener("abort", onAbort, { once: true });
      const nowMs = performance.now();
      if (this.#pending.size === 0 && !this.#pinged) this.#receivedMs = nowMs;
      this.#pending.add(id, {
        name,
        method,
        deadlineMs: nowMs + (options.timeoutMs ?? CALL_TIMEOUT_MS),
        frameNumber: this.#writer.add(line, parts),
        resolve: resolve as PendingCall["resolve"],
        reject,
        release: onAbort === null ? null : () => signal!.removeEventListener("abort", onAbort),
      });
      this.#maybeResume();
    });
  }

  /**
   * Tells the other side without waiting. Lost silently when the connection is closed or full.
   *
   * @param onWritten called when the socket has taken the payload; never, if the message is lost
   */
  send<C extends Conversation, Name extends NoticeName<C>>(
    _conversation: C,
    name: Name,
    body: RequestOf<C[Name]>,
    payload?: Payload,
    onWritten: (() => void) | null = null,
  ): void {
    if (this.#closeReason !== null) return;
    const parts = toParts(payload), bytes = byteCount(parts);
    const line = encodeLine(bytes === 0 ? { m: name, b: body } : { m: name, b: body, bytes });
    const excess = describeExcess(this.#limits.frame, { line, payloadBytes: bytes });
    if (this.#writer.queuedBytes > this.#limits.queuedBytesMax || excess !== null) {
      this.droppedNotices++;
      return;
    }
    this.#writer.add(line, parts, onWritten);
  }

  /** Ends the connection now. Calls that wait fail with `closed`; handlers run on, unheard. */
  close(): void {
    this.#end("it was closed on this side");
  }

  /** For liveness.ts. */
  checkLiveness(nowMs: number, lateMs: number): void {
    // After a pause of this process (a debugger, SIGSTOP) the peer's bytes may wait in the socket.
    this.#receivedMs = Math.min(nowMs, this.#receivedMs + lateMs);
    this.#writer.progressMs = Math.min(nowMs, this.#writer.progressMs + lateMs);
    const { pingAfterMs, deadAfterMs } = this.#limits;
    if (this.#writer.writing && nowMs - this.#writer.progressMs > deadAfterMs) {
      return this.#end(`the other end took no bytes for ${deadAfterMs} ms`);
    }
    if (this.#pending.size === 0) return;
    const silenceMs = nowMs - this.#receivedMs;
    if (silenceMs > deadAfterMs) {
      this.#end(`nothing was heard for ${deadAfterMs} ms while calls waited`);
    } else if (silenceMs > pingAfterMs && !this.#pinged) {
      this.#pinged = true;
      this.#writer.add(encodeLine({ ping: 1 }));
    }
  }

  async #readAll(): Promise<void> {
    const { decoder } = this.#options;
    const buffer = new Uint8Array(READ_BYTES);
    try {
      while (this.#closeReason === null) {
        for (let frame; (frame = decoder.next()) !== null;) {
          this.#receive(frame.line, frame.payload);
          if (this.#mustPause()) await this.#pause();
          else if (decoder.isHalfway(HALVED_COUNT_MIN) && this.#writer.queuedBytes > 0) await null;
          if (this.#closeReason !== null) return;
        }
        // A large payload is read into the array that its handler will get.
        const space = decoder.payloadSpace();
        const count = await this.#conn.read(space ?? buffer);
        if (count === null) {
          return this.#end(
            decoder.atBoundary
              ? "the other end closed it"
              : "the other end closed it within a message",
          );
        }
        this.#receivedMs = performance.now();
        this.#pinged = false;
        if (space === null) decoder.push(buffer.subarray(0, count));
        else decoder.filled(count);
      }
    } catch (error) {
      if (error instanceof FrameError) await this.#refuse(error, buffer);
      else this.#end(`the socket failed: ${messageOf(error)}`);
    }
  }

  #receive(line: Readonly<Record<string, unknown>>, payload: Uint8Array): void {
    const message = readEnvelope(line);
    switch (message.kind) {
      case "request":
        return this.#serve({ id: message.id, name: message.method, body: message.body, payload });
      case "notice":
        return this.#serve({ id: null, name: message.method, body: message.body, payload });
      case "reply": {
        const call = this.#pending.take(message.re);
        // Absent when the call timed out: the answer comes too late for anybody.
        if (call !== undefined) this.#resolve(call, message.body, payload);
        return;
      }
      case "failure":
        return this.#pending.take(message.re)?.reject(errorFromWire(message.error));
      case "broken":
        return this.#end(`the other end refused to go on: ${message.error.message}`);
      case "ping":
        this.#writer.add(encodeLine({ pong: 1 }));
    }
  }

  #resolve(call: PendingCall, body: unknown, payload: Uint8Array): void {
    const { reply, plain } = call.method;
    if (plain.reply?.(body)) return call.resolve({ body, payload });
    const parsed = reply!.safeParse(body);
    if (parsed.success) return call.resolve({ body: parsed.data, payload });
    const issue = describeIssue(parsed.error);
    call.reject(
      new RpcError(
        "bad_reply",
        `Cannot read the answer of ${this.peer} to ${call.name}: ${issue}`,
      ),
    );
  }

  #serve(request: IncomingRequest): void {
    // Over the limit only while we wait for the peer ourselves and so must not stop reading: two
    // nodes that both stopped would wait for each other.
    if (!this.#overLimit()) this.#served.begin(request);
    else if (request.id === null) this.droppedNotices++;
    else this.#served.refuse(request);
  }

  #sendAnswer(
    line: string,
    parts: readonly Uint8Array[],
    onWritten: (() => void) | null,
  ): void {
    if (this.#closeReason !== null) return;
    this.#writer.add(line, parts, onWritten);
    if (this.#writer.queuedBytes > this.#limits.answerBytesMax) {
      this.#end(`the other end left ${this.#writer.queuedBytes} bytes of answers unread`);
    }
  }

  #overLimit(): boolean {
    return this.#served.atLimit || this.#writer.queuedBytes >= this.#limits.answerBytesPause;
  }

  #mustPause(): boolean {
    return this.#closeReason === null && this.#pending.size === 0 && this.#overLimit();
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => this.#resumeReading = resolve);
  }

  #maybeResume(): void {
    if (this.#resumeReading === null || this.#mustPause()) return;
    const resume = this.#resumeReading;
    this.#resumeReading = null;
    resume();
  }

  #failTimedOut(call: PendingCall): void {
    const sent = call.frameNumber <= this.#writer.handedOverCount;
    const message = `No answer from ${this.peer} to ${call.name} within the deadline`;
    call.reject(new RpcError("timeout", message, { sent }));
  }

  /** The peer broke the protocol: say so, hang up, and let it read what we said. */
  async #refuse(error: FrameError, buffer: Uint8Array): Promise<void> {
    const reason = `the other end broke the protocol: ${error.message}`;
    this.#options.onError(error, { peer: this.peer, method: null });
    this.#writer.add(encodeLine({ error: { code: error.code, message: error.message } }));
    this.#stop(reason);
    const deadline = setTimeout(() => this.#end(reason), LINGER_MS);
    try {
      await this.#writer.whenIdle();
      await this.#conn.closeWrite();
      // Closing with unread bytes would reset the connection and take our last line with it.
      while (await this.#conn.read(buffer) !== null);
    } catch {
      // It is gone, one way or the other.
    } finally {
      clearTimeout(deadline);
      this.#end(reason);
    }
  }

  /** No more calls, no more answers; those who wait are told. */
  #stop(reason: string): void {
    if (this.#closeReason !== null) return;
    this.#closeReason = reason;
    const { handedOverCount } = this.#writer;
    for (const call of this.#pending.takeAll()) {
      const message = `Cannot finish ${call.name} of ${this.peer}: ${reason}`;
      call.reject(new RpcError("closed", message, { sent: call.frameNumber <= handedOverCount }));
    }
    this.#maybeResume();
  }

  #end(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    // In this order, so that nothing queued leaves after its caller was told that it did not.
    this.#writer.end();
    this.#stop(reason);
    unwatchLiveness(this);
    closeQuietly(this.#conn);
    this.#resolveClosed();
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
