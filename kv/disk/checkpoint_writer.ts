/**
 * Writes checkpoints in a worker thread, one after the other: the only writing connection to any
 * group's file. The worker is started when it is needed and ended after a while without work, so
 * that an idle node does not pay for it.
 *
 * Cells go to it in pieces, between which others have their turn: packing and handing over ten thousand
 * at once would keep every request waiting for tens of milliseconds.
 */
import { setImmediate } from "node:timers";
import { isBlobRef, type StoredCell } from "../cell_store.ts";
import { diskFull } from "./disk.ts";

/**
 * Cells as they travel. A thread hands flat arrays and one string over in a hundredth of the time that
 * as many small objects take.
 */
export interface PackedCells {
  /** Row and column of one cell after the other, a NUL behind each, which is in no key. */
  readonly names: string;
  /** `CELL_NUMBERS` of each: version, size, crc, and where its value is. */
  readonly numbers: Float64Array;
  /** Names of files that values lie in. */
  readonly blobs: readonly string[];
  /** All other values. */
  readonly bytes: Uint8Array;
}

export const CELL_NUMBERS = 4;
/** Where a value is: from 0 on, its place in `bytes`; below BLOBS, a file, counted downwards. */
export const DELETED = -1, BLOBS = -2;

export type WriterJob =
  /** A piece of what the job `write` of the same id will write. It has no answer. */
  | ({ id: number; kind: "cells" } & PackedCells)
  | { id: number; kind: "drop" }
  | { id: number; kind: "write"; path: string; lsn: number; meta: string }
  | { id: number; kind: "copy"; path: string; to: string }
  | { id: number; kind: "check"; path: string };

export interface WriterResult {
  readonly lsn: number;
  readonly bytes: number;
  /** What a check found. */
  readonly problem: string | null;
}

/** A cell that is to be written, or deleted. */
export interface CellEntry {
  readonly row: string;
  readonly column: string;
  readonly value: StoredCell | null;
}

export type WriterAnswer =
  | ({ id: number; ok: true } & WriterResult)
  | { id: number; ok: false; message: string; full: boolean };

/** A worker takes some 12 MB; starting one takes 30 ms. */
const IDLE_MS = 10_000;
/** Some 0.3 ms of work. */
const PIECE_CELLS = 256;

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

  /** @param checkpoint its cells come in any order, each once, and do not change until it is written */
  async write(
    path: string,
    { lsn, meta, cells }: { lsn: number; meta: string; cells: Iterable<CellEntry> },
  ): Promise<void> {
    const id = ++this.#lastId, waiting = this.#expect(id), worker = this.#worker!;
    // It may fail before anybody looks.
    waiting.catch(() => {});
    try {
      for (const piece of inPieces(cells, PIECE_CELLS)) {
        const packed = packCells(piece);
        const transfer = [packed.bytes.buffer, packed.numbers.buffer] as ArrayBuffer[];
        worker.postMessage({ id, kind: "cells", ...packed } satisfies WriterJob, transfer);
        await nextTurn();
        if (!this.#waiting.has(id)) break;
      }
      worker.postMessage({ id, kind: "write", path, lsn, meta } satisfies WriterJob);
    } catch (error) {
      worker.postMessage({ id, kind: "drop" } satisfies WriterJob);
      this.#waiting.get(id)?.reject(error);
      this.#settled(id);
    }
    await waiting;
  }

  /** Copies the file as it is after all checkpoints asked for before. */
  copy(path: string, to: string): Promise<{ lsn: number; bytes: number }> {
    return this.#post({ id: ++this.#lastId, kind: "copy", path, to });
  }

  /** What is wrong with the file, or null. */
  async check(path: string): Promise<string | null> {
    return (await this.#post({ id: ++this.#lastId, kind: "check", path })).problem;
  }

  /** Waits for what is under way. */
  async close(): Promise<void> {
    await Promise.allSettled(Array.from(this.#waiting.values(), (waiting) => waiting.promise));
    this.#end();
  }

  #post(job: WriterJob): Promise<WriterResult> {
    const waiting = this.#expect(job.id);
    this.#worker!.postMessage(job);
    return waiting;
  }

  /** Makes sure that a worker is there, and stays until it has answered. */
  #expect(id: number): Promise<WriterResult> {
    clearTimeout(this.#idleTimer);
    const waiting = Promise.withResolvers<WriterResult>();
    this.#waiting.set(id, waiting);
    this.#worker ??= this.#start();
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
    if (answer.ok) waiting?.resolve(answer);
    else waiting?.reject(answer.full ? diskFull("a checkpoint") : new Error(answer.message));
    this.#settled(answer.id);
  }

  #settled(id: number): void {
    this.#waiting.delete(id);
    if (this.#waiting.size > 0) return;
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => this.#end(), this.#idleMs);
    Deno.unrefTimer(Number(this.#idleTimer));
  }

  #end(): void {
    clearTimeout(this.#idleTimer);
    this.#worker?.terminate();
    this.#worker = null;
  }
}

/** Lets everything that waits have its turn. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The same things in lists of `count`, the last of which may be shorter. */
export function* inPieces<T>(all: Iterable<T>, count: number): Iterable<readonly T[]> {
  let piece: T[] = [];
  for (const each of all) {
    piece.push(each);
    if (piece.length < count) continue;
    yield piece;
    piece = [];
  }
  if (piece.length > 0) yield piece;
}

function packCells(entries: readonly CellEntry[]): PackedCells {
  const numbers = new Float64Array(CELL_NUMBERS * entries.length), blobs: string[] = [];
  let names = "", length = 0, at = 0;
  for (const { row, column, value: cell } of entries) {
    names += `${row}\0${column}\0`;
    let place = DELETED;
    if (cell !== null) {
      numbers[at] = cell.version;
      numbers[at + 1] = cell.size;
      numbers[at + 2] = cell.crc;
      if (isBlobRef(cell.value)) {
        place = BLOBS - blobs.length;
        blobs.push(cell.value.blob);
      } else {
        place = length;
        length += cell.size;
      }
    }
    numbers[at + 3] = place;
    at += CELL_NUMBERS;
  }
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const { value: cell } of entries) {
    if (cell === null || isBlobRef(cell.value)) continue;
    bytes.set(cell.value, offset);
    offset += cell.size;
  }
  return { names, numbers, blobs, bytes };
}
