import assert from "node:assert/strict";
import { keyName, uniformKeys, zipfianKeys } from "../../bench/load/key_choice.ts";
import { SeededRandom } from "../sim/seeded_random.ts";

const DRAWS = 200_000;

function countDraws(draw: () => number, keyCount: number): number[] {
  const counts = new Array<number>(keyCount).fill(0);
  for (let n = 0; n < DRAWS; n++) counts[draw()]! += 1;
  return counts;
}

Deno.test("zipfian keys: the nth is wanted as often as 1/n^0.99 of the first", () => {
  const keyCount = 1_000, counts = countDraws(zipfianKeys(keyCount, new SeededRandom(4)), keyCount);
  const zeta = Array.from({ length: keyCount }, (_, n) => 1 / (n + 1) ** 0.99)
    .reduce((sum, each) => sum + each, 0);
  // Gray's approximation is exact for the first two and within a tenth over ranges of the others.
  const shareOf = (from: number, until: number) =>
    counts.slice(from, until).reduce((sum, each) => sum + each, 0) / DRAWS;
  const expected = (from: number, until: number) => {
    let sum = 0;
    for (let n = from; n < until; n++) sum += 1 / (n + 1) ** 0.99 / zeta;
    return sum;
  };
  for (const [from, until] of [[0, 1], [1, 2], [2, 10], [10, 100], [100, 1_000]] as const) {
    const off = shareOf(from, until) / expected(from, until);
    assert.ok(off > 0.85 && off < 1.15, `keys ${from} to ${until}: ${off.toFixed(3)} times`);
  }
});

Deno.test("uniform keys: all are wanted, none twice as often as another", () => {
  const counts = countDraws(uniformKeys(100, new SeededRandom(4)), 100);
  assert.ok(Math.min(...counts) > 0 && Math.max(...counts) < 2 * Math.min(...counts));
});

Deno.test("one key alone can be chosen from", () => {
  for (const keys of [uniformKeys(1, new SeededRandom(1)), zipfianKeys(1, new SeededRandom(1))]) {
    for (let n = 0; n < 100; n++) assert.equal(keys(), 0);
  }
});

Deno.test("names differ, and spread evenly over the letters unless one group is wanted", () => {
  const names = Array.from({ length: 26_000 }, (_, n) => keyName(n, "all"));
  assert.equal(new Set(names).size, names.length);
  const byLetter = Map.groupBy(names, (name) => name[0]!);
  assert.equal(byLetter.size, 26);
  for (const [letter, { length }] of byLetter) {
    assert.ok(length > 800 && length < 1_200, `${length} begin with ${letter}`);
  }
  for (let n = 0; n < 100; n++) assert.ok(keyName(n, "one").startsWith("a/"));
});
