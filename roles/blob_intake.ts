/**
 * Large values on their way to this node's disk, and the recent ones in memory.
 *
 * A log entry that mentions a large value may be written only after the value's file is durable;
 * `durable()` is what the log waits for. A primary sends a value on from memory while it is recent
 * and from its file later. A full disk delays, any other failure ends the process.
 *
 * A file never changes under its name and carries checksums, so one that is damaged or missing can be
 * replaced by another member's without any ado about replication.
 */
import type { BlobStore } from "../kv/disk/blob_store.ts";
import { isDiskFull } from "../kv/disk/disk.ts";
import type { Env } from "../kv/env.ts";
import { CorruptionError } from "../kv/errors.ts";
import type { GroupId } from "../proto/ids.ts";

const RECENT_BYTES_MAX = 12 * 1024 * 1024;
const RETRY_MS = 500;

/** Another member's copy of a value, its checksums verified there and again here; null for none. */
export type FetchBlob = (gid: GroupId, id: string) => Promise<Uint8Array | null>;

export class BlobIntake {
  readonly #store: BlobStore;
  readonly #env: Env;
  readonly #onDiskFull: () => void;
  readonly #fetch: FetchBlob;
  readonly #repairs = new Map<string, Promise<Uint8Array | null>>();
  /** Files that were replaced by another member's since the start. */
  repairCount = 0;
  readonly #pending = new Map<string, Promise<void>>();
  readonly #removing = new Map<string, Promise<void>>();
  /** Oldest first. */
  readonly #recent = new Map<string, Uint8Array>();
  #recentBytes = 0;

  constructor(
    options: { store: BlobStore; env: Env; onDiskFull: () => void; fetch: FetchBlob },
  ) {
    this.#fetch = options.fetch;
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

  /**
   * Removes a file that nothing mentions. If its value is added again meanwhile it is there afterwards;
   * one that is still being written must be of no use to anybody else.
   */
  discard(id: string): Promise<void> {
    const pending = this.#pending.get(id);
    if (pending !== undefined) return pending.then(() => this.discard(id));
    this.#recentBytes -= this.#recent.get(id)?.length ?? 0;
    this.#recent.delete(id);
    const removing = this.#store.remove(id).finally(() => this.#removing.delete(id));
    this.#removing.set(id, removing);
    return removing;
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

  /**
   * A value that must be there, mended from another member where this disk fails.
   *
   * @throws {CorruptionError} it is damaged or missing here, and nobody else could give it
   */
  async readWhole(gid: GroupId, id: string): Promise<Uint8Array> {
    let damage: CorruptionError;
    try {
      const bytes = await this.read(id);
      if (bytes !== null) return bytes;
      damage = new CorruptionError("The file of a value is missing", id, 0);
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      damage = error;
    }
    return await this.mend(gid, id, damage);
  }

  /**
   * Replaces a file whose damage was seen, and gives what belongs there.
   *
   * @throws {CorruptionError} `damage`, when nobody else could give it
   */
  async mend(gid: GroupId, id: string, damage: CorruptionError): Promise<Uint8Array> {
    let repair = this.#repairs.get(id);
    if (repair === undefined) {
      repair = this.#repair(gid, id, damage).finally(() => this.#repairs.delete(id));
      this.#repairs.set(id, repair);
    }
    const bytes = await repair;
    if (bytes === null) throw damage;
    return bytes;
  }

  async #repair(gid: GroupId, id: string, damage: CorruptionError): Promise<Uint8Array | null> {
    const bytes = this.#recent.get(id) ?? await this.#fetch(gid, id);
    if (bytes === null) return null;
    this.#env.log("warning", "a value was mended", { gid, blob: id, damage: damage.message });
    this.repairCount += 1;
    // Whoever waits has the right bytes already; a full disk must not keep them.
    void this.#write(id, bytes);
    return bytes;
  }

  async #write(id: string, bytes: Uint8Array): Promise<void> {
    await this.#removing.get(id)?.catch(() => {});
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
