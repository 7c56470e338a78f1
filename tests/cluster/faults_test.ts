/**
 * A short campaign of faults on every run of the tests: `deno task faults` with a seed of its own each
 * time. What is asserted is safety: nothing lost, doubled or invented, every history linearizable, all
 * replicas equal in the end. How long things took is printed.
 */
import assert from "node:assert/strict";
import { runCampaign } from "../faults/campaign.ts";
import { failureText, resultLines } from "../faults/campaign_text.ts";
import { possibleNemeses } from "../faults/nemeses.ts";
import { WORKLOADS } from "../faults/workloads.ts";

const SECONDS = Number(Deno.env.get("PENNCLOUD_TEST_FAULTS_SECONDS") ?? 90);

Deno.test("whatever fails, alone or together, nothing acknowledged is lost and clients see one history", async () => {
  const seed = 1 + Math.floor(Math.random() * 1_000_000);
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
