/**
 * Counters that are only raised. No two additions may be given the same number, one that began after
 * another had ended must be given a larger one, and in the end the counter holds as many as were
 * acknowledged, or more by what nobody knows the end of.
 */
import { decodeText, type Kv } from "../../kv/kv.ts";
import { inLanes, prefixOf, some, type Workload, type WorkloadContext } from "./workload.ts";

const LANES_PER_GROUP = 2;
const BREATH_MS = 100;

interface Counter {
  ackedCount: number;
  unknownCount: number;
  /** The largest number that any addition was given by now. */
  largest: number;
  readonly given: Set<number>;
}

export class Counters implements Workload {
  readonly name = "counters";
  readonly #context: WorkloadContext;
  readonly #counters = new Map<string, Counter>();
  readonly #problems: string[] = [];

  constructor(context: WorkloadContext) {
    this.#context = context;
  }

  run(stop: AbortSignal): Promise<void> {
    const options = { perGroup: LANES_PER_GROUP, breathMs: BREATH_MS, stop };
    return inLanes(this.#context, options, async ({ group, kv }) => {
      const row = `${prefixOf(group)}-sum`;
      let counter = this.#counters.get(row);
      if (counter === undefined) {
        counter = { ackedCount: 0, unknownCount: 0, largest: 0, given: new Set() };
        this.#counters.set(row, counter);
      }
      await this.#add(kv, row, counter);
    });
  }

  async #add(kv: Kv, row: string, counter: Counter): Promise<void> {
    const largestBefore = counter.largest;
    const ended = await this.#context.tally.settle(
      kv.apply({ row, mutations: [{ kind: "add", column: "sum", by: 1 }] }),
    );
    if (ended.outcome === "unknown") counter.unknownCount += 1;
    if (ended.outcome !== "ok" || !ended.result.applied) return;
    const number = ended.result.numbers[0]!;
    counter.ackedCount += 1;
    if (counter.given.has(number)) {
      this.#problems.push(`${row}: two additions were given ${number}`);
    }
    if (number <= largestBefore) {
      this.#problems.push(
        `${row}: an addition was given ${number}, and one that ended before it began ${largestBefore}`,
      );
    }
    counter.given.add(number);
    counter.largest = Math.max(counter.largest, number);
  }

  async check(kv: Kv): Promise<string[]> {
    const problems = this.#problems.length === 0 ? [] : [some(this.#problems)];
    for (const [row, { ackedCount, unknownCount }] of this.#counters) {
      const cell = await kv.get(row, "sum");
      const sum = cell === null ? 0 : Number(decodeText(cell.value));
      if (sum >= ackedCount && sum <= ackedCount + unknownCount) continue;
      problems.push(
        `${row}: the counter stands at ${sum} after ${ackedCount} acknowledged additions and ` +
          `${unknownCount} of unknown end`,
      );
    }
    return problems;
  }

  describe(): string {
    const count = [...this.#counters.values()].reduce((sum, { ackedCount }) => sum + ackedCount, 0);
    return `${count} additions`;
  }
}
