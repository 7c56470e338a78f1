/**
 * What the store asks of a disk, small enough to be simulated, and `RealDisk`, which is the real one.
 *
 * Nothing is durable before it is synced: the bytes and size of a file by `DiskFile.sync`, a name
 * (created, renamed, removed) by `syncDir` of its folder. tests/kv/disk/disk_contract_test.ts states
 * what both disks keep to; `SimDisk` (sim_disk.ts) forgets all the rest when it crashes.
 *
 * Errors: a full disk is a KvError `disk_full`; a missing file is null from `stat` and an Error with
 * code `ENOENT` elsewhere. Any other failure of a write or a sync means that the disk can no longer
 * be trusted: the kernel may have dropped the very pages it failed to write, so that a second try
 * would succeed without having written anything.
 */
import { constants, fdatasyncSync, writeSync } from "node:fs";
import * as fs from "node:fs/promises";
import { KvError } from "../errors.ts";
import { SyncPace } from "./sync_pace.ts";

export interface DiskFile {
  /** Fills `buffer` from `offset` on. Returns fewer bytes than asked only at the file's end. */
  readAt(offset: number, buffer: Uint8Array): Promise<number>;
  /** Writes all of `bytes`, which the caller must not change until the promise settles. */
  writeAt(offset: number, bytes: Uint8Array): Promise<void>;
  /** Resolves once all bytes written so far, and the size, are durable (fdatasync). */
  sync(): Promise<void>;
  truncate(bytes: number): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

export interface DiskEntry {
  readonly name: string;
  readonly isDirectory: boolean;
}

export interface Disk {
  /** Opens for reading and writing. Without `create`, a missing file is an error. */
  open(path: string, options?: { create?: boolean }): Promise<DiskFile>;
  /** Names in a folder, sorted. */
  list(dir: string): Promise<DiskEntry[]>;
  /** Null when nothing has this name. */
  stat(path: string): Promise<{ bytes: number; isDirectory: boolean } | null>;
  /** Replaces what is at `to`, atomically. Durable after `syncDir` of the folder. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file. No error when it is not there. */
  remove(path: string): Promise<void>;
  /** Makes the folder and those above it. No error when it exists. */
  mkdir(dir: string): Promise<void>;
  syncDir(dir: string): Promise<void>;
  /** Bytes that can still be written, or null when the disk does not say. */
  freeBytes(dir: string): Promise<number | null>;
}

/** A write or sync failed for another reason than lack of space. The store must not go on. */
export class DiskFailedError extends Error {
  override readonly name = "DiskFailedError";
}

export const diskFull = (path: string, cause?: unknown): KvError =>
  new KvError("disk_full", `Cannot write to "${path}": the disk is full`, { cause });

export function isDiskFull(error: unknown): error is KvError {
  return error instanceof KvError && error.code === "disk_full";
}

/** The sync of more than this takes its time on any disk. */
const SHORT_SYNC_BYTES = 256 * 1024;

class RealFile implements DiskFile {
  constructor(
    readonly path: string,
    readonly handle: fs.FileHandle,
    readonly pace: SyncPace,
  ) {}

  #unsyncedBytes = 0;

  async readAt(offset: number, buffer: Uint8Array): Promise<number> {
    let done = 0;
    while (done < buffer.length) {
      const { bytesRead } = await this.handle.read(
        buffer,
        done,
        buffer.length - done,
        offset + done,
      );
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  /** Into the system's memory, so on the spot: that takes less than asking another thread for it. */
  // deno-lint-ignore require-await -- what it throws becomes a rejection
  async writeAt(offset: number, bytes: Uint8Array): Promise<void> {
    try {
      let done = 0;
      while (done < bytes.length) {
        done += writeSync(this.handle.fd, bytes, done, bytes.length - done, offset + done);
      }
    } catch (error) {
      throw explain(this.path, error);
    }
    this.#unsyncedBytes += bytes.length;
  }

  async sync(): Promise<void> {
    const isShort = this.#unsyncedBytes <= SHORT_SYNC_BYTES;
    this.#unsyncedBytes = 0;
    const startMs = performance.now();
    try {
      if (isShort && this.pace.isHere) fdatasyncSync(this.handle.fd);
      else await this.handle.datasync();
    } catch (error) {
      throw explain(this.path, error);
    }
    const nowMs = performance.now();
    if (isShort) this.pace.note(nowMs - startMs, nowMs);
  }

  truncate(bytes: number): Promise<void> {
    return explained(this.path, () => this.handle.truncate(bytes));
  }

  async size(): Promise<number> {
    return (await this.handle.stat()).size;
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

export class RealDisk implements Disk {
  readonly #pace = new SyncPace();

  open(path: string, { create = false } = {}): Promise<DiskFile> {
    return explained(path, async () => {
      const flags = constants.O_RDWR | (create ? constants.O_CREAT : 0);
      return new RealFile(path, await fs.open(path, flags, 0o600), this.#pace);
    });
  }

  async list(dir: string): Promise<DiskEntry[]> {
    const entries = await fs.readdir(dir, { withFileTypes: true });
    return entries
      .map((entry) => ({ name: entry.name, isDirectory: entry.isDirectory() }))
      .sort((a, b) => a.name < b.name ? -1 : 1);
  }

  async stat(path: string): Promise<{ bytes: number; isDirectory: boolean } | null> {
    try {
      const info = await fs.stat(path);
      return { bytes: info.size, isDirectory: info.isDirectory() };
    } catch (error) {
      if (errorCode(error) === "ENOENT") return null;
      throw error;
    }
  }

  rename(from: string, to: string): Promise<void> {
    return explained(to, () => fs.rename(from, to));
  }

  async remove(path: string): Promise<void> {
    try {
      await fs.unlink(path);
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }

  mkdir(dir: string): Promise<void> {
    return explained(dir, async () => void await fs.mkdir(dir, { recursive: true, mode: 0o700 }));
  }

  syncDir(dir: string): Promise<void> {
    return explained(dir, async () => {
      const handle = await fs.open(dir, "r");
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    });
  }

  async freeBytes(dir: string): Promise<number | null> {
    try {
      const { bavail, bsize } = await fs.statfs(dir);
      return bavail * bsize;
    } catch {
      return null;
    }
  }
}

function errorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error ? String(error.code) : undefined;
}

async function explained<T>(path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw explain(path, error);
  }
}

function explain(path: string, error: unknown): unknown {
  const code = errorCode(error);
  return code === "ENOSPC" || code === "EDQUOT" ? diskFull(path, error) : error;
}
