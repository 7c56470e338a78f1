/**
 * Every deliberate bug is found: tests that find none prove nothing. Each is tried with its directed
 * test, or with the seed that once found it; when the store has changed so that this run goes another
 * way, with others.
 */
import assert from "node:assert/strict";
import { type MutantName, mutated } from "../../kv/mutant.ts";
import { directedFailure } from "./directed_tests.ts";
import { failureOf } from "./failing_seed.ts";
import { findMutant, type MutantInfo, MUTANTS } from "./mutants.ts";

const SEEDS_MAX = 60;

Deno.test("every deliberate bug is found by a seed of the simulator or by a directed test", async (t) => {
  for (const [name, { breaks }] of Object.entries<MutantInfo>(MUTANTS)) {
    await t.step(`${name}: ${breaks}`, async () => {
      const found = await findMutant(name as MutantName, SEEDS_MAX);
      assert(found !== null, `neither among ${SEEDS_MAX} seeds nor by a directed test`);
    });
  }
});

Deno.test("a deliberate bug is off again after its run", async () => {
  assert(await failureOf({ seed: 1, mutant: "ack-before-fsync" }) !== null);
  assert.equal(mutated("ack-before-fsync"), false);
  const { test } = MUTANTS["no-boot-wait"];
  assert(await directedFailure(test!, "no-boot-wait") !== null);
  assert.equal(mutated("no-boot-wait"), false);
});

Deno.test("sim --mutant of a bug that seeds do not find names the test that does, and ends at once", async () => {
  const run = new URL("run.ts", import.meta.url).pathname;
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--config", "tests/deno.json", run, "--mutant=no-boot-wait"],
    cwd: new URL("../..", import.meta.url).pathname,
  }).output();
  const said = new TextDecoder().decode(stdout);
  assert.equal(code, 0, said);
  assert(said.includes(MUTANTS["no-boot-wait"].test!.name), said);
});
