/**
 * Where a replica keeps the applied state of one group: cells sorted by row, then column.
 *
 * Everything here is synchronous, because applying a log entry must be one uninterrupted step. The
 * real one (disk/sqlite_cell_store.ts) overlays cells that are not checkpointed yet on a SQLite
 * file; `MemoryCellStore` (memory_cell_store.ts) keeps them all in memory for tests and simulation.
 */
import type { Version } from "../proto/ids.ts";

/** A value that lives in a file of its own (disk/blob_store.ts). Never changes under its id. */
export interface BlobRef {
  readonly blob: string;
}

export interface StoredCell {
  readonly row: string;
  readonly column: string;
  readonly version: Version;
  /** Bytes of the value. */
  readonly size: number;
  /** CRC-32 (IEEE, as node:zlib's) of the value's bytes, taken where the value first came in. */
  readonly crc: number;
  readonly value: Uint8Array | BlobRef;
}

export interface CellPosition {
  readonly row: string;
  readonly column: string;
}

export interface CellRange {
  /** Where to begin. Absent: at the first (or, in reverse, last) cell. */
  readonly from?: CellPosition;
  /** Whether the cell at `from` itself is wanted. Default true. */
  readonly inclusive?: boolean;
  readonly reverse?: boolean;
}

export interface CellStore {
  get(row: string, column: string): StoredCell | undefined;
  /**
   * Cells in order from a position on. Lazy: take what you need and stop. Valid only until the next
   * `put` or `delete`, so never keep an iterator across an `await`.
   */
  range(range: CellRange): Iterable<StoredCell>;
  put(cell: StoredCell): void;
  delete(row: string, column: string): void;
}

export const isBlobRef = (value: Uint8Array | BlobRef): value is BlobRef =>
  !(value instanceof Uint8Array);
