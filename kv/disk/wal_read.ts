/** Reading a segment again: entries for a replica that lags, or all of it to see whether it is sound. */
import type { Epoch, Lsn } from "../../proto/ids.ts";
import { CorruptionError } from "../errors.ts";
import type { Run } from "./wal_index.ts";
import { FLAG_CONTINUES, joinPieces, SEGMENT_HEADER_BYTES, TYPES } from "./wal_record.ts";
import { type Segment, SegmentReader } from "./wal_segment.ts";

export interface StoredEntry {
  readonly epoch: Epoch;
  readonly lsn: Lsn;
  readonly payload: Uint8Array;
}

export interface ReadRunOptions {
  readonly segment: Segment;
  readonly run: Run;
  readonly gid: number;
  /** Within the run. */
  readonly fromLsn: number;
  /** Stop before the entry that would exceed it; the first is given all the same. */
  readonly maxBytes: number;
  readonly maxEntries: number;
}

/** Entries of one group from `fromLsn` to the end of the run, as far as the limits allow. */
export async function readRun(options: ReadRunOptions): Promise<StoredEntry[]> {
  const { segment, run, gid, fromLsn, maxBytes, maxEntries } = options;
  const { lastLsn } = run;
  const point = run.points.findLast(({ lsn }) => lsn <= fromLsn)!;
  const reader = new SegmentReader(segment.file, {
    seed: segment.seed,
    startOffset: point.offset,
    endOffset: segment.bytes,
  });
  const entries: StoredEntry[] = [];
  let pieces: Uint8Array[] = [];
  let bytes = 0;
  let nextLsn = fromLsn;
  while (nextLsn <= lastLsn && entries.length < maxEntries) {
    const status = reader.next();
    if (status === "refill") {
      await reader.refill();
      continue;
    }
    if (status !== "record") throw damaged(nextLsn, segment, reader.offset);
    const { header, payload } = reader;
    if (header.gid !== gid || header.type !== TYPES.entry || header.lsn < nextLsn) continue;
    if (header.lsn !== nextLsn) throw damaged(nextLsn, segment, reader.recordOffset);
    pieces.push(payload.slice());
    bytes += payload.length;
    if (header.flags & FLAG_CONTINUES) continue;
    if (bytes > maxBytes && entries.length > 0) break;
    entries.push({
      epoch: header.epoch as Epoch,
      lsn: header.lsn as Lsn,
      payload: joinPieces(pieces, pieces.reduce((sum, piece) => sum + piece.length, 0)),
    });
    pieces = [];
    nextLsn++;
  }
  return entries;
}

/** Whether the durable part of a segment reads back as it was written. */
export async function verifySegment(
  segment: Segment,
  onBytes: (bytes: number) => Promise<void>,
): Promise<CorruptionError | null> {
  const { file, seed, path, bytes: endOffset } = segment;
  const reader = new SegmentReader(file, { seed, startOffset: SEGMENT_HEADER_BYTES, endOffset });
  let doneOffset = 0;
  for (;;) {
    const status = reader.next();
    if (status === "end") return null;
    if (status === "damaged") {
      return new CorruptionError("A record of the log fails its checksum", path, reader.offset);
    }
    if (status !== "refill") continue;
    await onBytes(reader.offset - doneOffset);
    doneOffset = reader.offset;
    try {
      await reader.refill();
    } catch {
      // Shorter than what was written to it.
      return new CorruptionError("A segment of the log was cut off", path, reader.offset);
    }
  }
}

function damaged(lsn: number, segment: Segment, offset: number): CorruptionError {
  return new CorruptionError(`Cannot read entry ${lsn} back from the log`, segment.path, offset);
}
