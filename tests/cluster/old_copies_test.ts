/**
 * A data folder is put back to an older state of itself while the others went on, and the others are
 * killed in between, in different orders. The old copy carries the right name and reads back whole; it
 * must neither lead nor count as a member by itself, whoever comes back first, and in the end be filled
 * again without a lost or doubled write.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { eventually } from "../eventually.ts";
import { allHealthy, replicasEqual, statusOf } from "./cluster_calls.ts";
import { copyFolder, quarantineReasons } from "./damage.ts";
import { startCluster, type TestCluster } from "./harness.ts";
import { Workload } from "./workload.ts";

const VICTIM = "backend/1", OTHERS = ["backend/0", "backend/2"];
const ROWS = ["barn", "lamp", "tree"];

const dirOf = (cluster: TestCluster, node: string) => join(cluster.dir, node.replace("/", "-"));

async function restartAll(cluster: TestCluster, nodes: readonly string[]): Promise<void> {
  for (const node of nodes) await cluster.restart(node);
}

/** Copies the victim's folder after a kill -9, and lets the cluster go on for a while with it. */
async function copyAndGoOn(cluster: TestCluster, old: string, workload: Workload): Promise<void> {
  await cluster.kill(VICTIM);
  await copyFolder(dirOf(cluster, VICTIM), old);
  await cluster.restart(VICTIM);
  await cluster.waitReady(VICTIM);
  await allHealthy(cluster);
  await workload.progress(60);
}

async function putBack(cluster: TestCluster, old: string): Promise<void> {
  await Deno.remove(dirOf(cluster, VICTIM), { recursive: true });
  await copyFolder(old, dirOf(cluster, VICTIM));
}

async function untilNoticed(cluster: TestCluster): Promise<void> {
  await eventually(
    async () => {
      const status = await statusOf(cluster).catch(() => null);
      const problem = status?.nodes.find(({ name }) => name === VICTIM)?.problem ?? "";
      const reasons = await quarantineReasons(dirOf(cluster, VICTIM));
      return /older copy/.test(problem) || reasons.some((reason) => /older copy/.test(reason));
    },
    "the older copy to be noticed",
    { withinMs: 90_000, everyMs: 50 },
  );
}

/** What happens between the last write and the return of the others, by name. */
const ORDERS: readonly [
  name: string,
  play: (cluster: TestCluster, old: string) => Promise<void>,
][] = [
  ["the old copy comes back first, and alone", async (cluster, old) => {
    for (const node of [VICTIM, ...OTHERS]) await cluster.kill(node);
    await putBack(cluster, old);
    await cluster.restart(VICTIM);
    await untilNoticed(cluster);
    const { tablets } = await statusOf(cluster);
    assert(tablets.every(({ state }) => state === "unavailable"), "it must not lead");
    await restartAll(cluster, OTHERS);
  }],
  ["one of the others was killed before the copy came back, and the last one after it", async (
    cluster,
    old,
  ) => {
    await cluster.kill("backend/0");
    await cluster.kill(VICTIM);
    await putBack(cluster, old);
    await cluster.restart(VICTIM);
    await cluster.kill("backend/2");
    await cluster.restart("backend/0");
    await untilNoticed(cluster);
    await cluster.restart("backend/2");
  }],
  ["the coordinator is killed too and comes back after the copy", async (cluster, old) => {
    for (const node of [...OTHERS, VICTIM, "coordinator/0"]) await cluster.kill(node);
    await putBack(cluster, old);
    await cluster.restart(VICTIM);
    await cluster.waitAnswering(VICTIM);
    await cluster.restart("coordinator/0");
    await untilNoticed(cluster);
    await restartAll(cluster, [...OTHERS].reverse());
  }],
  ["it is put back while the coordinator is away, and another dies before that is back", async (
    cluster,
    old,
  ) => {
    await cluster.kill("coordinator/0");
    await cluster.kill(VICTIM);
    await putBack(cluster, old);
    await cluster.restart(VICTIM);
    await cluster.waitAnswering(VICTIM);
    await cluster.kill("backend/0");
    await cluster.restart("coordinator/0");
    await untilNoticed(cluster);
    await cluster.restart("backend/0");
  }],
];

Deno.test("an old copy of a folder is noticed and filled again, in whatever order the others die and return", async (t) => {
  await using cluster = await startCluster({ config: "tests/cluster/busy_disks.toml" });
  for (const [name, play] of ORDERS) {
    await t.step(name, async () => {
      const old = await Deno.makeTempDir({ prefix: "penncloud-old-" });
      const rows = ROWS.map((row) => `${row} ${name}`);
      const workload = new Workload(cluster.kv, { writers: 2, rows });
      await workload.progress(40);
      await copyAndGoOn(cluster, old, workload);
      await play(cluster, old);
      await cluster.waitReady(VICTIM);
      await allHealthy(cluster);
      await workload.stop();
      await replicasEqual(cluster);
      await workload.check();
      await Deno.remove(old, { recursive: true });
    });
  }
});
