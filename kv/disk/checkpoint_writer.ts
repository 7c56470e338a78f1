/**
 * Writes checkpoints in a worker thread, one after the other: the only writing connection to any
 * group's file. The worker is started when it is needed and ended after a while without work, so
 * that an idle node does not pay for it.
 */
import type { StoredCell } from "../cell_store.ts";
import { diskFull } from "./disk.ts";

/** Cells as they travel: positions into one array of bytes instead of an array for each value. */
export interface PackedCells {
  readonly cells: readonly PackedCell[];
  readonly bytes: Uint8Array;
}

/** row, column, version, size, crc, offset of the value or -1, name of the file or null; or deleted. */
export type PackedCell =
  | readonly [string, string, number, number, number, number, string | null]
  | readonly [string, string];

export type WriterJob =
  | ({ id: number; kind: "write"; path: string; lsn: number; meta: string } & PackedCells)
  | { id: number; kind: "copy"; path: string; to: string }
  | { id: number; kind: "check"; path: string };

export interface WriterResult {
  readonly lsn: number;
  readonly bytes: number;
  /** What a check found. */
  readonly problem: string | null;
}

export type WriterAnswer =
  | ({ id: number; ok: true } & WriterResult)
  | { id: number; ok: false; message: string; full: boolean };

/** A worker takes some 12 MB; starting one takes 30 ms. */
const IDLE_MS = 10_000;

export function startCheckpointWorker(): Worker {
  return new Worker(new URL("./checkpoint_worker.ts", import.meta.url), { type: "module" });
}

export class CheckpointWriter {
  readonly #idleMs: number;
  #worker: Worker | null = null;
  #lastId = 0;
  #idleTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #waiting = new Map<number, PromiseWithResolvers<WriterResult>>();

  constructor({ idleMs = IDLE_MS }: { idleMs?: number } = {}) {
    this.#idleMs = idleMs;
  }

  /** Whether the worker is there now. */
  get isRunning(): boolean {
    return this.#worker !== null;
  }

  async write(
    path: string,
    checkpoint: { lsn: number; meta: string } & PackedCells,
  ): Promise<void> {
    const job = { id: ++this.#lastId, kind: "write" as const, path, ...checkpoint };
    await this.#post(job, [checkpoint.bytes.buffer as ArrayBuffer]);
  }

  /** Copies the file as it is after all checkpoints asked for before. */
  copy(path: string, to: string): Promise<{ lsn: number; bytes: number }> {
    return this.#post({ id: ++this.#lastId, kind: "copy", path, to }, []);
  }

  /** What is wrong with the file, or null. */
  async check(path: string): Promise<string | null> {
    return (await this.#post({ id: ++this.#lastId, kind: "check", path }, [])).problem;
  }

  /** Waits for what is under way. */
  async close(): Promise<void> {
    await Promise.allSettled(Array.from(this.#waiting.values(), (waiting) => waiting.promise));
    this.#end();
  }

  #post(job: WriterJob, transfer: Transferable[]): Promise<WriterResult> {
    clearTimeout(this.#idleTimer);
    const waiting = Promise.withResolvers<WriterResult>();
    this.#waiting.set(job.id, waiting);
    this.#worker ??= this.#start();
    this.#worker.postMessage(job, transfer);
    return waiting.promise;
  }

  #start(): Worker {
    const worker = startCheckpointWorker();
    worker.onmessage = ({ data }: MessageEvent<WriterAnswer>) => this.#answer(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#worker = null;
      const error = new Error(`The checkpoint worker failed: ${event.message}`);
      for (const waiting of this.#waiting.values()) waiting.reject(error);
      this.#waiting.clear();
    };
    return worker;
  }

  #answer(answer: WriterAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (answer.ok) waiting?.resolve(answer);
    else waiting?.reject(answer.full ? diskFull("a checkpoint") : new Error(answer.message));
    if (this.#waiting.size > 0) return;
    this.#idleTimer = setTimeout(() => this.#end(), this.#idleMs);
    Deno.unrefTimer(Number(this.#idleTimer));
  }

  #end(): void {
    clearTimeout(this.#idleTimer);
    this.#worker?.terminate();
    this.#worker = null;
  }
}

export function packCells(
  entries: Iterable<{ row: string; column: string; value: StoredCell | null }>,
): PackedCells {
  const cells: PackedCell[] = [], values: Uint8Array[] = [];
  let length = 0;
  for (const { row, column, value: cell } of entries) {
    if (cell === null) {
      cells.push([row, column]);
    } else if (cell.value instanceof Uint8Array) {
      cells.push([row, column, cell.version, cell.size, cell.crc, length, null]);
      values.push(cell.value);
      length += cell.size;
    } else {
      cells.push([row, column, cell.version, cell.size, cell.crc, -1, cell.value.blob]);
    }
  }
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const value of values) {
    bytes.set(value, offset);
    offset += value.length;
  }
  return { cells, bytes };
}
