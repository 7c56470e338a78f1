/**
 * The applied state of one group on disk: cells that changed since the last checkpoint in memory, over
 * a SQLite file with all others, and a cache of what was read from it.
 *
 * Promises: reads are synchronous and see every `put`; the file always holds exactly the state as of
 * `checkpointLsn`, because a checkpoint is one transaction that also sets that number; a cell that
 * fails its checksum is never returned. Writing happens in a worker (checkpoint_writer.ts), so that
 * it blocks no heartbeat. Memory is bounded: dirty cells by the caller, who checkpoints when
 * `dirtyBytes` grows; clean ones by the node's {@link CacheBudget}.
 *
 *     cells(row, col, ver, size, crc, val | blob)   WITHOUT ROWID, in the order of key_order.ts
 *     meta(name, value)                             lsn, and the caller's JSON
 */
import { crc32 } from "node:zlib";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { GroupId, Lsn } from "../../proto/ids.ts";
import { lsn as toLsn, version } from "../../proto/ids.ts";
import {
  type CellPosition,
  type CellRange,
  type CellStore,
  isBlobRef,
  type StoredCell,
} from "../cell_store.ts";
import { CorruptionError } from "../errors.ts";
import { invariant } from "../invariant.ts";
import { comparePositions, SortedCells } from "../sorted_cells.ts";
import { type CheckpointWriter, packCells } from "./checkpoint_writer.ts";
import { RealDisk } from "./disk.ts";

export { CheckpointWriter } from "./checkpoint_writer.ts";

/** The first release without the bug that could corrupt a file written by two connections. */
const SQLITE_VERSION_MIN = [3, 51, 3];
const QUICK_CHECK_BYTES_MAX = 64 * 1024 * 1024;
const PAGE_ROWS_MIN = 16;
const PAGE_ROWS_MAX = 512;
const CELL_OVERHEAD_BYTES = 160;

export const SCHEMA = `
  CREATE TABLE IF NOT EXISTS cells (
    row TEXT NOT NULL, col TEXT NOT NULL, ver INTEGER NOT NULL, size INTEGER NOT NULL,
    crc INTEGER NOT NULL, val BLOB, blob TEXT, PRIMARY KEY (row, col)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS cells_by_blob ON cells (blob) WHERE blob IS NOT NULL;
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
`;

/** Clean cells of all groups of a node, the least recently used of which go first. */
export class CacheBudget {
  readonly #cells = new Map<string, StoredCell>();
  #bytes = 0;

  constructor(readonly bytesMax: number) {}

  get bytes(): number {
    return this.#bytes;
  }

  get(key: string): StoredCell | undefined {
    const cell = this.#cells.get(key);
    if (cell === undefined) return undefined;
    this.#cells.delete(key);
    this.#cells.set(key, cell);
    return cell;
  }

  put(key: string, cell: StoredCell): void {
    this.delete(key);
    this.#cells.set(key, cell);
    this.#bytes += memoryBytes(cell);
    for (const [oldest, old] of this.#cells) {
      if (this.#bytes <= this.bytesMax) break;
      this.#cells.delete(oldest);
      this.#bytes -= memoryBytes(old);
    }
  }

  delete(key: string): void {
    const cell = this.#cells.get(key);
    if (cell === undefined) return;
    this.#cells.delete(key);
    this.#bytes -= memoryBytes(cell);
  }

  /** Drops all cells of one group. */
  clear(prefix: string): void {
    for (const key of this.#cells.keys()) if (key.startsWith(prefix)) this.delete(key);
  }
}

function memoryBytes(cell: StoredCell): number {
  const inline = cell.value instanceof Uint8Array ? cell.size : 32;
  return CELL_OVERHEAD_BYTES + 2 * (cell.row.length + cell.column.length) + inline;
}

/** Null marks a deletion. */
type Overlay = SortedCells<StoredCell | null>;

export interface SqliteCellStoreOptions {
  /** The node's data folder; the file is `groups/<gid>.db` in it. */
  readonly dir: string;
  readonly gid: GroupId;
  readonly budget: CacheBudget;
  readonly writer: CheckpointWriter;
}

interface CellRow {
  row: string;
  col: string;
  ver: number;
  size: number;
  crc: number;
  val: Uint8Array | null;
  blob: string | null;
}

export class SqliteCellStore implements CellStore {
  readonly path: string;
  readonly #db: DatabaseSync;
  readonly #budget: CacheBudget;
  readonly #writer: CheckpointWriter;
  readonly #cachePrefix: string;
  readonly #select: StatementSync;
  readonly #pages: Record<"from" | "after" | "upTo" | "before", StatementSync>;
  #active: Overlay = new SortedCells();
  #flushing: Overlay | null = null;
  #dirtyBytes = 0;
  #flushingBytes = 0;
  #checkpointLsn: Lsn;
  #meta: Record<string, unknown>;

  /** @throws {CorruptionError} SQLite finds the file damaged */
  static open(options: SqliteCellStoreOptions): SqliteCellStore {
    Deno.mkdirSync(`${options.dir}/groups`, { recursive: true });
    return new SqliteCellStore(options);
  }

  private constructor(options: SqliteCellStoreOptions) {
    this.path = pathOf(options.dir, options.gid);
    this.#budget = options.budget;
    this.#writer = options.writer;
    this.#cachePrefix = `${options.gid}\0`;
    this.#db = openDatabase(this.path);
    const columns = "SELECT row, col, ver, size, crc, val, blob FROM cells WHERE";
    const ascending = "ORDER BY row, col LIMIT ?",
      descending = "ORDER BY row DESC, col DESC LIMIT ?";
    this.#select = this.#db.prepare(`${columns} row = ? AND col = ?`);
    this.#pages = {
      from: this.#db.prepare(`${columns} (row, col) >= (?, ?) ${ascending}`),
      after: this.#db.prepare(`${columns} (row, col) > (?, ?) ${ascending}`),
      upTo: this.#db.prepare(`${columns} (row, col) <= (?, ?) ${descending}`),
      before: this.#db.prepare(`${columns} (row, col) < (?, ?) ${descending}`),
    };
    const meta = this.#db.prepare("SELECT value FROM meta WHERE name = ?");
    const saved = (name: string) => meta.get(name)?.value as string | undefined;
    this.#checkpointLsn = toLsn(Number(saved("lsn") ?? 0));
    this.#meta = JSON.parse(saved("meta") ?? "{}");
  }

  /** The Lsn as of which the file is; 0 when there was no checkpoint yet. */
  get checkpointLsn(): Lsn {
    return this.#checkpointLsn;
  }

  /** What was given with the last checkpoint. */
  get meta(): Record<string, unknown> {
    return this.#meta;
  }

  /** Memory that only a checkpoint can free. */
  get dirtyBytes(): number {
    return this.#dirtyBytes + this.#flushingBytes;
  }

  get(row: string, column: string): StoredCell | undefined {
    let dirty = this.#active.get(row, column);
    if (dirty === undefined && this.#flushing !== null) dirty = this.#flushing.get(row, column);
    if (dirty !== undefined) return dirty ?? undefined;
    const key = this.#key(row, column);
    const cached = this.#budget.get(key);
    if (cached !== undefined) return cached;
    const found = this.#select.get(row, column) as CellRow | undefined;
    if (found === undefined) return undefined;
    const cell = this.#toCell(found);
    this.#budget.put(key, cell);
    return cell;
  }

  *range(range: CellRange): Iterable<StoredCell> {
    const sources = [this.#active.range(range)];
    if (this.#flushing !== null) sources.push(this.#flushing.range(range));
    const iterators: Iterator<{ row: string; column: string; value: StoredCell | null }>[] = sources
      .map((source) => source[Symbol.iterator]());
    iterators.push(this.#stored(range));
    const heads = iterators.map((iterator) => iterator.next());
    const sign = range.reverse === true ? -1 : 1;
    for (;;) {
      // Newer sources come first, so at equal positions the first one wins.
      let best = -1;
      for (let i = 0; i < heads.length; i++) {
        if (heads[i]!.done) continue;
        if (best === -1 || sign * comparePositions(heads[i]!.value, heads[best]!.value) < 0) {
          best = i;
        }
      }
      if (best === -1) return;
      const { row, column, value } = heads[best]!.value;
      for (let i = 0; i < heads.length; i++) {
        const head = heads[i]!;
        if (!head.done && head.value.row === row && head.value.column === column) {
          heads[i] = iterators[i]!.next();
        }
      }
      if (value !== null) yield value;
    }
  }

  put(cell: StoredCell): void {
    invariant(
      isBlobRef(cell.value) || cell.value.length === cell.size,
      "A10",
      () => `a cell of ${cell.size} bytes has ${(cell.value as Uint8Array).length}`,
    );
    this.#setDirty(cell.row, cell.column, cell);
  }

  delete(row: string, column: string): void {
    this.#setDirty(row, column, null);
  }

  /**
   * Writes all cells that are dirty now, as the state as of `lsn`, with `meta`; durable when it
   * resolves. Cells that change meanwhile stay dirty. When it rejects nothing has changed.
   *
   * @throws {KvError} `disk_full`
   */
  async checkpoint(options: { lsn: Lsn; meta: Record<string, unknown> }): Promise<void> {
    if (this.#flushing !== null) throw new Error("Cannot begin a checkpoint: one is under way");
    const flushing = this.#active;
    this.#flushing = flushing;
    this.#flushingBytes = this.#dirtyBytes;
    this.#active = new SortedCells();
    this.#dirtyBytes = 0;
    const metaText = JSON.stringify(options.meta);
    try {
      await this.#writer.write(this.path, {
        lsn: options.lsn,
        meta: metaText,
        ...packCells(flushing.range({})),
      });
    } catch (error) {
      this.#takeBack(flushing);
      throw error;
    }
    this.#checkpointLsn = options.lsn;
    this.#meta = JSON.parse(metaText);
    for (const { row, column, value } of flushing.range({})) {
      const key = this.#key(row, column);
      if (value === null) this.#budget.delete(key);
      // A view into a larger buffer would keep all of it in memory.
      else this.#budget.put(key, owned(value));
    }
    this.#flushing = null;
    this.#flushingBytes = 0;
  }

  /** A consistent copy of the file as of `lsn`, made off this thread, for another replica. */
  async exportSnapshot(): Promise<
    { lsn: Lsn; path: string; bytes: number; remove: () => Promise<void> }
  > {
    const path = `${this.path}.copy-${crypto.randomUUID()}`;
    const { lsn, bytes } = await this.#writer.copy(this.path, path);
    return { lsn: toLsn(lsn), path, bytes, remove: () => new RealDisk().remove(path) };
  }

  /** Replaces a group's file, atomically and durably. The store must be closed. */
  static async install(options: { dir: string; gid: GroupId; fromPath: string }): Promise<void> {
    const disk = new RealDisk(), path = pathOf(options.dir, options.gid);
    openDatabase(options.fromPath).close();
    // A write-ahead log of the old file must not be applied to the new one.
    for (const suffix of ["-wal", "-shm"]) {
      await disk.remove(path + suffix);
      await disk.remove(options.fromPath + suffix);
    }
    await disk.rename(options.fromPath, path);
    await disk.syncDir(`${options.dir}/groups`);
  }

  /** The files of large values that a checkpoint file mentions. */
  static *blobsIn(path: string): Iterable<string> {
    const db = openDatabase(path);
    try {
      yield* storedBlobs(db);
    } finally {
      db.close();
    }
  }

  /** The files of large values that the state mentions now, and some that it lately did. */
  *blobsReferenced(): Iterable<string> {
    for (const overlay of [this.#active, this.#flushing]) {
      if (overlay === null) continue;
      for (const { value } of overlay.range({})) {
        if (value !== null && isBlobRef(value.value)) yield value.value.blob;
      }
    }
    yield* storedBlobs(this.#db);
  }

  /** Reads every stored cell and yields those that fail their checksum; go on in slices. */
  *verify(): Iterable<CellPosition & { damaged: boolean }> {
    for (const row of this.#rows({ from: { row: "", column: "" } })) {
      const damaged = row.val !== null && crc32(row.val) !== row.crc;
      yield { row: row.row, column: row.col, damaged };
    }
  }

  close(): void {
    this.#budget.clear(this.#cachePrefix);
    this.#db.close();
  }

  #key(row: string, column: string): string {
    return `${this.#cachePrefix}${row}\0${column}`;
  }

  #setDirty(row: string, column: string, cell: StoredCell | null): void {
    const before = this.#active.get(row, column);
    if (before !== undefined) this.#dirtyBytes -= dirtyBytesOf(row, column, before);
    this.#active.set(row, column, cell);
    this.#dirtyBytes += dirtyBytesOf(row, column, cell);
    this.#budget.delete(this.#key(row, column));
  }

  #takeBack(flushing: Overlay): void {
    this.#flushing = null;
    this.#flushingBytes = 0;
    for (const { row, column, value } of flushing.range({})) {
      if (this.#active.get(row, column) === undefined) this.#setDirty(row, column, value);
    }
  }

  *#stored(range: CellRange): Generator<{ row: string; column: string; value: StoredCell }> {
    for (const row of this.#rows(range)) {
      yield { row: row.row, column: row.col, value: this.#toCell(row) };
    }
  }

  /** In pages, so that no statement stays open when the reader stops early. */
  *#rows(range: CellRange): Generator<CellRow> {
    const reverse = range.reverse === true;
    let at = range.from, inclusive = range.inclusive ?? true;
    for (let limit = PAGE_ROWS_MIN;; limit = Math.min(PAGE_ROWS_MAX, limit * 4)) {
      const statement = reverse
        ? this.#pages[inclusive ? "upTo" : "before"]
        : this.#pages[inclusive ? "from" : "after"];
      const { row, column } = at ?? (reverse ? LAST : FIRST);
      const page = statement.all(row, column, limit) as unknown as CellRow[];
      yield* page;
      if (page.length < limit) return;
      const last = page.at(-1)!;
      at = { row: last.row, column: last.col };
      inclusive = false;
    }
  }

  #toCell(found: CellRow): StoredCell {
    const { row, col: column, ver, size, crc, val, blob } = found;
    const ok = blob !== null || (val !== null && val.length === size && crc32(val) === crc);
    if (!ok) {
      throw new CorruptionError(`Cell "${row}" "${column}" fails its checksum`, this.path, 0);
    }
    const value = blob !== null ? { blob } : val!;
    return { row, column, version: version(ver), size, crc, value };
  }
}

const FIRST: CellPosition = { row: "", column: "" };
const LAST: CellPosition = { row: "\u{10ffff}".repeat(257), column: "" };

const pathOf = (dir: string, gid: GroupId) => `${dir}/groups/${gid}.db`;

function dirtyBytesOf(row: string, column: string, cell: StoredCell | null): number {
  return cell === null ? CELL_OVERHEAD_BYTES + 2 * (row.length + column.length) : memoryBytes(cell);
}

function owned(cell: StoredCell): StoredCell {
  const { value } = cell;
  if (!(value instanceof Uint8Array) || value.byteLength === value.buffer.byteLength) return cell;
  return { ...cell, value: value.slice() };
}

function* storedBlobs(db: DatabaseSync): Iterable<string> {
  const statement = db.prepare(
    "SELECT DISTINCT blob FROM cells WHERE blob > ? ORDER BY blob LIMIT 500",
  );
  for (let last = "";;) {
    const page = statement.all(last);
    for (const { blob } of page) yield String(blob);
    if (page.length < 500) return;
    last = String(page.at(-1)!.blob);
  }
}

function openDatabase(path: string): DatabaseSync {
  let db: DatabaseSync | null = null;
  try {
    db = new DatabaseSync(path);
    checkVersion(db);
    db.exec("PRAGMA journal_mode = WAL");
    db.exec("PRAGMA synchronous = FULL");
    db.exec("PRAGMA busy_timeout = 10000");
    db.exec(SCHEMA);
    const bytes = Number(db.prepare("PRAGMA page_count").get()?.page_count) *
      Number(db.prepare("PRAGMA page_size").get()?.page_size);
    if (bytes <= QUICK_CHECK_BYTES_MAX) {
      const verdict = db.prepare("PRAGMA quick_check(1)").get()?.quick_check;
      if (verdict !== "ok") throw new CorruptionError(`SQLite says: ${verdict}`, path, 0);
    }
    return db;
  } catch (error) {
    db?.close();
    if (error instanceof CorruptionError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    if (/malformed|not a database|corrupt/i.test(message)) {
      throw new CorruptionError(`SQLite cannot read the checkpoint: ${message}`, path, 0);
    }
    throw error;
  }
}

function checkVersion(db: DatabaseSync): void {
  const text = String(db.prepare("SELECT sqlite_version() AS version").get()?.version);
  const parts = text.split(".").map(Number);
  for (let i = 0; i < 3; i++) {
    if (parts[i]! > SQLITE_VERSION_MIN[i]!) return;
    if (parts[i]! < SQLITE_VERSION_MIN[i]!) {
      throw new Error(`SQLite ${text} has a known bug; ${SQLITE_VERSION_MIN.join(".")} is needed`);
    }
  }
}
