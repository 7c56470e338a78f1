/**
 * An ordered map in memory from (row, column) to anything, in the order of key_order.ts.
 *
 * A list of sorted chunks of at most CHUNK_ENTRIES entries: two binary searches find a cell's place,
 * and an insertion moves at most one chunk's worth of entries. That is a B+tree of two levels, which
 * is enough for the few hundred thousand cells that a node holds in memory. Beside it lies a hash
 * index, because most questions are about one cell that is there: they compare no keys at all.
 *
 * New cells are put into their places only when somebody asks for a range, all of them at once: what is
 * written and never scanned before the next checkpoint is never sorted.
 *
 * An iterator from `range` is valid only until the next `set` of a new cell, `delete` or `clear`.
 */
import type { CellPosition, CellRange } from "./cell_store.ts";
import { compareFrom, compareKeys, LAST_KEY, sharedLength } from "./key_order.ts";

const CHUNK_ENTRIES = 256;
/** So that whoever asks for a range does not wait for long: sorting these takes some 10 ms. */
const UNSORTED_MAX = 16_384;
/** Above this share of all cells, going through them all is quicker than placing one by one. */
const MERGE_SHARE = 1 / 16;

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

/** The same range with `from` in the row that it is held to, if it is to one; null: it is empty. */
export function clampToRow(range: CellRange): CellRange | null {
  const { within: row, from, reverse = false } = range;
  if (row === undefined || from?.row === row) return range;
  const ahead = from === undefined ? 0 : compareKeys(from.row, row);
  if (reverse ? ahead < 0 : ahead > 0) return null;
  return { ...range, from: { row, column: reverse ? LAST_KEY : "" }, inclusive: true };
}

export class SortedCells<T> {
  /** Never holds an empty chunk. */
  #chunks: Entry<T>[][] = [];
  /** In none of the chunks yet. */
  #unsorted: Entry<T>[] = [];
  /** By row: its only cell, or its cells by column. */
  readonly #rows = new Map<string, Entry<T> | Map<string, Entry<T>>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(row: string, column: string): T | undefined {
    return this.#entry(row, column)?.value;
  }

  /** Returns what was there before. */
  set(row: string, column: string, value: T): T | undefined {
    const entry = this.#entry(row, column);
    if (entry === undefined) {
      this.#add({ row, column, value });
      return undefined;
    }
    const before = entry.value;
    entry.value = value;
    return before;
  }

  /** Whether there was such a cell. */
  delete(row: string, column: string): boolean {
    if (this.#entry(row, column) === undefined) return false;
    this.#sort();
    const chunkIndex = this.#chunkIndex(row, column);
    const chunk = this.#chunks[chunkIndex]!;
    chunk.splice(lowerBound(chunk, row, column), 1);
    this.#size--;
    this.#unindex(row, column);
    if (chunk.length === 0) this.#chunks.splice(chunkIndex, 1);
    else this.#maybeMerge(chunkIndex);
    return true;
  }

  /** All of them, in no order. */
  *entries(): Iterable<CellEntry<T>> {
    for (const found of this.#rows.values()) {
      if (found instanceof Map) yield* found.values();
      else yield found;
    }
  }

  *range(range: CellRange): Iterable<CellEntry<T>> {
    const { within } = range, clamped = clampToRow(range);
    if (clamped === null || (within !== undefined && !this.#rows.has(within))) return;
    this.#sort();
    const { from, inclusive = true, reverse = false } = clamped;
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
      for (; index >= 0 && index < chunk.length; index += step) {
        const entry = chunk[index]!;
        if (within !== undefined && entry.row !== within) return;
        yield entry;
      }
      chunkIndex += step;
      index = reverse ? (this.#chunks[chunkIndex]?.length ?? 0) - 1 : 0;
    }
  }

  clear(): void {
    this.#chunks = [];
    this.#unsorted = [];
    this.#rows.clear();
    this.#size = 0;
  }

  #entry(row: string, column: string): Entry<T> | undefined {
    const found = this.#rows.get(row);
    if (found === undefined) return undefined;
    if (found instanceof Map) return found.get(column);
    return found.column === column ? found : undefined;
  }

  #add(entry: Entry<T>): void {
    this.#index(entry);
    this.#size++;
    this.#unsorted.push(entry);
    if (this.#unsorted.length >= UNSORTED_MAX) this.#sort();
  }

  #sort(): void {
    const unsorted = this.#unsorted;
    if (unsorted.length === 0) return;
    this.#unsorted = [];
    if (unsorted.length > 1) unsorted.sort(comparePositions);
    if (unsorted.length > CHUNK_ENTRIES && unsorted.length > this.#size * MERGE_SHARE) {
      this.#chunks = chunksOf(merged(this.#chunks.flat(), unsorted));
    } else for (const entry of unsorted) this.#place(entry);
  }

  #place(entry: Entry<T>): void {
    const { row, column } = entry;
    const chunkIndex = this.#chunkIndex(row, column);
    const chunk = this.#chunks[chunkIndex];
    if (chunk === undefined) {
      this.#chunks.push([entry]);
      return;
    }
    const index = lowerBound(chunk, row, column);
    chunk.splice(index, 0, entry);
    if (chunk.length > CHUNK_ENTRIES) {
      // Keys that arrive in ascending order would leave every chunk half empty after a split in
      // the middle, so a chunk that grew at its end gives away only its newest entry.
      const grewAtEnd = index === chunk.length - 1 && chunkIndex === this.#chunks.length - 1;
      const tail = chunk.splice(grewAtEnd ? index : chunk.length >> 1);
      this.#chunks.splice(chunkIndex + 1, 0, tail);
    }
  }

  #index(entry: Entry<T>): void {
    const found = this.#rows.get(entry.row);
    if (found === undefined) this.#rows.set(entry.row, entry);
    else if (found instanceof Map) found.set(entry.column, entry);
    else this.#rows.set(entry.row, new Map([[found.column, found], [entry.column, entry]]));
  }

  #unindex(row: string, column: string): void {
    const found = this.#rows.get(row);
    if (found instanceof Map && found.size > 1) found.delete(column);
    else this.#rows.delete(row);
  }

  /** The last chunk whose first entry is at or before the position; 0 when it is before them all. */
  #chunkIndex(row: string, column: string): number {
    let low = 0, high = this.#chunks.length - 1;
    // Whatever lies between two rows shares the beginning that both share with the row looked for.
    let sharedLow = 0, sharedHigh = 0;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      const first = this.#chunks[middle]![0]!;
      const shared = sharedLength(first.row, row, Math.min(sharedLow, sharedHigh));
      const order = compareFrom(first.row, row, shared) || compareKeys(first.column, column);
      if (order <= 0) {
        low = middle;
        sharedLow = shared;
      } else {
        high = middle - 1;
        sharedHigh = shared;
      }
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

/** Of two sorted lists that share no position. */
function merged<T>(a: readonly Entry<T>[], b: readonly Entry<T>[]): Entry<T>[] {
  const all: Entry<T>[] = [];
  let i = 0, j = 0;
  while (i < a.length && j < b.length) {
    all.push(comparePositions(a[i]!, b[j]!) < 0 ? a[i++]! : b[j++]!);
  }
  while (i < a.length) all.push(a[i++]!);
  while (j < b.length) all.push(b[j++]!);
  return all;
}

/** Half full, as after a split. */
function chunksOf<T>(entries: readonly Entry<T>[]): Entry<T>[][] {
  const chunks: Entry<T>[][] = [];
  for (let at = 0; at < entries.length; at += CHUNK_ENTRIES / 2) {
    chunks.push(entries.slice(at, at + CHUNK_ENTRIES / 2));
  }
  return chunks;
}

/** Index of the first entry at or behind the position; the length when there is none. */
function lowerBound<T>(chunk: readonly Entry<T>[], row: string, column: string): number {
  let low = 0, high = chunk.length, sharedLow = 0, sharedHigh = 0;
  while (low < high) {
    const middle = (low + high) >> 1;
    const entry = chunk[middle]!;
    const shared = sharedLength(entry.row, row, Math.min(sharedLow, sharedHigh));
    const order = compareFrom(entry.row, row, shared) || compareKeys(entry.column, column);
    if (order < 0) {
      low = middle + 1;
      sharedLow = shared;
    } else {
      high = middle;
      sharedHigh = shared;
    }
  }
  return low;
}
