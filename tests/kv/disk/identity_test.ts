/** The data folder's lock and identity. */
import assert from "node:assert/strict";
import { CorruptionError } from "../../../kv/errors.ts";
import { DataFolderError, markSuspect, openDataFolder } from "../../../kv/disk/identity.ts";
import { KEPT_COUNT_MAX, moveAside, quarantineContent } from "../../../kv/disk/quarantine.ts";
import { groupId } from "../../../proto/ids.ts";

async function withDir(run: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await run(`${dir}/data/backend-1`);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("openDataFolder() formats a new folder and counts every start of it", () =>
  withDir(async (dir) => {
    const first = await openDataFolder({ dir, clusterId: "home" });
    assert.ok(first.isNew && !first.hostRestarted);
    assert.equal(first.identity.bootCount, 1);
    await first.close();
    const second = await openDataFolder({ dir, clusterId: "home" });
    assert.ok(!second.isNew && !second.hostRestarted);
    assert.equal(second.identity.bootCount, 2);
    assert.equal(second.identity.storeId, first.identity.storeId);
    await second.close();
    const { crc: _, ...stored } = JSON.parse(await Deno.readTextFile(`${dir}/IDENTITY`));
    assert.deepEqual(stored, { ...second.identity });
  }));

Deno.test("openDataFolder() refuses a folder that is in use, here or in another process", () =>
  withDir(async (dir) => {
    const holder = await openDataFolder({ dir, clusterId: "home" });
    const inUse = (error: unknown) =>
      error instanceof DataFolderError && /another process is using it/.test(error.message);
    await assert.rejects(openDataFolder({ dir, clusterId: "home" }), inUse);
    const module = new URL("../../../kv/disk/identity.ts", import.meta.url).href;
    const code = `import { openDataFolder } from ${JSON.stringify(module)};
      try { await openDataFolder({ dir: ${JSON.stringify(dir)}, clusterId: "home" }); }
      catch (error) { console.log(error.name); Deno.exit(0); }
      console.log("opened"); Deno.exit(0);`;
    const run = async () => {
      const { stdout } = await new Deno.Command(Deno.execPath(), {
        args: ["eval", "--ext=ts", code],
        cwd: new URL("../../../", import.meta.url).pathname,
      }).output();
      return new TextDecoder().decode(stdout).trim();
    };
    assert.equal(await run(), "DataFolderError");
    await holder.close();
    assert.equal(await run(), "opened");
    const next = await openDataFolder({ dir, clusterId: "home" });
    assert.equal(next.identity.bootCount, 3, "the other process has exited and left its lock");
    await next.close();
  }));

Deno.test("openDataFolder() refuses another cluster's folder and leaves it as it is", () =>
  withDir(async (dir) => {
    await (await openDataFolder({ dir, clusterId: "home" })).close();
    const before = await Deno.readTextFile(`${dir}/IDENTITY`);
    await assert.rejects(
      openDataFolder({ dir, clusterId: "work" }),
      /belongs to cluster "home", not to "work"/,
    );
    assert.equal(await Deno.readTextFile(`${dir}/IDENTITY`), before);
    await (await openDataFolder({ dir, clusterId: "home" })).close();
  }));

Deno.test("openDataFolder() notices that the machine was restarted", () =>
  withDir(async (dir) => {
    await (await openDataFolder({ dir, clusterId: "home" })).close();
    const folder = await openDataFolder({ dir, clusterId: "home", kernelBootId: "another boot" });
    assert.ok(folder.hostRestarted);
    assert.equal(folder.identity.kernelBootId, "another boot");
    await folder.close();
  }));

Deno.test("openDataFolder() refuses a damaged identity, and one that is gone while data is there", () =>
  withDir(async (dir) => {
    await (await openDataFolder({ dir, clusterId: "home" })).close();
    const text = await Deno.readTextFile(`${dir}/IDENTITY`);
    const fewerBoots = text.replace('"bootCount": 1', '"bootCount": 0');
    assert.notEqual(fewerBoots, text);
    for (const damaged of ["", text.slice(0, 20), text.replace("storeId", "storeIt"), fewerBoots]) {
      await Deno.writeTextFile(`${dir}/IDENTITY`, damaged);
      await assert.rejects(openDataFolder({ dir, clusterId: "home" }), CorruptionError);
    }
    await Deno.remove(`${dir}/IDENTITY`);
    await Deno.mkdir(`${dir}/wal`);
    await assert.rejects(openDataFolder({ dir, clusterId: "home" }), CorruptionError);
    await Deno.remove(`${dir}/wal`);
    const folder = await openDataFolder({ dir, clusterId: "home" });
    assert.ok(folder.isNew);
    await folder.close();
  }));

Deno.test("a damaged folder goes on as a new store once that is allowed, and keeps the old files aside", () =>
  withDir(async (dir) => {
    const before = await openDataFolder({ dir, clusterId: "home" });
    await before.close();
    await Deno.mkdir(`${dir}/wal`);
    await Deno.writeTextFile(`${dir}/wal/seg`, "log");
    await Deno.writeTextFile(`${dir}/IDENTITY`, "{");
    const refusal = new Error("not yet");
    await assert.rejects(
      openDataFolder({ dir, clusterId: "home", mayRenew: () => Promise.reject(refusal) }),
      refusal,
    );
    assert.equal(await Deno.readTextFile(`${dir}/IDENTITY`), "{", "nothing is touched before");
    const after = await openDataFolder({ dir, clusterId: "home", mayRenew: async () => {} });
    assert.notEqual(after.identity.storeId, before.identity.storeId);
    assert.equal(after.identity.bootCount, 1);
    await after.close();
    const [place] = Array.from(Deno.readDirSync(`${dir}/quarantine`), ({ name }) => name);
    const kept = Array.from(Deno.readDirSync(`${dir}/quarantine/${place}`), ({ name }) => name);
    assert.deepEqual(kept.sort(), ["IDENTITY.damaged", "reason.txt", "wal"]);
    assert.match(await Deno.readTextFile(`${dir}/quarantine/${place}/reason.txt`), /not JSON/);
    await (await openDataFolder({ dir, clusterId: "home" })).close();
  }));

Deno.test("what a process left in SUSPECT makes the next one begin the store anew", () =>
  withDir(async (dir) => {
    const before = await openDataFolder({ dir, clusterId: "home" });
    await before.close();
    markSuspect(dir, "a sync failed");
    await assert.rejects(openDataFolder({ dir, clusterId: "home" }), /a sync failed/);
    const after = await openDataFolder({ dir, clusterId: "home", mayRenew: async () => {} });
    assert.notEqual(after.identity.storeId, before.identity.storeId);
    await after.close();
    await (await openDataFolder({ dir, clusterId: "home" })).close();
  }));

Deno.test("a copy that is given up goes by a new name before its files are moved, and the others keep theirs", () =>
  withDir(async (dir) => {
    const folder = await openDataFolder({ dir, clusterId: "home" });
    await Deno.mkdir(`${dir}/groups`);
    for (const name of ["1.db", "1.db-wal", "2.db"]) {
      await Deno.writeTextFile(`${dir}/groups/${name}`, name);
    }
    const { storeId } = folder.identity;
    await folder.giveUpCopy(groupId(1), new Error("damaged"));
    assert.equal(folder.copyOf(groupId(1)), `${storeId}~1`);
    assert.equal(folder.copyOf(groupId(2)), storeId);
    await folder.close();
    const left = Array.from(Deno.readDirSync(`${dir}/groups`), ({ name }) => name);
    assert.deepEqual(left, ["2.db"]);
    const again = await openDataFolder({ dir, clusterId: "home" });
    assert.equal(again.copyOf(groupId(1)), `${storeId}~1`);
    await again.close();
  }));

Deno.test("copies of several groups that are given up at once all get new names and places", () =>
  withDir(async (dir) => {
    const folder = await openDataFolder({ dir, clusterId: "home" });
    await Deno.mkdir(`${dir}/groups`);
    const gids = [1, 2, 3, 4].map(groupId);
    for (const gid of gids) await Deno.writeTextFile(`${dir}/groups/${gid}.db`, "x");
    await Promise.all(gids.map((gid) => folder.giveUpCopy(gid, new Error(`damage ${gid}`))));
    await folder.close();
    const again = await openDataFolder({ dir, clusterId: "home" });
    for (const gid of gids) assert.equal(again.copyOf(gid), `${again.identity.storeId}~1`);
    await again.close();
    assert.equal((await quarantineContent(dir)).count, 4);
  }));

Deno.test("quarantine keeps a bounded number of folders, the newest always", () =>
  withDir(async (dir) => {
    for (let i = 0; i < KEPT_COUNT_MAX + 3; i++) {
      await Deno.mkdir(dir, { recursive: true });
      await Deno.writeTextFile(`${dir}/file`, String(i));
      await moveAside(dir, { names: ["file", "missing"], reason: `reason ${i}` });
    }
    assert.equal((await quarantineContent(dir)).count, KEPT_COUNT_MAX);
    const names = Array.from(Deno.readDirSync(`${dir}/quarantine`), ({ name }) => name).sort();
    const newest = `${dir}/quarantine/${names.at(-1)}/file`;
    assert.equal(await Deno.readTextFile(newest), String(KEPT_COUNT_MAX + 2));
  }));

Deno.test("a group's log is confirmed until the machine starts anew, however often the process does", async () => {
  const dir = await Deno.makeTempDir();
  const open = (kernelBootId: string) => openDataFolder({ dir, clusterId: "c", kernelBootId });
  const first = await open("one");
  assert.equal(first.isConfirmed(groupId(1)), false);
  await Promise.all([first.confirm(groupId(1)), first.confirm(groupId(2))]);
  assert.equal(first.isConfirmed(groupId(1)), true);
  await first.close();
  for (const [boot, confirmed] of [["one", true], ["two", false], ["two", false]] as const) {
    const folder = await open(boot);
    assert.deepEqual([1, 2].map((gid) => folder.isConfirmed(groupId(gid))), [confirmed, confirmed]);
    assert.equal(folder.isConfirmed(groupId(3)), false);
    await folder.close();
  }
  await Deno.remove(dir, { recursive: true });
});

Deno.test("where the system does not name its starts no log is ever taken for confirmed", async () => {
  const dir = await Deno.makeTempDir();
  const folder = await openDataFolder({ dir, clusterId: "c", kernelBootId: "" });
  await folder.confirm(groupId(1));
  assert.equal(folder.isConfirmed(groupId(1)), false);
  await folder.close();
  await Deno.remove(dir, { recursive: true });
});
