/**
 * Goal: the checker accepts exactly the histories that some order explains.
 *
 * Method: known histories, right and wrong, each named after the fault that makes them; histories that
 * a really atomic store made, always accepted, and spoiled ones, always rejected; small histories with
 * random answers, judged by trying every order there is.
 */
import assert from "node:assert/strict";
import { SeededRandom } from "../sim/seeded_random.ts";
import { atomicHistory, SPOILERS } from "./atomic_histories.ts";
import type { Call, Operation, Outcome, Result } from "./history.ts";
import { checkLinearizability, checkRow } from "./linearizability.ts";
import { EMPTY_ROW, type RowState, stepRow } from "./row_model.ts";

const row = "r";
let operations = 0;

/** One operation; `end` Infinity: nobody knows. */
function op(
  [callIndex, returnIndex]: [number, number],
  call: Call,
  result: Result | null,
  outcome: Outcome = returnIndex === Infinity ? "unknown" : "ok",
): Operation {
  const id = operations++;
  return {
    id,
    process: `p${id}`,
    call,
    outcome,
    result: outcome === "unknown" ? null : result,
    error: null,
    callIndex,
    returnIndex,
    callNs: callIndex * 1e6,
    returnNs: returnIndex * 1e6,
  };
}

type Times = [number, number];
const put = (times: Times, column: string, value: string, version?: number) =>
  op(times, { op: "put", row, column, value }, version === undefined ? {} : { version });
const remove = (times: Times, column: string, version?: number) =>
  op(times, { op: "delete", row, column }, version === undefined ? {} : { version });
const get = (times: Times, column: string, value: string | null, version?: number) =>
  op(times, { op: "get", row, column }, {
    value,
    ...(version === undefined ? {} : { version }),
  });
const swap = (times: Times, column: string, value: string, expected: number, version?: number) =>
  op(
    times,
    { op: "cput", row, column, value, old_version: expected },
    version === undefined ? {} : { version },
  );
const refusedSwap = (times: Times, column: string, value: string, expected: number, seen: number) =>
  op(
    times,
    { op: "cput", row, column, value, old_version: expected },
    { applied: false, version: seen, conditionIndex: 0 },
    "fail",
  );
const failedPut = (times: Times, column: string, value: string) =>
  op(times, { op: "put", row, column, value }, null, "fail");
const add = (times: Times, by: number, sum?: number, version?: number) =>
  op(times, {
    op: "apply",
    row,
    conditions: [],
    mutations: [{ kind: "add", column: "n", by }],
  }, {
    ...(sum === undefined ? {} : { numbers: [sum] }),
    ...(version === undefined ? {} : { version }),
  });
const append = (times: Times, value: string, number: number, version?: number) =>
  op(times, {
    op: "apply",
    row,
    conditions: [],
    mutations: [{ kind: "append", counter: "count", prefix: "m/", value }],
  }, { numbers: [number], ...(version === undefined ? {} : { version }) });
const getRow = (times: Times, cells: Record<string, [string, number]>) =>
  op(times, { op: "getRow", row }, {
    cells: Object.entries(cells).map(([column, [value, version]]) => ({ column, value, version })),
  });
const never = Infinity;

const RIGHT: [name: string, history: Operation[]][] = [
  ["nothing at all", []],
  ["a read of an empty row", [get([0, 1], "x", null, 0)]],
  ["a write and a later read", [put([0, 1], "x", "a", 1), get([2, 3], "x", "a", 1)]],
  ["a read during a write may find the old value", [
    put([0, 1], "x", "a", 1),
    put([2, 5], "x", "b", 2),
    get([3, 4], "x", "a", 1),
  ]],
  ["a read during a write may find the new value", [
    put([0, 1], "x", "a", 1),
    put([2, 5], "x", "b", 2),
    get([3, 4], "x", "b", 2),
  ]],
  ["overlapping writes take effect in the order of their versions, not of their answers", [
    put([0, 10], "x", "a", 2),
    put([1, 9], "x", "b", 1),
    get([11, 12], "x", "a", 2),
  ]],
  ["an unknown write that never shows", [
    put([0, 1], "x", "a", 1),
    put([2, never], "x", "b"),
    get([3, 4], "x", "a", 1),
  ]],
  ["an unknown write that shows much later", [
    put([0, 1], "x", "a", 1),
    put([2, never], "x", "b"),
    get([3, 4], "x", "a", 1),
    get([5, 6], "x", "a", 1),
    get([7, 8], "x", "b", 2),
  ]],
  ["an unknown delete that shows later", [
    put([0, 1], "x", "a", 1),
    remove([2, never], "x"),
    get([3, 4], "x", "a", 1),
    get([5, 6], "x", null, 0),
  ]],
  ["a refused write that leaves no trace", [
    put([0, 1], "x", "a", 1),
    failedPut([2, 3], "x", "b"),
    get([4, 5], "x", "a", 1),
  ]],
  ["of two compare-and-puts from one version one is refused", [
    put([0, 1], "x", "a", 1),
    swap([2, 6], "x", "b", 1, 2),
    refusedSwap([3, 7], "x", "c", 1, 2),
    get([8, 9], "x", "b", 2),
  ]],
  ["a compare is refused because of an unknown write that nobody reads", [
    put([0, 1], "x", "a", 1),
    put([2, never], "x", "b"),
    refusedSwap([3, 4], "x", "c", 1, 2),
    get([5, 6], "x", "b", 2),
  ]],
  ["an unknown compare-and-put that lost against another", [
    put([0, 1], "x", "a", 1),
    swap([2, never], "x", "b", 1),
    swap([3, 4], "x", "c", 1, 2),
    get([5, 6], "x", "c", 2),
  ]],
  ["a compare-and-put onto an unknown write settles its version", [
    put([0, never], "x", "a"),
    swap([1, 2], "x", "b", 5, 6),
    get([3, 4], "x", "b", 6),
  ]],
  ["additions count each other", [
    add([0, 5], 2, 2, 1),
    add([1, 6], 3, 5, 2),
    get([7, 8], "n", "5", 2),
  ]],
  ["an unknown addition shows in the next one's sum", [
    add([0, 1], 1, 1, 1),
    add([2, never], 1),
    add([3, 4], 1, 3, 3),
  ]],
  ["appends number themselves", [
    append([0, 1], "a", 1, 1),
    append([2, 3], "b", 2, 2),
    getRow([4, 5], {
      count: ["2", 2],
      "m/0000000001": ["a", 1],
      "m/0000000002": ["b", 2],
    }),
  ]],
  ["versions without answers are left open", [
    put([0, 1], "x", "a"),
    put([2, 3], "y", "b"),
    get([4, 5], "x", "a", 4),
    get([6, 7], "y", "b", 9),
  ]],
  ["a cell deleted and written again has a new version", [
    put([0, 1], "x", "a", 1),
    remove([2, 3], "x", 2),
    put([4, 5], "x", "a", 3),
    get([6, 7], "x", "a", 3),
  ]],
];

const WRONG: [name: string, history: Operation[]][] = [
  ["a stale read", [
    put([0, 1], "x", "a", 1),
    put([2, 3], "x", "b", 2),
    get([4, 5], "x", "a", 1),
  ]],
  ["a stale read after a fresh one", [
    put([0, 1], "x", "a", 1),
    put([2, 10], "x", "b", 2),
    get([3, 4], "x", "b", 2),
    get([5, 6], "x", "a", 1),
  ]],
  ["an acknowledged write that is lost", [put([0, 1], "x", "a", 1), get([2, 3], "x", null, 0)]],
  ["a read from the future", [get([0, 1], "x", "a", 1), put([2, 3], "x", "a", 1)]],
  ["a read of what nobody wrote", [get([0, 1], "x", "ghost", 1)]],
  ["a refused write that shows", [failedPut([0, 1], "x", "a"), get([2, 3], "x", "a", 1)]],
  ["an unknown write that shows and vanishes", [
    put([0, 1], "x", "a", 1),
    put([2, never], "x", "b"),
    get([3, 4], "x", "b", 2),
    get([5, 6], "x", "a", 1),
  ]],
  ["a lost update: two compare-and-puts succeed from one version", [
    put([0, 1], "x", "a", 1),
    swap([2, 6], "x", "b", 1, 2),
    swap([3, 7], "x", "c", 1, 3),
  ]],
  ["a lost update: two additions are told one sum", [add([0, 5], 1, 1, 1), add([1, 6], 1, 1, 2)]],
  ["an addition applied twice", [add([0, 1], 1, 1, 1), get([2, 3], "n", "2", 2)]],
  ["an append applied twice", [
    append([0, 1], "a", 1, 1),
    getRow([2, 3], {
      count: ["2", 2],
      "m/0000000001": ["a", 1],
      "m/0000000002": ["a", 2],
    }),
  ]],
  ["a put applied twice, over another", [
    put([0, 1], "x", "a", 1),
    put([2, 3], "x", "b", 2),
    get([4, 5], "x", "a", 3),
  ]],
  ["a compare refused although it held", [
    put([0, 1], "x", "a", 1),
    refusedSwap([2, 3], "x", "b", 1, 1),
  ]],
  ["a compare that held only before another write", [
    put([0, 1], "x", "a", 1),
    put([2, 3], "x", "b", 2),
    swap([4, 5], "x", "c", 1, 3),
  ]],
  ["versions that go back", [put([0, 1], "x", "a", 5), put([2, 3], "x", "b", 4)]],
  ["one version for two writes", [put([0, 1], "x", "a", 5), put([2, 3], "y", "b", 5)]],
  ["the right value at a wrong version", [put([0, 1], "x", "a", 1), get([2, 3], "x", "a", 2)]],
  ["an unknown write read at two versions", [
    put([0, never], "x", "a"),
    get([1, 2], "x", "a", 4),
    get([3, 4], "x", "a", 5),
  ]],
  ["an unknown write whose version lies before one that was already answered", [
    put([0, 1], "x", "a", 5),
    put([2, never], "x", "b"),
    get([3, 4], "x", "b", 4),
  ]],
  ["half of an operation on two columns", [
    op([0, 1], {
      op: "apply",
      row,
      conditions: [],
      mutations: [
        { kind: "put", column: "x", value: "a" },
        { kind: "put", column: "y", value: "b" },
      ],
    }, { version: 1 }),
    getRow([2, 3], { x: ["a", 1] }),
  ]],
  ["two readers that see two writes in different orders", [
    put([0, 20], "x", "a"),
    put([1, 21], "x", "b"),
    get([2, 3], "x", "a"),
    get([4, 5], "x", "b"),
    get([6, 7], "x", "a"),
  ]],
  ["a deleted cell that comes back", [
    put([0, 1], "x", "a", 1),
    remove([2, 3], "x", 2),
    get([4, 5], "x", "a", 1),
  ]],
];

for (const [name, history] of RIGHT) {
  Deno.test(`checkRow() accepts ${name}`, () => {
    const verdict = checkRow(history);
    assert.equal(verdict.kind, "linearizable", JSON.stringify(verdict));
  });
}

for (const [name, history] of WRONG) {
  Deno.test(`checkRow() rejects ${name}`, () => {
    assert.equal(checkRow(history).kind, "violation");
  });
}

Deno.test("checkRow() accepts versions that jump down where a row may move, and nothing else for it", () => {
  const moved = [put([0, 1], "x", "a", 5), put([2, 3], "x", "b", 1), get([4, 5], "x", "b", 1)];
  assert.equal(checkRow(moved).kind, "violation");
  assert.equal(checkRow(moved, { versions: "distinct" }).kind, "linearizable");
  const stale = [...moved, get([6, 7], "x", "a", 5)];
  assert.equal(checkRow(stale, { versions: "distinct" }).kind, "violation");
});

Deno.test("checkRow() says undecided when its budget is spent", () => {
  // Without versions and with equal values everything is possible, and much has to be tried.
  const puts = Array.from({ length: 14 }, (_, i) => put([i, 100 + i], "x", `v${i % 7}`));
  const reads = Array.from({ length: 6 }, (_, i) => get([200 + 2 * i, 201 + 2 * i], "x", "v9"));
  assert.equal(checkRow([...puts, ...reads], { stepsPerRow: 5_000 }).kind, "undecided");
  const verdict = checkLinearizability([...puts, ...reads], { stepsPerRow: 5_000 });
  assert.equal(verdict.valid, "undecided");
  assert.deepEqual(verdict.undecidedRows, ["r"]);
});

Deno.test("checkRow() explains a violation by the shortest prefix: the answer that ends it, and the order before", () => {
  const stale = get([6, 7], "x", "a", 1);
  const history = [
    put([0, 1], "x", "a", 1),
    put([2, 3], "x", "b", 2),
    get([4, 5], "x", "b", 2),
    stale,
    put([8, 9], "x", "c", 3),
    get([10, 11], "x", "b", 2),
  ];
  const verdict = checkRow(history);
  assert(verdict.kind === "violation");
  assert.equal(verdict.culprit, stale);
  assert.match(verdict.explanation, /no order .* explains #\d+ p\d+: get r\/x → "a" version 1/);
  assert.match(verdict.explanation, /the row holds x="b"@2/);
});

Deno.test("checkRow() says where a value comes from that should not be there", () => {
  const ghost = checkRow([get([0, 1], "x", "ghost", 1)]);
  assert(ghost.kind === "violation");
  assert.match(ghost.explanation, /nobody ever wrote "ghost"/);
  const refused = checkRow([failedPut([0, 1], "x", "a"), get([2, 3], "x", "a", 1)]);
  assert(refused.kind === "violation");
  assert.match(refused.explanation, /written only by #\d+ .* failed/);
});

Deno.test("checkLinearizability() judges rows one by one and names the bad ones", () => {
  const other = {
    ...get([2, 3], "x", "b", 9),
    call: { op: "get", row: "s", column: "x" } as const,
  };
  const verdict = checkLinearizability([put([0, 1], "x", "a", 1), get([2, 3], "x", "a", 1), other]);
  assert.equal(verdict.valid, false);
  assert.equal(verdict.rows, 2);
  assert.equal(verdict.problems.length, 1);
  assert.match(verdict.problems[0]!, /^Row "s"/);
});

Deno.test("checkLinearizability() accepts whatever a really atomic store answers, lost answers included", async () => {
  let unknown = 0, refused = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const shape = { processes: 1 + seed % 8, lost: (seed % 4) * 0.03 };
    const history = await atomicHistory({ seed, operationsPerRow: 20 + seed % 40, ...shape });
    unknown += history.filter((item) => item.outcome === "unknown").length;
    refused += history.filter((item) => item.result?.applied === false).length;
    const verdict = checkLinearizability(history);
    assert.equal(verdict.valid, true, `seed ${seed}: ${verdict.problems.join("\n")}`);
  }
  assert(unknown > 100 && refused > 100, `${unknown} unknown, ${refused} refused`);
});

Deno.test("checkLinearizability() accepts them without any versions, too", async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const history = await atomicHistory({ seed, operationsPerRow: 30, lost: 0.03 });
    const bare = history.map((item): Operation => {
      const { result, call } = item;
      if (call.op === "cput" && call.old_version !== undefined) return item;
      const { version: _, ...kept } = result ?? {};
      const cells = kept.cells?.map(({ column, value }) => ({ column, value }));
      return result === null ? item : { ...item, result: { ...kept, ...(cells && { cells }) } };
    });
    const verdict = checkLinearizability(bare);
    assert.equal(verdict.valid, true, `seed ${seed}: ${verdict.problems.join("\n")}`);
  }
});

/** Made once, spoiled in many ways. */
const toSpoil = new Map<number, Promise<Operation[]>>();

function historyToSpoil(seed: number): Promise<Operation[]> {
  let history = toSpoil.get(seed);
  if (history === undefined) {
    history = atomicHistory({ seed, operationsPerRow: 50, lost: (seed % 3) * 0.03 });
    toSpoil.set(seed, history);
  }
  return history;
}

for (const [name, spoil] of Object.entries(SPOILERS)) {
  Deno.test(`checkRow() rejects an atomic history in which ${name}`, async () => {
    let spoiled = 0;
    for (let seed = 1; seed <= 80; seed++) {
      const random = new SeededRandom(seed);
      const history = await historyToSpoil(seed);
      const bad = spoil(history, random);
      if (bad === null) continue;
      spoiled += 1;
      assert.equal(checkRow(bad).kind, "violation", `seed ${seed}`);
    }
    assert(spoiled >= 15, `only ${spoiled} histories could be spoiled`);
  });
}

/** The definition itself: some set of the unknown, some order, and every answer fits. */
function bruteForce(
  history: readonly Operation[],
  options: { state?: RowState; rule?: "rising" | "distinct" } = {},
): boolean {
  const { state = EMPTY_ROW, rule = "rising" } = options;
  if (history.every((item) => item.outcome === "unknown")) return true;
  return history.some((item) => {
    const first = history.every((other) => other === item || other.returnIndex > item.callIndex);
    if (!first) return false;
    const next = stepRow(state, item, { rule });
    const rest = history.filter((other) => other !== item);
    return next !== null && bruteForce(rest, { state: next, rule });
  });
}

Deno.test("checkRow() agrees with trying every order, on small histories with random answers", () => {
  let good = 0, bad = 0;
  for (let seed = 1; seed <= 4_000; seed++) {
    const random = new SeededRandom(seed);
    const history = randomHistory(random);
    const rule = random.chance(0.5) ? "rising" : "distinct";
    const expected = bruteForce(history, { rule });
    const { kind } = checkRow(history, { versions: rule });
    assert.equal(kind, expected ? "linearizable" : "violation", `seed ${seed}`);
    if (expected) good += 1;
    else bad += 1;
  }
  assert(good > 500 && bad > 500, `${good} good, ${bad} bad`);
});

function randomHistory(random: SeededRandom): Operation[] {
  const times = Array.from({ length: 12 }, (_, i) => i);
  const take = () => times.splice(random.integer(times.length), 1)[0]!;
  const version = () => random.chance(0.3) ? undefined : 1 + random.integer(4);
  return Array.from({ length: 2 + random.integer(5) }, (_, i) => {
    const [a, b] = [take(), take()];
    const ends: Times = [Math.min(a, b), Math.max(a, b)];
    const open: Times = random.chance(0.25) ? [ends[0], never] : ends;
    switch (random.integer(8)) {
      case 0:
      case 1:
        return put(open, "x", random.chance(0.8) ? `v${i}` : "same", version());
      case 2:
        return remove(open, "x", version());
      case 3:
        return swap(open, "x", `v${i}`, random.integer(4), version());
      case 4:
        return refusedSwap(ends, "x", `v${i}`, random.integer(4), random.integer(4));
      default: {
        const value = random.chance(0.2)
          ? null
          : random.chance(0.2)
          ? "same"
          : `v${random.integer(5)}`;
        return get(ends, "x", value, value === null ? undefined : version());
      }
    }
  });
}

Deno.test("checkLinearizability() judges 10 000 operations in steps near their number", async () => {
  const history = await atomicHistory({ seed: 5, rows: 200, operationsPerRow: 50, lost: 0.02 });
  assert.equal(history.length, 10_000);
  const startedMs = performance.now();
  const verdict = checkLinearizability(history);
  console.log(
    `10 000 operations: ${verdict.steps} steps, ${Math.round(performance.now() - startedMs)} ms`,
  );
  assert.equal(verdict.valid, true, verdict.problems.join("\n"));
  assert(verdict.steps < 400_000, `${verdict.steps} steps`);
});
