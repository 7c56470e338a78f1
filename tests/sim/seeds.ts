/** What the tests of the simulator have in common. */
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

/** Every second seed, in a file of their own each, so that two run at once. */
export async function runHalf(first: 1 | 2): Promise<Record<string, number>> {
  const totals: Record<string, number> = {};
  for (let seed = first; seed <= SEEDS; seed += 2) {
    const { counts } = await runSeed({ seed });
    for (const [name, value] of Object.entries(counts)) totals[name] = (totals[name] ?? 0) + value;
  }
  return totals;
}
