/**
 * Clocks that are wrong by more than leases allow for. With leases a stale read is then to be expected,
 * and the simulator sees it; in clock-free mode the same seeds have none.
 */
import assert from "node:assert/strict";
import { failureOf } from "./failing_seed.ts";
import { LONG_LEASES, MUTANTS } from "./mutants.ts";

Deno.test("sim: clocks beyond their bound make leases lie, and read_mode confirm does not mind", async () => {
  const mutant = "clocks-beyond-bound", seed = MUTANTS[mutant].seed!;
  for (const candidate of [seed, seed + 1]) {
    const options = { seed: candidate, mutant } as const;
    const shape = { ...LONG_LEASES, readMode: "confirm" } as const;
    assert.equal(await failureOf({ ...options, shape }), null, `seed ${candidate}`);
  }
});
