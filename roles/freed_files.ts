/** Files of large values that no cell mentions any more, until they can be removed. */
import type { BlobStore } from "../kv/disk/blob_store.ts";
import type { Env } from "../kv/env.ts";
import type { Lsn } from "../proto/ids.ts";

/** Readers of a large value may still be at it when its cell is overwritten. */
const GRACE_MS = 60_000;

export class FreedFiles {
  readonly #env: Env;
  readonly #blobs: BlobStore;
  #freed: { readonly blob: string; readonly lsn: Lsn; readonly atMs: number }[] = [];

  constructor(env: Env, blobs: BlobStore) {
    this.#env = env;
    this.#blobs = blobs;
  }

  /** No cell mentions them as of `lsn`. */
  add(freed: readonly string[], lsn: Lsn): void {
    const atMs = this.#env.monotonicMs();
    for (const blob of freed) this.#freed.push({ blob, lsn, atMs });
  }

  has(blob: string): boolean {
    return this.#freed.some((item) => item.blob === blob);
  }

  /** The state is another one now; who of them is needed is found out otherwise. */
  forget(): void {
    this.#freed = [];
  }

  /** A file goes once no checkpoint or replay can mention it and no reader can be at it. */
  remove(checkpointLsn: Lsn): void {
    const beforeMs = this.#env.monotonicMs() - GRACE_MS;
    const done = this.#freed.filter(({ lsn, atMs }) => lsn <= checkpointLsn && atMs < beforeMs);
    if (done.length === 0) return;
    this.#freed = this.#freed.filter((item) => !done.includes(item));
    for (const { blob } of done) {
      this.#blobs.remove(blob).catch((error) =>
        this.#env.log("warning", "a file could not be removed", { blob, message: String(error) })
      );
    }
  }
}
