/**
 * Rows under concurrent reads, writes, compare-and-puts and deletions, judged for linearizability: was
 * there one order of all operations that explains every answer, versions included?
 *
 * A row takes some forty operations, then clients move on to a fresh one, because short histories can
 * be judged for certain. Between two faults the rows that are finished are read once more and judged;
 * what a row then holds is remembered and must still be the same when everything is over.
 *
 * Some reads go past the client straight to a replica, which must answer as the primary that it is or
 * refuse: this is how a primary from the past would be caught.
 */
import {
  type Condition,
  decodeText,
  encodeText,
  type FullCell,
  type Kv,
  type Mutation,
} from "../../kv/kv.ts";
import type { Version } from "../../proto/ids.ts";
import {
  type HistoryEvent,
  historyLines,
  HistoryRecorder,
  valueLabel,
} from "../checkers/history.ts";
import { checkRow } from "../checkers/linearizability.ts";
import { RecordedKv } from "../checkers/recorded_kv.ts";
import type { SeededRandom } from "../sim/seeded_random.ts";
import { inLanes, prefixOf, type Workload, type WorkloadContext } from "./workload.ts";
import type { GroupPlan } from "../../proto/cluster_config.ts";

export interface RegisterOptions {
  readonly name: string;
  readonly lanesPerGroup: number;
  readonly breathMs: number;
  readonly operationsPerRow: number;
  readonly columns: readonly string[];
  /** Makes a value that no other is equal to out of a label that no other has. */
  readonly value: (label: string, random: SeededRandom) => Uint8Array;
  /** Rows are emptied when they have been judged, to bound what is stored. */
  readonly forget: boolean;
}

/** More operations of unknown end than this make the search for an order long. */
const UNKNOWN_MAX = 3;
const DIRECT_TIMEOUT_MS = 1_500;

export const SMALL_VALUES: RegisterOptions = {
  name: "registers",
  lanesPerGroup: 4,
  breathMs: 70,
  operationsPerRow: 40,
  columns: ["a", "b"],
  value: (label) => encodeText(label),
  forget: false,
};

const MIB = 1024 * 1024;

export const LARGE_VALUES: RegisterOptions = {
  name: "large values",
  lanesPerGroup: 1,
  breathMs: 2_000,
  operationsPerRow: 20,
  columns: ["large"],
  value: largeValue,
  forget: true,
};

interface Row {
  readonly name: string;
  readonly recorder: HistoryRecorder;
  startedCount: number;
  openCount: number;
  unknownCount: number;
  /** What was seen last, by column: expected by compare-and-puts. */
  readonly seen: Map<string, Version>;
  retired: boolean;
}

export class Registers implements Workload {
  readonly name: string;
  readonly #context: WorkloadContext;
  readonly #options: RegisterOptions;
  readonly #current = new Map<number, Row>();
  #finished: Row[] = [];
  /** What judged rows held: they must not change any more. */
  readonly #judged = new Map<string, string>();
  readonly #problems: string[] = [];
  #rowCount = 0;
  #labelCount = 0;
  #eventIdBase = 0;
  operationCount = 0;
  undecidedCount = 0;

  constructor(context: WorkloadContext, options: RegisterOptions) {
    this.#context = context;
    this.#options = options;
    this.name = options.name;
  }

  async run(stop: AbortSignal): Promise<void> {
    const { lanesPerGroup: perGroup, breathMs } = this.#options;
    const lanes = inLanes(this.#context, { perGroup, breathMs, stop }, async (lane) => {
      const row = this.#rowOf(lane.group);
      await this.#within(row, (kv) => this.#clientStep(row, kv), lane);
    });
    const direct = inLanes(this.#context, { perGroup: 1, breathMs, stop }, async (lane) => {
      const row = this.#rowOf(lane.group);
      await this.#readDirectly(row, lane.group, `${lane.name} direct`);
    });
    await Promise.all([lanes, direct]);
    for (const row of this.#current.values()) this.#retire(row);
    this.#current.clear();
  }

  async settle(kv: Kv): Promise<void> {
    // What nobody knows the end of may still happen; such rows are judged when all is over.
    const ready = (row: Row) => row.openCount === 0 && row.unknownCount === 0;
    const rows = this.#finished.filter(ready);
    this.#finished = this.#finished.filter((row) => !ready(row));
    for (const row of rows) await this.#judge(row, kv);
  }

  async check(kv: Kv): Promise<string[]> {
    for (const row of this.#finished.splice(0)) await this.#judge(row, kv);
    for (const [row, held] of this.#judged) {
      const holds = await contents(kv, row);
      if (holds === held) continue;
      this.#problems.push(`${row}: held ${held} when it was judged, and holds ${holds} now`);
    }
    const rows = this.#judged.size;
    if (this.undecidedCount * 1_000 > rows) {
      this.#problems.push(`${this.undecidedCount} of ${rows} rows could not be decided`);
    }
    return this.#problems;
  }

  describe(): string {
    const { name } = this.#options;
    return `${this.operationCount} operations on ${this.#judged.size} rows (${name}), ` +
      `${this.undecidedCount} undecided`;
  }

  // --------------------------------------------------------------------------------- rows

  #rowOf(group: GroupPlan): Row {
    let row = this.#current.get(group.id);
    if (
      row !== undefined && row.startedCount < this.#options.operationsPerRow &&
      row.unknownCount < UNKNOWN_MAX
    ) return row;
    if (row !== undefined) this.#retire(row);
    row = this.#newRow(group);
    this.#current.set(group.id, row);
    return row;
  }

  #newRow(group: GroupPlan): Row {
    // Ids of operations start anew with each recorder; in one file they must not meet.
    const base = this.#eventIdBase;
    this.#eventIdBase += 10_000;
    const onEvent = (event: HistoryEvent) => {
      this.#context.onHistory(
        event.id === undefined ? event : { ...event, id: base + event.id },
      );
    };
    const kind = this.#options.name.slice(0, 3);
    return {
      name: `${prefixOf(group)}-${kind}-${++this.#rowCount}`,
      recorder: new HistoryRecorder({ nowNs: () => performance.now() * 1e6, onEvent }),
      startedCount: 0,
      openCount: 0,
      unknownCount: 0,
      seen: new Map(),
      retired: false,
    };
  }

  #retire(row: Row): void {
    if (row.retired) return;
    row.retired = true;
    this.#finished.push(row);
  }

  async #judge(row: Row, kv: Kv): Promise<void> {
    const recorded = new RecordedKv(kv, { recorder: row.recorder, process: "judge" });
    for (const column of this.#options.columns) await recorded.get(row.name, column);
    if (this.#options.forget) {
      await kv.apply({ row: row.name, mutations: [{ kind: "deletePrefix", prefix: "" }] });
    }
    const { operations } = row.recorder;
    const verdict = checkRow(operations);
    if (verdict.kind === "undecided") this.undecidedCount += 1;
    if (verdict.kind === "violation") {
      this.#problems.push(`${row.name}: not linearizable: ${verdict.explanation}`);
    }
    if (verdict.kind !== "linearizable") this.#context.keep(row.name, historyLines(operations));
    this.operationCount += operations.length;
    this.#judged.set(row.name, await contents(kv, row.name));
  }

  // --------------------------------------------------------------------------- operations

  async #within(
    row: Row,
    step: (kv: Kv) => Promise<unknown>,
    { kv, name }: { kv: Kv; name: string },
  ): Promise<void> {
    const recorded = new RecordedKv(kv, { recorder: row.recorder, process: name });
    row.startedCount += 1;
    row.openCount += 1;
    const ended = await this.#context.tally.settle(step(recorded));
    row.openCount -= 1;
    if (ended.outcome === "unknown") row.unknownCount += 1;
  }

  async #clientStep(row: Row, kv: Kv): Promise<void> {
    const { random } = this.#context, column = random.pick(this.#options.columns);
    const value = () => this.#freshValue();
    const put = (column: string): Mutation => ({ kind: "put", column, value: value() });
    const dice = random.next();
    if (dice < 0.3) return await this.#read(row, kv, column);
    if (dice < 0.55) return await this.#write(row, kv, [], [put(column)]);
    if (dice < 0.8) {
      const version = row.seen.get(column) ?? 0 as Version;
      const condition: Condition = { column, is: "version", version };
      return await this.#write(row, kv, [condition], [put(column)]);
    }
    if (dice < 0.85) {
      return await this.#write(row, kv, [], [{ kind: "delete", column }]);
    }
    if (dice < 0.95 && this.#options.columns.length > 1) {
      return await this.#write(row, kv, [], this.#options.columns.map(put));
    }
    await kv.getRow(row.name);
  }

  async #read(row: Row, kv: Kv, column: string): Promise<void> {
    const cell = await kv.get(row.name, column);
    row.seen.set(column, cell?.version ?? 0 as Version);
  }

  async #write(
    row: Row,
    kv: Kv,
    conditions: readonly Condition[],
    mutations: readonly Mutation[],
  ): Promise<void> {
    const result = await kv.apply({ row: row.name, conditions, mutations });
    for (const mutation of mutations) {
      if (mutation.kind === "put" && result.applied) row.seen.set(mutation.column, result.version);
    }
  }

  #freshValue(): Uint8Array {
    return this.#options.value(`v${++this.#labelCount}`, this.#context.random);
  }

  /** Asks one replica, which may not pass the question on. */
  async #readDirectly(row: Row, group: GroupPlan, name: string): Promise<void> {
    const column = this.#options.columns[0]!, node = this.#context.random.pick(group.members);
    const { recorder } = row;
    row.openCount += 1;
    const open = recorder.invoke(name, { op: "get", row: row.name, column });
    try {
      const question = { node, gid: group.id, row: row.name, column, timeoutMs: DIRECT_TIMEOUT_MS };
      const cell = await this.#context.askReplica(question);
      row.startedCount += 1;
      recorder.ok(open, cellResult(cell));
    } catch (error) {
      recorder.fail(open, { error: String(error) });
    } finally {
      row.openCount -= 1;
    }
  }
}

function cellResult(cell: FullCell | null) {
  return cell === null
    ? { value: null, version: 0 }
    : { value: valueLabel(cell.value), version: cell.version };
}

/** All of a row as one line of text: versions and sizes stand for values. */
async function contents(kv: Kv, row: string): Promise<string> {
  const { cells } = await kv.getRow(row);
  return cells.map(({ column, version, size, value }) =>
    `${column}@${version}=${value === undefined ? `${size} bytes` : decodeText(value)}`
  ).join(" ") || "nothing";
}

/** 1 to 4 MiB that begin with the label; the rest is cheap noise. */
function largeValue(label: string, random: SeededRandom): Uint8Array {
  const words = new Uint32Array((MIB + random.integer(3 * MIB)) >> 2);
  let word = random.integer(2 ** 32);
  for (let i = 0; i < words.length; i++) {
    word = Math.imul(word, 1_664_525) + 1_013_904_223;
    words[i] = word;
  }
  const bytes = new Uint8Array(words.buffer);
  bytes.set(encodeText(label.padEnd(16)));
  return bytes;
}
