/**
 * Goal: the checker accepts the transactions of a strictly serializable store and names what is wrong
 * with those of any other.
 *
 * Method: each anomaly of the literature once, by hand; histories of a really serial store with
 * overlap and lost answers, always accepted, and spoiled ones, always rejected; small histories with
 * random answers, judged by trying every order there is.
 */
import assert from "node:assert/strict";
import { SeededRandom } from "../sim/seeded_random.ts";
import { HistoryRecorder } from "./history.ts";
import {
  type Anomaly,
  checkListAppend,
  type ListStep,
  type ListTransaction,
  listTransactionsOf,
} from "./list_append.ts";

const append = (key: string, element: string): ListStep => ({ kind: "append", key, element });
const read = (key: string, ...list: string[]): ListStep => ({ kind: "read", key, list });
const unseen = (key: string): ListStep => ({ kind: "read", key, list: null });
const never = Infinity;

function txn(
  name: string,
  [callIndex, returnIndex]: [number, number],
  steps: readonly ListStep[],
  outcome: ListTransaction["outcome"] = returnIndex === never ? "unknown" : "ok",
): ListTransaction {
  return { name, outcome, steps, callIndex, returnIndex };
}

const RIGHT: [name: string, history: ListTransaction[]][] = [
  ["nothing at all", []],
  ["appends and reads one after the other", [
    txn("A", [0, 1], [append("x", "1")]),
    txn("B", [2, 3], [read("x", "1"), append("x", "2")]),
    txn("C", [4, 5], [read("x", "1", "2")]),
  ]],
  ["concurrent transactions in any one order", [
    txn("A", [0, 9], [append("x", "1"), append("y", "1")]),
    txn("B", [1, 8], [append("x", "2"), append("y", "2")]),
    txn("C", [10, 11], [read("x", "2", "1"), read("y", "2", "1")]),
  ]],
  ["a transaction that sees its own appends", [
    txn("A", [0, 1], [append("x", "1"), read("x", "1"), append("x", "2"), read("x", "1", "2")]),
  ]],
  ["an unknown transaction that never shows", [
    txn("A", [0, never], [append("x", "1")]),
    txn("B", [1, 2], [read("x")]),
    txn("C", [3, 4], [append("x", "2")]),
    txn("D", [5, 6], [read("x", "2")]),
  ]],
  ["an unknown transaction that shows late", [
    txn("A", [0, never], [unseen("y"), append("x", "1")]),
    txn("B", [1, 2], [read("x")]),
    txn("C", [3, 4], [read("x", "1")]),
  ]],
  ["an aborted transaction that leaves no trace", [
    txn("A", [0, 1], [append("x", "1")], "fail"),
    txn("B", [2, 3], [read("x")]),
  ]],
  ["an acknowledged append after the last read", [
    txn("A", [0, 1], [read("x"), append("x", "1")]),
    txn("B", [2, 3], [append("x", "2"), append("y", "1")]),
  ]],
];

const WRONG: [anomaly: Anomaly, name: string, history: ListTransaction[]][] = [
  ["G0", "writes of two transactions are interleaved", [
    txn("A", [0, 9], [append("x", "1"), append("y", "1")]),
    txn("B", [1, 8], [append("x", "2"), append("y", "2")]),
    txn("C", [2, 12], [read("x", "1", "2")]),
    txn("D", [3, 13], [read("y", "2", "1")]),
  ]],
  ["G1a", "an aborted transaction is read", [
    txn("A", [0, 1], [append("x", "1")], "fail"),
    txn("B", [2, 3], [read("x", "1")]),
  ]],
  ["G1b", "a transaction is read half-way", [
    txn("A", [0, 9], [append("x", "1"), append("x", "2")]),
    txn("B", [1, 2], [read("x", "1")]),
    txn("C", [10, 11], [read("x", "1", "2")]),
  ]],
  ["G1c", "two transactions read each other", [
    txn("A", [0, 9], [append("x", "1"), read("y", "1")]),
    txn("B", [1, 8], [append("y", "1"), read("x", "1")]),
  ]],
  ["G-single", "a read skew: one row before, one after another's commit", [
    txn("A", [0, 9], [append("x", "1"), append("y", "1")]),
    txn("B", [1, 8], [read("x"), read("y", "1")]),
    txn("C", [10, 11], [read("x", "1"), read("y", "1")]),
  ]],
  ["G-single", "a lost update: two read the same and both append", [
    txn("A", [0, 9], [read("x"), append("x", "1")]),
    txn("B", [1, 8], [read("x"), append("x", "2")]),
    txn("C", [10, 11], [read("x", "1", "2")]),
  ]],
  ["G2", "a write skew: each misses the other's append", [
    txn("A", [0, 9], [read("x"), append("y", "1")]),
    txn("B", [1, 8], [read("y"), append("x", "1")]),
    txn("C", [10, 11], [read("x", "1"), read("y", "1")]),
  ]],
  ["G2", "a write skew that nobody read afterwards", [
    txn("A", [0, 9], [read("x"), append("y", "1")]),
    txn("B", [1, 8], [read("y"), append("x", "1")]),
  ]],
  ["G-single-realtime", "a stale read", [
    txn("A", [0, 1], [append("x", "1")]),
    txn("B", [2, 3], [read("x")]),
    txn("C", [4, 5], [read("x", "1")]),
  ]],
  ["G-single-realtime", "an acknowledged append is lost", [
    txn("A", [0, 1], [append("x", "1")]),
    txn("B", [2, 3], [read("x")]),
  ]],
  ["G0-realtime", "a later transaction's append comes first", [
    txn("A", [0, 1], [append("x", "1")]),
    txn("B", [2, 3], [append("x", "2")]),
    txn("C", [0, 9], [read("x", "2", "1")]),
  ]],
  ["G1c-realtime", "a read from the future", [
    txn("A", [0, 1], [read("x", "1")]),
    txn("B", [2, 3], [append("x", "1")]),
  ]],
  ["G2-realtime", "a transaction must be before the one that has to be before its predecessor", [
    txn("A", [3, 4], [read("x")]),
    txn("B", [0, 9], [append("x", "1"), read("y")]),
    txn("C", [1, 2], [append("y", "1")]),
  ]],
  ["G-single", "an unknown transaction shows in one list and not in the other", [
    txn("A", [0, never], [append("x", "1"), append("y", "1")]),
    txn("B", [1, 2], [read("x", "1"), read("y")]),
    txn("C", [3, 4], [read("y", "1")]),
  ]],
  ["G-single-realtime", "an unknown transaction shows and vanishes", [
    txn("A", [0, never], [append("x", "1")]),
    txn("B", [1, 2], [read("x", "1")]),
    txn("C", [3, 4], [read("x")]),
  ]],
  ["duplicate", "an append is executed twice", [
    txn("A", [0, 1], [append("x", "1")]),
    txn("B", [2, 3], [read("x", "1", "1")]),
  ]],
  ["invented", "a read finds what nobody appended", [txn("A", [0, 1], [read("x", "9")])]],
  ["fork", "two reads agree on no order", [
    txn("A", [0, 9], [append("x", "1")]),
    txn("B", [1, 8], [append("x", "2")]),
    txn("C", [10, 11], [read("x", "1", "2")]),
    txn("D", [12, 13], [read("x", "2", "1")]),
  ]],
  ["internal", "a transaction does not see its own append", [
    txn("A", [0, 1], [append("x", "1"), read("x")]),
  ]],
  ["internal", "a transaction's appends are in another order than it made them", [
    txn("A", [0, 1], [append("x", "1"), append("x", "2"), append("x", "3")]),
    txn("B", [2, 3], [read("x", "2", "1", "3")]),
  ]],
  ["internal", "one of a transaction's appends is missing between others", [
    txn("A", [0, 1], [append("x", "1"), append("x", "2"), append("x", "3")]),
    txn("B", [2, 3], [read("x", "1", "3")]),
  ]],
  ["internal", "a transaction sees an append that it only makes later", [
    txn("A", [0, 1], [read("x", "1"), append("x", "1")]),
  ]],
  ["internal", "a transaction reads one list twice and differently", [
    txn("A", [0, 9], [read("x"), read("x", "1")]),
    txn("B", [1, 2], [append("x", "1")]),
  ]],
];

for (const [name, history] of RIGHT) {
  Deno.test(`checkListAppend() accepts ${name}`, () => {
    const { valid, problems } = checkListAppend(history);
    assert(valid, problems.join("\n"));
  });
}

for (const [anomaly, name, history] of WRONG) {
  Deno.test(`checkListAppend() calls it ${anomaly} when ${name}`, () => {
    const { valid, anomalies, problems } = checkListAppend(history);
    assert.equal(valid, false);
    assert(anomalies.includes(anomaly), problems.join("\n"));
  });
}

Deno.test("checkListAppend() tells a cycle in words: who did what, and after whom", () => {
  const skew = WRONG.find(([, name]) => name.startsWith("a write skew:"))![2];
  const { problems } = checkListAppend(skew);
  assert.equal(problems.length, 1);
  assert.match(problems[0]!, /^G2: a cycle/);
  assert.match(problems[0]!, /B appended 1 to x, of which it had read \[\] \(rw, A\)/);
  assert.match(problems[0]!, /A appended 1 to y, of which it had read \[\] \(rw, B\)/);
});

Deno.test("checkListAppend() refuses a workload that appends an element twice", () => {
  assert.throws(
    () =>
      checkListAppend([
        txn("A", [0, 1], [append("x", "1")]),
        txn("B", [2, 3], [append("x", "1")]),
      ]),
    /unique elements/,
  );
});

Deno.test("listTransactionsOf() takes the transactions out of a recorded history", () => {
  let now = 0;
  const recorder = new HistoryRecorder({ nowNs: () => ++now });
  const open = recorder.invoke("c", {
    op: "txn",
    steps: [{ kind: "read", key: "x" }, { kind: "append", key: "y", element: "1" }],
  });
  recorder.ok(open, { lists: [["7"]] });
  recorder.invoke("d", { op: "txn", steps: [{ kind: "read", key: "x" }] });
  recorder.invoke("e", { op: "get", row: "r", column: "x" });
  assert.deepEqual(listTransactionsOf(recorder.operations), [
    {
      name: "T0 of c",
      outcome: "ok",
      steps: [read("x", "7"), append("y", "1")],
      callIndex: 0,
      returnIndex: 1,
    },
    { name: "T1 of d", outcome: "unknown", steps: [unseen("x")], callIndex: 2, returnIndex: never },
  ]);
});

// ------------------------------------------------------------------- serial by construction

/** Transactions executed one at a time, each between its call and its return. */
function serialHistory(
  options: { seed: number; transactions: number; lost: number; keys?: number },
): ListTransaction[] {
  const { seed, transactions, lost, keys = 6 } = options;
  const random = new SeededRandom(seed);
  const lists = new Map<string, string[]>();
  const open: { -readonly [K in keyof ListTransaction]: ListTransaction[K] }[] = [];
  const executed = new Set<ListTransaction>();
  const history: ListTransaction[] = [];
  let event = 0, elements = 0;
  const execute = (item: { steps: readonly ListStep[] }) => {
    item.steps = item.steps.map((step): ListStep => {
      const list = lists.get(step.key) ?? [];
      if (step.kind === "read") return { ...step, list: [...list] };
      lists.set(step.key, [...list, step.element]);
      return step;
    });
  };
  while (history.length < transactions || open.length > 0) {
    if (history.length < transactions && open.length < 8 && random.chance(0.4)) {
      const steps = Array.from({ length: 1 + random.integer(4) }, (): ListStep => {
        // New lists come and old ones stop growing, so that no list gets long.
        const key = `k${Math.floor(history.length / 40)}/${random.integer(keys)}`;
        return random.chance(0.5) ? unseen(key) : append(key, `${++elements}`);
      });
      const item = txn(`T${history.length}`, [event++, never], steps);
      open.push(item);
      history.push(item);
      continue;
    }
    if (open.length === 0) continue;
    const item = random.pick(open);
    if (!executed.has(item)) {
      if (random.chance(0.9)) {
        execute(item);
        executed.add(item);
      } else if (random.chance(lost)) {
        item.outcome = random.chance(0.5) ? "unknown" : "fail";
        item.returnIndex = item.outcome === "fail" ? event++ : never;
        open.splice(open.indexOf(item), 1);
      }
      continue;
    }
    open.splice(open.indexOf(item), 1);
    if (random.chance(lost)) {
      item.steps = item.steps.map((step) => step.kind === "read" ? { ...step, list: null } : step);
    } else {
      item.outcome = "ok";
      item.returnIndex = event++;
    }
  }
  return history;
}

Deno.test("checkListAppend() accepts whatever a really serial store answers, lost answers included", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const history = serialHistory({ seed, transactions: 120, lost: (seed % 4) * 0.1 });
    const { valid, problems } = checkListAppend(history);
    assert(valid, `seed ${seed}: ${problems.join("\n")}`);
  }
});

type ReadPlace = { transaction: number; step: number; key: string; list: readonly string[] };

function readsOf(history: readonly ListTransaction[]): ReadPlace[] {
  return history.flatMap(({ steps, outcome }, transaction) =>
    steps.flatMap((item, step) =>
      outcome === "ok" && item.kind === "read" && item.list !== null
        ? [{ transaction, step, key: item.key, list: item.list }]
        : []
    )
  );
}

function withRead(
  history: readonly ListTransaction[],
  place: ReadPlace,
  list: readonly string[],
): ListTransaction[] {
  return history.map((item, index) =>
    index !== place.transaction ? item : {
      ...item,
      steps: item.steps.map((step, i) =>
        i === place.step && step.kind === "read" ? { ...step, list } : step
      ),
    }
  );
}

const writerOf = (history: readonly ListTransaction[], element: string) =>
  history.find(({ steps }) =>
    steps.some((step) => step.kind === "append" && step.element === element)
  )!;

const SPOILERS: Record<
  string,
  (history: readonly ListTransaction[], random: SeededRandom) => ListTransaction[] | null
> = {
  "a read misses the newest element, acknowledged before it began": (history, random) => {
    const places = readsOf(history).filter(({ transaction, list }) =>
      list.length > 0 &&
      writerOf(history, list.at(-1)!).returnIndex < history[transaction]!.callIndex
    );
    if (places.length === 0) return null;
    const place = random.pick(places);
    return withRead(history, place, place.list.slice(0, -1));
  },
  "a read finds two elements in the other order": (history, random) => {
    const places = readsOf(history).filter(({ list, key, transaction }) =>
      list.length >= 2 &&
      readsOf(history).some((other) =>
        other.transaction !== transaction && other.key === key && other.list.length >= list.length
      )
    );
    if (places.length === 0) return null;
    const place = random.pick(places), { list } = place;
    return withRead(history, place, [...list.slice(0, -2), list.at(-1)!, list.at(-2)!]);
  },
  "a read finds an element twice": (history, random) => {
    const places = readsOf(history).filter(({ list }) => list.length > 0);
    if (places.length === 0) return null;
    const place = random.pick(places);
    return withRead(history, place, [...place.list, place.list[0]!]);
  },
  "a transaction that was read is reported as aborted": (history, random) => {
    const places = readsOf(history).filter(({ list, transaction }) =>
      list.some((element) => writerOf(history, element) !== history[transaction])
    );
    if (places.length === 0) return null;
    const { list, transaction } = random.pick(places);
    const element = list.find((item) => writerOf(history, item) !== history[transaction])!;
    const writer = writerOf(history, element);
    return history.map((item) => item === writer ? { ...item, outcome: "fail" as const } : item);
  },
  "an acknowledged element is in no read at all": (history, random) => {
    const elements = readsOf(history).flatMap(({ list, transaction }) =>
      list.filter((element) =>
        writerOf(history, element).returnIndex < history[transaction]!.callIndex
      )
    );
    if (elements.length === 0) return null;
    const lost = random.pick(elements);
    return history.map((item) => ({
      ...item,
      steps: item.steps.map((step) =>
        step.kind === "read" && step.list !== null
          ? { ...step, list: step.list.filter((element) => element !== lost) }
          : step
      ),
    }));
  },
};

for (const [name, spoil] of Object.entries(SPOILERS)) {
  Deno.test(`checkListAppend() rejects a serial history in which ${name}`, () => {
    let spoiled = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const random = new SeededRandom(seed);
      const history = serialHistory({ seed, transactions: 40, lost: (seed % 3) * 0.1, keys: 3 });
      const bad = spoil(history, random);
      if (bad === null) continue;
      spoiled += 1;
      assert.equal(checkListAppend(bad).valid, false, `seed ${seed}`);
    }
    assert(spoiled >= 30, `only ${spoiled} histories could be spoiled`);
  });
}

// ------------------------------------------------------------------------ the definition

/** Whether some order that respects time gives every read its answer. */
function strictlySerializable(
  history: readonly ListTransaction[],
  lists: ReadonlyMap<string, readonly string[]> = new Map(),
): boolean {
  if (history.length === 0) return true;
  return history.some((item) => {
    if (history.some((other) => other.returnIndex < item.callIndex)) return false;
    const after = new Map(lists);
    for (const step of item.steps) {
      const list = after.get(step.key) ?? [];
      if (step.kind === "append") after.set(step.key, [...list, step.element]);
      else if (step.list?.join() !== list.join()) return false;
    }
    return strictlySerializable(history.filter((other) => other !== item), after);
  });
}

Deno.test("checkListAppend() agrees with trying every order, on small histories with random answers", () => {
  let good = 0, bad = 0;
  for (let seed = 1; seed <= 6_000; seed++) {
    const history = randomHistory(new SeededRandom(seed));
    const expected = strictlySerializable(history);
    const { valid, problems } = checkListAppend(history);
    assert.equal(
      valid,
      expected,
      `seed ${seed}: ${problems.join("\n")}\n${JSON.stringify(history)}`,
    );
    if (expected) good += 1;
    else bad += 1;
  }
  assert(good > 500 && bad > 500, `${good} good, ${bad} bad`);
});

/** A few transactions and a last one that reads everything, each read some prefix of the final list. */
function randomHistory(random: SeededRandom): ListTransaction[] {
  const count = 2 + random.integer(3), keys = ["x", "y"];
  const times = Array.from({ length: 2 * count }, (_, i) => i);
  const take = () => times.splice(random.integer(times.length), 1)[0]!;
  const final = new Map<string, string[]>(keys.map((key) => [key, []]));
  const drafts = Array.from({ length: count }, (_, i) => {
    const [a, b] = [take(), take()];
    const steps = Array.from({ length: 1 + random.integer(3) }, (_, j): ListStep => {
      const key = random.pick(keys);
      if (random.chance(0.5)) return unseen(key);
      const list = final.get(key)!, element = `${i}.${j}`;
      // Nearly in the order of the transactions, so that many histories are right.
      if (random.chance(0.8)) list.push(element);
      else list.splice(random.integer(list.length + 1), 0, element);
      return append(key, element);
    });
    return txn(`T${i}`, [Math.min(a, b), Math.max(a, b)], steps);
  });
  const history = drafts.map((item, i) => {
    const lengths = new Map<string, number>();
    return {
      ...item,
      steps: item.steps.map((step): ListStep => {
        if (step.kind === "append") {
          // Its own element must be at the end of what it reads from here on, as a rule.
          lengths.set(step.key, final.get(step.key)!.indexOf(step.element) + 1);
          return step;
        }
        const list = final.get(step.key)!;
        const likely = lengths.get(step.key) ??
          list.filter((element) => Number(element.split(".")[0]) < i).length;
        const length = random.chance(0.8) ? likely : random.integer(list.length + 1);
        lengths.set(step.key, length);
        return { ...step, list: list.slice(0, length) };
      }),
    };
  });
  const end = 2 * count;
  return [
    ...history,
    txn("final", [end, end + 1], keys.map((key) => read(key, ...final.get(key)!))),
  ];
}

Deno.test("checkListAppend() judges 100 000 transactions with a handful of edges each", () => {
  const history = serialHistory({ seed: 11, transactions: 100_000, lost: 0.02 });
  const startedMs = performance.now();
  const { valid, edges, problems } = checkListAppend(history);
  console.log(
    `100 000 transactions: ${edges} edges, ${Math.round(performance.now() - startedMs)} ms`,
  );
  assert(valid, problems.join("\n"));
  assert(edges < 2_000_000, `${edges} edges`);
});
