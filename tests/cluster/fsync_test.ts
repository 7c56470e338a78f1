/**
 * Syncs that fail or hang, injected into a running backend by strace. Where strace is missing or may
 * not attach, the tests are skipped with the reason.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { eventually } from "../eventually.ts";
import { allHealthy, primaryOf, replicasEqual, tabletOf } from "./cluster_calls.ts";
import { quarantineReasons } from "./damage.ts";
import { startCluster, type TestCluster } from "./harness.ts";
import { Workload } from "./workload.ts";

const CONFIG = "tests/cluster/busy_disks.toml";

async function whyNoStrace(): Promise<string | null> {
  try {
    const args = ["-e", "trace=fdatasync", "true"];
    const { success, stderr } = await new Deno.Command("strace", { args }).output();
    return success ? null : new TextDecoder().decode(stderr).trim().slice(0, 200);
  } catch (error) {
    return (error as Error).message;
  }
}

const noStrace = await whyNoStrace();
if (noStrace !== null) console.log(`Tests of failing syncs are skipped: ${noStrace}`);
const withStrace = { ignore: noStrace !== null };

/** Injects into every sync of the node's process, until it is disposed of or the process ends. */
async function inject(cluster: TestCluster, node: string, what: string) {
  const pid = await cluster.pidOf(node);
  const strace = new Deno.Command("strace", {
    args: ["-f", "-q", "-e", "trace=fdatasync", "-e", `inject=fdatasync:${what}`, "-p", `${pid}`],
    stdout: "null",
    stderr: "null",
  }).spawn();
  return {
    async [Symbol.asyncDispose]() {
      try {
        strace.kill("SIGINT");
      } catch {
        // It ended with the process that it watched.
      }
      await strace.status;
    },
  };
}

Deno.test({
  name:
    "a sync that fails ends the process with status 75, and the store is filled anew from its peers",
  ...withStrace,
  fn: async () => {
    await using cluster = await startCluster({ config: CONFIG });
    const workload = new Workload(cluster.kv, { writers: 3 });
    await workload.progress(100);
    const node = "backend/1";
    await using _failing = await inject(cluster, node, "error=EIO");
    await eventually(
      async () => /code 75/.test((await cluster.process(node)).lastExit ?? ""),
      "the process to end by itself",
      { withinMs: 90_000 },
    );
    await cluster.waitReady(node);
    await workload.progress(100);
    await allHealthy(cluster);
    await workload.stop();
    await replicasEqual(cluster);
    await workload.check();
    const reasons = await quarantineReasons(join(cluster.dir, "backend-1"));
    assert.equal(reasons.length, 1, "one failure, never tried again");
    assert.match(reasons[0]!, /disk failed|no longer/i);
  },
});

Deno.test({
  name: "a secondary whose syncs hang says so and is taken out, and writers go on without it",
  ...withStrace,
  fn: async () => {
    await using cluster = await startCluster({ config: CONFIG });
    const workload = new Workload(cluster.kv, { rows: ["lamp"], writers: 3 });
    await workload.progress(100);
    const primary = await primaryOf(cluster, "lamp");
    const node = primary === "backend/2" ? "backend/0" : "backend/2";
    const isSecondary = async () =>
      (await tabletOf(cluster, "lamp")).secondaries.some((id) => `backend/${id}` === node);
    {
      await using _hanging = await inject(cluster, node, "delay_enter=6000000");
      await eventually(async () => !await isSecondary(), "it to be taken out", {
        withinMs: 90_000,
      });
      await workload.progress(100);
    }
    await eventually(isSecondary, "it to be put in again", { withinMs: 60_000, everyMs: 100 });
    await allHealthy(cluster);
    await workload.stop();
    await replicasEqual(cluster);
    await workload.check();
    console.log(`longest gap ${Math.round(workload.longestGapMs)} ms`);
  },
});

Deno.test({
  name: "a primary whose syncs hang gives its office away, and writers go on without it",
  ...withStrace,
  fn: async () => {
    await using cluster = await startCluster({ config: CONFIG });
    const workload = new Workload(cluster.kv, { rows: ["lamp"], writers: 3 });
    await workload.progress(100);
    const node = await primaryOf(cluster, "lamp");
    {
      await using _hanging = await inject(cluster, node, "delay_enter=6000000");
      await eventually(
        async () => await primaryOf(cluster, "lamp").catch(() => node) !== node,
        "another primary",
        { withinMs: 90_000 },
      );
      await workload.progress(100);
    }
    await cluster.waitReady(node);
    await allHealthy(cluster);
    await workload.stop();
    await replicasEqual(cluster);
    await workload.check();
    console.log(`longest gap ${Math.round(workload.longestGapMs)} ms`);
  },
});
