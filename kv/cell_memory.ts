/** What a cell takes in memory. */
import type { StoredCell } from "./cell_store.ts";

/** Besides its keys and its value, roughly. */
export const CELL_OVERHEAD_BYTES = 160;

export function memoryBytes(cell: StoredCell): number {
  const inline = cell.value instanceof Uint8Array ? cell.size : 32;
  return CELL_OVERHEAD_BYTES + 2 * (cell.row.length + cell.column.length) + inline;
}

/** The cell with a value of its own: a view would keep all of the buffer behind it in memory. */
export function owned(cell: StoredCell): StoredCell {
  const { value } = cell;
  if (!(value instanceof Uint8Array) || value.length === value.buffer.byteLength) return cell;
  return { ...cell, value: value.slice() };
}
