/**
 * Reads everything that this node stores, again and again, so that damage is found while others still
 * have what was damaged: the checkpoints cell by cell and as a whole, the files of large values, the
 * log. A round begins a day after the last one ended, or at once when an operator asks.
 *
 * It works in slices of a few milliseconds and keeps to a rate, so that requests do not notice. What it
 * finds it hands on: a damaged checkpoint makes that replica begin anew, a damaged file of a value is
 * mended from another member, a damaged part of the log is replaced by checkpoints of what it held.
 */
import type { BlobIntake } from "./blob_intake.ts";
import type { BlobStore } from "../kv/disk/blob_store.ts";
import type { Wal } from "../kv/disk/wal.ts";
import type { Env } from "../kv/env.ts";
import { CorruptionError } from "../kv/errors.ts";
import { mutated } from "../kv/mutant.ts";
import type { ScrubReport } from "../proto/disk_report.ts";
import type { GroupId } from "../proto/ids.ts";
import type { GroupShell } from "./backend_group.ts";

export interface ScrubberOptions {
  readonly groups: ReadonlyMap<GroupId, GroupShell>;
  readonly blobs: BlobStore;
  readonly intake: BlobIntake;
  readonly wal: Wal;
  readonly env: Env;
  readonly intervalMs: number;
  readonly bytesPerSecond: number;
  /** When the last round ended, in wall time, as an earlier process noted it; null for never. */
  readonly lastMs: number | null;
  readonly noteFinished: (wallMs: number) => void;
  readonly onDamage: (shell: GroupShell, error: CorruptionError) => void;
}

const SLICE_MS = 4;
const SLICE_BYTES = 256 * 1024;
/** A node that was restarted has other things to do first. */
const FIRST_AFTER_MS = 5 * 60_000;
/** What a cell costs besides its value. */
const CELL_BYTES = 100;
/** When an operator waits for it. */
const HURRIED_BYTES_PER_SECOND = 256 * 1024 * 1024;
const LOG_PATIENCE_MS = 10_000;

export class Scrubber {
  readonly #options: ScrubberOptions;
  #report: ScrubReport;
  #round: Promise<void> | null = null;
  #hurried = false;
  #stopped = false;
  #cancel: () => void = () => {};
  #sliceStartMs = 0;
  #sliceBytes = 0;

  constructor(options: ScrubberOptions) {
    this.#options = options;
    this.#report = {
      state: "idle",
      rounds: 0,
      finishedMs: options.lastMs,
      cells: 0,
      values: 0,
      bytes: 0,
      damaged: 0,
      mended: 0,
      finding: null,
    };
  }

  get report(): ScrubReport {
    return { ...this.#report };
  }

  start(): void {
    const { env, intervalMs } = this.#options;
    const { finishedMs } = this.#report;
    const dueMs = finishedMs === null
      ? 0
      : Math.min(intervalMs, finishedMs + intervalMs - env.wallMs());
    this.#schedule(Math.max(Math.min(FIRST_AFTER_MS, intervalMs), dueMs));
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  /** Begins a round, or hurries the one under way. Resolves when it ended. */
  runNow(): Promise<void> {
    this.#hurried = true;
    return this.#run();
  }

  #schedule(ms: number): void {
    this.#cancel = this.#options.env.timer(ms, () => {
      void this.#run().finally(() => {
        if (!this.#stopped) this.#schedule(this.#options.intervalMs);
      });
    });
  }

  #run(): Promise<void> {
    this.#round ??= this.#scrub().catch((error) => {
      this.#options.env.log("warning", "scrubbing stopped early", { message: String(error) });
    }).finally(() => {
      this.#round = null;
      this.#hurried = false;
      this.#report.state = "idle";
    });
    return this.#round;
  }

  async #scrub(): Promise<void> {
    const { groups, env, noteFinished } = this.#options;
    const rounds = this.#report.rounds + 1, { finishedMs } = this.#report;
    const nothing = { cells: 0, values: 0, bytes: 0, damaged: 0, mended: 0, finding: null };
    this.#report = { state: "cells", rounds: rounds - 1, finishedMs, ...nothing };
    for (const shell of [...groups.values()]) {
      try {
        this.#report.state = "cells";
        await this.#scrubCells(shell);
        this.#report.state = "values";
        await this.#scrubValues(shell);
      } catch (error) {
        // A replica that began anew meanwhile was not here to be scrubbed.
        if (groups.get(shell.gid) !== shell) continue;
        if (!(error instanceof CorruptionError)) throw error;
        this.#found(error);
        this.#options.onDamage(shell, error);
      }
      if (this.#stopped) return;
    }
    this.#report.state = "log";
    await this.#scrubLog();
    if (this.#stopped) return;
    const nowMs = env.wallMs();
    this.#report = { ...this.#report, rounds, finishedMs: nowMs };
    noteFinished(nowMs);
    const { cells, values, bytes, damaged, mended } = this.#report;
    env.log("info", "scrubbed", { cells, values, bytes, damaged, mended });
  }

  async #scrubCells(shell: GroupShell): Promise<void> {
    // What changes while we read is checked by whoever wrote it; a file that is replaced is new.
    const { store } = shell;
    await store.checkFile?.();
    for (const { row, column, damaged, bytes } of store.verify?.() ?? []) {
      if (damaged && !mutated("scrub-finds-nothing")) {
        const message = `Cell "${row}" "${column}" of group ${shell.gid} fails its checksum`;
        throw new CorruptionError(message, `groups/${shell.gid}.db`, 0);
      }
      this.#report.cells += 1;
      if (this.#counts(bytes + CELL_BYTES)) await this.#pause();
      if (this.#stopped || shell.store !== store) return;
    }
  }

  async #scrubValues(shell: GroupShell): Promise<void> {
    const { blobs, intake } = this.#options;
    for (const blob of new Set(shell.store.blobsReferenced())) {
      if (this.#stopped) return;
      // What is still on its way to the disk, or was freed since the list was made, is not missing.
      if (intake.durable([blob]) !== null) continue;
      try {
        if (this.#counts((await blobs.get(blob)).length)) await this.#pause();
      } catch (error) {
        if (!(error instanceof CorruptionError)) throw error;
        if (!shell.store.mentionsBlob(blob)) continue;
        this.#found(error);
        await intake.mend(shell.gid, blob, error);
        this.#report.mended += 1;
      }
      this.#report.values += 1;
    }
  }

  /** What is in the log is also in memory or in a checkpoint: a damaged part of it can go. */
  async #scrubLog(): Promise<void> {
    const { wal, groups, env } = this.#options;
    const damage = await wal.verify(async (bytes) => {
      if (this.#counts(bytes)) await this.#pause();
    });
    if (damage === null) return;
    this.#found(damage);
    const untilMs = env.monotonicMs() + LOG_PATIENCE_MS;
    while (wal.isDamaged && env.monotonicMs() < untilMs && !this.#stopped) {
      for (const shell of groups.values()) {
        await shell.checkpoint();
        // A hint that costs nothing, and goes into a new segment.
        const { commitLsn } = shell.replica.progress;
        await wal.append([{ type: "commit", gid: shell.gid, lsn: commitLsn }]);
        wal.release(shell.gid, shell.store.checkpointLsn);
      }
      await wal.collected();
      if (wal.isDamaged) await env.sleep(200);
    }
    if (!wal.isDamaged) this.#report.mended += 1;
  }

  #found(error: CorruptionError): void {
    this.#report.damaged += 1;
    this.#report.finding = error.message.slice(0, 200);
    this.#options.env.log("error", "scrubbing found damage", { message: error.message });
  }

  /** Whether it is time for others. */
  #counts(bytes: number): boolean {
    this.#report.bytes += bytes;
    this.#sliceBytes += bytes;
    return this.#sliceBytes >= SLICE_BYTES ||
      this.#options.env.monotonicMs() - this.#sliceStartMs >= SLICE_MS;
  }

  async #pause(): Promise<void> {
    const { env, bytesPerSecond } = this.#options;
    const rate = this.#hurried ? HURRIED_BYTES_PER_SECOND : bytesPerSecond;
    const dueMs = this.#sliceStartMs + this.#sliceBytes / rate * 1000;
    await env.sleep(Math.max(1, Math.min(1_000, dueMs - env.monotonicMs())));
    this.#sliceStartMs = env.monotonicMs();
    this.#sliceBytes = 0;
  }
}
