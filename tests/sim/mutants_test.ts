/**
 * The simulator finds deliberate bugs: a simulator that finds none proves nothing. Each is tried with
 * the seed that once found it; when the store has changed so that this run goes another way, with
 * others.
 */
import assert from "node:assert/strict";
import { mutated } from "../../kv/mutant.ts";
import { failureOf } from "./failing_seed.ts";
import { findMutant, type MutantInfo, MUTANTS } from "./mutants.ts";

const SEEDS_MAX = 60;

Deno.test("sim: deliberate bugs are found", async (t) => {
  const all = Object.entries(MUTANTS) as [keyof typeof MUTANTS, MutantInfo][];
  for (const [name, { breaks, seed }] of all) {
    if (seed === undefined) continue;
    await t.step(`${name}: ${breaks}`, async () => {
      assert(await findMutant(name, SEEDS_MAX) !== null, `not among ${SEEDS_MAX} seeds`);
    });
  }
});

Deno.test("sim: a deliberate bug is off again after its run", async () => {
  assert(await failureOf({ seed: 1, mutant: "ack-before-fsync" }) !== null);
  assert.equal(mutated("ack-before-fsync"), false);
});
