/**
 * An ordered map in memory from (row, column) to anything, in the order of key_order.ts.
 *
 * A list of sorted chunks of at most CHUNK_ENTRIES entries: two binary searches find a cell, and an
 * insertion moves at most one chunk's worth of entries. That is a B+tree of two levels, which is
 * enough for the few hundred thousand cells that a node holds in memory.
 *
 * An iterator from `range` is valid only until the next `set` of a new cell, `delete` or `clear`.
 */
import type { CellPosition, CellRange } from "./cell_store.ts";
import { compareKeys } from "./key_order.ts";

const CHUNK_ENTRIES = 256;

export interface CellEntry<T> {
  readonly row: string;
  readonly column: string;
  readonly value: T;
}

interface Entry<T> {
  readonly row: string;
  readonly column: string;
  value: T;
}

/** Negative when a comes before b, 0 when they are the same position, positive otherwise. */
export function comparePositions(a: CellPosition, b: CellPosition): number {
  return compareKeys(a.row, b.row) || compareKeys(a.column, b.column);
}

export class SortedCells<T> {
  /** Never holds an empty chunk. */
  readonly #chunks: Entry<T>[][] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(row: string, column: string): T | undefined {
    const chunk = this.#chunks[this.#chunkIndex(row, column)];
    if (chunk === undefined) return undefined;
    const entry = chunk[lowerBound(chunk, row, column)];
    return entry?.row === row && entry.column === column ? entry.value : undefined;
  }

  set(row: string, column: string, value: T): void {
    const chunkIndex = this.#chunkIndex(row, column);
    const chunk = this.#chunks[chunkIndex];
    if (chunk === undefined) {
      this.#chunks.push([{ row, column, value }]);
      this.#size++;
      return;
    }
    const index = lowerBound(chunk, row, column);
    const entry = chunk[index];
    if (entry?.row === row && entry.column === column) {
      entry.value = value;
      return;
    }
    chunk.splice(index, 0, { row, column, value });
    this.#size++;
    if (chunk.length > CHUNK_ENTRIES) {
      // Keys that arrive in ascending order would leave every chunk half empty after a split in
      // the middle, so a chunk that grew at its end gives away only its newest entry.
      const grewAtEnd = index === chunk.length - 1 && chunkIndex === this.#chunks.length - 1;
      const tail = chunk.splice(grewAtEnd ? index : chunk.length >> 1);
      this.#chunks.splice(chunkIndex + 1, 0, tail);
    }
  }

  /** Whether there was such a cell. */
  delete(row: string, column: string): boolean {
    const chunkIndex = this.#chunkIndex(row, column);
    const chunk = this.#chunks[chunkIndex];
    if (chunk === undefined) return false;
    const index = lowerBound(chunk, row, column);
    const entry = chunk[index];
    if (entry?.row !== row || entry.column !== column) return false;
    chunk.splice(index, 1);
    this.#size--;
    if (chunk.length === 0) this.#chunks.splice(chunkIndex, 1);
    else this.#maybeMerge(chunkIndex);
    return true;
  }

  *range({ from, inclusive = true, reverse = false }: CellRange): Iterable<CellEntry<T>> {
    let chunkIndex = reverse ? this.#chunks.length - 1 : 0;
    let index = reverse ? (this.#chunks[chunkIndex]?.length ?? 0) - 1 : 0;
    if (from !== undefined) {
      chunkIndex = this.#chunkIndex(from.row, from.column);
      const chunk = this.#chunks[chunkIndex];
      if (chunk === undefined) return;
      // The first entry at or behind `from`; it may be one beyond the chunk's end.
      index = lowerBound(chunk, from.row, from.column);
      const entry = chunk[index];
      const found = entry?.row === from.row && entry.column === from.column;
      if (!reverse && found && !inclusive) index++;
      if (reverse && !(found && inclusive)) index--;
    }
    const step = reverse ? -1 : 1;
    while (true) {
      const chunk = this.#chunks[chunkIndex];
      if (chunk === undefined) return;
      for (; index >= 0 && index < chunk.length; index += step) yield chunk[index]!;
      chunkIndex += step;
      index = reverse ? (this.#chunks[chunkIndex]?.length ?? 0) - 1 : 0;
    }
  }

  clear(): void {
    this.#chunks.length = 0;
    this.#size = 0;
  }

  /** The last chunk whose first entry is at or before the position; 0 when it is before them all. */
  #chunkIndex(row: string, column: string): number {
    let low = 0, high = this.#chunks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      const first = this.#chunks[middle]![0]!;
      const order = compareKeys(first.row, row) || compareKeys(first.column, column);
      if (order <= 0) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #maybeMerge(chunkIndex: number): void {
    const chunk = this.#chunks[chunkIndex]!;
    const next = this.#chunks[chunkIndex + 1];
    if (next === undefined || chunk.length + next.length > CHUNK_ENTRIES / 2) return;
    chunk.push(...next);
    this.#chunks.splice(chunkIndex + 1, 1);
  }
}

/** Index of the first entry at or behind the position; the length when there is none. */
function lowerBound<T>(chunk: readonly Entry<T>[], row: string, column: string): number {
  let low = 0, high = chunk.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const entry = chunk[middle]!;
    const order = compareKeys(entry.row, row) || compareKeys(entry.column, column);
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
