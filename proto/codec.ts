/**
 * Frames: what travels on a connection between two nodes.
 *
 *     line     UTF-8 JSON object, without line breaks
 *     \n
 *     payload  exactly N raw bytes, when the line holds `"bytes": N`
 *
 * Frames that leave at the same time may share a line, `{"all": [...], "bytes": N}`: the objects are their
 * lines, and their payloads follow one behind the other. To parse one such line takes half the time that
 * many short ones take. The decoder gives single frames either way.
 *
 * {@link FrameDecoder} takes bytes as they come off a socket, cut anywhere, and gives whole frames.
 * It looks at each byte once, holds at most one line and one payload, and fills a payload straight
 * into the one array that it hands out. What the lines mean is rpc.ts and hello.ts; a stream that
 * breaks the format is of no more use, so after a {@link FrameError} the decoder gives nothing.
 */

export interface FrameLimits {
  readonly lineBytesMax: number;
  readonly payloadBytesMax: number;
}

/** A row operation's conditions and columns fit in a line, its values (4.25 MiB) in a payload. */
export const FRAME_LIMITS: FrameLimits = {
  lineBytesMax: 1024 * 1024,
  payloadBytesMax: 8 * 1024 * 1024,
};

export interface Frame {
  readonly line: Readonly<Record<string, unknown>>;
  /** Belongs to the receiver. Empty when the line announces no bytes. */
  readonly payload: Uint8Array;
}

export type FrameErrorCode =
  | "line_too_long"
  | "payload_too_large"
  | "broken_json"
  | "bad_message";

/** The peer does not speak the format. Tell it why and close the connection. */
export class FrameError extends Error {
  override readonly name = "FrameError";
  constructor(readonly code: FrameErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options);
  }
}

export const EMPTY_PAYLOAD = new Uint8Array(0);

const NEWLINE = 10;
const PARTIAL_BYTES_MIN = 4096;
/** Payloads up to this size are arrays of their own. */
const SMALL_BYTES_MAX = 4096;
const PARTIAL_BYTES_KEPT = 64 * 1024;
const utf8Encoder = new TextEncoder();
const utf8Decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Pieces to write one after the other. The payload's arrays are passed through, not copied. */
export function encodeFrame(
  line: Readonly<Record<string, unknown>>,
  payload?: Uint8Array | readonly Uint8Array[],
): Uint8Array[] {
  const parts = payload === undefined ? [] : payload instanceof Uint8Array ? [payload] : payload;
  const bytes = parts.reduce((sum, part) => sum + part.length, 0);
  const whole = bytes === 0 ? line : { ...line, bytes };
  return [utf8Encoder.encode(`${encodeLine(whole)}\n`), ...parts.filter((part) => part.length > 0)];
}

/** A line without its break, for callers that join many before they encode them. */
export function encodeLine(line: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(line);
}

/** The line that several frames share, without its break. */
export function joinLines(lines: readonly string[], payloadBytes: number): string {
  return `{"all":[${lines.join()}]${payloadBytes === 0 ? "" : `,"bytes":${payloadBytes}`}}`;
}

export class FrameDecoder {
  /** May be raised between two frames: a handshake has tighter limits than what follows it. */
  limits: FrameLimits;
  /** Gives the array that a larger payload behind `line` is filled into. All of it is overwritten. */
  allocate: (bytes: number, line: Frame["line"]) => Uint8Array = (bytes) => new Uint8Array(bytes);
  #chunk: Uint8Array = EMPTY_PAYLOAD;
  #at = 0;
  /** The beginning of a line whose end has not come yet. */
  #partial: Uint8Array = EMPTY_PAYLOAD;
  #partialLength = 0;
  /** The line whose payload is being filled. */
  #line: Record<string, unknown> | null = null;
  #payload: Uint8Array = EMPTY_PAYLOAD;
  #filled = 0;
  /** Frames that came in one line and were not given out yet, the next one last. */
  #together: Frame[] = [];
  #togetherCount = 0;
  #failure: FrameError | null = null;

  constructor(limits: FrameLimits = FRAME_LIMITS) {
    this.limits = limits;
  }

  /**
   * Hands over the next bytes of the stream, without copying them: call `next()` until it gives null
   * before the array is used for anything else and before the next push.
   */
  push(bytes: Uint8Array): void {
    if (this.#at < this.#chunk.length) {
      throw new Error("Cannot push bytes: the last ones still hold frames");
    }
    this.#chunk = bytes;
    this.#at = 0;
  }

  /**
   * The next whole frame, or null when more bytes are needed.
   *
   * @throws {FrameError} the stream breaks the format or a limit; every later call throws it again
   */
  next(): Frame | null {
    if (this.#failure !== null) throw this.#failure;
    if (this.#together.length > 0) return this.#together.pop()!;
    try {
      if (this.#line === null && !this.#readLine()) return null;
      const frame = this.#fillPayload();
      if (frame === null || frame.line.all === undefined) return frame;
      this.#together = takeApart(frame).reverse();
      this.#togetherCount = this.#together.length;
      return this.#together.pop()!;
    } catch (error) {
      if (error instanceof FrameError) {
        this.#failure = error;
        this.#release();
      }
      throw error;
    }
  }

  /**
   * The unfilled rest of the payload that is under way, so that the socket can be read right into
   * it; null when the next bytes belong elsewhere. Report what was read with `filled()`.
   */
  payloadSpace(): Uint8Array | null {
    if (this.#line === null || this.#at < this.#chunk.length) return null;
    return this.#payload.subarray(this.#filled);
  }

  /** `count` bytes were put into the last `payloadSpace()`. */
  filled(count: number): void {
    this.#filled += count;
  }

  /** Whether the frame given out last ends the first half of a line that this many or more share. */
  isHalfway(countMin: number): boolean {
    return this.#togetherCount >= countMin && this.#together.length === this.#togetherCount >> 1;
  }

  /** Whether the stream may end here without cutting a frame short. */
  get atBoundary(): boolean {
    return this.#line === null && this.#partialLength === 0 && this.#at >= this.#chunk.length &&
      this.#together.length === 0;
  }

  #readLine(): boolean {
    const chunk = this.#chunk, start = this.#at;
    const end = chunk.indexOf(NEWLINE, start);
    const length = this.#partialLength + (end === -1 ? chunk.length : end) - start;
    if (length > this.limits.lineBytesMax) {
      throw new FrameError(
        "line_too_long",
        `Cannot read a line: it is longer than ${this.limits.lineBytesMax} bytes`,
      );
    }
    if (end === -1) {
      this.#keepPartial(chunk.subarray(start));
      this.#at = chunk.length;
      return false;
    }
    let bytes = chunk.subarray(start, end);
    if (this.#partialLength > 0) {
      this.#keepPartial(bytes);
      bytes = this.#partial.subarray(0, this.#partialLength);
    }
    this.#at = end + 1;
    const line = parseLine(bytes);
    this.#partialLength = 0;
    if (this.#partial.length > PARTIAL_BYTES_KEPT) this.#partial = EMPTY_PAYLOAD;
    this.#beginPayload(line);
    return true;
  }

  #beginPayload(line: Record<string, unknown>): void {
    const bytes = payloadBytesOf(line);
    if (bytes > this.limits.payloadBytesMax) {
      throw new FrameError(
        "payload_too_large",
        `Cannot take a payload of ${bytes} bytes: the limit is ${this.limits.payloadBytesMax}`,
      );
    }
    this.#line = line;
    if (bytes > 0 && bytes <= SMALL_BYTES_MAX && bytes <= this.#chunk.length - this.#at) {
      // Most of them: one copy out of the chunk, and no array to fill.
      this.#payload = this.#chunk.slice(this.#at, this.#at + bytes);
      this.#at += bytes;
      this.#filled = bytes;
      return;
    }
    this.#payload = bytes === 0 ? EMPTY_PAYLOAD : this.allocate(bytes, line);
    this.#filled = 0;
  }

  #fillPayload(): Frame | null {
    const missing = this.#payload.length - this.#filled;
    if (missing > 0) {
      const count = Math.min(missing, this.#chunk.length - this.#at);
      if (count > 0) {
        this.#payload.set(this.#chunk.subarray(this.#at, this.#at + count), this.#filled);
        this.#at += count;
        this.#filled += count;
      }
      if (count < missing) return null;
    }
    const frame = { line: this.#line!, payload: this.#payload };
    this.#line = null;
    this.#payload = EMPTY_PAYLOAD;
    return frame;
  }

  /** Doubles its room when it is full, so a line that comes byte by byte is copied O(1) times. */
  #keepPartial(bytes: Uint8Array): void {
    const length = this.#partialLength + bytes.length;
    if (length > this.#partial.length) {
      const room = Math.max(PARTIAL_BYTES_MIN, length, this.#partial.length * 2);
      const grown = new Uint8Array(Math.min(room, Math.max(length, this.limits.lineBytesMax)));
      grown.set(this.#partial.subarray(0, this.#partialLength));
      this.#partial = grown;
    }
    this.#partial.set(bytes, this.#partialLength);
    this.#partialLength = length;
  }

  #release(): void {
    this.#chunk = this.#partial = this.#payload = EMPTY_PAYLOAD;
    this.#at = this.#partialLength = 0;
    this.#line = null;
    this.#together = [];
  }
}

/**
 * The frames of a line that several share.
 *
 * What a request brings is a view, which the request's end lets go of; all else is kept for longer,
 * and so gets an array of its own.
 */
function takeApart({ line: { all }, payload }: Frame): Frame[] {
  if (!Array.isArray(all) || all.length === 0) {
    throw new FrameError("bad_message", 'Cannot read a line: "all" is not a list of messages');
  }
  let at = 0;
  const frames = all.map((line: unknown): Frame => {
    if (!isObject(line) || line.all !== undefined) {
      throw new FrameError("bad_message", 'Cannot read a line: something in "all" is no message');
    }
    const end = at + payloadBytesOf(line);
    if (at === end) return { line, payload: EMPTY_PAYLOAD };
    const isRequest = line.m !== undefined && line.id !== undefined;
    const own = isRequest ? payload.subarray(at, end) : payload.slice(at, end);
    at = end;
    return { line, payload: own };
  });
  if (at !== payload.length) {
    const message = 'Cannot read a line: the payloads of "all" are not what "bytes" says';
    throw new FrameError("bad_message", message);
  }
  return frames;
}

function payloadBytesOf({ bytes = 0 }: Frame["line"]): number {
  if (typeof bytes === "number" && Number.isSafeInteger(bytes) && bytes >= 0) return bytes;
  throw new FrameError("bad_message", 'Cannot read a line: "bytes" is not a whole number >= 0');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseLine(bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(utf8Decoder.decode(bytes));
  } catch (cause) {
    throw new FrameError("broken_json", "Cannot read a line: it is not JSON in UTF-8", { cause });
  }
  if (isObject(value)) return value;
  throw new FrameError("bad_message", "Cannot read a line: it is not a JSON object");
}
