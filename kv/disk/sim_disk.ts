/**
 * A disk in memory that forgets as a real one may: for tests and simulation.
 *
 * A crash keeps what was synced. Of what was not, it keeps any subset of 512-byte sectors, any
 * length between the synced and the last one, and a prefix of each folder's unsynced changes of
 * names: the seeded generator chooses. It can also fail one sync with EIO (`failNextSync`), run full
 * (`capacityBytes`) and crash by itself in the middle of the nth operation (`crashAfter`).
 *
 * Handles opened before a crash reject with `SimCrash` for ever. The disk itself can be used again at
 * once after `crash`, like a machine that is switched on again; after a crash of its own it stays off,
 * so that what is left of the old life cannot act on the new one, until `crash` is called. A process
 * that ends alone (`endProcess`) leaves behind what it wrote, synced or not, as a kernel keeps it.
 * Operations take a few microtasks, chosen by the generator, so that those at once overlap in ever
 * different ways; or as long as `takeTime` says.
 */
import { type Disk, type DiskEntry, type DiskFile, diskFull } from "./disk.ts";

const SECTOR_BYTES = 512;

/** The simulated machine lost its power; nothing is known about the operation. */
export class SimCrash extends Error {
  override readonly name = "SimCrash";
}

export interface SimDiskOptions {
  readonly seed: number;
  readonly capacityBytes?: number;
  /** Null: at once. A promise that never settles stands for a process that did not live to see it. */
  readonly takeTime?: (kind: SimOperation) => Promise<void> | null;
}

export type SimOperation = "read" | "write" | "sync" | "names";

interface Inode {
  /** What the running system reads. */
  live: GrowingBytes;
  /** What a crash cannot take away. */
  durable: GrowingBytes;
  /** Sectors that may differ between the two, and the number of the write that last touched each. */
  readonly dirty: Map<number, number>;
}

interface NameChange {
  readonly name: string;
  readonly inode: Inode | null;
}

interface Folder {
  readonly live: Map<string, Inode | "directory">;
  readonly durable: Map<string, Inode | "directory">;
  /** Changes of names since the last `syncDir`, in order. A rename within a folder is one change. */
  readonly pending: NameChange[][];
}

export class SimDisk implements Disk {
  readonly #random: () => number;
  readonly #takeTime: SimDiskOptions["takeTime"];
  readonly #folders = new Map<string, Folder>();
  #life = 0;
  #isOff = false;
  #writeCount = 0;
  #operationsLeft = Infinity;
  #syncFails = false;
  /** Bytes of all files; writes beyond it fail with `disk_full`. */
  capacityBytes: number;
  operationCount = 0;

  constructor({ seed, capacityBytes = Infinity, takeTime }: SimDiskOptions) {
    this.#random = seededRandom(seed);
    this.#takeTime = takeTime;
    this.capacityBytes = capacityBytes;
    this.#folders.set("", newFolder());
  }

  /** The next sync of a file rejects with EIO, and what it should have written may be lost. */
  failNextSync(): void {
    this.#syncFails = true;
  }

  get willFailSync(): boolean {
    return this.#syncFails;
  }

  /** Crashes in the middle of the nth operation from now on, and stays off until `crash`. */
  crashAfter(operationCount: number): void {
    this.#operationsLeft = operationCount;
  }

  /** The process that held the handles has ended; the machine, and all that was written, lives on. */
  endProcess(): void {
    this.#life++;
    this.#isOff = false;
    this.#operationsLeft = Infinity;
  }

  /** Power loss: all handles become useless and unsynced state is kept or lost by chance. */
  crash(): void {
    this.#life++;
    this.#isOff = false;
    this.#operationsLeft = Infinity;
    this.#syncFails = false;
    const inodes = new Set<Inode>();
    for (const folder of this.#folders.values()) {
      for (const inode of [...folder.live.values(), ...folder.durable.values()]) {
        if (inode !== "directory") inodes.add(inode);
      }
    }
    for (const inode of inodes) this.#forgetUnsynced(inode);
    for (const folder of this.#folders.values()) {
      const keptCount = Math.floor(this.#random() * (folder.pending.length + 1));
      for (const change of folder.pending.slice(0, keptCount)) {
        for (const { name, inode } of change) setName(folder.durable, name, inode);
      }
      folder.pending.length = 0;
      folder.live.clear();
      for (const [name, entry] of folder.durable) folder.live.set(name, entry);
    }
  }

  open(path: string, { create = false } = {}): Promise<DiskFile> {
    return this.operation((life) => {
      const { folder, name } = this.#place(path);
      let inode = folder.live.get(name);
      if (inode === "directory") throw systemError("EISDIR", path);
      if (inode === undefined) {
        if (!create) throw systemError("ENOENT", path);
        inode = newInode();
        folder.live.set(name, inode);
        folder.pending.push([{ name, inode }]);
      }
      return new SimFile(this, inode, life, path);
    });
  }

  list(dir: string): Promise<DiskEntry[]> {
    return this.operation(() => {
      const folder = this.#folders.get(normal(dir));
      if (folder === undefined) throw systemError("ENOENT", dir);
      return [...folder.live]
        .map(([name, entry]) => ({ name, isDirectory: entry === "directory" }))
        .sort((a, b) => a.name < b.name ? -1 : 1);
    });
  }

  stat(path: string): Promise<{ bytes: number; isDirectory: boolean } | null> {
    return this.operation(() => {
      const entry = this.#entryAt(path);
      if (entry === undefined) return null;
      if (entry === "directory") return { bytes: 0, isDirectory: true };
      return { bytes: entry.live.length, isDirectory: false };
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.operation(() => {
      const source = this.#place(from), target = this.#place(to);
      const inode = source.folder.live.get(source.name);
      if (inode === undefined) throw systemError("ENOENT", from);
      if (inode === "directory") throw systemError("EISDIR", from);
      source.folder.live.delete(source.name);
      target.folder.live.set(target.name, inode);
      const arrive = { name: target.name, inode };
      const leave = { name: source.name, inode: null };
      if (source.folder === target.folder) source.folder.pending.push([arrive, leave]);
      else {
        target.folder.pending.push([arrive]);
        source.folder.pending.push([leave]);
      }
    });
  }

  remove(path: string): Promise<void> {
    return this.operation(() => {
      if (this.#entryAt(path) === undefined) return;
      const { folder, name } = this.#place(path);
      folder.live.delete(name);
      folder.pending.push([{ name, inode: null }]);
    });
  }

  /** Folders are durable at once: losing them is not what these tests are about. */
  mkdir(dir: string): Promise<void> {
    return this.operation(() => {
      const parts = normal(dir).split("/");
      for (let i = 1; i <= parts.length; i++) {
        const path = parts.slice(0, i).join("/");
        if (this.#folders.has(path)) continue;
        const { folder, name } = this.#place(path);
        folder.live.set(name, "directory");
        folder.durable.set(name, "directory");
        this.#folders.set(path, newFolder());
      }
    });
  }

  async syncDir(dir: string): Promise<void> {
    const folder = this.#folders.get(normal(dir));
    if (folder === undefined) throw systemError("ENOENT", dir);
    const changes = folder.pending.slice();
    return await this.operation(
      () => {
        // Another sync may have done some of them meanwhile.
        while (folder.pending.length > 0 && changes.includes(folder.pending[0]!)) {
          for (const { name, inode } of folder.pending.shift()!) {
            setName(folder.durable, name, inode);
          }
        }
      },
      this.#life,
      "sync",
    );
  }

  freeBytes(): Promise<number> {
    return Promise.resolve(this.roomBytes());
  }

  usedBytes(): number {
    let bytes = 0;
    for (const folder of this.#folders.values()) {
      for (const entry of folder.live.values()) {
        if (entry !== "directory") bytes += entry.live.length;
      }
    }
    return bytes;
  }

  /** Damages a file behind everyone's back, durably: XORs one byte. */
  flipBits(path: string, offset: number, mask: number): void {
    const { live, durable } = this.#inode(path);
    live.view()[offset]! ^= mask;
    if (offset < durable.length) durable.view()[offset]! ^= mask;
  }

  /** A file is gone behind everyone's back, durably. */
  loseFile(path: string): void {
    const { folder, name } = this.#place(path);
    for (const change of folder.pending) {
      for (const item of change.filter((one) => one.name === name)) {
        change.splice(change.indexOf(item), 1);
      }
    }
    folder.live.delete(name);
    folder.durable.delete(name);
  }

  /** Names of the files in a folder, sorted. */
  filesIn(dir: string): string[] {
    const folder = this.#folders.get(normal(dir));
    return [...folder?.live ?? []].filter(([, entry]) => entry !== "directory")
      .map(([name]) => name).sort();
  }

  /** A copy of a file's bytes, as the running system sees them. */
  bytesOf(path: string): Uint8Array {
    return this.#inode(path).live.view().slice();
  }

  /** Puts a whole file in place, durably. */
  setBytes(path: string, bytes: Uint8Array): void {
    const { folder, name } = this.#place(path);
    const inode = newInode();
    inode.live.write(0, bytes);
    inode.durable.write(0, bytes);
    folder.live.set(name, inode);
    folder.durable.set(name, inode);
  }

  /**
   * @ignore Every operation passes here: it counts, takes its time, may meet a crash, and only then
   * acts, all at once.
   */
  async operation<T>(
    act: (life: number) => T,
    life = this.#life,
    kind: SimOperation = "names",
  ): Promise<T> {
    this.checkLife(life);
    this.operationCount++;
    const crashesHere = --this.#operationsLeft <= 0;
    if (this.#takeTime !== undefined) await this.#takeTime(kind);
    else for (let turns = Math.floor(this.#random() * 4); turns >= 0; turns--) await null;
    if (crashesHere && life === this.#life) {
      this.crash();
      this.#isOff = true;
    }
    if (life !== this.#life) throw new SimCrash("the machine lost its power");
    return act(life);
  }

  /** @ignore */
  checkLife(life: number): void {
    if (this.#isOff) throw new SimCrash("the machine is off");
    if (life !== this.#life) throw new SimCrash("the machine has been restarted");
  }

  /** @ignore */
  nextWriteNumber(): number {
    return ++this.#writeCount;
  }

  /** @ignore */
  roomBytes(): number {
    return this.capacityBytes === Infinity ? Infinity : this.capacityBytes - this.usedBytes();
  }

  /** @ignore Whether this sync is the one that was told to fail. */
  takeSyncFailure(): boolean {
    const fails = this.#syncFails;
    this.#syncFails = false;
    return fails;
  }

  #forgetUnsynced({ live, durable, dirty }: Inode): void {
    const low = Math.min(durable.length, live.length);
    const high = Math.max(durable.length, live.length);
    const choice = this.#random();
    const length = choice < 0.3
      ? durable.length
      : choice < 0.6
      ? live.length
      : low + Math.floor(this.#random() * (high - low + 1));
    durable.resize(length);
    const keepChance = this.#random();
    for (const sector of dirty.keys()) {
      if (this.#random() >= keepChance) continue;
      const start = sector * SECTOR_BYTES;
      const end = Math.min(start + SECTOR_BYTES, length, live.length);
      if (end > start) durable.write(start, live.view().subarray(start, end));
    }
    live.resize(0);
    live.write(0, durable.view());
    dirty.clear();
  }

  /** Undefined too when its folder does not exist. */
  #entryAt(path: string): Inode | "directory" | undefined {
    const parts = normal(path).split("/"), name = parts.pop()!;
    return this.#folders.get(parts.join("/"))?.live.get(name);
  }

  #inode(path: string): Inode {
    const inode = this.#entryAt(path);
    if (inode === undefined || inode === "directory") throw systemError("ENOENT", path);
    return inode;
  }

  #place(path: string): { folder: Folder; name: string } {
    const clean = normal(path);
    const slash = clean.lastIndexOf("/");
    const folder = this.#folders.get(slash < 0 ? "" : clean.slice(0, slash));
    if (folder === undefined) throw systemError("ENOENT", path);
    return { folder, name: clean.slice(slash + 1) };
  }
}

class SimFile implements DiskFile {
  constructor(
    readonly disk: SimDisk,
    readonly inode: Inode,
    readonly life: number,
    readonly path: string,
  ) {}

  readAt(offset: number, buffer: Uint8Array): Promise<number> {
    return this.disk.operation(
      () => {
        const bytes = this.inode.live.view().subarray(offset, offset + buffer.length);
        buffer.set(bytes);
        return bytes.length;
      },
      this.life,
      "read",
    );
  }

  async writeAt(offset: number, bytes: Uint8Array): Promise<void> {
    this.disk.checkLife(this.life);
    const grownBytes = Math.max(0, offset + bytes.length - this.inode.live.length);
    const missingBytes = Math.max(0, grownBytes - this.disk.roomBytes());
    // A full disk takes what fits before it refuses the rest.
    const taken = bytes.subarray(0, Math.max(0, bytes.length - missingBytes));
    this.inode.live.write(offset, taken);
    this.#touch(offset, offset + taken.length);
    return await this.disk.operation(
      () => {
        if (missingBytes > 0) throw diskFull(this.path);
      },
      this.life,
      "write",
    );
  }

  async sync(): Promise<void> {
    this.disk.checkLife(this.life);
    const { live, durable, dirty } = this.inode;
    const length = live.length;
    const covered = [...dirty].map(([sector, writeNumber]) => {
      const start = sector * SECTOR_BYTES;
      return { sector, writeNumber, bytes: live.view().slice(start, start + SECTOR_BYTES) };
    });
    return await this.disk.operation(
      () => {
        const fails = this.disk.takeSyncFailure();
        if (!fails) durable.resize(length);
        for (const { sector, writeNumber, bytes } of covered) {
          // After a failed sync, Linux marks the pages clean although they were not written.
          // A sector that a truncation took away has none, and must not make the file longer again.
          if (!fails && bytes.length > 0) durable.write(sector * SECTOR_BYTES, bytes);
          if (dirty.get(sector) === writeNumber) dirty.delete(sector);
        }
        if (fails) throw systemError("EIO", this.path);
      },
      this.life,
      "sync",
    );
  }

  truncate(bytes: number): Promise<void> {
    return this.disk.operation(() => {
      this.#touch(Math.min(bytes, this.inode.live.length), this.inode.live.length);
      this.inode.live.resize(bytes);
    }, this.life);
  }

  size(): Promise<number> {
    return this.disk.operation(() => {
      return this.inode.live.length;
    }, this.life);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #touch(start: number, end: number): void {
    const writeNumber = this.disk.nextWriteNumber();
    for (let sector = Math.floor(start / SECTOR_BYTES); sector * SECTOR_BYTES < end; sector++) {
      this.inode.dirty.set(sector, writeNumber);
    }
  }
}

/** Bytes with a length that can change cheaply. What lies beyond a former end reads as zero. */
class GrowingBytes {
  #buffer = new Uint8Array(0);
  length = 0;

  /** Valid until the next `write` or `resize`. */
  view(): Uint8Array {
    return this.#buffer.subarray(0, this.length);
  }

  write(offset: number, bytes: Uint8Array): void {
    if (offset + bytes.length > this.length) this.resize(offset + bytes.length);
    this.#buffer.set(bytes, offset);
  }

  resize(length: number): void {
    if (length > this.#buffer.length) {
      const grown = new Uint8Array(Math.max(length, 2 * this.#buffer.length, 1024));
      grown.set(this.view());
      this.#buffer = grown;
    }
    if (length < this.length) this.#buffer.fill(0, length, this.length);
    this.length = length;
  }
}

/** A generator that gives the same numbers in [0, 1) for the same seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const newInode = (): Inode => ({
  live: new GrowingBytes(),
  durable: new GrowingBytes(),
  dirty: new Map(),
});

const newFolder = (): Folder => ({ live: new Map(), durable: new Map(), pending: [] });

const normal = (path: string) => path.split("/").filter((part) => part !== "").join("/");

function setName(names: Map<string, Inode | "directory">, name: string, inode: Inode | null): void {
  if (inode === null) names.delete(name);
  else names.set(name, inode);
}

function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: "${path}"`), { code });
}
