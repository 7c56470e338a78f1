/**
 * A limit on how fast bytes are moved in the background, so that those who wait for answers do not feel it.
 *
 * Whoever has moved some waits until they are paid for, in the order in which they came. What was not
 * used for a while is lost, but for a fraction of a second's worth: timers are not exact.
 */
import type { Env } from "../kv/env.ts";

const UNUSED_MS_MAX = 100;

export class Pacer {
  readonly #env: Env;
  readonly #bytesPerMs: number;
  /** All that was moved is paid for by then. */
  #paidMs = -Infinity;

  constructor({ env, bytesPerSecond }: { env: Env; bytesPerSecond: number }) {
    this.#env = env;
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  /** Resolves when `bytes` more may be moved. */
  async spend(bytes: number): Promise<void> {
    const nowMs = this.#env.monotonicMs();
    const dueMs = Math.max(this.#paidMs, nowMs - UNUSED_MS_MAX);
    this.#paidMs = dueMs + bytes / this.#bytesPerMs;
    if (dueMs > nowMs) await this.#env.sleep(dueMs - nowMs);
  }
}
