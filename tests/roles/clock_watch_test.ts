import assert from "node:assert/strict";
import { ClockWatch, systemUptimeMs } from "../../roles/clock_watch.ts";

Deno.test("ClockWatch notices time that passed for the machine but not for our clock", () => {
  let uptimeMs = 500_000, nowMs = 20;
  const watch = new ClockWatch(() => uptimeMs, () => nowMs);
  uptimeMs += 1_000;
  nowMs += 1_010;
  assert.equal(watch.sleptMs(), 0, "clocks tick in steps");
  uptimeMs += 61_000;
  nowMs += 1_000;
  assert.equal(Math.round(watch.sleptMs()), 60_000);
  uptimeMs += 1_000;
  nowMs += 1_000;
  assert.equal(watch.sleptMs(), 0, "once is enough");
});

Deno.test("ClockWatch says nothing where the system does not tell its uptime", () => {
  const watch = new ClockWatch(() => null, () => 0);
  assert.equal(watch.sleptMs(), 0);
});

Deno.test("systemUptimeMs() and the monotonic clock run at the same rate", () => {
  const watch = new ClockWatch(systemUptimeMs, () => performance.now());
  assert.equal(watch.sleptMs(), 0);
});
