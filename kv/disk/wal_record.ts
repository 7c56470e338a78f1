/**
 * The bytes of the log: one file per segment, a header, then records. All numbers little-endian.
 *
 *     segment header, 64 bytes                      record header, 48 bytes
 *      0  "PCWAL\0"                                  0 u32 magic
 *      6 u16 version                                 4 u32 payload bytes, 0..65536
 *      8  16 bytes of SHA-256(clusterId)             8 u32 headerCrc, CRC32C of bytes 0..7 and 12..47
 *     24  16 bytes of SHA-256(storeId)              12 u32 payload checksum
 *     40 u32 segment number, first is 1             16 u8  type: see TYPES
 *     44 u32 oldest segment at that time            17 u8  flags: see FLAG_*
 *     48 u64 last batch of the segment before       18 u16 group
 *     56 u32 CRC32C of bytes 0..55                  20 u32 headerCrc of the group's record before
 *     60  zeros                                     24 u64 epoch      32 u64 lsn     40 u64 batch
 *                                                   48  payload, then zeros up to a multiple of 8
 *
 * - `headerCrc` is seeded with store, segment number and file offset: a record that was misplaced, or
 *   left over from another use of the same blocks, cannot validate.
 * - The chain of `headerCrc`s within a group shows a record that is missing or foreign.
 * - A batch is what one sync made durable. A record of batch k+1 was written only after batch k was
 *   synced, so it proves that batch k was. The last record of a batch says that it is the last.
 * - A payload above 64 KiB is cut into several records of the same type and lsn, each with its own
 *   checksum, one right after the other; all but the last have FLAG_CONTINUES.
 * - A seal is a batch of its own without content: written at each start and each clean stop, it proves
 *   that all before it was synced. Its lsn is the number of the oldest segment that is still needed, and
 *   one is written before a segment is deleted: a log that begins later than the last of them says has
 *   lost what it began with.
 *
 * Checksums of payloads: CRC32C up to 4 KiB, CRC-32 (zlib) above, where it is much faster.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Epoch, GroupId, Lsn } from "../../proto/ids.ts";
import { crc32c } from "./crc32c.ts";

/** What the log keeps for its users. */
export type WalRecord =
  | { type: "entry"; gid: GroupId; epoch: Epoch; lsn: Lsn; payload: Uint8Array }
  /** Entries above `lsn` are gone. */
  | { type: "truncate"; gid: GroupId; epoch: Epoch; lsn: Lsn }
  /** The configuration that the group adopted. The newest of each group outlives `release`. */
  | { type: "config"; gid: GroupId; epoch: Epoch; payload: Uint8Array }
  /** A lower bound of commitLsn; nobody waits for it. The newest of each group outlives `release`. */
  | { type: "commit"; gid: GroupId; lsn: Lsn }
  /** A checkpoint was installed: the group's log goes on after `lsn`. */
  | { type: "reset"; gid: GroupId; epoch: Epoch; lsn: Lsn };

export const SEGMENT_HEADER_BYTES = 64;
export const RECORD_HEADER_BYTES = 48;
export const FRAGMENT_BYTES_MAX = 64 * 1024;
/** Far above what one row operation can hold; a longer run of fragments is damage. */
export const PAYLOAD_BYTES_MAX = 16 * 1024 * 1024;
export const RECORD_BYTES_MAX = RECORD_HEADER_BYTES + FRAGMENT_BYTES_MAX;

const FORMAT_VERSION = 1;
const MAGIC = 0x4c415770; // "pWAL"
const CRC32C_BYTES_MAX = 4096;

export const TYPES = { entry: 1, truncate: 2, config: 3, commit: 4, reset: 5, seal: 6 } as const;
const TYPE_MAX = 6;

/** The payload's checksum is zlib's CRC-32. */
const FLAG_CRC32 = 1;
/** The next record holds more of the same payload. */
export const FLAG_CONTINUES = 2;
/** The batch ends with this record. */
export const FLAG_BATCH_END = 4;

/** Group of a seal, which belongs to the log itself. */
export const SEAL_GID = 0;

/** A record's header as numbers. The codec fills one such object again and again. */
export interface RecordHeader {
  payloadBytes: number;
  headerCrc: number;
  payloadCrc: number;
  type: number;
  flags: number;
  gid: number;
  prevCrc: number;
  epoch: number;
  lsn: number;
  batch: number;
}

export const emptyHeader = (): RecordHeader => ({
  payloadBytes: 0,
  headerCrc: 0,
  payloadCrc: 0,
  type: 0,
  flags: 0,
  gid: 0,
  prevCrc: 0,
  epoch: 0,
  lsn: 0,
  batch: 0,
});

export interface WalIdentity {
  readonly clusterId: string;
  readonly storeId: string;
}

/** How segments name the cluster and the store that they belong to. */
export const idDigest = (id: string): Uint8Array =>
  createHash("sha256").update(id).digest().subarray(0, 16);

const padded = (bytes: number) => (bytes + 7) & ~7;

/** Bytes in the file of one record with such a payload, padding included. */
export const recordBytes = (payloadBytes: number) => RECORD_HEADER_BYTES + padded(payloadBytes);

/** Bytes in the file of a whole payload, cut into as many records as it takes. */
export function payloadRecordBytes(payloadBytes: number): number {
  const wholeCount = Math.max(0, Math.ceil(payloadBytes / FRAGMENT_BYTES_MAX) - 1);
  return wholeCount * RECORD_BYTES_MAX +
    recordBytes(payloadBytes - wholeCount * FRAGMENT_BYTES_MAX);
}

export function encodeSegmentHeader(
  { clusterId, storeId, segmentNumber, oldestSegment, previousBatch }: WalIdentity & {
    segmentNumber: number;
    oldestSegment: number;
    previousBatch: number;
  },
): Uint8Array {
  const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("PCWAL\0"));
  view.setUint16(6, FORMAT_VERSION, true);
  bytes.set(idDigest(clusterId), 8);
  bytes.set(idDigest(storeId), 24);
  view.setUint32(40, segmentNumber, true);
  view.setUint32(44, oldestSegment, true);
  setUint64(view, 48, previousBatch);
  view.setUint32(56, crc32c(bytes, 0, 56), true);
  return bytes;
}

export interface SegmentHeader {
  readonly version: number;
  readonly clusterDigest: Uint8Array;
  readonly storeDigest: Uint8Array;
  readonly segmentNumber: number;
  /** 0: it does not say. */
  readonly oldestSegment: number;
  readonly previousBatch: number;
}

/** What a segment says of itself, whosever it is; null when its checksum does not match. */
export function readSegmentHeader(bytes: Uint8Array): SegmentHeader | null {
  if (bytes.length < SEGMENT_HEADER_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(56, true) !== crc32c(bytes, 0, 56)) return null;
  if (bytes.subarray(60, 64).some((byte) => byte !== 0)) return null;
  return {
    version: view.getUint16(6, true),
    clusterDigest: bytes.slice(8, 24),
    storeDigest: bytes.slice(24, 40),
    segmentNumber: view.getUint32(40, true),
    oldestSegment: view.getUint32(44, true),
    previousBatch: getUint64(view, 48),
  };
}

/** What a segment's header says, `damaged` when it cannot be read, or whose log it is instead. */
export function decodeSegmentHeader(
  bytes: Uint8Array,
  { clusterId, storeId, segmentNumber }: WalIdentity & { segmentNumber: number },
): SegmentHeader | "damaged" | "other_cluster" | "other_store" | "other_version" {
  const header = readSegmentHeader(bytes);
  if (header === null) return "damaged";
  if (header.version !== FORMAT_VERSION) return "other_version";
  if (!equalBytes(header.clusterDigest, idDigest(clusterId))) return "other_cluster";
  if (!equalBytes(header.storeDigest, idDigest(storeId))) return "other_store";
  if (header.segmentNumber !== segmentNumber) return "damaged";
  return header;
}

/** What the header checksums of one segment start from. */
export const segmentSeed = (storeId: string, segmentNumber: number): number =>
  segmentSeedOf(idDigest(storeId), segmentNumber);

export function segmentSeedOf(storeDigest: Uint8Array, segmentNumber: number): number {
  const bytes = new Uint8Array(24);
  bytes.set(storeDigest);
  setUint64(new DataView(bytes.buffer), 16, segmentNumber);
  return crc32c(bytes);
}

/** Two offsets below 4 GiB never share a seed, and CRCs of equal bytes differ when seeds do. */
function headerCrcOf(bytes: Uint8Array, at: number, seed: number, offset: number): number {
  const lead = crc32c(bytes, at, at + 8, (seed ^ offset) >>> 0);
  return crc32c(bytes, at + 12, at + RECORD_HEADER_BYTES, lead);
}

/** The checksum that `flags` ask for. */
function checksumOf(payload: Uint8Array, flags: number): number {
  return flags & FLAG_CRC32 ? crc32(payload) : crc32c(payload);
}

/**
 * Encodes records one after the other into a buffer that will be written at one place of a segment.
 * `header` is the caller's: all fields but the sums, `payloadBytes` and the checksum flag.
 */
export function encodeRecord(
  target: { bytes: Uint8Array; view: DataView },
  at: number,
  { header, payload, seed, offset }: {
    header: RecordHeader;
    payload: Uint8Array;
    seed: number;
    /** Where in the segment's file the record will be. */
    offset: number;
  },
): number {
  const { bytes, view } = target;
  header.payloadBytes = payload.length;
  if (payload.length > CRC32C_BYTES_MAX) header.flags |= FLAG_CRC32;
  else header.flags &= ~FLAG_CRC32;
  header.payloadCrc = checksumOf(payload, header.flags);
  view.setUint32(at, MAGIC, true);
  view.setUint32(at + 4, header.payloadBytes, true);
  view.setUint32(at + 12, header.payloadCrc, true);
  view.setUint8(at + 16, header.type);
  view.setUint8(at + 17, header.flags);
  view.setUint16(at + 18, header.gid, true);
  view.setUint32(at + 20, header.prevCrc, true);
  setUint64(view, at + 24, header.epoch);
  setUint64(view, at + 32, header.lsn);
  setUint64(view, at + 40, header.batch);
  header.headerCrc = headerCrcOf(bytes, at, seed, offset);
  view.setUint32(at + 8, header.headerCrc, true);
  bytes.set(payload, at + RECORD_HEADER_BYTES);
  const end = at + recordBytes(payload.length);
  bytes.fill(0, at + RECORD_HEADER_BYTES + payload.length, end);
  return end - at;
}

/** A cheap test before `decodeHeader`, for looking at every place of a damaged segment. */
export const beginsLikeHeader = (view: DataView, at: number) => view.getUint32(at, true) === MAGIC;

/** Fills `header` from the 48 bytes at `at`. False when they are no sound header for this offset. */
export function decodeHeader(
  source: { bytes: Uint8Array; view: DataView },
  at: number,
  { header, seed, offset }: { header: RecordHeader; seed: number; offset: number },
): boolean {
  const { bytes, view } = source;
  if (!beginsLikeHeader(view, at)) return false;
  header.headerCrc = view.getUint32(at + 8, true);
  if (header.headerCrc !== headerCrcOf(bytes, at, seed, offset)) return false;
  header.payloadBytes = view.getUint32(at + 4, true);
  header.payloadCrc = view.getUint32(at + 12, true);
  header.type = view.getUint8(at + 16);
  header.flags = view.getUint8(at + 17);
  header.gid = view.getUint16(at + 18, true);
  header.prevCrc = view.getUint32(at + 20, true);
  header.epoch = getUint64(view, at + 24);
  header.lsn = getUint64(view, at + 32);
  header.batch = getUint64(view, at + 40);
  return header.payloadBytes <= FRAGMENT_BYTES_MAX && header.type >= 1 && header.type <= TYPE_MAX;
}

export function payloadIsSound(header: RecordHeader, payload: Uint8Array): boolean {
  return checksumOf(payload, header.flags) === header.payloadCrc;
}

/** The record that a complete payload and the header of its last piece make; null for a seal. */
export function toRecord(header: RecordHeader, payload: Uint8Array): WalRecord | null {
  const gid = header.gid as GroupId, epoch = header.epoch as Epoch, lsn = header.lsn as Lsn;
  switch (header.type) {
    case TYPES.entry:
      return { type: "entry", gid, epoch, lsn, payload };
    case TYPES.truncate:
      return { type: "truncate", gid, epoch, lsn };
    case TYPES.config:
      return { type: "config", gid, epoch, payload };
    case TYPES.commit:
      return { type: "commit", gid, lsn };
    case TYPES.reset:
      return { type: "reset", gid, epoch, lsn };
    default:
      return null;
  }
}

/** The whole payload of several records. */
export function joinPieces(pieces: readonly Uint8Array[], bytes: number): Uint8Array {
  if (pieces.length === 1) return pieces[0]!;
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

function setUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 0x100000000), true);
}

function getUint64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x100000000;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
