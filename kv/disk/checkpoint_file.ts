/**
 * The SQLite file of one group's checkpoint: its tables, opening it with all checks, replacing it.
 *
 * One connection for reading lives as long as the store (sqlite_cell_store.ts); writing is done by the
 * worker's connection alone (checkpoint_worker.ts).
 */
import { DatabaseSync } from "node:sqlite";
import type { GroupId, Lsn } from "../../proto/ids.ts";
import { CorruptionError } from "../errors.ts";
import { type CellTotals, recordSum } from "./checkpoint_sums.ts";
import { DiskFailedError, diskFull, RealDisk } from "./disk.ts";

/** The first release without the bug that could corrupt a file written by two connections. */
const SQLITE_VERSION_MIN = [3, 51, 3];
/** Larger files are checked as a whole only by `verify`: it would take too long at the start. */
const CHECK_BYTES_MAX = 64 * 1024 * 1024;

// The value comes last, so that all before it is read without the pages that it overflows to.
const SCHEMA = `
  CREATE TABLE IF NOT EXISTS cells (
    row TEXT NOT NULL, col TEXT NOT NULL, ver INTEGER NOT NULL, size INTEGER NOT NULL,
    crc INTEGER NOT NULL, blob TEXT, sum INTEGER NOT NULL, val BLOB, PRIMARY KEY (row, col)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS cells_by_blob ON cells (blob) WHERE blob IS NOT NULL;
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
`;

export const checkpointPath = (dir: string, gid: GroupId) => `${dir}/groups/${gid}.db`;

/** See `SqliteCellStore.install`. */
export async function replaceFile(
  { path, fromPath }: { path: string; fromPath: string },
): Promise<void> {
  const disk = new RealDisk(), dir = path.slice(0, path.lastIndexOf("/"));
  const db = openDatabase(fromPath);
  try {
    readRecord(db, fromPath);
  } finally {
    db.close();
  }
  await syncFile(disk, fromPath);
  await disk.mkdir(dir);
  // A write-ahead log of the old file must not be applied to the new one. Its content goes into
  // the old file first, so that a crash right here takes nothing from it.
  if (await disk.stat(`${path}-wal`) !== null) absorbWriteAheadLog(path);
  for (const suffix of ["-wal", "-shm"]) {
    await disk.remove(path + suffix);
    await disk.remove(fromPath + suffix);
  }
  await disk.rename(fromPath, path);
  await disk.syncDir(dir);
}

/** Names of the files of large values, in order, in pages so that no statement stays open. */
export function* storedBlobs(db: DatabaseSync): Iterable<string> {
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

export function openDatabase(path: string): DatabaseSync {
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
    if (bytes > CHECK_BYTES_MAX) return db;
    const problem = findDamage(db);
    if (problem !== null) throw new CorruptionError(problem, path, 0);
    return db;
  } catch (error) {
    db?.close();
    throw explainSqlite(error, path);
  }
}

/**
 * What the checkpoint in a stopped node's folder recorded about itself; null when there is none. Changes
 * nothing.
 *
 * @throws {CorruptionError} SQLite finds the file damaged
 */
export async function inspectCheckpoint(
  dir: string,
  gid: GroupId,
): Promise<{ lsn: Lsn; meta: Record<string, unknown> } | null> {
  const path = checkpointPath(dir, gid);
  if (await new RealDisk().stat(path) === null) return null;
  let db: DatabaseSync | null = null;
  try {
    db = new DatabaseSync(path, { readOnly: true });
    const problem = findDamage(db);
    if (problem !== null) throw new CorruptionError(problem, path, 0);
    return readRecord(db, path);
  } catch (error) {
    throw explainSqlite(error, path);
  } finally {
    db?.close();
  }
}

/** What the last checkpoint recorded about itself. */
export function readRecord(
  db: DatabaseSync,
  path: string,
): { lsn: Lsn; meta: Record<string, unknown> } {
  try {
    const saved = new Map<string, string>();
    for (const { name, value } of db.prepare("SELECT name, value FROM meta").all()) {
      saved.set(String(name), String(value));
    }
    const isNew = saved.size === 0 && cellTotals(db).count === 0;
    if (isNew) return { lsn: 0 as Lsn, meta: {} };
    const lsn = Number(saved.get("lsn")), meta = saved.get("meta") ?? "";
    const totals = { count: Number(saved.get("count")), total: Number(saved.get("total")) };
    if (recordSum({ lsn, meta, totals }) === Number(saved.get("sum"))) {
      return { lsn: lsn as Lsn, meta: JSON.parse(meta) };
    }
  } catch (error) {
    throw explainSqlite(error, path);
  }
  throw new CorruptionError("The checkpoint's own record fails its checksum", path, 0);
}

/**
 * What is wrong with the structure of the file or the set of its cells, or null. Reads all of it, some
 * 100 ms for 64 MiB. The full `integrity_check`, because only that compares the order of the keys, and
 * the totals, because SQLite does not notice when a flipped bit hides a cell of a page.
 */
export function findDamage(db: DatabaseSync): string | null {
  db.exec("BEGIN");
  try {
    const verdict = db.prepare("PRAGMA integrity_check(1)").get()?.integrity_check;
    if (verdict !== "ok") return `SQLite finds the checkpoint damaged: ${verdict}`;
    const saved = db.prepare("SELECT value FROM meta WHERE name = ?");
    const { count, total } = cellTotals(db);
    const isRight = Number(saved.get("count")?.value ?? 0) === count &&
      Number(saved.get("total")?.value ?? 0) === total;
    return isRight ? null : "The checkpoint does not hold the cells that it should";
  } finally {
    db.exec("COMMIT");
  }
}

function cellTotals(db: DatabaseSync): CellTotals {
  const found = db.prepare("SELECT count(*) AS count, sum(sum) AS total FROM cells").get()!;
  return { count: Number(found.count), total: Number(found.total ?? 0) };
}

/** Turns what SQLite says about its file or disk into our own error; leaves other errors alone. */
export function explainSqlite(error: unknown, path: string): unknown {
  if (error instanceof CorruptionError) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (/disk is full/i.test(message)) return diskFull(path, error);
  if (/disk I\/O error/i.test(message)) {
    return new DiskFailedError(`Cannot go on with "${path}": the disk failed`, { cause: error });
  }
  if (!/malformed|not a database|corrupt/i.test(message)) return error;
  return new CorruptionError(`SQLite cannot read the checkpoint: ${message}`, path, 0);
}

function absorbWriteAheadLog(path: string): void {
  let db: DatabaseSync;
  try {
    db = openDatabase(path);
  } catch (error) {
    // A damaged file has nothing to keep: it is being replaced.
    if (error instanceof CorruptionError) return;
    throw error;
  }
  try {
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  } catch (error) {
    throw explainSqlite(error, path);
  } finally {
    db.close();
  }
}

async function syncFile(disk: RealDisk, path: string): Promise<void> {
  const file = await disk.open(path);
  try {
    await file.sync();
  } finally {
    await file.close();
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
