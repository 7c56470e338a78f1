/**
 * Columns that the store keeps for itself. They begin with U+0001, which no application may begin a
 * column with, so they are the first of a row; reads and scans leave them out.
 *
 *     \x01+<column>     the value that an undecided transaction will put there
 *     \x01-<column>     it will delete that column
 *     \x01done:<id>     on a transaction's anchor row: it is committed (JSON, row_locks.ts)
 *     \x01lock          the row belongs to a transaction (JSON, row_locks.ts)
 */
export const INTERNAL = "\u0001";
export const STAGED_PUT = INTERNAL + "+";
export const STAGED_DELETE = INTERNAL + "-";
export const DECISION = INTERNAL + "done:";
export const LOCK = INTERNAL + "lock";

export const isInternal = (column: string): boolean => column.startsWith(INTERNAL);

/** A column as people are shown it among raw rows. */
export function shownColumn(column: string): string {
  if (column === LOCK) return "(lock)";
  if (column.startsWith(DECISION)) return `(committed: ${column.slice(DECISION.length)})`;
  const name = column.slice(STAGED_PUT.length);
  if (column.startsWith(STAGED_PUT)) return `${name} (to be written)`;
  if (column.startsWith(STAGED_DELETE)) return `${name} (to be deleted)`;
  return column;
}
