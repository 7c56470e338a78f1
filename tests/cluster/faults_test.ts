/**
 * A short campaign of faults: `deno task faults` with the seed below, so that what fails here can be
 * run again; other seeds are for longer campaigns. What is asserted is safety: nothing lost, doubled or
 * invented, every history linearizable, all replicas equal in the end; and that no operation fails
 * because of what nobody may notice, a drain for example. How long things took is printed.
 */
import assert from "node:assert/strict";
import { runCampaign } from "../faults/campaign.ts";
import { failureText, resultLines } from "../faults/campaign_text.ts";
import { possibleNemeses } from "../faults/nemeses.ts";
import { WORKLOADS } from "../faults/workloads.ts";

const seed = Number(Deno.env.get("PENNCLOUD_TEST_FAULTS_SEED") ?? 1);
const SECONDS = Number(Deno.env.get("PENNCLOUD_TEST_FAULTS_SECONDS") ?? 45);

Deno.test("whatever fails, alone or together, nothing acknowledged is lost and clients see one history", async () => {
  const { nemeses, leftOut } = await possibleNemeses();
  for (const line of leftOut) console.log(line);
  const result = await runCampaign({
    seed,
    durationMs: SECONDS * 1_000,
    backends: 3,
    nemeses,
    workloads: WORKLOADS,
    onEvent: () => {},
  });
  for (const line of resultLines(result)) console.log(line);
  const again = `deno task faults --seed ${seed} --duration ${SECONDS}s`;
  assert(result.violations.length === 0, failureText(result, again));
});
