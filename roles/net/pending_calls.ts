/**
 * The calls of one connection that wait for their answers, with one timer for all their deadlines.
 *
 * The timer is armed for the earliest deadline seen and looks at every call when it fires, so that a
 * call which is answered in time, as nearly all are, costs no timer at all.
 */
import type { Method } from "../../proto/rpc.ts";

export interface PendingCall {
  readonly name: string;
  readonly method: Method<unknown, unknown>;
  /** performance.now() after which the call has failed. */
  readonly deadlineMs: number;
  /** The writer's number of the frame that carries the request. */
  readonly frameNumber: number;
  readonly resolve: (answer: { body: unknown; payload: Uint8Array }) => void;
  readonly reject: (error: unknown) => void;
  /** Takes the listener off the caller's signal. */
  readonly release: (() => void) | null;
}

/** Deadlines are met to within this, and the calls are looked through no more often. */
const SWEEP_MS_MIN = 5;

export class PendingCalls {
  readonly #calls = new Map<number, PendingCall>();
  readonly #onTimeout: (call: PendingCall) => void;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #timerAtMs = Infinity;

  /** `onTimeout` gets each overdue call after it was taken out. */
  constructor(onTimeout: (call: PendingCall) => void) {
    this.#onTimeout = onTimeout;
  }

  get size(): number {
    return this.#calls.size;
  }

  add(id: number, call: PendingCall): void {
    this.#calls.set(id, call);
    if (call.deadlineMs < this.#timerAtMs) this.#arm(call.deadlineMs);
  }

  /** Takes the call out; undefined when it was answered, timed out or aborted before. */
  take(id: number): PendingCall | undefined {
    const call = this.#calls.get(id);
    if (call !== undefined) {
      this.#calls.delete(id);
      call.release?.();
    }
    return call;
  }

  /** Takes every call out and stops the timer. */
  takeAll(): PendingCall[] {
    this.#disarm();
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of calls) call.release?.();
    return calls;
  }

  #arm(atMs: number): void {
    this.#disarm();
    this.#timerAtMs = atMs;
    const delayMs = Math.max(SWEEP_MS_MIN, Math.ceil(atMs - performance.now()));
    this.#timer = setTimeout(() => this.#sweep(), delayMs);
    // The socket keeps the process alive while calls wait; a timer of answered calls must not.
    Deno.unrefTimer(this.#timer);
  }

  #disarm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#timerAtMs = Infinity;
  }

  #sweep(): void {
    this.#disarm();
    const nowMs = performance.now();
    let nextMs = Infinity;
    for (const [id, call] of this.#calls) {
      if (call.deadlineMs <= nowMs) {
        this.take(id);
        this.#onTimeout(call);
      } else if (call.deadlineMs < nextMs) {
        nextMs = call.deadlineMs;
      }
    }
    // A call added by `onTimeout` has armed the timer for itself.
    if (nextMs < this.#timerAtMs) this.#arm(nextMs);
  }
}
