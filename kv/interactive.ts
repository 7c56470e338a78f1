/**
 * Transactions as code: reads and writes in any order, then all of it at once or again.
 *
 *     const moved = await transaction({ kv, env }, async (tx) => {
 *       const from = Number(await tx.text("a", "balance") ?? 0);
 *       if (from < 10) return false;
 *       tx.put("a", "balance", encodeText(String(from - 10)));
 *       …
 *       return true;
 *     });
 *
 * Nothing is locked while the code runs. What it read is remembered by version, what it writes is
 * kept back, and at the end both become one `Kv.transact`: it goes through only if everything that
 * was read is still so. Otherwise the code runs again, so it must have no effects but through `tx`.
 * Strictly serializable for the cells that were read; columns that a page or scan would have shown
 * are not covered, so guard a whole row by a cell that every change of it touches.
 */
import type { Version } from "../proto/ids.ts";
import { version as toVersion } from "../proto/ids.ts";
import type { Env } from "./env.ts";
import { KvError } from "./errors.ts";
import {
  type CallOptions,
  type Condition,
  decodeText,
  type Kv,
  type Mutation,
  type RowOp,
} from "./kv.ts";
import { mutated } from "./mutant.ts";

const DEADLINE_MS = 10_000;
const BACKOFF_MS_MIN = 4;
const BACKOFF_MS_MAX = 200;

export interface Transaction {
  /** The value as of this transaction: its own writes, else what the store had at the first look. */
  get(row: string, column: string): Promise<Uint8Array | null>;
  text(row: string, column: string): Promise<string | null>;
  put(row: string, column: string, value: Uint8Array): void;
  delete(row: string, column: string): void;
}

/**
 * Runs `run` until its transaction commits, and returns what it returned.
 *
 * @throws what `run` throws, once it is certain that it saw one consistent state
 * @throws {KvError} `busy`: others kept changing what was read until the deadline; and as errors.ts
 *   says, where `outcome_unknown` means that the transaction may have been committed
 */
export async function transaction<T>(
  { kv, env }: { readonly kv: Kv; readonly env: Env },
  run: (tx: Transaction) => Promise<T>,
  options: CallOptions = {},
): Promise<T> {
  const untilMs = env.monotonicMs() + (options.deadlineMs ?? DEADLINE_MS);
  const rest = (): CallOptions => ({ ...options, deadlineMs: untilMs - env.monotonicMs() });
  for (let round = 0;; round++) {
    const tx = new OpenTransaction(kv, rest);
    const attempt = await tx.attempt(run);
    if (attempt.committed) return attempt.result;
    if (env.monotonicMs() >= untilMs) {
      throw new KvError("busy", "Others kept changing what the transaction read");
    }
    const ceiling = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(round, 16));
    await env.sleep(ceiling * env.random(), options.signal);
  }
}

interface RowPart {
  readonly read: Map<string, { version: Version; value: Uint8Array | null }>;
  readonly written: Map<string, Uint8Array | null>;
}

class OpenTransaction implements Transaction {
  readonly #kv: Kv;
  readonly #rest: () => CallOptions;
  readonly #rows = new Map<string, RowPart>();

  constructor(kv: Kv, rest: () => CallOptions) {
    this.#kv = kv;
    this.#rest = rest;
  }

  async attempt<T>(
    run: (tx: Transaction) => Promise<T>,
  ): Promise<{ committed: true; result: T } | { committed: false }> {
    let result: T;
    try {
      result = await run(this);
    } catch (error) {
      // Reads at different moments can contradict each other; such an error means nothing.
      if (error instanceof KvError || await this.#commit("reads")) throw error;
      return { committed: false };
    }
    return await this.#commit("all") ? { committed: true, result } : { committed: false };
  }

  async get(row: string, column: string): Promise<Uint8Array | null> {
    const { written, read } = this.#part(row);
    const own = written.get(column);
    if (own !== undefined) return own;
    const before = read.get(column);
    if (before !== undefined) return before.value;
    const cell = await this.#kv.get(row, column, this.#rest());
    const found = { version: cell?.version ?? toVersion(0), value: cell?.value ?? null };
    // Two reads of one cell at once: the first to return is what the transaction saw.
    if (!read.has(column)) read.set(column, found);
    return read.get(column)!.value;
  }

  async text(row: string, column: string): Promise<string | null> {
    const value = await this.get(row, column);
    return value === null ? null : decodeText(value);
  }

  put(row: string, column: string, value: Uint8Array): void {
    this.#part(row).written.set(column, value);
  }

  delete(row: string, column: string): void {
    this.#part(row).written.set(column, null);
  }

  #part(row: string): RowPart {
    let part = this.#rows.get(row);
    if (part === undefined) {
      part = { read: new Map(), written: new Map() };
      this.#rows.set(row, part);
    }
    return part;
  }

  async #commit(what: "all" | "reads"): Promise<boolean> {
    const ops: RowOp[] = [];
    for (const [row, { read, written }] of this.#rows) {
      const conditions: Condition[] = Array.from(
        mutated("reads-not-guarded") ? [] : read,
        ([column, { version }]) => ({ column, is: "version", version }),
      );
      const mutations = what === "reads" ? [] : Array.from(
        written,
        ([column, value]): Mutation =>
          value === null ? { kind: "delete", column } : { kind: "put", column, value },
      );
      if (conditions.length + mutations.length > 0) ops.push({ row, conditions, mutations });
    }
    if (ops.length === 0) return true;
    return (await this.#kv.transact(ops, this.#rest())).applied;
  }
}
