/** Work that repeats: at beats, where those are often enough. */
import assert from "node:assert/strict";
import { BEAT_MS } from "../../kv/env.ts";
import { nextBeatMs, repeat, untilBeatMs } from "../../kv/repeat.ts";

/** Beats and timers that come when the test says so. */
class HandEnv {
  nowMs = 0;
  #listeners = new Set<() => void>();
  #timers = new Set<{ dueMs: number; run: () => void }>();
  monotonicMs = () => this.nowMs;

  onBeat = (run: () => void) => {
    this.#listeners.add(run);
    return () => void this.#listeners.delete(run);
  };

  timer = (ms: number, run: () => void) => {
    const timer = { dueMs: this.nowMs + ms, run };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  };

  beatAt(ms: number): void {
    this.nowMs = ms;
    for (const run of this.#listeners) run();
  }

  passTo(ms: number): void {
    this.nowMs = ms;
    for (const timer of [...this.#timers]) {
      if (timer.dueMs > ms || !this.#timers.delete(timer)) continue;
      timer.run();
    }
  }

  get waiting(): number {
    return this.#listeners.size + this.#timers.size;
  }
}

Deno.test("repeat() runs at the beat nearest to when it is due, whether that comes early or late", () => {
  const env = new HandEnv(), ranAtMs: number[] = [];
  const end = repeat(env, 2 * BEAT_MS, () => ranAtMs.push(env.nowMs));
  for (const atMs of [490, 1_010, 1_495, 1_999, 2_600, 2_990, 3_500]) env.beatAt(atMs);
  assert.deepEqual(ranAtMs, [1_010, 1_999, 2_990]);
  end();
  env.beatAt(5_000);
  assert.equal(ranAtMs.length, 3);
  assert.equal(env.waiting, 0);
});

Deno.test("repeat() has a timer of its own where beats are too rare, until it is ended", () => {
  const env = new HandEnv(), ranAtMs: number[] = [];
  const end = repeat(env, 20, () => {
    ranAtMs.push(env.nowMs);
    if (ranAtMs.length === 3) end();
  });
  for (let atMs = 10; atMs <= 100; atMs += 10) env.passTo(atMs);
  assert.deepEqual(ranAtMs, [20, 40, 60]);
  assert.equal(env.waiting, 0);
});

Deno.test("untilBeatMs() ends at the beat nearest to the time that was asked for, never at once", () => {
  for (const wallMs of [0, 1, 249, 250, 251, 499, 500, 1_790_000_000_123]) {
    for (const ms of [0, 100, 500, 1_234, 10_000]) {
      const waitMs = untilBeatMs({ wallMs: () => wallMs }, ms);
      assert.ok(waitMs > 0, `${wallMs} and ${ms}: not at once`);
      assert.equal((wallMs + waitMs) % BEAT_MS, 0, `${wallMs} and ${ms}: at a beat`);
      assert.ok(Math.abs(waitMs - ms) <= Math.max(BEAT_MS / 2, BEAT_MS - ms), `${wallMs}, ${ms}`);
    }
  }
  assert.equal(nextBeatMs(500), 1_000);
});
