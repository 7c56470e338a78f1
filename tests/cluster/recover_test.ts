/**
 * What is left to a person: the coordinator's records are lost, or every complete copy of a group is.
 * Each command says what it would do, refuses where it would do harm, and leaves a trace.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { KvError } from "../../kv/errors.ts";
import { decodeText, put } from "../../kv/kv.ts";
import { eventually } from "../eventually.ts";
import { allHealthy, primaryOf, replicasEqual, statusOf } from "./cluster_calls.ts";
import { quarantineReasons } from "./damage.ts";
import { startCluster, type TestCluster } from "./harness.ts";
import { Workload } from "./workload.ts";

const CONFIG = "tests/cluster/busy_disks.toml";
const ROWS = ["barn", "lamp", "tree"];

/** Every backend is there; one that has just started may still be too slow to answer. */
async function recoverMeta(cluster: TestCluster) {
  let done = { code: -1, stdout: "", stderr: "" };
  await eventually(
    async () => {
      done = await cluster.penncloud(["admin", "recover-meta", "--json"]);
      return !/does not answer/.test(done.stderr);
    },
    "all backends to answer",
    { withinMs: 90_000, everyMs: 200 },
  );
  assert.equal(done.code, 0, done.stderr);
  return done;
}

async function problems(cluster: TestCluster): Promise<string> {
  return (await statusOf(cluster)).problems.join("\n");
}

Deno.test("lost records of the coordinator are noticed, named, and made anew from all nodes or not at all", async () => {
  await using cluster = await startCluster({ config: CONFIG });
  const workload = new Workload(cluster.kv, { writers: 3 });
  await workload.progress(100);
  await cluster.kill("coordinator/0");
  await Deno.remove(join(cluster.dir, "coordinator-0"), { recursive: true });
  await cluster.restart("coordinator/0");
  await eventually(
    async () => /admin recover-meta/.test(await problems(cluster).catch(() => "")),
    "the coordinator to say what to do",
    { withinMs: 90_000 },
  );
  await workload.progress(100);

  await cluster.kill("backend/2");
  const refused = await cluster.penncloud(["admin", "recover-meta"]);
  assert.equal(refused.code, 3);
  assert.match(refused.stderr, /backend\/2 does not answer/);
  await cluster.restart("backend/2");
  await cluster.waitAnswering("backend/2");

  const done = await recoverMeta(cluster);
  const { groups } = JSON.parse(done.stdout);
  assert.equal(groups.length, 3);
  assert(groups.every(({ was, epoch }: { was: number; epoch: number }) => was === 0 && epoch >= 3));
  await allHealthy(cluster);
  await cluster.crash(await primaryOf(cluster, "lamp"));
  await workload.progress(100);
  await allHealthy(cluster);
  await workload.stop();
  await replicasEqual(cluster);
  await workload.check();
  const again = await cluster.penncloud(["admin", "recover-meta", "--json"]);
  const after = JSON.parse(again.stdout).groups;
  assert(
    after.every(({ was, epoch }: { was: number; epoch: number }) => was === epoch),
    "harmless",
  );
});

Deno.test("a forced primary serves what it has, the others begin anew, and the loss is on record", async () => {
  await using cluster = await startCluster({ config: CONFIG });
  const { kv } = cluster;
  for (const row of ROWS) await put(kv, row, "old", "kept");
  await cluster.kill("backend/2");
  for (const row of ROWS) await put(kv, row, "new", "acknowledged by the others");
  await Promise.all([cluster.kill("backend/0"), cluster.kill("backend/1")]);
  await cluster.restart("backend/2");
  await cluster.waitAnswering("backend/2");
  await assert.rejects(kv.get("lamp", "old", { deadlineMs: 3_000 }), "it must not lead by itself");

  const unsaid = await cluster.penncloud(["admin", "force-primary", "2", "backend/2"]);
  assert.equal(unsaid.code, 2);
  assert.match(unsaid.stderr, /gone for ever.*--accept-data-loss/);
  const unknown = await cluster.penncloud(["admin", "force-primary", "9", "backend/2"]);
  assert.match(unknown.stderr, /expected one of 1, 2, 3/);
  const force = (group: string, node: string) =>
    cluster.penncloud(["admin", "force-primary", group, node, "--accept-data-loss"]);
  const down = await force("2", "backend/0");
  assert.notEqual(down.code, 0);
  assert.match(down.stderr, /has to be a member of that group that reports/);
  for (const group of ["1", "2", "3"]) {
    let forced = { code: -1, stderr: "" };
    await eventually(
      async () => {
        forced = await force(group, "backend/2");
        return !/has to be a member of that group that reports/.test(forced.stderr);
      },
      "backend/2 to have reported",
      { withinMs: 90_000, everyMs: 200 },
    );
    assert.equal(forced.code, 0, forced.stderr);
  }
  const { losses } = await statusOf(cluster);
  assert.equal(losses?.length, 3);
  assert.match(losses![0]!.text, /backend\/2 was forced to lead group 1.*backend\/0/);

  await cluster.restart("backend/0");
  await cluster.restart("backend/1");
  await allHealthy(cluster);
  for (const row of ROWS) {
    assert.equal(decodeText((await kv.get(row, "old", { deadlineMs: 20_000 }))!.value), "kept");
    assert.equal(await kv.get(row, "new"), null, "given up everywhere, not here and there");
    await put(kv, row, "later", "x");
  }
  await replicasEqual(cluster);
  const reasons = await quarantineReasons(join(cluster.dir, "backend-0"));
  assert.equal(reasons.length, 3);
  assert.match(reasons[0]!, /forced backend\/2 to lead/);
  const { stdout } = await cluster.penncloud(["admin", "status"]);
  assert.match(stdout, /Data was given up at .*group 1/);
});

Deno.test("with the records gone and two disks replaced, empty members make no group anew before the one that has everything", async () => {
  await using cluster = await startCluster({ config: CONFIG });
  for (const row of ROWS) await put(cluster.kv, row, "old", "kept");
  const backends = ["backend/0", "backend/1", "backend/2"];
  for (const node of ["coordinator/0", ...backends]) await cluster.kill(node);
  for (const dir of ["coordinator-0", "backend-0", "backend-1"]) {
    await Deno.remove(join(cluster.dir, dir), { recursive: true });
  }
  for (const node of ["coordinator/0", "backend/0", "backend/1"]) await cluster.restart(node);
  for (const node of ["backend/0", "backend/1"]) await cluster.waitAnswering(node);
  await eventually(
    async () => /begins once backends .* all there/.test(await problems(cluster).catch(() => "")),
    "the coordinator to say whom it waits for",
    { withinMs: 90_000 },
  );
  const read = cluster.kv.get("lamp", "old", { deadlineMs: 8_000 });
  await assert.rejects(read, KvError, "it must not say that there is nothing");

  await cluster.restart("backend/2");
  await eventually(
    async () => /admin recover-meta/.test(await problems(cluster).catch(() => "")),
    "the coordinator to say what to do",
    { withinMs: 90_000 },
  );
  await recoverMeta(cluster);
  await allHealthy(cluster);
  for (const row of ROWS) {
    assert.equal(decodeText((await cluster.kv.get(row, "old"))!.value), "kept");
  }
  await replicasEqual(cluster);
});
