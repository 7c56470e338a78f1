/** From the operation that a caller hands in to the log's form of it. */
import { crc32 } from "node:zlib";
import type { RowOp } from "./kv.ts";
import { INLINE_BYTES_MAX } from "./kv.ts";
import type { LogRowOp, LogValue, RowOutcome } from "./row_op.ts";
import { KvError } from "./errors.ts";
import type { RowResult } from "./kv.ts";

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
export function toRowResult(outcome: RowOutcome): RowResult {
  switch (outcome.kind) {
    case "applied":
      return { applied: true, version: outcome.version, numbers: outcome.numbers };
    case "refused": {
      const { conditionIndex, version } = outcome;
      return { applied: false, conditionIndex, version };
    }
    case "failed":
      throw new KvError(outcome.code, outcome.message);
  }
}
