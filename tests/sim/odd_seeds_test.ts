/** Whole clusters under faults, odd seeds; the other half is in a file of its own. */
import assert from "node:assert/strict";
import { runHalf } from "./seeds.ts";

Deno.test("sim: a cluster keeps all its promises under whatever happens to it, odd seeds", async () => {
  const totals = await runHalf(1);
  // A simulator that does nothing finds nothing.
  const least = {
    applied: 2_000,
    probes: 1_000,
    kills: 40,
    powerLosses: 20,
    elections: 60,
    splits: 50,
    merges: 20,
    transactions: 100,
    abandoned: 5,
    scans: 40,
    scansTooOld: 2,
    copiesAnswered: 200,
    copiesRefused: 400,
    rebuilt: 5,
  };
  for (const [what, count] of Object.entries(least)) {
    assert((totals[what] ?? 0) >= count, `only ${totals[what]} of ${what}`);
  }
});
