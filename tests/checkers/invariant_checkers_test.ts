/** Sets, counters, the bank and the tree: histories known to be right and to be wrong, and random ones. */
import assert from "node:assert/strict";
import { SeededRandom } from "../sim/seeded_random.ts";
import { type BankHistory, checkBank, type Snapshot, type Transfer } from "./bank.ts";
import { type Addition, checkCounter, type CounterHistory } from "./counter.ts";
import { checkFinalSet, checkSet, type SetAddition, type SetRead } from "./set.ts";
import { checkTree, type TreeLink, type TreeState } from "./tree.ts";
import { assertValid, type Verdict } from "./verdict.ts";

type Case<T> = [name: string, history: T, problem?: RegExp];
const never = Infinity;

function expectVerdicts<T>(
  checker: string,
  check: (history: T) => Verdict,
  cases: Case<T>[],
): void {
  for (const [name, history, problem] of cases) {
    Deno.test(`${checker} ${problem === undefined ? "accepts" : "rejects"} ${name}`, () => {
      const { valid, problems } = check(history);
      assert.equal(valid, problem === undefined, problems.join("\n"));
      if (problem !== undefined) assert.match(problems.join("\n"), problem);
    });
  }
}

// ------------------------------------------------------------------------------------ set

const added = (
  element: string,
  [callIndex, returnIndex]: [number, number],
  outcome: SetAddition["outcome"] = returnIndex === never ? "unknown" : "ok",
): SetAddition => ({ element, outcome, callIndex, returnIndex });
const found = ([callIndex, returnIndex]: [number, number], ...elements: string[]): SetRead => ({
  elements,
  callIndex,
  returnIndex,
});

expectVerdicts("checkSet()", checkSet, [
  ["an empty history", { additions: [], reads: [] }],
  ["every acknowledged element, once", {
    additions: [added("a", [0, 1]), added("b", [2, 3])],
    reads: [found([4, 5], "a", "b")],
  }],
  ["a read that misses an element being added", {
    additions: [added("a", [0, 9])],
    reads: [found([1, 2])],
  }],
  ["an unknown element that appears late", {
    additions: [added("a", [0, never])],
    reads: [found([1, 2]), found([3, 4], "a"), found([5, 6], "a")],
  }],
  ["an unknown element that never appears", {
    additions: [added("a", [0, never])],
    reads: [found([1, 2])],
  }],
  [
    "a lost element",
    { additions: [added("a", [0, 1])], reads: [found([2, 3])] },
    /1 of 1 acknowledged elements are lost: "a"/,
  ],
  [
    "an element added twice",
    { additions: [added("a", [0, 1])], reads: [found([2, 3], "a", "a")] },
    /more than once: "a"/,
  ],
  [
    "a refused element that is there",
    { additions: [added("a", [0, 1], "fail")], reads: [found([2, 3], "a")] },
    /refused: "a"/,
  ],
  [
    "an element that nobody added",
    { additions: [], reads: [found([2, 3], "a")] },
    /nobody added: "a"/,
  ],
  [
    "an unknown element that appears and vanishes",
    { additions: [added("a", [0, never])], reads: [found([1, 2], "a"), found([3, 4])] },
    /vanished: "a"/,
  ],
  [
    "an element read before it was added",
    { additions: [added("a", [5, 6])], reads: [found([1, 2], "a")] },
    /before anybody added them: "a"/,
  ],
]);

Deno.test("checkFinalSet() judges what a workload counted, in three sets and a list", () => {
  const sets = { acknowledged: ["a", "b"], unknown: ["c", "d"], refused: ["e"] };
  assert.equal(checkFinalSet({ ...sets, found: ["a", "b", "c"] }).valid, true);
  for (const wrong of [["a"], ["a", "b", "b"], ["a", "b", "e"], ["a", "b", "z"]]) {
    assert.equal(checkFinalSet({ ...sets, found: wrong }).valid, false, wrong.join());
  }
});

Deno.test("assertValid() speaks of a broken guarantee, and of an undecided one in other words", () => {
  assertValid({ valid: true, problems: [] }, "rows");
  assert.throws(
    () => assertValid({ valid: false, problems: ["x is lost"] }, "rows"),
    /^Error: GUARANTEE BROKEN: rows:\nx is lost$/,
  );
  assert.throws(
    () => assertValid({ valid: "undecided", problems: [] }, "rows"),
    /^Error: Undecided/,
  );
});

// -------------------------------------------------------------------------------- counter

const addition = (
  by: number,
  [callIndex, returnIndex]: [number, number],
  sum?: number,
  outcome: Addition["outcome"] = returnIndex === never ? "unknown" : "ok",
): Addition => ({ by, outcome, callIndex, returnIndex, ...(sum === undefined ? {} : { sum }) });
const counted = (value: number, [callIndex, returnIndex]: [number, number]) => ({
  value,
  callIndex,
  returnIndex,
});

expectVerdicts<CounterHistory>("checkCounter()", checkCounter, [
  ["a counter that nobody touches", { additions: [], reads: [counted(0, [0, 1])] }],
  ["sums in order", {
    additions: [addition(1, [0, 1], 1), addition(2, [2, 3], 3)],
    reads: [counted(3, [4, 5])],
  }],
  ["concurrent additions in any one order", {
    additions: [addition(1, [0, 9], 3), addition(2, [1, 8], 2)],
    reads: [counted(0, [2, 3]), counted(2, [4, 5]), counted(3, [10, 11])],
  }],
  ["an unknown addition, counted or not", {
    additions: [addition(5, [0, never]), addition(1, [1, 2], 6)],
    reads: [counted(6, [3, 4])],
  }],
  ["an unknown addition, not counted yet", {
    additions: [addition(5, [0, never]), addition(1, [1, 2], 1)],
    reads: [counted(1, [3, 4]), counted(6, [5, 6])],
  }],
  ["a refused addition that does not count", {
    additions: [addition(5, [0, 1], undefined, "fail")],
    reads: [counted(0, [2, 3])],
  }],
  ["additions that take away", {
    additions: [addition(5, [0, 1], 5), addition(-2, [2, 3], 3)],
    reads: [counted(3, [4, 5])],
  }],
  [
    "a lost addition",
    { additions: [addition(1, [0, 1])], reads: [counted(0, [2, 3])] },
    /from 1 to 1/,
  ],
  ["an addition that counts twice", {
    additions: [addition(1, [0, 1])],
    reads: [counted(2, [2, 3])],
  }, /finds 2; it must be from 1 to 1/],
  ["two additions that are told one sum", {
    additions: [addition(1, [0, 9], 1), addition(1, [1, 8], 1)],
    reads: [],
  }, /lost or done twice/],
  ["two additions whose shares overlap", {
    additions: [addition(3, [0, 9], 3), addition(2, [1, 8], 4)],
    reads: [],
  }, /lost or done twice/],
  ["a gap that no unknown addition fills", {
    additions: [addition(1, [0, 9], 1), addition(1, [1, 8], 5), addition(1, [2, 7], 9)],
    reads: [],
  }, /more than was added/],
  ["a sum that goes back in time", {
    additions: [addition(1, [0, 1], 2), addition(1, [2, 3], 1)],
    reads: [],
  }, /goes back/],
  ["a refused addition that counts", {
    additions: [addition(5, [0, 1], undefined, "fail")],
    reads: [counted(5, [2, 3])],
  }, /from 0 to 0/],
]);

Deno.test("checkCounter() accepts what a real counter answers and rejects one step too many or too few", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new SeededRandom(seed);
    const additions: Addition[] = [];
    const reads: CounterHistory["reads"][number][] = [];
    let value = 0, event = 0;
    for (let i = 0; i < 30; i++) {
      const call = event++;
      if (random.chance(0.3)) {
        reads.push(counted(value, [call, event++]));
      } else if (random.chance(0.1)) {
        const by = 1 + random.integer(3);
        if (random.chance(0.5)) value += by;
        additions.push(addition(by, [call, never]));
      } else {
        const by = 1 + random.integer(3);
        value += by;
        additions.push(addition(by, [call, event++], random.chance(0.7) ? value : undefined));
      }
    }
    const good = checkCounter({ additions, reads });
    assert(good.valid, `seed ${seed}: ${good.problems.join("\n")}`);
    const unknown = additions.filter((item) => item.outcome === "unknown")
      .reduce((sum, { by }) => sum + by, 0);
    const certain = additions.filter((item) => item.outcome === "ok")
      .reduce((sum, { by }) => sum + by, 0);
    for (const wrong of [certain - 1, certain + unknown + 1]) {
      const late = counted(wrong, [event, event + 1]);
      assert.equal(checkCounter({ additions, reads: [...reads, late] }).valid, false);
    }
  }
});

// ----------------------------------------------------------------------------------- bank

const moved = (
  from: string,
  to: string,
  amount: number,
  [callIndex, returnIndex]: [number, number],
  outcome: Transfer["outcome"] = returnIndex === never ? "unknown" : "ok",
): Transfer => ({ from, to, amount, outcome, callIndex, returnIndex });
const shown = (
  balances: Record<string, number>,
  [callIndex, returnIndex]: [number, number],
): Snapshot => ({ balances, callIndex, returnIndex });
const initial = { a: 10, b: 10 };

expectVerdicts<BankHistory>("checkBank()", checkBank, [
  ["snapshots of one total", {
    initial,
    transfers: [moved("a", "b", 4, [0, 3])],
    snapshots: [
      shown({ a: 10, b: 10 }, [1, 2]),
      shown({ a: 6, b: 14 }, [4, 5]),
    ],
  }],
  ["an unknown transfer, done or not", {
    initial,
    transfers: [moved("a", "b", 4, [0, never])],
    snapshots: [shown({ a: 10, b: 10 }, [1, 2]), shown({ a: 6, b: 14 }, [4, 5])],
  }],
  [
    "half a transfer",
    { initial, snapshots: [shown({ a: 6, b: 10 }, [1, 2])] },
    /16 in all instead of 20/,
  ],
  ["a missing account", { initial, snapshots: [shown({ a: 10 }, [1, 2])] }, /b missing/],
  ["an account that is none", {
    initial,
    snapshots: [shown({ a: 10, b: 10, c: 0 }, [1, 2])],
  }, /an account that is none: c/],
  [
    "an overdrawn account",
    { initial, snapshots: [shown({ a: -1, b: 21 }, [1, 2])] },
    /a is overdrawn/,
  ],
  ["an acknowledged transfer that is lost as a whole", {
    initial,
    transfers: [moved("a", "b", 4, [0, 1])],
    snapshots: [shown({ a: 10, b: 10 }, [2, 3])],
  }, /a must hold from 6 to 6/],
  ["a refused transfer that happened", {
    initial,
    transfers: [moved("a", "b", 4, [0, 1], "fail")],
    snapshots: [shown({ a: 6, b: 14 }, [2, 3])],
  }, /a must hold from 10 to 10/],
  ["a transfer done twice", {
    initial,
    transfers: [moved("a", "b", 4, [0, 1])],
    snapshots: [shown({ a: 2, b: 18 }, [2, 3])],
  }, /a must hold from 6 to 6/],
]);

// ----------------------------------------------------------------------------------- tree

const link = (
  parent: string,
  id: string,
  kind: "folder" | "file" = "folder",
  name = id,
): TreeLink => ({
  parent,
  id,
  name,
  kind,
});

expectVerdicts<TreeState>("checkTree()", checkTree, [
  ["an empty drive", { root: "root", links: [] }],
  ["folders in folders", {
    root: "root",
    otherRoots: ["trash"],
    links: [link("root", "a"), link("a", "b"), link("b", "f", "file"), link("trash", "c")],
    expected: [{ id: "b", parent: "a" }, { id: "f" }],
    forbidden: ["z"],
  }],
  ["an orphan", { root: "root", links: [link("gone", "a")] }, /orphan: its folder "gone"/],
  ["a cycle of two", {
    root: "root",
    links: [link("b", "a"), link("a", "b"), link("root", "c")],
  }, /a cycle: "a" in "b" in "a"/],
  ["a folder in itself", { root: "root", links: [link("a", "a")] }, /a cycle: "a" in "a"/],
  ["an item linked twice", {
    root: "root",
    links: [link("root", "a"), link("root", "b"), link("a", "f", "file"), link("b", "f", "file")],
  }, /"f" is linked twice/],
  ["two items of one name", {
    root: "root",
    links: [link("root", "a", "file", "same"), link("root", "b", "file", "same")],
  }, /two items called "same"/],
  ["an item below a file", {
    root: "root",
    links: [link("root", "a", "file"), link("a", "b")],
  }, /which is a file/],
  ["a root that is an item", { root: "root", links: [link("root", "root")] }, /the root "root"/],
  ["an acknowledged item that is lost", {
    root: "root",
    links: [],
    expected: [{ id: "a" }],
  }, /"a" was acknowledged/],
  ["an item in the wrong place", {
    root: "root",
    links: [link("root", "a"), link("root", "b")],
    expected: [{ id: "b", parent: "a" }],
  }, /must be in "a"/],
  ["a removed item that is still there", {
    root: "root",
    links: [link("root", "a")],
    forbidden: ["a"],
  }, /must not be there/],
]);

Deno.test("checkTree() finds the one move that ties any random tree into a knot", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new SeededRandom(seed), ids = ["root"], links: TreeLink[] = [];
    for (let i = 0; i < 30; i++) {
      links.push(link(random.pick(ids), `n${i}`));
      ids.push(`n${i}`);
    }
    assert.equal(checkTree({ root: "root", links }).valid, true, `seed ${seed}`);
    // Hang an item below one of its own descendants, or itself.
    const moved = random.pick(links), below = new Set([moved.id]);
    for (const { parent, id } of links) if (below.has(parent)) below.add(id);
    const parent = random.pick([...below]);
    const bad = links.map((item) => item === moved ? { ...item, parent } : item);
    assert.match(
      checkTree({ root: "root", links: bad }).problems.join(),
      /a cycle/,
      `seed ${seed}`,
    );
  }
});
