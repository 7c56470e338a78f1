/** A cell store that keeps every cell in memory: for tests, the simulator and `MemoryKv`. */
import type { CellRange, CellStore, StoredCell } from "./cell_store.ts";
import { SortedCells } from "./sorted_cells.ts";

export class MemoryCellStore implements CellStore {
  readonly #cells = new SortedCells<StoredCell>();

  get(row: string, column: string): StoredCell | undefined {
    return this.#cells.get(row, column);
  }

  *range(range: CellRange): Iterable<StoredCell> {
    for (const entry of this.#cells.range(range)) yield entry.value;
  }

  put(cell: StoredCell): void {
    this.#cells.set(cell.row, cell.column, cell);
  }

  delete(row: string, column: string): void {
    this.#cells.delete(row, column);
  }
}
