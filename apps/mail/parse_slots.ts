/**
 * Keeps large messages from being taken apart all at once: each needs several times its size in
 * memory, and a page with ten pictures asks for ten parts of one message at the same moment.
 */

/** Below it, a message costs less than waiting would. */
const LARGE_BYTES = 1024 * 1024;
const LARGE_AT_ONCE = 2;

export class ParseSlots {
  #busy = 0;
  readonly #waiting: (() => void)[] = [];

  /** Runs at once for small messages, in turn for large ones. */
  async run<T>(size: number, work: () => Promise<T>): Promise<T> {
    if (size < LARGE_BYTES) return await work();
    // A slot that is freed goes straight to whoever waits longest.
    if (this.#busy < LARGE_AT_ONCE) this.#busy++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#busy--;
      else next();
    }
  }
}
