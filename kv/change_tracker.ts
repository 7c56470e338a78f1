/**
 * What changes in a tablet while it is copied to another group: which cells have to be sent again, and
 * the hash of all that has to be there in the end.
 *
 * The copy goes through the tablet in the order of its keys. Cells in front of it are read when it gets
 * there; one behind it that changes is noted. The hash is counted from what this state holds and how
 * it changes, not from what was sent, so that a change which is not followed is noticed by the seal.
 */
import type { CellPosition, StoredCell } from "./cell_store.ts";
import { CellSum } from "./cell_hash.ts";
import type { ChangeWatcher } from "./group_state.ts";
import { inRange } from "./key_order.ts";
import { mutated } from "./mutant.ts";
import { comparePositions } from "./sorted_cells.ts";
import type { KeyRange } from "./tablets.ts";

export class ChangeTracker implements ChangeWatcher {
  readonly #range: KeyRange;
  /** What lies before it was read; null: all of it. */
  #frontier: CellPosition | null;
  readonly #sum = new CellSum();
  readonly #changed = new Map<string, CellPosition>();

  constructor(range: KeyRange) {
    this.#range = range;
    this.#frontier = { row: range.startKey, column: "" };
  }

  /** Of everything before the frontier, as it is now. */
  get hash(): string {
    return this.#sum.text;
  }

  get cells(): number {
    return this.#sum.cells;
  }

  /** Cells that are not what they were when they were read or taken last. */
  get changedCount(): number {
    return this.#changed.size;
  }

  /** The next cells were read, up to `frontier`. Call it in the turn in which they were. */
  read(cells: readonly StoredCell[], frontier: CellPosition | null): void {
    for (const cell of cells) this.#sum.add(cell, 1);
    this.#frontier = frontier;
  }

  changed(
    row: string,
    column: string,
    before: StoredCell | null,
    after: StoredCell | null,
  ): void {
    if (!inRange(row, this.#range.startKey, this.#range.endKey)) return;
    const place = { row, column };
    if (this.#frontier !== null && comparePositions(place, this.#frontier) >= 0) return;
    if (before !== null) this.#sum.add(before, -1);
    if (after !== null) this.#sum.add(after, 1);
    if (!mutated("changes-not-followed")) this.#changed.set(`${row}\0${column}`, place);
    else this.#sum.add(after ?? before!, after === null ? 1 : -1);
  }

  /** Takes up to `count` of the changed places. */
  take(count: number): CellPosition[] {
    const taken: CellPosition[] = [];
    for (const [key, place] of this.#changed) {
      if (taken.length === count) break;
      this.#changed.delete(key);
      taken.push(place);
    }
    return taken;
  }
}
