/**
 * How often somebody may guess. Attempts are counted in the store, so that all frontends and the
 * mail role count together, per user name and per client address, in windows of five minutes.
 *
 * An attempt is counted before the password is looked at: a hundred guesses at once do not get
 * past the limit. A login that succeeds takes its count back.
 *
 * Counters live in a fixed number of rows, `<two symbols>~attempts`, whose columns begin with the
 * window's number; whoever opens a window sweeps the row's older ones away. Names that nobody has
 * are counted like any other, so that a limit tells nothing about which accounts exist.
 */
import type { Env } from "../../kv/env.ts";
import type { Kv } from "../../kv/kv.ts";
import { AccountError } from "./account_error.ts";
import { digestId } from "./secret_token.ts";

export const WINDOW_MS = 5 * 60_000;
export const ATTEMPTS_PER_USER_MAX = 10;
/** A household or an office may share one address. */
export const ATTEMPTS_PER_ADDRESS_MAX = 100;

interface Counter {
  readonly row: string;
  readonly column: string;
}

/** Given back by `begin()`: call `succeeded()` when the password was right. */
export interface Attempt {
  succeeded(): Promise<void>;
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
    const user = await counterOf(`user ${username}`, window);
    const host = address === null ? null : await counterOf(`address ${address}`, window);
    const [userCount, hostCount] = await Promise.all([
      this.#count(user, window),
      host === null ? 0 : this.#count(host, window),
    ]);
    if (userCount > ATTEMPTS_PER_USER_MAX || hostCount > ATTEMPTS_PER_ADDRESS_MAX) {
      const retryAfterSeconds = Math.ceil(((window + 1) * WINDOW_MS - nowMs) / 1000);
      const minutes = Math.ceil(retryAfterSeconds / 60);
      throw new AccountError(
        "too_many_attempts",
        `Too many attempts. Try again in ${minutes} ${minutes === 1 ? "minute" : "minutes"}.`,
        retryAfterSeconds,
      );
    }
    return {
      succeeded: async () => {
        const reset = { kind: "delete", column: user.column } as const;
        const work = [this.kv.apply({ row: user.row, mutations: [reset] })];
        if (host !== null) work.push(this.#add(host, -1));
        await Promise.all(work);
      },
    };
  }

  async #count(counter: Counter, window: number): Promise<number> {
    const result = await this.#add(counter, 1);
    const count = result.applied ? result.numbers[0]! : 0;
    if (count === 1) await this.#sweep(counter.row, window);
    return count;
  }

  #add({ row, column }: Counter, by: number) {
    return this.kv.apply({ row, mutations: [{ kind: "add", column, by }] });
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

async function counterOf(who: string, window: number): Promise<Counter> {
  const digest = await digestId(who);
  return { row: `${digest.slice(0, 2)}~attempts`, column: `${window}/${digest.slice(2)}` };
}
