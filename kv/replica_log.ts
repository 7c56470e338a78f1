/**
 * A group's log as the replica sees it: the recent entries themselves, and for all of it which epoch
 * each position belongs to. Older entries are on disk only; the shell reads them when a replica has
 * to catch up from there.
 */
import { type Epoch, epoch as toEpoch, type Lsn, lsn as toLsn } from "../proto/ids.ts";
import type { EpochHistory } from "../proto/replication.ts";
import { type BlobFile, blobsOf, type Command, decodeCommand } from "./command.ts";
import { invariant } from "./invariant.ts";

/**
 * One entry of a group's log: the bytes that are logged and sent, and what they say.
 *
 * As objects the command takes several times what its bytes do, and the collector's time for as long
 * as it is there. So the entry lets go of them once it is applied; whoever asks later reads the bytes.
 */
export class LogEntry {
  /** The files that the command's large values lie in. */
  readonly blobs: readonly BlobFile[];
  /** What sending it costs, the files included. */
  readonly bytes: number;
  #command: Command | null;

  /** @param payload the command's bytes, which must not change */
  constructor(
    readonly epoch: Epoch,
    readonly lsn: Lsn,
    readonly payload: Uint8Array,
    command: Command = decodeCommand(payload),
  ) {
    this.blobs = blobsOf(command);
    this.bytes = this.blobs.reduce((sum, { size }) => sum + size, payload.length);
    this.#command = command;
  }

  get command(): Command {
    return this.#command ?? decodeCommand(this.payload);
  }

  forgetCommand(): void {
    this.#command = null;
  }
}

/** An entry in memory besides its payload: its command as objects, until it is applied. */
const ENTRY_OVERHEAD_BYTES = 512;
/** Entries that are done with are let go so many at a time, at least. */
const TRIMMED_MIN = 32;

export class ReplicaLog {
  /** Entries up to here are part of a checkpoint and can no longer be told apart. */
  #baseLsn: Lsn;
  #lastLsn: Lsn;
  #history: { epoch: Epoch; firstLsn: Lsn }[];
  /** Behind the first #trimmed, which are done with: the entries up to #lastLsn. */
  #recent: LogEntry[] = [];
  #trimmed = 0;
  #recentBytes = 0;
  #unappliedBytes = 0;

  constructor(recovered: { baseLsn: Lsn; history: EpochHistory; entries: readonly LogEntry[] }) {
    this.#baseLsn = recovered.baseLsn;
    this.#lastLsn = recovered.baseLsn;
    this.#history = recovered.history.map((item) => ({ ...item }));
    for (const entry of recovered.entries) this.append(entry);
  }

  get baseLsn(): Lsn {
    return this.#baseLsn;
  }

  get lastLsn(): Lsn {
    return this.#lastLsn;
  }

  get lastEpoch(): Epoch {
    return this.epochAt(this.#lastLsn) ?? toEpoch(0);
  }

  get history(): EpochHistory {
    return this.#history.map((item) => ({ ...item }));
  }

  get recentBytes(): number {
    return this.#recentBytes;
  }

  /** What the entries in memory take, and of it those that were not applied yet. */
  get memory(): { bytes: number; unappliedBytes: number } {
    const bytes = this.#recentBytes + ENTRY_OVERHEAD_BYTES * this.#recent.length;
    return { bytes, unappliedBytes: this.#unappliedBytes };
  }

  /** The entry was applied: what it pins from now on are cells. */
  applied(entry: LogEntry): void {
    this.#unappliedBytes -= entry.payload.length + ENTRY_OVERHEAD_BYTES;
    entry.forgetCommand();
  }

  /** The epoch of the entry at `lsn`; 0 for position 0; null when that position is not known. */
  epochAt(lsn: Lsn): Epoch | null {
    if (lsn === 0) return toEpoch(0);
    if (lsn > this.#lastLsn) return null;
    for (let i = this.#history.length - 1; i >= 0; i--) {
      if (this.#history[i]!.firstLsn <= lsn) return this.#history[i]!.epoch;
    }
    return null;
  }

  append(entry: LogEntry): void {
    invariant(
      entry.lsn === this.#lastLsn + 1 && entry.epoch >= this.lastEpoch,
      "A1",
      () => `entry ${entry.epoch}/${entry.lsn} behind ${this.lastEpoch}/${this.#lastLsn}`,
    );
    if (entry.epoch !== this.lastEpoch || this.#history.length === 0) {
      this.#history.push({ epoch: entry.epoch, firstLsn: entry.lsn });
    }
    this.#lastLsn = entry.lsn;
    this.#recent.push(entry);
    this.#recentBytes += entry.payload.length;
    this.#unappliedBytes += entry.payload.length + ENTRY_OVERHEAD_BYTES;
  }

  /** Forgets everything behind `lsn` and returns it, oldest first, as far as it is in memory. */
  truncateAfter(lsn: Lsn): LogEntry[] {
    const removed: LogEntry[] = [];
    while (this.#recent.length > this.#trimmed && this.#recent.at(-1)!.lsn > lsn) {
      const entry = this.#recent.pop()!;
      this.#recentBytes -= entry.payload.length;
      this.#unappliedBytes -= entry.payload.length + ENTRY_OVERHEAD_BYTES;
      removed.push(entry);
    }
    if (this.#lastLsn > lsn) this.#lastLsn = lsn;
    this.#history = this.#history.filter((item) => item.firstLsn <= lsn);
    return removed.reverse();
  }

  /** A checkpoint as of `lsn` replaced everything. */
  reset(lsn: Lsn, history: EpochHistory): void {
    this.#baseLsn = lsn;
    this.#lastLsn = lsn;
    this.#history = history.filter((item) => item.firstLsn <= lsn).map((item) => ({ ...item }));
    this.#recent = [];
    this.#trimmed = 0;
    this.#recentBytes = 0;
    this.#unappliedBytes = 0;
  }

  /** The entry at `lsn`, or undefined when it is not in memory. */
  at(lsn: Lsn): LogEntry | undefined {
    const first = this.#firstRecentLsn;
    return lsn < first ? undefined : this.#recent[this.#trimmed + lsn - first];
  }

  /** Entries from `lsn` on, at least one if there is one; null when they are not in memory. */
  from(lsn: Lsn, limits: { entriesMax: number; bytesMax: number }): LogEntry[] | null {
    const first = this.#firstRecentLsn;
    if (lsn < first) return null;
    const entries: LogEntry[] = [];
    let bytes = 0;
    for (let i = this.#trimmed + lsn - first; i < this.#recent.length; i++) {
      const entry = this.#recent[i]!;
      bytes += entry.bytes;
      if (entries.length > 0 && (bytes > limits.bytesMax || entries.length >= limits.entriesMax)) {
        break;
      }
      entries.push(entry);
    }
    return entries;
  }

  /** Bytes that sending the entries from `lsn` on costs; Infinity when they are not in memory. */
  bytesFrom(lsn: Lsn): number {
    const first = this.#firstRecentLsn;
    if (lsn < first) return Infinity;
    let bytes = 0;
    for (let i = this.#trimmed + lsn - first; i < this.#recent.length; i++) {
      bytes += this.#recent[i]!.bytes;
    }
    return bytes;
  }

  /** What the entries from `lsn` on take in a log, and with the files that they mention. */
  sizeFrom(lsn: Lsn): { readonly logBytes: number; readonly bytes: number } {
    const first = Math.max(lsn, this.#firstRecentLsn);
    let logBytes = 0, bytes = 0;
    for (let i = this.#trimmed + first - this.#firstRecentLsn; i < this.#recent.length; i++) {
      const entry = this.#recent[i]!;
      logBytes += entry.payload.length;
      bytes += entry.bytes;
    }
    return { logBytes, bytes };
  }

  /** Drops entries up to `lsn` from memory, oldest first, until `keepBytes` are left. */
  trim(lsn: Lsn, keepBytes: number): void {
    while (this.#trimmed < this.#recent.length && this.#recentBytes > keepBytes) {
      const entry = this.#recent[this.#trimmed]!;
      if (entry.lsn > lsn) break;
      this.#recentBytes -= entry.payload.length;
      this.#trimmed += 1;
    }
    // Moving all the others up for each entry that goes would cost more than keeping some for a while.
    if (this.#trimmed < TRIMMED_MIN || this.#trimmed * 8 < this.#recent.length) return;
    this.#recent.splice(0, this.#trimmed);
    this.#trimmed = 0;
  }

  get #firstRecentLsn(): Lsn {
    return toLsn(this.#lastLsn - (this.#recent.length - this.#trimmed) + 1);
  }
}

/**
 * The last position at which two logs agree, from their histories alone: by log matching, two
 * entries of one epoch and position are the same entry, and so is everything before them.
 * Returns null when the logs can only be compared below what is left of one of them.
 */
export function commonPosition(
  mine: { baseLsn: Lsn; lastLsn: Lsn; history: EpochHistory },
  theirs: { baseLsn: Lsn; lastLsn: Lsn; history: EpochHistory },
): Lsn | null {
  const lastOf = (log: typeof mine, index: number) =>
    index + 1 < log.history.length ? log.history[index + 1]!.firstLsn - 1 : log.lastLsn;
  for (let i = mine.history.length - 1; i >= 0; i--) {
    const j = theirs.history.findLastIndex((item) => item.epoch === mine.history[i]!.epoch);
    if (j === -1) continue;
    return toLsn(Math.min(lastOf(mine, i), lastOf(theirs, j)));
  }
  return mine.baseLsn === 0 && theirs.baseLsn === 0 ? toLsn(0) : null;
}
