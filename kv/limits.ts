/**
 * The limits of a request, checked once where it enters: at the client, and again at the primary,
 * because a peer's word is not enough. What passes here can be logged and applied.
 */
import { KvError } from "./errors.ts";
import { isInternal } from "./internal_columns.ts";
import {
  type Condition,
  KEY_BYTES_MAX,
  type Mutation,
  MUTATIONS_MAX,
  OPERATION_BYTES_MAX,
  type RowOp,
  ROWS_MAX,
  TRANSACTION_KEY_BYTES_MAX,
  TRANSACTION_PARTS_MAX,
  VALUE_BYTES_MAX,
} from "./kv.ts";

/** @throws {KvError} `invalid_request`, naming the first thing that breaks a limit */
export function checkRowOp(op: RowOp): void {
  checkKey("row", op.row);
  const conditions = op.conditions ?? [];
  if (op.mutations.length === 0) refuse("An operation needs at least one mutation");
  checkParts(op, conditions);
}

/** Returns the bytes of all values. */
function checkParts(op: RowOp, conditions: readonly Condition[]): number {
  if (op.mutations.length > MUTATIONS_MAX || conditions.length > MUTATIONS_MAX) {
    refuse(
      `An operation has at most ${MUTATIONS_MAX} conditions and ${MUTATIONS_MAX} mutations, not ` +
        `${conditions.length} and ${op.mutations.length}`,
    );
  }
  let bytes = 0;
  for (const part of [...conditions, ...op.mutations]) bytes += checkPart(part);
  if (bytes > OPERATION_BYTES_MAX) {
    refuse(`An operation carries at most ${OPERATION_BYTES_MAX} bytes of values, not ${bytes}`);
  }
  return bytes;
}

/** @throws {KvError} `invalid_request`, naming the first thing that breaks a limit */
export function checkTransaction(ops: readonly RowOp[]): void {
  checkRows(ops);
  let parts = 0, valueBytes = 0, keyBytes = 0;
  for (const op of ops) {
    const conditions = op.conditions ?? [];
    if (op.mutations.length + conditions.length === 0) {
      refuse(`The operation on row "${op.row}" has neither conditions nor mutations`);
    }
    valueBytes += checkParts(op, conditions);
    parts += conditions.length + op.mutations.length;
    keyBytes += utf8Bytes(op.row);
    for (const part of [...conditions, ...op.mutations]) keyBytes += keyBytesOf(part);
  }
  if (parts > TRANSACTION_PARTS_MAX) {
    refuse(
      `A transaction has at most ${TRANSACTION_PARTS_MAX} conditions and mutations, not ${parts}`,
    );
  }
  if (valueBytes > OPERATION_BYTES_MAX) {
    refuse(
      `A transaction carries at most ${OPERATION_BYTES_MAX} bytes of values, not ${valueBytes}`,
    );
  }
  if (keyBytes > TRANSACTION_KEY_BYTES_MAX) {
    refuse(
      `A transaction's rows and columns have at most ${TRANSACTION_KEY_BYTES_MAX} bytes of names, ` +
        `not ${keyBytes}`,
    );
  }
}

/** @throws {KvError} `invalid_request` unless these are 1 to ROWS_MAX different rows */
export function checkRows(ops: readonly { readonly row: string }[]): void {
  if (ops.length === 0 || ops.length > ROWS_MAX) {
    refuse(`A transaction has 1 to ${ROWS_MAX} rows, not ${ops.length}`);
  }
  if (ops.length === 1) return checkKey("row", ops[0]!.row);
  const rows = new Set<string>();
  for (const { row } of ops) {
    checkKey("row", row);
    if (rows.has(row)) refuse(`A transaction has one operation for each row, not two for "${row}"`);
    rows.add(row);
  }
}

function keyBytesOf(part: Condition | Mutation): number {
  if ("column" in part) return utf8Bytes(part.column);
  return ("counter" in part ? utf8Bytes(part.counter) : 0) + utf8Bytes(part.prefix);
}

const utf8Bytes = (key: string) => encoder.encode(key).length;

/** Returns the bytes of the part's value. */
function checkPart(part: Condition | Mutation): number {
  if ("prefix" in part && part.prefix !== "") checkColumn("column prefix", part.prefix);
  if ("column" in part) checkColumn("column", part.column);
  if ("counter" in part) {
    checkColumn("column", part.counter);
    // The number goes behind the prefix, so the column that results has to fit as well.
    checkColumn("column", part.prefix + "0000000000");
  }
  if ("by" in part && !Number.isSafeInteger(part.by)) {
    refuse(`Cannot add ${part.by}: only whole numbers up to 2^53 can be added`);
  }
  if (!("value" in part)) return 0;
  const { length } = part.value;
  if (length > VALUE_BYTES_MAX) {
    refuse(`A value has at most ${VALUE_BYTES_MAX} bytes, not ${length}: cut it into chunks`);
  }
  return length;
}

/** @throws {KvError} `invalid_request` unless `key` is 1 to 1024 bytes of well-formed text */
export function checkKey(what: string, key: string): void {
  if (key.length === 0) refuse(`A ${what} cannot be empty`);
  // Three bytes of UTF-8 at most for each UTF-16 unit, so short keys need no encoding.
  if (key.length * 3 > KEY_BYTES_MAX && encoder.encode(key).length > KEY_BYTES_MAX) {
    refuse(`A ${what} has at most ${KEY_BYTES_MAX} bytes of UTF-8: "${key.slice(0, 40)}…"`);
  }
  if (key.includes("\0")) refuse(`A ${what} cannot contain a NUL character`);
  if (!key.isWellFormed()) refuse(`A ${what} has to be well-formed Unicode`);
}

/** A key that names a column, or a prefix of columns, of an application. */
export function checkColumn(what: string, column: string): void {
  checkKey(what, column);
  if (isInternal(column)) {
    refuse(`A ${what} cannot begin with U+0001, which the store keeps for itself`);
  }
}

function refuse(message: string): never {
  throw new KvError("invalid_request", message);
}

const encoder = new TextEncoder();
