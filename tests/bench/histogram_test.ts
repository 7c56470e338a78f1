import assert from "node:assert/strict";
import fc from "fast-check";
import { Histogram } from "../../bench/load/histogram.ts";

Deno.test("a quantile is within 1.6 percent, or a microsecond, of the exact one", () => {
  const latencies = fc.array(fc.double({ min: 0, max: 60_000, noNaN: true }), { minLength: 1 });
  fc.assert(fc.property(latencies, fc.double({ min: 0, max: 1, noNaN: true }), (values, share) => {
    const histogram = new Histogram();
    for (const value of values) histogram.record(value);
    const sorted = values.toSorted((a, b) => a - b);
    const exact = sorted[Math.max(1, Math.ceil(share * values.length)) - 1]!;
    const found = histogram.quantileMs(share);
    assert.ok(Math.abs(found - exact) <= Math.max(0.001, exact * 0.016), `${found} for ${exact}`);
  }));
});

Deno.test("histograms add up to the histogram of all values, by way of JSON", () => {
  const whole = new Histogram(), parts = [new Histogram(), new Histogram(), new Histogram()];
  for (let n = 0; n < 5_000; n++) {
    const ms = (n * 7919 % 5_000) ** 2 / 1e4;
    whole.record(ms);
    parts[n % 3]!.record(ms);
  }
  const merged = Histogram.merge(parts.map((part) => JSON.parse(JSON.stringify(part.parts()))));
  assert.equal(merged.count, 5_000);
  assert.equal(merged.maxMs, whole.maxMs);
  assert.ok(Math.abs(merged.meanMs - whole.meanMs) < 1e-6);
  for (const share of [0, 0.5, 0.99, 1]) {
    assert.equal(merged.quantileMs(share), whole.quantileMs(share));
  }
});

Deno.test("an empty histogram has no latency, and one beyond an hour is counted", () => {
  const histogram = new Histogram();
  assert.deepEqual([histogram.count, histogram.quantileMs(0.5), histogram.meanMs], [0, 0, 0]);
  histogram.record(10 ** 9);
  assert.equal(histogram.count, 1);
  assert.equal(histogram.maxMs, 10 ** 9);
});
