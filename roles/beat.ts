/**
 * The beat of this process: twice a second, at the same moments on every node whose wall clock is right.
 *
 * To wake an idle process costs more than most of what it then does, so whatever is done over and over
 * and can wait for a moment is done at a beat, all of it in one waking (kv/repeat.ts). And since nodes beat
 * together, what one has to tell the others reaches them while they are awake. Nothing may rely on that:
 * where clocks differ, or jump, beats are merely earlier or later.
 */
import { nextBeatMs } from "../kv/repeat.ts";

/** After a beat that came a little early, the next one is not due at once. */
const EARLY_MS_MAX = 25;

export class Beat {
  readonly #listeners = new Set<(lateMs: number) => void>();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #dueMs = 0;

  /**
   * Calls `run` at every beat, with how late the event loop came to it; the returned function ends that.
   * Keeps no process alive.
   */
  listen(run: (lateMs: number) => void): () => void {
    // One of its own, so that what is registered twice is called twice.
    const listener = (lateMs: number) => run(lateMs);
    this.#listeners.add(listener);
    if (this.#timer === null) this.#arm();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0 || this.#timer === null) return;
      clearTimeout(this.#timer);
      this.#timer = null;
    };
  }

  #arm(): void {
    const wallMs = Date.now();
    const ms = nextBeatMs(wallMs + EARLY_MS_MAX) - wallMs;
    this.#dueMs = performance.now() + ms;
    this.#timer = setTimeout(() => this.#beat(), ms);
    Deno.unrefTimer(this.#timer);
  }

  #beat(): void {
    const lateMs = Math.max(0, performance.now() - this.#dueMs);
    // First, so that a listener that throws, or that was the last one, finds things in order.
    this.#arm();
    for (const listener of [...this.#listeners]) {
      if (this.#listeners.has(listener)) listener(lateMs);
    }
  }
}

/** All that repeats in this process goes by it. */
export const processBeat = new Beat();
