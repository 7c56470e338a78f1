/**
 * The writing half of a connection: a queue of frames and one loop that hands them to the socket.
 *
 * Everything queued while a write is under way goes out with the next one, so a busy connection
 * makes few large writes and an idle one writes at once. Lines and small payloads are joined in a
 * buffer, and small frames in a row share one line; large payloads go to the socket as they are. The queue is bounded by its user, who looks
 * at `queuedBytes` before adding to it.
 */
import { joinLines } from "../../proto/codec.ts";
import { byteCount } from "./rpc_limits.ts";

interface QueuedFrame {
  /** Without its break. */
  readonly line: string;
  readonly payload: readonly Uint8Array[];
  readonly payloadBytes: number;
  readonly onWritten: (() => void) | null;
}

export interface FrameWriterOptions {
  readonly conn: Deno.Conn;
  /** Called once when the socket fails; nothing is written after that. */
  readonly onFailure: (error: unknown) => void;
  /** Called each time everything queued has been written. */
  readonly onDrained: () => void;
}

const BUFFER_BYTES = 32 * 1024;
/** A payload of up to this size is cheaper to copy than to write on its own. */
const JOINED_PAYLOAD_BYTES_MAX = 8 * 1024;
/** Frames that share a line: so many, each and all together of so many bytes at most. */
const SHARED_FRAMES_MAX = 256;
const SHARED_FRAME_BYTES_MAX = 2 * 1024;
const SHARED_PAYLOAD_BYTES_MAX = 16 * 1024;
const SHARED_LINE_LENGTH_MAX = 16 * 1024;
const LINE_BREAK = 10;
const NO_PAYLOAD: readonly Uint8Array[] = [];
const utf8Encoder = new TextEncoder();

export class FrameWriter {
  /** What waits for the socket. Lines count one per UTF-16 unit: good enough for a limit. */
  queuedBytes = 0;
  /** Frames handed to the socket so far: frame n (from 1) is still ours while this is below n. */
  handedOverCount = 0;
  /** When the socket last took bytes, or the queue last stopped being empty (performance.now()). */
  progressMs = 0;
  readonly #options: FrameWriterOptions;
  #queue: QueuedFrame[] = [];
  #queuedCount = 0;
  #writing = false;
  #ended = false;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #used = 0;
  #idleWaiters: (() => void)[] = [];

  constructor(options: FrameWriterOptions) {
    this.#options = options;
  }

  /**
   * Queues one frame and returns its number. The payload must not change until it is written.
   * After `end()` frames are taken and never handed over.
   *
   * @param onWritten called when the socket has taken all of the payload; never, if that does not happen
   */
  add(
    line: string,
    payload: readonly Uint8Array[] = NO_PAYLOAD,
    onWritten: (() => void) | null = null,
  ): number {
    if (this.#ended) return ++this.#queuedCount;
    const payloadBytes = byteCount(payload);
    this.#queue.push({ line, payload, payloadBytes, onWritten });
    this.queuedBytes += line.length + payloadBytes;
    if (!this.#writing) {
      this.#writing = true;
      this.progressMs = performance.now();
      // A microtask later, so that all frames of one turn leave together.
      queueMicrotask(() => void this.#writeAll());
    }
    return ++this.#queuedCount;
  }

  get writing(): boolean {
    return this.#writing;
  }

  /** Resolves when everything queued has been written, or never will be. */
  whenIdle(): Promise<void> {
    if (!this.#writing) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /** Drops what is queued. A write that is under way fails when its owner closes the socket. */
  end(): void {
    this.#ended = true;
    this.#queue = [];
    this.queuedBytes = 0;
  }

  async #writeAll(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        const frames = this.#queue;
        this.#queue = [];
        for (let at = 0; at < frames.length;) {
          if (this.#ended) return;
          const shared = frames.length === 1 ? frames : sharedFrom(frames, at);
          at += shared.length;
          this.handedOverCount += shared.length;
          const rest = shared.length > 1 ? this.#writeShared(shared) : this.#writeFrame(shared[0]!);
          if (rest !== undefined) await rest;
        }
        await this.#flush();
      }
      if (!this.#ended) this.#options.onDrained();
    } catch (error) {
      if (!this.#ended) {
        this.end();
        this.#options.onFailure(error);
      }
    } finally {
      this.#writing = false;
      for (const resolve of this.#idleWaiters.splice(0)) resolve();
    }
  }

  #writeShared(frames: readonly QueuedFrame[]): Promise<void> | undefined {
    const lines: string[] = [], payload: Uint8Array[] = [];
    let lineLengths = 0, payloadBytes = 0;
    for (const frame of frames) {
      lines.push(frame.line);
      lineLengths += frame.line.length;
      payloadBytes += frame.payloadBytes;
      for (const part of frame.payload) payload.push(part);
    }
    const line = joinLines(lines, payloadBytes);
    // What the joining adds was never counted as queued.
    this.queuedBytes += line.length - lineLengths;
    return this.#writeFrame({ line, payload, payloadBytes, onWritten: null });
  }

  #writeFrame(frame: QueuedFrame): Promise<void> | undefined {
    const { line, payload, payloadBytes, onWritten } = frame;
    // Most frames take this way, without a promise.
    const fits = line.length + payloadBytes < BUFFER_BYTES - this.#used && onWritten === null;
    if (!fits || !this.#encode(line, payloadBytes)) return this.#writeLargeFrame(frame);
    for (const part of payload) this.#join(part);
    return undefined;
  }

  async #writeLargeFrame({ line, payload, onWritten }: QueuedFrame): Promise<void> {
    if (!this.#encode(line, 0)) {
      await this.#flush();
      if (!this.#encode(line, 0)) {
        await this.#write(utf8Encoder.encode(`${line}\n`));
        this.#settle(line.length);
      }
    }
    for (const part of payload) {
      if (part.length > BUFFER_BYTES - this.#used) await this.#flush();
      if (part.length <= JOINED_PAYLOAD_BYTES_MAX) {
        this.#join(part);
        continue;
      }
      await this.#flush();
      await this.#write(part);
      this.#settle(part.length);
    }
    // Small parts lie copied in our own buffer by now.
    onWritten?.();
  }

  /** False, and nothing is changed, when the line does not fit with so many bytes behind it. */
  #encode(line: string, behind: number): boolean {
    const room = this.#buffer.subarray(this.#used, BUFFER_BYTES - behind - 1);
    const { read, written } = utf8Encoder.encodeInto(line, room);
    if (read < line.length) return false;
    this.#used += written;
    this.#buffer[this.#used++] = LINE_BREAK;
    this.#settle(line.length);
    return true;
  }

  #join(part: Uint8Array): void {
    this.#buffer.set(part, this.#used);
    this.#used += part.length;
    this.#settle(part.length);
  }

  async #flush(): Promise<void> {
    if (this.#used === 0) return;
    const bytes = this.#buffer.subarray(0, this.#used);
    await this.#write(bytes);
    this.#used = 0;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    let written = 0;
    while (written < bytes.length) {
      const rest = written === 0 ? bytes : bytes.subarray(written);
      written += await this.#options.conn.write(rest);
      this.progressMs = performance.now();
    }
  }

  #settle(bytes: number): void {
    if (!this.#ended) this.queuedBytes -= bytes;
  }
}

/** The frames from `at` on that go into one line: small ones in a row. At least the one at `at`. */
function sharedFrom(frames: readonly QueuedFrame[], at: number): readonly QueuedFrame[] {
  let end = at, lineLength = 0, payloadBytes = 0;
  for (; end < frames.length && end - at < SHARED_FRAMES_MAX; end++) {
    const frame = frames[end]!, { length } = frame.line;
    lineLength += length;
    payloadBytes += frame.payloadBytes;
    const isSmall = length + frame.payloadBytes <= SHARED_FRAME_BYTES_MAX &&
      frame.onWritten === null;
    if (!isSmall || payloadBytes > SHARED_PAYLOAD_BYTES_MAX) break;
    if (lineLength > SHARED_LINE_LENGTH_MAX) break;
  }
  return frames.slice(at, Math.max(end, at + 1));
}
