/**
 * Reading the log at start: what is kept, what is cut off, and what must not be touched.
 *
 * A crash leaves at most one batch that was never synced, in any mixture of its sectors. Nobody was
 * told about it. So damage whose every sign belongs to that one batch is a torn tail: it is cut off,
 * durably, before anything is appended, because a new record behind a torn one would be swallowed by
 * the next recovery. Damage with a sound record of a later batch behind it, or with a later segment,
 * is damage to data that was acknowledged: recovery refuses, and changes nothing. Damage to the very
 * last batch cannot be told from a torn tail; a clean stop writes a seal behind it to prevent this.
 *
 * A batch whose sync failed may be read back all the same, from memory alone: the kernel takes pages
 * that it could not write for clean, and another sync would do nothing about them. Only the last
 * batch can be like that, so it is written anew, over itself, before it is built upon.
 */
import { CorruptionError } from "../errors.ts";
import { mutated } from "../mutant.ts";
import type { Disk } from "./disk.ts";
import { GroupLog, type WalIndex } from "./wal_index.ts";
import {
  decodeSegmentHeader,
  FLAG_BATCH_END,
  FLAG_CONTINUES,
  joinPieces,
  PAYLOAD_BYTES_MAX,
  type RecordHeader,
  SEAL_GID,
  SEGMENT_HEADER_BYTES,
  segmentSeed,
  toRecord,
  TYPES,
  type WalIdentity,
  type WalRecord,
} from "./wal_record.ts";
import { type Segment, segmentName, segmentNumberOf, SegmentReader } from "./wal_segment.ts";

export interface RecoveredLog {
  /** In order, without gaps. The last one may still grow. */
  readonly segments: Segment[];
  readonly lastBatch: number;
  /** Bytes of a torn tail that were cut off. */
  readonly tornBytes: number;
}

export interface RecoveryOptions {
  readonly disk: Disk;
  readonly dir: string;
  readonly identity: WalIdentity;
  readonly index: WalIndex;
  readonly onRecord: (record: WalRecord) => void;
}

export async function recoverLog(options: RecoveryOptions): Promise<RecoveredLog> {
  const { disk, dir } = options;
  const numbers: number[] = [];
  for (const { name } of await disk.list(dir)) {
    const number = segmentNumberOf(name);
    if (number !== null) numbers.push(number);
  }
  numbers.sort((a, b) => a - b);
  const recovery = new Recovery(options);
  try {
    for (const [i, number] of numbers.entries()) {
      const before = numbers[i - 1];
      const isMissing = before !== undefined && number !== before + 1;
      if (isMissing && !mutated("lost-segment-ignored")) {
        const missing = `${dir}/${segmentName(before + 1)}`;
        throw new CorruptionError("Cannot recover the log: a segment is missing", missing, 0);
      }
      await recovery.readSegment({ number, isFirst: i === 0, isLast: i === numbers.length - 1 });
    }
    recovery.refuseLostBeginning();
    return await recovery.finish();
  } catch (error) {
    for (const { file } of recovery.segments) await file.close().catch(() => {});
    throw error;
  }
}

/** A payload of several records, of which the last has not come yet. */
interface OpenPayload {
  readonly offset: number;
  readonly pieces: Uint8Array[];
  bytes: number;
  readonly gid: number;
  readonly type: number;
  readonly lsn: number;
  /** To go back to when the rest turns out to be missing. */
  readonly before: { chainCrc: number | null; lastBatch: number; batchEnded: boolean };
}

class Recovery {
  readonly segments: Segment[] = [];
  #lastBatch = 0;
  /** Where in the segment that is read the last batch begins, its segment's header included. */
  #lastBatchOffset = 0;
  /** Whether the record that ends `#lastBatch` was seen. */
  #batchEnded = true;
  #open: OpenPayload | null = null;
  #tornBytes = 0;

  /** Number of the oldest segment that the log says it needs; 0 where it does not say. */
  #oldestNeeded = 0;

  /** The segment that was read last. */
  #readNumber = 0;

  constructor(readonly options: RecoveryOptions) {}

  /** @throws {CorruptionError} segments are missing at the front that nobody deleted */
  refuseLostBeginning(): void {
    const first = this.segments[0]?.number ?? 0;
    const isLost = this.#oldestNeeded > 0 && first > this.#oldestNeeded;
    if (!isLost || mutated("lost-segment-ignored")) return;
    const missing = `${this.options.dir}/${segmentName(this.#oldestNeeded)}`;
    throw new CorruptionError("Cannot recover the log: its beginning is missing", missing, 0);
  }

  async readSegment({ number, isFirst, isLast }: {
    number: number;
    isFirst: boolean;
    isLast: boolean;
  }): Promise<void> {
    const { disk, dir, identity } = this.options;
    const path = `${dir}/${segmentName(number)}`;
    const file = await disk.open(path);
    const bytes = await file.size();
    const seed = segmentSeed(identity.storeId, number);
    const segment: Segment = { number, path, file, seed, bytes, readerCount: 0, deleted: false };
    this.segments.push(segment);
    this.#readNumber = number;
    this.#lastBatchOffset = 0;
    if (!await this.#readSegmentHeader(segment, { isFirst, isLast })) return;
    const reader = new SegmentReader(file, {
      seed,
      startOffset: SEGMENT_HEADER_BYTES,
      endOffset: bytes,
    });
    const complete = await this.#readRecords(segment, reader);
    if (complete && this.#batchEnded) return;
    const offset = reader.offset;
    if (!isLast) {
      throw new CorruptionError(
        "Cannot recover the log: a damaged record, and a later segment proves that it was durable",
        path,
        offset,
      );
    }
    const tornBatch = this.#batchEnded ? this.#lastBatch + 1 : this.#lastBatch;
    if (!complete) await refuseLaterBatch(reader, tornBatch, path);
    segment.bytes = this.#open?.offset ?? offset;
    if (this.#open === null) return;
    const { gid, before } = this.#open;
    this.options.index.group(gid).chainCrc = before.chainCrc;
    this.#lastBatch = before.lastBatch;
    this.#batchEnded = before.batchEnded;
    this.#open = null;
  }

  /** Makes what was kept durable, and what was cut off gone. */
  async finish(): Promise<RecoveredLog> {
    const { disk, dir, index } = this.options;
    const last = this.segments.at(-1);
    if (last !== undefined) {
      const fileBytes = await last.file.size();
      this.#tornBytes = fileBytes - last.bytes;
      if (last.bytes < SEGMENT_HEADER_BYTES) {
        // The crash came before its first batch was durable; it will be made anew.
        await last.file.close();
        await disk.remove(last.path);
        this.segments.pop();
      } else if (mutated("torn-tail-kept")) last.bytes = fileBytes;
      else if (last.bytes < fileBytes) await last.file.truncate(last.bytes);
      // After a crash of the process alone, records may have been read that are on no disk yet.
      if (!mutated("recovered-log-not-synced")) await this.#makeDurable(this.segments.at(-1));
      await disk.syncDir(dir);
    }
    for (const group of index.groups.values()) group.queuedLsn = group.lastLsn;
    return { segments: this.segments, lastBatch: this.#lastBatch, tornBytes: this.#tornBytes };
  }

  async #makeDurable(last: Segment | undefined): Promise<void> {
    if (last === undefined) return;
    // Of a segment that a removed one followed, every batch was synced.
    const isRead = last.number === this.#readNumber && !mutated("failed-sync-trusted");
    const start = isRead ? this.#lastBatchOffset : last.bytes;
    const batch = new Uint8Array(last.bytes - start);
    const got = await last.file.readAt(start, batch);
    if (got < batch.length) throw new Error(`${last.path} ended while it was read`);
    if (got > 0) await last.file.writeAt(start, batch);
    await last.file.sync();
  }

  /** False when the segment is a torn one without any content. */
  async #readSegmentHeader(
    segment: Segment,
    { isFirst, isLast }: { isFirst: boolean; isLast: boolean },
  ): Promise<boolean> {
    const { number, path, file, seed, bytes } = segment;
    const header = new Uint8Array(SEGMENT_HEADER_BYTES);
    const got = await file.readAt(0, header);
    const { identity } = this.options;
    const found = decodeSegmentHeader(header.subarray(0, got), {
      ...identity,
      segmentNumber: number,
    });
    if (found === "other_cluster" || found === "other_version") {
      const whose = found.replace("other_", "another ");
      throw new Error(`Cannot use the log in "${path}": it was written by ${whose}`);
    }
    if (found === "other_store") {
      const message = "Cannot recover the log: a segment was written by another store";
      throw new CorruptionError(message, path, 0);
    }
    if (found === "damaged") {
      const couldBeTorn = isLast && this.#batchEnded && (!isFirst || number === 1);
      if (!couldBeTorn) {
        throw new CorruptionError("Cannot recover the log: a damaged segment header", path, 0);
      }
      const reader = new SegmentReader(file, { seed, startOffset: 0, endOffset: bytes });
      await refuseLaterBatch(reader, this.#lastBatch + 1, path);
      segment.bytes = 0;
      return false;
    }
    this.#oldestNeeded = Math.max(this.#oldestNeeded, found.oldestSegment);
    if (isFirst) this.#lastBatch = found.previousBatch;
    if (found.previousBatch !== this.#lastBatch && mutated("lost-segment-ignored")) {
      this.#lastBatch = found.previousBatch;
    }
    if (found.previousBatch !== this.#lastBatch) {
      throw new CorruptionError(
        `Cannot recover the log: the segment before ends with batch ${this.#lastBatch}, not ` +
          `with batch ${found.previousBatch}`,
        path,
        0,
      );
    }
    return true;
  }

  /** True when all records up to the file's end are sound and none is left half. */
  async #readRecords(segment: Segment, reader: SegmentReader): Promise<boolean> {
    while (true) {
      const status = reader.next();
      if (status === "record") this.#take(segment, reader);
      else if (status === "refill") await reader.refill();
      else return status === "end" && this.#open === null;
    }
  }

  #take(segment: Segment, reader: SegmentReader): void {
    const { header, recordOffset, payload } = reader;
    const problem = this.#objection(header);
    if (problem !== null) {
      throw new CorruptionError(`Cannot recover the log: ${problem}`, segment.path, recordOffset);
    }
    const lastBatch = this.#lastBatch, batchEnded = this.#batchEnded;
    // The first batch of a segment was synced together with its header.
    if (header.batch > lastBatch && recordOffset > SEGMENT_HEADER_BYTES) {
      this.#lastBatchOffset = recordOffset;
    }
    this.#lastBatch = header.batch;
    this.#batchEnded = (header.flags & FLAG_BATCH_END) !== 0;
    if (header.type === TYPES.seal) {
      this.#oldestNeeded = Math.max(this.#oldestNeeded, header.lsn);
      return;
    }
    const group = this.options.index.group(header.gid);
    const before = { chainCrc: group.chainCrc, lastBatch, batchEnded };
    group.chainCrc = header.headerCrc;
    const continues = (header.flags & FLAG_CONTINUES) !== 0;
    if (continues || this.#open !== null) {
      const { gid, type, lsn } = header;
      this.#open ??= { offset: recordOffset, pieces: [], bytes: 0, gid, type, lsn, before };
      this.#open.pieces.push(payload.slice());
      this.#open.bytes += payload.length;
      if (continues) return;
    }
    const offset = this.#open?.offset ?? recordOffset;
    const whole = this.#open === null
      ? payload.slice()
      : joinPieces(this.#open.pieces, this.#open.bytes);
    this.#open = null;
    const record = toRecord(header, whole)!;
    const objection = GroupLog.objection(record, group.lastLsn);
    if (objection !== null) {
      throw new CorruptionError(`Cannot recover the log: ${objection}`, segment.path, recordOffset);
    }
    group.note(record, segment.number, offset);
    this.options.onRecord(record);
  }

  /** Why a record that is sound in itself cannot stand here; a torn tail never looks like this. */
  #objection(header: RecordHeader): string | null {
    // A batch that lost its end to a torn tail is followed by the seal of the recovery that cut it.
    const isNew = this.#batchEnded || header.type === TYPES.seal;
    const batch = isNew ? this.#lastBatch + 1 : this.#lastBatch;
    if (header.batch !== batch) return `batch ${batch} is missing before batch ${header.batch}`;
    const open = this.#open;
    if (open !== null) {
      const same = header.gid === open.gid && header.type === open.type && header.lsn === open.lsn;
      if (!same) return `the rest of entry ${open.lsn} of group ${open.gid} is missing`;
      if (open.bytes + header.payloadBytes > PAYLOAD_BYTES_MAX) {
        return `entry ${open.lsn} of group ${open.gid} is longer than any can be`;
      }
    }
    if (header.gid === SEAL_GID) return null;
    const group = this.options.index.groups.get(header.gid);
    // Of a group that is met for the first time, records may have been deleted with old segments.
    const chainCrc = group?.chainCrc ?? (this.segments[0]!.number === 1 ? 0 : null);
    if (chainCrc !== null && header.prevCrc !== chainCrc) {
      return `a record of group ${header.gid} is missing before ${header.lsn}`;
    }
    return null;
  }
}

async function refuseLaterBatch(reader: SegmentReader, batch: number, path: string): Promise<void> {
  const damagedOffset = reader.offset;
  const laterOffset = await reader.findLaterBatch(batch);
  if (laterOffset === null || mutated("corruption-is-torn-tail")) return;
  throw new CorruptionError(
    `Cannot recover the log: a damaged record in batch ${batch}, and a later batch at byte ` +
      `${laterOffset} proves that it was durable`,
    path,
    damagedOffset,
  );
}
