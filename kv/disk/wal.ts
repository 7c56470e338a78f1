/**
 * The log of a node: all its replica groups write to it, so that one stream of syncs serves them all.
 *
 * Promises: what `append` resolved for is found again by `open`, in the same order, after any crash;
 * damage to such data is refused, not skipped. Leaves out: what the payloads mean, and when an entry
 * counts as committed (replica.ts).
 *
 * One writer at work: while one sync runs, appends gather; then all of them go into one write and one
 * sync. The first byte of a batch is written only after the sync of the batch before has returned,
 * which is what recovery (wal_recovery.ts) tells a torn tail from corruption by. The bytes are in
 * wal_record.ts, where to find an entry again in wal_index.ts.
 *
 * A full disk is survived: the batch is cut off again, it and all that is queued is rejected with
 * `disk_full`, and later appends try anew. Any other error of a write or a sync is final: nothing can
 * be said about what is on the disk, so every append rejects with `DiskFailedError` and the process
 * should exit.
 */
import type { GroupId, Lsn } from "../../proto/ids.ts";
import { type CorruptionError, KvError } from "../errors.ts";
import { InvariantViolation } from "../invariant.ts";
import { mutated } from "../mutant.ts";
import { type Disk, DiskFailedError, isDiskFull } from "./disk.ts";
import { BatchEncoder } from "./wal_batch.ts";
import { GroupLog, WalIndex } from "./wal_index.ts";
import { readRun, type StoredEntry, verifySegment } from "./wal_read.ts";
import {
  encodeSegmentHeader,
  payloadRecordBytes,
  SEGMENT_HEADER_BYTES,
  segmentSeed,
  type WalIdentity,
  type WalRecord,
} from "./wal_record.ts";
import { recoverLog } from "./wal_recovery.ts";
import { type Segment, segmentName } from "./wal_segment.ts";

export type { StoredEntry } from "./wal_read.ts";
export type { WalRecord } from "./wal_record.ts";

const MIB = 1024 * 1024;
/** A batch is closed at this size, so that the first append of many need not wait for them all. */
const BATCH_BYTES_MAX = MIB;
/** What may wait for a sync; the replicas' windows keep it far lower. Beyond: `busy`. */
const QUEUE_BYTES_MAX = 128 * MIB;

export interface WalOptions extends WalIdentity {
  readonly disk: Disk;
  readonly dir: string;
  /** A new segment is begun when a batch would make the last one longer. Default 64 MiB. */
  readonly segmentBytes?: number;
  /** How much of the log `release` leaves in place, for replicas that lag. Default 64 MiB. */
  readonly keepBytes?: number;
}

export interface WalStats {
  readonly fsyncCount: number;
  readonly batchCount: number;
  readonly recordCount: number;
  readonly bytesWritten: number;
  readonly fsyncMsTotal: number;
  readonly fsyncMsMax: number;
}

interface PendingAppend {
  readonly records: readonly WalRecord[];
  readonly bytes: number;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

export class Wal {
  /** Bytes that recovery cut off as the rest of a batch that nobody was told about. */
  readonly tornBytes: number;
  /** Whether `open` found no log at all. */
  readonly isNew: boolean;
  /** The last batch that `open` found; no later one was ever synced, if the disk is honest. */
  readonly recoveredBatch: number;
  readonly #options: Required<WalOptions>;
  readonly #index: WalIndex;
  readonly #segments: Segment[];
  readonly #encoder = new BatchEncoder();
  #lastBatch: number;
  /** A seal must come before the next batch: it proves that what recovery kept is durable. */
  #sealIsDue = true;
  /** Number of the oldest segment that recovery must find. */
  #oldestNeeded: number;
  #queue: PendingAppend[] = [];
  #queuedBytes = 0;
  #pumping: Promise<void> | null = null;
  #collecting: Promise<void> | null = null;
  #failure: DiskFailedError | null = null;
  #closed = false;
  #busySinceMs: number | null = null;
  /** This segment and those before it go as soon as checkpoints hold what they hold; 0 for none. */
  #damagedSegment = 0;
  /** The sync that the mutant "batch-before-sync" does not wait for before the next write. */
  #lateSync: Promise<void> | null = null;
  readonly #stats = {
    fsyncCount: 0,
    batchCount: 0,
    recordCount: 0,
    bytesWritten: 0,
    fsyncMsTotal: 0,
    fsyncMsMax: 0,
  };

  private constructor(
    options: Required<WalOptions>,
    index: WalIndex,
    log: { segments: Segment[]; lastBatch: number; tornBytes: number },
  ) {
    this.#options = options;
    this.#index = index;
    this.#segments = log.segments;
    this.#oldestNeeded = log.segments[0]?.number ?? 1;
    this.#lastBatch = log.lastBatch;
    this.recoveredBatch = log.lastBatch;
    this.tornBytes = log.tornBytes;
    this.isNew = log.segments.length === 0;
  }

  /**
   * Recovers the log in `dir` and opens it for appending. `onRecord` is called in the order of the
   * log for all that is kept; entries at or below the group's checkpoint may be among it, and so may
   * cuts that are older than the checkpoint.
   *
   * @throws {CorruptionError} data that was acknowledged is damaged; nothing has been changed
   */
  static async open(options: WalOptions, onRecord: (record: WalRecord) => void): Promise<Wal> {
    const { disk, dir, clusterId, storeId, segmentBytes = 64 * MIB, keepBytes = 64 * MIB } =
      options;
    await disk.mkdir(dir);
    const index = new WalIndex();
    const identity = { clusterId, storeId };
    const log = await recoverLog({ disk, dir, identity, index, onRecord });
    const wal = new Wal({ ...options, segmentBytes, keepBytes }, index, log);
    // A node with a full disk must still start, to serve reads: then the seal waits.
    await wal.append([]).catch((error) => {
      if (!isDiskFull(error)) throw error;
    });
    return wal;
  }

  /** The last batch that is durable: where the log ends, for whoever wants to notice if it shrinks. */
  get lastBatch(): number {
    return this.#lastBatch;
  }

  /** Bytes of all segments on disk. */
  get sizeBytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.bytes, 0);
  }

  get stats(): WalStats {
    return { ...this.#stats };
  }

  /** Whether a write or sync is under way. */
  get isBusy(): boolean {
    return this.#busySinceMs !== null;
  }

  /** For how long the write or sync under way has been at it; 0 when none is. */
  get hangingMs(): number {
    return this.#busySinceMs === null ? 0 : performance.now() - this.#busySinceMs;
  }

  /** Set once a write or sync has failed for good. */
  get failure(): DiskFailedError | null {
    return this.#failure;
  }

  /** A group's entry that alone can be followed by one in the log; null when any can come next. */
  endOf(gid: GroupId): Lsn | null {
    return (this.#index.groups.get(gid)?.lastLsn ?? null) as Lsn | null;
  }

  /** First and last live entry of a group in the log; null when it holds none. */
  bounds(gid: GroupId): { firstLsn: Lsn; lastLsn: Lsn } | null {
    const runs = this.#index.groups.get(gid)?.runs;
    if (runs === undefined || runs.length === 0) return null;
    return { firstLsn: runs[0]!.firstLsn as Lsn, lastLsn: runs.at(-1)!.lastLsn as Lsn };
  }

  /**
   * Resolves once all records are durable, in order and after all earlier appends. Payloads must not
   * change until then. An empty append waits for those before it.
   *
   * @throws {KvError} `disk_full`: none of these and nothing appended since is in the log;
   *   `busy`: too much is waiting, nothing was written
   * @throws {DiskFailedError} it is unknown what is on the disk
   */
  append(records: readonly WalRecord[]): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (this.#closed) return Promise.reject(new Error("Cannot append to the log: it is closed"));
    let bytes = 0;
    for (const record of records) {
      bytes += payloadRecordBytes("payload" in record ? record.payload.length : 0);
    }
    if (this.#queuedBytes + bytes > QUEUE_BYTES_MAX) {
      const message = `Cannot append to the log: ${this.#queuedBytes} bytes wait to be written`;
      return Promise.reject(new KvError("busy", message));
    }
    const objection = this.#enqueueLsns(records);
    if (objection !== null) return Promise.reject(new InvariantViolation("W1", objection));
    return new Promise((resolve, reject) => {
      this.#queue.push({ records, bytes, resolve, reject });
      this.#queuedBytes += bytes;
      this.#pumping ??= this.#pump();
    });
  }

  /**
   * Live entries of a group from `fromLsn` on, read from disk; at least one when there is one. Null
   * when `fromLsn` is no longer in the log; empty when it is behind the last durable entry.
   *
   * @throws {CorruptionError} an entry fails its checksum
   */
  async readEntries(
    gid: GroupId,
    fromLsn: Lsn,
    { maxBytes, maxEntries }: { maxBytes: number; maxEntries: number },
  ): Promise<StoredEntry[] | null> {
    const group = this.#index.groups.get(gid);
    if (group === undefined || group.lastLsn === null) return null;
    if (fromLsn > group.lastLsn) return [];
    const { cutCount } = group;
    const entries: StoredEntry[] = [];
    let leftBytes = maxBytes;
    let nextLsn: number = fromLsn;
    while (entries.length < maxEntries && (entries.length === 0 || leftBytes > 0)) {
      const run = group.runOf(nextLsn);
      const segment = this.#segments.find(({ number }) => number === run?.segmentNumber);
      if (run === undefined || segment === undefined) break;
      const limits = { maxBytes: leftBytes, maxEntries: maxEntries - entries.length };
      const found = await this.#withReader(segment, () => {
        return readRun({ segment, run, gid, fromLsn: nextLsn, ...limits });
      });
      entries.push(...found);
      for (const { payload } of found) leftBytes -= payload.length;
      nextLsn += found.length;
      if (found.length === 0 || nextLsn <= run.lastLsn) break;
    }
    // What was read may just have been cut away: read what is there instead.
    if (group.cutCount !== cutCount) {
      return this.readEntries(gid, fromLsn, { maxBytes, maxEntries });
    }
    return entries.length === 0 ? null : entries;
  }

  /**
   * Entries up to `lsn` are in a checkpoint. Segments that no group needs any more are deleted in the
   * background, oldest first, down to `keepBytes`; the newest config and commit record of each group
   * are written anew before theirs is deleted.
   */
  release(gid: GroupId, lsn: Lsn): void {
    const group = this.#index.group(gid);
    group.releasedLsn = Math.max(group.releasedLsn, lsn);
    if (this.#closed || this.#failure !== null) return;
    this.#collecting ??= this.#collect().finally(() => this.#collecting = null);
  }

  /**
   * Reads all durable records again, a window at a time; `onBytes` is awaited in between and sets the
   * pace. Says where the first damage is, or null.
   */
  async verify(onBytes: (bytes: number) => Promise<void>): Promise<CorruptionError | null> {
    for (const segment of [...this.#segments]) {
      if (segment.deleted) continue;
      const damage = await this.#withReader(segment, () => verifySegment(segment, onBytes));
      if (damage !== null && !segment.deleted) {
        this.#damagedSegment = segment.number;
        return damage;
      }
    }
    return null;
  }

  /** Whether a segment that `verify` found damaged is still there. */
  get isDamaged(): boolean {
    return this.#segments.some(({ number }) => number <= this.#damagedSegment);
  }

  /** Resolves once the deletions that `release` began have ended, for better or worse. */
  async collected(): Promise<void> {
    await this.#collecting;
  }

  /** Writes what is queued, and a seal behind it. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#collecting;
    while (this.#pumping !== null) await this.#pumping;
    if (this.#failure === null && !this.#sealIsDue) {
      this.#sealIsDue = true;
      await this.#seal().catch(() => {});
    }
    for (const segment of this.#segments) await segment.file.close().catch(() => {});
  }

  /** Checks that the records follow what is queued, and takes note of them; or says why not. */
  #enqueueLsns(records: readonly WalRecord[]): string | null {
    const touched = new Map<GroupLog, number | null>();
    for (const record of records) {
      const group = this.#index.group(record.gid);
      const last = touched.has(group) ? touched.get(group)! : group.queuedLsn;
      const objection = GroupLog.objection(record, last);
      if (objection !== null) return objection;
      touched.set(group, GroupLog.lsnAfter(record, last));
    }
    for (const [group, last] of touched) group.queuedLsn = last;
    for (const record of records) countNote(this.#index, record, 1);
    return null;
  }

  async #pump(): Promise<void> {
    // Appends of the same turn of the event loop join the first batch.
    await null;
    while (this.#queue.length > 0 && this.#failure === null) {
      const batch = this.#takeBatch();
      this.#busySinceMs = performance.now();
      try {
        if (this.#sealIsDue) await this.#seal();
        if (batch.bytes > 0) await this.#writeBatch(batch.appends, batch.bytes);
        const settle = () => batch.appends.forEach((append) => this.#settle(append));
        if (this.#lateSync === null) settle();
        else this.#lateSync.then(settle, (error) => this.#rejectAll(batch.appends, error));
      } catch (error) {
        this.#rejectAll(batch.appends, error);
      }
      this.#busySinceMs = null;
    }
    this.#pumping = null;
  }

  #takeBatch(): { appends: PendingAppend[]; bytes: number } {
    let count = 0, bytes = 0;
    for (const append of this.#queue) {
      if (count > 0 && bytes + append.bytes > BATCH_BYTES_MAX) break;
      bytes += append.bytes;
      count++;
    }
    const appends = count === this.#queue.length ? this.#queue : this.#queue.slice(0, count);
    this.#queue = count === this.#queue.length ? [] : this.#queue.slice(count);
    return { appends, bytes };
  }

  #settle(append: PendingAppend, error?: unknown): void {
    this.#queuedBytes -= append.bytes;
    for (const record of append.records) countNote(this.#index, record, -1);
    if (error === undefined) append.resolve();
    else append.reject(error);
  }

  /** What is queued relies on the batch that failed, so it fails with it. */
  #rejectAll(appends: readonly PendingAppend[], error: unknown): void {
    const queued = this.#queue;
    this.#queue = [];
    for (const append of [...appends, ...queued]) this.#settle(append, error);
    for (const group of this.#index.groups.values()) group.queuedLsn = group.lastLsn;
  }

  async #seal(): Promise<void> {
    await this.#writeBatch([], payloadRecordBytes(0));
    this.#sealIsDue = false;
  }

  /** Writes and syncs one batch (a seal when there are no appends), and takes it into the index. */
  async #writeBatch(appends: readonly PendingAppend[], bytes: number): Promise<void> {
    const last = this.#segments.at(-1);
    // A seal stays with the batch that it seals: a segment before the last must end with a whole one.
    const isSeal = appends.length === 0;
    const isFull = last !== undefined && last.bytes > SEGMENT_HEADER_BYTES &&
      last.bytes + bytes > this.#options.segmentBytes;
    const rolls = last === undefined || !isSeal && (isFull || last.number <= this.#damagedSegment);
    const segment = rolls ? await this.#guard(() => this.#newSegment()) : last;
    const startOffset = rolls ? SEGMENT_HEADER_BYTES : segment.bytes;
    const batch = this.#lastBatch + 1;
    const chains = new Map<GroupLog, number | null>();
    try {
      await this.#guard(async () => {
        const out = this.#encoder.begin(segment, { offset: rolls ? 0 : startOffset, batch });
        if (rolls) out.header(this.#segmentHeader(segment.number));
        let leftCount = appends.reduce((sum, append) => sum + append.records.length, 0);
        if (isSeal) out.seal(this.#oldestNeeded);
        for (const { records } of appends) {
          for (const record of records) {
            const group = this.#index.group(record.gid);
            if (!chains.has(group)) chains.set(group, group.chainCrc);
            const endsBatch = --leftCount === 0;
            const crc = out.record(record, { prevCrc: group.chainCrc ?? 0, endsBatch });
            group.chainCrc = typeof crc === "number" ? crc : await crc;
          }
        }
        await out.flush();
      });
    } catch (error) {
      for (const [group, chainCrc] of chains) group.chainCrc = chainCrc;
      if (isDiskFull(error)) await this.#guard(() => this.#cutBack(segment, rolls));
      throw error;
    }
    const synced = this.#guard(() => this.#sync(segment, rolls));
    if (mutated("batch-before-sync")) this.#lateSync = synced;
    else await synced;
    this.#lastBatch = batch;
    if (rolls) this.#segments.push(segment);
    segment.bytes = startOffset + bytes;
    this.#noteBatch(appends, segment.number, startOffset);
    this.#stats.batchCount++;
    this.#stats.bytesWritten += bytes + (rolls ? SEGMENT_HEADER_BYTES : 0);
  }

  async #sync(segment: Segment, isNew: boolean): Promise<void> {
    const startMs = performance.now();
    try {
      const syncing = segment.file.sync();
      if (mutated("log-acks-before-sync")) return void syncing.catch(() => {});
      await syncing;
      if (isNew && !mutated("segment-name-not-synced")) {
        await this.#options.disk.syncDir(this.#options.dir);
      }
    } catch (error) {
      // Space that is missing only now means that pages taken before are lost: no way back.
      throw isDiskFull(error)
        ? new DiskFailedError("a sync found no space", { cause: error })
        : error;
    }
    const ms = performance.now() - startMs;
    this.#stats.fsyncCount++;
    this.#stats.fsyncMsTotal += ms;
    this.#stats.fsyncMsMax = Math.max(this.#stats.fsyncMsMax, ms);
  }

  #noteBatch(appends: readonly PendingAppend[], segmentNumber: number, startOffset: number): void {
    let offset = startOffset;
    for (const { records } of appends) {
      for (const record of records) {
        this.#index.group(record.gid).note(record, segmentNumber, offset);
        offset += payloadRecordBytes("payload" in record ? record.payload.length : 0);
        this.#stats.recordCount++;
      }
    }
  }

  async #newSegment(): Promise<Segment> {
    const number = (this.#segments.at(-1)?.number ?? 0) + 1;
    const path = `${this.#options.dir}/${segmentName(number)}`;
    const file = await this.#options.disk.open(path, { create: true });
    const seed = segmentSeed(this.#options.storeId, number);
    return { number, path, file, seed, bytes: 0, readerCount: 0, deleted: false };
  }

  #segmentHeader(segmentNumber: number): Uint8Array {
    const { clusterId, storeId } = this.#options;
    const previousBatch = this.#lastBatch, oldestSegment = this.#oldestNeeded;
    const ids = { clusterId, storeId };
    return encodeSegmentHeader({ ...ids, segmentNumber, oldestSegment, previousBatch });
  }

  /** After a full disk: takes away what was written of a batch. */
  async #cutBack(segment: Segment, isNew: boolean): Promise<void> {
    if (isNew) {
      await segment.file.close();
      await this.#options.disk.remove(segment.path);
      await this.#options.disk.syncDir(this.#options.dir);
    } else {
      await segment.file.truncate(segment.bytes);
      await segment.file.sync();
    }
  }

  /** Turns every error but a full disk into the end of this log. */
  async #guard<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      if (isDiskFull(error)) throw error;
      this.#failure = new DiskFailedError(
        `Cannot go on with the log in "${this.#options.dir}": the disk failed`,
        { cause: error },
      );
      throw this.#failure;
    }
  }

  async #withReader<T>(segment: Segment, read: () => Promise<T>): Promise<T> {
    segment.readerCount++;
    try {
      return await read();
    } finally {
      segment.readerCount--;
      if (segment.deleted && segment.readerCount === 0) await segment.file.close();
    }
  }

  async #collect(): Promise<void> {
    try {
      while (this.#oldestIsFree()) {
        // Whatever is queued now is durable afterwards, and known to the index.
        await this.append([]);
        const oldest = this.#segments[0]!;
        const rewritten: WalRecord[] = [];
        let mustWait = false;
        for (const { gid, config, commit, queuedNoteCount } of this.#index.groups.values()) {
          const configIsHere = config?.segmentNumber === oldest.number;
          const commitIsHere = commit?.segmentNumber === oldest.number;
          if (!configIsHere && !commitIsHere) continue;
          // A newer one may be queued, and must not be followed by the older one.
          if (queuedNoteCount > 0) mustWait = true;
          else {
            if (configIsHere) rewritten.push({ type: "config", gid, ...config });
            if (commitIsHere) rewritten.push({ type: "commit", gid, lsn: commit.lsn });
          }
        }
        if (rewritten.length > 0) await this.append(rewritten);
        else if (!mustWait) {
          // Said before it is done: a log that lacks more than it says was damaged.
          this.#oldestNeeded = oldest.number + 1;
          this.#sealIsDue = true;
          await this.append([]);
          await this.#deleteOldest();
        }
      }
    } catch (error) {
      // The next release tries again; if the disk failed for good, every append says so.
      const isPassing = error instanceof KvError || this.#failure !== null || this.#closed;
      if (!isPassing) throw error;
    }
  }

  #oldestIsFree(): boolean {
    const oldest = this.#segments[0];
    if (this.#closed || this.#failure !== null) return false;
    if (oldest === undefined || this.#segments.length < 2) return false;
    const isKept = this.sizeBytes - oldest.bytes < this.#options.keepBytes;
    if (isKept && oldest.number > this.#damagedSegment) return false;
    for (const group of this.#index.groups.values()) {
      if (group.needsSegment(oldest.number)) return false;
    }
    return true;
  }

  async #deleteOldest(): Promise<void> {
    const { disk, dir } = this.#options;
    const oldest = this.#segments.shift()!;
    for (const group of this.#index.groups.values()) group.dropSegment(oldest.number);
    oldest.deleted = true;
    await this.#guard(async () => {
      if (oldest.readerCount === 0) await oldest.file.close();
      await disk.remove(oldest.path);
      // One by one: a crash must not bring back an older segment than one that is gone.
      await disk.syncDir(dir);
    });
  }
}

function countNote(index: WalIndex, record: WalRecord, by: 1 | -1): void {
  if (record.type !== "config" && record.type !== "commit") return;
  index.group(record.gid).queuedNoteCount += by;
}
