/**
 * Large values on their way to this node's disk, and the recent ones in memory.
 *
 * A log entry that mentions a large value may be written only after the value's file is durable;
 * `durable()` is what the log waits for. A primary sends a value on from memory while it is recent
 * and from its file later. A full disk delays, any other failure ends the process.
 *
 * The buffers that values come in are used again (net/payload_pool.ts): the intake holds one as long as
 * its value is recent, and whoever borrows the value (`lend`) until he has sent it.
 *
 * A file never changes under its name and carries checksums, so one that is damaged or missing can be
 * replaced by another member's without any ado about replication.
 */
import type { BlobStore } from "../kv/disk/blob_store.ts";
import { isDiskFull } from "../kv/disk/disk.ts";
import type { Env } from "../kv/env.ts";
import { CorruptionError } from "../kv/errors.ts";
import type { GroupId } from "../proto/ids.ts";
import { type HeldBuffer, payloadPool } from "./net/payload_pool.ts";

/** A value to look at until `letGo` is called, once; not calling it costs a buffer and does no harm. */
export interface LentValue {
  readonly bytes: Uint8Array;
  /** The CRC-32 that they were just found to have; null: not looked at. */
  readonly crc: number | null;
  readonly letGo: () => void;
}

interface RecentValue {
  readonly bytes: Uint8Array;
  readonly buffer: HeldBuffer | null;
}

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
  readonly #recent = new Map<string, RecentValue>();
  #recentBytes = 0;

  constructor(
    options: { store: BlobStore; env: Env; onDiskFull: () => void; fetch: FetchBlob },
  ) {
    this.#fetch = options.fetch;
    this.#store = options.store;
    this.#env = options.env;
    this.#onDiskFull = options.onDiskFull;
  }

  /**
   * Starts writing; `bytes` must not change any more. Doing it again with one id is harmless.
   *
   * @param buffer what `bytes` lie in, held by the intake for as long as it needs them
   */
  add(id: string, bytes: Uint8Array, buffer: HeldBuffer | null = null): void {
    if (this.#pending.has(id) || this.#recent.has(id)) return;
    buffer?.hold();
    this.#recent.set(id, { bytes, buffer });
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
    this.#forget(id);
    const removing = this.#store.remove(id).finally(() => this.#removing.delete(id));
    this.#removing.set(id, removing);
    return removing;
  }

  /** Null when every one of them is on disk, or never came by here; then nobody has to wait. */
  durable(ids: readonly string[]): Promise<unknown> | null {
    const waiting = ids.flatMap((id) => this.#pending.get(id) ?? []);
    return waiting.length === 0 ? null : Promise.all(waiting);
  }

  /** Whole, from memory or disk; null when there is no such file. `crc` as it should be, if known. */
  async lend(id: string, crc?: number): Promise<LentValue | null> {
    const recent = this.#recent.get(id);
    if (recent !== undefined) {
      recent.buffer?.hold();
      return { bytes: recent.bytes, crc: null, letGo: () => recent.buffer?.letGo() };
    }
    if (!await this.#store.has(id)) return null;
    const allocate = (bytes: number) => payloadPool.take(bytes);
    const bytes = await this.#store.get(id, { crc, allocate });
    const buffer = payloadPool.claim(bytes);
    return { bytes, crc: crc ?? null, letGo: () => buffer?.letGo() };
  }

  /**
   * A value that must be there, mended from another member where this disk fails.
   *
   * @throws {CorruptionError} it is damaged or missing here, and nobody else could give it
   */
  async lendWhole(gid: GroupId, id: string, crc?: number): Promise<LentValue> {
    let damage: CorruptionError;
    try {
      const value = await this.lend(id, crc);
      if (value !== null) return value;
      damage = new CorruptionError("The file of a value is missing", id, 0);
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      damage = error;
    }
    return { bytes: await this.mend(gid, id, damage), crc: null, letGo: () => {} };
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
    const recent = this.#recent.get(id);
    // What is written and handed out now stays as it is for good.
    recent?.buffer?.hold();
    const bytes = recent?.bytes ?? await this.#fetch(gid, id);
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
    for (const oldest of this.#recent.keys()) {
      if (this.#recentBytes <= RECENT_BYTES_MAX) return;
      if (!this.#pending.has(oldest)) this.#forget(oldest);
    }
  }

  #forget(id: string): void {
    const recent = this.#recent.get(id);
    if (recent === undefined) return;
    this.#recent.delete(id);
    this.#recentBytes -= recent.bytes.length;
    recent.buffer?.letGo();
  }
}
