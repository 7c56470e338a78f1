/** Bytes in the background, on a clock in a variable. */
import assert from "node:assert/strict";
import type { Env } from "../../kv/env.ts";
import { Pacer } from "../../roles/pacer.ts";

function pacerOf(bytesPerSecond: number) {
  const time = { nowMs: 1_000 };
  const env = {
    monotonicMs: () => time.nowMs,
    sleep: (ms: number) => Promise.resolve(void (time.nowMs += ms)),
  } as unknown as Env;
  return { pacer: new Pacer({ env, bytesPerSecond }), time };
}

Deno.test("Pacer keeps to its rate, whatever the pieces", async () => {
  const { pacer, time } = pacerOf(1_000_000);
  for (const bytes of [...Array(100).fill(10_000), 4_000_000, 1]) await pacer.spend(bytes);
  // What it allows after a pause, a tenth of a second's worth, was used at the start.
  assert(Math.abs(time.nowMs - 1_000 - 4_900) < 20, `${time.nowMs}`);
});

Deno.test("Pacer does not save up what was not used", async () => {
  const { pacer, time } = pacerOf(1_000_000);
  await pacer.spend(100_000);
  time.nowMs += 60_000;
  const startMs = time.nowMs;
  for (let i = 0; i < 10; i++) await pacer.spend(100_000);
  assert(time.nowMs - startMs >= 800, `${time.nowMs - startMs}`);
});

Deno.test("Pacer lets nobody past those who came before", async () => {
  const time = { nowMs: 0 }, waits: number[] = [];
  const env = {
    monotonicMs: () => time.nowMs,
    sleep: (ms: number) => Promise.resolve(void waits.push(ms)),
  } as unknown as Env;
  const pacer = new Pacer({ env, bytesPerSecond: 1_000 });
  await Promise.all(Array.from({ length: 4 }, () => pacer.spend(1_000)));
  assert.deepEqual(waits, [900, 1_900, 2_900]);
});
