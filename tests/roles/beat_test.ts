/** All that repeats in a process is woken together. */
import assert from "node:assert/strict";
import { Beat } from "../../roles/beat.ts";

/** Resolves with who was called in one waking, once somebody was. */
async function oneWaking(called: readonly string[]): Promise<string[]> {
  while (called.length === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  return [...called];
}

Deno.test("Beat calls all its listeners in one waking, and none that has gone", async () => {
  const beat = new Beat(), called: string[] = [];
  const ends = ["reporter", "ticks", "meter"].map((name) => beat.listen(() => called.push(name)));
  beat.listen(() => called.push("gone"))();
  assert.deepEqual(await oneWaking(called), ["reporter", "ticks", "meter"]);
  called.length = 0;
  ends[1]!();
  assert.deepEqual(await oneWaking(called), ["reporter", "meter"]);
  for (const end of ends) end();
});

Deno.test("a listener that is ended by another one is not called any more", async () => {
  const beat = new Beat(), called: string[] = [];
  const endFirst = beat.listen(() => {
    called.push("first");
    endSecond();
  });
  const endSecond = beat.listen(() => called.push("second"));
  assert.deepEqual(await oneWaking(called), ["first"]);
  endFirst();
});

Deno.test("Beat keeps no process alive and has no timer once nobody listens", async () => {
  // The sanitizers of the test runner fail this test if a timer were left.
  const beat = new Beat(), called: string[] = [];
  const end = beat.listen((lateMs) => called.push(lateMs >= 0 ? "in time or late" : "early"));
  assert.deepEqual(await oneWaking(called), ["in time or late"]);
  end();
  end();
  const again = beat.listen(() => called.push("again"));
  called.length = 0;
  assert.deepEqual(await oneWaking(called), ["again"]);
  again();
});
