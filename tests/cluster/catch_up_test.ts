/**
 * A replica that was away for so long that nobody's log reaches back to where it stopped: it is filled
 * by a checkpoint in chunks, and then by the log. Real processes, under load, with a split meanwhile, and
 * the node that it fetches from is killed in the middle of it. And how long it takes to fill an empty one,
 * and what others notice of it.
 */
import assert from "node:assert/strict";
import { put } from "../../kv/kv.ts";
import { eventually } from "../eventually.ts";
import { percentile } from "../faults/figures.ts";
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

/** PENNCLOUD_TEST_CATCH_UP_MIB=256 for the figure of the goal: in sync after a minute at most. */
const REPLICA_MIB = Number(Deno.env.get("PENNCLOUD_TEST_CATCH_UP_MIB") ?? 48);

/** Four clients read and write until `until` is settled; how long each call took. */
async function served(cluster: TestCluster, until: Promise<unknown>) {
  const reads: number[] = [], writes: number[] = [];
  let running = true;
  const over = until.finally(() => running = false);
  const timed = async (times: number[], call: Promise<unknown>) => {
    const startMs = performance.now();
    await call;
    times.push(performance.now() - startMs);
  };
  const clients = Array.from({ length: 4 }, async (_, client) => {
    for (let i = 0; running; i++) {
      const row = ROWS[(client + i) % ROWS.length]!;
      await timed(reads, cluster.kv.get(row, `c${i % COLUMNS}`));
      await timed(writes, put(cluster.kv, row, `small ${client}`, String(i)));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });
  await Promise.all([over, ...clients]);
  const figures = (times: number[]) => {
    const sorted = times.toSorted((a, b) => a - b);
    return [0.5, 0.99].map((share) => percentile(sorted, share).toFixed(1)).join(" and ");
  };
  return { count: reads.length, text: `gets ${figures(reads)} ms, puts ${figures(writes)} ms` };
}

Deno.test("an empty replica is filled while clients are served", async () => {
  await using cluster = await startCluster({ config: "tests/cluster/busy_disks.toml" });
  const count = Math.ceil(REPLICA_MIB * 1024 * 1024 / VALUE_BYTES);
  let next = 0;
  await Promise.all(Array.from({ length: 8 }, async () => {
    while (next < count) {
      const n = next++, value = new Uint8Array(VALUE_BYTES).fill(n);
      // A third each to the three groups.
      const row = `${"blt"[n % 3]}${n % 30}`;
      await cluster.kv.apply({ row, mutations: [{ kind: "put", column: `v${n}`, value }] });
    }
  }));
  const alone = await served(cluster, new Promise((resolve) => setTimeout(resolve, 3_000)));
  await cluster.kill(AWAY);
  const secondaries = async () =>
    (await statusOf(cluster)).tablets.map((tablet) => tablet.secondaries.length);
  const isOut = async () => (await secondaries()).every((count) => count === 1);
  await eventually(isOut, "it to be taken out", { withinMs: 90_000 });
  await Deno.remove(`${cluster.dir}/${AWAY.replace("/", "-")}`, { recursive: true });
  const startMs = performance.now();
  await cluster.restart(AWAY);
  const inSync = async () => (await secondaries()).every((count) => count === 2);
  const filled = eventually(inSync, "it to be in sync", { withinMs: 300_000, everyMs: 100 });
  const meanwhile = await served(cluster, filled);
  const seconds = (performance.now() - startMs) / 1000;
  console.log(
    `${REPLICA_MIB} MiB in sync after ${seconds.toFixed(1)} s (load ${
      Deno.loadavg()[0]!.toFixed(0)
    }); ` +
      `p50 and p99 alone: ${alone.text}; meanwhile: ${meanwhile.text}`,
  );
  assert(meanwhile.count > 0, "nobody was served");
  await replicasEqual(cluster);
  const values = (await Promise.all(Array.from({ length: 30 }, async (_, i) => {
    const page = await cluster.kv.getRow(`${"blt"[i % 3]}${i}`, {
      prefix: "v",
      keysOnly: true,
      limit: 1000,
    });
    return page.cells.length;
  }))).reduce((sum, cells) => sum + cells, 0);
  assert.equal(values, count);
});
