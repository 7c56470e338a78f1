/**
 * The applied state of one replica group: cells, tablets, completion records and a running hash.
 *
 * `apply()` is the only way in. It is deterministic and runs once for each log entry, in log order,
 * on every replica; its answer is the answer that the client gets. Two replicas at the same log
 * position have the same `hash`, and the primary's heartbeats compare them.
 */
import { crc32 } from "node:zlib";
import { z } from "zod";
import type { RequestStamp, TxnStep } from "../proto/command.ts";
import { type Lsn, lsn as toLsn, type Version, version } from "../proto/ids.ts";
import { cellHash, hashText, HIGH_LANE, LOW_LANE, placeHash } from "./cell_hash.ts";
import { type CellStore, isBlobRef, type StoredCell } from "./cell_store.ts";
import { blobsOf, type Command, type LogRequest, rowOpsOf } from "./command.ts";
import { Completions, RECORD_LIFE_MS, REMEMBERED_AGE_MS, SavedCompletions } from "./completions.ts";
import { invariant } from "./invariant.ts";
import type { BucketLimits, Counts } from "./key_buckets.ts";
import { compareKeys } from "./key_order.ts";
import { mutated } from "./mutant.ts";
import type { RecordedOutcome, RequestOutcome } from "./outcome.ts";
import { RecentMap } from "./recent_map.ts";
import { type ChangedRows, RowLocks, SavedRowLocks } from "./row_locks.ts";
import {
  cellBytes,
  type CellChange,
  CHANGED_BYTES_MAX,
  deletedBytes,
  evaluateRowOp,
  firstRefusal,
  largeBytes,
  type LogRowOp,
  type RowChanges,
  type RowLimits,
  type RowOutcome,
  stageRowOp,
  TOO_MANY_COLUMNS,
} from "./row_op.ts";
import { ROW_SIZE_BYTES } from "./node_memory.ts";
import { Snapshots, UndoBudget } from "./snapshots.ts";
import type { AwayOutcome, MoveOutcome } from "./tablet_move.ts";
import { awayFrom, TabletMoves } from "./tablet_moves.ts";
import { DEFAULT_BUCKETS, type KeyRange, SavedTablets, Tablets } from "./tablets.ts";

/** Everything but the cells, as it is saved with a checkpoint. */
export const SavedGroupState = z.object({
  appliedLsn: z.int().nonnegative(),
  /** See `GroupState.position`. */
  positionOffset: z.int().nonnegative(),
  timeMs: z.number(),
  hash: z.tuple([z.int(), z.int()]),
  tablets: SavedTablets,
  largeRows: z.array(z.tuple([z.string(), z.int(), z.int(), z.int()])),
  completions: SavedCompletions,
  locks: SavedRowLocks,
});
export type SavedGroupState = z.infer<typeof SavedGroupState>;

/**
 * Rows beyond this are listed with their exact size; all others are small enough to be counted by
 * reading them, so no size needs to be stored for each row.
 */
const LARGE_ROW_BYTES = 256 * 1024;
const ROW_SIZES_MAX = 20_000;

type RowSize = Omit<Counts, "rows">;

const UNDO_BYTES = 1024 * 1024;
const ALL_KEYS: KeyRange = { startKey: "", endKey: null };

export type AppliedOutcome = RequestOutcome | AwayOutcome | MoveOutcome;

export interface ChangeWatcher {
  changed(
    row: string,
    column: string,
    before: StoredCell | null,
    after: StoredCell | null,
  ): void;
}

export interface GroupStateOptions {
  readonly rowBytesMax: number;
  /** The rows that the group carries. Default: all. */
  readonly range?: KeyRange;
  readonly buckets?: BucketLimits;
  readonly saved?: SavedGroupState;
  /** Memory for what open scans still have to see; shared by the groups of a node. */
  readonly undo?: UndoBudget;
  /** Rows whose sizes are remembered, so that writing to them again needs no counting. */
  readonly rowSizesMax?: number;
}

export class GroupState {
  readonly store: CellStore;
  /** What scans that began at an earlier position still see. */
  readonly snapshots: Snapshots;
  /** Told of every change of a cell, while a move needs to know. Only here, not replicated. */
  watcher: ChangeWatcher | null = null;
  readonly #moves: TabletMoves;
  readonly #rowBytesMax: number;
  readonly #rowSizesMax: number;
  #appliedLsn = toLsn(0);
  #positionOffset = 0;
  #timeMs = 0;
  #hashLow = 0;
  #hashHigh = 0;
  readonly #tablets: Tablets;
  readonly #largeRows = new Map<string, RowSize>();
  /** Sizes of small rows that were looked at or changed lately. */
  readonly #rowSizes = new RecentMap<RowSize>();
  #completions = new Completions();
  #locks = new RowLocks();
  #freedBlobs: string[] = [];

  constructor(store: CellStore, options: GroupStateOptions) {
    this.store = store;
    this.snapshots = new Snapshots(options.undo ?? new UndoBudget(UNDO_BYTES));
    this.#rowBytesMax = options.rowBytesMax;
    this.#rowSizesMax = options.rowSizesMax ?? ROW_SIZES_MAX;
    const { saved, range = ALL_KEYS, buckets = DEFAULT_BUCKETS } = options;
    this.#tablets = new Tablets(range, buckets, saved?.tablets);
    this.#moves = new TabletMoves({
      store,
      tablets: this.#tablets,
      position: () => this.position,
      raisePosition: (above) => {
        const offset = Math.max(0, above + 1 - this.#appliedLsn);
        this.#positionOffset = Math.max(this.#positionOffset, offset);
      },
      hash: () => [this.#hashLow, this.#hashHigh],
      completions: () => this.#completions,
      at: () => ({ lsn: this.#appliedLsn, timeMs: this.#timeMs }),
      locks: () => this.#locks,
      change: (row, changes) => this.#change(row, changes),
    });
    if (saved === undefined) return;
    this.#appliedLsn = toLsn(saved.appliedLsn);
    this.#positionOffset = saved.positionOffset;
    this.#timeMs = saved.timeMs;
    [this.#hashLow, this.#hashHigh] = saved.hash;
    for (const [row, bytes, cells, largeBytes] of saved.largeRows) {
      this.#largeRows.set(row, { bytes, cells, largeBytes });
    }
    this.#completions = Completions.load(saved.completions);
    this.#locks = RowLocks.load(saved.locks);
  }

  get appliedLsn(): Lsn {
    return this.#appliedLsn;
  }

  /**
   * What is given to cells as their version, to snapshots and to clients as "how far the group had
   * come": the last applied Lsn, plus what it took to stay above the versions of cells that tablets
   * brought from other groups. So it rises with every entry, and a row never sees one twice.
   */
  get position(): Lsn {
    return toLsn(this.#appliedLsn + this.#positionOffset);
  }

  /** The group's own clock: the time of the last applied entry. */
  get timeMs(): number {
    return this.#timeMs;
  }

  get completions(): Completions {
    return this.#completions;
  }

  get tablets(): Tablets {
    return this.#tablets;
  }

  get locks(): RowLocks {
    return this.#locks;
  }

  /** Cells of the store's own, locks and intents, are counted like all others. */
  get counts(): Counts {
    return this.#tablets.counts;
  }

  /** Memory for counting rows and tablets. */
  get indexBytes(): number {
    return this.#tablets.memoryBytes +
      ROW_SIZE_BYTES * (this.#rowSizes.size + this.#largeRows.size);
  }

  /** 16 hex digits; equal on all replicas that applied the same entries. */
  get hash(): string {
    let low = this.#hashLow, high = this.#hashHigh;
    for (const identity of this.#tablets.identities()) {
      low = (low + crc32(identity)) | 0;
      high = (high + crc32(identity, HIGH_LANE)) | 0;
    }
    return hashText([low, high]);
  }

  save(): SavedGroupState {
    return {
      appliedLsn: this.#appliedLsn,
      positionOffset: this.#positionOffset,
      timeMs: this.#timeMs,
      hash: [this.#hashLow, this.#hashHigh],
      tablets: this.#tablets.save(),
      largeRows: Array.from(
        this.#largeRows,
        ([row, { bytes, cells, largeBytes }]) => [row, bytes, cells, largeBytes],
      ),
      completions: this.#completions.save(),
      locks: this.#locks.save(),
    };
  }

  /** Applies the entry behind the last one. Returns null for entries that nobody waits for. */
  apply(command: Command, lsn: Lsn): AppliedOutcome | null {
    invariant(
      lsn === this.#appliedLsn + 1,
      "A1",
      () => `entry ${lsn} applied behind ${this.#appliedLsn}`,
    );
    this.#appliedLsn = lsn;
    this.#timeMs = Math.max(this.#timeMs, command.timeMs);
    this.#completions.forgetBefore(this.#timeMs - RECORD_LIFE_MS);
    switch (command.kind) {
      case "epochStart":
        return null;
      case "split":
        this.#tablets.split(command, this.#rowSizesIn);
        return null;
      case "merge":
        this.#tablets.merge(command);
        return null;
      case "forgetClients":
        this.#completions.forgetIdle(command);
        return null;
      case "move":
        return this.#moves.apply(command.step);
      case "rowOp":
      case "multiRow":
      case "prepare":
      case "settle":
        return this.#applyRequest(command);
    }
  }

  #applyRequest(command: Command & LogRequest): AppliedOutcome | null {
    // Two copies of one request can reach the log while the first is not applied yet.
    const executeAgain = mutated("copy-in-log-executed") ||
      mutated("condition-checked-again") &&
        rowOpsOf(command).some((op) => op.conditions.length > 0);
    const known = executeAgain ? undefined : this.#knownOf(command.stamp);
    if (known !== undefined) return this.#unused(command, known === "forgotten" ? null : known);
    const away = awayFrom(this.#tablets, command);
    if (away !== null) return this.#unused(command, away);
    const blocker = this.#locks.blocker(rowOpsOf(command));
    if (blocker !== null && !mutated("lock-ignored-by-writes")) {
      return this.#unused(command, blocker);
    }
    const outcome = this.#execute(command, this.position);
    if (outcome.kind !== "applied") this.#unused(command, outcome);
    if (!mutated("completion-not-recorded")) {
      this.#completions.record(command.stamp, outcome, {
        timeMs: this.#timeMs,
        lsn: this.#appliedLsn,
      });
    }
    return outcome;
  }

  /** What became of a request before; "forgotten" also where a record of it could be gone by now. */
  #knownOf(stamp: RequestStamp): ReturnType<Completions["find"]> {
    const found = this.#completions.find(stamp);
    if (found !== undefined || mutated("leap-forgets-executed")) return found;
    return this.#timeMs - stamp.issuedMs > REMEMBERED_AGE_MS ? "forgotten" : undefined;
  }

  /** `lsn`, here and below: the entry's position. */
  #execute(command: LogRequest, lsn: Lsn): RecordedOutcome {
    switch (command.kind) {
      case "rowOp":
        return this.#applyRowOp(command.op, lsn);
      case "multiRow":
        return this.#applyMultiRow(command.ops, lsn);
      case "prepare":
        return this.#applyPrepare(command, lsn);
      case "settle":
        return this.#applySettle(command, lsn);
    }
  }

  #applyRowOp(op: LogRowOp, lsn: Lsn): RowOutcome {
    const { outcome, changes } = evaluateRowOp(this.store, op, this.#limitsOf(op.row, lsn));
    if (changes !== null) this.#change(op.row, changes);
    return outcome;
  }

  /** Everything is evaluated before anything changes; the rows are distinct. */
  #applyMultiRow(ops: readonly LogRowOp[], lsn: Lsn): RowOutcome {
    const { outcome, staged } = this.#stage(ops, lsn);
    for (const [row, changes] of staged) this.#change(row, changes);
    return outcome;
  }

  #applyPrepare(command: LogRequest & { kind: "prepare" }, lsn: Lsn): RowOutcome {
    const { txn, ops, others, lifeMs } = command;
    const refusal = this.#locks.refusal(txn, ops.map(({ row }) => row));
    if (refusal !== null) return { kind: "failed", ...refusal };
    const { outcome, staged } = this.#stage(ops, lsn);
    for (const [row, intents] of staged) {
      const decides = { others, untilMs: this.#timeMs + lifeMs };
      const lock = row === txn.anchor ? { row, ...txn, decides } : { row, ...txn };
      this.#change(row, this.#locks.lock(this.store, lock, intents, version(lsn)));
    }
    return outcome;
  }

  #applySettle(command: LogRequest & { kind: "settle" }, lsn: Lsn): RecordedOutcome {
    const { txn: { id }, step, lifeMs } = command;
    const changed = this.#settle(id, { step, untilMs: this.#timeMs + lifeMs }, version(lsn));
    for (const [row, changes] of changed) this.#change(row, changes);
    const believed = step === "commit" && mutated("commit-without-anchor");
    const state = believed ? "committed" : this.#locks.stateOf(id);
    return { kind: "settled", state, version: version(changed.length > 0 ? lsn : 0) };
  }

  #settle(
    id: string,
    { step, untilMs }: { step: TxnStep; untilMs: number },
    at: Version,
  ): ChangedRows {
    const locks = this.#locks, { store } = this;
    const state = locks.stateOf(id);
    switch (step) {
      case "extend":
        return locks.extend(store, id, untilMs, at);
      case "commit":
        return locks.commit(store, id, at);
      case "abort":
        return state === "pending" ? locks.settle(store, id, "back", at) : [];
      case "expire": {
        const expired = state === "pending" && locks.remainingMs(id, this.#timeMs) === 0;
        return expired ? locks.settle(store, id, "back", at) : [];
      }
      case "forget":
        return locks.forget(store, id);
      case "forward":
      case "back":
        // Where the anchor is, only its own fate moves the others.
        return state === "gone" ? locks.settle(store, id, step, at) : [];
    }
  }

  /** What several rows' operations would do, or why none of them is done. Changes nothing. */
  #stage(
    ops: readonly LogRowOp[],
    lsn: Lsn,
  ): { outcome: RowOutcome; staged: [row: string, changes: RowChanges][] } {
    const refused = firstRefusal(this.store, ops);
    if (refused !== null) return { outcome: refused, staged: [] };
    const staged: [row: string, changes: RowChanges][] = [];
    const numbers: number[] = [];
    for (const op of ops) {
      const { outcome, changes } = stageRowOp(this.store, op, this.#limitsOf(op.row, lsn));
      if (outcome.kind !== "applied" || changes === null) return { outcome, staged: [] };
      numbers.push(...outcome.numbers);
      staged.push([op.row, changes]);
    }
    let deleted = 0;
    for (const [row, changes] of staged) deleted += deletedBytes(row, changes);
    if (deleted > CHANGED_BYTES_MAX) {
      const message = TOO_MANY_COLUMNS;
      return { outcome: { kind: "failed", code: "invalid_request", message }, staged: [] };
    }
    return { outcome: { kind: "applied", version: version(lsn), numbers }, staged };
  }

  /** Compares a sample of the counts with the cells, another one at each call (A8). */
  audit(): void {
    this.#tablets.audit(this.#rowSizesIn);
  }

  /** Files of values that the state no longer mentions, since the last call. */
  takeFreedBlobs(): string[] {
    const freed = this.#freedBlobs;
    if (freed.length > 0) this.#freedBlobs = [];
    return freed;
  }

  #limitsOf(row: string, lsn: Lsn): RowLimits {
    const rowBytes = () => this.#rowSize(row).bytes;
    return { at: version(lsn), rowBytes, rowBytesMax: this.#rowBytesMax };
  }

  #change(row: string, changes: RowChanges): void {
    const resized = isResized(changes);
    // Before the cells change: the size may have to be counted.
    const size = resized ? this.#sizeForChange(row, changes) : null;
    for (const change of changes.cells) this.#replace(row, change);
    this.#freeBlobs(changes);
    if (resized) this.#resizeRow(row, size, changes);
  }

  #freeBlobs({ cells }: RowChanges): void {
    for (const { before } of cells) {
      if (before === null || !isBlobRef(before.value)) continue;
      const { blob } = before.value;
      // An intent that becomes a value keeps its file.
      const isKept = cells.some(({ after }) =>
        after !== null && isBlobRef(after.value) && after.value.blob === blob
      );
      if (!isKept) this.#freedBlobs.push(blob);
    }
  }

  /** The command had no effect, so no cell will name the files of its large values. */
  #unused<T>(command: Command, outcome: T): T {
    for (const { blob } of blobsOf(command)) this.#freedBlobs.push(blob);
    return outcome;
  }

  #replace(row: string, { column, before, after }: CellChange): void {
    const low = placeHash(row, column, LOW_LANE), high = placeHash(row, column, HIGH_LANE);
    if (before !== null) {
      this.#addToHash({ low, high, cell: before, sign: -1 });
      this.snapshots.keep(before, this.position);
    }
    if (after === null) this.store.delete(row, column);
    else {
      this.#addToHash({ low, high, cell: after, sign: 1 });
      this.store.put(after);
    }
    this.watcher?.changed(row, column, before, after);
  }

  /** A sum over all cells, so that adding and removing a cell costs the same whatever the size. */
  #addToHash(added: { low: number; high: number; cell: StoredCell; sign: 1 | -1 }): void {
    const { low, high, sign } = added;
    const cell = mutated("hash-without-version")
      ? { ...added.cell, version: version(0) }
      : added.cell;
    this.#hashLow = (this.#hashLow + sign * cellHash(low, cell)) | 0;
    this.#hashHigh = (this.#hashHigh + sign * cellHash(high, cell)) | 0;
  }

  /**
   * The row's size, when it is known or has to be. A row that only loses bytes stays small, and one
   * that gains and loses no cell was there before and is there afterwards: most writes are to rows
   * like that, and need not count them.
   */
  #sizeForChange(row: string, { bytesDelta, cellsDelta }: RowChanges): RowSize | null {
    if (bytesDelta > 0 || cellsDelta !== 0) return this.#rowSize(row);
    return this.#largeRows.get(row) ?? this.#rowSizes.get(row) ?? null;
  }

  #rowSize(row: string): RowSize {
    const large = this.#largeRows.get(row);
    if (large !== undefined) return large;
    let size = this.#rowSizes.get(row);
    if (size === undefined) {
      size = EMPTY_ROW;
      for (const cell of this.store.range({ within: row, keysOnly: true })) {
        size = withCell(size, cell);
      }
      if (size.bytes <= LARGE_ROW_BYTES) this.#keepRowSize(row, size);
    }
    return size;
  }

  /**
   * Rows of a range with their sizes, for counting. Columns of large rows are not read: their sizes
   * are known.
   */
  readonly #rowSizesIn = function* (
    this: GroupState,
    { startKey, endKey }: KeyRange,
  ): Generator<{ row: string } & RowSize> {
    let from = startKey;
    for (;;) {
      let row: string | null = null, size = EMPTY_ROW, large = false;
      for (const cell of this.store.range({ from: { row: from, column: "" }, keysOnly: true })) {
        if (cell.row !== row) {
          if (row !== null) yield { row, ...size };
          row = null;
          if (endKey !== null && compareKeys(cell.row, endKey) >= 0) return;
          row = cell.row;
          const known = this.#largeRows.get(row);
          large = known !== undefined;
          size = known ?? EMPTY_ROW;
        }
        if (large) break;
        size = withCell(size, cell);
      }
      if (row === null) return;
      yield { row, ...size };
      if (!large) return;
      // NUL is in no key, so this is where the next row begins at the earliest.
      from = row + "\0";
    }
  }.bind(this);

  /** `size` null: not known, and so small that it need not be (see `#sizeForChange`). */
  #resizeRow(row: string, size: RowSize | null, delta: RowChanges): void {
    const { bytesDelta: bytes, cellsDelta: cells, largeBytesDelta: largeBytes } = delta;
    const rows = size === null ? 0 : this.#noteRowSize(row, size, delta);
    // Last, because counting may read the rows around this one.
    this.#tablets.add(row, { rows, cells, bytes, largeBytes }, this.#rowSizesIn);
  }

  /** Returns how many rows there are more now. */
  #noteRowSize(row: string, size: RowSize, delta: RowChanges): number {
    const next: RowSize = {
      bytes: size.bytes + delta.bytesDelta,
      cells: size.cells + delta.cellsDelta,
      largeBytes: size.largeBytes + delta.largeBytesDelta,
    };
    invariant(
      next.bytes >= 0 && next.cells >= 0 && next.largeBytes >= 0,
      "A10",
      () => `row "${row}" shrank to ${next.bytes} bytes in ${next.cells} cells`,
    );
    if (next.bytes > LARGE_ROW_BYTES) {
      this.#rowSizes.delete(row);
      this.#largeRows.set(row, next);
    } else {
      this.#largeRows.delete(row);
      this.#keepRowSize(row, next);
    }
    return Number(next.cells > 0) - Number(size.cells > 0);
  }

  #keepRowSize(row: string, size: RowSize): void {
    this.#rowSizes.set(row, size);
    if (this.#rowSizes.size > this.#rowSizesMax) this.#rowSizes.takeOldest();
  }
}

const isResized = ({ bytesDelta, cellsDelta, largeBytesDelta }: RowChanges) =>
  bytesDelta !== 0 || cellsDelta !== 0 || largeBytesDelta !== 0;

const EMPTY_ROW: RowSize = { bytes: 0, cells: 0, largeBytes: 0 };

function withCell({ bytes, cells, largeBytes: large }: RowSize, cell: StoredCell): RowSize {
  return {
    bytes: bytes + cellBytes(cell.column, cell),
    cells: cells + 1,
    largeBytes: large + largeBytes(cell),
  };
}
