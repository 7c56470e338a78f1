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
 *     cells(row, col, ver, size, crc, val | blob, sum)   WITHOUT ROWID, in the order of key_order.ts
 *     meta(name, value)                                  the checkpoint's record: lsn, the caller's
 *                                                        JSON, count and sums of the cells
 *
 * `crc` is the value's, `sum` that of everything else in the cell: see checkpoint_sums.ts.
 */
import { crc32 } from "node:zlib";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { GroupId, Lsn } from "../../proto/ids.ts";
import { lsn as toLsn, version } from "../../proto/ids.ts";
import {
  type CellPosition,
  type CellRange,
  type CheckpointedStore,
  isBlobRef,
  type StoredCell,
  type VerifiedCell,
} from "../cell_store.ts";
import { CELL_OVERHEAD_BYTES, memoryBytes, owned } from "../cell_memory.ts";
import { CorruptionError } from "../errors.ts";
import { invariant } from "../invariant.ts";
import { LAST_KEY } from "../key_order.ts";
import { clampToRow, comparePositions, SortedCells } from "../sorted_cells.ts";
import type { CacheBudget } from "./cache_budget.ts";
import {
  checkpointPath,
  explainSqlite,
  openDatabase,
  readRecord,
  replaceFile,
  storedBlobs,
} from "./checkpoint_file.ts";
import { cellSum } from "./checkpoint_sums.ts";
import { CheckpointWriter, inPieces, nextTurn } from "./checkpoint_writer.ts";
import { RealDisk } from "./disk.ts";

export { CacheBudget } from "./cache_budget.ts";
export { CheckpointWriter } from "./checkpoint_writer.ts";

const CELL_COLUMNS = "SELECT row, col, ver, size, crc, val, blob, sum FROM cells WHERE";
const HEAD_COLUMNS = "SELECT row, col, ver, size, crc, NULL AS val, blob, sum FROM cells WHERE";
const NOTHING = new Uint8Array(0);
const PAGE_ROWS_MIN = 16;
const PAGE_ROWS_MAX = 512;
/** Of the values that are read at once because a reader will probably want them. */
const EXPECTED_BYTES_MAX = 1024 * 1024;
/** Scrubbing goes on beside requests, so it reads less at a time. */
const VERIFY_PAGE_ROWS = 64;
/**
 * A bound limit. SQLite 3.53 compiles a statement with a plain `LIMIT ?` anew each time that it is bound, to
 * plan by its value: 40 µs for what takes 8.
 */
const LIMIT = "(? + 0)";
/** So many cells are moved to the cache at a time after a checkpoint: some 0.3 ms of work. */
const CLEANED_CELLS = 256;

/** Null marks a deletion. */
type Overlay = SortedCells<StoredCell | null>;

export interface SqliteCellStoreOptions {
  /** The node's data folder; the file is `groups/<gid>.db` in it. */
  readonly dir: string;
  readonly gid: GroupId;
  readonly budget: CacheBudget;
  readonly writer: CheckpointWriter;
}

/** As an array, which takes half the time to build that an object with these names does. */
type CellRow = readonly [
  row: string,
  column: string,
  version: number,
  size: number,
  crc: number,
  value: Uint8Array | null,
  blob: string | null,
  sum: number,
];
const VALUE = 5;

declare module "node:sqlite" {
  interface StatementSync {
    /** Rows come as arrays from now on; missing in Deno's types. */
    setReturnArrays(enabled: boolean): void;
  }
}

export class SqliteCellStore implements CheckpointedStore {
  readonly path: string;
  readonly #db: DatabaseSync;
  readonly #budget: CacheBudget;
  readonly #writer: CheckpointWriter;
  readonly #cachePrefix: string;
  readonly #select: StatementSync;
  readonly #findBlob: StatementSync;
  readonly #pages: ReturnType<typeof pageStatements>;
  /** The same without values. */
  readonly #heads: ReturnType<typeof pageStatements>;
  #active: Overlay = new SortedCells();
  #flushing: Overlay | null = null;
  #dirtyBytes = 0;
  #flushingBytes = 0;
  #closed = false;
  /** What `#key` gave last: one write asks for the same cell several times. */
  #lastKey = { row: "", column: "", key: "" };
  /** Of a row of the table with its value, as of late. */
  #meanBytes = 1024;
  #checkpointLsn: Lsn;
  #meta: Record<string, unknown>;

  /** @throws {CorruptionError} SQLite finds the file damaged */
  static open(options: SqliteCellStoreOptions): SqliteCellStore {
    const groupsDir = `${options.dir}/groups`;
    Deno.mkdirSync(groupsDir, { recursive: true });
    // A crash leaves copies behind that were made for other replicas.
    for (const { name } of Deno.readDirSync(groupsDir)) {
      if (name.startsWith(`${options.gid}.db.copy-`)) Deno.removeSync(`${groupsDir}/${name}`);
    }
    return new SqliteCellStore(options);
  }

  private constructor(options: SqliteCellStoreOptions) {
    this.path = checkpointPath(options.dir, options.gid);
    this.#budget = options.budget;
    this.#writer = options.writer;
    this.#cachePrefix = `${options.gid}\0`;
    this.#db = openDatabase(this.path);
    this.#select = prepareCells(this.#db, `${CELL_COLUMNS} row = ? AND col = ?`);
    this.#findBlob = this.#db.prepare("SELECT 1 FROM cells WHERE blob = ? LIMIT 1");
    this.#pages = pageStatements(this.#db, CELL_COLUMNS);
    this.#heads = pageStatements(this.#db, HEAD_COLUMNS);
    try {
      const { lsn, meta } = readRecord(this.#db, this.path);
      this.#checkpointLsn = lsn;
      this.#meta = meta;
    } catch (error) {
      this.#db.close();
      throw error;
    }
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
    const found = this.#reading(() => this.#select.get(row, column)) as unknown as
      | CellRow
      | undefined;
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
    // A log entry's bytes may go when the log lets go of them, not when this cell does.
    this.#setDirty(cell.row, cell.column, owned(cell));
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
        cells: flushing.entries(),
      });
    } catch (error) {
      this.#takeBack(flushing);
      throw error;
    }
    this.#checkpointLsn = options.lsn;
    this.#meta = JSON.parse(metaText);
    for (const piece of inPieces(flushing.entries(), CLEANED_CELLS)) {
      if (this.#closed) return;
      for (const { row, column, value } of piece) {
        // What changed since is not clean.
        if (value === null || this.#active.get(row, column) !== undefined) continue;
        this.#budget.add(`${this.#cachePrefix}${row}\0${column}`, value);
      }
      await nextTurn();
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

  /**
   * Replaces a group's file, atomically and durably, after checking the new one. The store must be
   * closed.
   *
   * @throws {CorruptionError} `fromPath` is not a sound checkpoint; the group's file is as it was
   */
  static async install(options: { dir: string; gid: GroupId; fromPath: string }): Promise<void> {
    const { dir, gid, fromPath } = options;
    await replaceFile({ path: checkpointPath(dir, gid), fromPath });
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
      for (const { value } of overlay.entries()) {
        if (value !== null && isBlobRef(value.value)) yield value.value.blob;
      }
    }
    yield* storedBlobs(this.#db);
  }

  mentionsBlob(blob: string): boolean {
    if (this.#reading(() => this.#findBlob.get(blob)) !== undefined) return true;
    for (const overlay of [this.#active, this.#flushing]) {
      for (const { value } of overlay?.entries() ?? []) {
        if (value !== null && isBlobRef(value.value) && value.value.blob === blob) return true;
      }
    }
    return false;
  }

  /**
   * Reads every stored cell and says which fail their checksums; go on in slices. Cells that cannot
   * be reached any more do not turn up here: `checkFile` finds those.
   */
  *verify(): Iterable<VerifiedCell> {
    // Over a connection of its own, because the other one has pages in memory that the disk has lost.
    const db = this.#reading(() => new DatabaseSync(this.path, { readOnly: true }));
    try {
      const next = this.#reading(() =>
        prepareCells(db, `${CELL_COLUMNS} (row, col) > (?, ?) ORDER BY row, col LIMIT ${LIMIT}`)
      );
      for (let { row, column } = FIRST;;) {
        const page = this.#reading(() =>
          next.all(row, column, VERIFY_PAGE_ROWS)
        ) as unknown as CellRow[];
        for (const cell of page) {
          [row, column] = cell;
          const damaged = soundCell(cell, false) === null;
          yield { row, column, damaged, bytes: cell[VALUE]?.length ?? 0 };
        }
        if (page.length < VERIFY_PAGE_ROWS) return;
      }
    } finally {
      db.close();
    }
  }

  /**
   * Checks the structure of the whole file and that it holds the cells that it should, off this thread.
   *
   * @throws {CorruptionError}
   */
  async checkFile(): Promise<void> {
    // A worker of its own: a large file takes long, and checkpoints must not wait for it.
    const checker = new CheckpointWriter();
    try {
      const problem = await checker.check(this.path);
      if (problem !== null) throw new CorruptionError(problem, this.path, 0);
    } finally {
      await checker.close();
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#budget.clear(this.#cachePrefix);
    this.#db.close();
  }

  #key(row: string, column: string): string {
    const last = this.#lastKey;
    if (last.row !== row || last.column !== column || last.key === "") {
      this.#lastKey = { row, column, key: `${this.#cachePrefix}${row}\0${column}` };
    }
    return this.#lastKey.key;
  }

  #setDirty(row: string, column: string, cell: StoredCell | null): void {
    const before = this.#active.set(row, column, cell);
    // A cell that is dirty already is not among the clean ones.
    if (before === undefined) this.#budget.delete(this.#key(row, column));
    else this.#dirtyBytes -= dirtyBytesOf(row, column, before);
    this.#dirtyBytes += dirtyBytesOf(row, column, cell);
  }

  #takeBack(flushing: Overlay): void {
    this.#flushing = null;
    this.#flushingBytes = 0;
    for (const { row, column, value } of flushing.entries()) {
      if (this.#active.get(row, column) === undefined) this.#setDirty(row, column, value);
    }
  }

  *#stored(range: CellRange): Generator<{ row: string; column: string; value: StoredCell }> {
    const { keysOnly = false } = range;
    for (const found of this.#rows(range)) {
      const value = this.#toCell(found, keysOnly);
      yield { row: value.row, column: value.column, value };
    }
  }

  /** In pages, so that no statement stays open when the reader stops early. */
  *#rows(wanted: CellRange): Generator<CellRow> {
    const range = clampToRow(wanted);
    if (range === null) return;
    const reverse = range.reverse === true;
    const { inRow, anywhere, bounded } = range.keysOnly === true ? this.#heads : this.#pages;
    const until = reverse || range.within !== undefined ? undefined : range.until;
    const pages = until !== undefined ? bounded : range.within === undefined ? anywhere : inRow;
    const bounds = until === undefined ? [] : [until];
    let at = range.from, inclusive = range.inclusive ?? true;
    let limit = this.#firstLimit(range), next = PAGE_ROWS_MIN;
    for (;; limit = next, next = Math.min(PAGE_ROWS_MAX, next * 4)) {
      const statement = reverse
        ? pages[inclusive ? "upTo" : "before"]
        : pages[inclusive ? "from" : "after"];
      const { row, column } = at ?? (reverse ? LAST : FIRST);
      const page = this.#reading(() =>
        statement.all(row, column, ...bounds, limit)
      ) as unknown as CellRow[];
      if (range.keysOnly !== true) this.#noteSizes(page);
      yield* page;
      if (page.length < limit) return;
      const [lastRow, lastColumn] = page.at(-1)!;
      at = { row: lastRow, column: lastColumn };
      inclusive = false;
    }
  }

  /** What the reader will take, if that is no more than it is safe to have in memory at once. */
  #firstLimit({ expected, keysOnly = false }: CellRange): number {
    if (expected === undefined) return PAGE_ROWS_MIN;
    const most = keysOnly ? PAGE_ROWS_MAX : Math.floor(EXPECTED_BYTES_MAX / this.#meanBytes);
    return Math.max(PAGE_ROWS_MIN, Math.min(expected, most, PAGE_ROWS_MAX));
  }

  #noteSizes(page: readonly CellRow[]): void {
    if (page.length === 0) return;
    let bytes = CELL_OVERHEAD_BYTES * page.length;
    for (const found of page) bytes += found[VALUE]?.length ?? 0;
    this.#meanBytes += (bytes / page.length - this.#meanBytes) / 2;
  }

  #toCell(found: CellRow, keysOnly = false): StoredCell {
    const cell = soundCell(found, keysOnly);
    if (cell !== null) return cell;
    const [row, column] = found;
    throw new CorruptionError(`Cell "${row}" "${column}" fails its checksum`, this.path, 0);
  }

  #reading<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      throw explainSqlite(error, this.path);
    }
  }
}

/** All take a row, a column and a limit; `bounded` ones before that a row at which they end. */
type PageStatements = Record<"from" | "after" | "upTo" | "before", StatementSync>;

function pageStatements(
  db: DatabaseSync,
  columns: string,
): Record<"anywhere" | "bounded" | "inRow", PageStatements> {
  const make = (compare: (operator: string) => string, order: (way: string) => string) => ({
    from: prepareCells(db, `${columns} ${compare(">=")} ORDER BY ${order("")} LIMIT ${LIMIT}`),
    after: prepareCells(db, `${columns} ${compare(">")} ORDER BY ${order("")} LIMIT ${LIMIT}`),
    upTo: prepareCells(db, `${columns} ${compare("<=")} ORDER BY ${order("DESC")} LIMIT ${LIMIT}`),
    before: prepareCells(db, `${columns} ${compare("<")} ORDER BY ${order("DESC")} LIMIT ${LIMIT}`),
  });
  return {
    anywhere: make(
      (operator) => `(row, col) ${operator} (?, ?)`,
      (way) => `row ${way}, col ${way}`,
    ),
    bounded: make(
      (operator) => `(row, col) ${operator} (?, ?) AND row < ?`,
      (way) => `row ${way}, col ${way}`,
    ),
    inRow: make((operator) => `row = ? AND col ${operator} ?`, (way) => `col ${way}`),
  };
}

function prepareCells(db: DatabaseSync, sql: string): StatementSync {
  const statement = db.prepare(sql);
  statement.setReturnArrays(true);
  return statement;
}

/** Null: it fails its checksums. */
function soundCell(
  [row, column, ver, size, crc, bytes, blob, sum]: CellRow,
  keysOnly: boolean,
): StoredCell | null {
  const isSound = cellSum({ row, column, version: ver, size, crc, blob }) === sum &&
    (keysOnly || (blob === null ? hasSum(bytes, size, crc) : bytes === null));
  if (!isSound) return null;
  const value = blob === null ? bytes ?? NOTHING : { blob };
  return { row, column, version: version(ver), size, crc, value };
}

const hasSum = (bytes: Uint8Array | null, size: number, crc: number): boolean =>
  bytes !== null && bytes.length === size && crc32(bytes) === crc;

const FIRST: CellPosition = { row: "", column: "" };
const LAST: CellPosition = { row: LAST_KEY, column: "" };

function dirtyBytesOf(row: string, column: string, cell: StoredCell | null): number {
  return cell === null ? CELL_OVERHEAD_BYTES + 2 * (row.length + column.length) : memoryBytes(cell);
}
