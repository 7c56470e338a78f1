import assert from "node:assert/strict";
import type { RowOp } from "../../kv/kv.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { eventually } from "../eventually.ts";
import { Figures, percentile } from "./figures.ts";
import { GapProbe, writeProbe } from "./gap_probe.ts";

/** A store whose writes can be held back. */
class HeldKv extends MemoryKv {
  held: PromiseWithResolvers<void> | null = null;

  override async apply(op: RowOp) {
    await this.held?.promise;
    return await super.apply(op);
  }
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

Deno.test("a gap reaches from the last write before it to the first one after it", async () => {
  const kv = new HeldKv(), probe = new GapProbe(writeProbe(kv, "probe"));
  await eventually(() => probe.ackCount > 3, "probes to be answered");
  const heldMs = performance.now();
  kv.held = Promise.withResolvers<void>();
  await sleep(150);
  const middleMs = performance.now();
  await sleep(150);
  assert(probe.longestSince(heldMs).ms >= 250, "it counts while it lasts");
  const before = probe.ackCount;
  kv.held.resolve();
  kv.held = null;
  await eventually(() => probe.ackCount > before, "writes to go on");
  const { ms, fromMs } = probe.longestSince(heldMs);
  assert(ms >= 280, `a gap of ${ms} ms`);
  assert(fromMs <= heldMs + 5);
  const waitMs = probe.waitFrom(middleMs);
  const [slowest = 0] = probe.timesBetween(heldMs, middleMs).sort((a, b) => b - a);
  assert(slowest >= 250 && slowest <= ms + 50, `a write that was held took ${slowest} ms`);
  assert.deepEqual(probe.timesBetween(0, 0), []);
  assert(waitMs >= 140 && waitMs < ms, `${waitMs} ms from the middle of ${ms} ms`);
  await probe.stop();
});

Deno.test("percentiles are samples that were taken, the largest among them", () => {
  const samples = Array.from({ length: 100 }, (_, i) => i + 1);
  assert.equal(percentile(samples, 0.5), 50);
  assert.equal(percentile(samples, 0.99), 99);
  assert.equal(percentile(samples, 1), 100);
  assert.equal(percentile([7], 0.5), 7);
  const figures = new Figures();
  for (const ms of [30, 10, 20]) figures.add("some", ms);
  assert.deepEqual(figures.list(), [{ kind: "some", count: 3, p50Ms: 20, p99Ms: 30, maxMs: 30 }]);
});
