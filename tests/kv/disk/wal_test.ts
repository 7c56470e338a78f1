/** The log as its users see it: order, durability, reading back, releasing, a full and a failing disk. */
import assert from "node:assert/strict";
import { groupId, lsn } from "../../../proto/ids.ts";
import { InvariantViolation } from "../../../kv/invariant.ts";
import { DiskFailedError, isDiskFull, RealDisk } from "../../../kv/disk/disk.ts";
import { crc32c } from "../../../kv/disk/crc32c.ts";
import { seededRandom, SimDisk } from "../../../kv/disk/sim_disk.ts";
import type { WalRecord } from "../../../kv/disk/wal.ts";
import { segmentName } from "../../../kv/disk/wal_segment.ts";
import {
  commit,
  config,
  DIR,
  entry,
  linesOf,
  openWal,
  randomBytes,
  reset,
  truncate,
} from "./wal_testing.ts";

const bytes = (...values: number[]) => new Uint8Array(values);
const g1 = groupId(1), g2 = groupId(2);
const all = { maxBytes: Infinity, maxEntries: Infinity };

Deno.test("crc32c() equals the published checks", () => {
  const text = (value: string) => new TextEncoder().encode(value);
  assert.equal(crc32c(text("123456789")), 0xe3069283);
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  const whole = text("The quick brown fox jumps over the lazy dog");
  assert.equal(crc32c(whole, 20, whole.length, crc32c(whole, 0, 20)), crc32c(whole));
});

Deno.test("Wal gives back all kinds of records in order, with payloads of any size", async () => {
  const random = seededRandom(1);
  const disk = new SimDisk({ seed: 1 });
  const sizes = [0, 1, 7, 8, 9, 4096, 4097, 65_535, 65_536, 65_537, 131_072, 200_001, 4_700_000];
  const records: WalRecord[] = [config(1, 3, randomBytes(random, 300)), commit(2, 9)];
  sizes.forEach((size, i) => records.push(entry(1, i + 1, randomBytes(random, size), 3)));
  records.push(truncate(1, 4, 5), entry(1, 5, bytes(255, 0, 10), 5), reset(2, 2 ** 40, 2 ** 33));
  records.push(entry(2, 2 ** 40 + 1, bytes(), 2 ** 33), config(2, 1, bytes()));
  {
    const { wal, recovered } = await openWal(disk, { segmentBytes: 100_000 });
    assert.ok(wal.isNew);
    assert.deepEqual(recovered, []);
    await wal.append(records.slice(0, 5));
    await Promise.all(records.slice(5).map((record) => wal.append([record])));
    assert.ok(wal.sizeBytes > 5_000_000);
    await wal.close();
  }
  const { wal, recovered } = await openWal(disk);
  assert.ok(!wal.isNew);
  assert.equal(wal.tornBytes, 0);
  assert.deepEqual(linesOf(recovered), linesOf(records));
  const read = await wal.readEntries(g1, lsn(1), all);
  assert.deepEqual(read!.map((item) => item.lsn), [1, 2, 3, 4, 5]);
  assert.deepEqual(read![4]!.payload, bytes(255, 0, 10));
  await wal.close();
});

Deno.test("Wal joins concurrent appends into few syncs, and rejects nothing", async () => {
  const { wal } = await openWal(new SimDisk({ seed: 2 }));
  const before = wal.stats;
  await Promise.all(
    Array.from({ length: 300 }, (_, i) => wal.append([entry(1, i + 1, new Uint8Array(50))])),
  );
  assert.equal(wal.stats.recordCount - before.recordCount, 300);
  assert.ok(wal.stats.fsyncCount - before.fsyncCount <= 2);
  await wal.close();
});

Deno.test("Wal refuses entries that leave a gap, and cuts behind the end", async () => {
  const { wal } = await openWal(new SimDisk({ seed: 3 }));
  await wal.append([entry(1, 7, bytes(1))]);
  await assert.rejects(wal.append([entry(1, 9, bytes(1))]), InvariantViolation);
  await assert.rejects(wal.append([truncate(1, 8)]), InvariantViolation);
  await assert.rejects(
    wal.append([entry(1, 8, bytes(1)), entry(1, 10, bytes(1))]),
    InvariantViolation,
  );
  await wal.append([entry(1, 8, bytes(1))]);
  await wal.close();
});

Deno.test("Wal.readEntries() leaves out what was cut, across segments and large entries", async () => {
  const disk = new SimDisk({ seed: 4 });
  const random = seededRandom(4);
  const { wal } = await openWal(disk, { segmentBytes: 3000 });
  const live: Uint8Array[] = [];
  let otherLsn = 0;
  for (let step = 0; step < 400; step++) {
    if (random() < 0.1 && live.length > 3) {
      live.length -= Math.floor(random() * 4);
      await wal.append([truncate(1, live.length)]);
    } else {
      const size = random() < 0.02 ? 70_000 : Math.floor(random() * 200);
      live.push(randomBytes(random, size));
      await wal.append([
        entry(1, live.length, live.at(-1)!),
        entry(2, ++otherLsn, randomBytes(random, 20)),
      ]);
    }
    const fromLsn = 1 + Math.floor(random() * live.length);
    const maxEntries = 1 + Math.floor(random() * 30);
    const read = await wal.readEntries(g1, lsn(fromLsn), { maxBytes: 1000, maxEntries });
    assert.ok(read!.length > 0 && read!.length <= maxEntries);
    read!.forEach((item, i) => {
      assert.equal(item.lsn, fromLsn + i);
      assert.deepEqual(item.payload, live[fromLsn - 1 + i]);
    });
  }
  assert.deepEqual(await wal.readEntries(g1, lsn(live.length + 1), all), []);
  assert.equal(await wal.readEntries(groupId(3), lsn(1), all), null);
  await wal.close();
  const again = await openWal(disk);
  const read = await again.wal.readEntries(g1, lsn(1), all);
  assert.deepEqual(read!.map((item) => item.payload), live);
  await again.wal.append([reset(1, 9000)]);
  assert.equal(await again.wal.readEntries(g1, lsn(1), all), null);
  assert.deepEqual(await again.wal.readEntries(g1, lsn(9001), all), []);
  await again.wal.close();
});

Deno.test("Wal.release() deletes segments down to keepBytes, and keeps configs and commits", async () => {
  const disk = new SimDisk({ seed: 5 });
  const options = { segmentBytes: 2000, keepBytes: 5000 };
  const { wal } = await openWal(disk, options);
  await wal.append([config(1, 1, bytes(1)), config(2, 7, bytes(7)), commit(2, 0)]);
  await wal.append([entry(2, 1, bytes(1))]);
  for (let i = 1; i <= 200; i++) {
    await wal.append([entry(1, i, new Uint8Array(100)), commit(1, i)]);
    if (i === 100) await wal.append([config(1, 2, bytes(2))]);
  }
  const fullBytes = wal.sizeBytes;
  wal.release(g1, lsn(150));
  await wal.collected();
  assert.equal(wal.sizeBytes, fullBytes, "group 2 still needs the first segment");
  wal.release(g2, lsn(1));
  await wal.collected();
  assert.ok(wal.sizeBytes < fullBytes / 2);
  const { firstLsn, lastLsn } = wal.bounds(g1)!;
  assert.ok(firstLsn > 100 && firstLsn <= 151 && lastLsn === 200);
  assert.equal(await wal.readEntries(g1, lsn(1), all), null);
  wal.release(g1, lsn(200));
  await wal.collected();
  assert.ok(wal.sizeBytes >= 5000 && wal.sizeBytes < 5000 + 2 * 2000);
  await wal.append([entry(2, 2, bytes(2))]);
  await wal.close();

  const { wal: again, recovered } = await openWal(disk, options);
  const ofType = (type: string, gid: number) =>
    recovered.filter((record) => record.type === type && record.gid === gid);
  assert.deepEqual(linesOf(ofType("config", 1)), linesOf([config(1, 2, bytes(2))]));
  assert.deepEqual(linesOf(ofType("config", 2)), linesOf([config(2, 7, bytes(7))]));
  assert.deepEqual(linesOf(ofType("commit", 2)), linesOf([commit(2, 0)]));
  assert.deepEqual(linesOf(ofType("commit", 1).slice(-1)), linesOf([commit(1, 200)]));
  assert.deepEqual(linesOf(ofType("entry", 2)), linesOf([entry(2, 2, bytes(2))]));
  const numbers = (await disk.list(DIR)).map(({ name }) => name);
  assert.ok(!numbers.includes(segmentName(1)));
  await again.append([entry(1, 201, bytes(1)), entry(2, 3, bytes(3))]);
  await again.close();
});

Deno.test("Wal.release() never lets an older config outlive a newer one", async () => {
  for (let seed = 0; seed < 30; seed++) {
    const disk = new SimDisk({ seed });
    const options = { segmentBytes: 600, keepBytes: 0 };
    const { wal } = await openWal(disk, options);
    const writes: Promise<void>[] = [];
    for (let i = 1; i <= 60; i++) {
      writes.push(wal.append([entry(1, i, new Uint8Array(60)), config(1, i, bytes(i))]));
      if (i % 3 === 0) await writes.at(-1);
      wal.release(g1, lsn(i - 1));
    }
    await Promise.all(writes);
    await wal.close();
    const { wal: again, recovered } = await openWal(disk, options);
    const configs = recovered.filter((record) => record.type === "config");
    assert.deepEqual(linesOf(configs.slice(-1)), linesOf([config(1, 60, bytes(60))]));
    await again.close();
  }
});

Deno.test("Wal rejects with disk_full, keeps nothing of the batch, and goes on when there is space", async () => {
  for (let seed = 0; seed < 20; seed++) {
    const disk = new SimDisk({ seed, capacityBytes: 3000 + seed * 40 });
    const options = { segmentBytes: 1500 };
    const { wal } = await openWal(disk, options);
    let last = 0;
    try {
      while (true) {
        await wal.append([entry(1, last + 1, new Uint8Array(150).fill(last))]);
        last++;
      }
    } catch (error) {
      assert.ok(isDiskFull(error));
      assert.equal(error.outcome, "not_applied");
    }
    // What was queued behind the failed batch fails with it, for it would leave a gap.
    const both = [last + 1, last + 2].map((at) => wal.append([entry(1, at, new Uint8Array(150))]));
    for (const result of await Promise.allSettled(both)) assert.equal(result.status, "rejected");
    assert.equal((await wal.readEntries(g1, lsn(1), all))!.length, last);
    disk.capacityBytes = Infinity;
    await wal.append([entry(1, last + 1, bytes(1))]);
    await wal.close();
    const { wal: again, recovered } = await openWal(disk, options);
    assert.equal(again.tornBytes, 0);
    assert.equal(recovered.length, last + 1);
    await again.close();
  }
});

Deno.test("Wal opens on a full disk, reads, and writes once there is space", async () => {
  const disk = new SimDisk({ seed: 6 });
  const { wal } = await openWal(disk);
  await wal.append([entry(1, 1, bytes(1))]);
  disk.crash();
  disk.capacityBytes = disk.usedBytes();
  const { wal: again } = await openWal(disk);
  assert.equal((await again.readEntries(g1, lsn(1), all))!.length, 1);
  await assert.rejects(again.append([entry(1, 2, bytes(2))]), isDiskFull);
  disk.capacityBytes = Infinity;
  await again.append([entry(1, 2, bytes(2))]);
  disk.crash();
  const { wal: third, recovered } = await openWal(disk);
  assert.equal(recovered.length, 2);
  await third.close();
});

Deno.test("Wal.open() does not build on a batch whose sync failed, however well it reads", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const disk = new SimDisk({ seed });
    const { wal } = await openWal(disk, seed % 2 === 0 ? { segmentBytes: 200 } : {});
    await wal.append([entry(1, 1, bytes(1))]);
    disk.failNextSync();
    await assert.rejects(wal.append([entry(1, 2, bytes(600))]), DiskFailedError);
    // The process ends; the kernel still shows what it could not write, and takes it for written.
    disk.endProcess();
    const { wal: again, recovered } = await openWal(disk, {});
    const last = recovered.length;
    await again.append([entry(1, last + 1, bytes(1))]);
    disk.crash();
    const { wal: third, recovered: kept } = await openWal(disk, {});
    assert.equal(kept.length, last + 1, `seed ${seed}`);
    await third.close();
  }
});

Deno.test("Wal rejects every append for ever after a failed sync", async () => {
  const disk = new SimDisk({ seed: 7 });
  const { wal } = await openWal(disk);
  await wal.append([entry(1, 1, bytes(1))]);
  disk.failNextSync();
  const results = await Promise.allSettled([
    wal.append([entry(1, 2, bytes(2))]),
    wal.append([entry(1, 3, bytes(3))]),
  ]);
  for (const result of results) {
    assert.ok(result.status === "rejected" && result.reason instanceof DiskFailedError);
  }
  await assert.rejects(wal.append([]), DiskFailedError);
  assert.ok(wal.failure instanceof DiskFailedError);
  await wal.close();
});

Deno.test("Wal answers busy instead of queueing without end", async () => {
  const disk = new SimDisk({ seed: 8 });
  const { wal } = await openWal(disk);
  disk.capacityBytes = 0;
  const payload = new Uint8Array(15_000_000);
  const codes = await Promise.all(
    Array.from(
      { length: 10 },
      (_, i) => wal.append([entry(1, i + 1, payload)]).then(() => "ok", (error) => error.code),
    ),
  );
  assert.deepEqual(codes, [...Array(8).fill("disk_full"), "busy", "busy"]);
  await wal.close();
});

Deno.test("Wal.open() refuses the log of another store or cluster", async () => {
  const disk = new SimDisk({ seed: 9 });
  const { wal } = await openWal(disk);
  await wal.append([entry(1, 1, bytes(1))]);
  await wal.close();
  await assert.rejects(openWal(disk, { storeId: "other" }), /written by another store/);
  await assert.rejects(openWal(disk, { clusterId: "other" }), /written by another cluster/);
});

Deno.test("Wal works on the real disk", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const options = { dir: `${dir}/deep/wal`, segmentBytes: 20_000, keepBytes: 0 };
    const { wal } = await openWal(new RealDisk(), options);
    const random = seededRandom(10);
    const payloads = Array.from({ length: 200 }, () => randomBytes(random, random() * 1000 | 0));
    await Promise.all(payloads.map((payload, i) => wal.append([entry(1, i + 1, payload)])));
    await wal.append([entry(1, 201, randomBytes(random, 300_000))]);
    await wal.close();
    const { wal: again, recovered } = await openWal(new RealDisk(), options);
    assert.equal(recovered.length, 201);
    const read = await again.readEntries(g1, lsn(1), { maxBytes: 1e9, maxEntries: 200 });
    assert.deepEqual(read!.map((item) => item.payload), payloads);
    again.release(g1, lsn(201));
    await again.collected();
    await again.close();
    await openWal(new RealDisk(), options).then(({ wal }) => wal.close());
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
