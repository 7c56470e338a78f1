/**
 * Counters: many clients add to one number and read it, by `add` mutations or by compare-and-put in a
 * loop. Checks what holds in every serial order that respects time, in linearithmic time:
 *
 * - a read lies between what must have been added before it was called and what may have been by the
 *   time it returned; an unknown addition may count at any time from its call on, or never;
 * - an addition that was told its sum is a read of that sum which contains itself;
 * - when all additions are positive, each that was told its sum owns the numbers from its predecessor's
 *   sum on: nobody else may own them (a lost update or a double), and the numbers that nobody owns
 *   must be few enough for the unknown ones.
 *
 * Start at {@link checkCounter}.
 */
import { Problems, type Verdict } from "./verdict.ts";

export interface Addition {
  readonly by: number;
  readonly outcome: "ok" | "fail" | "unknown";
  /** The sum that it was told, if any. */
  readonly sum?: number | undefined;
  /** Order of the two events; any rising numbers. No return: `Infinity`. */
  readonly callIndex: number;
  readonly returnIndex: number;
}

export interface CounterRead {
  readonly value: number;
  readonly callIndex: number;
  readonly returnIndex: number;
}

export interface CounterHistory {
  /** Names the counter in messages. */
  readonly name?: string;
  readonly initial?: number;
  readonly additions: readonly Addition[];
  readonly reads: readonly CounterRead[];
}

export function checkCounter(history: CounterHistory): Verdict {
  const { name = "the counter", initial = 0 } = history;
  const problems = new Problems();
  const additions = history.additions.filter((item) => item.outcome !== "fail");
  const bounds = new SumBounds(additions, initial);
  for (const { value, callIndex, returnIndex } of history.reads) {
    const { low, high } = bounds.during(callIndex, returnIndex);
    if (value < low || value > high) {
      problems.add(`a read of ${name} finds ${value}; it must be from ${low} to ${high}`);
    }
  }
  for (const addition of additions) {
    const { sum, by, callIndex, returnIndex } = addition;
    if (sum === undefined) continue;
    // Its own share counts for certain, and only once.
    const { low, high } = bounds.during(callIndex, returnIndex);
    const least = low + Math.max(0, by), most = high + Math.min(0, by);
    if (sum < least || sum > most) {
      problems.add(
        `an addition of ${by} to ${name} is told ${sum}; it must be from ${least} to ${most}`,
      );
    }
  }
  if (additions.every((item) => item.by > 0)) checkOwners(name, initial, additions, problems);
  return problems.verdict;
}

function checkOwners(
  name: string,
  initial: number,
  additions: readonly Addition[],
  problems: Problems,
): void {
  const told = additions.filter((item) => item.sum !== undefined).sort((a, b) => a.sum! - b.sum!);
  let free = additions.filter((item) => item.sum === undefined).reduce(
    (sum, { by }) => sum + by,
    0,
  );
  let end = initial;
  for (const { sum, by } of told) {
    const start = sum! - by;
    if (start < end) {
      problems.add(
        `an addition of ${by} to ${name} is told ${sum}, but another was already told ${end}: ` +
          `one of them is lost or done twice`,
      );
    }
    free -= Math.max(0, start - end);
    end = Math.max(end, sum!);
  }
  if (free < 0) {
    problems.add(
      `${name} reached ${end}, which is ${-free} more than was added to it, unknown ones included`,
    );
  }
  const latest = told.toSorted((a, b) => a.callIndex - b.callIndex);
  const returned = told.toSorted((a, b) => a.returnIndex - b.returnIndex);
  let next = 0, newest = -Infinity;
  for (const { sum, callIndex } of latest) {
    while (returned[next] !== undefined && returned[next]!.returnIndex < callIndex) {
      newest = Math.max(newest, returned[next++]!.sum!);
    }
    if (sum! <= newest) {
      problems.add(
        `${name} goes back: one addition is told ${sum} after another was told ${newest}`,
      );
    }
  }
}

/**
 * What a sum of additions can be while something else happens. Useful on its own: an account is a
 * counter, too.
 */
export class SumBounds {
  readonly #initial: number;
  /** Running totals by time. */
  readonly #certainLow: Totals;
  readonly #certainHigh: Totals;
  readonly #possibleLow: Totals;
  readonly #possibleHigh: Totals;

  /** @param additions without the failed ones */
  constructor(additions: readonly Addition[], initial: number) {
    this.#initial = initial;
    const certain = additions.filter((item) => item.outcome === "ok");
    const [down, up] = [(by: number) => Math.min(0, by), (by: number) => Math.max(0, by)];
    this.#certainHigh = new Totals(certain.map((a) => [a.returnIndex, down(a.by)]));
    this.#certainLow = new Totals(certain.map((a) => [a.returnIndex, up(a.by)]));
    this.#possibleHigh = new Totals(additions.map((a) => [a.callIndex, up(a.by)]));
    this.#possibleLow = new Totals(additions.map((a) => [a.callIndex, down(a.by)]));
  }

  /** For one that was called and returned at these places. */
  during(callIndex: number, returnIndex: number): { low: number; high: number } {
    return {
      low: this.#initial + this.#certainLow.before(callIndex) +
        this.#possibleLow.before(returnIndex),
      high: this.#initial + this.#possibleHigh.before(returnIndex) +
        this.#certainHigh.before(callIndex),
    };
  }
}

class Totals {
  readonly #at: Float64Array;
  readonly #sum: Float64Array;

  constructor(items: [at: number, by: number][]) {
    items.sort((a, b) => a[0] - b[0]);
    this.#at = Float64Array.from(items, ([at]) => at);
    this.#sum = new Float64Array(items.length + 1);
    for (const [i, [, by]] of items.entries()) this.#sum[i + 1] = this.#sum[i]! + by;
  }

  /** The sum of everything strictly before `index`. */
  before(index: number): number {
    let low = 0, high = this.#at.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#at[middle]! < index) low = middle + 1;
      else high = middle;
    }
    return this.#sum[low]!;
  }
}
