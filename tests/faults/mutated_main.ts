/**
 * The program with one deliberate bug (kv/mutant.ts), named by PENNCLOUD_TEST_MUTANT. A supervisor
 * starts its nodes by the module that it was started by itself, so they all have the bug.
 */
import { armMutant, type MutantName } from "../../kv/mutant.ts";
import { main } from "../../main.ts";

armMutant(Deno.env.get("PENNCLOUD_TEST_MUTANT") as MutantName);
Deno.exit(await main(Deno.args));
