/** Whole clusters under faults, even seeds; the other half is in a file of its own. */
import { runHalf } from "./seeds.ts";

Deno.test("sim: a cluster keeps all its promises under whatever happens to it, even seeds", () =>
  runHalf(2));
