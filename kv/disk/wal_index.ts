/**
 * Where each group's live entries lie in the log, and what its next record must look like. Kept in
 * memory, built by recovery, and then raised by every batch that became durable.
 *
 * Entries of a group are held as runs: neighbours in lsn within one segment, with a point of entry
 * every INDEX_STRIDE_BYTES of the file. A cut shortens or drops runs, and what is appended after it
 * begins a new one; so between the start and the end of a run there are no dead entries of its group.
 */
import type { Epoch, GroupId, Lsn } from "../../proto/ids.ts";
import type { WalRecord } from "./wal_record.ts";

const INDEX_STRIDE_BYTES = 32 * 1024;

export interface Run {
  readonly segmentNumber: number;
  readonly firstLsn: number;
  lastLsn: number;
  /** Ascending; the first is that of `firstLsn`. */
  readonly points: { readonly lsn: number; readonly offset: number }[];
}

export class GroupLog {
  /** headerCrc of the group's last record, or null when none is known: then any may come next. */
  chainCrc: number | null = null;
  /** Lsn of the last live entry, or null when the log has not said anything about it. */
  lastLsn: number | null = null;
  /** The same, counting records that are queued but not durable yet. */
  queuedLsn: number | null = null;
  readonly runs: Run[] = [];
  /** Raised by every cut, so that a reader notices one that happened meanwhile. */
  cutCount = 0;
  releasedLsn = 0;
  config: { epoch: Epoch; payload: Uint8Array; segmentNumber: number } | null = null;
  commit: { lsn: Lsn; segmentNumber: number } | null = null;
  /** Records of kind config or commit that are queued: a newer one than the above may be on its way. */
  queuedNoteCount = 0;

  constructor(readonly gid: GroupId) {}

  /** Why `record` cannot follow what the log holds with `lastLsn` as its last entry; null if it can. */
  static objection(record: WalRecord, lastLsn: number | null): string | null {
    if (lastLsn === null) return null;
    if (record.type === "entry" && record.lsn !== lastLsn + 1) {
      return `entry ${record.lsn} of group ${record.gid} does not follow entry ${lastLsn}`;
    }
    if (record.type === "truncate" && record.lsn > lastLsn) {
      return `group ${record.gid} cannot be cut at ${record.lsn}: it ends at ${lastLsn}`;
    }
    return null;
  }

  /** The last lsn after `record`. */
  static lsnAfter(record: WalRecord, lastLsn: number | null): number | null {
    return record.type === "config" || record.type === "commit" ? lastLsn : record.lsn;
  }

  /** Takes in a durable record. */
  note(record: WalRecord, segmentNumber: number, offset: number): void {
    this.lastLsn = GroupLog.lsnAfter(record, this.lastLsn);
    switch (record.type) {
      case "entry":
        this.#noteEntry(record.lsn, segmentNumber, offset);
        break;
      case "truncate":
        this.#cutAfter(record.lsn);
        break;
      case "reset":
        this.cutCount++;
        this.runs.length = 0;
        break;
      case "config":
        this.config = { epoch: record.epoch, payload: record.payload.slice(), segmentNumber };
        break;
      case "commit":
        this.commit = { lsn: record.lsn, segmentNumber };
        break;
    }
  }

  /** The run that holds `lsn`. */
  runOf(lsn: number): Run | undefined {
    return this.runs.find((run) => run.firstLsn <= lsn && lsn <= run.lastLsn);
  }

  dropSegment(segmentNumber: number): void {
    while (this.runs[0] !== undefined && this.runs[0].segmentNumber <= segmentNumber) {
      this.runs.shift();
    }
  }

  /** Whether a segment holds a live entry that is not checkpointed. Ask only of the oldest. */
  needsSegment(segmentNumber: number): boolean {
    return this.runs.some((run) =>
      run.segmentNumber <= segmentNumber && run.lastLsn > this.releasedLsn
    );
  }

  #noteEntry(lsn: number, segmentNumber: number, offset: number): void {
    const run = this.runs.at(-1);
    if (run === undefined || run.segmentNumber !== segmentNumber || this.#startsRun) {
      const points = [{ lsn, offset }];
      this.runs.push({ segmentNumber, firstLsn: lsn, lastLsn: lsn, points });
      this.#startsRun = false;
      return;
    }
    run.lastLsn = lsn;
    if (offset - run.points.at(-1)!.offset >= INDEX_STRIDE_BYTES) run.points.push({ lsn, offset });
  }

  /** The next entry must not join the last run: dead entries lie between them. */
  #startsRun = false;

  #cutAfter(lsn: number): void {
    this.cutCount++;
    this.#startsRun = true;
    while (this.runs.length > 0 && this.runs.at(-1)!.firstLsn > lsn) this.runs.pop();
    const run = this.runs.at(-1);
    if (run === undefined) return;
    run.lastLsn = Math.min(run.lastLsn, lsn);
    while (run.points.at(-1)!.lsn > lsn) run.points.pop();
  }
}

/** All groups of one log. */
export class WalIndex {
  readonly groups = new Map<number, GroupLog>();

  group(gid: number): GroupLog {
    let group = this.groups.get(gid);
    if (group === undefined) {
      group = new GroupLog(gid as GroupId);
      this.groups.set(gid, group);
    }
    return group;
  }
}
