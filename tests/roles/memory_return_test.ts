import assert from "node:assert/strict";
import { MemoryReturn } from "../../roles/memory_return.ts";

const MIB = 1024 * 1024;

/** Time passes by `pass` alone; `returns` says when memory was given back. */
function makeReturn() {
  const returns: number[] = [];
  let nowMs = 0, timers: { atMs: number; run: () => void }[] = [];
  const pass = (ms: number) => {
    nowMs += ms;
    const due = timers.filter(({ atMs }) => atMs <= nowMs);
    timers = timers.filter((timer) => !due.includes(timer));
    for (const { run } of due) run();
  };
  const memory = new MemoryReturn({
    monotonicMs: () => nowMs,
    timer: (ms, run) => {
      const timer = { atMs: nowMs + ms, run };
      timers.push(timer);
      return () => timers = timers.filter((other) => other !== timer);
    },
  }, () => returns.push(nowMs));
  return { memory, pass, returns };
}

Deno.test("memory goes back a moment after something large has passed, once", () => {
  const { memory, pass, returns } = makeReturn();
  memory.passed(50 * MIB);
  memory.passed(50 * MIB);
  assert.deepEqual(returns, []);
  pass(1_000);
  assert.deepEqual(returns, [1_000]);
  pass(60_000);
  assert.deepEqual(returns, [1_000]);
});

Deno.test("what is small, however much of it, stops nothing", () => {
  const { memory, pass, returns } = makeReturn();
  for (let i = 0; i < 1_000; i++) memory.passed(100 * 1024);
  pass(60_000);
  assert.deepEqual(returns, []);
});

Deno.test("several of middle size add up", () => {
  const { memory, pass, returns } = makeReturn();
  for (let i = 0; i < 3; i++) memory.passed(2 * MIB);
  pass(1_000);
  assert.deepEqual(returns, []);
  memory.passed(2 * MIB);
  pass(1_000);
  assert.deepEqual(returns, [2_000]);
});

Deno.test("under a stream of large ones memory goes back every ten seconds at most", () => {
  const { memory, pass, returns } = makeReturn();
  for (let i = 0; i < 30; i++) {
    memory.passed(20 * MIB);
    pass(1_000);
  }
  assert.deepEqual(returns, [1_000, 11_000, 21_000]);
});

Deno.test("nothing happens any more once it is closed", () => {
  const { memory, pass, returns } = makeReturn();
  memory.passed(50 * MIB);
  memory.close();
  pass(60_000);
  assert.deepEqual(returns, []);
});
