/// <reference lib="deno.worker" />
/** The worker's side of checkpoint_writer.ts: one transaction a checkpoint, one job at a time. */
import { DatabaseSync } from "node:sqlite";
import { CorruptionError } from "../errors.ts";
import { compareKeys } from "../key_order.ts";
import { explainSqlite, findDamage } from "./checkpoint_file.ts";
import { cellSum, recordSum } from "./checkpoint_sums.ts";
import {
  BLOBS,
  CELL_NUMBERS,
  DELETED,
  type PackedCells,
  type WriterAnswer,
  type WriterJob,
  type WriterResult,
} from "./checkpoint_writer.ts";

declare const self: DedicatedWorkerGlobalScope;

/** What came of checkpoints that are still being handed over, by job. */
const pieces = new Map<number, PackedCells[]>();

self.onmessage = ({ data: job }: MessageEvent<WriterJob>) => {
  if (job.kind === "cells") {
    const before = pieces.get(job.id);
    if (before === undefined) pieces.set(job.id, [job]);
    else before.push(job);
    return;
  }
  if (job.kind === "drop") {
    pieces.delete(job.id);
    return;
  }
  let answer: WriterAnswer;
  try {
    answer = { id: job.id, ok: true, ...perform(job) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    answer = { id: job.id, ok: false, message, full: /disk is full|ENOSPC|full/i.test(message) };
  }
  self.postMessage(answer);
};

function perform(job: Exclude<WriterJob, { kind: "cells" | "drop" }>): WriterResult {
  switch (job.kind) {
    case "write":
      return write(job);
    case "copy":
      return copy(job);
    case "check":
      return check(job);
  }
}

/** A cell out of its piece: `at` is where its numbers begin. */
interface PlacedCell {
  readonly row: string;
  readonly column: string;
  readonly piece: PackedCells;
  readonly at: number;
}

/** In the file's order, so that one page after the other changes. */
function takeCells(id: number): PlacedCell[] {
  const cells: PlacedCell[] = [];
  for (const piece of pieces.get(id) ?? []) {
    const names = piece.names.split("\0");
    for (let at = 0; at < piece.numbers.length; at += CELL_NUMBERS) {
      const name = 2 * at / CELL_NUMBERS;
      cells.push({ row: names[name]!, column: names[name + 1]!, piece, at });
    }
  }
  pieces.delete(id);
  return cells.sort((a, b) => compareKeys(a.row, b.row) || compareKeys(a.column, b.column));
}

/** Null: it is deleted. */
function contentOf({ piece: { numbers, blobs, bytes }, at }: PlacedCell) {
  const place = numbers[at + 3]!;
  if (place === DELETED) return null;
  const version = numbers[at]!, size = numbers[at + 1]!, crc = numbers[at + 2]!;
  return place >= 0
    ? { version, size, crc, value: bytes.subarray(place, place + size), blob: null }
    : { version, size, crc, value: null, blob: blobs[BLOBS - place]! };
}

function write(job: WriterJob & { kind: "write" }): WriterResult {
  const cells = takeCells(job.id);
  const db = open(job.path);
  try {
    db.exec("BEGIN IMMEDIATE");
    const number = (name: string) => {
      return Number(db.prepare("SELECT value FROM meta WHERE name = ?").get(name)?.value ?? 0);
    };
    const totals = { count: number("count"), total: number("total") };
    const before = db.prepare("SELECT sum FROM cells WHERE row = ? AND col = ?");
    const insert = db.prepare(
      "INSERT INTO cells (ver, size, crc, val, blob, sum, row, col) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    );
    // To replace a cell instead would take it out and put it in again, for which SQLite rearranges the
    // pages around it: a fifth more to write.
    const update = db.prepare(
      "UPDATE cells SET ver = ?, size = ?, crc = ?, val = ?, blob = ?, sum = ? " +
        "WHERE row = ? AND col = ?",
    );
    const remove = db.prepare("DELETE FROM cells WHERE row = ? AND col = ?");
    for (const cell of cells) {
      const { row, column } = cell, replaced = before.get(row, column);
      if (replaced !== undefined) {
        totals.count -= 1;
        totals.total -= Number(replaced.sum);
      }
      const content = contentOf(cell);
      if (content === null) {
        if (replaced !== undefined) remove.run(row, column);
        continue;
      }
      const { version, size, crc, value, blob } = content;
      const sum = cellSum({ row, column, version, size, crc, blob });
      const put = replaced === undefined ? insert : update;
      put.run(version, size, crc, value, blob, sum, row, column);
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

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
