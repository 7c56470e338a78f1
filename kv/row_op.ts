/**
 * What a row operation does to a row: conditions first, then all mutations or none.
 *
 * Pure and deterministic: every replica runs it on the same state at the same place in the log and
 * gets the same cells and the same answer. It works on the log's form of an operation, in which a
 * large value is a reference to a file and every value carries its size and checksum.
 *
 * Start at {@link evaluateRowOp}. Limits of keys and values are checked before, in limits.ts.
 */
import { type Version, version as toVersion } from "../proto/ids.ts";
import { CELL_OVERHEAD_BYTES as CHANGE_OVERHEAD_BYTES } from "./cell_memory.ts";
import { type BlobRef, type CellStore, isBlobRef, type StoredCell } from "./cell_store.ts";
import { isInternal } from "./internal_columns.ts";
import { crc32 } from "node:zlib";

/** A value on its way into the store. */
export interface LogValue {
  readonly size: number;
  readonly crc: number;
  readonly value: Uint8Array | BlobRef;
}

export type LogCondition =
  | { readonly column: string; readonly is: "absent" | "present" }
  | { readonly column: string; readonly is: "version"; readonly version: Version }
  | { readonly column: string; readonly is: "value"; readonly value: LogValue };

export type LogMutation =
  | { readonly kind: "put"; readonly column: string; readonly value: LogValue }
  | { readonly kind: "delete"; readonly column: string }
  | { readonly kind: "deletePrefix"; readonly prefix: string }
  | { readonly kind: "add"; readonly column: string; readonly by: number }
  | {
    readonly kind: "append";
    readonly counter: string;
    readonly prefix: string;
    readonly value: LogValue;
  };

export interface LogRowOp {
  readonly row: string;
  readonly conditions: readonly LogCondition[];
  readonly mutations: readonly LogMutation[];
}

/** The answer that is recorded and sent; `failed` says why nothing was applied. */
export type RowOutcome =
  | { readonly kind: "applied"; readonly version: Version; readonly numbers: readonly number[] }
  | {
    readonly kind: "refused";
    /** Which of several rows' operations; 0 when there is only one. */
    readonly opIndex: number;
    readonly conditionIndex: number;
    readonly version: Version;
  }
  | {
    readonly kind: "failed";
    readonly code: "row_too_large" | "invalid_request" | "busy";
    readonly message: string;
  };

/** What becomes of one column; null where there is no cell. */
export interface CellChange {
  readonly column: string;
  readonly before: StoredCell | null;
  readonly after: StoredCell | null;
}

/** What a successful operation changes; at most one entry a column. */
export interface RowChanges {
  readonly cells: readonly CellChange[];
  /** Change of the row's bytes, counted as `cellBytes` does. */
  readonly bytesDelta: number;
  readonly cellsDelta: number;
  /** Change of the bytes in files of their own. */
  readonly largeBytesDelta: number;
}

/** What a cell is charged: its column, its value if inline, and a constant for the bookkeeping. */
export function cellBytes(column: string, value: { size: number; value: unknown }): number {
  return CELL_OVERHEAD_BYTES + column.length + (value.value instanceof Uint8Array ? value.size : 0);
}

/** What a cell adds to the bytes that lie in files of their own. */
export function largeBytes(value: { size: number; value: unknown }): number {
  return value.value instanceof Uint8Array ? 0 : value.size;
}

const CELL_OVERHEAD_BYTES = 64;

/**
 * What one operation may take in memory for the columns that it changes, besides its values. Only
 * deleting by prefix can change more columns than an operation names.
 */
export const CHANGED_BYTES_MAX = 512 * 1024;

/** What the columns take that an operation deletes; several rows in one entry share the limit. */
export function deletedBytes(row: string, { cells }: RowChanges): number {
  let bytes = 0;
  for (const { column, after } of cells) if (after === null) bytes += changedBytes(row, column);
  return bytes;
}

const changedBytes = (row: string, column: string) =>
  CHANGE_OVERHEAD_BYTES + 2 * (row.length + column.length);

export interface RowLimits {
  /** The log position of the operation. */
  readonly at: Version;
  /** Bytes of the row now, as the sum of `cellBytes`; asked for only when the row is to grow. */
  readonly rowBytes: () => number;
  /** An operation that would grow the row beyond it fails with `row_too_large`. */
  readonly rowBytesMax: number;
}

/** Evaluates `op` without changing the store. */
export function evaluateRowOp(
  store: CellStore,
  op: LogRowOp,
  limits: RowLimits,
): { outcome: RowOutcome; changes: RowChanges | null } {
  const refused = op.conditions.length === 0 ? null : firstRefusal(store, [op]);
  return refused !== null ? { outcome: refused, changes: null } : stageRowOp(store, op, limits);
}

/** The first condition of several rows' operations that does not hold. */
export function firstRefusal(
  store: CellStore,
  ops: readonly LogRowOp[],
): RowOutcome & { kind: "refused" } | null {
  for (const [opIndex, { row, conditions }] of ops.entries()) {
    for (const [conditionIndex, condition] of conditions.entries()) {
      const cell = store.get(row, condition.column);
      if (holds(condition, cell)) continue;
      return { kind: "refused", opIndex, conditionIndex, version: cell?.version ?? toVersion(0) };
    }
  }
  return null;
}

/** What the mutations would do to the row, the conditions left aside. */
export function stageRowOp(
  store: CellStore,
  op: LogRowOp,
  limits: RowLimits,
): { outcome: RowOutcome; changes: RowChanges | null } {
  const numbers: number[] = [];
  const changes = stageMutations(store, op, { at: limits.at, numbers });
  if (typeof changes === "string") {
    const outcome = { kind: "failed", code: "invalid_request", message: changes } as const;
    return { outcome, changes: null };
  }
  const { bytesDelta } = changes;
  const rowBytes = bytesDelta > 0 ? limits.rowBytes() : 0;
  if (rowBytes + bytesDelta > limits.rowBytesMax) {
    const message = `Cannot grow row "${op.row}" from ${rowBytes} by ${bytesDelta} ` +
      `bytes: a row holds at most ${limits.rowBytesMax}`;
    return { outcome: { kind: "failed", code: "row_too_large", message }, changes: null };
  }
  return { outcome: { kind: "applied", version: limits.at, numbers }, changes };
}

/** A sentence when they cannot be made. */
function stageMutations(
  store: CellStore,
  { row, mutations }: LogRowOp,
  { at, numbers }: { at: Version; numbers: number[] },
): RowChanges | string {
  const [first] = mutations;
  // Most operations are of this kind, and need no view of the row in between.
  if (mutations.length === 1 && first!.kind === "put") {
    return onePut(store, cellWith(row, first!, at));
  }
  const staged = new StagedRow(store, row, at);
  for (const mutation of mutations) {
    const failure = applyMutation(staged, mutation, numbers);
    if (failure !== null) return failure;
  }
  return staged.changes();
}

function cellWith(
  row: string,
  { column, value: { size, crc, value } }: { readonly column: string; readonly value: LogValue },
  version: Version,
): StoredCell {
  return { row, column, version, size, crc, value };
}

function holds(condition: LogCondition, cell: StoredCell | undefined): boolean {
  switch (condition.is) {
    case "absent":
      return cell === undefined;
    case "present":
      return cell !== undefined;
    case "version":
      return (cell?.version ?? 0) === condition.version;
    case "value": {
      const wanted = condition.value;
      if (cell === undefined || cell.size !== wanted.size || cell.crc !== wanted.crc) return false;
      // Versions are the exact way to compare values that live in files: a checksum can collide.
      if (isBlobRef(cell.value) || isBlobRef(wanted.value)) return false;
      return equalBytes(cell.value, wanted.value);
    }
  }
}

/** Returns a sentence when the mutation cannot be applied. */
function applyMutation(row: StagedRow, mutation: LogMutation, numbers: number[]): string | null {
  switch (mutation.kind) {
    case "put":
      row.put(mutation.column, mutation.value);
      return null;
    case "delete":
      row.delete(mutation.column);
      return null;
    case "deletePrefix":
      return row.deletePrefix(mutation.prefix) ? null : TOO_MANY_COLUMNS;
    case "add": {
      const sum = row.add(mutation.column, mutation.by);
      if (sum === null) return notANumber(mutation.column);
      numbers.push(sum);
      return null;
    }
    case "append": {
      const next = row.add(mutation.counter, 1);
      if (next === null) return notANumber(mutation.counter);
      row.put(mutation.prefix + String(next).padStart(APPEND_DIGITS, "0"), mutation.value);
      numbers.push(next);
      return null;
    }
  }
}

/** Ten digits sort as numbers up to 9 999 999 999, twice the range of an IMAP UID. */
const APPEND_DIGITS = 10;

export const TOO_MANY_COLUMNS = "Cannot delete so many columns at once: some two thousand fit " +
  "into one operation, so delete in pieces";

const notANumber = (column: string) => `Column "${column}" does not hold a whole number to add to`;

/** The row as the mutations see it: what they wrote so far, over the store. */
class StagedRow {
  readonly #staged = new Map<string, StoredCell | null>();

  constructor(
    readonly store: CellStore,
    readonly row: string,
    readonly at: Version,
  ) {}

  get(column: string): StoredCell | undefined {
    const staged = this.#staged.get(column);
    return staged === null ? undefined : staged ?? this.store.get(this.row, column);
  }

  put(column: string, value: LogValue): void {
    this.#staged.set(column, cellWith(this.row, { column, value }, this.at));
  }

  delete(column: string): void {
    this.#staged.set(column, null);
  }

  /** False when there are too many. */
  deletePrefix(prefix: string): boolean {
    let bytes = 0;
    for (const column of this.#staged.keys()) {
      if (column.startsWith(prefix)) this.#staged.set(column, null);
    }
    const { row } = this;
    for (const cell of this.store.range({ from: { row, column: prefix }, within: row })) {
      if (!cell.column.startsWith(prefix)) break;
      if (isInternal(cell.column)) continue;
      this.#staged.set(cell.column, null);
      bytes += changedBytes(this.row, cell.column);
      if (bytes > CHANGED_BYTES_MAX) return false;
    }
    return true;
  }

  add(column: string, by: number): number | null {
    const cell = this.get(column);
    let before = 0;
    if (cell !== undefined) {
      if (isBlobRef(cell.value) || cell.size > 20) return null;
      const text = decoder.decode(cell.value);
      before = Number(text);
      if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(before)) return null;
    }
    const sum = before + by;
    if (!Number.isSafeInteger(sum)) return null;
    const value = encoder.encode(String(sum));
    this.put(column, { size: value.length, crc: crc32(value), value });
    return sum;
  }

  changes(): RowChanges {
    return changesOf(this.store, this.row, this.#staged);
  }
}

function onePut(store: CellStore, after: StoredCell): RowChanges {
  const { row, column } = after, before = store.get(row, column) ?? null;
  let bytesDelta = cellBytes(column, after), largeBytesDelta = largeBytes(after);
  if (before !== null) {
    bytesDelta -= cellBytes(column, before);
    largeBytesDelta -= largeBytes(before);
  }
  const cellsDelta = before === null ? 1 : 0;
  return { cells: [{ column, before, after }], bytesDelta, cellsDelta, largeBytesDelta };
}

/** What putting these cells (null: deleting them) into the row changes; each column once. */
export function changesOf(
  store: CellStore,
  row: string,
  staged: Iterable<readonly [column: string, cell: StoredCell | null]>,
): RowChanges {
  let bytesDelta = 0, cellsDelta = 0, largeBytesDelta = 0;
  const cells: CellChange[] = [];
  for (const [column, after] of staged) {
    const before = store.get(row, column) ?? null;
    if (before === null && after === null) continue;
    cells.push({ column, before, after });
    if (before !== null) {
      bytesDelta -= cellBytes(column, before);
      largeBytesDelta -= largeBytes(before);
      cellsDelta -= 1;
    }
    if (after !== null) {
      bytesDelta += cellBytes(column, after);
      largeBytesDelta += largeBytes(after);
      cellsDelta += 1;
    }
  }
  return { cells, bytesDelta, cellsDelta, largeBytesDelta };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
