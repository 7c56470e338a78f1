/**
 * Where a replica keeps the applied state of one group: cells sorted by row, then column.
 *
 * Everything here is synchronous, because applying a log entry must be one uninterrupted step. The
 * real one (disk/sqlite_cell_store.ts) overlays cells that are not checkpointed yet on a SQLite
 * file; `MemoryCellStore` (memory_cell_store.ts) keeps them all in memory for tests and simulation.
 */
import type { Lsn, Version } from "../proto/ids.ts";

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
  /** Only cells of this row; what lies around it is not even read. */
  readonly within?: string;
  /** Values are of no interest: those that would have to be read from a disk come as empty ones. */
  readonly keysOnly?: boolean;
  /** Cells of this row and behind it are of no interest either: a store need not look at them. */
  readonly until?: string;
  /** So many cells will be taken at most, as a rule: a store may read them at once. */
  readonly expected?: number;
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

/** A cell store that outlives the process, as of its last checkpoint. */
export interface CheckpointedStore extends CellStore {
  /** The Lsn as of which the durable state is; 0 when there was no checkpoint yet. */
  readonly checkpointLsn: Lsn;
  /** What was given with the last checkpoint. */
  readonly meta: Record<string, unknown>;
  /** Memory that only a checkpoint can free. */
  readonly dirtyBytes: number;
  /** Makes all cells durable, as the state as of `lsn`, with `meta`: all of it or nothing. */
  checkpoint(options: { lsn: Lsn; meta: Record<string, unknown> }): Promise<void>;
  /** A consistent copy as of `lsn`, for another replica. */
  exportSnapshot(): Promise<
    { lsn: Lsn; path: string; bytes: number; remove: () => Promise<void> }
  >;
  /** The files of large values that the state mentions now, and some that it lately did. */
  blobsReferenced(): Iterable<string>;
  /** Whether a file is one of them. */
  mentionsBlob(blob: string): boolean;
  /** Reads what is durable anew, bit by bit, so that damage is found before somebody needs it. */
  verify?(): Iterable<VerifiedCell>;
  /** Checks the durable state as a whole, off this thread. Throws CorruptionError. */
  checkFile?(): Promise<void>;
  close(): void;
}

export interface VerifiedCell extends CellPosition {
  /** It fails its checksums. */
  readonly damaged: boolean;
  /** Of the stored value. */
  readonly bytes: number;
}

export const isBlobRef = (value: Uint8Array | BlobRef): value is BlobRef =>
  !(value instanceof Uint8Array);
