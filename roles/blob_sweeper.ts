/**
 * Removes files of large values that nothing mentions any more.
 *
 * What a request brought and did not use is removed at once, and what was overwritten soon after
 * (backend_service.ts, backend_group.ts). Left are files of entries that were cut off, of a state that a
 * fetched checkpoint replaced, and those that a crash left between two steps. They are looked for a
 * while after the start, again when there may be some, and every few hours: folder by folder, with
 * pauses between them, so that neither memory nor anybody's time depends on how many files there are.
 *
 * A file is needed while a cell, an intent of a transaction or an entry that is not applied yet mentions
 * it, or did until a moment ago: readers and open scans may be at it. Whether one is needed is asked, and
 * its removal begun, in one turn, so nothing can come to need it in between; if the same value arrives
 * once more later, it is written anew (blob_intake.ts). Nothing is removed while a replica of this node
 * is damaged, is a learner, or fetches a checkpoint: then it is not known what will be mentioned.
 */
import type { BlobStore } from "../kv/disk/blob_store.ts";
import type { Env } from "../kv/env.ts";
import type { GroupShell } from "./backend_group.ts";
import type { BlobIntake } from "./blob_intake.ts";

const SWEEP_AFTER_MS = 60_000;
const SWEEP_EVERY_MS = 6 * 3_600_000;
const PAUSE_MS = 10;

export interface BlobSweeperOptions {
  readonly groups: () => Iterable<Pick<GroupShell, "replica" | "needsFile">>;
  readonly blobs: BlobStore;
  readonly intake: BlobIntake;
  readonly env: Env;
  /** Whether what is mentioned here may be more than the groups know, now or very soon. */
  readonly isUncertain: () => boolean;
}

export class BlobSweeper {
  readonly #options: BlobSweeperOptions;
  #cancel = () => {};
  #dueMs = Infinity;
  #stopped = false;
  #sweeping: Promise<number> | null = null;
  /** Files that were removed since the start. */
  removedCount = 0;

  constructor(options: BlobSweeperOptions) {
    this.#options = options;
  }

  start(): void {
    this.#schedule(SWEEP_AFTER_MS);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  /** There may be files now that nothing mentions. */
  soon(): void {
    if (this.#dueMs > this.#options.env.monotonicMs() + SWEEP_AFTER_MS) {
      this.#schedule(SWEEP_AFTER_MS);
    }
  }

  /** Resolves to how many files it removed. Two at once are one. */
  sweep(): Promise<number> {
    this.#sweeping ??= this.#sweep().finally(() => this.#sweeping = null);
    return this.#sweeping;
  }

  #schedule(ms: number): void {
    const { env } = this.#options;
    if (this.#stopped) return;
    this.#cancel();
    this.#dueMs = env.monotonicMs() + ms;
    this.#cancel = env.timer(ms, () => {
      // Whoever says `soon()` from now on means the next one.
      this.#schedule(SWEEP_EVERY_MS);
      void this.sweep();
    });
  }

  async #sweep(): Promise<number> {
    const { blobs, env } = this.#options;
    let removed = 0;
    try {
      for await (const ids of blobs.folders()) {
        for (const id of ids) {
          if (this.#stopped) return removed;
          if (!this.#isCertain()) {
            this.soon();
            return removed;
          }
          if (this.#isNeeded(id)) continue;
          await this.#options.intake.discard(id);
          removed += 1;
          this.removedCount += 1;
        }
        await env.sleep(PAUSE_MS);
      }
    } catch (error) {
      env.log("warning", "files were not swept", { message: String(error) });
    } finally {
      if (removed > 0) env.log("info", "unmentioned files removed", { removed });
    }
    return removed;
  }

  #isCertain(): boolean {
    const { groups, isUncertain } = this.#options;
    if (isUncertain()) return false;
    for (const { replica: { role } } of groups()) {
      if (role !== "primary" && role !== "secondary") return false;
    }
    return true;
  }

  #isNeeded(id: string): boolean {
    const { groups, intake } = this.#options;
    if (intake.durable([id]) !== null) return true;
    for (const group of groups()) if (group.needsFile(id)) return true;
    return false;
  }
}
