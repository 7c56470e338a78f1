/**
 * Transactions over rows of several replica groups: the client's half, and the protocol as a whole.
 * (row_locks.ts is the server's half. Rows of one group need none of this: they are one log entry.)
 *
 * There is no coordinator of transactions. One row of each transaction, its *anchor*, decides for all:
 *
 *   1. prepare  group by group, in the order of their ids: lock the transaction's rows there, all or
 *               none, if their conditions hold. What will be written lies beside each lock. The
 *               anchor is in the first group, so a lock anywhere means that the anchor was locked.
 *   2. commit   one entry in the anchor's group: if the anchor is still locked by us, its group's rows
 *               take their new values and a note "done" stays behind. This is the commit point.
 *   3. forward  the other groups' rows take their new values, in parallel; then the note goes.
 *
 * Whoever meets somebody's lock asks the anchor's group. *Committed*: roll the row forward. *Gone*
 * (neither lock nor note): it was aborted, so roll back. *Pending*: a reader takes the old value,
 * because the commit is still to come; a writer waits, and once the transaction's time is over aborts
 * it at the anchor. So a client that dies blocks rows for LOCK_LIFE_MS at most, and what nobody meets
 * is cleared by the primaries (lock_sweeper.ts). Every step is one request under one stamp, executed
 * once; all of them can come again and again without harm.
 *
 * Promises: all rows or none, strictly serializable with all other reads and writes through `Kv`; the
 * error says whether it happened, as for one row. No deadlock: locks are taken in one order, and one
 * who holds some waits for others only PATIENCE_MS before it lets go and starts again.
 *
 * It does no I/O itself: `TransactionPort` carries the requests (client.ts, memory_kv.ts).
 * Start at {@link TransactionRunner.transact}. Follows Sinfonia (Aguilera et al. 2007) with the anchor
 * and the resolution by anybody of Percolator (Peng and Dabek 2010), without timestamps.
 */
import type { TxnStep } from "../proto/command.ts";
import type { Version } from "../proto/ids.ts";
import type { LogRequest } from "./command.ts";
import { type Env, freshId } from "./env.ts";
import { KvError } from "./errors.ts";
import type { KvSession, RowOp, TransactResult } from "./kv.ts";
import { toLogRowOp, toTransactResult } from "./log_value.ts";
import { mutated } from "./mutant.ts";
import type { LockedOutcome, RecordedOutcome, TxnRef, TxnState } from "./outcome.ts";
import type { Decision, RowLock } from "./row_locks.ts";

/** Half of the usual deadline of a call, so that whoever waits for a dead client's lock gets it. */
export const LOCK_LIFE_MS = 5_000;
/** How long one who holds locks waits for another's. */
const PATIENCE_MS = 1_000;
/** The answer does not wait longer than this for what others could do as well. */
const CLEAN_UP_PATIENCE_MS = 250;
const CLEAN_UP_DEADLINE_MS = 10_000;
const BACKOFF_MS_MIN = 4;
const BACKOFF_MS_MAX = 200;

export interface PortOptions {
  readonly deadlineMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Told how far writes had come: see kv.ts. */
  readonly session?: KvSession | undefined;
}

export interface SendOptions extends PortOptions {
  /** A lock is in the way; when it resolves the request is sent again under the same stamp. */
  readonly onLocked: (lock: LockedOutcome, round: number) => Promise<void>;
}

export interface TransactionPort {
  /** The group that holds each row, as far as is known now. */
  groupsOf(rows: readonly string[], options: PortOptions): Promise<readonly number[]>;
  /**
   * Sends a request to the group of these rows until its outcome is known.
   *
   * @throws {KvError} as errors.ts says
   * @throws {RowsApartError} the rows are not in one group; nothing happened
   */
  send(
    rows: readonly string[],
    request: LogRequest,
    options: SendOptions,
  ): Promise<RecordedOutcome>;
  /** What the anchor's group knows: a linearizable read. */
  stateOf(txn: TxnRef, options: PortOptions): Promise<{ state: TxnState; remainingMs: number }>;
}

/** Rows that were thought to be in one group are not, or no longer. */
export class RowsApartError extends Error {
  override readonly name = "RowsApartError";
}

/** Another's lock was in the way for too long. */
class ConflictError extends Error {
  override readonly name = "ConflictError";
}

/** The part of a transaction that lies in one group. */
interface Part {
  readonly gid: number;
  /** Places in the list of all operations. */
  readonly indexes: readonly number[];
  readonly ops: readonly RowOp[];
  readonly rows: readonly string[];
}

interface Deadline extends Omit<PortOptions, "deadlineMs"> {
  readonly untilMs: number;
}

export class TransactionRunner {
  readonly #port: TransactionPort;
  readonly #env: Env;
  /** Work that nobody waits for any more. */
  readonly #background = new Set<Promise<void>>();

  constructor(options: { port: TransactionPort; env: Env }) {
    this.#port = options.port;
    this.#env = options.env;
  }

  /** @param ops checked by `checkTransaction` */
  async transact(ops: readonly RowOp[], options: PortOptions): Promise<TransactResult> {
    const deadline: Deadline = {
      ...options,
      untilMs: this.#env.monotonicMs() + options.deadlineMs,
    };
    for (let round = 0;; round++) {
      const result = await this.#attempt(ops, deadline);
      if (result !== null) return result;
      if (this.#remainingMs(deadline) <= 0) {
        throw new KvError("busy", "Other transactions were in the way until the deadline");
      }
      await this.#backOff(round, deadline);
    }
  }

  /**
   * What a plain write does about a lock in its way: settles it if it is decided or its time is over,
   * else waits a little.
   *
   * @throws {KvError} `busy`: the deadline has passed
   */
  async unblock(
    { row, txn }: LockedOutcome,
    round: number,
    deadline: Deadline,
  ): Promise<void> {
    const options = this.#optionsOf(deadline);
    if (options.deadlineMs <= 0) {
      throw new KvError("busy", `Row "${row}" is locked by a transaction`);
    }
    const { state, remainingMs } = await this.#port.stateOf(txn, options);
    if (state !== "pending") await this.#roll(txn, [row], state, deadline);
    else if (remainingMs === 0) await this.#step(txn, [txn.anchor], "expire", deadline);
    else await this.#backOff(round, deadline, remainingMs);
  }

  /**
   * What a read does about locks on what it has read, whose fate another group knows. False: the
   * transactions were undecided after the read, so what was read is what there was.
   */
  async settleForRead(locks: readonly RowLock[], options: PortOptions): Promise<boolean> {
    const deadline = { ...options, untilMs: this.#env.monotonicMs() + options.deadlineMs };
    const distinct = new Map(locks.map((lock) => [lock.id, lock]));
    const settled = await Promise.all(Array.from(distinct.values(), async (lock) => {
      const { state } = await this.#port.stateOf(lock, this.#optionsOf(deadline));
      if (state === "pending" && !mutated("pending-rolled-back")) return false;
      await this.#roll(lock, [lock.row], state === "committed" ? state : "gone", deadline);
      return true;
    }));
    return settled.includes(true);
  }

  /** Aborts a transaction whose client is gone and unlocks its rows; finishes it if it committed. */
  async abandon(anchor: RowLock): Promise<void> {
    const deadline = this.#deadlineIn(CLEAN_UP_DEADLINE_MS);
    const { state } = await this.#step(anchor, [anchor.anchor], "abort", deadline);
    // Once it is committed there is a decision to be found and finished.
    if (state !== "gone") return;
    await this.#rollAll(anchor, anchor.decides?.others ?? [], "gone", deadline);
  }

  /** Rolls every other group's rows forward and drops the note on the anchor. */
  async finish({ id, anchor, others }: Decision): Promise<void> {
    const deadline = this.#deadlineIn(CLEAN_UP_DEADLINE_MS), txn = { id, anchor };
    await this.#rollAll(txn, others, "committed", deadline);
    await this.#step(txn, [anchor], "forget", deadline);
  }

  /** Resolves when nothing is under way that outlived its call. */
  async idle(): Promise<void> {
    while (this.#background.size > 0) await Promise.all(this.#background);
  }

  // --------------------------------------------------------------------------- attempts

  /** Null: it certainly did not happen, and another attempt may succeed. */
  async #attempt(ops: readonly RowOp[], deadline: Deadline): Promise<TransactResult | null> {
    const parts = await this.#partsOf(ops, deadline);
    try {
      if (parts.length > 1) return await this.#acrossGroups(ops, parts, deadline);
      const request: LogRequest = { kind: "multiRow", ops: ops.map((op) => toLogRowOp(op)) };
      const outcome = await this.#send(ops.map((op) => op.row), request, deadline);
      return toTransactResult(ops, outcome);
    } catch (error) {
      if (error instanceof RowsApartError || error instanceof ConflictError) return null;
      throw error;
    }
  }

  async #partsOf(ops: readonly RowOp[], deadline: Deadline): Promise<Part[]> {
    const rows = ops.map((op) => op.row);
    const groups = await this.#port.groupsOf(rows, this.#optionsOf(deadline));
    const byGroup = Map.groupBy(ops.keys(), (index) => groups[index]!);
    return Array.from(byGroup, ([gid, indexes]) => {
      const own = indexes.map((index) => ops[index]!);
      return { gid, indexes, ops: own, rows: own.map((op) => op.row) };
    }).sort((a, b) => a.gid - b.gid);
  }

  async #acrossGroups(
    ops: readonly RowOp[],
    parts: readonly Part[],
    deadline: Deadline,
  ): Promise<TransactResult> {
    const [first] = parts as [Part];
    const txn: TxnRef = { id: freshId(this.#env), anchor: first.rows[0]! };
    const done = new AbortController();
    void this.#keepAlive(txn, done.signal);
    /** Those that hold locks of ours, or may. */
    const locked: Part[] = [];
    const results: { version: Version | null; numbers: readonly number[] }[] = [];
    try {
      for (const part of parts) {
        locked.push(part);
        const prepared = await this.#prepare(txn, parts, part, deadline);
        if (!prepared.applied) {
          locked.pop();
          await this.#inTime(this.#drop(txn, locked));
          const opIndex = part.indexes[prepared.opIndex]!;
          return { ...prepared, opIndex, row: ops[opIndex]!.row };
        }
        for (const [place, { numbers }] of prepared.results.entries()) {
          results[part.indexes[place]!] = { version: null, numbers };
        }
      }
    } catch (error) {
      if (isCertain(error)) locked.pop();
      await this.#inTime(this.#drop(txn, locked));
      // A lock that may have been taken after all means nothing: only the commit counts.
      if (!(error instanceof KvError) || isCertain(error)) throw error;
      throw new KvError("unavailable", error.message, { cause: error });
    } finally {
      done.abort();
    }
    await this.#commit(txn, parts, deadline, (part, version) => {
      for (const index of part.indexes) results[index] = { ...results[index]!, version };
    });
    return { applied: true, results: results.map((result) => ({ ...result })) };
  }

  async #prepare(
    txn: TxnRef,
    parts: readonly Part[],
    part: Part,
    deadline: Deadline,
  ): Promise<TransactResult> {
    const isFirst = part === parts[0];
    const request: LogRequest = {
      kind: "prepare",
      txn,
      ops: part.ops.map((op) => toLogRowOp(op)),
      others: isFirst ? parts.slice(1).flatMap(({ rows }) => rows) : [],
      lifeMs: LOCK_LIFE_MS,
    };
    // Who holds nothing yet may wait as long as he likes.
    const patience = this.#env.monotonicMs() + PATIENCE_MS;
    const untilMs = isFirst ? deadline.untilMs : Math.min(deadline.untilMs, patience);
    const outcome = await this.#port.send(part.rows, request, {
      ...this.#optionsOf(deadline),
      onLocked: async (lock, round) => {
        try {
          await this.unblock(lock, round, { ...deadline, untilMs });
        } catch (error) {
          const impatient = untilMs < deadline.untilMs && this.#env.monotonicMs() >= untilMs;
          throw impatient ? new ConflictError(lock.row, { cause: error }) : error;
        }
      },
    });
    return toTransactResult(part.ops, outcome);
  }

  /** @throws {ConflictError} somebody aborted the transaction before it could commit */
  async #commit(
    txn: TxnRef,
    parts: readonly Part[],
    deadline: Deadline,
    onVersion: (part: Part, version: Version | null) => void,
  ): Promise<void> {
    const [first, ...others] = parts as [Part, ...Part[]];
    let state: TxnState, version: Version;
    try {
      ({ state, version } = await this.#step(txn, [txn.anchor], "commit", deadline));
    } catch (error) {
      // Otherwise it may be committed: whoever meets the locks finds out.
      if (isCertain(error)) await this.#inTime(this.#drop(txn, parts));
      throw error;
    }
    if (state !== "committed") {
      await this.#inTime(this.#drop(txn, parts));
      throw new ConflictError(txn.anchor);
    }
    onVersion(first, version);
    const cleanUp = async () => {
      const { session } = deadline, ample = { ...this.#deadlineIn(CLEAN_UP_DEADLINE_MS), session };
      if (mutated("forgotten-before-forward")) await this.#step(txn, [txn.anchor], "forget", ample);
      await Promise.all(others.map(async (part) => {
        const settled = await this.#step(txn, part.rows, "forward", ample);
        onVersion(part, settled.version === 0 ? null : settled.version);
      }));
      // The answer need not wait for this.
      this.#later(this.#step(txn, [txn.anchor], "forget", ample));
    };
    await this.#inTime(cleanUp());
  }

  /** Lets go of everything that was or may have been locked; the anchor's group is the first. */
  async #drop(txn: TxnRef, parts: readonly Part[]): Promise<void> {
    if (parts.length === 0) return;
    const deadline = this.#deadlineIn(CLEAN_UP_DEADLINE_MS);
    const { state } = await this.#step(txn, [txn.anchor], "abort", deadline);
    // The others go back only once the anchor can no longer commit.
    if (state !== "gone") return;
    await Promise.all(parts.slice(1).map((part) => this.#roll(txn, part.rows, state, deadline)));
  }

  async #keepAlive(txn: TxnRef, signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        await this.#env.sleep(LOCK_LIFE_MS / 3, signal);
        await this.#step(txn, [txn.anchor], "extend", this.#deadlineIn(LOCK_LIFE_MS, signal));
      }
    } catch {
      // It is over, or the anchor's group is away; then nobody can abort us there either.
    }
  }

  // -------------------------------------------------------------------------------- steps

  async #step(
    { id, anchor }: TxnRef,
    rows: readonly string[],
    step: TxnStep,
    deadline: Deadline,
  ): Promise<{ state: TxnState; version: Version }> {
    const request: LogRequest = { kind: "settle", txn: { id, anchor }, step, lifeMs: LOCK_LIFE_MS };
    const outcome = await this.#send(rows, request, deadline);
    if (outcome.kind !== "settled") throw new Error(`A step was answered with ${outcome.kind}`);
    return outcome;
  }

  #send(
    rows: readonly string[],
    request: LogRequest,
    deadline: Deadline,
  ): Promise<RecordedOutcome> {
    return this.#port.send(rows, request, {
      ...this.#optionsOf(deadline),
      onLocked: (lock, round) => this.unblock(lock, round, deadline),
    });
  }

  async #roll(
    txn: TxnRef,
    rows: readonly string[],
    state: "committed" | "gone",
    deadline: Deadline,
  ): Promise<void> {
    await this.#step(txn, rows, state === "committed" ? "forward" : "back", deadline);
  }

  async #rollAll(
    txn: TxnRef,
    rows: readonly string[],
    state: "committed" | "gone",
    deadline: Deadline,
  ): Promise<void> {
    const groups = await this.#port.groupsOf(rows, this.#optionsOf(deadline));
    const byGroup = Map.groupBy(rows.keys(), (index) => groups[index]!);
    await Promise.all(
      Array.from(byGroup.values(), (indexes) =>
        this.#roll(
          txn,
          indexes.map((index) => rows[index]!),
          state,
          deadline,
        )),
    );
  }

  // --------------------------------------------------------------------------------- time

  #deadlineIn(ms: number, signal?: AbortSignal): Deadline {
    return { untilMs: this.#env.monotonicMs() + ms, signal };
  }

  #remainingMs({ untilMs }: Deadline): number {
    return untilMs - this.#env.monotonicMs();
  }

  #optionsOf(deadline: Deadline): PortOptions {
    const { signal, session } = deadline;
    return { deadlineMs: this.#remainingMs(deadline), signal, session };
  }

  async #backOff(round: number, deadline: Deadline, atMostMs = Infinity): Promise<void> {
    const ceiling = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(round, 16));
    const waitMs = Math.min(ceiling * (0.5 + this.#env.random() / 2), atMostMs);
    await this.#env.sleep(
      Math.max(0, Math.min(waitMs, this.#remainingMs(deadline))),
      deadline.signal,
    );
  }

  /** Waits for work that anybody else could finish as well, but not for long. */
  async #inTime(work: Promise<void>): Promise<void> {
    const waited = new AbortController();
    const done = this.#later(work).then(() => waited.abort());
    const patience = this.#env.sleep(CLEAN_UP_PATIENCE_MS, waited.signal).catch(() => {});
    await Promise.race([done, patience]);
  }

  /** What fails here is left to whoever meets the lock, and to the sweepers. */
  #later(work: Promise<unknown>): Promise<void> {
    const quiet: Promise<void> = work.then(() => {}, () => {})
      .finally(() => this.#background.delete(quiet));
    this.#background.add(quiet);
    return quiet;
  }
}

/** Whether the error says that the request was not and will not be executed. */
const isCertain = (error: unknown): boolean =>
  error instanceof KvError && error.outcome === "not_applied";
