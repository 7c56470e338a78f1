/** What both disks keep to. The simulated one earns its trust here, before it stands in elsewhere. */
import assert from "node:assert/strict";
import { type Disk, isDiskFull, RealDisk } from "../../../kv/disk/disk.ts";
import { SimCrash, SimDisk } from "../../../kv/disk/sim_disk.ts";

const bytes = (...values: number[]) => new Uint8Array(values);

function contract(name: string, run: (disk: Disk, dir: string) => Promise<void>): void {
  Deno.test(`RealDisk ${name}`, async () => {
    const dir = await Deno.makeTempDir();
    try {
      await run(new RealDisk(), dir);
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  });
  Deno.test(`SimDisk ${name}`, async () => {
    for (let seed = 0; seed < 20; seed++) {
      const disk = new SimDisk({ seed });
      await disk.mkdir("/data");
      await run(disk, "/data");
    }
  });
}

contract("reads back what was written, at any offset", async (disk, dir) => {
  const file = await disk.open(`${dir}/a`, { create: true });
  await file.writeAt(0, bytes(1, 2, 3));
  await file.writeAt(5, bytes(6));
  assert.equal(await file.size(), 6);
  const buffer = new Uint8Array(10);
  assert.equal(await file.readAt(1, buffer), 5);
  assert.deepEqual(buffer.subarray(0, 5), bytes(2, 3, 0, 0, 6));
  assert.equal(await file.readAt(6, buffer), 0);
  await file.sync();
  await file.close();
});

contract("serves reads and writes at different offsets at once", async (disk, dir) => {
  const file = await disk.open(`${dir}/a`, { create: true });
  await Promise.all(Array.from({ length: 40 }, async (_, i) => {
    await file.writeAt(i * 100, new Uint8Array(100).fill(i));
    const buffer = new Uint8Array(100);
    assert.equal(await file.readAt(i * 100, buffer), 100);
    assert.ok(buffer.every((byte) => byte === i));
  }));
  await file.close();
});

contract("cuts and grows a file with truncate, zeros behind the old end", async (disk, dir) => {
  const file = await disk.open(`${dir}/a`, { create: true });
  await file.writeAt(0, bytes(1, 2, 3, 4));
  await file.truncate(2);
  assert.equal(await file.size(), 2);
  await file.truncate(4);
  const buffer = new Uint8Array(4);
  assert.equal(await file.readAt(0, buffer), 4);
  assert.deepEqual(buffer, bytes(1, 2, 0, 0));
  await file.close();
});

contract("opens a missing file only with create, and says ENOENT otherwise", async (disk, dir) => {
  await assert.rejects(disk.open(`${dir}/missing`), { code: "ENOENT" });
  await assert.rejects(disk.list(`${dir}/missing`), { code: "ENOENT" });
  for (const missing of [`${dir}/missing`, `${dir}/no-folder/missing`]) {
    assert.equal(await disk.stat(missing), null);
    await disk.remove(missing);
  }
});

contract("lists, renames over and removes files", async (disk, dir) => {
  await disk.mkdir(`${dir}/sub/deep`);
  await disk.mkdir(`${dir}/sub`);
  for (const [name, value] of [["b", 2], ["a", 1]] as const) {
    const file = await disk.open(`${dir}/sub/${name}`, { create: true });
    await file.writeAt(0, bytes(value));
    await file.close();
  }
  assert.deepEqual(await disk.list(`${dir}/sub`), [
    { name: "a", isDirectory: false },
    { name: "b", isDirectory: false },
    { name: "deep", isDirectory: true },
  ]);
  await disk.rename(`${dir}/sub/a`, `${dir}/sub/b`);
  await disk.syncDir(`${dir}/sub`);
  assert.equal(await disk.stat(`${dir}/sub/a`), null);
  assert.deepEqual(await disk.stat(`${dir}/sub/b`), { bytes: 1, isDirectory: false });
  const file = await disk.open(`${dir}/sub/b`);
  const buffer = new Uint8Array(1);
  await file.readAt(0, buffer);
  assert.deepEqual(buffer, bytes(1));
  await file.close();
  await disk.remove(`${dir}/sub/b`);
  assert.equal(await disk.stat(`${dir}/sub/b`), null);
});

Deno.test("RealDisk reports a full disk as disk_full", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  const file = await new RealDisk().open("/dev/full");
  await assert.rejects(file.writeAt(0, bytes(1)), isDiskFull);
  await file.close();
});

Deno.test("SimDisk reports a full disk as disk_full, after taking what fits", async () => {
  const disk = new SimDisk({ seed: 1, capacityBytes: 10 });
  const file = await disk.open("a", { create: true });
  await file.writeAt(0, new Uint8Array(8));
  await assert.rejects(file.writeAt(8, new Uint8Array(8)), isDiskFull);
  assert.equal(await file.size(), 10);
  await file.truncate(8);
  assert.equal(await disk.freeBytes(), 2);
});

Deno.test("SimDisk keeps what was synced and may lose any sectors of what was not", async () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const disk = new SimDisk({ seed });
    const file = await disk.open("a", { create: true });
    await disk.syncDir("");
    await file.writeAt(0, new Uint8Array(1024).fill(1));
    await file.sync();
    await file.writeAt(1024, new Uint8Array(1024).fill(2));
    disk.crash();
    await assert.rejects(file.sync(), SimCrash);
    const kept = disk.bytesOf("a");
    assert.ok(kept.length >= 1024 && kept.length <= 2048);
    assert.ok(kept.subarray(0, 1024).every((byte) => byte === 1));
    outcomes.add(`${kept[1024] ?? "cut"} ${kept[1536] ?? "cut"}`);
  }
  assert.ok(outcomes.has("2 2") && outcomes.has("0 2") && outcomes.has("cut cut"));
});

Deno.test("SimDisk may lose a name that was not synced, and keeps one that was", async () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 50; seed++) {
    const disk = new SimDisk({ seed });
    const file = await disk.open("new", { create: true });
    await file.writeAt(0, bytes(1));
    await file.sync();
    await disk.syncDir("");
    await disk.rename("new", "renamed");
    disk.crash();
    const names = (await disk.list("")).map((entry) => entry.name);
    assert.equal(names.length, 1);
    outcomes.add(names[0]!);
    assert.deepEqual(disk.bytesOf(names[0]!), bytes(1));
  }
  assert.deepEqual(outcomes, new Set(["new", "renamed"]));
});

Deno.test("SimDisk loses the pages of a failed sync although the next sync succeeds", async () => {
  const disk = new SimDisk({ seed: 1 });
  const file = await disk.open("a", { create: true });
  await disk.syncDir("");
  await file.writeAt(0, bytes(1));
  disk.failNextSync();
  await assert.rejects(file.sync(), { code: "EIO" });
  await file.sync();
  disk.crash();
  assert.notEqual(disk.bytesOf("a")[0], 1);
});
