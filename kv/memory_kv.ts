/**
 * The store's rules in one process, without replication or disk: the same operations, limits, pages
 * and answers as a cluster's, for tests of the apps and for development.
 *
 * With `splitAt` the rows lie in several groups, as in a cluster, and transactions over them take all
 * of their steps; `sharing` makes another client of the same rows.
 *
 * `beforeCall` lets a test delay or fail a call at any point: what it throws comes out of the call,
 * before the operation is applied. `afterCall` does the same once it is applied: its answer is lost.
 */
import { lsn } from "../proto/ids.ts";
import { type CellRange, isBlobRef, type StoredCell } from "./cell_store.ts";
import type { LogRequest } from "./command.ts";
import type { Env } from "./env.ts";
import { GroupState } from "./group_state.ts";
import { compareKeys } from "./key_order.ts";
import {
  type CallOptions,
  type Cell,
  type FullCell,
  INLINE_BYTES_MAX,
  type Kv,
  type RowOp,
  type RowPage,
  type RowPageOptions,
  type RowResult,
  type ScanOptions,
  type ScanPage,
  type TransactResult,
} from "./kv.ts";
import { checkColumn, checkKey, checkRowOp, checkTransaction } from "./limits.ts";
import { toLogRowOp, toRowResult } from "./log_value.ts";
import { MemoryCellStore } from "./memory_cell_store.ts";
import type { RecordedOutcome, RequestOutcome } from "./outcome.ts";
import { readRowPage, readScanPage } from "./pages.ts";
import { type RowSpan, spanOfRow } from "./read_gate.ts";
import { type SendOptions, TransactionRunner } from "./transaction.ts";

/** `transact` is rows of one group at once; the last three are steps of it over several. */
export type MemoryCall =
  | "get"
  | "getRow"
  | "scan"
  | "apply"
  | "transact"
  | "prepare"
  | "settle"
  | "txnState";

type Hook = (call: MemoryCall, row: string) => void | Promise<void>;

export interface MemoryKvOptions {
  readonly rowBytesMax?: number;
  /** Of several rows, `row` is the first. */
  readonly beforeCall?: Hook;
  readonly afterCall?: Hook;
  /** Where a new group begins, ascending; then an `env` is needed to wait for locks with. */
  readonly splitAt?: readonly string[];
  readonly env?: Env;
  readonly sharing?: MemoryKv;
}

interface MemoryGroup {
  readonly startKey: string;
  readonly endKey: string | null;
  readonly state: GroupState;
}

const DEADLINE_MS = 10_000;
let clientCount = 0;

export class MemoryKv implements Kv {
  readonly #groups: readonly MemoryGroup[];
  readonly #beforeCall: Hook;
  readonly #afterCall: Hook;
  readonly #env: Env;
  readonly #clientId = `memory-kv-${++clientCount}`;
  readonly transactions: TransactionRunner;
  #lastSeq = 0;
  readonly #outstanding = new Set<number>();

  constructor(options: MemoryKvOptions = {}) {
    const { rowBytesMax = 64 * 1024 * 1024, splitAt = [], sharing } = options;
    this.#beforeCall = options.beforeCall ?? (() => {});
    this.#afterCall = options.afterCall ?? (() => {});
    this.#env = options.env ?? (sharing === undefined ? STANDSTILL : sharing.#env);
    this.#groups = sharing !== undefined
      ? sharing.#groups
      : ["", ...splitAt].map((startKey, index) => ({
        startKey,
        endKey: splitAt[index] ?? null,
        state: new GroupState(new MemoryCellStore(), { rowBytesMax }),
      }));
    this.transactions = new TransactionRunner({
      env: this.#env,
      port: {
        groupsOf: (rows) => Promise.resolve(rows.map((row) => this.#indexOf(row))),
        send: (rows, request, options) => this.#send(rows[0]!, request, options),
        stateOf: (txn) =>
          this.#call("txnState", txn.anchor, ({ state }) => ({
            state: state.locks.stateOf(txn.id),
            remainingMs: state.locks.remainingMs(txn.id, this.#timeOf(state)),
          })),
      },
    });
  }

  /** One state a group, in the order of their rows. */
  get states(): readonly GroupState[] {
    return this.#groups.map(({ state }) => state);
  }

  async get(row: string, column: string): Promise<FullCell | null> {
    checkKey("row", row);
    checkColumn("column", column);
    const cell = await this.#read("get", row, (group) => group.state.store.get(row, column));
    if (cell === undefined || isBlobRef(cell.value)) return null;
    return { column, version: cell.version, size: cell.size, value: cell.value.slice() };
  }

  async getRow(row: string, options: RowPageOptions = {}): Promise<RowPage> {
    checkKey("row", row);
    const page = await this.#read(
      "getRow",
      row,
      ({ state }) => readRowPage(state.store, row, options),
    );
    return { cells: page.cells.map((cell) => toCell(cell, options)), next: page.next };
  }

  async scan(options: ScanOptions): Promise<ScanPage> {
    const { prefix = "", startRow = "", limit = 100 } = options;
    const first = compareKeys(prefix, startRow) > 0 ? prefix : startRow;
    const cells: (Cell & { row: string })[] = [];
    let { after } = options;
    let index = this.#indexOf(
      after !== undefined && compareKeys(after.row, first) > 0 ? after.row : first,
    );
    for (;;) {
      const group = this.#groups[index]!;
      const rest = {
        ...options,
        limit: limit - cells.length,
        ...(after === undefined ? {} : { after }),
      };
      const from = compareKeys(group.startKey, first) > 0 ? group.startKey : first;
      const span = { from, until: group.endKey };
      const page = await this.#read("scan", from, () => this.#scanPage(group, index, rest), span);
      for (const cell of page.cells) cells.push({ row: cell.row, ...toCell(cell, options) });
      if (page.next !== null) {
        if (cells.length > 0) return { cells, next: page.next };
        after = page.next;
        continue;
      }
      if (group.endKey === null) return { cells, next: null };
      after = { row: group.endKey, column: "" };
      index += 1;
      if (cells.length >= limit) return { cells, next: after };
    }
  }

  #scanPage(group: MemoryGroup, index: number, options: ScanOptions) {
    const { store, snapshots, appliedLsn } = group.state;
    if (options.snapshot !== true) return readScanPage(store, options, group);
    const known = options.after?.snapshot;
    const at = lsn(known?.lsn ?? appliedLsn);
    if (known === undefined) snapshots.open(at, 0);
    snapshots.check(at, 0);
    const source = { range: (range: CellRange) => snapshots.range(store, at, range) };
    const page = readScanPage(source, options, group);
    if (page.next === null) snapshots.close(at);
    const next = page.next === null
      ? null
      : { ...page.next, snapshot: { gid: index + 1, lsn: at } };
    return { cells: page.cells, next };
  }

  async apply(op: RowOp, options: CallOptions = {}): Promise<RowResult> {
    checkRowOp(op);
    const { deadlineMs = DEADLINE_MS, signal } = options;
    const deadline = { untilMs: this.#env.monotonicMs() + deadlineMs, signal };
    const outcome = await this.#send(
      op.row,
      { kind: "rowOp", op: toLogRowOp(copyValues(op)) },
      {
        deadlineMs,
        onLocked: (lock, round) => this.transactions.unblock(lock, round, deadline),
      },
    );
    return toRowResult(outcome);
  }

  async transact(ops: readonly RowOp[], options: CallOptions = {}): Promise<TransactResult> {
    checkTransaction(ops);
    const { deadlineMs = DEADLINE_MS, signal } = options;
    return await this.transactions.transact(ops.map(copyValues), { deadlineMs, signal });
  }

  async #send(
    row: string,
    request: LogRequest,
    options: Pick<SendOptions, "onLocked" | "deadlineMs">,
  ): Promise<RecordedOutcome> {
    const seq = ++this.#lastSeq;
    this.#outstanding.add(seq);
    try {
      for (let round = 0;; round++) {
        const outcome = await this.#call(
          CALL_OF[request.kind],
          row,
          (group) => this.#applied(group, seq, request),
        );
        if (outcome.kind !== "locked") return outcome;
        await options.onLocked(outcome, round);
      }
    } finally {
      this.#outstanding.delete(seq);
    }
  }

  #applied({ state }: MemoryGroup, seq: number, request: LogRequest): RequestOutcome {
    const firstIncomplete = Math.min(...this.#outstanding);
    const timeMs = this.#timeOf(state);
    const stamp = { clientId: this.#clientId, seq, firstIncomplete, issuedMs: timeMs };
    const command = { ...request, stamp, timeMs };
    const outcome = state.apply(command, lsn(state.appliedLsn + 1));
    if (outcome === null || outcome.kind === "away" || outcome.kind === "move") {
      throw new Error("a request always has an outcome, and its rows do not move");
    }
    return outcome;
  }

  /** Reads, and reads again after settling what decided transactions left on the rows. */
  async #read<T>(
    call: MemoryCall,
    row: string,
    read: (group: MemoryGroup) => T,
    span: RowSpan = spanOfRow(row),
  ): Promise<T> {
    for (;;) {
      const { value, locks } = await this.#call(call, row, (group) => {
        const locks = group.state.locks.decidedElsewhere(span);
        return { value: read(group), locks };
      });
      if (locks.length === 0) return value;
      const options = { deadlineMs: DEADLINE_MS };
      if (!await this.transactions.settleForRead(locks, options)) return value;
    }
  }

  async #call<T>(call: MemoryCall, row: string, run: (group: MemoryGroup) => T): Promise<T> {
    await this.#beforeCall(call, row);
    const result = run(this.#groups[this.#indexOf(row)]!);
    await this.#afterCall(call, row);
    return result;
  }

  #indexOf(row: string): number {
    return this.#groups.findLastIndex(({ startKey }) => compareKeys(row, startKey) >= 0);
  }

  #timeOf(state: GroupState): number {
    return Math.max(state.timeMs, Math.round(this.#env.wallMs()));
  }
}

const CALL_OF = {
  rowOp: "apply",
  multiRow: "transact",
  prepare: "prepare",
  settle: "settle",
} as const;

/** One group never waits for anything. */
const STANDSTILL: Env = {
  monotonicMs: () => 0,
  wallMs: () => 0,
  random: () => 0.5,
  secretBytes: (count) => new Uint8Array(count),
  sleep: () => Promise.reject(new Error("a store of several groups needs an env")),
  timer: () => () => {},
  onBeat: () => () => {},
  log: () => {},
  fatal(error) {
    throw error;
  },
};

/** The caller may reuse its buffers as soon as the call returns. */
function copyValues(op: RowOp): RowOp {
  return {
    ...op,
    mutations: op.mutations.map((part) =>
      "value" in part ? { ...part, value: part.value.slice() } : part
    ),
  };
}

function toCell(cell: StoredCell, options: { keysOnly?: boolean }): Cell {
  const { column, version, size, value } = cell;
  const shown = options.keysOnly !== true && size <= INLINE_BYTES_MAX && !isBlobRef(value);
  return shown ? { column, version, size, value: value.slice() } : { column, version, size };
}
