/**
 * What one row of the store should do, one operation after the other: columns with values and
 * versions. The specification that concurrent histories are measured against.
 *
 * It is written down anew from what kv/kv.ts promises rather than borrowed from kv/row_op.ts, so that
 * a mistake there does not excuse itself.
 *
 * **Versions.** Each write has one version, and along a row versions rise. A client that never got an
 * answer does not know the version its write was given; the model then carries the version as a
 * *pending* one, an interval of what it may be, until somebody reads the cell and it becomes known.
 * `versions: "distinct"` drops the order, for histories in which a row moves to another group.
 *
 * States are immutable. Start at {@link stepRow}.
 */
import type { Call, Condition, Mutation, Operation, Result } from "./history.ts";

export type VersionRule = "rising" | "distinct";

/** Above 0: the version. Below 0: the pending version at `-1 - version`. */
interface ModelCell {
  readonly value: string;
  readonly version: number;
}

/** A pending version lies strictly between these two. */
interface Span {
  readonly above: number;
  readonly below: number;
}

export interface RowState {
  readonly cells: ReadonlyMap<string, ModelCell>;
  /** The newest version known; later writes are above it. */
  readonly floor: number;
  /** Oldest first; each belongs to a cell. */
  readonly pending: readonly Span[];
  /** Equal for equal states. */
  readonly key: string;
}

export const EMPTY_ROW: RowState = { cells: new Map(), floor: 0, pending: [], key: "" };

export interface StepOptions {
  readonly rule: VersionRule;
  /** The write's version if it is known although no answer told it. */
  readonly version?: number | undefined;
}

/**
 * The state after `operation`, or null when the row in this state would not have given the answer
 * that was observed. An operation of unknown outcome is taken as executed; where a condition does
 * not hold it does nothing, and null says so.
 */
export function stepRow(
  state: RowState,
  operation: Operation,
  options: StepOptions,
): RowState | null {
  const { call, outcome } = operation;
  const result = operation.result ?? {};
  const draft = new Draft(state, options.rule);
  switch (call.op) {
    case "get":
      if (outcome === "unknown") return state;
      return draft.sees(call.column, result.value ?? null, result.version) ? draft.finish() : null;
    case "getRow":
      if (outcome === "unknown") return state;
      return draft.seesRow(call.prefix ?? "", result.cells ?? []) ? draft.finish() : null;
    case "txn":
      throw new Error("A transaction is not an operation on one row");
    default: {
      const { conditions, mutations } = rowOpOf(call);
      if (outcome === "fail") return draft.refuses(conditions, result) ? draft.finish() : null;
      if (!conditions.every((condition) => draft.holds(condition))) return null;
      const version = result.version ?? options.version;
      return draft.write(mutations, version, result.numbers) ? draft.finish() : null;
    }
  }
}

type WriteCall = Exclude<Call, { op: "get" | "getRow" | "txn" }>;

/** Every write is a row operation: conditions, then mutations. */
export function rowOpOf(call: WriteCall): { conditions: Condition[]; mutations: Mutation[] } {
  switch (call.op) {
    case "apply":
      return call;
    case "delete":
      return { conditions: [], mutations: [{ kind: "delete", column: call.column }] };
    case "put":
    case "cput": {
      const { column, value } = call;
      const mutations: Mutation[] = [{ kind: "put", column, value }];
      return { conditions: call.op === "put" ? [] : expectedBy(call), mutations };
    }
  }
}

function expectedBy(call: WriteCall & { op: "cput" }): Condition[] {
  const { column, old, old_version: version } = call;
  const conditions: Condition[] = [];
  if (old === null) conditions.push({ column, is: "absent" });
  else if (old !== undefined) conditions.push({ column, is: "value", value: old });
  if (version !== undefined) conditions.push({ column, is: "version", version });
  return conditions;
}

/** A state being changed; copies what it changes. */
class Draft {
  #cells: ReadonlyMap<string, ModelCell>;
  #owned: Map<string, ModelCell> | null = null;
  #floor: number;
  #pending: readonly Span[];
  readonly #from: RowState;
  readonly #rising: boolean;

  constructor(from: RowState, rule: VersionRule) {
    this.#from = from;
    this.#cells = from.cells;
    this.#floor = from.floor;
    this.#pending = from.pending;
    this.#rising = rule === "rising";
  }

  /** Whether a reader of `column` may find this; settles the version if it was pending. */
  sees(column: string, value: string | null, version: number | undefined): boolean {
    const cell = this.#cells.get(column);
    if (cell === undefined) return value === null && (version ?? 0) === 0;
    return cell.value === value && (version === undefined || this.#hasVersion(column, version));
  }

  seesRow(
    prefix: string,
    found: readonly { column: string; value: string; version?: number | undefined }[],
  ): boolean {
    let count = 0;
    for (const column of this.#cells.keys()) if (column.startsWith(prefix)) count += 1;
    return count === found.length && new Set(found.map((cell) => cell.column)).size === count &&
      found.every(({ column, value, version }) => this.sees(column, value, version));
  }

  holds(condition: Condition): boolean {
    const { column } = condition, cell = this.#cells.get(column);
    switch (condition.is) {
      case "absent":
        return cell === undefined;
      case "present":
        return cell !== undefined;
      case "value":
        return cell?.value === condition.value;
      case "version":
        return cell === undefined
          ? condition.version === 0
          : this.#hasVersion(column, condition.version);
    }
  }

  /** Whether the row would have refused: the named condition fails, those before it hold. */
  refuses(conditions: readonly Condition[], result: Result): boolean {
    const { conditionIndex, version } = result;
    const mayFail = (condition: Condition | undefined): boolean => {
      if (condition === undefined) return false;
      const cell = this.#cells.get(condition.column);
      if (version !== undefined) {
        // First settle which version was seen; then the condition is decided.
        const seen = cell === undefined
          ? version === 0
          : this.#hasVersion(condition.column, version);
        return seen && !this.holds(condition);
      }
      // A pending version may well be another than the expected one.
      if (condition.is === "version" && cell !== undefined && cell.version < 0) return true;
      return !this.holds(condition);
    };
    if (conditionIndex === undefined) {
      return conditions.length === 1 ? mayFail(conditions[0]) : conditions.some(mayFail);
    }
    return conditions.slice(0, conditionIndex).every((condition) => this.holds(condition)) &&
      mayFail(conditions[conditionIndex]);
  }

  /** @param version undefined when nobody was told */
  write(
    mutations: readonly Mutation[],
    version: number | undefined,
    numbers: readonly number[] | undefined,
  ): boolean {
    const at = version === undefined ? this.#newPending() : this.#newVersion(version);
    if (at === null) return false;
    const made: number[] = [];
    for (const mutation of mutations) if (!this.#mutate(mutation, at, made)) return false;
    return numbers === undefined ||
      (numbers.length === made.length && numbers.every((number, i) => number === made[i]));
  }

  finish(): RowState {
    if (this.#owned === null && this.#pending === this.#from.pending) return this.#from;
    const { cells, pending } = this.#pending.length === 0
      ? { cells: this.#cells, pending: this.#pending }
      : this.#compact();
    const floor = this.#floor;
    return { cells, floor, pending, key: keyOf(cells, floor, pending) };
  }

  #mutate(mutation: Mutation, at: number, made: number[]): boolean {
    switch (mutation.kind) {
      case "put":
        this.#own().set(mutation.column, { value: mutation.value, version: at });
        return true;
      case "delete":
        this.#own().delete(mutation.column);
        return true;
      case "deletePrefix":
        for (const column of [...this.#cells.keys()]) {
          if (column.startsWith(mutation.prefix)) this.#own().delete(column);
        }
        return true;
      case "add": {
        const sum = this.#add(mutation.column, mutation.by, at);
        if (sum === null) return false;
        made.push(sum);
        return true;
      }
      case "append": {
        const next = this.#add(mutation.counter, 1, at);
        if (next === null) return false;
        const column = mutation.prefix + String(next).padStart(10, "0");
        this.#own().set(column, { value: mutation.value, version: at });
        made.push(next);
        return true;
      }
    }
  }

  #add(column: string, by: number, at: number): number | null {
    const before = this.#cells.get(column)?.value ?? "0";
    if (!/^-?\d{1,16}$/.test(before)) return null;
    const sum = Number(before) + by;
    if (!Number.isSafeInteger(sum)) return null;
    this.#own().set(column, { value: String(sum), version: at });
    return sum;
  }

  #own(): Map<string, ModelCell> {
    if (this.#owned === null) this.#cells = this.#owned = new Map(this.#cells);
    return this.#owned;
  }

  /** A write whose version is known. Everything pending was written before it. */
  #newVersion(version: number): number | null {
    if (version <= 0) return null;
    if (!this.#rising) return version;
    if (version <= this.#floor || this.#pending.some((span) => span.above >= version - 1)) {
      return null;
    }
    this.#floor = version;
    if (this.#pending.length > 0) {
      this.#pending = this.#pending.map((span) => ({
        above: span.above,
        below: Math.min(span.below, version),
      }));
    }
    return version;
  }

  #newPending(): number {
    this.#pending = [...this.#pending, { above: this.#floor, below: Infinity }];
    return -this.#pending.length;
  }

  /** Whether the cell has this version; settles it if it was pending. */
  #hasVersion(column: string, version: number): boolean {
    const cell = this.#cells.get(column)!;
    if (cell.version > 0) return cell.version === version;
    const index = -1 - cell.version, span = this.#pending[index]!;
    if (version <= 0) return false;
    if (this.#rising && !(span.above < version && version < span.below)) return false;
    for (const [name, other] of this.#cells) {
      if (other.version === version) return false;
      if (other.version === cell.version) this.#own().set(name, { value: other.value, version });
    }
    if (this.#rising) {
      // Nothing known was written behind it, so it is the newest known one.
      if (span.below === Infinity) this.#floor = Math.max(this.#floor, version);
      this.#pending = this.#pending.map((other, i) =>
        i < index
          ? { above: other.above, below: Math.min(other.below, version) }
          : i > index
          ? { above: Math.max(other.above, version), below: other.below }
          : other
      );
    } else {
      this.#pending = [...this.#pending];
    }
    return true;
  }

  /** Drops pending versions that no cell has any more and numbers the rest anew. */
  #compact(): { cells: ReadonlyMap<string, ModelCell>; pending: readonly Span[] } {
    const used = new Set<number>();
    for (const cell of this.#cells.values()) if (cell.version < 0) used.add(-1 - cell.version);
    if (used.size === this.#pending.length) return { cells: this.#cells, pending: this.#pending };
    const kept = [...used].sort((a, b) => a - b);
    const numbers = new Map(kept.map((index, i) => [-1 - index, -1 - i]));
    const cells = new Map<string, ModelCell>();
    for (const [column, { value, version }] of this.#cells) {
      cells.set(column, { value, version: numbers.get(version) ?? version });
    }
    return { cells, pending: kept.map((index) => this.#pending[index]!) };
  }
}

function keyOf(
  cells: ReadonlyMap<string, ModelCell>,
  floor: number,
  pending: readonly Span[],
): string {
  const parts: string[] = [];
  for (const [column, { value, version }] of cells) {
    parts.push(`${column}\0${value}\0${version}`);
  }
  if (parts.length > 1) parts.sort();
  for (const { above, below } of pending) parts.push(`${above}<${below}`);
  return `${floor}\x01${parts.join("\x01")}`;
}

/** The row in words. */
export function describeState(state: RowState): string {
  const cells = [...state.cells].map(([column, { value, version }]) =>
    `${column}=${JSON.stringify(value)}@${version > 0 ? version : "?"}`
  );
  return cells.length === 0 ? "an empty row" : cells.join(" ");
}
