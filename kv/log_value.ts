/** From the operation that a caller hands in to the log's form of it. */
import { crc32 } from "node:zlib";
import type { RowOp } from "./kv.ts";
import { INLINE_BYTES_MAX } from "./kv.ts";
import type { RecordedOutcome } from "./outcome.ts";
import type { LogRowOp, LogValue } from "./row_op.ts";
import { KvError } from "./errors.ts";
import type { RowResult, TransactResult } from "./kv.ts";

/**
 * Gives every value its checksum. A value above INLINE_BYTES_MAX is handed to `storeBlob`, which
 * names the file that will hold it; without one all values stay inline.
 */
export function toLogRowOp(op: RowOp, storeBlob?: (value: Uint8Array) => string): LogRowOp {
  const toValue = (value: Uint8Array, keepInline: boolean): LogValue => {
    const { length: size } = value;
    const crc = crc32(value);
    if (keepInline || size <= INLINE_BYTES_MAX || storeBlob === undefined) {
      return { size, crc, value };
    }
    return { size, crc, value: { blob: storeBlob(value) } };
  };
  return {
    row: op.row,
    conditions: (op.conditions ?? []).map((part) =>
      part.is === "value" ? { ...part, value: toValue(part.value, true) } : part
    ),
    mutations: op.mutations.map((part) =>
      "value" in part ? { ...part, value: toValue(part.value, false) } : part
    ),
  };
}

/** @throws {KvError} when the operation failed as a whole */
export function toRowResult(outcome: RecordedOutcome): RowResult {
  switch (outcome.kind) {
    case "applied":
      return { applied: true, version: outcome.version, numbers: outcome.numbers };
    case "refused": {
      const { conditionIndex, version } = outcome;
      return { applied: false, conditionIndex, version };
    }
    case "failed":
      throw new KvError(outcome.code, outcome.message);
    case "settled":
      throw new Error("a step of a transaction is no row operation");
  }
}

/**
 * The outcome of several rows' operations that were applied as one entry.
 *
 * @throws {KvError} when the transaction failed as a whole
 */
export function toTransactResult(
  ops: readonly RowOp[],
  outcome: RecordedOutcome,
): TransactResult {
  switch (outcome.kind) {
    case "applied": {
      let taken = 0;
      const results = ops.map((op) => {
        const count = op.mutations.filter(({ kind }) => kind === "add" || kind === "append").length;
        const numbers = outcome.numbers.slice(taken, taken += count);
        return { version: outcome.version, numbers };
      });
      return { applied: true, results };
    }
    case "refused": {
      const { opIndex, conditionIndex, version } = outcome;
      return { applied: false, opIndex, row: ops[opIndex]!.row, conditionIndex, version };
    }
    case "failed":
      throw new KvError(outcome.code, outcome.message);
    case "settled":
      throw new Error("a step of a transaction is no row operation");
  }
}
