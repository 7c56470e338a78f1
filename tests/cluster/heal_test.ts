/**
 * Disks that lie: the files of one replica are damaged in every way that we could think of, and the
 * store takes notice, answers nothing from them, and fills itself again from its peers.
 *
 * Real processes; damage is done to the files of stopped nodes and of running ones. Each test writes
 * before, during and after, and asks at the end whether every acknowledged write is there once and
 * whether all replicas are equal.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { encodeText, put } from "../../kv/kv.ts";
import { eventually } from "../eventually.ts";
import {
  allHealthy,
  metricOf,
  primaryOf,
  replicasEqual,
  statusOf,
  tabletOf,
} from "./cluster_calls.ts";
import {
  copyFolder,
  filesBelow,
  flipAll,
  flipBit,
  lastSegment,
  quarantineReasons,
} from "./damage.ts";
import { startCluster, type TestCluster } from "./harness.ts";
import { Workload } from "./workload.ts";

const VICTIM = "backend/1";

const victimDir = (cluster: TestCluster) => join(cluster.dir, "backend-1");

/** A cluster whose checkpoints are made often, and enough in it to be damaged. */
async function startWithData(): Promise<TestCluster> {
  const cluster = await startCluster({ config: "tests/cluster/busy_disks.toml" });
  for (const row of ["barn", "lamp", "tree"]) {
    for (let i = 0; i < 30; i++) {
      await put(cluster.kv, row, `c${i}`, `${row} ${i} `.repeat(50));
    }
    const large = new Uint8Array(200_000).fill(row.charCodeAt(0));
    await cluster.kv.apply({ row, mutations: [{ kind: "put", column: "large", value: large }] });
  }
  await checkpointed(cluster);
  return cluster;
}

/** Waits until what the victim has applied by now is in its checkpoints. */
async function checkpointed(cluster: TestCluster): Promise<void> {
  const applied = await metricOf(cluster, VICTIM, "penncloud_group_applied_lsn");
  await eventually(
    async () => await metricOf(cluster, VICTIM, "penncloud_group_checkpoint_lsn") >= applied,
    "checkpoints",
    { withinMs: 90_000, everyMs: 100 },
  );
}

/** Stops the victim in good order, lets `damage` at its files, and starts it again. */
async function whileStopped(cluster: TestCluster, damage: (dir: string) => Promise<void>) {
  await stopInGoodOrder(cluster);
  await damage(victimDir(cluster));
  await cluster.restart(VICTIM);
}

async function stopInGoodOrder(cluster: TestCluster, node = VICTIM): Promise<void> {
  await cluster.drain(node);
  await eventually(
    async () => (await cluster.process(node)).pid === null,
    `${node} to stop`,
    { withinMs: 90_000 },
  );
}

/** One in each tablet, of this name's own. */
const rowsOf = (name: string) => ["b", "m", "t"].map((letter) => `${letter} ${name}`);

async function healed(cluster: TestCluster, workload?: Workload): Promise<void> {
  await cluster.waitReady(VICTIM);
  await allHealthy(cluster);
  await workload?.stop();
  await replicasEqual(cluster);
  await workload?.check();
}

/** Every way to damage a stopped replica, and what its quarantine must say of it; null: nothing. */
const DAMAGES: readonly [name: string, damage: (dir: string) => Promise<void>, RegExp | null][] = [
  [
    "a flipped bit in the middle of the log",
    async (dir) => {
      const path = await lastSegment(dir);
      await flipBit(path, Math.floor((await Deno.stat(path)).size / 2));
    },
    /Cannot recover the log/,
  ],
  ["a flipped bit in the log's header", async (dir) => flipBit(await lastSegment(dir), 30), /log/],
  [
    "a segment without a byte",
    async (dir) => Deno.truncate(await lastSegment(dir), 0),
    /log is missing/,
  ],
  [
    "a log that is gone",
    (dir) => Deno.remove(join(dir, "wal"), { recursive: true }),
    /log is missing/,
  ],
  [
    "a log that ends too early",
    async (dir) => {
      const path = await lastSegment(dir);
      await Deno.truncate(path, 200);
    },
    /log ends with batch/,
  ],
  [
    "a segment of another store",
    async (dir) => {
      const other = await lastSegment(join(dir, "../backend-2"));
      await Deno.copyFile(other, await lastSegment(dir));
    },
    /written by another store/,
  ],
  ["a flipped bit in the identity", (dir) => flipBit(join(dir, "IDENTITY"), 40), /identity/],
  ["an identity that is gone", (dir) => Deno.remove(join(dir, "IDENTITY")), /no identity/],
  ["an identity without a byte", (dir) => Deno.truncate(join(dir, "IDENTITY"), 0), /identity/],
  [
    "a flipped bit in a checkpoint's tree",
    (dir) => flipBit(join(dir, "groups/1.db"), 101),
    /checkpoint/i,
  ],
  ["a checkpoint that is gone", (dir) => Deno.remove(join(dir, "groups/2.db")), null],
  [
    "a checkpoint without a byte",
    (dir) => Deno.truncate(join(dir, "groups/3.db"), 0),
    null,
  ],
  [
    "a checkpoint under another group's name",
    (dir) => Deno.copyFile(join(dir, "groups/2.db"), join(dir, "groups/3.db")),
    /group/,
  ],
];

Deno.test("a stopped replica whose files were damaged is filled again from its peers", async (t) => {
  await using cluster = await startWithData();
  for (const [name, damage, reason] of DAMAGES) {
    await t.step(name, async () => {
      const workload = new Workload(cluster.kv, { writers: 2, rows: rowsOf(name) });
      await workload.progress(40);
      await checkpointed(cluster);
      const before = (await quarantineReasons(victimDir(cluster))).length;
      await whileStopped(cluster, damage);
      await workload.progress(40);
      await healed(cluster, workload);
      const reasons = await quarantineReasons(victimDir(cluster));
      if (reason !== null) {
        assert(reasons.length > before || before === 8, "nothing was moved aside");
        assert.match(reasons.at(-1)!, reason);
      }
    });
  }
});

Deno.test("a data folder that was put back to an older state of itself is noticed and filled again", async () => {
  await using cluster = await startWithData();
  const old = await Deno.makeTempDir({ prefix: "penncloud-old-" });
  try {
    await stopInGoodOrder(cluster);
    await copyFolder(victimDir(cluster), old);
    await cluster.restart(VICTIM);
    await allHealthy(cluster);
    const workload = new Workload(cluster.kv, { writers: 2 });
    await workload.progress(100);
    await whileStopped(cluster, async (dir) => {
      await Deno.remove(dir, { recursive: true });
      await copyFolder(old, dir);
    });
    await workload.progress(100);
    await eventually(
      async () => (await quarantineReasons(victimDir(cluster))).some((it) => /older copy/.test(it)),
      "the older copy to be noticed",
      { withinMs: 90_000 },
    );
    await healed(cluster, workload);
  } finally {
    await Deno.remove(old, { recursive: true });
  }
});

Deno.test("a damaged store that might be the only whole one waits, says for whom, and heals when they come", async () => {
  await using cluster = await startWithData();
  await cluster.kill("backend/0");
  await cluster.kill("backend/2");
  await whileStopped(cluster, (dir) => flipBit(join(dir, "IDENTITY"), 40));
  const files = await filesBelow(join(victimDir(cluster), "wal"));
  await eventually(
    async () => {
      const { nodes } = await statusOf(cluster);
      const problem = nodes.find((node) => node.name === VICTIM)!.problem ?? "";
      return /store is damaged.*identity.*waits for .*backend\/(0|2)/.test(problem);
    },
    "the damaged store to say what it waits for",
    { withinMs: 90_000 },
  );
  assert.deepEqual(await filesBelow(join(victimDir(cluster), "wal")), files, "nothing is touched");
  assert.deepEqual(await quarantineReasons(victimDir(cluster)), []);
  await cluster.restart("backend/0");
  await cluster.restart("backend/2");
  await healed(cluster);
  const cell = await cluster.kv.get("lamp", "c7");
  assert.deepEqual(cell?.value, encodeText("lamp 7 ".repeat(50)));
});

/** A cell's value as readers get it, whoever is asked. */
async function readText(cluster: TestCluster, row: string, column: string): Promise<string> {
  const cell = await cluster.kv.get(row, column, { deadlineMs: 20_000 });
  return new TextDecoder().decode(cell!.value);
}

/** Flips a bit of the text `inside` in the file of a running node, on the disk and in its cache. */
async function damageStored(cluster: TestCluster, node: string, gid: number, inside: string) {
  const dir = join(cluster.dir, node.replace("/", "-"), "groups");
  const hits = [];
  for (const suffix of ["", "-wal"]) {
    const path = join(dir, `${gid}.db${suffix}`);
    if (await Deno.stat(path).then(() => true, () => false)) hits.push(await flipAll(path, inside));
  }
  assert(hits.includes(true), `"${inside}" is not in the checkpoint of group ${gid}`);
}

Deno.test("a running primary that reads a damaged cell gives the office away, and the reader the right value", async () => {
  await using cluster = await startWithData();
  const { groupId } = await tabletOf(cluster, "lamp");
  const leader = await primaryOf(cluster, "lamp");
  // What is in memory is right still, so it starts anew; opening does not look at values.
  await stopInGoodOrder(cluster, leader);
  await damageStored(cluster, leader, groupId, "lamp 7 lamp 7");
  await cluster.restart(leader);
  await eventually(
    async () => await primaryOf(cluster, "lamp").catch(() => "") === leader,
    "the office to come back",
    { withinMs: 90_000, everyMs: 200 },
  );
  await allHealthy(cluster);
  assert.equal(await readText(cluster, "lamp", "c7"), "lamp 7 ".repeat(50));
  await eventually(
    async () => (await metricOf(cluster, leader, "penncloud_replica_rebuilds_total")) === 1,
    "the damaged replica to begin anew",
    { withinMs: 90_000, everyMs: 100 },
  );
  await allHealthy(cluster);
  await replicasEqual(cluster);
  assert.equal(await readText(cluster, "lamp", "c7"), "lamp 7 ".repeat(50));
});

Deno.test("a damaged or missing file of a large value is mended from another member, for the reader at once", async () => {
  await using cluster = await startWithData();
  for (const node of ["backend/0", "backend/1", "backend/2"]) {
    await cluster.crash(node);
    await cluster.waitReady(node);
  }
  await allHealthy(cluster);
  for (const [row, damage] of [["barn", "flip"], ["lamp", "cut"], ["tree", "remove"]] as const) {
    // A primary may be on its way home: only the one who was damaged and asked has to mend.
    await eventually(
      async () => {
        const leader = await primaryOf(cluster, row);
        const mended = () => metricOf(cluster, leader, "penncloud_values_mended_total");
        const before = await mended();
        const blobs = await filesBelow(join(cluster.dir, leader.replace("/", "-"), "blobs"));
        assert.equal(blobs.length, 3);
        for (const path of blobs) {
          if (damage === "flip") await flipBit(path, 100_000);
          else if (damage === "cut") await Deno.truncate(path, 5_000);
          else await Deno.remove(path);
        }
        const cell = await cluster.kv.get(row, "large", { deadlineMs: 20_000 });
        assert.deepEqual(cell?.value, new Uint8Array(200_000).fill(row.charCodeAt(0)), damage);
        const asked = await mended() > before;
        const verify = async () => (await cluster.penncloud(["admin", "verify"])).code;
        assert.equal(await verify(), 1, "the others are mended now");
        assert.equal(await verify(), 0, "and then all is sound");
        return asked;
      },
      `the damaged primary of "${row}" to be asked`,
      { withinMs: 60_000 },
    );
  }
});

Deno.test("admin verify finds what nobody read: cells, values and log of running replicas heal", async () => {
  await using cluster = await startWithData();
  const sound = await cluster.penncloud(["admin", "verify", "--json"]);
  assert.equal(sound.code, 0, sound.stderr + sound.stdout);
  const { disks, groups } = JSON.parse(sound.stdout);
  assert.equal(disks.length, 3);
  for (const { disk } of disks) {
    assert(disk.scrub.cells >= 90 && disk.scrub.values === 3 && disk.scrub.bytes > 600_000);
  }
  assert(groups.every((group: { verdict: string }) => group.verdict === "equal"));

  await damageStored(cluster, "backend/0", 3, "tree 3 tree 3");
  const log = await lastSegment(join(cluster.dir, "backend-2"));
  await flipBit(log, Math.floor((await Deno.stat(log)).size / 3));
  const [blob] = await filesBelow(join(cluster.dir, "backend-1/blobs"));
  await flipBit(blob!, 150_000);
  const found = await cluster.penncloud(["admin", "verify", "--json"]);
  assert.equal(found.code, 1, found.stdout);
  const findings = JSON.parse(found.stdout).disks;
  assert.match(findings[0].disk.scrub.finding, /fails its checksum|checkpoint/);
  assert.match(findings[1].disk.scrub.finding, /blob/);
  assert.match(findings[2].disk.scrub.finding, /log/);
  assert.equal(findings[1].disk.scrub.mended, 1);
  assert.equal(findings[2].disk.scrub.mended, 1);
  await allHealthy(cluster);
  await replicasEqual(cluster);
  await eventually(
    async () => (await cluster.penncloud(["admin", "verify"])).code === 0,
    "everything to be sound again",
    { withinMs: 90_000, everyMs: 500 },
  );
  await eventually(
    async () => {
      const { nodes } = await statusOf(cluster);
      const disk = nodes.find((node) => node.name === "backend/0")!.disk!;
      return disk.rebuilt === 1 && disk.scrub.finishedMs !== null && disk.scrub.rounds >= 2;
    },
    "the node to report what it found",
  );
  // The log of backend/2 goes on behind what was damaged.
  await put(cluster.kv, "barn", "after", "x");
  await cluster.crash("backend/2");
  await cluster.waitReady("backend/2");
  await allHealthy(cluster);
  assert.deepEqual(await quarantineReasons(join(cluster.dir, "backend-2")), []);
});
