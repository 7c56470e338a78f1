import assert from "node:assert/strict";
import { addCosts, cpuSecondsFromStat, machineFromStat } from "../../bench/measure.ts";
import { shareOut } from "../../bench/load/load_fleet.ts";
import { closedLoop } from "../../bench/load/closed_loop.ts";

Deno.test("processor time is found behind any process name", () => {
  const rest = "S 1 2 3 0 -1 4194560 5 6 7 8 1250 250 9 10 20 0";
  assert.equal(cpuSecondsFromStat(`42 (deno) ${rest}`), 15);
  assert.equal(cpuSecondsFromStat(`42 (a) b (c d) ${rest}`), 15);
});

Deno.test("a waiting disk counts as idle, stolen time as busy", () => {
  const line = "cpu  100 0 50 700 100 10 20 20 5 5\ncpu0 1 2 3";
  assert.deepEqual(machineFromStat(line), { busySeconds: 2, allSeconds: 10 });
});

Deno.test("costs add up, and are unknown where one of them is", () => {
  const one = { cpuSeconds: 1, peakBytes: 10, writtenBytes: 5 };
  assert.deepEqual(addCosts([one, one]), { cpuSeconds: 2, peakBytes: 20, writtenBytes: 10 });
  assert.equal(addCosts([one, { ...one, writtenBytes: null }]).writtenBytes, null);
});

Deno.test("outstanding requests are shared out evenly, and none is lost", () => {
  assert.deepEqual(shareOut(64, 1), [64]);
  assert.deepEqual(shareOut(5, 2), [3, 2]);
  assert.deepEqual(shareOut(1, 3), [1, 0, 0]);
});

Deno.test("a closed loop keeps as many requests under way as it was told, and counts them", async () => {
  let underWay = 0, most = 0, asked = 0;
  const { latencies, seconds } = await closedLoop(async () => {
    asked += 1;
    most = Math.max(most, ++underWay);
    await new Promise((resolve) => setTimeout(resolve, 1));
    underWay -= 1;
  }, { outstanding: 7, seconds: 0.05 });
  assert.equal(most, 7);
  assert.equal(latencies.count, asked);
  assert.ok(seconds >= 0.05);
});

Deno.test("a failing operation fails the whole run", async () => {
  const failing = closedLoop(() => Promise.reject(new Error("no")), { outstanding: 2, seconds: 1 });
  await assert.rejects(failing, /no/);
});
