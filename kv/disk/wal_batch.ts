/**
 * Puts the records of one batch into a buffer that is used again and again, and the buffer into a
 * segment. A batch larger than the buffer goes out in several writes; its sync is the caller's.
 */
import {
  emptyHeader,
  encodeRecord,
  FLAG_BATCH_END,
  FLAG_CONTINUES,
  FRAGMENT_BYTES_MAX,
  RECORD_BYTES_MAX,
  recordBytes,
  SEAL_GID,
  TYPES,
  type WalRecord,
} from "./wal_record.ts";
import type { Segment } from "./wal_segment.ts";

const BUFFER_BYTES = 1024 * 1024 + RECORD_BYTES_MAX;
const NOTHING = new Uint8Array(0);

export class BatchEncoder {
  readonly #bytes = new Uint8Array(BUFFER_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #header = emptyHeader();
  #used = 0;
  #segment!: Segment;
  /** Where in the file the buffer's first byte will be. */
  #offset = 0;
  #batch = 0;

  begin(segment: Segment, { offset, batch }: { offset: number; batch: number }): this {
    this.#segment = segment;
    this.#offset = offset;
    this.#batch = batch;
    this.#used = 0;
    return this;
  }

  /** The segment's own header: first of all. */
  header(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#used);
    this.#used += bytes.length;
  }

  seal(oldestSegment: number): void {
    const header = this.#header;
    header.type = TYPES.seal;
    header.gid = SEAL_GID;
    header.prevCrc = header.epoch = 0;
    header.lsn = oldestSegment;
    this.#put(NOTHING, FLAG_BATCH_END);
  }

  /** Returns the checksum that the group's next record must name. */
  record(
    record: WalRecord,
    { prevCrc, endsBatch }: { prevCrc: number; endsBatch: boolean },
  ): number | Promise<number> {
    const header = this.#header;
    header.type = TYPES[record.type];
    header.gid = record.gid;
    header.prevCrc = prevCrc;
    header.epoch = "epoch" in record ? record.epoch : 0;
    header.lsn = "lsn" in record ? record.lsn : 0;
    const payload = "payload" in record ? record.payload : NOTHING;
    const endFlags = endsBatch ? FLAG_BATCH_END : 0;
    if (payload.length > FRAGMENT_BYTES_MAX || !this.#hasRoom(payload.length)) {
      return this.#putPieces(payload, endFlags);
    }
    this.#put(payload, endFlags);
    return header.headerCrc;
  }

  async flush(): Promise<void> {
    if (this.#used === 0) return;
    await this.#segment.file.writeAt(this.#offset, this.#bytes.subarray(0, this.#used));
    this.#offset += this.#used;
    this.#used = 0;
  }

  async #putPieces(payload: Uint8Array, endFlags: number): Promise<number> {
    for (let at = 0; at === 0 || at < payload.length; at += FRAGMENT_BYTES_MAX) {
      const piece = payload.subarray(at, at + FRAGMENT_BYTES_MAX);
      if (!this.#hasRoom(piece.length)) await this.flush();
      const isLast = at + piece.length >= payload.length;
      this.#put(piece, isLast ? endFlags : FLAG_CONTINUES);
      this.#header.prevCrc = this.#header.headerCrc;
    }
    return this.#header.headerCrc;
  }

  #hasRoom(payloadBytes: number): boolean {
    return this.#used + recordBytes(payloadBytes) <= BUFFER_BYTES;
  }

  #put(payload: Uint8Array, flags: number): void {
    const header = this.#header;
    header.flags = flags;
    header.batch = this.#batch;
    const target = { bytes: this.#bytes, view: this.#view };
    const offset = this.#offset + this.#used;
    this.#used += encodeRecord(target, this.#used, {
      header,
      payload,
      seed: this.#segment.seed,
      offset,
    });
  }
}
