/** Salvaging a real folder: what `apply` leaves behind, and what a crash in the middle of it does. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { RealDisk } from "../../kv/disk/disk.ts";
import { DataFolderError, openDataFolder } from "../../kv/disk/identity.ts";
import { Wal, type WalRecord } from "../../kv/disk/wal.ts";
import { segmentName } from "../../kv/disk/wal_segment.ts";
import { type GroupId, groupId } from "../../proto/ids.ts";
import { Salvage } from "../../roles/salvage.ts";
import { entry } from "../kv/disk/wal_testing.ts";

const CLUSTER = "cluster", GROUPS = [groupId(1)];
const exists = (path: string) => Deno.stat(path).then(() => true, () => false);

/** A node's folder with three entries in its log, of which the second is damaged. */
async function damagedFolder(): Promise<string> {
  const dir = await Deno.makeTempDir({ prefix: "penncloud-salvage-" });
  const folder = await openDataFolder({ dir, clusterId: CLUSTER });
  const { storeId } = folder.identity;
  const options = { disk: new RealDisk(), dir: `${dir}/wal`, clusterId: CLUSTER, storeId };
  const wal = await Wal.open(options, () => {});
  for (const at of [1, 2, 3]) {
    await wal.append([entry(1, at, new TextEncoder().encode(`payload ${at}`))]);
  }
  await folder.noteLog();
  await wal.close();
  await folder.close();
  const path = `${dir}/wal/${segmentName(1)}`, bytes = await Deno.readFile(path);
  const at = new TextDecoder("latin1").decode(bytes).indexOf("payload 2");
  bytes[at]! ^= 1;
  await Deno.writeFile(path, bytes);
  return dir;
}

async function logIn(dir: string): Promise<WalRecord[]> {
  const folder = await openDataFolder({ dir, clusterId: CLUSTER });
  const { storeId, hasLog } = folder.identity;
  assert.ok(hasLog, "a log that is missing later would be noticed");
  const records: WalRecord[] = [];
  const options = { disk: new RealDisk(), dir: `${dir}/wal`, clusterId: CLUSTER, storeId };
  await (await Wal.open(options, (record) => records.push(record))).close();
  await folder.close();
  return records;
}

async function withSalvage<T>(dir: string, use: (salvage: Salvage) => T): Promise<Awaited<T>> {
  const salvage = await Salvage.open({ dir, clusterId: CLUSTER, groups: GROUPS as GroupId[] });
  try {
    return await use(salvage);
  } finally {
    salvage.close();
  }
}

const lsnsOf = (records: readonly WalRecord[]) =>
  records.flatMap((record) => record.type === "entry" ? [Number(record.lsn)] : []);

Deno.test("a salvaged folder is another store, keeps what it can, and its damaged files aside", async () => {
  const dir = await damagedFolder();
  const before = await Deno.readTextFile(`${dir}/IDENTITY`);
  const place = await withSalvage(dir, (salvage) => {
    const [group] = salvage.report.groups;
    assert.deepEqual([group!.lastLsn, group!.unreadable], [1, { firstLsn: 2, lastLsn: 2 }]);
    assert.deepEqual(group!.lost.map((lost) => lost.lsn), [3]);
    return salvage.apply();
  });
  assert.deepEqual(lsnsOf(await logIn(dir)), [1]);
  const after = JSON.parse(await Deno.readTextFile(`${dir}/IDENTITY`));
  assert.notEqual(after.storeId, JSON.parse(before).storeId);
  assert.equal(await Deno.readTextFile(join(place, "IDENTITY.damaged")), before);
  assert.ok(await exists(join(place, "wal", segmentName(1))));
  await withSalvage(dir, ({ report }) => assert.deepEqual(report.problems, []));
  await Deno.remove(dir, { recursive: true });
});

Deno.test("a crash while a salvaged log is put in place is made good by running the command again", async () => {
  for (const oldLogIsThere of [true, false]) {
    const dir = await damagedFolder();
    const place = await withSalvage(dir, (salvage) => salvage.apply());
    await Deno.rename(`${dir}/wal`, `${dir}/wal.salvaged`);
    if (oldLogIsThere) await Deno.rename(join(place, "wal"), `${dir}/wal`);
    await withSalvage(dir, ({ report }) => assert.deepEqual(report.problems, []));
    assert.deepEqual(lsnsOf(await logIn(dir)), [1]);
    assert.ok(!await exists(`${dir}/wal.salvaged`));
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("a salvaged log that a crash left before the folder was renamed is begun anew", async () => {
  const dir = await damagedFolder();
  await Deno.mkdir(`${dir}/wal.salvaged`);
  await Deno.copyFile(
    `${dir}/wal/${segmentName(1)}`,
    `${dir}/wal.salvaged/${segmentName(1)}`,
  );
  // As a crash in the middle of `build` leaves it: another store's, which no identity names.
  const path = `${dir}/IDENTITY`, identity = await Deno.readTextFile(path);
  await Deno.remove(path);
  await withSalvage(dir, async (salvage) => {
    assert.equal(salvage.report.groups[0]!.lastLsn, 1);
    assert.match(salvage.report.problems[0]!, /no identity/);
    await salvage.apply();
  });
  assert.deepEqual(lsnsOf(await logIn(dir)), [1]);
  assert.notEqual(await Deno.readTextFile(path), identity);
  await Deno.remove(dir, { recursive: true });
});

Deno.test("a folder that is in use, not there or another cluster's is refused", async () => {
  const dir = await damagedFolder();
  const open = (at: string, clusterId: string) =>
    Salvage.open({ dir: at, clusterId, groups: GROUPS }).then((salvage) => salvage.close());
  await assert.rejects(open(`${dir}/nowhere`, CLUSTER), /does not exist/);
  await assert.rejects(open(dir, "other"), /belongs to cluster/);
  const folder = await openDataFolder({ dir, clusterId: CLUSTER });
  await assert.rejects(open(dir, CLUSTER), DataFolderError);
  await folder.close();
  await Deno.remove(dir, { recursive: true });
});
