/**
 * The store as its users see it: rows of columns, each cell with a value and a version.
 *
 * Promises: an operation on one row is atomic, linearizable and, with the retries of the client,
 * executed exactly once; what was acknowledged survives any single dead machine. `transact` promises
 * the same for several rows: see transaction.ts.
 *
 * `KvClient` (client.ts) speaks to a cluster; `MemoryKv` (memory_kv.ts) runs the same rules in one
 * process for tests. Rows sort by the bytes of their UTF-8, and so do the columns of a row.
 */
import type { Lsn, Version } from "../proto/ids.ts";
import { KvError } from "./errors.ts";

/** 1 to 1024 bytes of UTF-8, well formed, no NUL; a column does not begin with U+0001. */
export const KEY_BYTES_MAX = 1024;
export const VALUE_BYTES_MAX = 4 * 1024 * 1024;
/** Values above this are kept in files of their own and are left out of pages: read them with get. */
export const INLINE_BYTES_MAX = 64 * 1024;
export const MUTATIONS_MAX = 256;
/** All values of one row operation together. */
export const OPERATION_BYTES_MAX = 4 * 1024 * 1024 + 256 * 1024;
/** Rows of one transaction. Its values together are held to OPERATION_BYTES_MAX as well. */
export const ROWS_MAX = 64;
/** Conditions and mutations of all rows of one transaction. */
export const TRANSACTION_PARTS_MAX = 1024;
/** Bytes of all names of rows and columns in one transaction: they travel in one line. */
export const TRANSACTION_KEY_BYTES_MAX = 128 * 1024;
/** The most cells a page can hold. */
export const PAGE_CELLS_MAX = 1000;

export interface Cell {
  readonly column: string;
  readonly version: Version;
  /** Bytes of the value. */
  readonly size: number;
  /** Absent on pages when the value is larger than INLINE_BYTES_MAX: fetch it with `get`. */
  readonly value?: Uint8Array;
}

export interface FullCell extends Cell {
  readonly value: Uint8Array;
}

/** What must be true of the row, right before the mutations, for the operation to apply. */
export type Condition =
  | { readonly column: string; readonly is: "absent" }
  | { readonly column: string; readonly is: "present" }
  /** Version 0 is the same as absent. */
  | { readonly column: string; readonly is: "version"; readonly version: Version }
  | { readonly column: string; readonly is: "value"; readonly value: Uint8Array };

/** Applied in order, all or none. */
export type Mutation =
  | { readonly kind: "put"; readonly column: string; readonly value: Uint8Array }
  /** Deleting a column that does not exist is no error. */
  | { readonly kind: "delete"; readonly column: string }
  /**
   * Deletes every column that begins with `prefix`; "" empties the row. Some two thousand columns at
   * most (512 KiB of names and bookkeeping), else the operation fails with `invalid_request`.
   */
  | { readonly kind: "deletePrefix"; readonly prefix: string }
  /**
   * Adds `by` (a safe integer) to the decimal integer in `column` (absent counts as 0). The new
   * number is in `RowResult.numbers`. A column that holds anything else fails the operation.
   */
  | { readonly kind: "add"; readonly column: string; readonly by: number }
  /**
   * Raises the counter in column `counter` by one to n, and puts `value` at column
   * `prefix + n` with n in ten decimal digits. n is in `RowResult.numbers`. This is how a mailbox
   * gives out UIDs: any number of appends at once, none lost, numbers ascending and never reused.
   */
  | {
    readonly kind: "append";
    readonly counter: string;
    readonly prefix: string;
    readonly value: Uint8Array;
  };

export interface RowOp {
  readonly row: string;
  readonly conditions?: readonly Condition[];
  readonly mutations: readonly Mutation[];
}

export type RowResult =
  | {
    readonly applied: true;
    /** Version of every cell that this operation wrote. */
    readonly version: Version;
    /** The results of `add` and `append`, in order. */
    readonly numbers: readonly number[];
  }
  | {
    readonly applied: false;
    /** The first condition that did not hold. */
    readonly conditionIndex: number;
    /** Version of that condition's column now; 0 when it does not exist. */
    readonly version: Version;
  };

export interface RowPageOptions {
  /** Only columns that begin with this. */
  readonly prefix?: string;
  /** First column wanted, inclusive. When `reverse`: the largest wanted, inclusive. */
  readonly start?: string;
  /** Continue behind this column (exclusive), in the direction of travel: a former page's `next`. */
  readonly after?: string;
  /** 1 to PAGE_CELLS_MAX, default 100. A page may end earlier at 1 MiB of values. */
  readonly limit?: number;
  readonly reverse?: boolean;
  /** Leave the values out; `size` is still given. */
  readonly keysOnly?: boolean;
}

export interface RowPage {
  readonly cells: readonly Cell[];
  /** Pass as `after` for the next page; null when this was the last. */
  readonly next: string | null;
}

export interface ScanOptions {
  /** First row wanted, inclusive. Default: the beginning. */
  readonly startRow?: string;
  /** First row no longer wanted; null or absent for no end. */
  readonly endRow?: string | null;
  /** Only rows that begin with this; combines with the two above. */
  readonly prefix?: string;
  /** Continue behind this cell: a former page's `next`. */
  readonly after?: ScanPosition;
  readonly limit?: number;
  readonly keysOnly?: boolean;
  /**
   * All pages show the state at the first one, however much is written meanwhile: one snapshot for
   * each replica group that the range touches, taken when the scan gets there. There is no snapshot
   * over several groups. A snapshot is kept for 30 seconds, less when a lot is overwritten, and not
   * beyond a change of primary; then a page fails with `snapshot_too_old`, and the scan has to be
   * started over, as `scanSnapshot` does.
   */
  readonly snapshot?: boolean;
}

export interface ScanPosition {
  readonly row: string;
  readonly column: string;
  /** Of a scan with `snapshot`: which one. */
  readonly snapshot?: { readonly gid: number; readonly lsn: number };
}

export interface ScanPage {
  /** Cells by row, then column. A row may go on on the next page. */
  readonly cells: readonly (Cell & { readonly row: string })[];
  readonly next: ScanPosition | null;
}

/**
 * Reading on any replica, and never anything older than one has seen: a session remembers how far
 * the writes and reads made with it had come, by replica group. Reads with a session may be answered
 * by a replica that has come as far; so one reads one's own writes, and time never goes back.
 */
export class KvSession {
  readonly #seen = new Map<number, Lsn>();

  /** The log position that group `gid` must have reached. */
  seenOf(gid: number): Lsn | undefined {
    return this.#seen.get(gid);
  }

  see(gid: number, lsn: Lsn): void {
    if (lsn > (this.#seen.get(gid) ?? 0)) this.#seen.set(gid, lsn);
  }
}

export interface CallOptions {
  /**
   * For reads. Neither of the next two: linearizable, answered by the primary. Otherwise any replica
   * may answer that meets all that are given; this one bounds the age of its state, in milliseconds:
   * whatever was acknowledged longer ago is in it.
   */
  readonly maxStaleMs?: number;
  readonly session?: KvSession;
  /** Give up after this many milliseconds with `unavailable` or `outcome_unknown`. Default 10 000. */
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

/** What became of `transact`. */
export type TransactResult =
  | {
    readonly applied: true;
    /** One for each operation, in their order. */
    readonly results: readonly {
      /** Of every cell that it wrote; null when another process finished the transaction for us. */
      readonly version: Version | null;
      readonly numbers: readonly number[];
    }[];
  }
  | {
    readonly applied: false;
    /** A condition that did not hold: which operation's, and which of its conditions. */
    readonly opIndex: number;
    readonly row: string;
    readonly conditionIndex: number;
    /** Version of that condition's column now; 0 when it does not exist. */
    readonly version: Version;
  };

/** All methods throw `KvError`; see errors.ts for what each code says about a write. */
export interface Kv {
  get(row: string, column: string, options?: CallOptions): Promise<FullCell | null>;
  /** One page of a row's columns, in order: one linearizable read of the row. */
  getRow(row: string, options?: RowPageOptions & CallOptions): Promise<RowPage>;
  /**
   * One page of a key range; each page is consistent in itself, pages follow each other in time
   * unless `snapshot` is asked for.
   */
  scan(options: ScanOptions & CallOptions): Promise<ScanPage>;
  /** The primitive: checks all conditions, then applies all mutations, atomically. */
  apply(op: RowOp, options?: CallOptions): Promise<RowResult>;
  /**
   * The same for up to ROWS_MAX different rows: checks all conditions of all of them, then applies
   * all mutations, or none. An operation without mutations only has to hold. Rows of one replica
   * group cost one write; over several groups it takes three rounds, and others wait meanwhile.
   */
  transact(ops: readonly RowOp[], options?: CallOptions): Promise<TransactResult>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Writes one cell, whatever was there. */
export async function put(
  kv: Kv,
  row: string,
  column: string,
  value: Uint8Array | string,
  options?: CallOptions,
): Promise<Version> {
  const bytes = typeof value === "string" ? encoder.encode(value) : value;
  const result = await kv.apply(
    { row, mutations: [{ kind: "put", column, value: bytes }] },
    options,
  );
  if (!result.applied) throw new Error("a put without conditions cannot be refused");
  return result.version;
}

/** Writes one cell if it is still at `expected` (0: if it does not exist). */
export function compareAndPut(
  kv: Kv,
  cell: { row: string; column: string; value: Uint8Array; expected: Version },
  options?: CallOptions,
): Promise<RowResult> {
  const { row, column, value, expected } = cell;
  return kv.apply({
    row,
    conditions: [{ column, is: "version", version: expected }],
    mutations: [{ kind: "put", column, value }],
  }, options);
}

/** Deletes one cell; no error when it does not exist. */
export async function remove(
  kv: Kv,
  row: string,
  column: string,
  options?: CallOptions,
): Promise<void> {
  await kv.apply({ row, mutations: [{ kind: "delete", column }] }, options);
}

/** Times that `scanSnapshot` starts over before it gives up. */
const SCAN_ATTEMPTS = 4;

/**
 * All cells of a range as they were at one moment (one for each replica group), in memory. Starts over
 * when a snapshot was given up half-way.
 *
 * @param options `cellsMax` bounds what is collected; the default is 10 000
 * @throws {KvError} `invalid_request` when there are more; `snapshot_too_old` when no attempt got through
 */
export async function scanSnapshot(
  kv: Kv,
  options: Omit<ScanOptions, "after" | "snapshot"> & CallOptions & { readonly cellsMax?: number },
): Promise<ScanPage["cells"]> {
  const { cellsMax = 10_000, ...range } = options;
  for (let attempt = 1;; attempt++) {
    try {
      const cells: ScanPage["cells"][number][] = [];
      let after: ScanPosition | null = null;
      do {
        const position: { after?: ScanPosition } = after === null ? {} : { after };
        const page: ScanPage = await kv.scan({
          limit: PAGE_CELLS_MAX,
          ...range,
          ...position,
          snapshot: true,
        });
        cells.push(...page.cells);
        if (cells.length > cellsMax) {
          throw new KvError("invalid_request", `The range holds more than ${cellsMax} cells`);
        }
        after = page.next;
      } while (after !== null);
      return cells;
    } catch (error) {
      const tooOld = error instanceof KvError && error.code === "snapshot_too_old";
      if (!tooOld || attempt >= SCAN_ATTEMPTS) throw error;
    }
  }
}

export const encodeJson = (value: unknown): Uint8Array => encoder.encode(JSON.stringify(value));
export const encodeText = (text: string): Uint8Array => encoder.encode(text);
export const decodeText = (bytes: Uint8Array): string => decoder.decode(bytes);
/** Parses a value that our own code wrote; validate with zod where the shape may have changed. */
export const decodeJson = (bytes: Uint8Array): unknown => JSON.parse(decoder.decode(bytes));
