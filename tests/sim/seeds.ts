/** What the tests of the simulator have in common. */
import assert from "node:assert/strict";
import { ClusterSim, type SimOptions, type SimResult } from "./cluster_sim.ts";
import { describeFailure, failureOf } from "./failing_seed.ts";

/** Runs one seed. @throws when a promise was broken, with all that is needed to look into it */
export async function runSeed(options: SimOptions): Promise<SimResult> {
  try {
    return await new ClusterSim(options).run();
  } catch (error) {
    const failure = await failureOf(options);
    const what = failure === null ? "and not when run again" : describeFailure(failure);
    throw new Error(`${(error as Error).message}\n${what}`, { cause: error });
  }
}

/** More of them where there is time: `deno task sim --seeds N`, or this variable. */
const SEEDS = Number(Deno.env.get("PENNCLOUD_TEST_SIM_SEEDS") ?? 80);

/** Of each half of the seeds: a simulator that does nothing finds nothing. */
const LEAST = {
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
  moved: 15,
  appendsCut: 5,
};

/** Every second seed, in a file of their own each, so that two run at once. */
export async function runHalf(first: 1 | 2): Promise<void> {
  const totals: Record<string, number> = {};
  for (let seed = first; seed <= SEEDS; seed += 2) {
    const { counts } = await runSeed({ seed });
    for (const [name, value] of Object.entries(counts)) totals[name] = (totals[name] ?? 0) + value;
  }
  for (const [what, count] of Object.entries(LEAST)) {
    assert((totals[what] ?? 0) >= count, `only ${totals[what]} of ${what}`);
  }
}
