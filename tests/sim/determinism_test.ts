/** The same seed is the same run, and nothing within a run can reach the real world. */
import assert from "node:assert/strict";
import { runSeed } from "./seeds.ts";
import { RealWorldError, VirtualTime, withoutRealWorld } from "./virtual_time.ts";

Deno.test("sim: the same seed gives the same events, twice over five seeds", async () => {
  for (const seed of [3, 5, 7, 9, 15]) {
    const [first, second] = [await runSeed({ seed }), await runSeed({ seed })];
    assert.deepEqual(first, second, `seed ${seed}`);
  }
});

Deno.test("sim: real clocks, timers and dice are out of reach within a run, and back after it", async () => {
  const before = [Date.now, Math.random, performance.now, globalThis.setTimeout];
  const time = new VirtualTime();
  await withoutRealWorld(time, () => {
    for (const use of [Date.now, Math.random, () => setTimeout(() => {}, 1), crypto.randomUUID]) {
      assert.throws(use, RealWorldError);
    }
    assert.equal(performance.now(), 0);
    return Promise.resolve();
  });
  assert.deepEqual([Date.now, Math.random, performance.now, globalThis.setTimeout], before);
  assert(Date.now() > 0);
});

Deno.test("sim: events run in the order of their time, and of their scheduling within one moment", async () => {
  const time = new VirtualTime(), seen: string[] = [];
  time.after(5, () => seen.push("c"));
  time.after(1, () => {
    seen.push("a");
    void Promise.resolve().then(() => seen.push("microtask of a"));
    time.after(0, () => seen.push("b"));
  });
  time.after(9, () => seen.push("too late"));
  time.after(2, () => seen.push("never")).run = null;
  await time.runUntil(8, () => false);
  assert.deepEqual(seen, ["a", "microtask of a", "b", "c"]);
  assert.equal(time.nowMs, 8);
});
