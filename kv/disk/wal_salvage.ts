/**
 * What can be saved of a damaged log, for the one case in which nobody else has what it held: a person
 * decides (cli/wal_salvage.ts), the node is stopped, and nothing here changes the log that it reads.
 *
 * Recovery (wal_recovery.ts) refuses a damaged log as a whole. But a record says which record of its
 * group came before it, so much behind the damage is certain all the same. Of each group is kept:
 *
 *   - everything up to its first record that is missing;
 *   - what is behind a gap, if a checkpoint reaches over the gap: whatever was in it is in there;
 *   - what is behind a gap in which no entry can have been: entries p and p + 1 of one reign are
 *     neighbours in that reign's log (log matching), so a note was lost at most.
 *
 * Everything else behind a gap is lost though it can be read: commands that follow one that is missing
 * would make a state that never was. It is listed.
 *
 * The result is a log of another store (`rewriteLog`), so that nobody counts on it as on the old one.
 */
import { GroupConfig } from "../../proto/replication.ts";
import { type Epoch, type GroupId, groupId, type Lsn, lsn as toLsn } from "../../proto/ids.ts";
import type { Disk } from "./disk.ts";
import { Wal } from "./wal.ts";
import {
  equalBytes,
  FLAG_BATCH_END,
  FLAG_CONTINUES,
  idDigest,
  joinPieces,
  readSegmentHeader,
  RECORD_BYTES_MAX,
  type RecordHeader,
  SEGMENT_HEADER_BYTES,
  segmentSeedOf,
  toRecord,
  TYPES,
  type WalRecord,
} from "./wal_record.ts";
import { segmentName, segmentNumberOf, SegmentReader } from "./wal_segment.ts";

export interface DamagedLog {
  readonly disk: Disk;
  readonly dir: string;
  readonly clusterId: string;
  /** Whose log it should be; null when the identity is lost, then the segments say. */
  readonly storeId: string | null;
  /** As of which entry each group's checkpoint is; 0 for none. */
  readonly checkpoints: ReadonlyMap<GroupId, Lsn>;
}

export interface LogDamage {
  readonly file: string;
  readonly offset: number;
  readonly what: string;
}

export interface LostEntry {
  readonly epoch: Epoch;
  readonly lsn: Lsn;
  /** Empty when parts of it are missing. */
  readonly payload: Uint8Array;
}

export interface SalvagedGroup {
  readonly gid: GroupId;
  readonly checkpointLsn: Lsn;
  /** The last entry that remains, in the log or the checkpoint. */
  readonly lastLsn: Lsn;
  /** Entries that can be read and are lost all the same, in order. */
  readonly lost: readonly LostEntry[];
  /** Entries up to here were certainly acknowledged. */
  readonly committedLsn: Lsn;
  /** The same of what remains: behind a gap it may be other entries that were committed. */
  readonly keptCommitLsn: Lsn;
  /** The newest configuration that was found. */
  readonly config: GroupConfig | null;
  /** Whether a record behind all damage proves that nothing else of this group was in it. */
  readonly isProven: boolean;
}

export interface LogFindings {
  /** In the order of the log; a torn end, which nobody was told about, is not among them. */
  readonly damages: readonly LogDamage[];
  readonly segmentCount: number;
  readonly lastBatch: number;
  readonly groups: ReadonlyMap<GroupId, SalvagedGroup>;
}

/** Reads the whole log; changes nothing. */
export async function inspectLog(source: DamagedLog): Promise<LogFindings> {
  return await salvage(source, () => Promise.resolve());
}

const WRITE_BYTES = 1024 * 1024;

/** Writes what remains of the log as that of the store `storeId`, into `dir`, which must be empty. */
export async function rewriteLog(
  source: DamagedLog,
  { dir, storeId }: { readonly dir: string; readonly storeId: string },
): Promise<void> {
  const { disk, clusterId } = source;
  const wal = await Wal.open({ disk, dir, clusterId, storeId }, () => {});
  try {
    let records: WalRecord[] = [], bytes = 0;
    const { groups } = await salvage(source, async (record) => {
      records.push(record);
      bytes += "payload" in record ? record.payload.length : 0;
      if (bytes < WRITE_BYTES) return;
      const full = records;
      records = [];
      bytes = 0;
      await wal.append(full);
    });
    for (const { gid, config, keptCommitLsn } of groups.values()) {
      if (config !== null) {
        const payload = new TextEncoder().encode(JSON.stringify(config));
        records.push({ type: "config", gid, epoch: config.epoch, payload });
      }
      if (keptCommitLsn > 0) records.push({ type: "commit", gid, lsn: keptCommitLsn });
    }
    await wal.append(records);
  } finally {
    await wal.close();
  }
  if (wal.failure !== null) throw wal.failure;
}

/** Whose log lies in `dir`: the digest of the store that its first readable segment names, or null. */
export async function logOwner(disk: Disk, dir: string): Promise<Uint8Array | null> {
  for (const number of await segmentNumbers(disk, dir)) {
    const header = await headerOf(disk, `${dir}/${segmentName(number)}`);
    if (header !== null) return header.storeDigest;
  }
  return null;
}

async function salvage(
  source: DamagedLog,
  keep: (record: WalRecord) => Promise<void>,
): Promise<LogFindings> {
  const groups = new Map<GroupId, GroupSalvage>();
  const groupOf = (gid: number) => {
    const id = groupId(gid);
    let group = groups.get(id);
    if (group === undefined) {
      group = new GroupSalvage(id, source.checkpoints.get(id) ?? toLsn(0));
      groups.set(id, group);
    }
    return group;
  };
  for (const gid of source.checkpoints.keys()) groupOf(gid);
  const scan = new LogScan(source, async (header, found) => {
    const group = groupOf(header.gid);
    for (const record of group.take(header, found)) await keep(record);
  });
  await scan.run();
  const { damages, lastBatch, segmentCount } = scan;
  const summaries = Array.from(
    groups,
    ([gid, group]) => [gid, group.summary(damages.length)] as const,
  );
  return { damages, lastBatch, segmentCount, groups: new Map(summaries) };
}

interface Found {
  /** Null for a piece of a payload whose rest is still to come, or was lost. */
  readonly record: WalRecord | null;
  /** It is certainly not the rest of a payload whose beginning is lost. */
  readonly isWhole: boolean;
  /** How much damage came before it. */
  readonly damageCount: number;
  /** Whether the log is there from its first record on. */
  readonly fromStart: boolean;
}

/** Walks over all that can be read, and notes what cannot. */
class LogScan {
  readonly damages: LogDamage[] = [];
  lastBatch = 0;
  segmentCount = 0;
  readonly #source: DamagedLog;
  readonly #onRecord: (header: RecordHeader, found: Found) => Promise<void>;
  #batchEnded = true;
  #fromStart = false;
  #pieces: Uint8Array[] = [];
  #piecesBytes = 0;
  /** Whether the first piece is the payload's first. */
  #piecesAreWhole = true;

  constructor(
    source: DamagedLog,
    onRecord: (header: RecordHeader, found: Found) => Promise<void>,
  ) {
    this.#source = source;
    this.#onRecord = onRecord;
  }

  async run(): Promise<void> {
    const { disk, dir } = this.#source;
    const numbers = await segmentNumbers(disk, dir);
    this.segmentCount = numbers.length;
    this.#fromStart = numbers[0] === 1;
    const owner = await this.#owner(numbers);
    for (const [i, number] of numbers.entries()) {
      const before = numbers[i - 1];
      if (before !== undefined && number !== before + 1) {
        this.#damage(`${dir}/${segmentName(before + 1)}`, 0, "the segment is missing");
      }
      await this.#readSegment(number, {
        owner,
        isFirst: i === 0,
        isLast: i === numbers.length - 1,
      });
    }
  }

  /** The store that wrote the log: what the identity says, if a segment says so too. */
  async #owner(numbers: readonly number[]): Promise<Uint8Array | null> {
    const { disk, dir, clusterId, storeId } = this.#source;
    const wanted = storeId === null ? null : idDigest(storeId), cluster = idDigest(clusterId);
    let first: Uint8Array | null = null;
    for (const number of numbers) {
      const header = await headerOf(disk, `${dir}/${segmentName(number)}`);
      if (header === null || !equalBytes(header.clusterDigest, cluster)) continue;
      if (wanted === null || equalBytes(header.storeDigest, wanted)) return header.storeDigest;
      first ??= header.storeDigest;
    }
    // With all headers damaged the identity is the only one who knows.
    return first ?? wanted;
  }

  async #readSegment(
    number: number,
    { owner, isFirst, isLast }: { owner: Uint8Array | null; isFirst: boolean; isLast: boolean },
  ): Promise<void> {
    const { disk, dir } = this.#source;
    const path = `${dir}/${segmentName(number)}`;
    if (owner === null) return this.#damage(path, 0, "nobody knows whose log it is");
    const header = await headerOf(disk, path);
    if (header !== null && !equalBytes(header.storeDigest, owner)) {
      return this.#damage(path, 0, "the segment was written by another store");
    }
    const file = await disk.open(path);
    try {
      const bytes = await file.size();
      const seed = segmentSeedOf(owner, number);
      const readFrom = (startOffset: number) =>
        new SegmentReader(file, { seed, startOffset, endOffset: bytes });
      const isTorn = async (offset: number) => {
        if (!isLast) return false;
        const batch = this.#batchEnded ? this.lastBatch + 1 : this.lastBatch;
        return await readFrom(offset).findLaterBatch(batch) === null;
      };
      if (header === null || header.segmentNumber !== number) {
        // Its header was synced together with its first batch.
        if (this.#batchEnded && (!isFirst || number === 1) && await isTorn(0)) return;
        this.#damage(path, 0, "the segment's header fails its checksum");
      } else if (isFirst) this.lastBatch = header.previousBatch;
      else if (header.previousBatch !== this.lastBatch) {
        this.#damage(
          path,
          0,
          `the segment before it ends with batch ${this.lastBatch}, not ` +
            `with batch ${header.previousBatch}`,
        );
      }
      await this.#readRecords(path, readFrom(SEGMENT_HEADER_BYTES), isTorn);
      if (!isLast && !this.#batchEnded) this.#damage(path, bytes, "the segment ends too early");
    } finally {
      await file.close();
    }
  }

  async #readRecords(
    path: string,
    reader: SegmentReader,
    isTorn: (offset: number) => Promise<boolean>,
  ): Promise<void> {
    let isWhole = true, followsDamage = false;
    for (;;) {
      const status = reader.next();
      if (status === "end") return;
      if (status === "refill") {
        await reader.refill();
      } else if (status === "damaged") {
        if (await isTorn(reader.offset)) return;
        const { offset } = reader;
        this.#damage(path, offset, "a record fails its checksum");
        if (!await reader.skipDamage()) return;
        // A payload in pieces begins with a full one; in less than that none can have begun.
        isWhole = reader.offset - offset < RECORD_BYTES_MAX;
        followsDamage = true;
      } else {
        await this.#take(path, reader, { isWhole, followsDamage });
        isWhole = true;
        followsDamage = false;
      }
    }
  }

  async #take(
    path: string,
    reader: SegmentReader,
    { isWhole, followsDamage }: { isWhole: boolean; followsDamage: boolean },
  ): Promise<void> {
    const { header, payload, recordOffset } = reader;
    if (!followsDamage && header.batch > this.lastBatch + 1) {
      this.#damage(path, recordOffset, `batch ${this.lastBatch + 1} is missing before it`);
    }
    this.lastBatch = header.batch;
    this.#batchEnded = (header.flags & FLAG_BATCH_END) !== 0;
    if (header.type === TYPES.seal) return;
    if (this.#pieces.length === 0) this.#piecesAreWhole = isWhole;
    this.#pieces.push(payload.slice());
    this.#piecesBytes += payload.length;
    const found = {
      isWhole: this.#piecesAreWhole,
      damageCount: this.damages.length,
      fromStart: this.#fromStart,
    };
    if (header.flags & FLAG_CONTINUES) {
      return await this.#onRecord(header, { ...found, record: null });
    }
    const whole = joinPieces(this.#pieces, this.#piecesBytes);
    this.#forgetPieces();
    await this.#onRecord(header, { ...found, record: toRecord(header, whole) });
  }

  #damage(file: string, offset: number, what: string): void {
    this.damages.push({ file, offset, what });
    this.#forgetPieces();
  }

  #forgetPieces(): void {
    this.#pieces = [];
    this.#piecesBytes = 0;
  }
}

/** What one group's records in their order come to. */
class GroupSalvage {
  readonly #gid: GroupId;
  readonly #checkpointLsn: number;
  /** headerCrc of the group's record before; null before the first. */
  #chainCrc: number | null = null;
  /** Where the log stands whose every record is there; null when not known. */
  #position: { lsn: number; epoch: number | null } | null = null;
  /** A record of this group is missing somewhere behind `#position`. */
  #broken = false;
  /** The last entry of what is kept, in the new log or the checkpoint. */
  #endLsn: number;
  #lost: LostEntry[] = [];
  #committedLsn = 0;
  #keptCommitLsn = 0;
  #config: GroupConfig | null = null;
  #provenCount = 0;

  constructor(gid: GroupId, checkpointLsn: Lsn) {
    this.#gid = gid;
    this.#checkpointLsn = checkpointLsn;
    this.#endLsn = checkpointLsn;
  }

  summary(damageCount: number): SalvagedGroup {
    return {
      gid: this.#gid,
      checkpointLsn: toLsn(this.#checkpointLsn),
      lastLsn: toLsn(this.#endLsn),
      lost: this.#lost.filter((entry) => entry.lsn > this.#endLsn),
      committedLsn: toLsn(this.#committedLsn),
      keptCommitLsn: toLsn(Math.min(this.#keptCommitLsn, this.#endLsn)),
      config: this.#config,
      isProven: this.#provenCount === damageCount && !this.#broken,
    };
  }

  /** Takes the next record, and answers with what the new log gets of it. */
  take(header: RecordHeader, found: Found): WalRecord[] {
    if (!this.#follows(header, found)) this.#broken = true;
    this.#chainCrc = header.headerCrc;
    const { record } = found;
    const kept = record === null ? [] : this.#takeRecord(record, found.isWhole);
    if (!this.#broken) this.#provenCount = found.damageCount;
    return kept;
  }

  #follows({ prevCrc }: RecordHeader, { damageCount, fromStart }: Found): boolean {
    if (this.#chainCrc !== null) return prevCrc === this.#chainCrc;
    // Of a group that is met for the first time, records may have gone with old segments.
    return damageCount === 0 && (!fromStart || prevCrc === 0);
  }

  #takeRecord(record: WalRecord, isWhole: boolean): WalRecord[] {
    switch (record.type) {
      case "config":
        this.#config = readConfig(record.payload) ?? this.#config;
        return [];
      case "commit":
        this.#committedLsn = Math.max(this.#committedLsn, record.lsn);
        if (!this.#broken) this.#keptCommitLsn = this.#committedLsn;
        return [];
      case "reset":
        return this.#takeReset(record.lsn);
      case "truncate":
        return this.#takeTruncate(record.lsn, record.epoch);
      case "entry":
        return this.#takeEntry(record, isWhole);
    }
  }

  #takeReset(lsn: number): WalRecord[] {
    // The checkpoint that it speaks of is in place, unless that was replaced by an older one.
    this.#broken = lsn > this.#checkpointLsn;
    this.#position = this.#broken ? null : { lsn, epoch: null };
    return this.#broken ? [] : this.#backToCheckpoint();
  }

  #takeTruncate(lsn: number, epoch: Epoch): WalRecord[] {
    if (this.#broken) {
      this.#lost = this.#lost.filter((entry) => entry.lsn <= lsn);
      return [];
    }
    this.#position = { lsn, epoch: null };
    const endLsn = Math.max(lsn, this.#checkpointLsn);
    if (endLsn >= this.#endLsn) return [];
    this.#endLsn = endLsn;
    return [{ type: "truncate", gid: this.#gid, epoch, lsn: toLsn(endLsn) }];
  }

  #takeEntry(record: WalRecord & { type: "entry" }, isWhole: boolean): WalRecord[] {
    const { lsn, epoch } = record, position = this.#position;
    const kept: WalRecord[] = [];
    const fits = position === null ? lsn <= this.#checkpointLsn + 1 : lsn === position.lsn + 1;
    if (this.#broken || !fits) {
      const sameReign = fits && position?.epoch === epoch;
      const isCovered = lsn <= this.#checkpointLsn + 1;
      if (!isWhole || !sameReign && !isCovered) {
        this.#broken = true;
        this.#lost = this.#lost.filter((entry) => entry.lsn < lsn);
        this.#lost.push({ epoch, lsn, payload: isWhole ? record.payload : NOTHING });
        return [];
      }
      if (!sameReign) kept.push(...this.#backToCheckpoint());
      this.#lost = [];
      this.#broken = false;
      this.#keptCommitLsn = this.#committedLsn;
    }
    this.#position = { lsn, epoch };
    if (lsn <= this.#checkpointLsn) return kept;
    this.#endLsn = lsn;
    return [...kept, record];
  }

  /** What was kept behind the checkpoint was replaced. */
  #backToCheckpoint(): WalRecord[] {
    this.#lost = [];
    const lsn = this.#checkpointLsn;
    if (this.#endLsn <= lsn) return [];
    this.#endLsn = lsn;
    return [{ type: "reset", gid: this.#gid, epoch: 0 as Epoch, lsn: toLsn(lsn) }];
  }
}

const NOTHING = new Uint8Array(0);

function readConfig(payload: Uint8Array): GroupConfig | null {
  try {
    return GroupConfig.parse(JSON.parse(new TextDecoder().decode(payload)));
  } catch {
    return null; // one of several pieces, of which some are missing
  }
}

async function segmentNumbers(disk: Disk, dir: string): Promise<number[]> {
  if (await disk.stat(dir) === null) return [];
  const names = (await disk.list(dir)).map(({ name }) => segmentNumberOf(name));
  return names.filter((number) => number !== null).sort((a, b) => a - b);
}

async function headerOf(disk: Disk, path: string) {
  const file = await disk.open(path);
  try {
    const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
    const got = await file.readAt(0, bytes);
    return readSegmentHeader(bytes.subarray(0, got));
  } finally {
    await file.close();
  }
}
