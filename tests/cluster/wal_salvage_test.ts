/**
 * The last copy is damaged: two hosts are gone with their disks, and the log of the third has a flipped
 * bit. The node refuses to go on by itself; `admin wal-salvage` says what is lost, and after a person
 * accepted it the cluster serves what was left, and nothing that it said is kept is missing.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { put } from "../../kv/kv.ts";
import { eventually } from "../eventually.ts";
import { allHealthy, replicasEqual, statusOf } from "./cluster_calls.ts";
import { filesBelow, flipAll, lastSegment, quarantineReasons } from "./damage.ts";
import { REPOSITORY, startCluster, type TestCluster } from "./harness.ts";

const SURVIVOR = "backend/1", GONE = ["backend/0", "backend/2"];
const ROWS = ["barn", "lamp", "tree"];
const COUNT = 20, DAMAGED_AT = 7;

/** Checkpoints only at the start of a node, so that the log is all that there is. */
async function rareCheckpoints(): Promise<string> {
  const text = await Deno.readTextFile(join(REPOSITORY, "tests/cluster/busy_disks.toml"));
  const path = await Deno.makeTempFile({ suffix: ".toml" });
  await Deno.writeTextFile(path, text.replace(/interval_ms = \d+/, "interval_ms = 3600000"));
  return path;
}

/** Sums of what lies in the survivor's folder, its locks and SQLite's empty helpers aside. */
async function contentOf(cluster: TestCluster): Promise<Map<string, string>> {
  const content = new Map<string, string>();
  for (const path of await filesBelow(join(cluster.dir, "backend-1"))) {
    if (/lock$|LOCK$|-shm$/.test(path)) continue;
    const bytes = await Deno.readFile(path);
    if (bytes.length > 0) content.set(path, `${bytes.length} bytes, sum ${crc32(bytes)}`);
  }
  return content;
}

async function columnsOf(cluster: TestCluster, row: string): Promise<string[]> {
  const page = await cluster.kv.getRow(row, { prefix: "late-", limit: 100, deadlineMs: 20_000 });
  return page.cells.map(({ column }) => column);
}

const columns = (count: number) =>
  Array.from({ length: count }, (_, i) => `late-${String(i).padStart(2, "0")}`);

Deno.test("the last copy of a cluster, its log damaged, is salvaged by a person and goes on", async () => {
  const config = await rareCheckpoints();
  await using cluster = await startCluster({ config });
  for (const column of columns(COUNT)) {
    for (const row of ROWS) await put(cluster.kv, row, column, `${row} ${column}`);
  }
  for (const node of [...GONE, SURVIVOR]) await cluster.kill(node);
  for (const node of GONE) {
    await Deno.remove(join(cluster.dir, node.replace("/", "-")), { recursive: true });
  }
  const damagedText = `lamp late-0${DAMAGED_AT}`;
  assert(await flipAll(await lastSegment(join(cluster.dir, "backend-1")), damagedText));
  await cluster.restart(SURVIVOR);
  await eventually(
    async () => {
      const { nodes } = await statusOf(cluster);
      return /store is damaged/.test(nodes.find(({ name }) => name === SURVIVOR)!.problem ?? "");
    },
    "the survivor to say that it is damaged",
    { withinMs: 90_000 },
  );

  const salvage = (...flags: string[]) =>
    cluster.penncloud(["admin", "wal-salvage", SURVIVOR, ...flags]);
  const running = await salvage();
  assert.equal(running.code, 2);
  assert.match(running.stderr, /another process is using it.*admin kill backend\/1/);
  await cluster.kill(SURVIVOR);

  const before = await contentOf(cluster);
  const told = await salvage();
  assert.equal(told.code, 1, told.stderr);
  assert.match(told.stdout, /log is damaged: a record fails its checksum/);
  assert.match(told.stdout, /group 1: everything/);
  assert.match(told.stdout, /group 2: entries up to/);
  assert.match(told.stdout, /they change the rows "lamp"/);
  assert.match(told.stdout, /Nothing was written/);
  const { groups } = JSON.parse((await salvage("--json")).stdout);
  assert.deepEqual(groups.map((group: { isComplete: boolean }) => group.isComplete), [
    true,
    false,
    true,
  ]);
  assert.equal(groups[1].lost.length, COUNT - DAMAGED_AT - 1);
  assert.deepEqual(await contentOf(cluster), before, "it only looked");
  const unknown = await cluster.penncloud(["admin", "wal-salvage", "coordinator/0"]);
  assert.match(unknown.stderr, /only backends have a log/);
  const elsewhere = await cluster.penncloud(["admin", "wal-salvage", "backend/0"]);
  assert.match(elsewhere.stderr, /does not exist.*on the node's host/);

  const written = await salvage("--accept-data-loss");
  assert.equal(written.code, 0, written.stderr);
  assert.match(written.stdout, /force-primary 2 backend\/1 --accept-data-loss/);
  assert.match((await quarantineReasons(join(cluster.dir, "backend-1")))[0]!, /salvaged/);
  const again = await salvage();
  assert.equal(again.code, 0, again.stdout);
  assert.match(again.stdout, /is sound/);

  await cluster.restart(SURVIVOR);
  await cluster.waitAnswering(SURVIVOR);
  await assert.rejects(cluster.kv.get("barn", "late-00", { deadlineMs: 2_000 }), "not by itself");
  for (const group of ["1", "2", "3"]) {
    const args = ["admin", "force-primary", group, SURVIVOR, "--accept-data-loss"];
    await eventually(
      async () => (await cluster.penncloud(args)).code === 0,
      `${SURVIVOR} to be let lead group ${group}`,
      { withinMs: 90_000 },
    );
  }
  for (const node of GONE) await cluster.restart(node);
  await allHealthy(cluster);
  assert.deepEqual(await columnsOf(cluster, "barn"), columns(COUNT));
  assert.deepEqual(await columnsOf(cluster, "lamp"), columns(DAMAGED_AT), "and not one behind it");
  assert.deepEqual(await columnsOf(cluster, "tree"), columns(COUNT));
  for (const row of ROWS) await put(cluster.kv, row, "after", "x");
  await cluster.crash(SURVIVOR);
  await cluster.waitReady(SURVIVOR);
  await allHealthy(cluster);
  await replicasEqual(cluster);
  const needless = await cluster.penncloud(["admin", "wal-salvage", SURVIVOR]);
  assert.equal(needless.code, 2, "it runs");
  await Deno.remove(config);
});

Deno.test("wal-salvage refuses to write where others have everything, and names them", async () => {
  await using cluster = await startCluster({ config: "tests/cluster/busy_disks.toml" });
  for (const row of ROWS) await put(cluster.kv, row, "a", "b");
  await cluster.kill(SURVIVOR);
  await Deno.remove(join(cluster.dir, "backend-1/IDENTITY"));
  await eventually(
    async () =>
      (await statusOf(cluster)).tablets.every(({ primary, state }) =>
        primary !== null && primary !== 1 && state !== "unavailable"
      ),
    "others to lead",
    { withinMs: 90_000 },
  );
  const refused = await cluster.penncloud([
    "admin",
    "wal-salvage",
    SURVIVOR,
    "--accept-data-loss",
  ]);
  assert.equal(refused.code, 2, refused.stdout);
  assert.match(refused.stderr, /all groups of backend\/1 are led by others/);
  const told = await cluster.penncloud(["admin", "wal-salvage", SURVIVOR]);
  assert.match(told.stdout, /no identity/);
  assert.match(told.stdout, /nothing is needed: backend\/(0|2) leads it/);
  await cluster.restart(SURVIVOR);
  await cluster.waitReady(SURVIVOR);
  await allHealthy(cluster);
  await replicasEqual(cluster);
});
