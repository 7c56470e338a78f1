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
import { compareKeys } from "../../kv/key_order.ts";
import { cellBytes, largeBytes } from "../../kv/row_op.ts";
import type { MoveStep } from "../../kv/tablet_move.ts";
import type { TabletChange } from "../../kv/tablet_policy.ts";
import type { KeyRange, Tablet, Tablets } from "../../kv/tablets.ts";
import type { LogEntry } from "../../kv/replica_log.ts";
import type { RequestOutcome } from "../../kv/outcome.ts";
import { crc32 } from "node:zlib";
import type { RequestStamp } from "../../proto/command.ts";
import type { Lsn } from "../../proto/ids.ts";
import type { ClusterHistory } from "./cluster_history.ts";
import { SimViolation } from "./violation.ts";

/** Every write puts its own name here, so that its executions can be counted. */
export const NAME_COLUMN = "~op";

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
  readonly kind: "split" | "merge" | "move";
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

/** What a client was told about a write. */
export type WriteAnswer =
  | { readonly kind: "applied"; readonly version: number; readonly numbers: readonly number[] }
  | { readonly kind: "refused"; readonly version: number }
  /** Certainly not executed. */
  | { readonly kind: "failed"; readonly code: string }
  | { readonly kind: "unknown" };

export class GroupOracle {
  readonly #store: RecordingStore;
  readonly #state: GroupState;
  readonly #committed: { epoch: number; crc: number }[] = [];
  readonly #gid: number;
  readonly #history: ClusterHistory;
  /** By the group's positions, which snapshots are named by: the history's. */
  readonly #ats = new Map<number, number>();
  /** Every split and merge that had an effect. */
  readonly #shapes: Shape[] = [];
  readonly #firstShape: readonly Tablet[];
  readonly #mutant: MutantName | null;
  readonly #onExecuted: (command: Command, outcome: RequestOutcome) => void;
  readonly #onActivated: (moveId: number) => void;

  constructor(options: {
    gid: number;
    history: ClusterHistory;
    rowBytesMax: number;
    range: KeyRange;
    mutant: MutantName | null;
    /** A request was executed, for the first time. */
    onExecuted: (command: Command, outcome: RequestOutcome) => void;
    /** The group begins to serve what a move brought. */
    onActivated: (moveId: number) => void;
  }) {
    this.#onActivated = options.onActivated;
    this.#onExecuted = options.onExecuted;
    this.#gid = options.gid;
    this.#history = options.history;
    this.#store = new RecordingStore(options.history);
    this.#state = new GroupState(this.#store, options);
    this.#firstShape = this.#state.tablets.all();
    this.#mutant = options.mutant;
  }

  /** Entries that all groups committed so far: what calls are dated by. */
  get now(): number {
    return this.#history.now;
  }

  /** Locks and decisions of transactions that are not over. */
  get remains(): number {
    const { locks, decisions } = this.#state.locks;
    return [...locks, ...decisions].length;
  }

  get tablets(): readonly Tablet[] {
    return this.#state.tablets.list();
  }

  /** Nothing is on its way to here or from here, and nothing is left to be cleared away. */
  get isSettled(): boolean {
    return this.#state.tablets.all().every(({ state, departure }) =>
      state === "serving" && departure === undefined
    );
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
    this.#history.now += 1;
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
    // Neither what is staged for a move nor what is cleared away after it is for anybody to see.
    this.#store.isShown = command.kind !== "move";
    const repeated = "stamp" in command &&
      this.#state.completions.find(command.stamp) !== undefined;
    const outcome = this.#state.apply(command, lsn);
    this.#state.takeFreedBlobs();
    this.#ats.set(this.#state.position, this.#history.now);
    if (command.kind === "move") this.#noteMove(command.step, lsn);
    if (command.kind === "split" || command.kind === "merge") this.#noteShape(command.kind, lsn);
    if (outcome === null || outcome.kind === "move" || outcome.kind === "away" || repeated) return;
    for (const { row } of rowOpsOf(command)) this.#checkOwner(row, lsn);
    if ("stamp" in command) this.#noteStamp(command.stamp, outcome, lsn);
    this.#onExecuted(command, outcome);
    const name = nameOf(command);
    if (name === null) return;
    const executions = this.#history.executions.get(name) ?? [];
    executions.push({ at: this.#history.now, outcome });
    this.#history.executions.set(name, executions);
    this.#compare(name);
  }

  /** M2: only the group that owns a row writes to it. */
  #checkOwner(row: string, lsn: number): void {
    const owner = this.#history.ownerOf(row);
    if (owner === this.#gid) return;
    throw new SimViolation(
      `M2: group ${this.#gid} executes ${lsn} for "${row}", which belongs to group ${owner}`,
    );
  }

  #noteMove(step: MoveStep, lsn: number): void {
    const { tablets } = this.#state;
    this.#shapes.push({ lsn, kind: "move", key: "", tablets: tablets.all() });
    if (step.kind !== "activate") return;
    // The only one that begins to be served at this position.
    const moved = tablets.all().find(({ since }) => since === this.#state.position);
    // Said again: it was activated before.
    if (moved === undefined) return;
    this.#onActivated(step.moveId);
    this.#history.activated(this.#gid, moved, this.#store.range({}));
  }

  /** R1, without the records of what was executed: these are forgotten, this is not. */
  #noteStamp({ clientId, seq }: RequestStamp, outcome: RequestOutcome, lsn: number): void {
    if (outcome.kind !== "applied" && outcome.kind !== "settled") return;
    // A step of a transaction that finds nothing to do can find that in two groups.
    if (outcome.kind === "settled" && outcome.version === 0) return;
    const key = `${clientId} ${seq}`, { stamps } = this.#history, before = stamps.get(key);
    const place = `${lsn} of group ${this.#gid}`;
    if (before !== undefined) {
      throw new SimViolation(`R1: request ${key} was executed at ${before} and again at ${place}`);
    }
    stamps.set(key, place);
  }

  #noteShape(kind: "split" | "merge", lsn: number): void {
    const before = this.#shapes.at(-1)?.tablets ?? this.#firstShape;
    const tablets = this.#state.tablets.all();
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
  reshaped(change: TabletChange, tablets: readonly KeyRange[], calledAt: number): void {
    const { kind, key } = change;
    if (!this.hasReshaped(change, calledAt)) {
      throw new SimViolation(`R1: a ${kind} at "${key}" was acknowledged, but is not there`);
    }
    const shown = rangesOf(tablets);
    const serving = ({ tablets }: Shape) =>
      rangesOf(tablets.filter(({ state }) => state === "serving"));
    if (this.#shapes.some((shape) => shape.lsn > calledAt && serving(shape) === shown)) return;
    throw new SimViolation(`A8: after a ${kind} the tablets are said to be ${shown}`);
  }

  hasReshaped({ kind, key }: TabletChange, calledAt: number): boolean {
    return this.#shapes.some((shape) =>
      shape.lsn > calledAt && shape.kind === kind && shape.key === key
    );
  }

  /** A8: the tablets that a replica has are those of its position. */
  checkTablets(tablets: Tablets, appliedLsn: number, who: string): void {
    const then = this.#shapes.findLast(({ lsn }) => lsn <= appliedLsn)?.tablets ?? this.#firstShape;
    const identity = (list: readonly Tablet[]) =>
      list.map(({ counts: _, ...tablet }) => JSON.stringify(tablet)).join();
    const found = tablets.all();
    if (identity(found) !== identity(then)) {
      throw new SimViolation(
        `A8: as of ${appliedLsn} ${who} has the tablets ${rangesOf(found)} instead of ` +
          rangesOf(then),
      );
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
    const executions = this.#history.executions.get(name) ?? [],
      answer = this.#history.answers.get(name);
    const applied = executions.filter(({ outcome }) => outcome.kind === "applied");
    if (applied.length > 1) {
      const where = applied.map(({ at }) => at).join(" and ");
      throw new SimViolation(`R1: ${name} was executed twice, at ${where}`);
    }
    if (answer === undefined) return;
    if ((answer.kind === "failed" || answer.kind === "refused") && applied.length > 0) {
      const said = answer.kind === "failed" ? `not executed (${answer.code})` : "refused";
      throw new SimViolation(`R1: ${name} was reported as ${said}, but happened`);
    }
  }

  answered(name: string, answer: WriteAnswer, calledAt: number): void {
    this.#history.answers.set(name, answer);
    this.#compare(name);
    if (answer.kind === "failed" || answer.kind === "unknown") return;
    const executions = this.#history.executions.get(name) ?? [];
    const fitting = executions.some(({ at, outcome }) => {
      if (at <= calledAt || outcome.kind !== answer.kind) return false;
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
    for (const [name, { kind }] of this.#history.answers) {
      this.#compare(name);
      const applied = (this.#history.executions.get(name) ?? [])
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
    // Rows that moved apart, or are about to, are read one after the other.
    if (rows.length > 1 && this.#history.movedAt > 0) {
      for (const row of rows) {
        const own = cells.filter((cell) => cell.row === row);
        this.checkRead(`${what}, its row ${row}`, [row], own, { calledAt });
      }
      return;
    }
    const history = this.#history;
    const seen = new Map(cells.map((cell) => [`${cell.row}\0${cell.column}`, cell]));
    const columns = history.columnsOf(rows)
      .filter((key) => column === undefined || key.endsWith(`\0${column}`));
    for (const key of seen.keys()) {
      if (!columns.includes(key)) {
        throw new SimViolation(`S3: ${what} shows ${JSON.stringify(key)}, which nobody wrote`);
      }
    }
    const positions = new Set<number>([calledAt]);
    for (const key of columns) {
      for (const { at } of history.changes.get(key)!) if (at > calledAt) positions.add(at);
    }
    for (const position of positions) {
      const fits = columns.every((key) => {
        const then = history.at(key, position), now = seen.get(key);
        return then === null
          ? now === undefined
          : now !== undefined && now.version === then.version && now.crc === then.crc;
      });
      if (fits) return;
    }
    throw new SimViolation(
      `S3: ${what} shows a state that was never there from ${calledAt} to ${this.now}: ` +
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
    { calledAt, snapshotLsn, startRow, end, range }: {
      calledAt: number;
      snapshotLsn: number | null;
      startRow: string;
      end: CellPosition | null;
      range: KeyRange;
    },
  ): void {
    const history = this.#history;
    const seen = new Map(cells.map((cell) => [`${cell.row}\0${cell.column}`, cell]));
    const keys = history.keysWithin(startRow, end, range);
    const fits = (position: number) => {
      let count = 0;
      for (const key of keys) {
        const then = history.at(key, position), now = seen.get(key);
        if (then === null && now === undefined) continue;
        if (then?.version !== now?.version || then?.size !== now?.size) return false;
        if (now!.crc !== null && now!.crc !== then!.crc) return false;
        count += 1;
      }
      return count === seen.size;
    };
    const snapshotAt = snapshotLsn === null ? null : this.#ats.get(snapshotLsn) ?? 0;
    if (snapshotAt !== null && !fits(snapshotAt)) {
      throw new SimViolation(`S3: ${what} does not show the state as of ${snapshotLsn}`);
    }
    if (snapshotAt !== null && snapshotAt >= calledAt) return;
    for (let position = this.now; position >= calledAt; position--) if (fits(position)) return;
    throw new SimViolation(
      `S3: ${what}${snapshotLsn === null ? "" : ` as of ${snapshotLsn}`} shows a state that was ` +
        `never there from ${calledAt} to ${this.now}`,
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
    this.#checkCounts(state.tablets.all(), found, who);
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
  // Whether it happens is for the transaction to say.
  if (command.kind === "prepare") return null;
  for (const { mutations } of rowOpsOf(command)) {
    for (const mutation of mutations) {
      if (mutation.kind !== "put" || mutation.column !== NAME_COLUMN) continue;
      return new TextDecoder().decode(mutation.value.value as Uint8Array);
    }
  }
  return null;
}

/** Tells the history of what becomes of cells that clients may see. */
class RecordingStore extends MemoryCellStore {
  isShown = true;

  constructor(readonly history: ClusterHistory) {
    super();
  }

  override put(cell: StoredCell): void {
    super.put(cell);
    const { version, crc, size } = cell;
    if (this.isShown) this.history.note(cell, { version, crc, size });
  }

  override delete(row: string, column: string): void {
    super.delete(row, column);
    if (this.isShown) this.history.note({ row, column }, null);
  }
}
