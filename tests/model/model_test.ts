/**
 * The core model in random runs, enough for every commit: no run breaks a promise, and each wrong rule
 * is found by a seed that was once found for it. When the model or the mixture of actions changes,
 * `deno task model --mutants --runs 200000` finds new ones.
 */
import assert from "node:assert/strict";
import { runCampaign } from "./campaign.ts";
import { runModel } from "./explore.ts";
import { type MutantName, MUTANTS } from "./mutants.ts";

const RUNS = 100_000;

/** A seed that finds each, and the invariant that breaks there; null: chance never did, see directed_test.ts. */
const FOUND_BY: Readonly<Record<MutantName, readonly [seed: number, invariant: string] | null>> = {
  "ack-before-fsync": [31, "S1"],
  "own-fsync-not-counted": [1, "S1"],
  "own-reign-not-durable": null,
  "commit-below-minimum": [5, "S1"],
  "add-not-counted": [20, "S1"],
  "match-without-epoch": [17, "S2"],
  "unverified-log-applied": [17, "S2"],
  "non-member-elected": [2, "S1"],
  "eligible-not-cleared": [1, "S1"],
  "older-epochs-accepted": [78, "A4"],
  "reign-not-restarted": [1140, "S1"],
  "reign-not-checked": [19317, "S1"],
  "epoch-reused-after-restart": [241, "S2"],
  "proposal-epoch-not-checked": [181, "S1"],
  "no-lease": [275, "S3"],
  "lease-without-eligible": null,
  "lease-without-pending-add": [5125, "S3"],
  "lease-from-receipt": [1814, "S3"],
  "short-grace": [736, "S3"],
  "no-boot-wait": null,
  "promises-ignored": [507, "S3"],
  "silence-is-death": [1121, "S3"],
  "death-voids-all-promises": [19907, "S3"],
  "relinquished-serves": null,
  "epoch-start-not-awaited": [24, "S3"],
  "round-begun-before": [2021, "S3"],
  "record-looked-up-before": [6938, "S3"],
  "limbo-ignored": [53, "S3"],
  "unknown-change-is-refused": [41, "S1"],
  "refusal-without-fence": [20, "S1"],
};

Deno.test(`model: ${RUNS} random runs break no promise`, async () => {
  const { runs, violations, stats, seconds, steps } = await runCampaign({ runs: RUNS });
  console.log(`${steps} steps in ${seconds.toFixed(0)} s; ${JSON.stringify(stats)}`);
  assert.deepEqual(violations, []);
  assert.equal(runs, RUNS);
  // A model in which nothing happens finds nothing.
  for (const [name, count] of Object.entries(stats)) {
    assert(count > RUNS / 10, `only ${count} ${name}`);
  }
});

Deno.test("model: the same seed gives the same run", () => {
  for (const seed of [5, 77, 4_000]) assert.deepEqual(runModel({ seed }), runModel({ seed }));
});

for (const mutant of Object.keys(MUTANTS) as MutantName[]) {
  const found = FOUND_BY[mutant];
  if (found === null) continue;
  const [seed, invariant] = found;
  Deno.test(`model: finds it when ${MUTANTS[mutant]} (${mutant})`, () => {
    const { violation } = runModel({ seed, mutant });
    assert.equal(violation?.slice(0, 2), invariant, violation ?? "nothing broke");
    assert.equal(runModel({ seed }).violation, null);
  });
}
