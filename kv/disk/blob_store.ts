/**
 * Large values, each in a file of its own that never changes under its id.
 *
 * A value above INLINE_BYTES_MAX is written here once, made durable, and only then referred to by a
 * record of the log. It does not pass through the log itself: 4 MiB there and 4 MiB again in a
 * checkpoint would double the bytes written, hold up the small writes of every group that share the
 * log, and put the value through memory at each recovery. The price is one more sync per large value,
 * and files that nobody refers to after a crash; the owner sweeps them (`folders`, `remove`).
 *
 * `<dir>/<2 hex digits of crc32(id)>/<id>`, all numbers little-endian:
 *
 *      0  "PCBLB\0"
 *      6 u16 version
 *      8 u32 bytes of the value, n
 *     12 u32 CRC-32 of the id, bytes 0..11 and the table
 *     16  table: u32 CRC-32 of each 64 KiB piece of the value
 *      …  the value
 *
 * A file gets its name only when all of it is durable: until then it is called `~<number>-<id>`.
 */
import { crc32 } from "node:zlib";
import { CorruptionError, KvError } from "../errors.ts";
import { VALUE_BYTES_MAX } from "../kv.ts";
import { type Disk, DiskFailedError, type DiskFile, isDiskFull } from "./disk.ts";

const PIECE_BYTES = 64 * 1024;
const FIXED_HEADER_BYTES = 16;
const FORMAT_VERSION = 1;
const MAGIC = new TextEncoder().encode("PCBLB\0");
const ID_PATTERN = /^[a-z0-9.-]{1,128}$/;
const BLOB_BYTES_MAX = VALUE_BYTES_MAX;

const pieceCountOf = (bytes: number) => Math.ceil(bytes / PIECE_BYTES);
const headerBytesOf = (bytes: number) => FIXED_HEADER_BYTES + 4 * pieceCountOf(bytes);

export interface BlobRange {
  /** Default 0. */
  readonly offset?: number;
  /** Default: up to the end. Less is returned where the value ends before. */
  readonly length?: number;
}

export interface BlobReadOptions extends BlobRange {
  /** What the whole value's CRC-32 should be. If it is, the pieces' need not be looked at. */
  readonly crc?: number | undefined;
  /** Gives the array to read into; all of it is overwritten. */
  readonly allocate?: (bytes: number) => Uint8Array;
}

export class BlobStore {
  readonly #disk: Disk;
  readonly #dir: string;
  readonly #readyDirs = new Map<string, Promise<void>>();
  readonly #dirSyncs = new Map<string, DirSync>();
  /** Files that are being written: not to be swept. */
  readonly #unfinished = new Set<string>();
  #writeCount = 0;

  private constructor(disk: Disk, dir: string) {
    this.#disk = disk;
    this.#dir = dir;
  }

  /** `<dir>` is the data folder; the values go below `<dir>/blobs`. */
  static async open({ disk, dir }: { disk: Disk; dir: string }): Promise<BlobStore> {
    await disk.mkdir(`${dir}/blobs`);
    await disk.syncDir(dir);
    return new BlobStore(disk, `${dir}/blobs`);
  }

  /**
   * Resolves once the value is durable under `id`. Putting the same value again does no harm.
   *
   * @param id 1 to 128 of a-z, 0-9, `.` and `-`; not `.` or `..`
   * @param bytes 1 byte to 4 MiB; must not change until the promise settles
   * @throws {KvError} `disk_full`: nothing is left behind
   * @throws {DiskFailedError} a write or sync failed for another reason
   */
  async put(id: string, bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0 || bytes.length > BLOB_BYTES_MAX) {
      const message = `Cannot store blob "${id}": ${bytes.length} bytes are not 1 to 4194304`;
      throw new KvError("invalid_request", message);
    }
    const { dir, path } = this.#place(id);
    const unfinishedPath = `${dir}/~${++this.#writeCount}-${id}`;
    this.#unfinished.add(unfinishedPath);
    try {
      await this.#makeDir(dir);
      await this.#write(unfinishedPath, id, bytes);
      await this.#disk.rename(unfinishedPath, path);
      await this.#syncDir(dir);
    } catch (error) {
      await this.#disk.remove(unfinishedPath).catch(() => {});
      if (isDiskFull(error)) throw error;
      throw new DiskFailedError(`Cannot store blob "${id}": the disk failed`, { cause: error });
    } finally {
      this.#unfinished.delete(unfinishedPath);
    }
  }

  /**
   * @throws {CorruptionError} the blob is missing, or what was asked of it is damaged, or its pieces are
   *   sound and it is another value than `crc` says
   */
  async get(id: string, options: BlobReadOptions = {}): Promise<Uint8Array> {
    const { offset = 0, length = Infinity, crc, allocate = freshArray } = options;
    const { path } = this.#place(id);
    let file: DiskFile;
    try {
      file = await this.#disk.open(path);
    } catch (error) {
      if ((error as { code?: string }).code !== "ENOENT") throw error;
      throw new CorruptionError(`Cannot read blob "${id}": it is missing`, path, 0);
    }
    try {
      const { bytes, table } = await readHeader(file, id, path);
      const start = Math.min(offset, bytes);
      const end = Math.min(offset + length, bytes);
      if (end <= start) return new Uint8Array();
      const firstPiece = Math.floor(start / PIECE_BYTES);
      const pieceStart = firstPiece * PIECE_BYTES;
      const pieceEnd = Math.min(pieceCountOf(end) * PIECE_BYTES, bytes);
      const data = allocate(pieceEnd - pieceStart);
      const fileOffset = headerBytesOf(bytes) + pieceStart;
      const got = await file.readAt(fileOffset, data);
      if (crc !== undefined && got === bytes && crc32(data) === crc) return data;
      for (let piece = firstPiece; piece * PIECE_BYTES < pieceEnd; piece++) {
        const at = piece * PIECE_BYTES - pieceStart;
        const part = data.subarray(at, Math.min(at + PIECE_BYTES, got));
        if (crc32(part) === table[piece]) continue;
        const message = `Cannot read blob "${id}": a piece fails its checksum`;
        throw new CorruptionError(message, path, fileOffset + at);
      }
      if (crc !== undefined) {
        const message = `Cannot read blob "${id}": it is another value's`;
        throw new CorruptionError(message, path, 0);
      }
      return data.subarray(start - pieceStart, end - pieceStart);
    } finally {
      await file.close();
    }
  }

  async has(id: string): Promise<boolean> {
    return await this.#disk.stat(this.#place(id).path) !== null;
  }

  /** No error when there is no such blob. After a crash it may be back, and be swept again. */
  async remove(id: string): Promise<void> {
    await this.#disk.remove(this.#place(id).path);
  }

  /** All ids, a folder of them at a time; also removes what crashes left half written. */
  async *folders(): AsyncIterable<string[]> {
    for (const { name: dirName, isDirectory } of await this.#disk.list(this.#dir)) {
      if (!isDirectory) continue;
      const dir = `${this.#dir}/${dirName}`, ids: string[] = [];
      for (const { name } of await this.#disk.list(dir)) {
        const path = `${dir}/${name}`;
        if (!name.startsWith("~")) ids.push(name);
        else if (!this.#unfinished.has(path)) await this.#disk.remove(path);
      }
      yield ids;
    }
  }

  #place(id: string): { dir: string; path: string } {
    if (!ID_PATTERN.test(id) || id === "." || id === "..") {
      throw new KvError("invalid_request", `Cannot use "${id}" as the id of a blob`);
    }
    const dir = `${this.#dir}/${(crc32(id) >>> 24).toString(16).padStart(2, "0")}`;
    return { dir, path: `${dir}/${id}` };
  }

  #makeDir(dir: string): Promise<void> {
    let ready = this.#readyDirs.get(dir);
    if (ready === undefined) {
      ready = (async () => {
        await this.#disk.mkdir(dir);
        await this.#syncDir(this.#dir);
      })();
      this.#readyDirs.set(dir, ready);
      ready.catch(() => this.#readyDirs.delete(dir));
    }
    return ready;
  }

  #syncDir(dir: string): Promise<void> {
    let sync = this.#dirSyncs.get(dir);
    if (sync === undefined) {
      sync = new DirSync(this.#disk, dir);
      this.#dirSyncs.set(dir, sync);
    }
    return sync.run();
  }

  async #write(path: string, id: string, bytes: Uint8Array): Promise<void> {
    const header = encodeHeader(id, bytes);
    const file = await this.#disk.open(path, { create: true });
    try {
      await file.writeAt(0, header);
      await file.writeAt(header.length, bytes);
      await this.#syncFile(file, path);
    } finally {
      await file.close();
    }
  }

  async #syncFile(file: DiskFile, path: string): Promise<void> {
    try {
      await file.sync();
    } catch (error) {
      // The pages are gone, but they were only those of this file, which is removed.
      if (isDiskFull(error)) throw error;
      throw new DiskFailedError(`Cannot sync "${path}"`, { cause: error });
    }
  }
}

/** Syncs of one folder: those who ask while one runs share the next. */
class DirSync {
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  constructor(readonly disk: Disk, readonly dir: string) {}

  run(): Promise<void> {
    if (this.#running === null) return this.#start();
    this.#next ??= this.#running.catch(() => {}).then(() => this.#start());
    return this.#next;
  }

  #start(): Promise<void> {
    this.#next = null;
    const running = this.disk.syncDir(this.dir).finally(() => {
      if (this.#running === running) this.#running = null;
    });
    this.#running = running;
    return running;
  }
}

const freshArray = (bytes: number): Uint8Array => new Uint8Array(bytes);

function encodeHeader(id: string, bytes: Uint8Array): Uint8Array {
  const header = new Uint8Array(headerBytesOf(bytes.length));
  const view = new DataView(header.buffer);
  header.set(MAGIC);
  view.setUint16(6, FORMAT_VERSION, true);
  view.setUint32(8, bytes.length, true);
  for (let piece = 0; piece < pieceCountOf(bytes.length); piece++) {
    const part = bytes.subarray(piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES);
    view.setUint32(FIXED_HEADER_BYTES + 4 * piece, crc32(part), true);
  }
  view.setUint32(12, headerCrc(id, header), true);
  return header;
}

/** The id is part of it, so that a file under a wrong name is noticed. */
function headerCrc(id: string, header: Uint8Array): number {
  return crc32(header.subarray(FIXED_HEADER_BYTES), crc32(header.subarray(0, 12), crc32(id)));
}

async function readHeader(
  file: DiskFile,
  id: string,
  path: string,
): Promise<{ bytes: number; table: number[] }> {
  const buffer = new Uint8Array(headerBytesOf(BLOB_BYTES_MAX));
  const got = await file.readAt(0, buffer);
  const view = new DataView(buffer.buffer);
  const bytes = view.getUint32(8, true);
  const header = buffer.subarray(0, headerBytesOf(bytes));
  const isSound = got >= FIXED_HEADER_BYTES && bytes <= BLOB_BYTES_MAX && got >= header.length &&
    MAGIC.every((byte, i) => byte === buffer[i]) &&
    view.getUint16(6, true) === FORMAT_VERSION &&
    view.getUint32(12, true) === headerCrc(id, header);
  if (!isSound) {
    throw new CorruptionError(`Cannot read blob "${id}": its header is damaged`, path, 0);
  }
  const table = Array.from(
    { length: pieceCountOf(bytes) },
    (_, piece) => view.getUint32(FIXED_HEADER_BYTES + 4 * piece, true),
  );
  return { bytes, table };
}
