/**
 * Transactions that read lists and append to them, judged for strict serializability by the method of
 * Elle: what is read shows in which order elements were appended, and so how the transactions depend
 * on each other.
 *
 * A transaction reads the lists that it wants, then commits with the condition that none of them has
 * changed since. The lists of a generation lie in different groups and take a few hundred
 * transactions; then a new generation begins, so that lists stay short and histories can be judged
 * between two faults.
 */
import { decodeText, encodeText, type Kv, type RowOp } from "../../kv/kv.ts";
import type { Version } from "../../proto/ids.ts";
import {
  type HistoryEvent,
  historyLines,
  HistoryRecorder,
  type TxnStep,
} from "../checkers/history.ts";
import { checkListAppend, listTransactionsOf } from "../checkers/list_append.ts";
import { inLanes, prefixOf, type Workload, type WorkloadContext } from "./workload.ts";

const LANES_PER_GROUP = 1;
const BREATH_MS = 120;
const LISTS_PER_GROUP = 2;
const GENERATION_TRANSACTIONS = 250;
const STEPS_MAX = 3;
const COLUMN = "list";

interface Generation {
  readonly number: number;
  readonly recorder: HistoryRecorder;
  startedCount: number;
  openCount: number;
  unknownCount: number;
}

interface Seen {
  readonly elements: readonly string[];
  readonly version: Version;
}

export class Lists implements Workload {
  readonly name = "lists";
  readonly #context: WorkloadContext;
  readonly #problems: string[] = [];
  #current: Generation;
  #finished: Generation[] = [];
  #elementCount = 0;
  #judgedCount = 0;

  constructor(context: WorkloadContext) {
    this.#context = context;
    this.#current = this.#begin(1);
  }

  async run(stop: AbortSignal): Promise<void> {
    const options = { perGroup: LANES_PER_GROUP, breathMs: BREATH_MS, stop };
    await inLanes(this.#context, options, async ({ kv, name }) => {
      if (this.#current.startedCount >= GENERATION_TRANSACTIONS) {
        this.#finished.push(this.#current);
        this.#current = this.#begin(this.#current.number + 1);
      }
      await this.#transaction(this.#current, kv, name);
    });
    this.#finished.push(this.#current);
  }

  async settle(kv: Kv): Promise<void> {
    // What nobody knows the end of may still happen; such generations are judged when all is over.
    const ready = (it: Generation) => it.openCount === 0 && it.unknownCount === 0;
    const generations = this.#finished.filter(ready);
    this.#finished = this.#finished.filter((it) => !ready(it));
    for (const generation of generations) await this.#judge(generation, kv);
  }

  async check(kv: Kv): Promise<string[]> {
    for (const generation of this.#finished.splice(0)) await this.#judge(generation, kv);
    return this.#problems;
  }

  describe(): string {
    return `${this.#judgedCount} transactions on lists`;
  }

  #begin(number: number): Generation {
    const base = number * 1_000_000;
    const onEvent = (event: HistoryEvent) =>
      this.#context.onHistory(event.id === undefined ? event : { ...event, id: base + event.id });
    const recorder = new HistoryRecorder({ nowNs: () => performance.now() * 1e6, onEvent });
    return { number, recorder, startedCount: 0, openCount: 0, unknownCount: 0 };
  }

  #keys({ number }: Generation): string[] {
    return this.#context.groups.flatMap((group) =>
      Array.from({ length: LISTS_PER_GROUP }, (_, i) => `${prefixOf(group)}-list-${number}-${i}`)
    );
  }

  async #transaction(generation: Generation, kv: Kv, name: string): Promise<void> {
    const { random } = this.#context;
    const keys = this.#keys(generation);
    const steps: TxnStep[] = [];
    const count = 1 + random.integer(Math.min(STEPS_MAX, keys.length));
    for (let left = count; left > 0; left--) {
      const [key] = keys.splice(random.integer(keys.length), 1) as [string];
      const element = `${++this.#elementCount}`;
      steps.push(random.chance(0.5) ? { kind: "read", key } : { kind: "append", key, element });
    }
    await this.#run(generation, steps, { kv, name });
  }

  async #run(
    generation: Generation,
    steps: readonly TxnStep[],
    { kv, name }: { kv: Kv; name: string },
  ): Promise<void> {
    const { recorder } = generation, { tally } = this.#context;
    generation.startedCount += 1;
    generation.openCount += 1;
    const open = recorder.invoke(name, { op: "txn", steps: [...steps] });
    const reading = await tally.settle(Promise.all(steps.map(({ key }) => readList(kv, key))));
    // Nothing was sent that could change anything.
    if (reading.outcome !== "ok") recorder.fail(open, { error: reading.error.code });
    else {
      const seen = reading.result;
      const ended = await tally.settle(kv.transact(steps.map((step, i) => opOf(step, seen[i]!))));
      if (ended.outcome === "unknown") {
        generation.unknownCount += 1;
        recorder.unknown(open, ended.error.code);
      } else if (ended.outcome === "fail") recorder.fail(open, { error: ended.error.code });
      else if (!ended.result.applied) recorder.fail(open, { error: "a list has changed" });
      else {
        const lists = steps.flatMap((step, i) =>
          step.kind === "read" ? [[...seen[i]!.elements]] : []
        );
        recorder.ok(open, { lists });
      }
    }
    generation.openCount -= 1;
  }

  /** Reads everything once more, in one transaction, and asks whether there is one order of it all. */
  async #judge(generation: Generation, kv: Kv): Promise<void> {
    const reads = this.#keys(generation).map((key): TxnStep => ({ kind: "read", key }));
    await this.#run(generation, reads, { kv, name: "judge" });
    const { operations } = generation.recorder;
    const { problems, transactions } = checkListAppend(listTransactionsOf(operations));
    this.#judgedCount += transactions;
    if (problems.length === 0) return;
    this.#problems.push(`generation ${generation.number}: ${problems.join("; ")}`);
    this.#context.keep(`lists-${generation.number}`, historyLines(operations));
  }
}

async function readList(kv: Kv, row: string): Promise<Seen> {
  const cell = await kv.get(row, COLUMN);
  if (cell === null) return { elements: [], version: 0 as Version };
  const text = decodeText(cell.value);
  return { elements: text.split(" "), version: cell.version };
}

function opOf(step: TxnStep, { elements, version }: Seen): RowOp {
  const conditions = [{ column: COLUMN, is: "version" as const, version }];
  if (step.kind === "read") return { row: step.key, conditions, mutations: [] };
  const value = encodeText([...elements, step.element].join(" "));
  return {
    row: step.key,
    conditions,
    mutations: [{ kind: "put", column: COLUMN, value }],
  };
}
