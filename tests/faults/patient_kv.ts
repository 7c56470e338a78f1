/**
 * A client that waits as long as it takes: for judges, who ask when all is mended, and to whom a
 * machine that is busy with something else for a while must not look like a store that lost something.
 */
import type {
  CallOptions,
  FullCell,
  Kv,
  RowOp,
  RowPage,
  RowPageOptions,
  RowResult,
  ScanOptions,
  ScanPage,
  TransactResult,
} from "../../kv/kv.ts";

const DEADLINE_MS = 120_000;

export class PatientKv implements Kv {
  readonly #kv: Kv;

  constructor(kv: Kv) {
    this.#kv = kv;
  }

  get(row: string, column: string, options?: CallOptions): Promise<FullCell | null> {
    return this.#kv.get(row, column, { deadlineMs: DEADLINE_MS, ...options });
  }

  getRow(row: string, options?: RowPageOptions & CallOptions): Promise<RowPage> {
    return this.#kv.getRow(row, { deadlineMs: DEADLINE_MS, ...options });
  }

  scan(options: ScanOptions & CallOptions): Promise<ScanPage> {
    return this.#kv.scan({ deadlineMs: DEADLINE_MS, ...options });
  }

  apply(op: RowOp, options?: CallOptions): Promise<RowResult> {
    return this.#kv.apply(op, { deadlineMs: DEADLINE_MS, ...options });
  }

  transact(ops: readonly RowOp[], options?: CallOptions): Promise<TransactResult> {
    return this.#kv.transact(ops, { deadlineMs: DEADLINE_MS, ...options });
  }
}
