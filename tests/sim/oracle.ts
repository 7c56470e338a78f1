/**
 * What one group must have done, from the sequence of entries that it committed: the state after each
 * of them, and what became of every operation.
 *
 * The first replica to commit a position says what lies there; every other one has to agree (S2, S4).
 * The entries are executed once more here, by a state machine without deliberate bugs. Clients'
 * answers are then held against it: a write happened at one position between its call and its
 * answer, and at one only; a read shows the state as of one position between its call and its answer.
 * That is linearizability with the order of writes given, so it can be checked at once and in full.
 */
import type { CellPosition, StoredCell } from "../../kv/cell_store.ts";
import { type Command, decodeCommand, rowOpsOf } from "../../kv/command.ts";
import { GroupState } from "../../kv/group_state.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import { armMutant, type MutantName } from "../../kv/mutant.ts";
import { isInternal } from "../../kv/internal_columns.ts";
import { compareKeys } from "../../kv/key_order.ts";
import { cellBytes, largeBytes } from "../../kv/row_op.ts";
import type { TabletChange } from "../../kv/tablet_policy.ts";
import type { KeyRange, Tablet, Tablets } from "../../kv/tablets.ts";
import type { LogEntry } from "../../kv/replica_log.ts";
import type { RequestOutcome } from "../../kv/outcome.ts";
import { crc32 } from "node:zlib";
import type { RequestStamp } from "../../proto/command.ts";
import { type Lsn, lsn as toLsn } from "../../proto/ids.ts";
import { SimViolation } from "./violation.ts";

/** Every write puts its own name here, so that its executions can be counted. */
export const NAME_COLUMN = "~op";

interface CellChange {
  readonly lsn: number;
  /** Null: absent from here on. */
  readonly cell: { readonly version: number; readonly crc: number; readonly size: number } | null;
}

/** A cell as a client was shown it. */
export interface SeenCell {
  readonly row: string;
  readonly column: string;
  readonly version: number;
  readonly crc: number;
}

/** Which tablets there were, from one position on. */
interface Shape {
  readonly lsn: number;
  readonly kind: "split" | "merge";
  /** The boundary that came or went. */
  readonly key: string;
  readonly tablets: readonly Tablet[];
}

/** A cell as a scan shows it. */
export interface ScannedCell extends Omit<SeenCell, "crc"> {
  readonly size: number;
  /** Null where the page leaves the value out. */
  readonly crc: number | null;
}

interface Execution {
  readonly lsn: number;
  readonly outcome: RequestOutcome;
}

/** What a client was told about a write. */
export type WriteAnswer =
  | { readonly kind: "applied"; readonly version: number; readonly numbers: readonly number[] }
  | { readonly kind: "refused"; readonly version: number }
  /** Certainly not executed. */
  | { readonly kind: "failed"; readonly code: string }
  | { readonly kind: "unknown" };

export class GroupOracle {
  readonly #store = new RecordingStore();
  readonly #state: GroupState;
  readonly #committed: { epoch: number; crc: number }[] = [];
  readonly #executions = new Map<string, Execution[]>();
  readonly #answers = new Map<string, WriteAnswer>();
  /** Where each request was executed. */
  readonly #stamps = new Map<string, number>();
  readonly #range: KeyRange;
  /** Every split and merge that had an effect. */
  readonly #shapes: Shape[] = [];
  readonly #firstShape: readonly Tablet[];
  readonly #mutant: MutantName | null;
  readonly #onExecuted: (command: Command, outcome: RequestOutcome) => void;

  constructor(options: {
    rowBytesMax: number;
    range: KeyRange;
    mutant: MutantName | null;
    /** A request was executed, for the first time. */
    onExecuted: (command: Command, outcome: RequestOutcome) => void;
  }) {
    this.#onExecuted = options.onExecuted;
    this.#state = new GroupState(this.#store, options);
    this.#range = options.range;
    this.#firstShape = this.tablets;
    this.#mutant = options.mutant;
  }

  /** Locks and decisions of transactions that are not over. */
  get remains(): number {
    const { locks, decisions } = this.#state.locks;
    return [...locks, ...decisions].length;
  }

  get tablets(): readonly Tablet[] {
    return this.#state.tablets.list();
  }

  /** Splits and merges so far. */
  get shapes(): readonly Shape[] {
    return this.#shapes;
  }

  /** The last position that anybody committed. */
  get length(): number {
    return this.#committed.length;
  }

  epochAt(lsn: number): number {
    return this.#committed[lsn - 1]?.epoch ?? 0;
  }

  /** True when the position is new. */
  commit(entry: LogEntry, by: string): boolean {
    const { lsn } = entry, epoch = Number(entry.epoch), crc = crc32(entry.payload);
    const known = this.#committed[lsn - 1];
    if (known !== undefined) {
      if (known.epoch === epoch && known.crc === crc) return false;
      throw new SimViolation(
        `S2: ${by} commits another entry at ${lsn}, of epoch ${epoch}; ` +
          `the one committed before is of epoch ${known.epoch}`,
      );
    }
    if (lsn !== this.#committed.length + 1) {
      throw new SimViolation(`S2: ${by} commits ${lsn}, nobody committed ${lsn - 1}`);
    }
    this.#committed.push({ epoch, crc });
    // The judge has no bugs of his own.
    armMutant(null);
    try {
      this.#execute(decodeCommand(entry.payload.slice()), lsn);
    } finally {
      armMutant(this.#mutant);
    }
    return true;
  }

  #execute(command: Command, lsn: Lsn): void {
    this.#store.lsn = lsn;
    const repeated = "stamp" in command &&
      this.#state.completions.find(command.stamp) !== undefined;
    const outcome = this.#state.apply(command, lsn);
    this.#state.takeFreedBlobs();
    if (command.kind === "split" || command.kind === "merge") this.#noteShape(command.kind, lsn);
    if (outcome === null || repeated) return;
    if ("stamp" in command) this.#noteStamp(command.stamp, outcome, lsn);
    this.#onExecuted(command, outcome);
    const name = nameOf(command);
    if (name === null) return;
    const executions = this.#executions.get(name) ?? [];
    executions.push({ lsn, outcome });
    this.#executions.set(name, executions);
    this.#compare(name);
  }

  /** R1, without the records of what was executed: these are forgotten, this is not. */
  #noteStamp({ clientId, seq }: RequestStamp, outcome: RequestOutcome, lsn: number): void {
    if (outcome.kind !== "applied" && outcome.kind !== "settled") return;
    const key = `${clientId} ${seq}`, before = this.#stamps.get(key);
    if (before !== undefined) {
      throw new SimViolation(`R1: request ${key} was executed at ${before} and again at ${lsn}`);
    }
    this.#stamps.set(key, lsn);
  }

  #noteShape(kind: "split" | "merge", lsn: number): void {
    const before = this.#shapes.at(-1)?.tablets ?? this.#firstShape, { tablets } = this;
    const added = boundaries(tablets).filter((key) => !boundaries(before).includes(key));
    const removed = boundaries(before).filter((key) => !boundaries(tablets).includes(key));
    const [changed, ...more] = kind === "split" ? added : removed;
    // An order for tablets that have changed since has no effect.
    if (changed === undefined && added.length === 0 && removed.length === 0) return;
    if (changed === undefined || more.length > 0 || added.length + removed.length !== 1) {
      throw new SimViolation(`A8: the ${kind} at ${lsn} makes ${rangesOf(tablets)} of the tablets`);
    }
    this.#shapes.push({ lsn, kind, key: changed, tablets });
  }

  /** A split or merge was acknowledged, with these tablets. */
  reshaped({ kind, key }: TabletChange, tablets: readonly KeyRange[], calledAt: number): void {
    const done = this.#shapes.some((shape) =>
      shape.lsn > calledAt && shape.kind === kind && shape.key === key
    );
    if (!done) {
      throw new SimViolation(`R1: a ${kind} at "${key}" was acknowledged, but is not there`);
    }
    const shown = rangesOf(tablets);
    if (this.#shapes.some((shape) => shape.lsn > calledAt && rangesOf(shape.tablets) === shown)) {
      return;
    }
    throw new SimViolation(`A8: after a ${kind} the tablets are said to be ${shown}`);
  }

  /** A8: the tablets that a replica has are those of its position. */
  checkTablets(tablets: Tablets, appliedLsn: number, who: string): void {
    const then = this.#shapes.findLast(({ lsn }) => lsn <= appliedLsn)?.tablets ?? this.#firstShape;
    const identity = (list: readonly Tablet[]) =>
      list.map(({ counts: _, ...tablet }) => JSON.stringify(tablet)).join();
    const found = tablets.list();
    if (identity(found) !== identity(then)) {
      throw new SimViolation(
        `A8: as of ${appliedLsn} ${who} has the tablets ${rangesOf(found)} instead of ` +
          rangesOf(then),
      );
    }
    this.#checkTiling(found, who);
  }

  #checkTiling(tablets: readonly Tablet[], who: string): void {
    let at: string | null = this.#range.startKey;
    for (const { startKey, endKey } of tablets) {
      if (at !== startKey) {
        throw new SimViolation(
          `A8: ${who} has a gap or an overlap at "${at}" in ${rangesOf(tablets)}`,
        );
      }
      at = endKey;
    }
    if (at !== this.#range.endKey) {
      throw new SimViolation(`A8: the tablets of ${who} end at "${at}": ${rangesOf(tablets)}`);
    }
  }

  /** A8: what each tablet is said to hold is what is there, counted cell by cell. */
  #checkCounts(tablets: readonly Tablet[], cells: readonly StoredCell[], who: string): void {
    const counted = tablets.map(() => ({ rows: 0, cells: 0, bytes: 0, largeBytes: 0 }));
    let index = 0, row: string | null = null;
    for (const cell of cells) {
      for (let end; (end = tablets[index]!.endKey) !== null && compareKeys(cell.row, end) >= 0;) {
        index += 1;
      }
      const counts = counted[index]!;
      counts.rows += Number(cell.row !== row);
      counts.cells += 1;
      counts.bytes += cellBytes(cell.column, cell);
      counts.largeBytes += largeBytes(cell);
      row = cell.row;
    }
    for (const [i, tablet] of tablets.entries()) {
      const said = JSON.stringify(tablet.counts), found = JSON.stringify(counted[i]);
      if (said === found) continue;
      throw new SimViolation(
        `A8: ${who} says that the tablet at "${tablet.startKey}" holds ${said}; it holds ${found}`,
      );
    }
  }

  /** Nothing contradicts what the client of this write was told, so far. */
  #compare(name: string): void {
    const executions = this.#executions.get(name) ?? [], answer = this.#answers.get(name);
    const applied = executions.filter(({ outcome }) => outcome.kind === "applied");
    if (applied.length > 1) {
      const where = applied.map(({ lsn }) => lsn).join(" and ");
      throw new SimViolation(`R1: ${name} was executed twice, at ${where}`);
    }
    if (answer === undefined) return;
    if ((answer.kind === "failed" || answer.kind === "refused") && applied.length > 0) {
      const said = answer.kind === "failed" ? `not executed (${answer.code})` : "refused";
      throw new SimViolation(`R1: ${name} was reported as ${said}, but happened`);
    }
  }

  answered(name: string, answer: WriteAnswer, calledAt: number): void {
    this.#answers.set(name, answer);
    this.#compare(name);
    if (answer.kind === "failed" || answer.kind === "unknown") return;
    const executions = this.#executions.get(name) ?? [];
    const fitting = executions.some(({ lsn, outcome }) => {
      if (lsn <= calledAt || outcome.kind !== answer.kind) return false;
      if (!("version" in outcome) || outcome.version !== answer.version) return false;
      if (answer.kind === "refused" || outcome.kind !== "applied") return true;
      return outcome.numbers.join() === answer.numbers.join();
    });
    if (fitting) return;
    throw new SimViolation(
      `R1: ${name} was answered ${JSON.stringify(answer)} after a call at ${calledAt}, ` +
        `but what happened is ${JSON.stringify(executions)}`,
    );
  }

  /** At the end: what was acknowledged is there, what was refused is not. */
  checkAnswers(): void {
    for (const [name, { kind }] of this.#answers) {
      this.#compare(name);
      const applied = (this.#executions.get(name) ?? [])
        .filter(({ outcome }) => outcome.kind === "applied").length;
      if (kind === "applied" && applied !== 1) {
        throw new SimViolation(`R1: ${name} was acknowledged and happened ${applied} times`);
      }
    }
  }

  /**
   * S3: what was read is the state of these rows as of one position from `calledAt` to now. `cells`
   * are all that the rows hold, or of one column if it is named.
   */
  checkRead(
    what: string,
    rows: readonly string[],
    cells: readonly SeenCell[],
    { calledAt, column }: { calledAt: number; column?: string },
  ): void {
    const seen = new Map(cells.map((cell) => [`${cell.row}\0${cell.column}`, cell]));
    const columns = this.#store.columnsOf(rows)
      .filter((key) => column === undefined || key.endsWith(`\0${column}`));
    for (const key of seen.keys()) {
      if (!columns.includes(key)) {
        throw new SimViolation(`S3: ${what} shows ${JSON.stringify(key)}, which nobody wrote`);
      }
    }
    const positions = new Set<number>([calledAt]);
    for (const key of columns) {
      for (const { lsn } of this.#store.changes.get(key)!) if (lsn > calledAt) positions.add(lsn);
    }
    for (const position of positions) {
      const fits = columns.every((key) => {
        const then = this.#store.at(key, position), now = seen.get(key);
        return then === null
          ? now === undefined
          : now !== undefined && now.version === then.version && now.crc === then.crc;
      });
      if (fits) return;
    }
    throw new SimViolation(
      `S3: ${what} shows a state that was never there from ${calledAt} to ${this.length}: ` +
        JSON.stringify(cells.slice(0, 6)),
    );
  }

  /**
   * S3: what the pages of a scan showed of this group is its state as of one position, that of its
   * snapshot where one was named. `end` is how far it came, null for to the end.
   */
  checkScan(
    what: string,
    cells: readonly ScannedCell[],
    { calledAt, snapshotLsn, startRow, end }: {
      calledAt: number;
      snapshotLsn: number | null;
      startRow: string;
      end: CellPosition | null;
    },
  ): void {
    const seen = new Map(cells.map((cell) => [`${cell.row}\0${cell.column}`, cell]));
    const keys = this.#store.keysWithin(startRow, end);
    const fits = (position: number) => {
      let count = 0;
      for (const key of keys) {
        const then = this.#store.at(key, position), now = seen.get(key);
        if (then === null && now === undefined) continue;
        if (then?.version !== now?.version || then?.size !== now?.size) return false;
        if (now!.crc !== null && now!.crc !== then!.crc) return false;
        count += 1;
      }
      return count === seen.size;
    };
    if (snapshotLsn !== null && !fits(snapshotLsn)) {
      throw new SimViolation(`S3: ${what} does not show the state as of ${snapshotLsn}`);
    }
    if (snapshotLsn !== null && snapshotLsn >= calledAt) return;
    for (let position = this.length; position >= calledAt; position--) if (fits(position)) return;
    throw new SimViolation(
      `S3: ${what}${snapshotLsn === null ? "" : ` as of ${snapshotLsn}`} shows a state that was ` +
        `never there from ${calledAt} to ${this.length}`,
    );
  }

  /** A7: this replica holds exactly what it should, and its hash says so. */
  checkReplica(state: GroupState, who: string): void {
    if (state.appliedLsn !== this.length) {
      throw new SimViolation(`S5: ${who} has applied ${state.appliedLsn} of ${this.length}`);
    }
    const wanted = [...this.#store.range({})], found = [...state.store.range({})];
    const sameCell = (a: StoredCell, b: StoredCell) =>
      a.row === b.row && a.column === b.column && a.version === b.version && a.crc === b.crc;
    const same = wanted.length === found.length &&
      wanted.every((cell, i) => sameCell(cell, found[i]!));
    if (!same) throw new SimViolation(`A7: ${who} holds other cells than it should`);
    this.checkTablets(state.tablets, state.appliedLsn, who);
    this.#checkCounts(state.tablets.list(), found, who);
    if (state.hash !== this.#state.hash) {
      throw new SimViolation(`A7: the hash of ${who} is not that of its state`);
    }
  }
}

/** Where tablets begin. */
const boundaries = (tablets: readonly KeyRange[]) => tablets.map(({ startKey }) => startKey);

const rangesOf = (tablets: readonly KeyRange[]) =>
  tablets.map(({ startKey, endKey }) => JSON.stringify([startKey, endKey])).join(" ");

function nameOf(command: Command): string | null {
  for (const { mutations } of rowOpsOf(command)) {
    for (const mutation of mutations) {
      if (mutation.kind !== "put" || mutation.column !== NAME_COLUMN) continue;
      return new TextDecoder().decode(mutation.value.value as Uint8Array);
    }
  }
  return null;
}

/** Cells, and for each of them when it was what. */
class RecordingStore extends MemoryCellStore {
  lsn: Lsn = toLsn(0);
  /** By row and column, oldest first. */
  readonly changes = new Map<string, CellChange[]>();
  readonly #columns = new Map<string, string[]>();

  override put(cell: StoredCell): void {
    super.put(cell);
    const { version, crc, size } = cell;
    this.#note(cell.row, cell.column, { version, crc, size });
  }

  override delete(row: string, column: string): void {
    super.delete(row, column);
    this.#note(row, column, null);
  }

  columnsOf(rows: readonly string[]): string[] {
    return rows.flatMap((row) => this.#columns.get(row) ?? []);
  }

  /** All that were ever there from a row on, up to a cell or to the end. */
  keysWithin(startRow: string, end: CellPosition | null): string[] {
    const keys: string[] = [];
    for (const [row, own] of this.#columns) {
      if (compareKeys(row, startRow) < 0) continue;
      const order = end === null ? -1 : compareKeys(row, end.row);
      if (order < 0) keys.push(...own);
      else if (order === 0) {
        const length = row.length + 1;
        keys.push(...own.filter((key) => compareKeys(key.slice(length), end!.column) <= 0));
      }
    }
    return keys;
  }

  at(key: string, lsn: number): CellChange["cell"] {
    return this.changes.get(key)!.findLast((change) => change.lsn <= lsn)?.cell ?? null;
  }

  #note(row: string, column: string, cell: CellChange["cell"]): void {
    // The store's own columns are shown to nobody.
    if (isInternal(column)) return;
    const key = `${row}\0${column}`;
    const changes = this.changes.get(key);
    if (changes !== undefined) {
      changes.push({ lsn: this.lsn, cell });
      return;
    }
    this.changes.set(key, [{ lsn: this.lsn, cell }]);
    const columns = this.#columns.get(row);
    if (columns === undefined) this.#columns.set(row, [key]);
    else columns.push(key);
  }
}
