/**
 * Checksums over what SQLite stores for us, which has none of its own. A cell's `crc` covers its value
 * alone, for it travels with the value; these cover the rest.
 */
import { crc32 } from "node:zlib";

/** Over all columns of a stored cell but the value. */
export function cellSum(cell: {
  readonly row: string;
  readonly column: string;
  readonly version: number;
  readonly size: number;
  readonly crc: number;
  readonly blob: string | null;
}): number {
  const { row, column, version, size, crc, blob } = cell;
  return crc32(`${row}\0${column}\0${version}\0${size}\0${crc}\0${blob ?? ""}`);
}

/** How many cells there are, and all their sums added up: a cell that vanished is noticed by it. */
export interface CellTotals {
  readonly count: number;
  readonly total: number;
}

/** Over all that a checkpoint records about itself. */
export function recordSum(record: { lsn: number; meta: string; totals: CellTotals }): number {
  const { lsn, meta, totals: { count, total } } = record;
  return crc32(meta, crc32(`${lsn}\0${count}\0${total}\0`));
}
