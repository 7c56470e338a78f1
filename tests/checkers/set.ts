/**
 * Sets that only grow: clients add unique elements and read everything. Whatever was acknowledged is in
 * every later read, once; what was refused is in none; what nobody knows may appear at any time after
 * it was asked for, but what has been seen once never vanishes.
 *
 * Start at {@link checkSet}, or at {@link checkFinalSet} for a workload that reads only at the end.
 */
import { Problems, someOf, type Verdict } from "./verdict.ts";

export interface SetAddition {
  readonly element: string;
  readonly outcome: "ok" | "fail" | "unknown";
  /** Order of the two events; any rising numbers. No return: `Infinity`. */
  readonly callIndex: number;
  readonly returnIndex: number;
}

export interface SetRead {
  /** As found, doubles included. */
  readonly elements: readonly string[];
  readonly callIndex: number;
  readonly returnIndex: number;
}

export function checkSet(
  history: { additions: readonly SetAddition[]; reads: readonly SetRead[] },
): Verdict {
  const problems = new Problems();
  const added = new Map(history.additions.map((item) => [item.element, item]));
  if (added.size !== history.additions.length) {
    throw new Error("The workload must add unique elements; one is added twice");
  }
  const certain = history.additions.filter((item) => item.outcome === "ok")
    .toSorted((a, b) => a.returnIndex - b.returnIndex);
  const reads = history.reads.toSorted((a, b) => a.callIndex - b.callIndex);
  const finished = history.reads.toSorted((a, b) => a.returnIndex - b.returnIndex);
  /** What every read from here on must find. */
  const acknowledged = new Set<string>(), seen = new Set<string>();
  let nextAdded = 0, nextRead = 0;
  for (const read of reads) {
    for (let item; (item = certain[nextAdded]) && item.returnIndex < read.callIndex; nextAdded++) {
      acknowledged.add(item.element);
    }
    for (let item; (item = finished[nextRead]) && item.returnIndex < read.callIndex; nextRead++) {
      for (const element of item.elements) seen.add(element);
    }
    checkRead(read, { added, acknowledged, seen, problems });
  }
  return problems.verdict;
}

function checkRead(read: SetRead, state: {
  added: ReadonlyMap<string, SetAddition>;
  acknowledged: ReadonlySet<string>;
  seen: ReadonlySet<string>;
  problems: Problems;
}): void {
  const { added, acknowledged, seen, problems } = state;
  const found = new Set(read.elements);
  const say = (elements: Iterable<string>, what: string) => {
    const list = [...elements];
    if (list.length > 0) problems.add(`${list.length} ${what}: ${someOf(list)}`);
  };
  const lost = [...acknowledged].filter((element) => !found.has(element));
  say(lost, `of ${acknowledged.size} acknowledged elements are lost`);
  say(
    [...seen].filter((element) => !found.has(element) && !acknowledged.has(element)),
    "elements were there before and have vanished",
  );
  if (found.size < read.elements.length) {
    const once = new Set<string>();
    say(
      new Set(read.elements.filter((element) => once.size === once.add(element).size)),
      "elements were added more than once",
    );
  }
  say([...found].filter((element) => !added.has(element)), "elements are there that nobody added");
  say(
    [...found].filter((element) => added.get(element)?.outcome === "fail"),
    "elements are there although adding them was refused",
  );
  say(
    [...found].filter((element) => (added.get(element)?.callIndex ?? 0) > read.returnIndex),
    "elements were read before anybody added them",
  );
}

/** One read, after everything else. */
export function checkFinalSet(history: {
  acknowledged: Iterable<string>;
  unknown?: Iterable<string>;
  refused?: Iterable<string>;
  found: Iterable<string>;
}): Verdict {
  const { acknowledged, unknown = [], refused = [], found } = history;
  const additions: SetAddition[] = [];
  const add = (elements: Iterable<string>, outcome: SetAddition["outcome"]) => {
    const returnIndex = outcome === "unknown" ? Infinity : 1;
    for (const element of elements) {
      additions.push({ element, outcome, callIndex: 0, returnIndex });
    }
  };
  add(acknowledged, "ok");
  add(unknown, "unknown");
  add(refused, "fail");
  return checkSet({ additions, reads: [{ elements: [...found], callIndex: 2, returnIndex: 3 }] });
}
