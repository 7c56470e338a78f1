/// <reference lib="deno.worker" />
/** The worker's side of checkpoint_writer.ts: one transaction a checkpoint, one job at a time. */
import { DatabaseSync } from "node:sqlite";
import { CorruptionError } from "../errors.ts";
import { compareKeys } from "../key_order.ts";
import { explainSqlite, findDamage } from "./checkpoint_file.ts";
import { cellSum, recordSum } from "./checkpoint_sums.ts";
import type { PackedCell, WriterAnswer, WriterJob, WriterResult } from "./checkpoint_writer.ts";

declare const self: DedicatedWorkerGlobalScope;

self.onmessage = ({ data: job }: MessageEvent<WriterJob>) => {
  let answer: WriterAnswer;
  try {
    answer = { id: job.id, ok: true, ...perform(job) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    answer = { id: job.id, ok: false, message, full: /disk is full|ENOSPC|full/i.test(message) };
  }
  self.postMessage(answer);
};

function perform(job: WriterJob): WriterResult {
  switch (job.kind) {
    case "write":
      return write(job);
    case "copy":
      return copy(job);
    case "check":
      return check(job);
  }
}

const byPlace = ([rowA, columnA]: PackedCell, [rowB, columnB]: PackedCell) =>
  compareKeys(rowA, rowB) || compareKeys(columnA, columnB);

function write(job: WriterJob & { kind: "write" }): WriterResult {
  const db = open(job.path);
  try {
    db.exec("BEGIN IMMEDIATE");
    const number = (name: string) => {
      return Number(db.prepare("SELECT value FROM meta WHERE name = ?").get(name)?.value ?? 0);
    };
    const totals = { count: number("count"), total: number("total") };
    const before = db.prepare("SELECT sum FROM cells WHERE row = ? AND col = ?");
    const put = db.prepare(
      "INSERT OR REPLACE INTO cells (row, col, ver, size, crc, val, blob, sum) " +
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    );
    const remove = db.prepare("DELETE FROM cells WHERE row = ? AND col = ?");
    // In the file's order, so that one page after the other changes.
    for (const cell of job.cells.toSorted(byPlace)) {
      const replaced = before.get(cell[0], cell[1]);
      if (replaced !== undefined) {
        totals.count -= 1;
        totals.total -= Number(replaced.sum);
      }
      if (isDeletion(cell)) {
        if (replaced !== undefined) remove.run(cell[0], cell[1]);
        continue;
      }
      const [row, column, version, size, crc, offset, blob] = cell;
      const value = offset === -1 ? null : job.bytes.subarray(offset, offset + size);
      const sum = cellSum({ row, column, version, size, crc, blob });
      put.run(row, column, version, size, crc, value, blob, sum);
      totals.count += 1;
      totals.total += sum;
    }
    const { lsn, meta } = job;
    const set = db.prepare("INSERT OR REPLACE INTO meta VALUES (?, ?)");
    set.run("lsn", String(lsn));
    set.run("meta", meta);
    set.run("count", String(totals.count));
    set.run("total", String(totals.total));
    set.run("sum", String(recordSum({ lsn, meta, totals })));
    db.exec("COMMIT");
    return { lsn, bytes: 0, problem: null };
  } finally {
    db.close();
  }
}

function copy(job: WriterJob & { kind: "copy" }): WriterResult {
  const db = open(job.path);
  try {
    db.prepare("VACUUM INTO ?").run(job.to);
  } catch (error) {
    // Half a copy would only take up space that may just be missing.
    removeIfThere(job.to);
    throw error;
  } finally {
    db.close();
  }
  const made = new DatabaseSync(job.to);
  try {
    const lsn = Number(made.prepare("SELECT value FROM meta WHERE name = 'lsn'").get()?.value ?? 0);
    return { lsn, bytes: Deno.statSync(job.to).size, problem: null };
  } finally {
    made.close();
  }
}

function check(job: WriterJob & { kind: "check" }): WriterResult {
  const db = open(job.path);
  try {
    return { lsn: 0, bytes: 0, problem: findDamage(db) };
  } catch (error) {
    const explained = explainSqlite(error, job.path);
    if (!(explained instanceof CorruptionError)) throw error;
    return { lsn: 0, bytes: 0, problem: explained.message };
  } finally {
    db.close();
  }
}

function open(path: string): DatabaseSync {
  const db = new DatabaseSync(path);
  db.exec("PRAGMA synchronous = FULL");
  db.exec("PRAGMA busy_timeout = 10000");
  return db;
}

function isDeletion(cell: PackedCell): cell is readonly [string, string] {
  return cell.length === 2;
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
