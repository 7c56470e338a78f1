/**
 * What a backend finds in its log at the start, sorted by group: the last configuration, where the
 * log begins, and the entries behind the group's checkpoint.
 */
import type { WalRecord } from "../kv/disk/wal.ts";
import { CorruptionError } from "../kv/errors.ts";
import { ReplicaLog } from "../kv/replica_log.ts";
import { LogEntry } from "../kv/replica_log.ts";
import {
  type Epoch,
  epoch as toEpoch,
  type GroupId,
  type Lsn,
  lsn as toLsn,
} from "../proto/ids.ts";
import { type EpochHistory, GroupConfig } from "../proto/replication.ts";

export interface Checkpointed {
  readonly lsn: Lsn;
  /** As saved with the checkpoint: all epochs up to `lsn`, and perhaps a few behind it. */
  readonly history: EpochHistory;
}

export class RecoveredGroup {
  readonly #gid: GroupId;
  readonly #checkpoint: Checkpointed;
  #entries: LogEntry[] = [];
  config: GroupConfig | null = null;
  commitLsn: Lsn = toLsn(0);

  constructor(gid: GroupId, checkpoint: Checkpointed) {
    this.#gid = gid;
    this.#checkpoint = checkpoint;
  }

  /** Records come in the order in which they were written. */
  add(record: WalRecord): void {
    switch (record.type) {
      case "entry": {
        if (record.lsn <= this.#checkpoint.lsn) return;
        const { epoch, lsn, payload } = record;
        this.#entries.push(new LogEntry(epoch, lsn, payload));
        return;
      }
      case "truncate":
        this.#entries = this.#entries.filter((entry) => entry.lsn <= record.lsn);
        return;
      case "reset":
        this.#entries = [];
        return;
      case "config":
        this.config = GroupConfig.parse(JSON.parse(decoder.decode(record.payload)));
        return;
      case "commit":
        if (record.lsn > this.commitLsn) this.commitLsn = record.lsn;
    }
  }

  /**
   * What the log, of which the group's part ends at `end`, has to be told before it can go on behind the
   * checkpoint; null when nothing. A crash between the installation of a fetched checkpoint and the
   * log's note of it leaves the note to be written.
   */
  missingNote(end: Lsn | null): WalRecord | null {
    const { lsn } = this.#checkpoint;
    this.#dropReplaced();
    if (end === null || end === lsn || this.#entries.length > 0) return null;
    return { type: "reset", gid: this.#gid, epoch: this.#checkpointEpoch, lsn };
  }

  get #checkpointEpoch(): Epoch {
    const { lsn, history } = this.#checkpoint;
    return history.findLast((item) => item.firstLsn <= lsn)?.epoch ?? toEpoch(0);
  }

  /** Entries of a branch that a fetched checkpoint replaced. Along one log epochs never fall. */
  #dropReplaced(): void {
    const lastEpoch = this.#checkpointEpoch;
    this.#entries = this.#entries.filter((entry) => entry.epoch >= lastEpoch);
  }

  /** @throws {CorruptionError} when entries between the checkpoint and the log are missing */
  log(): ReplicaLog {
    const { lsn, history } = this.#checkpoint;
    this.#dropReplaced();
    const first = this.#entries[0]?.lsn;
    if (first !== undefined && first !== lsn + 1) {
      throw new CorruptionError(
        `Group ${this.#gid}: the checkpoint ends at ${lsn}, but the log begins at ${first}`,
        "wal",
        0,
      );
    }
    return new ReplicaLog({
      baseLsn: lsn,
      history: history.filter((item) => item.firstLsn <= lsn),
      entries: this.#entries,
    });
  }
}

const decoder = new TextDecoder();
