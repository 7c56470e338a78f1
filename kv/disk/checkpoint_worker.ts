/// <reference lib="deno.worker" />
/** The worker's side of checkpoint_writer.ts: one transaction a checkpoint, one job at a time. */
import { DatabaseSync } from "node:sqlite";
import type { PackedCell, WriterAnswer, WriterJob } from "./checkpoint_writer.ts";

declare const self: DedicatedWorkerGlobalScope;

self.onmessage = ({ data: job }: MessageEvent<WriterJob>) => {
  let answer: WriterAnswer;
  try {
    answer = { id: job.id, ok: true, ...(job.kind === "write" ? write(job) : copy(job)) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    answer = { id: job.id, ok: false, message, full: /disk is full|ENOSPC|full/i.test(message) };
  }
  self.postMessage(answer);
};

function write(job: WriterJob & { kind: "write" }): { lsn: number; bytes: number } {
  const db = open(job.path);
  try {
    db.exec("BEGIN IMMEDIATE");
    const put = db.prepare("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?)");
    const remove = db.prepare("DELETE FROM cells WHERE row = ? AND col = ?");
    for (const cell of job.cells) {
      if (isDeletion(cell)) {
        remove.run(cell[0], cell[1]);
        continue;
      }
      const [row, column, version, size, crc, offset, blob] = cell;
      const value = offset === -1 ? null : job.bytes.subarray(offset, offset + size);
      put.run(row, column, version, size, crc, value, blob);
    }
    const meta = db.prepare("INSERT OR REPLACE INTO meta VALUES (?, ?)");
    meta.run("lsn", String(job.lsn));
    meta.run("meta", job.meta);
    db.exec("COMMIT");
    return { lsn: job.lsn, bytes: 0 };
  } finally {
    db.close();
  }
}

function copy(job: WriterJob & { kind: "copy" }): { lsn: number; bytes: number } {
  const db = open(job.path);
  try {
    db.prepare("VACUUM INTO ?").run(job.to);
  } finally {
    db.close();
  }
  const made = new DatabaseSync(job.to);
  try {
    const lsn = Number(made.prepare("SELECT value FROM meta WHERE name = 'lsn'").get()?.value ?? 0);
    return { lsn, bytes: Deno.statSync(job.to).size };
  } finally {
    made.close();
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
