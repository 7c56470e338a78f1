/** Whole clusters under faults, odd seeds; the other half is in a file of its own. */
import { runHalf } from "./seeds.ts";

Deno.test("sim: a cluster keeps all its promises under whatever happens to it, odd seeds", () =>
  runHalf(1));
