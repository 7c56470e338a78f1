import assert from "node:assert/strict";
import {
  bytesText,
  jsonOf,
  numberText,
  ratioLines,
  type Row,
  spreadText,
  tableLines,
} from "../../bench/report.ts";
import { geometricMean, ratiosOf, spreadOf } from "../../bench/statistics.ts";

Deno.test("several runs are told as median, smallest and largest", () => {
  assert.deepEqual(spreadOf([5, 1, 9]), { median: 5, min: 1, max: 9 });
  assert.deepEqual(spreadOf([4, 1, 2, 3]), { median: 2.5, min: 1, max: 4 });
  assert.throws(() => spreadOf([]), /nothing/);
});

Deno.test("ratios are taken round by round", () => {
  // Both were slowed down in the second round alike: the ratio does not show it.
  assert.deepEqual(ratiosOf([100, 10, 120], [50, 5, 40]), { median: 2, min: 2, max: 3 });
  assert.throws(() => ratiosOf([1], [1, 2]), /Every round/);
});

Deno.test("twice as fast and half as fast are equal on the whole", () => {
  assert.ok(Math.abs(geometricMean([2, 0.5]) - 1) < 1e-12);
});

const ROW: Row = { system: "penncloud", case: "put", rate: spreadOf([1_234.5]), unit: "op/s" };

Deno.test("a table shows only columns that some row fills, and a dash where one does not", () => {
  const lines = tableLines([
    { ...ROW, p50Ms: 1.234, more: { "files": 7 } },
    { ...ROW, system: "etcd", rate: spreadOf([10, 20, 30]) },
  ]);
  assert.deepEqual(lines, [
    "case  system                   rate  p50 ms  files",
    "put   penncloud           1235 op/s    1.23      7",
    "put   etcd       20 [10 to 30] op/s       -      -",
  ]);
});

Deno.test("numbers are told with three digits and no more than they have", () => {
  assert.deepEqual([1234.5, 99.95, 0.123456, 2, 0].map(numberText), [
    "1235",
    "100",
    "0.123",
    "2",
    "0",
  ]);
  assert.deepEqual([100, 2048, 1.5 * 1024 ** 2, 3 * 1024 ** 4].map(bytesText), [
    "100 B",
    "2 KiB",
    "1.5 MiB",
    "3072 GiB",
  ]);
  assert.equal(spreadText(spreadOf([1, 2, 3])), "2 [1 to 3]");
});

const PEERS = [
  { system: "etcd", case: "put, 1 outstanding", ratio: spreadOf([2]) },
  { system: "etcd", case: "put, 64 outstanding", ratio: spreadOf([7, 8, 9]) },
  { system: "redis", case: "put, 1 outstanding", ratio: spreadOf([0.5]) },
];

Deno.test("ratios are told with the case that they are of", () => {
  assert.deepEqual(ratioLines(PEERS).slice(0, 2), [
    "ratio to etcd: 2.00x  (put, 1 outstanding)",
    "ratio to etcd: 8.00x [7.00 to 9.00]  (put, 64 outstanding)",
  ]);
});

Deno.test("the JSON line has the rows, and for each peer one ratio over all cases", () => {
  const line = jsonOf("put", { cores: 2 }, { rows: [ROW], peers: PEERS, notes: ["a note"] });
  assert.doesNotMatch(line, /\n/);
  const result = JSON.parse(line);
  assert.equal(result.bench, "put");
  assert.deepEqual(result.rows, [ROW]);
  assert.deepEqual(result.ratio, { etcd: 4, redis: 0.5 });
  assert.deepEqual(result.peers.map((peer: { ratio: number }) => peer.ratio), [2, 8, 0.5]);
  assert.deepEqual(result.notes, ["a note"]);
});
