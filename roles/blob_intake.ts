/**
 * Large values on their way to this node's disk, and the recent ones in memory.
 *
 * A log entry that mentions a large value may be written only after the value's file is durable;
 * `durable()` is what the log waits for. A primary sends a value on from memory while it is recent
 * and from its file later. A full disk delays, any other failure ends the process.
 */
import type { BlobStore } from "../kv/disk/blob_store.ts";
import { isDiskFull } from "../kv/disk/disk.ts";
import type { Env } from "../kv/env.ts";

const RECENT_BYTES_MAX = 12 * 1024 * 1024;
const RETRY_MS = 500;

export class BlobIntake {
  readonly #store: BlobStore;
  readonly #env: Env;
  readonly #onDiskFull: () => void;
  readonly #pending = new Map<string, Promise<void>>();
  /** Oldest first. */
  readonly #recent = new Map<string, Uint8Array>();
  #recentBytes = 0;

  constructor(options: { store: BlobStore; env: Env; onDiskFull: () => void }) {
    this.#store = options.store;
    this.#env = options.env;
    this.#onDiskFull = options.onDiskFull;
  }

  /** Starts writing; `bytes` must not change any more. Doing it again with one id is harmless. */
  add(id: string, bytes: Uint8Array): void {
    if (this.#pending.has(id) || this.#recent.has(id)) return;
    this.#recent.set(id, bytes);
    this.#recentBytes += bytes.length;
    this.#pending.set(id, this.#write(id, bytes).finally(() => this.#written(id)));
  }

  /** Null when every one of them is on disk, or never came by here; then nobody has to wait. */
  durable(ids: readonly string[]): Promise<unknown> | null {
    const waiting = ids.flatMap((id) => this.#pending.get(id) ?? []);
    return waiting.length === 0 ? null : Promise.all(waiting);
  }

  /** Whole, from memory or disk; null when there is no such file. */
  async read(id: string): Promise<Uint8Array | null> {
    const recent = this.#recent.get(id);
    if (recent !== undefined) return recent;
    return await this.#store.has(id) ? await this.#store.get(id) : null;
  }

  async #write(id: string, bytes: Uint8Array): Promise<void> {
    for (;;) {
      try {
        return await this.#store.put(id, bytes);
      } catch (error) {
        if (!isDiskFull(error)) this.#env.fatal(error);
        this.#onDiskFull();
        await this.#env.sleep(RETRY_MS);
      }
    }
  }

  #written(id: string): void {
    this.#pending.delete(id);
    for (const [oldest, bytes] of this.#recent) {
      if (this.#recentBytes <= RECENT_BYTES_MAX) return;
      if (this.#pending.has(oldest)) continue;
      this.#recent.delete(oldest);
      this.#recentBytes -= bytes.length;
    }
  }
}
