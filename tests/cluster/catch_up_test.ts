/**
 * A replica that was away for so long that nobody's log reaches back to where it stopped: it is filled
 * by a checkpoint in chunks, and then by the log. Real processes, under load, with a split meanwhile, and
 * the node that it fetches from is killed in the middle of it.
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { allHealthy, metricOf, primaryOf, replicasEqual, statusOf } from "./cluster_calls.ts";
import { startCluster, type TestCluster } from "./harness.ts";
import { Workload } from "./workload.ts";

const AWAY = "backend/2";
const VALUE_BYTES = 60_000, COLUMNS = 40, ROWS = ["la", "lb", "lc", "ld", "le", "lf", "lg", "lh"];
/** Two segments of the log and more: one is kept for those who lag, the others may go. */
const LOG_BYTES = 150 * 1024 * 1024;

/** Writes the same cells over and over until the log has taken so much. */
async function fillLog(cluster: TestCluster): Promise<void> {
  const count = Math.ceil(LOG_BYTES / VALUE_BYTES);
  let next = 0;
  const write = async () => {
    while (next < count) {
      const n = next++;
      const value = new Uint8Array(VALUE_BYTES).fill(n);
      const row = ROWS[n % ROWS.length]!, column = `c${n % COLUMNS}`;
      const mutations = [{ kind: "put" as const, column, value }];
      await cluster.kv.apply({ row, mutations }, { deadlineMs: 60_000 });
    }
  };
  await Promise.all(Array.from({ length: 8 }, write));
}

async function eventsOf(cluster: TestCluster, event: string): Promise<number> {
  return (await cluster.log(AWAY)).split(`"event":"${event}"`).length - 1;
}

Deno.test("a replica that was away for longer than the log reaches back is filled by checkpoints, though they break off", async () => {
  await using cluster = await startCluster({ config: "tests/cluster/busy_disks.toml" });
  const workload = new Workload(cluster.kv, { writers: 2, rows: ["barn", "lamp", "tree"] });
  await workload.progress(50);
  await cluster.kill(AWAY);
  await fillLog(cluster);
  const split = await cluster.penncloud(["admin", "split", "ld"]);
  assert.equal(split.code, 0, split.stderr);
  const donor = await primaryOf(cluster, "lamp"), donorPid = await cluster.pidOf(donor);
  await eventually(
    async () => await metricOf(cluster, donor, "penncloud_log_bytes") < LOG_BYTES * 0.9,
    "the old part of the log to go",
    { withinMs: 60_000, everyMs: 100 },
  );
  await cluster.restart(AWAY);
  await eventually(
    async () => await eventsOf(cluster, "fetching a checkpoint") > 0,
    "it to fetch a checkpoint",
    { withinMs: 90_000, everyMs: 5 },
  );
  Deno.kill(donorPid, "SIGKILL");
  await workload.progress(50);
  await cluster.waitReady(AWAY);
  await allHealthy(cluster);
  await workload.stop();
  await replicasEqual(cluster);
  await workload.check();
  const fetched = await eventsOf(cluster, "fetching a checkpoint");
  const installed = await eventsOf(cluster, "installed a checkpoint");
  console.log(`${fetched} checkpoints begun, ${installed} installed`);
  assert(installed >= 1 && fetched >= installed);
  const { tablets } = await statusOf(cluster);
  assert(tablets.some(({ startKey }) => startKey === "ld"), "the split is there");
});
