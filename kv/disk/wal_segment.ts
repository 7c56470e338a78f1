/**
 * One file of the log, and a reader that walks over its records with a window of fixed size.
 * The bytes are told in wal_record.ts.
 */
import type { DiskFile } from "./disk.ts";
import {
  beginsLikeHeader,
  decodeHeader,
  emptyHeader,
  payloadIsSound,
  RECORD_BYTES_MAX,
  RECORD_HEADER_BYTES,
  recordBytes,
  type RecordHeader,
} from "./wal_record.ts";

const WINDOW_BYTES = 256 * 1024;

export interface Segment {
  readonly number: number;
  readonly path: string;
  readonly file: DiskFile;
  /** What the checksums of its record headers start from. */
  readonly seed: number;
  /** Up to here all bytes are durable. */
  bytes: number;
  /** Readers at work. The file of a deleted segment stays open until there are none. */
  readerCount: number;
  deleted: boolean;
}

export const segmentName = (number: number) => `seg-${number.toString().padStart(10, "0")}.log`;

/** The number in a segment's file name, or null when the name is something else's. */
export function segmentNumberOf(name: string): number | null {
  const match = /^seg-(\d{10,15})\.log$/.exec(name);
  return match === null ? null : Number(match[1]);
}

/**
 * - `record`: `header` and `payload` hold the next one
 * - `refill`: call `refill` and ask again
 * - `end`: the file ends right here
 * - `damaged`: at `offset` there is no sound record
 */
export type ReadStatus = "record" | "refill" | "end" | "damaged";

/** Reads records in turn. Asking for the next one is synchronous while the window holds it. */
export class SegmentReader {
  readonly header: RecordHeader = emptyHeader();
  /** Of the record just read; a view that `refill` overwrites. */
  payload: Uint8Array = new Uint8Array(0);
  /** Where the record just read begins. */
  recordOffset = 0;
  /** Where the next one begins. */
  offset: number;
  readonly #file: DiskFile;
  readonly #seed: number;
  readonly #endOffset: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #windowStart: number;
  #windowBytes = 0;

  constructor(file: DiskFile, { seed, startOffset, endOffset }: {
    seed: number;
    startOffset: number;
    endOffset: number;
  }) {
    this.#file = file;
    this.#seed = seed;
    this.#endOffset = endOffset;
    this.offset = startOffset;
    this.#windowStart = startOffset;
    const wantedBytes = Math.max(0, endOffset - startOffset);
    this.#bytes = new Uint8Array(Math.min(WINDOW_BYTES, wantedBytes));
    this.#view = new DataView(this.#bytes.buffer);
  }

  next(): ReadStatus {
    const leftBytes = this.#endOffset - this.offset;
    if (leftBytes <= 0) return "end";
    if (leftBytes < RECORD_HEADER_BYTES) return "damaged";
    const inWindow = this.#windowStart + this.#windowBytes - this.offset;
    if (inWindow < Math.min(RECORD_BYTES_MAX, leftBytes)) {
      // Near the window's end a short record may still be in it as a whole.
      if (inWindow < RECORD_HEADER_BYTES) return "refill";
      if (inWindow < recordBytes(this.#view.getUint32(this.offset - this.#windowStart + 4, true))) {
        return "refill";
      }
    }
    const at = this.offset - this.#windowStart;
    const source = { bytes: this.#bytes, view: this.#view };
    const { header } = this;
    const place = { header, seed: this.#seed, offset: this.offset };
    if (!decodeHeader(source, at, place)) return "damaged";
    const length = recordBytes(header.payloadBytes);
    if (length > leftBytes) return "damaged";
    const payloadStart = at + RECORD_HEADER_BYTES;
    this.payload = this.#bytes.subarray(payloadStart, payloadStart + header.payloadBytes);
    if (!payloadIsSound(header, this.payload)) return "damaged";
    for (let i = payloadStart + header.payloadBytes; i < at + length; i++) {
      if (this.#bytes[i] !== 0) return "damaged";
    }
    this.recordOffset = this.offset;
    this.offset += length;
    return "record";
  }

  /** Moves the window to `offset`. */
  async refill(): Promise<void> {
    const wanted = Math.min(this.#bytes.length, this.#endOffset - this.offset);
    const got = await this.#file.readAt(this.offset, this.#bytes.subarray(0, wanted));
    if (got < wanted) throw new Error(`a segment ended at ${this.offset + got} while it was read`);
    this.#windowStart = this.offset;
    this.#windowBytes = got;
  }

  /** Goes to the next place behind `offset` that looks like a record. False when there is none. */
  async skipDamage(): Promise<boolean> {
    const offset = await this.findLaterBatch(-1);
    this.offset = offset ?? this.#endOffset;
    await this.refill();
    return offset !== null;
  }

  /**
   * Looks for a sound header of a batch above `batch`, at every place where one could be behind
   * `offset`, damaged or not. Returns where, or null.
   */
  async findLaterBatch(batch: number): Promise<number | null> {
    const found = emptyHeader();
    this.offset += 8;
    while (this.#endOffset - this.offset >= RECORD_HEADER_BYTES) {
      await this.refill();
      const source = { bytes: this.#bytes, view: this.#view };
      const lastAt = this.#windowBytes - RECORD_HEADER_BYTES;
      let at = 0;
      for (; at <= lastAt; at += 8) {
        if (!beginsLikeHeader(this.#view, at)) continue;
        const offset = this.offset + at;
        const place = { header: found, seed: this.#seed, offset };
        if (decodeHeader(source, at, place) && found.batch > batch) return offset;
      }
      this.offset += at;
    }
    return null;
  }
}
