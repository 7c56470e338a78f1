/**
 * Time that passes only when everything that was due has been done: a queue of events, and no other
 * source of time, chance or concurrency.
 *
 * The code under test is asynchronous. Between two events all its microtasks run to the end, in the
 * order that V8 defines, so a run is a function of its seed. `withoutRealWorld` makes sure that
 * nothing reaches around the queue: while it runs, the real clocks, timers and dice throw.
 */
import { setImmediate } from "node:timers";

export interface Scheduled {
  readonly atMs: number;
  readonly order: number;
  /** Null once cancelled. */
  run: (() => void) | null;
}

export class VirtualTime {
  nowMs = 0;
  steps = 0;
  /** A binary heap; among events of one moment, the first scheduled comes first. */
  readonly #heap: Scheduled[] = [];
  #order = 0;

  after(delayMs: number, run: () => void): Scheduled {
    const event = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order++, run };
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (isBefore(heap[parent]!, event)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
    return event;
  }

  /** Runs what is due until `endMs`, or until `afterStep` says that it is enough. */
  async runUntil(endMs: number, afterStep: () => boolean): Promise<void> {
    for (let event; (event = this.#heap[0]) !== undefined && event.atMs <= endMs;) {
      this.#pop();
      if (event.run === null) continue;
      this.nowMs = event.atMs;
      this.steps += 1;
      event.run();
      await microtasksDone();
      if (afterStep()) return;
    }
    this.nowMs = endMs;
  }

  #pop(): void {
    const heap = this.#heap, last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (isBefore(last, heap[child]!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

const isBefore = (a: Scheduled, b: Scheduled) =>
  a.atMs < b.atMs || a.atMs === b.atMs && a.order < b.order;

/** Resolves in a later turn of the event loop, so after every microtask that is there or follows. */
const microtasksDone = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Something asked the real world within a simulation. */
export class RealWorldError extends Error {
  override readonly name = "RealWorldError";
}

/**
 * Runs `simulate` with the real clocks, timers and dice replaced by traps. `performance.now`, which
 * the log measures its syncs with, is answered from `time`.
 */
export async function withoutRealWorld<T>(
  time: VirtualTime,
  simulate: () => Promise<T>,
): Promise<T> {
  const trap = (name: string) => () => {
    throw new RealWorldError(`${name} was used within the simulation`);
  };
  const replaced: [object: object, name: string, stand: unknown][] = [
    [Date, "now", trap("Date.now")],
    [Math, "random", trap("Math.random")],
    [performance, "now", () => time.nowMs],
    [globalThis, "setTimeout", trap("setTimeout")],
    [globalThis, "setInterval", trap("setInterval")],
    [globalThis, "fetch", trap("fetch")],
    [crypto, "getRandomValues", trap("crypto.getRandomValues")],
    [crypto, "randomUUID", trap("crypto.randomUUID")],
  ];
  const before = replaced.map(([object, name]) => Object.getOwnPropertyDescriptor(object, name));
  for (const [object, name, value] of replaced) {
    Object.defineProperty(object, name, { value, configurable: true, writable: true });
  }
  try {
    return await simulate();
  } finally {
    for (const [i, [object, name]] of replaced.entries()) {
      const descriptor = before[i];
      // What was inherited comes back when what hides it goes.
      if (descriptor === undefined) delete (object as Record<string, unknown>)[name];
      else Object.defineProperty(object, name, descriptor);
    }
  }
}
