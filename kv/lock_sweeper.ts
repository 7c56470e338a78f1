/**
 * Clears what dead clients leave behind in one group: locks that nobody has met and decisions that
 * were not carried to all groups. Each primary runs one for its group.
 *
 * It goes by its own clock and what it has seen: a lock or decision that stays as it is for
 * SWEEP_AFTER_MS has nobody who looks after it, because a living client extends its lock and forgets
 * its decision long before. Aborting an undecided transaction is safe at any time; waiting is only
 * for the sake of living clients. Bounded: a few at a time, the oldest first, the rest next time.
 */
import type { Env } from "./env.ts";
import { mutated } from "./mutant.ts";
import type { Decision, RowLock, RowLocks } from "./row_locks.ts";
import { LOCK_LIFE_MS, type TransactionRunner } from "./transaction.ts";

export const SWEEP_AFTER_MS = 3 * LOCK_LIFE_MS;
const AT_ONCE_MAX = 16;

export class LockSweeper {
  readonly #env: Env;
  readonly #transactions: TransactionRunner;
  /** Since when each has been as it is now, oldest first. */
  #seen = new Map<string, number>();
  #sweeping = false;

  constructor(options: { env: Env; transactions: TransactionRunner }) {
    this.#env = options.env;
    this.#transactions = options.transactions;
  }

  /** Looks at the group's locks and settles what is due; never rejects. Call it about once a second. */
  async sweep(locks: RowLocks): Promise<void> {
    if (this.#sweeping || mutated("locks-not-swept")) return;
    this.#sweeping = true;
    try {
      await Promise.all(this.#due(locks).map((settle) => this.#quietly(settle)));
    } finally {
      this.#sweeping = false;
    }
  }

  #due(locks: RowLocks): (() => Promise<void>)[] {
    const nowMs = this.#env.monotonicMs();
    const seen = new Map<string, number>(), due: (() => Promise<void>)[] = [];
    const look = (key: string, settle: () => Promise<void>) => {
      const sinceMs = this.#seen.get(key) ?? nowMs;
      seen.set(key, sinceMs);
      if (nowMs - sinceMs >= SWEEP_AFTER_MS && due.length < AT_ONCE_MAX) due.push(settle);
    };
    for (const lock of locks.locks) {
      if (lock.decides !== undefined) {
        look(`${lock.id} until ${lock.decides.untilMs}`, () => this.#transactions.abandon(lock));
      } else if (locks.stateOf(lock.id) === "gone") {
        look(`${lock.id} here`, () => this.#settle(lock));
      }
    }
    for (const decision of locks.decisions) {
      look(`${decision.id} done`, () => this.#finish(decision));
    }
    this.#seen = seen;
    return due;
  }

  async #settle(lock: RowLock): Promise<void> {
    await this.#transactions.settleForRead([lock], { deadlineMs: LOCK_LIFE_MS });
  }

  async #finish(decision: Decision): Promise<void> {
    await this.#transactions.finish(decision);
  }

  async #quietly(settle: () => Promise<void>): Promise<void> {
    try {
      await settle();
    } catch (error) {
      const { message } = error as Error;
      this.#env.log("info", "a transaction's remains could not be cleared yet", { message });
    }
  }
}
