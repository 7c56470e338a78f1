/**
 * Gives memory back to the system once it is not needed any more. V8 and the C library hold on to what
 * they once had; on SIGUSR2 Deno collects all garbage and gives back what is free, if it was started
 * with `DENO_USR2_MEMORY_TRIM=1` (self_command.ts). That stops the process for 50 to 500 ms.
 */
import type { Env } from "../kv/env.ts";

/** Now. */
export function giveBackMemory(): void {
  if (Deno.env.get("DENO_USR2_MEMORY_TRIM") === "1") Deno.kill(Deno.pid, "SIGUSR2");
}

/** What is smaller is collected soon enough by itself. */
const LARGE_BYTES = 1024 * 1024;
/** Less would not be worth a stop. */
const WORTH_BYTES = 8 * 1024 * 1024;
const AFTER_MS = 1_000;
const EVERY_MS_MIN = 10_000;

/** For a process through which much passes at times: gives back soon after, and not too often. */
export class MemoryReturn {
  readonly #env: Pick<Env, "monotonicMs" | "timer">;
  readonly #giveBack: () => void;
  #passedBytes = 0;
  #lastMs = -Infinity;
  #cancel: (() => void) | null = null;

  constructor(env: Pick<Env, "monotonicMs" | "timer">, giveBack: () => void = giveBackMemory) {
    this.#env = env;
    this.#giveBack = giveBack;
  }

  /** So much at once has been taken in, and let go of again. */
  passed(bytes: number): void {
    if (bytes < LARGE_BYTES) return;
    this.#passedBytes += bytes;
    if (this.#passedBytes < WORTH_BYTES || this.#cancel !== null) return;
    const waitMs = Math.max(AFTER_MS, this.#lastMs + EVERY_MS_MIN - this.#env.monotonicMs());
    this.#cancel = this.#env.timer(waitMs, () => {
      this.#cancel = null;
      this.#passedBytes = 0;
      this.#lastMs = this.#env.monotonicMs();
      this.#giveBack();
    });
  }

  close(): void {
    this.#cancel?.();
    this.#cancel = null;
  }
}
