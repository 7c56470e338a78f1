/**
 * One process of the simulated cluster: an `Env` whose clock may be wrong, and which can be paused and
 * ended at any moment. What belongs to an ended process never runs again; what is meant for a paused
 * one waits, in order, until it goes on with the state that it had.
 */
import { BEAT_MS, type Env } from "../../kv/env.ts";
import { SeededRandom } from "./seeded_random.ts";
import type { VirtualTime } from "./virtual_time.ts";

/** Thrown to unwind a process that has ended itself; it says nothing more. */
export class ProcessEnded extends Error {
  override readonly name = "ProcessEnded";
}

/** A machine's clocks. The local rate is all that leases rely on. */
export class SimClock {
  rate = 1;
  #wallOffsetMs = 0;
  #wallOffsetMaxMs = 0;
  readonly #time: VirtualTime;
  readonly #startMs: number;
  #frozenMs = 0;
  #frozenSinceMs: number | null = null;

  constructor(time: VirtualTime, startMs: number) {
    this.#time = time;
    this.#startMs = startMs;
  }

  get wallOffsetMs(): number {
    return this.#wallOffsetMs;
  }
  set wallOffsetMs(ms: number) {
    this.#wallOffsetMs = ms;
    this.#wallOffsetMaxMs = Math.max(this.#wallOffsetMaxMs, ms);
  }
  /** The furthest that the wall clock was ever ahead. */
  get wallOffsetMaxMs(): number {
    return this.#wallOffsetMaxMs;
  }

  monotonicMs(): number {
    const nowMs = this.#frozenSinceMs ?? this.#time.nowMs;
    return this.#startMs + (nowMs - this.#frozenMs) * this.rate;
  }

  wallMs(): number {
    return Math.floor(WALL_START_MS + this.#time.nowMs + this.#wallOffsetMs);
  }

  /** As of now the monotonic clock stands still: a suspended machine. */
  freeze(): void {
    this.#frozenSinceMs ??= this.#time.nowMs;
  }

  thaw(): void {
    if (this.#frozenSinceMs === null) return;
    this.#frozenMs += this.#time.nowMs - this.#frozenSinceMs;
    this.#frozenSinceMs = null;
  }
}

const WALL_START_MS = 1_790_000_000_000;

export interface SimProcessOptions {
  readonly name: string;
  readonly time: VirtualTime;
  readonly clock: SimClock;
  readonly seed: number;
  /** After every turn of this process. */
  readonly onTurn: (process: SimProcess) => void;
  readonly onLog: (process: SimProcess, level: string, event: string, fields: unknown) => void;
  /** The process found that it cannot go on; it has ended. */
  readonly onFatal: (process: SimProcess, error: unknown) => void;
}

export class SimProcess {
  readonly name: string;
  readonly env: Env;
  alive = true;
  readonly #options: SimProcessOptions;
  #pausedUntilMs = -Infinity;

  constructor(options: SimProcessOptions) {
    this.#options = options;
    this.name = options.name;
    this.env = this.#makeEnv();
  }

  /** The world's time, which no process can see. */
  get worldMs(): number {
    return this.#options.time.nowMs;
  }

  get clock(): SimClock {
    return this.#options.clock;
  }

  get isPaused(): boolean {
    return this.#pausedUntilMs > this.worldMs;
  }

  pauseUntil(ms: number): void {
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, ms);
  }

  resume(): void {
    this.#pausedUntilMs = -Infinity;
  }

  end(): void {
    this.alive = false;
  }

  /** Runs now, or when the process goes on; never once it has ended. */
  enter(run: () => void): void {
    if (!this.alive) return;
    const { time } = this.#options;
    if (this.isPaused) {
      time.after(this.#pausedUntilMs - time.nowMs, () => this.enter(run));
      return;
    }
    try {
      run();
    } catch (error) {
      if (!(error instanceof ProcessEnded)) this.#fail(error);
    }
    this.#options.onTurn(this);
  }

  /** After `ms` of the world's time; the returned function cancels. */
  after(ms: number, run: () => void): () => void {
    const event = this.#options.time.after(ms, () => this.enter(run));
    return () => event.run = null;
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.after(ms, resolve));
  }

  #fail(error: unknown): void {
    this.end();
    this.#options.onFatal(this, error);
  }

  #makeEnv(): Env {
    const { clock, onLog, seed } = this.#options;
    const random = new SeededRandom(seed);
    const timer = (ms: number, run: () => void) => this.after(ms / clock.rate, run);
    return {
      monotonicMs: () => clock.monotonicMs(),
      wallMs: () => clock.wallMs(),
      random: () => random.next(),
      secretBytes: (count) => Uint8Array.from({ length: count }, () => random.integer(256)),
      sleep: (ms, signal) => {
        if (signal?.aborted) return Promise.reject(signal.reason);
        return new Promise((resolve, reject) => {
          const cancel = timer(ms, () => {
            signal?.removeEventListener("abort", onAbort);
            resolve();
          });
          const onAbort = () => {
            cancel();
            reject(signal!.reason);
          };
          signal?.addEventListener("abort", onAbort, { once: true });
        });
      },
      timer,
      // Processes beat each at its own moments, so that they meet in as many ways as they can.
      onBeat: (run) => {
        let cancel = timer(random.next() * BEAT_MS, function beat() {
          cancel = timer(BEAT_MS, beat);
          run();
        });
        return () => cancel();
      },
      log: (level, event, fields) => onLog(this, level, event, fields),
      fatal: (error) => {
        if (this.alive) this.#fail(error);
        throw new ProcessEnded(`${this.name} has ended`);
      },
    };
  }
}
