/**
 * Unique values appended to rows that only grow. Every acknowledged value must be there in the end,
 * at the number that was given for it, once; and nothing else but what nobody knows the end of.
 */
import { decodeText, encodeText, type Kv, type RowResult } from "../../kv/kv.ts";
import { inLanes, prefixOf, some, type Workload, type WorkloadContext } from "./workload.ts";

const LANES_PER_GROUP = 2;
const BREATH_MS = 100;
/** A new row then begins: reading one back takes a few pages. */
const ROW_APPENDS = 1_500;
const PAGE = 1_000;

export class Appends implements Workload {
  readonly name = "appends";
  readonly #context: WorkloadContext;
  /** Value to the number it was given, by row. */
  readonly #acked = new Map<string, Map<string, number>>();
  readonly #unknown = new Set<string>();
  #lastValue = 0;

  constructor(context: WorkloadContext) {
    this.#context = context;
  }

  run(stop: AbortSignal): Promise<void> {
    const options = { perGroup: LANES_PER_GROUP, breathMs: BREATH_MS, stop };
    const rowCount = new Map<number, number>();
    return inLanes(this.#context, options, async ({ group, kv, name }) => {
      const count = rowCount.get(group.id) ?? 0;
      rowCount.set(group.id, count + 1);
      const row = `${prefixOf(group)}-set-${Math.floor(count / ROW_APPENDS)}`;
      await this.#append(kv, row, `${name}-${++this.#lastValue}`);
    });
  }

  async #append(kv: Kv, row: string, value: string): Promise<void> {
    const ended = await this.#context.tally.settle(kv.apply({
      row,
      mutations: [{ kind: "append", counter: "count", prefix: "v/", value: encodeText(value) }],
    }));
    let acked = this.#acked.get(row);
    if (acked === undefined) this.#acked.set(row, acked = new Map());
    if (ended.outcome === "ok") acked.set(value, numberOf(ended.result));
    else if (ended.outcome === "unknown") this.#unknown.add(value);
  }

  async check(kv: Kv): Promise<string[]> {
    const problems: string[] = [];
    for (const [row, acked] of this.#acked) {
      const found = await readRow(kv, row);
      problems.push(...this.#judge(row, acked, found));
    }
    return problems;
  }

  #judge(row: string, acked: ReadonlyMap<string, number>, found: readonly Found[]): string[] {
    const numbers = Map.groupBy(found, ({ value }) => value);
    const lost = [...acked].filter(([value, number]) =>
      !numbers.get(value)?.some((at) => at.number === number)
    ).map(([value, number]) => `${value} at ${number}`);
    const doubled = [...numbers].filter(([, at]) => at.length > 1).map(([value]) => value);
    const invented = found.map(({ value }) => value)
      .filter((value) => !acked.has(value) && !this.#unknown.has(value));
    const problems: string[] = [];
    if (lost.length > 0) {
      problems.push(`${row}: ${lost.length} acknowledged appends are lost: ${some(lost)}`);
    }
    if (doubled.length > 0) problems.push(`${row}: executed twice: ${some(doubled)}`);
    if (invented.length > 0) {
      problems.push(`${row}: there, though reported as not executed: ${some(invented)}`);
    }
    return problems;
  }

  describe(): string {
    const count = [...this.#acked.values()].reduce((sum, row) => sum + row.size, 0);
    return `${count} appends`;
  }
}

interface Found {
  readonly number: number;
  readonly value: string;
}

async function readRow(kv: Kv, row: string): Promise<Found[]> {
  const found: Found[] = [];
  let after: string | undefined;
  for (;;) {
    const page = await kv.getRow(row, {
      prefix: "v/",
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
    });
    for (const { column, value } of page.cells) {
      found.push({ number: Number(column.slice(2)), value: decodeText(value!) });
    }
    if (page.next === null) return found;
    after = page.next;
  }
}

function numberOf(result: RowResult): number {
  if (!result.applied) throw new Error("An append without conditions was refused");
  return result.numbers[0]!;
}
