/**
 * Is a history of operations on rows linearizable? Is there, for every row, one order of its
 * operations that respects real time and in which a row that does one thing at a time gives exactly
 * the observed answers, versions included?
 *
 * The search is that of Wing and Gong with the memo of Lowe (WGL), as in Porcupine: call and return
 * events in a doubly linked list; take out a call that the row's state allows, go on from the front;
 * when a return comes first whose call could not be taken out, undo the last one. What was tried
 * once, the same set of operations with the same state, is not tried again. Rows are independent, so
 * each is judged for itself (Herlihy and Wing's locality, Porcupine's P-compositionality).
 *
 * - An operation of unknown outcome may take effect at any time after its call, or never.
 * - What changes nothing is taken as soon as it fits: no other place for it is worth a try.
 * - Writes of known version are taken in the order of their versions, which makes the search nearly
 *   linear. Versions of writes that nobody was told of are learned from who read their value, where
 *   only one operation can have written it: give workloads unique values.
 * - A row whose search exceeds its budget is *undecided*, which is not valid.
 *
 * For a row that is wrong, the shortest prefix of its history that cannot be explained is found, and
 * the verdict tells which answer ends it and the longest order that explains everything else.
 *
 * Start at {@link checkLinearizability}. Rows of 20 to 60 operations with a handful of unknown ones
 * take milliseconds each. Not here: transactions over rows (list_append.ts).
 */
import { describeOperation, type Operation } from "./history.ts";
import {
  describeState,
  EMPTY_ROW,
  rowOpOf,
  type RowState,
  stepRow,
  type VersionRule,
} from "./row_model.ts";
import { Problems, type Verdict } from "./verdict.ts";

export interface LinearizabilityOptions {
  /** Model steps that may be tried for one row before it is undecided; about a million a second. */
  readonly stepsPerRow?: number;
  /** "distinct": rows may move to another group, and versions then jump. Default "rising". */
  readonly versions?: VersionRule;
}

export interface LinearizabilityVerdict extends Verdict {
  readonly rows: number;
  readonly operations: number;
  readonly undecidedRows: readonly string[];
  readonly steps: number;
}

const STEPS_PER_ROW = 2_000_000;

/** Judges every row of a history. Operations that are transactions are left out. */
export function checkLinearizability(
  history: Iterable<Operation>,
  options: LinearizabilityOptions = {},
): LinearizabilityVerdict {
  const rows = new Map<string, Operation[]>();
  for (const operation of history) {
    const { call } = operation;
    if (call.op === "txn") continue;
    const known = rows.get(call.row);
    if (known === undefined) rows.set(call.row, [operation]);
    else known.push(operation);
  }
  const problems = new Problems(), undecidedRows: string[] = [];
  let operations = 0, steps = 0;
  for (const [row, all] of rows) {
    operations += all.length;
    const verdict = checkRow(all, options);
    steps += verdict.steps;
    if (verdict.kind === "violation") problems.add(`Row "${row}": ${verdict.explanation}`);
    if (verdict.kind === "undecided") undecidedRows.push(row);
  }
  const { valid, problems: found } = problems.verdict;
  const undecided = undecidedRows.length > 0 && valid === true;
  return {
    valid: undecided ? "undecided" : valid,
    problems: undecided
      ? undecidedRows.map((row) => `Row "${row}": gave up the search at its budget`)
      : found,
    rows: rows.size,
    operations,
    undecidedRows,
    steps,
  };
}

export type RowVerdict =
  | { readonly kind: "linearizable"; readonly steps: number }
  | { readonly kind: "undecided"; readonly steps: number }
  | {
    readonly kind: "violation";
    readonly steps: number;
    /** The operation whose answer nothing explains; the last of the shortest prefix. */
    readonly culprit: Operation;
    readonly explanation: string;
  };

/** Judges the operations of one row, in any order. */
export function checkRow(
  history: readonly Operation[],
  options: LinearizabilityOptions = {},
): RowVerdict {
  const stepsMax = options.stepsPerRow ?? STEPS_PER_ROW, rule = options.versions ?? "rising";
  const relevant = history.filter(matters);
  const whole = search(relevant, { stepsMax, rule });
  let { steps } = whole;
  if (whole.kind !== "stuck") return { kind: whole.kind, steps };
  // A prefix of a linearizable history is linearizable, so the shortest bad one is found by halving.
  const returns = relevant.filter(isKnown).map((item) => item.returnIndex).sort((a, b) => a - b);
  let low = 0, high = returns.length - 1, shortest = whole;
  while (low < high) {
    const middle = (low + high) >> 1;
    const prefix = search(prefixOf(relevant, returns[middle]!), { stepsMax, rule });
    steps += prefix.steps;
    if (prefix.kind === "stuck") {
      high = middle;
      shortest = prefix;
    } else low = middle + 1;
  }
  const end = returns[high]!;
  const culprit = relevant.find((item) => item.returnIndex === end)!;
  return { kind: "violation", steps, culprit, explanation: explain(culprit, shortest, history) };
}

/** A failure that observed nothing has no part in any order. Nor has a read without an answer. */
function matters({ call, outcome, result }: Operation): boolean {
  if (outcome === "fail") return result !== null;
  return outcome === "ok" || (call.op !== "get" && call.op !== "getRow");
}

/** Whether it must have a place in the order. */
const isKnown = (operation: Operation): boolean => operation.outcome !== "unknown";

/** The history as it was right after the event at `endIndex`. */
function prefixOf(history: readonly Operation[], endIndex: number): Operation[] {
  return history.filter((item) => item.callIndex < endIndex).map((item) =>
    item.returnIndex <= endIndex
      ? item
      : { ...item, outcome: "unknown" as const, result: null, returnIndex: Infinity }
  ).filter(matters);
}

interface Stuck {
  readonly kind: "stuck";
  readonly steps: number;
  /** The longest order that was found, and the row after it. */
  readonly order: readonly Operation[];
  readonly state: RowState;
}

type SearchResult = Stuck | { readonly kind: "linearizable" | "undecided"; readonly steps: number };

function search(
  history: readonly Operation[],
  options: { stepsMax: number; rule: VersionRule },
): SearchResult {
  const { stepsMax, rule } = options, count = history.length;
  const events = new EventList(history);
  const versions = knownVersions(history);
  const ranks = rule === "rising" ? ranksOf(versions) : new Int32Array(count).fill(-1);
  const taken = new Uint16Array((count + 15) >> 4);
  const stateIds = new Map<string, number>();
  const seen = new Set<string>();
  const stack: { index: number; state: RowState; certain: boolean }[] = [];
  let state = EMPTY_ROW, steps = 0, rank = 0;
  let left = history.filter(isKnown).length;
  let best: { order: number[]; state: RowState } = { order: [], state };
  let at = events.first;
  while (left > 0) {
    if (events.isCall(at)) {
      const index = events.operationAt(at), operation = history[index]!;
      if (++steps > stepsMax) return { kind: "undecided", steps };
      const inTurn = ranks[index] === -1 || ranks[index] === rank;
      const next = inTurn ? stepRow(state, operation, { rule, version: versions[index] }) : null;
      if (next !== null) {
        taken[index >> 4]! |= 1 << (index & 15);
        let id = stateIds.get(next.key);
        if (id === undefined) stateIds.set(next.key, id = stateIds.size);
        const key = `${String.fromCharCode(...taken)}${id}`;
        if (!seen.has(key)) {
          seen.add(key);
          // What is only looked at may as well be looked at now: no other place is worth a try.
          stack.push({ index, state, certain: next === state && isKnown(operation) });
          state = next;
          if (isKnown(operation)) left -= 1;
          if (ranks[index] !== -1) rank += 1;
          events.lift(index);
          at = events.first;
          if (stack.length > best.order.length) {
            best = { order: stack.map((item) => item.index), state };
          }
          continue;
        }
        taken[index >> 4]! &= ~(1 << (index & 15));
      }
      at = events.after(at);
      continue;
    }
    for (;;) {
      const last = stack.pop();
      if (last === undefined) {
        const order = best.order.map((index) => history[index]!);
        return { kind: "stuck", steps, order, state: best.state };
      }
      const { index } = last;
      state = last.state;
      taken[index >> 4]! &= ~(1 << (index & 15));
      if (isKnown(history[index]!)) left += 1;
      if (ranks[index] !== -1) rank -= 1;
      events.unlift(index);
      if (last.certain) continue;
      at = events.after(events.callOf(index));
      break;
    }
  }
  return { kind: "linearizable", steps };
}

/**
 * The version of each write: as answered, or as read by somebody where the value tells who wrote it.
 */
function knownVersions(history: readonly Operation[]): (number | undefined)[] {
  const versions: (number | undefined)[] = history.map(() => undefined);
  const writers = new Map<string, number>();
  for (const [index, { call, outcome, result }] of history.entries()) {
    if (call.op === "get" || call.op === "getRow" || call.op === "txn" || outcome === "fail") {
      continue;
    }
    versions[index] = result?.version;
    for (const mutation of rowOpOf(call).mutations) {
      // What an addition makes may be made by another one too.
      if (mutation.kind !== "put" && mutation.kind !== "append") continue;
      writers.set(mutation.value, writers.has(mutation.value) ? -1 : index);
    }
  }
  const learn = (value: string, version: number | undefined) => {
    const writer = writers.get(value);
    // A number may stem from an addition, which is nobody's own value.
    if (writer === undefined || writer === -1 || /^-?\d+$/.test(value)) return;
    versions[writer] ??= version;
  };
  for (const { call, result } of history) {
    if (result === null) continue;
    if (call.op === "get" && result.value != null) learn(result.value, result.version);
    for (const cell of result.cells ?? []) learn(cell.value, cell.version);
  }
  return versions;
}

/** The place of each write among those of known version, -1 for all others. */
function ranksOf(versions: readonly (number | undefined)[]): Int32Array {
  const ranks = new Int32Array(versions.length).fill(-1);
  const known = [...versions.keys()].filter((index) => versions[index] !== undefined);
  known.sort((a, b) => versions[a]! - versions[b]!);
  for (const [rank, index] of known.entries()) ranks[index] = rank;
  return ranks;
}

/**
 * Calls and returns in the order of time, as a doubly linked list from which an operation is taken
 * and put back in constant time. Unknown outcomes have no return. 0 is the end on both sides.
 */
class EventList {
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #count: number;
  readonly #returns: Uint8Array;

  constructor(history: readonly Operation[]) {
    const count = this.#count = history.length;
    this.#returns = Uint8Array.from(history, (item) => item.returnIndex === Infinity ? 0 : 1);
    const events = history.flatMap(({ callIndex, returnIndex }, index) => {
      const call = { time: callIndex, node: 1 + index };
      return returnIndex === Infinity
        ? [call]
        : [call, { time: returnIndex, node: 1 + count + index }];
    }).sort((a, b) => a.time - b.time);
    this.#next = new Int32Array(2 * count + 1);
    this.#previous = new Int32Array(2 * count + 1);
    let last = 0;
    for (const { node } of events) {
      this.#next[last] = node;
      this.#previous[node] = last;
      last = node;
    }
    this.#next[last] = 0;
    this.#previous[0] = last;
  }

  get first(): number {
    return this.#next[0]!;
  }

  isCall(node: number): boolean {
    return node >= 1 && node <= this.#count;
  }

  operationAt(node: number): number {
    return node - 1;
  }

  callOf(index: number): number {
    return index + 1;
  }

  after(node: number): number {
    return this.#next[node]!;
  }

  lift(index: number): void {
    this.#cut(index + 1);
    if (this.#returns[index] === 1) this.#cut(index + 1 + this.#count);
  }

  /** The reverse of `lift`, in the reverse order. */
  unlift(index: number): void {
    if (this.#returns[index] === 1) this.#restore(index + 1 + this.#count);
    this.#restore(index + 1);
  }

  #cut(node: number): void {
    const next = this.#next[node]!, previous = this.#previous[node]!;
    this.#next[previous] = next;
    this.#previous[next] = previous;
  }

  #restore(node: number): void {
    this.#next[this.#previous[node]!] = node;
    this.#previous[this.#next[node]!] = node;
  }
}

const SHOWN = 8;

function explain(culprit: Operation, stuck: Stuck, history: readonly Operation[]): string {
  const { order, state } = stuck;
  const shown = order.slice(-SHOWN).map((item) => `    ${describeOperation(item)}`);
  const before = order.length > SHOWN ? [`    … ${order.length - SHOWN} before`] : [];
  const lines = [
    `no order of the operations explains ${describeOperation(culprit)}`,
    order.length === 0
      ? "  nothing else had to be ordered before it"
      : "  the longest order of the others that agrees with all their answers:",
    ...before,
    ...shown,
    `  after it the row holds ${describeState(state)}`,
  ];
  const hint = hintAt(culprit, history);
  if (hint !== null) lines.push(`  ${hint}`);
  return lines.join("\n");
}

/** Where the value that was read comes from, if that alone is wrong. */
function hintAt(culprit: Operation, history: readonly Operation[]): string | null {
  const { call, result } = culprit;
  if (call.op !== "get" || result?.value == null) return null;
  const { value } = result;
  const writers = history.filter(({ call }) =>
    call.op !== "get" && call.op !== "getRow" && call.op !== "txn" &&
    rowOpOf(call).mutations.some((item) => "value" in item && item.value === value)
  );
  if (writers.length === 0) return `nobody ever wrote ${JSON.stringify(value)}`;
  if (writers.every((item) => item.outcome === "fail")) {
    return `${JSON.stringify(value)} was written only by ${describeOperation(writers[0]!)}`;
  }
  return null;
}
