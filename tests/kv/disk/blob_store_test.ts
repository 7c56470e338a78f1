/** Large values in files: durability, ranges, damage, a full disk, power loss. */
import assert from "node:assert/strict";
import { CorruptionError, KvError } from "../../../kv/errors.ts";
import { BlobStore } from "../../../kv/disk/blob_store.ts";
import { type Disk, DiskFailedError, isDiskFull, RealDisk } from "../../../kv/disk/disk.ts";
import { seededRandom, SimCrash, SimDisk } from "../../../kv/disk/sim_disk.ts";
import { randomBytes } from "./wal_testing.ts";

const idsOf = async (blobs: BlobStore) => (await Array.fromAsync(blobs.folders())).flat().sort();

/** Every file below a folder of a simulated disk. */
async function filesOf(disk: Disk, dir: string): Promise<string[]> {
  const files: string[] = [];
  for (const { name, isDirectory } of await disk.list(dir)) {
    if (isDirectory) files.push(...await filesOf(disk, `${dir}/${name}`));
    else files.push(`${dir}/${name}`);
  }
  return files;
}

async function simStore(seed: number) {
  const disk = new SimDisk({ seed });
  await disk.mkdir("data");
  return { disk, blobs: await BlobStore.open({ disk, dir: "data" }) };
}

Deno.test("BlobStore gives back values and ranges of them, on the real disk", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const blobs = await BlobStore.open({ disk: new RealDisk(), dir });
    const values = new Map<string, Uint8Array>();
    for (const size of [1, 65_535, 65_536, 65_537, 1_000_000, 4 * 1024 * 1024]) {
      values.set(`v-${size}.x`, randomBytes(seededRandom(size), size));
    }
    await Promise.all([...values].map(([id, value]) => blobs.put(id, value)));
    assert.deepEqual(await idsOf(blobs), [...values.keys()].sort());
    for (const [id, value] of values) {
      assert.deepEqual(await blobs.get(id), value);
      const size = value.length;
      for (
        const [offset, length] of [[0, 10], [65_530, 20], [size - 1, 5], [size, 1], [70_000, 0]]
      ) {
        const part = await blobs.get(id, { offset: offset!, length: length! });
        assert.deepEqual(part, value.subarray(offset, offset! + length!));
      }
    }
    await blobs.remove("v-1.x");
    await blobs.remove("v-1.x");
    assert.equal(await blobs.has("v-1.x"), false);
    assert.equal(await blobs.has("v-65536.x"), true);
    await assert.rejects(blobs.get("v-1.x"), CorruptionError);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("BlobStore refuses ids that could leave its folder, and values of a wrong size", async () => {
  const { blobs } = await simStore(1);
  const value = new Uint8Array([1]);
  for (const id of ["", ".", "..", "a/b", "../x", "A", "~1-a", "a b", "x".repeat(129)]) {
    await assert.rejects(blobs.put(id, value), KvError, id);
    await assert.rejects(blobs.get(id), KvError, id);
  }
  await assert.rejects(blobs.put("a", new Uint8Array()), KvError);
  await assert.rejects(blobs.put("a", new Uint8Array(4 * 1024 * 1024 + 1)), KvError);
  assert.deepEqual(await idsOf(blobs), []);
});

Deno.test("BlobStore finds every flipped bit, and reads what is not touched by it", async () => {
  const { disk, blobs } = await simStore(2);
  const value = randomBytes(seededRandom(2), 130_000);
  await blobs.put("a", value);
  const path = (await filesOf(disk, "data"))[0]!;
  const fileBytes = disk.bytesOf(path).length;
  for (let at = 0; at < fileBytes; at += at < 40 ? 1 : 997) {
    disk.flipBits(path, at, 1 << (at % 8));
    await assert.rejects(blobs.get("a"), CorruptionError, `byte ${at}`);
    disk.flipBits(path, at, 1 << (at % 8));
  }
  disk.flipBits(path, fileBytes - 1, 1);
  assert.deepEqual(await blobs.get("a", { length: 65_536 }), value.subarray(0, 65_536));
  await assert.rejects(blobs.get("a", { offset: 129_999 }), CorruptionError);
  disk.setBytes(path, disk.bytesOf(path).subarray(0, 70_000));
  await assert.rejects(blobs.get("a"), CorruptionError);
});

Deno.test("BlobStore leaves nothing behind when the disk is full", async () => {
  const { disk, blobs } = await simStore(3);
  await blobs.put("first", new Uint8Array(70_000).fill(1));
  disk.capacityBytes = disk.usedBytes() + 100_000;
  await assert.rejects(blobs.put("second", new Uint8Array(200_000)), isDiskFull);
  assert.equal((await filesOf(disk, "data")).length, 1);
  assert.deepEqual(await idsOf(blobs), ["first"]);
  await blobs.put("third", new Uint8Array(90_000));
  assert.equal((await blobs.get("first")).length, 70_000);
});

Deno.test("BlobStore says so when a sync fails, and does not keep the value", async () => {
  const { disk, blobs } = await simStore(4);
  await blobs.put("first", new Uint8Array(70_000));
  disk.failNextSync();
  await assert.rejects(blobs.put("second", new Uint8Array(70_000)), DiskFailedError);
  assert.equal(await blobs.has("second"), false);
});

Deno.test("BlobStore keeps every acknowledged value, whole, over power loss at any moment", async () => {
  let crashCount = 0, tracelessCount = 0;
  for (let seed = 0; seed < 120; seed++) {
    const random = seededRandom(seed);
    const { disk } = await simStore(seed);
    const values = new Map<string, Uint8Array>();
    const acked = new Set<string>();
    for (let life = 0; life < 3; life++) {
      const blobs = await BlobStore.open({ disk, dir: "data" });
      const found = new Set(await idsOf(blobs));
      for (const id of acked) assert.ok(found.has(id), `seed ${seed}: ${id} is lost`);
      for (const id of found) assert.deepEqual(await blobs.get(id), values.get(id), id);
      const files = await filesOf(disk, "data");
      assert.equal(files.length, found.size, "list() removes half written files");
      disk.crashAfter(1 + Math.floor(random() * 70));
      const writes = Array.from({ length: 6 }, async (_, i) => {
        const id = `${life}-${i}`;
        values.set(id, randomBytes(random, 1 + Math.floor(random() * 3000)));
        for (let turns = Math.floor(random() * 40); turns > 0; turns--) await null;
        await blobs.put(id, values.get(id)!);
        acked.add(id);
        // Putting the same again, as a retry does, must not endanger the first.
        if (random() < 0.5) await blobs.put(id, values.get(id)!);
      });
      for (const result of await Promise.allSettled(writes)) {
        if (result.status === "fulfilled") continue;
        let reason = result.reason;
        while (reason.cause !== undefined) reason = reason.cause;
        assert.ok(reason instanceof SimCrash, reason);
        crashCount++;
      }
      disk.crash();
    }
    tracelessCount += values.size - acked.size;
  }
  assert.ok(crashCount > 100 && tracelessCount > 100);
});
