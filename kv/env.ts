/**
 * What the rules of the store and the apps may ask of the world. `roles/env.ts` is the real one; the
 * simulator and the tests hand in their own. Nothing in `kv/` (outside `kv/disk/`) or `apps/` reads
 * a clock, rolls a die or sets a timer in any other way; the lint plugin checks it.
 */
export interface Env {
  /** Milliseconds that only go forward, from an arbitrary start: for leases and deadlines. */
  monotonicMs(): number;
  /** Milliseconds since 1970, as people read them. It may jump. Never decides what is safe. */
  wallMs(): number;
  /** A number in [0, 1) for jitter and spreading. Not for secrets. */
  random(): number;
  /** Unpredictable bytes for salts, tokens and ids. */
  secretBytes(count: number): Uint8Array;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `run` once after `ms`; the returned function cancels. */
  timer(ms: number, run: () => void): () => void;
  /**
   * Calls `run` about every {@link BEAT_MS}, at moments that all nodes share as far as their clocks agree;
   * the returned function ends that. See roles/beat.ts, and repeat.ts for other periods.
   */
  onBeat(run: () => void): () => void;
  /** One structured line. `event` is a fixed sentence, `fields` its variables. */
  log(level: "debug" | "info" | "warning" | "error", event: string, fields?: LogFields): void;
  /** Our own invariant is broken: log it and end the process. */
  fatal(error: unknown): never;
}

/** What every process does at least twice a second sets the pace for all that is not urgent. */
export const BEAT_MS = 500;

export type LogFields = Record<string, string | number | boolean | null | undefined>;

const ID_LETTERS = "abcdefghijklmnopqrstuvwxyz";
const ID_SYMBOLS = "abcdefghijklmnopqrstuvwxyz234567";

/**
 * A fresh id of 26 characters that nobody can guess: 1 letter, then base32 (a-z, 2-7), 129 bits.
 * The first letter is uniform over a to z, so rows that begin with such an id spread evenly over
 * the whole key range and with it over all backends.
 */
export function freshId(env: Pick<Env, "secretBytes">): string {
  const bytes = env.secretBytes(32);
  let id = "";
  for (let i = 0; i < bytes.length && id === ""; i++) {
    // Rejection sampling: 234 = 9 * 26, so every letter is equally likely.
    if (bytes[i]! < 234) id = ID_LETTERS[bytes[i]! % 26]!;
  }
  if (id === "") id = "q";
  for (const byte of env.secretBytes(25)) id += ID_SYMBOLS[byte & 31];
  return id;
}
