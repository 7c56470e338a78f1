/**
 * How often somebody may guess. Attempts are counted in the store, so that all frontends and the
 * mail role count together, per user name and per client address, in windows of five minutes.
 *
 * An attempt is counted before the password is looked at, and once more when it was wrong. So a
 * hundred guesses at once do not get past the limit, while many logins at once with the right
 * password do. A login that succeeds takes its user's counts back.
 *
 * Counters live in a fixed number of rows, `<two symbols>~attempts`, whose columns begin with the
 * window's number; whoever opens a window sweeps the row's older ones away. Names that nobody has
 * are counted like any other, so that a limit tells nothing about which accounts exist.
 */
import type { Env } from "../../kv/env.ts";
import type { Kv, Mutation } from "../../kv/kv.ts";
import { AccountError } from "./account_error.ts";
import { digestId } from "./secret_token.ts";

export const WINDOW_MS = 5 * 60_000;

export interface Limits {
  /** Wrong passwords in one window. */
  readonly failedMax: number;
  /** Attempts whose outcome is not known yet: under way, or given up by a process that died. */
  readonly openMax: number;
}

export const USER_LIMITS: Limits = { failedMax: 10, openMax: 50 };
/** A household or an office may share one address. */
export const ADDRESS_LIMITS: Limits = { failedMax: 100, openMax: 500 };

interface Counter {
  readonly row: string;
  /** All attempts, and those that were wrong. */
  readonly all: string;
  readonly failed: string;
  readonly limits: Limits;
}

/** Given back by `begin()`: tell it how the attempt ended. */
export interface Attempt {
  succeeded(): Promise<void>;
  failed(): Promise<void>;
}

export class LoginLimit {
  constructor(readonly kv: Kv, readonly env: Pick<Env, "wallMs">) {}

  /**
   * Counts one attempt.
   *
   * @param address null when the caller is not on the network (the command line)
   * @throws {AccountError} `too_many_attempts`
   */
  async begin(username: string, address: string | null): Promise<Attempt> {
    const nowMs = this.env.wallMs();
    const window = Math.floor(nowMs / WINDOW_MS);
    const user = await counterOf(`user ${username}`, window, USER_LIMITS);
    const counters = [user];
    if (address !== null) {
      counters.push(await counterOf(`address ${address}`, window, ADDRESS_LIMITS));
    }
    const within = await Promise.all(counters.map((counter) => this.#count(counter, window)));
    if (within.includes(false)) throw tooMany((window + 1) * WINDOW_MS - nowMs);
    return {
      succeeded: async () => {
        await Promise.all(counters.map((counter) =>
          this.kv.apply({
            row: counter.row,
            mutations: counter === user
              ? [{ kind: "delete", column: user.all }, { kind: "delete", column: user.failed }]
              : [{ kind: "add", column: counter.all, by: -1 }],
          })
        ));
      },
      failed: async () => {
        await Promise.all(
          counters.map(({ row, failed: column }) =>
            this.kv.apply({ row, mutations: [{ kind: "add", column, by: 1 }] })
          ),
        );
      },
    };
  }

  /** Counts an attempt and tells whether it is within the limits. */
  async #count({ row, all, failed, limits }: Counter, window: number): Promise<boolean> {
    const mutations: Mutation[] = [
      { kind: "add", column: all, by: 1 },
      { kind: "add", column: failed, by: 0 },
    ];
    const result = await this.kv.apply({ row, mutations });
    const [allCount = 0, failedCount = 0] = result.applied ? result.numbers : [];
    if (allCount === 1) await this.#sweep(row, window);
    return failedCount < limits.failedMax && allCount - failedCount <= limits.openMax;
  }

  async #sweep(row: string, window: number): Promise<void> {
    const page = await this.kv.getRow(row, { limit: 100, keysOnly: true });
    const stale = page.cells.map((cell) => cell.column)
      .filter((column) => Number(column.split("/")[0]) < window);
    if (stale.length === 0) return;
    const mutations = stale.map((column) => ({ kind: "delete", column }) as const);
    await this.kv.apply({ row, mutations });
  }
}

function tooMany(waitMs: number): AccountError {
  const retryAfterSeconds = Math.ceil(waitMs / 1000), minutes = Math.ceil(retryAfterSeconds / 60);
  const wait = `${minutes} ${minutes === 1 ? "minute" : "minutes"}`;
  const message = `Too many attempts. Try again in ${wait}.`;
  return new AccountError("too_many_attempts", message, retryAfterSeconds);
}

async function counterOf(who: string, window: number, limits: Limits): Promise<Counter> {
  const digest = await digestId(who), column = `${window}/${digest.slice(2)}`;
  const row = `${digest.slice(0, 2)}~attempts`;
  return { row, all: `${column}/all`, failed: `${column}/failed`, limits };
}
