/**
 * A `Kv` that writes down what goes through it: each call of one client as an operation of a history.
 *
 * Give each writer of a workload its own, with its own name; they share the recorder. Scans and
 * pages of a row that are not the whole row pass through unrecorded: the checkers judge rows. A
 * transaction over several rows becomes one call for each of its rows, all at the same time; that it
 * is one is for other checkers to see (list_append.ts, bank.ts).
 */
import { KvError } from "../../kv/errors.ts";
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
import { type Call, callOf, type HistoryRecorder, type OpenCall, valueLabel } from "./history.ts";

export class RecordedKv implements Kv {
  readonly #kv: Kv;
  readonly #recorder: HistoryRecorder;
  readonly #process: string;

  constructor(kv: Kv, options: { recorder: HistoryRecorder; process: string }) {
    this.#kv = kv;
    this.#recorder = options.recorder;
    this.#process = options.process;
  }

  async get(row: string, column: string, options?: CallOptions): Promise<FullCell | null> {
    const open = this.#invoke({ op: "get", row, column });
    const cell = await this.#settle([open], this.#kv.get(row, column, options), false);
    const value = cell === null ? null : valueLabel(cell.value);
    this.#recorder.ok(open, { value, version: cell?.version ?? 0 });
    return cell;
  }

  async getRow(row: string, options: RowPageOptions & CallOptions = {}): Promise<RowPage> {
    const { prefix, start, after, keysOnly } = options;
    if (start !== undefined || after !== undefined || keysOnly === true) {
      return this.#kv.getRow(row, options);
    }
    const open = this.#invoke({ op: "getRow", row, ...(prefix === undefined ? {} : { prefix }) });
    const page = await this.#settle([open], this.#kv.getRow(row, options), false);
    const whole = page.next === null && page.cells.every((cell) => cell.value !== undefined);
    // A part of a row says too little to be judged.
    if (!whole) this.#recorder.fail(open, { error: "only a part of the row" });
    else {
      const cells = page.cells.map(({ column, value, version }) => ({
        column,
        value: valueLabel(value!),
        version,
      }));
      this.#recorder.ok(open, { cells });
    }
    return page;
  }

  scan(options: ScanOptions & CallOptions): Promise<ScanPage> {
    return this.#kv.scan(options);
  }

  async apply(op: RowOp, options?: CallOptions): Promise<RowResult> {
    const open = this.#invoke(callOf(op));
    const result = await this.#settle([open], this.#kv.apply(op, options), true);
    const { version } = result;
    this.#recorder.answered(
      open,
      result.applied
        ? { applied: true, version, numbers: [...result.numbers] }
        : { applied: false, version, conditionIndex: result.conditionIndex },
    );
    return result;
  }

  async transact(ops: readonly RowOp[], options?: CallOptions): Promise<TransactResult> {
    const opens = ops.map((op) => this.#invoke(callOf(op)));
    const result = await this.#settle(opens, this.#kv.transact(ops, options), true);
    for (const [index, open] of opens.entries()) {
      if (result.applied) {
        const { version, numbers } = result.results[index]!;
        const written = version === null ? {} : { version };
        this.#recorder.ok(open, { applied: true, ...written, numbers: [...numbers] });
      } else if (index === result.opIndex) {
        const { version, conditionIndex } = result;
        this.#recorder.answered(open, { applied: false, version, conditionIndex });
      } else {
        this.#recorder.fail(open, { error: "another row of the transaction refused" });
      }
    }
    return result;
  }

  #invoke(call: Call): OpenCall {
    return this.#recorder.invoke(this.#process, call);
  }

  /** Records how calls failed; a read that failed has done nothing, whatever the reason. */
  async #settle<T>(opens: readonly OpenCall[], answer: Promise<T>, writes: boolean): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      const text = error instanceof KvError ? error.code : String(error);
      const harmless = error instanceof KvError && error.outcome === "not_applied";
      for (const open of opens) {
        if (harmless || !writes) this.#recorder.fail(open, { error: text });
        else this.#recorder.unknown(open, text);
      }
      throw error;
    }
  }
}
