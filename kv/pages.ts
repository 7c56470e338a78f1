/**
 * Reading pages of a row or a key range from a cell store. The same code answers at a backend and
 * in `MemoryKv`. A page ends at its limit of cells or at 1 MiB of values, whichever comes first.
 */
import { type CellRange, type CellStore, isBlobRef, type StoredCell } from "./cell_store.ts";
import { isInternal } from "./internal_columns.ts";
import { compareKeys, prefixEnd } from "./key_order.ts";
import { PAGE_CELLS_MAX, type RowPageOptions, type ScanOptions } from "./kv.ts";
import { KvError } from "./errors.ts";
import type { HiddenCell } from "./snapshots.ts";

const PAGE_BYTES_MAX = 1024 * 1024;
const PAGE_CELLS_DEFAULT = 100;
const HIDDEN_MAX = 4096;

export interface StoredPage<Next> {
  readonly cells: readonly StoredCell[];
  readonly next: Next | null;
}

/** One page of one row, forwards or backwards. */
export function readRowPage(
  store: CellStore,
  row: string,
  options: RowPageOptions,
): StoredPage<string> {
  const { prefix = "", start, after, reverse = false, keysOnly = false } = options;
  const from = rowPageFrom(row, { prefix, start, after, reverse });
  const page = new PageBuilder(options.limit, keysOnly);
  const { expected } = page;
  for (const cell of store.range({ ...from, within: row, reverse, keysOnly, expected })) {
    if (isInternal(cell.column)) continue;
    if (!cell.column.startsWith(prefix)) {
      // Backwards we begin at the first column behind the prefix, which may exist.
      if (reverse && compareKeys(cell.column, prefix) > 0) continue;
      break;
    }
    if (!page.add(cell)) return { cells: page.cells, next: page.last!.column };
  }
  return { cells: page.cells, next: null };
}

function rowPageFrom(
  row: string,
  options: {
    prefix: string;
    start: string | undefined;
    after: string | undefined;
    reverse: boolean;
  },
) {
  const { prefix, start, after, reverse } = options;
  if (after !== undefined) return { from: { row, column: after }, inclusive: false };
  if (!reverse) {
    const column = start !== undefined && compareKeys(start, prefix) > 0 ? start : prefix;
    return { from: { row, column } };
  }
  if (start !== undefined) return { from: { row, column: start } };
  const end = prefix === "" ? null : prefixEnd(prefix);
  return end === null ? {} : { from: { row, column: end }, inclusive: false };
}

/** Where a page reads: a store as it is, or a snapshot of one with cells that are hidden in it. */
export interface ScanSource {
  range(range: Omit<CellRange, "reverse">): Iterable<StoredCell | HiddenCell>;
}

/** One page of a key range, cut to `[startKey, endKey)` of the tablet or group that is asked. */
export function readScanPage(
  source: ScanSource,
  options: Omit<ScanOptions, "snapshot">,
  bounds: { startKey: string; endKey: string | null },
): StoredPage<{ row: string; column: string }> {
  const { prefix = "", after, keysOnly = false } = options;
  let startRow = options.startRow ?? "";
  if (compareKeys(prefix, startRow) > 0) startRow = prefix;
  if (compareKeys(bounds.startKey, startRow) > 0) startRow = bounds.startKey;
  const page = new PageBuilder(options.limit, keysOnly);
  const resume = after !== undefined && compareKeys(after.row, startRow) >= 0;
  const range = resume
    ? { from: after, inclusive: false }
    : { from: { row: startRow, column: "" } };
  const until = earliest(options.endRow, bounds.endKey, prefix === "" ? null : prefixEnd(prefix));
  const { expected } = page;
  let hiddenCount = 0;
  for (const cell of source.range({ ...range, ...until, keysOnly, expected })) {
    if (prefix !== "" && !cell.row.startsWith(prefix)) break;
    if (options.endRow != null && compareKeys(cell.row, options.endRow) >= 0) break;
    if (bounds.endKey !== null && compareKeys(cell.row, bounds.endKey) >= 0) break;
    if ("hidden" in cell) {
      // One page is read in one turn of the event loop, so there is an end to what it passes over.
      if (++hiddenCount < HIDDEN_MAX) continue;
      return { cells: page.cells, next: { row: cell.row, column: cell.column } };
    }
    if (isInternal(cell.column)) continue;
    if (!page.add(cell)) {
      return { cells: page.cells, next: { row: page.last!.row, column: page.last!.column } };
    }
  }
  return { cells: page.cells, next: null };
}

/** The first of the rows at which a scan ends, if it ends at one. */
function earliest(...ends: readonly (string | null | undefined)[]): { until?: string } {
  let until: string | null = null;
  for (const end of ends) {
    if (end != null && (until === null || compareKeys(end, until) < 0)) until = end;
  }
  return until === null ? {} : { until };
}

class PageBuilder {
  readonly cells: StoredCell[] = [];
  readonly #limit: number;
  #bytes = 0;

  constructor(limit: number | undefined, readonly keysOnly: boolean) {
    this.#limit = limit ?? PAGE_CELLS_DEFAULT;
    if (!Number.isInteger(this.#limit) || this.#limit < 1 || this.#limit > PAGE_CELLS_MAX) {
      throw new KvError(
        "invalid_request",
        `A page has 1 to ${PAGE_CELLS_MAX} cells, not ${options(limit)}`,
      );
    }
  }

  /** How many cells it takes to fill the page and to see that there are more. */
  get expected(): number {
    return this.#limit + 1;
  }

  get last(): StoredCell | undefined {
    return this.cells.at(-1);
  }

  /** False when the page is full, in which case the cell belongs to the next one. */
  add(cell: StoredCell): boolean {
    const bytes = cell.column.length + cell.row.length +
      (this.keysOnly || isBlobRef(cell.value) ? 0 : cell.size);
    const full = this.cells.length >= this.#limit || this.#bytes + bytes > PAGE_BYTES_MAX;
    if (full && this.cells.length > 0) return false;
    this.cells.push(cell);
    this.#bytes += bytes;
    return true;
  }
}

const options = (limit: number | undefined) => String(limit);
