/**
 * The bytes of files. The content of one upload is cut into chunks of `chunkBytes`; chunk i is the
 * one cell of the row `<3 letters>~<upload id>/<i>`. The letters step through the alphabet by the
 * golden ratio from a start that the upload id gives, so that the chunks of any file lie evenly
 * over the key range, and neighbours on different replica groups.
 *
 * A row is written by one upload only and never changes once a file links to it, so readers need no
 * lock. Writing and reading keep a few chunks in flight and never more: every transfer may always
 * hold one, and those beyond come out of one budget for the whole process.
 */
import { crc32 } from "node:zlib";
import type { Kv } from "../../kv/kv.ts";
import { DriveError } from "./errors.ts";
import type { StoredContent } from "./items.ts";

const CHUNK_COLUMN = "b";
const IN_FLIGHT_MAX = 4;
const READ_AHEAD_MAX = 2;
const SPARE_BUFFERS_MAX = 6;
/** A chunk may wait for a change of primary; its upload waits with it. */
const CHUNK_DEADLINE_MS = 30_000;
const GOLDEN_RATIO = 0.6180339887498949;

export function chunkRow(upload: string, index: number): string {
  const start = crc32(upload) / 2 ** 32;
  let place = Math.floor(((start + index * GOLDEN_RATIO) % 1) * 26 ** 3);
  let letters = "";
  for (let i = 0; i < 3; i++) {
    letters = String.fromCharCode(97 + place % 26) + letters;
    place = Math.floor(place / 26);
  }
  return `${letters}~${upload}/${String(index).padStart(7, "0")}`;
}

export const chunkCount = (size: number, chunkBytes: number): number =>
  Math.ceil(size / chunkBytes);

/**
 * How many chunks the transfers of this process may hold beyond the first of each, and buffers of
 * uploads that are done with: fresh ones would pile up faster than they are collected.
 */
export class ChunkBudget {
  #free: number;
  readonly #buffers: Uint8Array[] = [];
  constructor(chunks: number) {
    this.#free = chunks;
  }
  take(): boolean {
    if (this.#free === 0) return false;
    this.#free--;
    return true;
  }
  give(): void {
    this.#free++;
  }
  takeBuffer(bytes: number): Uint8Array {
    const used = this.#buffers.at(-1);
    return used?.length === bytes ? this.#buffers.pop()! : new Uint8Array(bytes);
  }
  /** Whoever gives a buffer back no longer looks at it. */
  giveBuffer(buffer: Uint8Array): void {
    if (this.#buffers.length < SPARE_BUFFERS_MAX) this.#buffers.push(buffer);
  }
}

export async function putChunk(
  kv: Kv,
  upload: string,
  index: number,
  value: Uint8Array,
): Promise<void> {
  await kv.apply(
    { row: chunkRow(upload, index), mutations: [{ kind: "put", column: CHUNK_COLUMN, value }] },
    { deadlineMs: CHUNK_DEADLINE_MS },
  );
}

export async function getChunk(
  kv: Kv,
  upload: string,
  index: number,
  signal?: AbortSignal,
): Promise<Uint8Array | null> {
  const cell = await kv.get(chunkRow(upload, index), CHUNK_COLUMN, {
    deadlineMs: CHUNK_DEADLINE_MS,
    ...(signal ? { signal } : {}),
  });
  return cell?.value ?? null;
}

export async function deleteChunks(
  kv: Kv,
  upload: string,
  range: { readonly from: number; readonly to: number },
): Promise<void> {
  for (let start = range.from; start < range.to; start += IN_FLIGHT_MAX) {
    const rows: Promise<unknown>[] = [];
    for (let index = start; index < Math.min(range.to, start + IN_FLIGHT_MAX); index++) {
      const mutations = [{ kind: "delete", column: CHUNK_COLUMN }] as const;
      rows.push(kv.apply({ row: chunkRow(upload, index), mutations }));
    }
    await Promise.all(rows);
  }
}

/** Up to where the bytes of an upload are stored without a gap, and their CRC-32 so far. */
export interface StoredPrefix {
  readonly bytes: number;
  readonly crc: number;
}

export interface ChunkWriterOptions {
  readonly kv: Kv;
  readonly budget: ChunkBudget;
  readonly upload: string;
  readonly chunkBytes: number;
  /** Where to begin: at a chunk's boundary. */
  readonly from?: StoredPrefix;
  /** Bytes still to come, where that is known: small files then take small buffers. */
  readonly expectedBytes?: number | null;
  /** Awaited before chunk `index` is sent: the place to note that its row may exist. */
  readonly beforeChunk?: (index: number) => Promise<void>;
  /** Called in order, as soon as all bytes up to there are acknowledged. */
  readonly onStored?: (prefix: StoredPrefix) => void;
}

/** Cuts a stream into chunks and sends them, IN_FLIGHT_MAX at once. After an error it is done. */
export class ChunkWriter {
  readonly #options: ChunkWriterOptions;
  #bytes: number;
  #crc: number;
  #buffer: Uint8Array | null = null;
  #filled = 0;
  readonly #inFlight = new Set<Promise<void>>();
  /** Chunks that were sent, in order, until all before them are stored. */
  readonly #sent: { prefix: StoredPrefix; stored: boolean }[] = [];
  #failure: { error: unknown } | null = null;

  constructor(options: ChunkWriterOptions) {
    this.#options = options;
    this.#bytes = options.from?.bytes ?? 0;
    this.#crc = options.from?.crc ?? 0;
  }

  /** All bytes that were written so far, stored or not. */
  get written(): StoredPrefix {
    return { bytes: this.#bytes, crc: this.#crc };
  }

  /** Takes the bytes over; resolves when there is room for more. */
  async write(piece: Uint8Array): Promise<void> {
    let rest = piece;
    while (rest.length > 0) {
      this.#throwFailure();
      this.#buffer ??= this.#nextBuffer();
      // More came than was expected: grow to a whole chunk.
      if (this.#filled === this.#buffer.length) {
        const whole = this.#options.budget.takeBuffer(this.#options.chunkBytes);
        whole.set(this.#buffer);
        this.#buffer = whole;
      }
      const part = rest.subarray(0, this.#buffer.length - this.#filled);
      this.#buffer.set(part, this.#filled);
      this.#filled += part.length;
      this.#bytes += part.length;
      this.#crc = crc32(part, this.#crc);
      rest = rest.subarray(part.length);
      if (this.#filled === this.#options.chunkBytes) await this.#send();
    }
  }

  /** Sends what is left and waits until every chunk is stored. */
  async finish(): Promise<StoredPrefix> {
    if (this.#filled > 0) await this.#send();
    await this.settle();
    this.#throwFailure();
    return this.written;
  }

  /** Waits until nothing is in flight any more. Never throws. */
  async settle(): Promise<void> {
    while (this.#inFlight.size > 0) await Promise.all(this.#inFlight);
  }

  /** The error that ended this writer, if one did. */
  get failure(): { readonly error: unknown } | null {
    return this.#failure;
  }

  /** The bytes of the chunk that is not full yet. */
  get pending(): Uint8Array {
    return this.#buffer?.subarray(0, this.#filled) ?? new Uint8Array(0);
  }

  async #send(): Promise<void> {
    const { upload, chunkBytes, budget } = this.#options;
    const index = Math.ceil(this.#bytes / chunkBytes) - 1;
    const buffer = this.#buffer!;
    const value = buffer.subarray(0, this.#filled);
    this.#buffer = null;
    this.#filled = 0;
    await this.#options.beforeChunk?.(index);
    const sent = { prefix: this.written, stored: false };
    this.#sent.push(sent);
    let lent = false;
    while (this.#inFlight.size > 0) {
      if (this.#inFlight.size < IN_FLIGHT_MAX && budget.take()) {
        lent = true;
        break;
      }
      await Promise.race(this.#inFlight);
    }
    this.#throwFailure();
    const run = putChunk(this.#options.kv, upload, index, value).then(() => {
      sent.stored = true;
      // Only now: after a failure somebody may still be sending it.
      if (buffer.length === chunkBytes) budget.giveBuffer(buffer);
      while (this.#sent[0]?.stored) {
        const { prefix } = this.#sent.shift()!;
        this.#options.onStored?.(prefix);
      }
    }, (error) => {
      this.#failure ??= { error };
    }).finally(() => {
      if (lent) budget.give();
      this.#inFlight.delete(run);
    });
    this.#inFlight.add(run);
  }

  #nextBuffer(): Uint8Array {
    const { chunkBytes, expectedBytes, from, budget } = this.#options;
    const left = (expectedBytes ?? Infinity) - (this.#bytes - (from?.bytes ?? 0));
    return left > 0 && left < chunkBytes ? new Uint8Array(left) : budget.takeBuffer(chunkBytes);
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }
}

export interface ReadOptions {
  readonly kv: Kv;
  readonly budget: ChunkBudget;
  readonly content: StoredContent;
  /** First byte wanted, and the one behind the last. */
  readonly start: number;
  readonly end: number;
  /**
   * The consumer no longer looks at a piece when it asks for the next one, as a server that writes
   * to a socket does. Pieces are then freed at once instead of piling up until they are collected.
   */
  readonly freePieces?: boolean;
}

/** Smaller pieces may share their buffer with something else, and do not matter. */
const FREED_BYTES_MIN = 256 * 1024;

/**
 * Streams part of a file, reading ahead while the budget allows. A chunk that is missing or has the
 * wrong length errors the stream: the receiver sees a transfer that broke off, never wrong bytes.
 */
export function readContent(options: ReadOptions): ReadableStream<Uint8Array> {
  const { kv, budget, content, start, end } = options;
  const { chunkBytes, size, upload } = content;
  const aborter = new AbortController();
  const last = Math.ceil(end / chunkBytes);
  let next = Math.floor(start / chunkBytes);
  const ahead: { index: number; value: Promise<Uint8Array>; lent: boolean }[] = [];
  let handedOut: Uint8Array | null = null;

  const fetchChunk = async (index: number): Promise<Uint8Array> => {
    const value = await getChunk(kv, upload, index, aborter.signal);
    const expected = Math.min(chunkBytes, size - index * chunkBytes);
    if (value?.length !== expected) {
      throw new DriveError("damaged", `Cannot read part ${index} of upload "${upload}"`);
    }
    return value;
  };
  const readAhead = (): void => {
    while (next < last && ahead.length <= READ_AHEAD_MAX) {
      const lent = ahead.length > 0 && budget.take();
      if (ahead.length > 0 && !lent) return;
      const value = fetchChunk(next);
      value.catch(() => {}); // reported when its turn comes
      ahead.push({ index: next++, value, lent });
    }
  };
  const release = (): void => {
    aborter.abort();
    for (const chunk of ahead.splice(0)) if (chunk.lent) budget.give();
  };

  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (handedOut !== null) freePiece(handedOut);
      handedOut = null;
      readAhead();
      const chunk = ahead[0];
      if (chunk === undefined) return controller.close();
      try {
        const value = await chunk.value;
        // Cancelled meanwhile: everything was given back already.
        if (ahead[0] !== chunk) return;
        ahead.shift();
        if (chunk.lent) budget.give();
        readAhead();
        if (options.freePieces) handedOut = value;
        const offset = chunk.index * chunkBytes;
        controller.enqueue(value.subarray(Math.max(0, start - offset), end - offset));
        if (next >= last && ahead.length === 0) controller.close();
      } catch (error) {
        release();
        controller.error(error);
      }
    },
    cancel: release,
  }, { highWaterMark: 0 });
}

function freePiece(piece: Uint8Array): void {
  const { buffer } = piece;
  const ownsAll = buffer instanceof ArrayBuffer && buffer.byteLength === piece.byteLength;
  // Moving the bytes into a buffer of no length lets go of them.
  if (ownsAll && piece.byteLength >= FREED_BYTES_MIN) buffer.transfer(0);
}
