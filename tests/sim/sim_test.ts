/**
 * The simulated cluster on a few dozen seeds, quick enough for every commit. A failing seed prints
 * what happened last; `deno task sim --start SEED --seeds 1` replays it.
 */
import assert from "node:assert/strict";
import { GroupSim, type SimOptions } from "./group_sim.ts";

function runSeed(options: SimOptions) {
  const sim = new GroupSim(options);
  try {
    return sim.run();
  } catch (error) {
    console.error(sim.trace.slice(-60).join("\n"));
    throw new Error(`seed ${options.seed}: ${(error as Error).message}`, { cause: error });
  }
}

Deno.test("sim: no acknowledged write is lost, doubled or forked under crashes, cuts and pauses", () => {
  let acked = 0, elections = 0;
  for (let seed = 1; seed <= 40; seed++) {
    const result = runSeed({ seed });
    acked += result.acked;
    elections += result.elections;
  }
  // A simulator that does nothing finds nothing.
  assert(acked > 4_000, `only ${acked} writes were acknowledged`);
  assert(elections > 100, `only ${elections} elections`);
});

Deno.test("sim: the same seed gives the same trace", () => {
  for (const seed of [3, 17]) {
    assert.equal(runSeed({ seed }).traceHash, runSeed({ seed }).traceHash);
  }
});
