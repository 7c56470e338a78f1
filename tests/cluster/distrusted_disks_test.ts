/**
 * `trust_fsync = false`: after a power cut a disk may have forgotten what it said to be synced. The end
 * of a log is then missing, cleanly, under the right name, and no checksum tells.
 *
 * Real processes. A power cut cannot be made here, so what it leaves is: all nodes are killed, their
 * folders are made to say that they ran under another boot of the kernel, and the last batches of one
 * log are cut off. Whoever comes back first, nothing that was acknowledged is lost.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openClusterFolder } from "../../roles/cluster_folder.ts";
import { openDataFolder } from "../../kv/disk/identity.ts";
import { KvError } from "../../kv/errors.ts";
import { put } from "../../kv/kv.ts";
import { groupId } from "../../proto/ids.ts";
import { eventually } from "../eventually.ts";
import { allHealthy, replicasEqual, statusOf } from "./cluster_calls.ts";
import { lastSegment } from "./damage.ts";
import { REPOSITORY, startCluster, type TestCluster } from "./harness.ts";

const NODES = ["backend/0", "backend/1", "backend/2"], FORGETFUL = "backend/1";
const ROWS = ["barn", "lamp", "tree"];
const COLD_START_MS = 1_000;

const dirOf = (cluster: TestCluster, node: string) => join(cluster.dir, node.replace("/", "-"));

/** Rare checkpoints, so that what is cut off the log is nowhere else on that disk. */
async function distrustful(): Promise<string> {
  const text = await Deno.readTextFile(join(REPOSITORY, "tests/cluster/busy_disks.toml"));
  const path = await Deno.makeTempFile({ suffix: ".toml" });
  const settings = `trust_fsync = false\ncold_start_wait_ms = ${COLD_START_MS}`;
  await Deno.writeTextFile(
    path,
    text.replace(/checkpoint_interval_ms = \d+/, `checkpoint_interval_ms = 3600000\n${settings}`),
  );
  return path;
}

/** The folder as it would be had the machine been started anew since. */
async function underAnotherBoot(cluster: TestCluster, node: string): Promise<void> {
  const { clusterId } = await openClusterFolder(cluster.dir, {
    config: cluster.config,
    create: false,
  });
  const dir = dirOf(cluster, node);
  const folder = await openDataFolder({ dir, clusterId, kernelBootId: "an earlier boot" });
  for (const gid of [1, 2, 3]) await folder.confirm(groupId(gid));
  await folder.close();
}

/** Cuts the log off behind the place where the value `after` was written, at the end of that batch. */
async function forget(cluster: TestCluster, after: string): Promise<void> {
  const path = await lastSegment(dirOf(cluster, FORGETFUL));
  const bytes = await Deno.readFile(path);
  const text = new TextDecoder("latin1").decode(bytes);
  const at = text.indexOf(after);
  assert(at > 0, `"${after}" is not in the log`);
  // The next record begins with the format's mark, and every put here was a batch of its own.
  const end = text.indexOf("pWAL", at);
  assert(end > at && end < bytes.length - 48);
  await Deno.truncate(path, end);
}

async function problemOf(cluster: TestCluster, node: string): Promise<string> {
  const status = await statusOf(cluster).catch(() => null);
  return status?.nodes.find(({ name }) => name === node)?.problem ?? "";
}

async function confirmed(cluster: TestCluster): Promise<void> {
  await eventually(
    async () => (await Promise.all(NODES.map((node) => problemOf(cluster, node)))).join("") === "",
    "every copy to be confirmed",
    { withinMs: 90_000, everyMs: 100 },
  );
}

/** Which nodes come back, one after the other; the first alone must wait. */
const ORDERS = [
  ["backend/1", "backend/0", "backend/2"],
  ["backend/1", "backend/2", "backend/0"],
  ["backend/2", "backend/1", "backend/0"],
];

Deno.test("after a power cut a copy whose disk is not trusted leads only beside another, and nothing is lost", async (t) => {
  const config = await distrustful();
  await using cluster = await startCluster({ config });
  for (const [round, order] of ORDERS.entries()) {
    await t.step(`${order.join(", then ")}; ${FORGETFUL} forgot its last writes`, async () => {
      await allHealthy(cluster);
      await confirmed(cluster);
      for (let i = 0; i < 10; i++) {
        for (const row of ROWS) {
          await put(cluster.kv, row, `${round}/${i}`, `${row} ${round}/${i}.`);
        }
      }
      const all = ["coordinator/0", ...NODES];
      // Once as if at one moment, once with the coordinator noticing the first deaths.
      for (const node of round === 0 ? all : all.toReversed()) await cluster.kill(node);
      for (const node of NODES) await underAnotherBoot(cluster, node);
      await forget(cluster, `barn ${round}/4.`);
      await cluster.restart("coordinator/0");
      const [first, ...others] = order;
      await cluster.restart(first!);
      await cluster.waitAnswering(first!);
      await eventually(
        async () => /trust_fsync is false.*another member/.test(await problemOf(cluster, first!)),
        "the first to say what it waits for",
        { withinMs: 90_000 },
      );
      const read = cluster.kv.get("lamp", `${round}/9`, { deadlineMs: 4 * COLD_START_MS });
      await assert.rejects(read, KvError, "it must not lead alone");
      for (const node of others) await cluster.restart(node);
      for (let i = 0; i < 10; i++) {
        for (const row of ROWS) {
          const cell = await cluster.kv.get(row, `${round}/${i}`, { deadlineMs: 20_000 });
          assert.equal(new TextDecoder().decode(cell?.value), `${row} ${round}/${i}.`);
        }
      }
      for (const node of NODES) await cluster.waitReady(node);
    });
  }
  await allHealthy(cluster);
  await confirmed(cluster);
  await replicasEqual(cluster);
  // The same kernel still runs, so a mere crash raises no doubt.
  for (const node of NODES) await cluster.crash(node);
  for (const node of NODES) await cluster.waitReady(node);
  await confirmed(cluster);
  await Deno.remove(config);
});
