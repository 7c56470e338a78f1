/**
 * The server's half of transactions over several groups: which rows of one group belong to which
 * transaction, and what becomes of them. (The client's half, and the protocol as a whole, are told in
 * transaction.ts.)
 *
 * A lock carries its intents: the cells that the transaction will write lie beside it in the row, in
 * columns of the store, so rolling forward moves them to their place and rolling back drops them, and
 * neither needs anything from whoever began the transaction. What is written:
 *
 *     \x01lock on the anchor      {"id","anchor","others":[rows in other groups],"untilMs"}
 *     \x01lock elsewhere          {"id","anchor"}
 *     \x01done:<id> on the anchor {"others"}    from the commit until all groups have applied it
 *
 * Cells are the truth and are part of the state's hash; the maps here are an index over them, saved
 * with each checkpoint. All rows of one group that a transaction locked are settled in one step, so
 * a lock whose anchor is in the same group is always undecided.
 */
import { crc32 } from "node:zlib";
import { z } from "zod";
import type { Version } from "../proto/ids.ts";
import type { CellStore, StoredCell } from "./cell_store.ts";
import { invariant } from "./invariant.ts";
import { DECISION, INTERNAL, LOCK, STAGED_DELETE, STAGED_PUT } from "./internal_columns.ts";
import { mutated } from "./mutant.ts";
import type { LockedOutcome, TxnRef, TxnState } from "./outcome.ts";
import { type RowSpan, rowWithin } from "./read_gate.ts";
import { changesOf, type RowChanges } from "./row_op.ts";

/** Rows of a group that may be locked, and decisions that may be kept, at one time. */
export const LOCKS_MAX = 4096;

/** What a lock or a decision takes in memory besides its texts: objects, and places in three maps. */
const LOCK_BYTES = 500;

export interface RowLock extends TxnRef {
  readonly row: string;
  /** On the anchor only. */
  readonly decides?: {
    /** The transaction's rows in other groups. */
    readonly others: readonly string[];
    /** Until when, in the group's own time, nobody may abort it out of impatience. */
    readonly untilMs: number;
  };
}

export interface Decision extends TxnRef {
  readonly others: readonly string[];
}

export const SavedRowLocks = z.object({
  locks: z.array(z.object({
    row: z.string(),
    id: z.string(),
    anchor: z.string(),
    decides: z.object({ others: z.array(z.string()), untilMs: z.number() }).nullable(),
  })),
  decisions: z.array(
    z.object({ id: z.string(), anchor: z.string(), others: z.array(z.string()) }),
  ),
});
export type SavedRowLocks = z.infer<typeof SavedRowLocks>;

/** Changes of rows, for the state to carry out. */
export type ChangedRows = (readonly [row: string, changes: RowChanges])[];

export class RowLocks {
  readonly #byRow = new Map<string, RowLock>();
  readonly #rowsOf = new Map<string, Set<string>>();
  readonly #decisions = new Map<string, Decision>();
  #bytes = 0;

  /** Memory that they take, by a model of their sizes. */
  get bytes(): number {
    return this.#bytes;
  }

  static load(saved: SavedRowLocks): RowLocks {
    const locks = new RowLocks();
    for (const { decides, ...lock } of saved.locks) {
      locks.#add(decides === null ? lock : { ...lock, decides });
    }
    for (const decision of saved.decisions) locks.#decide(decision);
    return locks;
  }

  save(): SavedRowLocks {
    if (mutated("locks-not-checkpointed")) return { locks: [], decisions: [] };
    return {
      locks: Array.from(this.#byRow.values(), ({ row, id, anchor, decides }) => ({
        row,
        id,
        anchor,
        decides: decides === undefined ? null : { ...decides, others: [...decides.others] },
      })),
      decisions: Array.from(this.#decisions.values(), (decision) => ({
        ...decision,
        others: [...decision.others],
      })),
    };
  }

  get locks(): Iterable<RowLock> {
    return this.#byRow.values();
  }

  get decisions(): Iterable<Decision> {
    return this.#decisions.values();
  }

  /** The first of these rows that is locked. */
  blocker(ops: readonly { readonly row: string }[]): LockedOutcome | null {
    if (this.#byRow.size === 0) return null;
    for (const { row } of ops) {
      const lock = this.#byRow.get(row);
      if (lock === undefined) continue;
      return { kind: "locked", row, txn: { id: lock.id, anchor: lock.anchor } };
    }
    return null;
  }

  stateOf(id: string): TxnState {
    if (this.#decisions.has(id)) return "committed";
    return this.#anchorLock(id) === null ? "gone" : "pending";
  }

  /** For how long, at `timeMs`, a pending transaction is not to be aborted out of impatience. */
  remainingMs(id: string, timeMs: number): number {
    return Math.max(0, (this.#anchorLock(id)?.decides?.untilMs ?? 0) - timeMs);
  }

  /** Rows here that the transaction holds. */
  rowsOf(id: string): Iterable<string> {
    return this.#rowsOf.get(id) ?? [];
  }

  /** Locks on rows within the span whose transactions another group decides, or has decided. */
  decidedElsewhere(span: RowSpan): RowLock[] {
    if (this.#byRow.size === 0) return [];
    const only = span.until === span.from + "\0" ? this.#byRow.get(span.from) : null;
    const within = only === undefined ? [] : only !== null ? [only] : Array.from(
      this.#byRow.values(),
    ).filter(({ row }) => rowWithin(span, [row]) !== null);
    return within.filter(({ id }) => this.#anchorLock(id) === null);
  }

  /** Why a transaction may not lock these rows here; they are not locked. */
  refusal(
    txn: TxnRef,
    rows: readonly string[],
  ): { code: "invalid_request" | "busy"; message: string } | null {
    // A client that mixes up its transactions must not be able to decide one of them twice.
    const begun = this.stateOf(txn.id);
    if (begun === "committed" || (begun === "pending" && rows.includes(txn.anchor))) {
      return { code: "invalid_request", message: `Transaction "${txn.id}" began before` };
    }
    if (this.#byRow.size + rows.length <= LOCKS_MAX && this.#decisions.size < LOCKS_MAX) {
      return null;
    }
    return { code: "busy", message: "Too many rows of this group are locked by transactions" };
  }

  /** Locks a row and puts what is to become of it beside it. */
  lock(store: CellStore, lock: RowLock, intents: RowChanges | null, at: Version): RowChanges {
    const { row } = lock;
    const cells = new Map<string, StoredCell | null>();
    for (const { column, after } of intents?.cells ?? []) {
      const staged = after === null
        ? internalCell(row, STAGED_DELETE + column, at, EMPTY)
        : { ...after, column: STAGED_PUT + column };
      cells.set(staged.column, staged);
    }
    cells.set(LOCK, lockCell(lock, at));
    this.#add(lock);
    return changesOf(store, row, cells);
  }

  /** Raises the time until which the transaction is left alone. */
  extend(store: CellStore, id: string, untilMs: number, at: Version): ChangedRows {
    const lock = this.#anchorLock(id);
    if (lock?.decides === undefined || untilMs <= lock.decides.untilMs) return [];
    const extended = { ...lock, decides: { ...lock.decides, untilMs } };
    this.#byRow.set(lock.row, extended);
    return [[lock.row, changesOf(store, lock.row, new Map([[LOCK, lockCell(extended, at)]]))]];
  }

  /** The commit point, when the anchor is locked: all rows here forward, and a note for the others. */
  commit(store: CellStore, id: string, at: Version): ChangedRows {
    const lock = this.#anchorLock(id);
    if (lock?.decides === undefined) return [];
    const { anchor, decides: { others } } = lock;
    invariant(!this.#decisions.has(id), "T1", () => `transaction "${id}" is committed twice`);
    const changed = this.settle(store, id, "forward", at);
    if (others.length === 0) return changed;
    const decision: Decision = { id, anchor, others };
    this.#decide(decision);
    const cell = internalCell(anchor, DECISION + id, at, encode({ others }));
    return changed.map(([row, changes]) =>
      row !== anchor
        ? [row, changes]
        : [row, changesOf(store, row, [...stagedIn(changes), [cell.column, cell]])]
    );
  }

  /** Every group has applied it: nobody will ask any more. */
  forget(store: CellStore, id: string): ChangedRows {
    const decision = this.#decisions.get(id);
    if (decision === undefined) return [];
    this.#decisions.delete(id);
    this.#bytes -= decisionBytes(decision);
    const { anchor } = decision;
    return [[anchor, changesOf(store, anchor, new Map([[DECISION + id, null]]))]];
  }

  /** Unlocks all rows that the transaction holds here, with what it intended or without. */
  settle(store: CellStore, id: string, way: "forward" | "back", at: Version): ChangedRows {
    const rows = this.#rowsOf.get(id);
    if (rows === undefined) return [];
    this.#rowsOf.delete(id);
    return Array.from(rows, (row) => {
      this.#bytes -= lockBytes(this.#byRow.get(row)!);
      this.#byRow.delete(row);
      return [row, unlocked(store, row, way, at)];
    });
  }

  #decide(decision: Decision): void {
    this.#decisions.set(decision.id, decision);
    this.#bytes += decisionBytes(decision);
  }

  #anchorLock(id: string): RowLock | null {
    for (const row of this.#rowsOf.get(id) ?? []) {
      const lock = this.#byRow.get(row)!;
      if (lock.decides !== undefined) return lock;
    }
    return null;
  }

  #add(lock: RowLock): void {
    invariant(!this.#byRow.has(lock.row), "T1", () => `row "${lock.row}" is locked twice`);
    this.#byRow.set(lock.row, lock);
    this.#bytes += lockBytes(lock);
    const rows = this.#rowsOf.get(lock.id);
    if (rows === undefined) this.#rowsOf.set(lock.id, new Set([lock.row]));
    else rows.add(lock.row);
  }
}

const stagedIn = ({ cells }: RowChanges) =>
  cells.map(({ column, after }): [string, StoredCell | null] => [column, after]);

function unlocked(
  store: CellStore,
  row: string,
  way: "forward" | "back",
  at: Version,
): RowChanges {
  const cells = new Map<string, StoredCell | null>([[LOCK, null]]);
  for (const cell of store.range({ from: { row, column: INTERNAL }, within: row })) {
    const { column: own } = cell;
    if (!own.startsWith(INTERNAL)) break;
    const isPut = own.startsWith(STAGED_PUT);
    if (!isPut && !own.startsWith(STAGED_DELETE)) continue;
    cells.set(own, null);
    if (way === "back") continue;
    const column = own.slice(STAGED_PUT.length);
    cells.set(column, isPut ? { ...cell, column, version: at } : null);
  }
  return changesOf(store, row, cells);
}

/** What locking these rows for a transaction will take. */
export const locksBytes = (txn: TxnRef, rows: readonly string[], others: readonly string[]) =>
  rows.reduce((sum, row) => sum + lockBytes({ ...txn, row }), 0) + textBytes(others);

const lockBytes = ({ row, id, anchor, decides }: RowLock): number =>
  LOCK_BYTES + textBytes([row, id, anchor, ...decides?.others ?? []]);

const decisionBytes = ({ id, anchor, others }: Decision): number =>
  LOCK_BYTES + textBytes([id, anchor, ...others]);

const textBytes = (texts: readonly string[]): number =>
  texts.reduce((sum, text) => sum + 2 * text.length, 0);

const lockCell = ({ row, id, anchor, decides }: RowLock, at: Version): StoredCell =>
  internalCell(row, LOCK, at, encode({ id, anchor, ...decides }));

function internalCell(row: string, column: string, at: Version, value: Uint8Array): StoredCell {
  return { row, column, version: at, size: value.length, crc: crc32(value), value };
}

const EMPTY = new Uint8Array();
const encoder = new TextEncoder();
const encode = (value: unknown): Uint8Array => encoder.encode(JSON.stringify(value));
