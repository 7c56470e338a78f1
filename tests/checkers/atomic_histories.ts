/**
 * Histories that are right by construction: random calls of several clients on rows that really do one
 * thing at a time (the store's own rules, `MemoryKv`), with random overlap, answers that get lost,
 * executions that come long after the client gave up, and calls that never arrive. Then ways to spoil
 * them, each of which provably leaves a history that no order explains.
 *
 * Values are unique, as every workload's should be. A history is a function of its seed.
 */
import { encodeText, type FullCell, type Mutation, type RowOp } from "../../kv/kv.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { version as toVersion } from "../../proto/ids.ts";
import { SeededRandom } from "../sim/seeded_random.ts";
import { callOf, HistoryRecorder, type OpenCall, type Operation, valueLabel } from "./history.ts";
import { rowOpOf } from "./row_model.ts";

export interface AtomicHistoryOptions {
  readonly seed: number;
  readonly rows?: number;
  readonly operationsPerRow?: number;
  readonly processes?: number;
  /** How often an answer is lost, and how often a call never arrives. */
  readonly lost?: number;
}

/** A client's call on its way. */
interface Travelling {
  readonly open: OpenCall;
  readonly request:
    | { kind: "get"; row: string; column: string }
    | { kind: "getRow"; row: string }
    | {
      kind: "apply";
      op: RowOp;
    };
  /** Runs the request against the store; what it resolves to is handed to the client. */
  answer: (() => void) | null;
  executed: boolean;
  /** The client gave up, but the request is still under way. */
  abandoned: boolean;
}

const NS_PER_EVENT = 1_000;
const COLUMNS = ["a", "b", "c"];

export async function atomicHistory(options: AtomicHistoryOptions): Promise<Operation[]> {
  const { seed, rows = 1, operationsPerRow = 50, processes = 5, lost = 0.05 } = options;
  const history: Operation[] = [];
  let base = 0;
  for (let row = 0; row < rows; row++) {
    const maker = new RowHistory(seed * 1009 + row, `r${row}`);
    const made = await maker.run({ operations: operationsPerRow, processes, lost });
    // One row after the other in time; rows are judged one by one.
    for (const item of made) {
      history.push({
        ...item,
        id: history.length,
        callIndex: base + item.callIndex,
        returnIndex: base + item.returnIndex,
        callNs: base * NS_PER_EVENT + item.callNs,
        returnNs: base * NS_PER_EVENT + item.returnNs,
      });
    }
    base += 2 * operationsPerRow;
  }
  return history;
}

class RowHistory {
  readonly #random: SeededRandom;
  readonly #row: string;
  readonly #kv = new MemoryKv();
  readonly #recorder: HistoryRecorder;
  readonly #travelling: Travelling[] = [];
  /** What clients have seen, for compare-and-put. */
  readonly #seen = new Map<string, FullCell | null>();
  #clock = 0;
  #values = 0;
  #processes = 0;

  constructor(seed: number, row: string) {
    this.#random = new SeededRandom(seed);
    this.#row = row;
    this.#recorder = new HistoryRecorder({ nowNs: () => ++this.#clock * NS_PER_EVENT });
  }

  async run(
    options: { operations: number; processes: number; lost: number },
  ): Promise<readonly Operation[]> {
    const { operations, processes, lost } = options, random = this.#random;
    let made = 0;
    const waiting = () => this.#travelling.filter((item) => !item.abandoned).length;
    while (made < operations || waiting() > 0) {
      if (made < operations && waiting() < processes && random.chance(0.4)) {
        this.#call();
        made += 1;
        continue;
      }
      if (this.#travelling.length === 0) continue;
      const item = random.pick(this.#travelling);
      if (!item.executed) {
        if (!item.abandoned && random.chance(lost)) this.#giveUp(item);
        else if (!item.abandoned || random.chance(0.2)) await this.#execute(item);
      } else if (random.chance(lost)) {
        this.#giveUp(item);
      } else {
        item.answer?.();
        this.#drop(item);
      }
    }
    return this.#recorder.operations;
  }

  #call(): void {
    const request = this.#request();
    const call = request.kind === "apply"
      ? callOf(request.op)
      : request.kind === "get"
      ? { op: "get" as const, row: request.row, column: request.column }
      : { op: "getRow" as const, row: request.row };
    const open = this.#recorder.invoke(`p${this.#processes++}`, call);
    this.#travelling.push({ open, request, answer: null, executed: false, abandoned: false });
  }

  #request(): Travelling["request"] {
    const random = this.#random, row = this.#row, column = random.pick(COLUMNS);
    const put = (column: string): Mutation => ({ kind: "put", column, value: this.#value() });
    const apply = (op: Omit<RowOp, "row">) => ({ kind: "apply" as const, op: { row, ...op } });
    switch (random.integer(10)) {
      case 0:
      case 1:
        return apply({ mutations: [put(column)] });
      case 2:
        return apply({
          mutations: [
            random.chance(0.7)
              ? { kind: "delete", column }
              : { kind: "deletePrefix", prefix: random.pick(["a", "m/", ""]) },
          ],
        });
      case 3:
      case 4: {
        const seen = this.#seen.get(column) ?? null;
        const byValue = seen !== null && random.chance(0.5);
        const condition = byValue
          ? { column, is: "value" as const, value: seen.value }
          : { column, is: "version" as const, version: seen?.version ?? toVersion(0) };
        return apply({ conditions: [condition], mutations: [put(column)] });
      }
      case 5:
        return apply({ mutations: [{ kind: "add", column: "n", by: 1 + random.integer(3) }] });
      case 6:
        return apply({
          conditions: random.chance(0.5)
            ? [{ column, is: random.pick(["absent", "present"]) }]
            : [],
          mutations: [put("a"), put("b"), {
            kind: "append",
            counter: "count",
            prefix: "m/",
            value: this.#value(),
          }],
        });
      case 7:
        return { kind: "getRow", row };
      default:
        return { kind: "get", row, column: random.chance(0.3) ? "n" : column };
    }
  }

  #value(): Uint8Array {
    return encodeText(`${this.#row}v${++this.#values}`);
  }

  async #execute(item: Travelling): Promise<void> {
    const { open, request } = item, recorder = this.#recorder;
    item.executed = true;
    if (request.kind === "apply") {
      const result = await this.#kv.apply(request.op);
      item.answer = () =>
        recorder.answered(
          open,
          result.applied
            ? { applied: true, version: result.version, numbers: [...result.numbers] }
            : {
              applied: false,
              version: result.version,
              conditionIndex: result.conditionIndex,
            },
        );
    } else if (request.kind === "get") {
      const cell = await this.#kv.get(request.row, request.column);
      this.#seen.set(request.column, cell);
      item.answer = () =>
        recorder.ok(open, {
          value: cell === null ? null : valueLabel(cell.value),
          version: cell?.version ?? 0,
        });
    } else {
      const page = await this.#kv.getRow(request.row, { limit: 1000 });
      item.answer = () =>
        recorder.ok(open, {
          cells: page.cells.map(({ column, value, version }) => ({
            column,
            value: valueLabel(value!),
            version,
          })),
        });
    }
    if (item.abandoned) this.#drop(item);
  }

  #giveUp(item: Travelling): void {
    if (item.abandoned) return;
    item.abandoned = true;
    // An answer that was lost, and one that certainly will not come.
    if (item.executed || this.#random.chance(0.7)) {
      this.#recorder.unknown(item.open, "no answer");
      if (item.executed || this.#random.chance(0.3)) this.#drop(item);
    } else {
      this.#recorder.fail(item.open, { error: "busy" });
      this.#drop(item);
    }
  }

  #drop(item: Travelling): void {
    this.#travelling.splice(this.#travelling.indexOf(item), 1);
  }
}

// ------------------------------------------------------------------------------ spoiling

/** Returns a spoiled copy, or null when this history offers no place for it. */
export type Spoiler = (history: readonly Operation[], random: SeededRandom) => Operation[] | null;

const isWrite = ({ call }: Operation) => !["get", "getRow", "txn"].includes(call.op);
const isOk = ({ outcome }: Operation) => outcome === "ok";
const columnOf = ({ call }: Operation) => "column" in call ? call.column : null;
const precedes = (a: Operation, b: Operation) => a.returnIndex < b.callIndex;
const okGets = (history: readonly Operation[]) =>
  history.filter((item) => isOk(item) && item.call.op === "get");
const okPuts = (history: readonly Operation[]) =>
  history.filter((item) => isOk(item) && (item.call.op === "put" || item.call.op === "cput"));
const valueOf = ({ call }: Operation) => "value" in call ? call.value : "";

function replaced(
  history: readonly Operation[],
  old: Operation,
  change: Partial<Operation>,
): Operation[] {
  return history.map((item) => item === old ? { ...item, ...change } : item);
}

/** All pairs that fit, and one of them. */
function pickPair(
  random: SeededRandom,
  left: readonly Operation[],
  right: readonly Operation[],
  fits: (a: Operation, b: Operation) => boolean,
): [Operation, Operation] | null {
  const pairs = left.flatMap((a) => right.filter((b) => fits(a, b)).map((b) => [a, b] as const));
  return pairs.length === 0 ? null : [...random.pick(pairs)];
}

/** Each for the history of one row. */
export const SPOILERS: Readonly<Record<string, Spoiler>> = {
  "a read finds what had been overwritten before it began": (history, random) => {
    const puts = okPuts(history), gets = okGets(history);
    const pair = pickPair(
      random,
      puts,
      gets,
      (newer, get) => columnOf(newer) === columnOf(get) && precedes(newer, get),
    );
    if (pair === null) return null;
    const [newer, get] = pair;
    const older = puts.filter((item) =>
      columnOf(item) === columnOf(get) && item.result!.version! < newer.result!.version!
    );
    if (older.length === 0) return null;
    const { result, ...rest } = random.pick(older);
    return replaced(history, get, {
      result: { value: valueOf({ result, ...rest }), version: result!.version },
    });
  },
  "a read finds what is only written later": (history, random) => {
    const pair = pickPair(
      random,
      okGets(history),
      okPuts(history),
      (get, put) => columnOf(put) === columnOf(get) && precedes(get, put),
    );
    if (pair === null) return null;
    const [get, put] = pair;
    return replaced(history, get, {
      result: { value: valueOf(put), version: put.result!.version },
    });
  },
  "a read finds what nobody wrote": (history, random) => {
    const gets = okGets(history);
    if (gets.length === 0) return null;
    const get = random.pick(gets);
    return replaced(history, get, { result: { ...get.result, value: "nobody's" } });
  },
  "a write that was read is reported as refused": (history, random) => {
    const pair = pickPair(
      random,
      okPuts(history),
      okGets(history),
      (put, get) => valueOf(put) === get.result!.value,
    );
    return pair === null
      ? null
      : replaced(history, pair[0], { outcome: "fail", result: null, error: "busy" });
  },
  "a value that was read is gone though nobody deletes": (history, random) => {
    const deletes = (column: string) =>
      history.some(({ call }) =>
        call.op !== "get" && call.op !== "getRow" && call.op !== "txn" &&
        rowOpOf(call).mutations.some((mutation) =>
          mutation.kind === "delete"
            ? mutation.column === column
            : mutation.kind === "deletePrefix" && column.startsWith(mutation.prefix)
        )
      );
    const gets = okGets(history).filter((get) => !deletes(columnOf(get)!));
    const found = gets.filter((get) => get.result!.value !== null);
    const pair = pickPair(
      random,
      found,
      gets,
      (first, second) => columnOf(first) === columnOf(second) && precedes(first, second),
    );
    return pair === null
      ? null
      : replaced(history, pair[1], { result: { value: null, version: 0 } });
  },
  "versions go back": (history, random) => {
    const writes = history.filter((item) => isOk(item) && isWrite(item));
    const pair = pickPair(random, writes, writes, precedes);
    if (pair === null) return null;
    const [first, second] = pair;
    const swapped = replaced(history, first, {
      result: { ...first.result, version: second.result!.version },
    });
    return replaced(swapped, second, {
      result: { ...second.result, version: first.result!.version },
    });
  },
  "an addition counts twice": (history, random) => {
    if (history.some((item) => item.outcome === "unknown" && isWrite(item))) return null;
    const additions = history.filter((item) =>
      isOk(item) && item.call.op === "apply" && item.call.mutations[0]?.kind === "add"
    );
    if (additions.length === 0) return null;
    const addition = random.pick(additions), sum = addition.result!.numbers![0]!;
    return replaced(history, addition, { result: { ...addition.result, numbers: [sum + 1] } });
  },
  "two compare-and-puts succeed from one version": (history, random) => {
    const swaps = history.filter(({ call, outcome }) =>
      outcome === "ok" && call.op === "cput" && (call.old_version ?? 0) > 0
    );
    if (swaps.length === 0) return null;
    const swap = random.pick(swaps), { call } = swap;
    if (call.op !== "cput") return null;
    const last = Math.max(...history.map((item) => item.returnIndex).filter(Number.isFinite));
    const newest = Math.max(...history.map((item) => item.result?.version ?? 0));
    return [...history, {
      ...swap,
      id: history.length,
      process: "late",
      call: { ...call, value: "late value" },
      result: { applied: true, version: newest + 1000, numbers: [] },
      callIndex: last + 1,
      returnIndex: last + 2,
    }];
  },
  "a compare is refused although it held": (history, random) => {
    const swaps = history.filter(({ call, outcome }) =>
      outcome === "ok" && call.op === "cput" && (call.old_version ?? 0) > 0
    );
    if (swaps.length === 0) return null;
    const swap = random.pick(swaps), { call } = swap;
    const expected = call.op === "cput" ? call.old_version! : 0;
    return replaced(history, swap, {
      outcome: "fail",
      result: { applied: false, version: expected, conditionIndex: 0 },
    });
  },
};
