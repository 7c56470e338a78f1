/**
 * Measures for how long a tablet takes no writes, or answers no reads: a small one every 10 ms, whether
 * or not the one before was answered. A gap is the time between two answers that follow each other.
 *
 * Unanswered probes are bounded, and the oldest keep trying; so what is measured is what a patient
 * client sees, its retries included.
 */
import { KvError } from "../../kv/errors.ts";
import { type CallOptions, type Kv, put } from "../../kv/kv.ts";

const EVERY_MS = 10;
const UNANSWERED_MAX = 32;
/** Longer than any fault is meant to last. */
const DEADLINE_MS = 120_000;
/** Shorter ones say nothing, at one probe every 10 ms. */
const KEPT_MS_MIN = 5;
/** Half an hour of probing. */
const ANSWERS_MAX = 180_000;

export interface Gap {
  /** Monotonic milliseconds of the last answer before it. */
  readonly fromMs: number;
  readonly ms: number;
}

/** One question; `count` tells it from the others. */
export type Probe = (options: CallOptions, count: number) => Promise<unknown>;

export const writeProbe = (kv: Kv, row: string): Probe => (options, count) =>
  put(kv, row, "probe", String(count), options);

/** Linearizable reads of what `writeProbe` writes. */
export const readProbe = (kv: Kv, row: string): Probe => (options) => kv.get(row, "probe", options);

export class GapProbe {
  readonly #ask: Probe;
  readonly #startedMs = performance.now();
  readonly #gaps: Gap[] = [];
  readonly #answers: { sentMs: number; ms: number }[] = [];
  readonly #stop = new AbortController();
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #unanswered = new Set<Promise<void>>();
  #sentCount = 0;
  #failure: unknown = null;
  #lastAckMs: number;
  ackCount = 0;

  constructor(ask: Probe) {
    this.#ask = ask;
    this.#lastAckMs = this.#startedMs;
    this.#timer = setInterval(() => this.#probe(), EVERY_MS);
  }

  /** The longest gap that ended after `sinceMs`; one that has not ended yet counts as far as it goes. */
  longestSince(sinceMs: number): Gap {
    const open = { fromMs: this.#lastAckMs, ms: performance.now() - this.#lastAckMs };
    return [...this.#gaps, open].filter(({ fromMs, ms }) => fromMs + ms > sinceMs)
      .reduce((longest, gap) => gap.ms > longest.ms ? gap : longest);
  }

  /** How long each probe took that was sent from `fromMs` on and before `untilMs`, and answered. */
  timesBetween(fromMs: number, untilMs: number): number[] {
    return this.#answers.filter(({ sentMs }) => sentMs >= fromMs && sentMs < untilMs)
      .map(({ ms }) => ms);
  }

  /** How long after `atMs` the first answer came. */
  waitFrom(atMs: number): number {
    const gap = this.#gaps.find(({ fromMs, ms }) => fromMs <= atMs && atMs < fromMs + ms);
    return gap === undefined ? 0 : gap.fromMs + gap.ms - atMs;
  }

  /** Rejects when a probe met an error that is not the store's word. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#stop.abort();
    await Promise.all(this.#unanswered);
    if (this.#failure !== null) throw this.#failure;
  }

  #probe(): void {
    if (this.#unanswered.size >= UNANSWERED_MAX) return;
    const probe = this.#probeOnce().finally(() => this.#unanswered.delete(probe));
    this.#unanswered.add(probe);
  }

  async #probeOnce(): Promise<void> {
    const sentMs = performance.now();
    try {
      await this.#ask({ deadlineMs: DEADLINE_MS, signal: this.#stop.signal }, ++this.#sentCount);
    } catch (error) {
      if (!(error instanceof KvError) && !this.#stop.signal.aborted) this.#failure ??= error;
      return;
    }
    const nowMs = performance.now(), ms = nowMs - this.#lastAckMs;
    if (this.#answers.length < ANSWERS_MAX) this.#answers.push({ sentMs, ms: nowMs - sentMs });
    if (ms >= KEPT_MS_MIN) this.#gaps.push({ fromMs: this.#lastAckMs, ms });
    this.#lastAckMs = nowMs;
    this.ackCount += 1;
  }
}
