/** SortedCells against the plainest model there is: a Map that is sorted anew for each question. */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { CellRange } from "../../kv/cell_store.ts";
import { comparePositions, SortedCells } from "../../kv/sorted_cells.ts";

const key = fc.constantFrom("", "a", "b", "ba", "z", "é", "\ue000", "\u{1f600}", "\uffff");
const place = fc.record({ row: key, column: key });

interface Model {
  cells: Map<string, { row: string; column: string; value: number }>;
}

const nameOf = (row: string, column: string) => JSON.stringify([row, column]);

function expectedRange(
  model: Model,
  { from, inclusive, reverse, within }: {
    from: { row: string; column: string } | undefined;
    inclusive: boolean;
    reverse: boolean;
    within: string | undefined;
  },
) {
  const sorted = [...model.cells.values()].sort(comparePositions);
  if (reverse) sorted.reverse();
  return sorted.filter((cell) => {
    if (within !== undefined && cell.row !== within) return false;
    if (from === undefined) return true;
    const order = comparePositions(cell, from) * (reverse ? -1 : 1);
    return inclusive ? order >= 0 : order > 0;
  });
}

Deno.test("SortedCells equals a sorted Map under random operations", () => {
  const operation = fc.oneof(
    fc.record({ kind: fc.constant("set" as const), at: place, value: fc.nat(1000) }),
    fc.record({ kind: fc.constant("delete" as const), at: place }),
    fc.record({
      kind: fc.constant("range" as const),
      from: fc.option(place, { nil: undefined }),
      inclusive: fc.boolean(),
      reverse: fc.boolean(),
      within: fc.option(key, { nil: undefined }),
    }),
  );
  fc.assert(fc.property(fc.array(operation, { maxLength: 120 }), (operations) => {
    const cells = new SortedCells<number>();
    const model: Model = { cells: new Map() };
    for (const op of operations) {
      if (op.kind === "range") {
        const { from, inclusive, reverse, within } = op;
        const range: CellRange = {
          reverse,
          ...(from === undefined ? {} : { from, inclusive }),
          ...(within === undefined ? {} : { within }),
        };
        assert.deepEqual([...cells.range(range)], expectedRange(model, op));
        continue;
      }
      const { row, column } = op.at;
      const name = nameOf(row, column);
      assert.equal(cells.get(row, column), model.cells.get(name)?.value);
      if (op.kind === "set") {
        assert.equal(cells.set(row, column, op.value), model.cells.get(name)?.value);
        model.cells.set(name, { row, column, value: op.value });
      } else {
        assert.equal(cells.delete(row, column), model.cells.delete(name));
      }
      assert.equal(cells.size, model.cells.size);
    }
  }));
});

Deno.test("SortedCells stays ordered over thousands of cells in ascending, descending and mixed order", () => {
  const count = 5000;
  const orders: ((i: number) => number)[] = [
    (i) => i,
    (i) => count - 1 - i,
    (i) => (i * 1777) % count,
  ];
  for (const orderOf of orders) {
    const cells = new SortedCells<number>();
    for (let i = 0; i < count; i++) {
      const n = orderOf(i);
      cells.set(`row${Math.floor(n / 10).toString().padStart(4, "0")}`, `c${n % 10}`, n);
      // Few or many new ones at a time have to find their places.
      if (i === 10 || i === 2_000 || i === 2_030) assert.equal([...cells.range({})].length, i + 1);
    }
    assert.equal(cells.size, count);
    assert.deepEqual(
      Array.from(cells.entries(), (cell) => cell.value).toSorted((a, b) => a - b),
      [...Array(count).keys()],
    );
    assert.deepEqual([...cells.range({})].map((cell) => cell.value), [...Array(count).keys()]);
    const middle = { row: "row0250", column: "c5" };
    const backwards = [...cells.range({ from: middle, inclusive: false, reverse: true })];
    assert.equal(backwards.length, 2505);
    assert.equal(backwards[0]!.value, 2504);

    for (let i = 0; i < count; i++) {
      const n = orderOf(i);
      if (n % 3 === 0) continue;
      assert.ok(cells.delete(`row${Math.floor(n / 10).toString().padStart(4, "0")}`, `c${n % 10}`));
    }
    assert.deepEqual(
      [...cells.range({})].map((cell) => cell.value),
      [...Array(count).keys()].filter((n) => n % 3 === 0),
    );
    cells.clear();
    assert.equal([...cells.range({})].length, 0);
    assert.equal(cells.size, 0);
  }
});
