/**
 * The store's rules in one process, without replication or disk: the same operations, limits, pages
 * and answers as a cluster's, for tests of the apps and for development.
 *
 * `beforeCall` lets a test delay or fail a call at any point: what it throws comes out of the call,
 * before the operation is applied.
 */
import { lsn } from "../proto/ids.ts";
import { type CellRange, isBlobRef, type StoredCell } from "./cell_store.ts";
import { GroupState } from "./group_state.ts";
import {
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
import { checkKey, checkRowOp, checkTransaction } from "./limits.ts";
import type { LogRequest } from "./command.ts";
import { toLogRowOp, toRowResult, toTransactResult } from "./log_value.ts";
import { MemoryCellStore } from "./memory_cell_store.ts";
import { readRowPage, readScanPage } from "./pages.ts";
import type { RowOutcome } from "./row_op.ts";

export interface MemoryKvOptions {
  readonly rowBytesMax?: number;
  /** Of a transaction, `row` is the first row. */
  readonly beforeCall?: (
    call: "get" | "getRow" | "scan" | "apply" | "transact",
    row: string,
  ) => void | Promise<void>;
}

export class MemoryKv implements Kv {
  readonly #state: GroupState;
  readonly #beforeCall: NonNullable<MemoryKvOptions["beforeCall"]>;
  #lastSeq = 0;

  constructor(options: MemoryKvOptions = {}) {
    const { rowBytesMax = 64 * 1024 * 1024, beforeCall = () => {} } = options;
    this.#state = new GroupState(new MemoryCellStore(), { rowBytesMax });
    this.#beforeCall = beforeCall;
  }

  async get(row: string, column: string): Promise<FullCell | null> {
    checkKey("row", row);
    checkKey("column", column);
    await this.#beforeCall("get", row);
    const cell = this.#state.store.get(row, column);
    if (cell === undefined || isBlobRef(cell.value)) return null;
    return { column, version: cell.version, size: cell.size, value: cell.value.slice() };
  }

  async getRow(row: string, options: RowPageOptions = {}): Promise<RowPage> {
    checkKey("row", row);
    await this.#beforeCall("getRow", row);
    const page = readRowPage(this.#state.store, row, options);
    return { cells: page.cells.map((cell) => toCell(cell, options)), next: page.next };
  }

  async scan(options: ScanOptions): Promise<ScanPage> {
    await this.#beforeCall("scan", options.prefix ?? options.startRow ?? "");
    const bounds = { startKey: "", endKey: null };
    const { store, snapshots } = this.#state;
    if (options.snapshot !== true) {
      const page = readScanPage(store, options, bounds);
      return { cells: page.cells.map((cell) => toRowCell(cell, options)), next: page.next };
    }
    const at = lsn(options.after?.snapshot?.lsn ?? this.#state.appliedLsn);
    if (options.after?.snapshot === undefined) snapshots.open(at, 0);
    snapshots.check(at, 0);
    let { after } = options;
    for (;;) {
      const source = { range: (range: CellRange) => snapshots.range(store, at, range) };
      const page = readScanPage(
        source,
        after === undefined ? options : { ...options, after },
        bounds,
      );
      const cells = page.cells.map((cell) => toRowCell(cell, options));
      if (page.next === null) {
        snapshots.close(at);
        return { cells, next: null };
      }
      after = { ...page.next, snapshot: { gid: 1, lsn: at } };
      if (cells.length > 0) return { cells, next: after };
    }
  }

  async apply(op: RowOp): Promise<RowResult> {
    checkRowOp(op);
    await this.#beforeCall("apply", op.row);
    return toRowResult(this.#request({ kind: "rowOp", op: toLogRowOp(copyValues(op)) }));
  }

  async transact(ops: readonly RowOp[]): Promise<TransactResult> {
    checkTransaction(ops);
    await this.#beforeCall("transact", ops[0]!.row);
    const logged = ops.map((op) => toLogRowOp(copyValues(op)));
    return toTransactResult(ops, this.#request({ kind: "multiRow", ops: logged }));
  }

  #request(request: LogRequest): RowOutcome {
    const seq = ++this.#lastSeq;
    const stamp = { clientId: "memory-kv", seq, firstIncomplete: seq, issuedMs: 0 };
    const command = { ...request, stamp, timeMs: 0 };
    const outcome = this.#state.apply(command, lsn(this.#state.appliedLsn + 1));
    if (outcome === null) throw new Error("a request always has an outcome");
    return outcome;
  }
}

/** The caller may reuse its buffers as soon as the call returns. */
function copyValues(op: RowOp): RowOp {
  return {
    ...op,
    mutations: op.mutations.map((part) =>
      "value" in part ? { ...part, value: part.value.slice() } : part
    ),
  };
}

const toRowCell = (cell: StoredCell, options: { keysOnly?: boolean }) => ({
  row: cell.row,
  ...toCell(cell, options),
});

function toCell(cell: StoredCell, options: { keysOnly?: boolean }): Cell {
  const { column, version, size, value } = cell;
  const shown = options.keysOnly !== true && size <= INLINE_BYTES_MAX && !isBlobRef(value);
  return shown ? { column, version, size, value: value.slice() } : { column, version, size };
}
