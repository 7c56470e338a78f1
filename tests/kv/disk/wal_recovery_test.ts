/**
 * Recovery of the log under attack. Goal: what was acknowledged is found again or its damage refused,
 * and never is anything else given out for it.
 *
 * Three attacks, all on the simulated disk: a tail cut at every byte (also garbled at every sector),
 * every single bit flipped byte by byte, and power loss at a random operation of random work, with
 * any subset of unsynced sectors surviving, life after life on the same disk.
 */
import assert from "node:assert/strict";
import { groupId, lsn } from "../../../proto/ids.ts";
import { CorruptionError } from "../../../kv/errors.ts";
import { isDiskFull } from "../../../kv/disk/disk.ts";
import { seededRandom, SimCrash, SimDisk } from "../../../kv/disk/sim_disk.ts";
import type { Wal, WalRecord } from "../../../kv/disk/wal.ts";
import { segmentName } from "../../../kv/disk/wal_segment.ts";
import {
  commit,
  config,
  DIR,
  entry,
  lineOf,
  linesOf,
  openWal,
  randomBytes,
  truncate,
} from "./wal_testing.ts";

const SEGMENT = `${DIR}/${segmentName(1)}`;

/** A disk whose log is exactly `bytes`. */
async function diskWith(bytes: Uint8Array, seed = 1): Promise<SimDisk> {
  const disk = new SimDisk({ seed });
  await disk.mkdir(DIR);
  disk.setBytes(SEGMENT, bytes);
  return disk;
}

/** Three acknowledged batches and where the last of them begins. */
async function threeBatches(lastRecords: readonly WalRecord[]) {
  const disk = new SimDisk({ seed: 1 });
  const { wal } = await openWal(disk);
  const random = seededRandom(3);
  const first = [config(1, 1, randomBytes(random, 90)), entry(1, 1, randomBytes(random, 33))];
  const second = [entry(1, 2, randomBytes(random, 500)), entry(2, 1, randomBytes(random, 8))];
  await wal.append(first);
  await wal.append(second);
  const lastStart = disk.bytesOf(SEGMENT).length;
  await wal.append(lastRecords);
  return { bytes: disk.bytesOf(SEGMENT), lastStart, before: [...first, ...second] };
}

const lastBatch = (): WalRecord[] => {
  const random = seededRandom(4);
  return [
    entry(1, 3, randomBytes(random, 700)),
    commit(1, 2),
    entry(2, 2, randomBytes(random, 5)),
    truncate(1, 2),
    entry(1, 3, randomBytes(random, 1200), 2),
    entry(2, 3, randomBytes(random, 0)),
  ];
};

/** Recovers, appends, recovers again: what was appended must not be swallowed by the torn tail. */
async function recoverAppendRecover(disk: SimDisk, expected: readonly WalRecord[][]) {
  const { wal, recovered } = await openWal(disk);
  const lines = linesOf(recovered).join("\n");
  const match = expected.find((records) => linesOf(records).join("\n") === lines);
  assert.ok(match !== undefined, `recovered something else:\n${lines}`);
  const next = entry(3, 1, new Uint8Array([1, 2, 3]));
  await wal.append([next]);
  disk.crash();
  const again = await openWal(disk);
  assert.deepEqual(linesOf(again.recovered), linesOf([...recovered, next]));
  assert.equal(again.wal.tornBytes, 0);
  await again.wal.close();
  return match;
}

Deno.test("recovery drops a tail torn at any byte, appends behind it and recovers again", async () => {
  const records = lastBatch();
  const { bytes, lastStart, before } = await threeBatches(records);
  const prefixes = records.map((_, i) => [...before, ...records.slice(0, i)]);
  prefixes.push([...before, ...records]);
  for (let cut = lastStart; cut <= bytes.length; cut++) {
    const match = await recoverAppendRecover(await diskWith(bytes.slice(0, cut)), prefixes);
    if (cut === bytes.length) assert.equal(match.length, before.length + records.length);
  }
});

Deno.test("recovery drops a torn entry of many pieces as a whole", async () => {
  const records = [
    entry(1, 3, randomBytes(seededRandom(5), 200_000)),
    entry(1, 4, new Uint8Array()),
  ];
  const { bytes, lastStart, before } = await threeBatches(records);
  const prefixes = [before, [...before, records[0]!], [...before, ...records]];
  for (let cut = lastStart; cut < bytes.length; cut += 4999) {
    await recoverAppendRecover(await diskWith(bytes.slice(0, cut)), prefixes);
  }
  for (const cut of [lastStart + 65_584, lastStart + 2 * 65_584, bytes.length - 48]) {
    await recoverAppendRecover(await diskWith(bytes.slice(0, cut)), prefixes);
  }
});

Deno.test("recovery drops a last batch of which any one sector never arrived", async () => {
  const records = lastBatch();
  const { bytes, lastStart, before } = await threeBatches(records);
  const prefixes = records.map((_, i) => [...before, ...records.slice(0, i)]);
  for (let sector = Math.floor(lastStart / 512); sector * 512 < bytes.length; sector++) {
    const torn = bytes.slice();
    torn.fill(0, Math.max(lastStart, sector * 512), (sector + 1) * 512);
    await recoverAppendRecover(await diskWith(torn), prefixes);
  }
});

Deno.test("recovery takes a tail of zeros for a clean end", async () => {
  const { bytes, before } = await threeBatches([entry(1, 3, new Uint8Array([9]))]);
  const padded = new Uint8Array(bytes.length + 100_000);
  padded.set(bytes);
  await recoverAppendRecover(await diskWith(padded), [[
    ...before,
    entry(1, 3, new Uint8Array([9])),
  ]]);
});

Deno.test("recovery refuses damage that a later batch proves to be acknowledged, at every byte", async () => {
  const records = lastBatch();
  const { bytes, lastStart, before } = await threeBatches(records);
  for (let at = 0; at < bytes.length; at++) {
    const damaged = bytes.slice();
    damaged[at]! ^= 1 << (at % 8);
    const disk = await diskWith(damaged);
    if (at >= lastStart) {
      // Damage to the very last batch looks like a torn tail. It must at least not be read wrongly.
      const { wal, recovered } = await openWal(disk);
      const all = linesOf([...before, ...records]);
      assert.deepEqual(linesOf(recovered), all.slice(0, recovered.length));
      assert.ok(recovered.length >= before.length && recovered.length < all.length);
      await wal.close();
    } else {
      await assert.rejects(openWal(disk), (error) => {
        return error instanceof CorruptionError && error.file === SEGMENT;
      }, `byte ${at}`);
      assert.deepEqual(disk.bytesOf(SEGMENT), damaged, "a refusal must change nothing");
    }
  }
});

Deno.test("recovery refuses damage to the last batch when a clean stop sealed it", async () => {
  const disk = new SimDisk({ seed: 1 });
  const { wal } = await openWal(disk);
  await wal.append([entry(1, 1, new Uint8Array(100))]);
  await wal.close();
  const bytes = disk.bytesOf(SEGMENT);
  for (let at = 64; at < bytes.length - 48; at++) {
    const damaged = bytes.slice();
    damaged[at]! ^= 0x10;
    await assert.rejects(openWal(await diskWith(damaged)), CorruptionError);
  }
});

Deno.test("recovery refuses a damaged, cut or missing segment before the last", async () => {
  const disk = new SimDisk({ seed: 1 });
  const options = { segmentBytes: 700 };
  const { wal } = await openWal(disk, options);
  for (let i = 1; i <= 20; i++) await wal.append([entry(1, i, new Uint8Array(100).fill(i))]);
  await wal.close();
  const files = new Map<string, Uint8Array>();
  for (const { name } of await disk.list(DIR)) files.set(name, disk.bytesOf(`${DIR}/${name}`));
  assert.ok(files.size >= 4);
  const openWithout = async (change: (name: string, bytes: Uint8Array) => Uint8Array | null) => {
    const copy = new SimDisk({ seed: 1 });
    await copy.mkdir(DIR);
    for (const [name, bytes] of files) {
      const changed = change(name, bytes.slice());
      if (changed !== null) copy.setBytes(`${DIR}/${name}`, changed);
    }
    return openWal(copy, options);
  };
  const second = segmentName(2);
  const damages: ((bytes: Uint8Array) => Uint8Array | null)[] = [
    () => null,
    () => new Uint8Array(),
    (bytes) => bytes.subarray(0, bytes.length - 1),
    (bytes) => bytes.subarray(0, bytes.length - 152),
    (bytes) => bytes.fill(0, 200, 300),
    (bytes) => bytes.fill(0),
    () => files.get(segmentName(3))!,
  ];
  for (const damage of damages) {
    await assert.rejects(
      openWithout((name, bytes) => name === second ? damage(bytes) : bytes),
      CorruptionError,
      String(damage),
    );
  }
  const { wal: whole, recovered } = await openWithout((_, bytes) => bytes);
  assert.equal(recovered.length, 20);
  await whole.close();
});

Deno.test("recovery refuses a log that lost its beginning, and one that was released is whole", async () => {
  const options = { segmentBytes: 1200, keepBytes: 0 };
  const fill = async (disk: SimDisk, from: number) => {
    const { wal, recovered } = await openWal(disk, options);
    for (let at = from; at < from + 40; at++) await wal.append([entry(1, at, new Uint8Array(100))]);
    return { wal, recovered };
  };
  const names = async (disk: SimDisk) => (await disk.list(DIR)).map(({ name }) => name);
  for (const released of [0, 20]) {
    const disk = new SimDisk({ seed: 11 + released });
    const { wal } = await fill(disk, 1);
    wal.release(groupId(1), lsn(released));
    await wal.collected();
    // The process alone ends, without a clean stop.
    disk.endProcess();
    const left = await names(disk);
    assert.equal(left.includes(segmentName(1)), released === 0);
    const { wal: again, recovered } = await openWal(disk, options);
    assert.equal(recovered.filter((record) => record.type === "entry").at(-1)?.lsn, 40);
    await again.close();
    for (const lost of [left.slice(0, 1), left.slice(0, 3)]) {
      const copy = new SimDisk({ seed: 1 });
      await copy.mkdir(DIR);
      for (const name of await names(disk)) {
        if (!lost.includes(name)) copy.setBytes(`${DIR}/${name}`, disk.bytesOf(`${DIR}/${name}`));
      }
      await assert.rejects(openWal(copy, options), /its beginning is missing/);
    }
  }
});

Deno.test("recovery makes a last segment anew when the crash came before its first batch", async () => {
  const { bytes, before } = await threeBatches([entry(1, 3, new Uint8Array([9]))]);
  const expected = [...before, entry(1, 3, new Uint8Array([9]))];
  for (const torn of [new Uint8Array(), new Uint8Array(30), new Uint8Array(500)]) {
    const disk = await diskWith(bytes);
    disk.setBytes(`${DIR}/${segmentName(2)}`, torn);
    await recoverAppendRecover(disk, [expected]);
  }
});

/** One life of a node: random appends by three groups until the disk crashes, or it stops cleanly. */
class Life {
  /** All that was appended, in order; the first `ackedCount` are certainly durable. */
  readonly log: WalRecord[];
  ackedCount: number;
  readonly #last: Map<number, number>;
  constructor(readonly random: () => number, recovered: readonly WalRecord[]) {
    this.log = [...recovered];
    this.ackedCount = recovered.length;
    this.#last = lastLsns(recovered);
  }

  async work(wal: Wal, stepCount: number): Promise<void> {
    const writes: Promise<void>[] = [];
    for (let step = 0; step < stepCount; step++) {
      const records = Array.from({ length: 1 + this.#below(3) }, () => this.#record());
      this.log.push(...records);
      const end = this.log.length;
      writes.push(
        wal.append(records).then(() => {
          this.ackedCount = Math.max(this.ackedCount, end);
        }),
      );
      writes.at(-1)!.catch(() => {});
      for (let turns = this.#below(12); turns > 0; turns--) await null;
      if (this.#below(4) === 0) await writes.at(-1);
    }
    await Promise.all(writes);
  }

  #record(): WalRecord {
    const gid = 1 + this.#below(3);
    const last = this.#last.get(gid) ?? 0;
    const kind = this.random();
    if (kind < 0.1) return config(gid, 1, randomBytes(this.random, this.#below(60)));
    if (kind < 0.2) return commit(gid, last);
    if (kind < 0.28 && last > 2) {
      this.#last.set(gid, last - 2);
      return truncate(gid, last - 2);
    }
    this.#last.set(gid, last + 1);
    const size = this.random() < 0.01 ? 70_000 : this.#below(900);
    return entry(gid, last + 1, randomBytes(this.random, size));
  }

  #below(limit: number): number {
    return Math.floor(this.random() * limit);
  }
}

function lastLsns(records: readonly WalRecord[]): Map<number, number> {
  const last = new Map<number, number>();
  for (const record of records) {
    if (record.type === "entry" || record.type === "truncate") last.set(record.gid, record.lsn);
  }
  return last;
}

Deno.test("everything acknowledged is recovered after power loss at any moment, life after life", async () => {
  let crashCount = 0, unackedKeptCount = 0, tornCount = 0;
  for (let seed = 0; seed < 250; seed++) {
    const random = seededRandom(seed);
    const disk = new SimDisk({ seed });
    const options = { segmentBytes: [1500, 8000, 1_000_000][seed % 3]! };
    let kept: WalRecord[] = [];
    let ackedCount = 0;
    for (let life = 0; life < 5; life++) {
      // A crash during recovery comes about in every third life.
      if (random() < 0.3) {
        disk.crashAfter(1 + Math.floor(random() * 12));
        await openWal(disk, options).then(({ wal }) => wal.close(), (error) => {
          assert.ok(error instanceof SimCrash || error.cause instanceof SimCrash, error);
        });
        disk.crash();
      }
      const { wal, recovered } = await openWal(disk, options);
      const lines = linesOf(recovered);
      assert.ok(recovered.length >= ackedCount, `seed ${seed}: an acknowledged record is lost`);
      assert.deepEqual(lines, linesOf(kept.slice(0, lines.length)), `seed ${seed}`);
      unackedKeptCount += recovered.length - ackedCount;
      if (wal.tornBytes > 0) tornCount++;
      const worker = new Life(random, recovered);
      disk.crashAfter(2 + Math.floor(random() * 60));
      try {
        await worker.work(wal, 25);
        await wal.close();
      } catch (error) {
        const cause = (error as Error).cause;
        assert.ok(error instanceof SimCrash || cause instanceof SimCrash, `seed ${seed}: ${error}`);
        crashCount++;
      }
      disk.crash();
      kept = worker.log;
      ackedCount = worker.ackedCount;
    }
  }
  console.log(
    `${crashCount} crashes, ${tornCount} torn tails, ${unackedKeptCount} records kept unasked`,
  );
  assert.ok(crashCount > 500 && tornCount > 100 && unackedKeptCount > 100);
});

Deno.test("releasing segments loses nothing that is needed, across power loss and a full disk", async () => {
  for (let seed = 0; seed < 150; seed++) {
    const random = seededRandom(1000 + seed);
    const disk = new SimDisk({ seed });
    const options = { segmentBytes: 1200, keepBytes: 1500 };
    const released = new Map<number, number>();
    const acked = new Map<string, WalRecord>();
    const next = new Map([[1, 1], [2, 1]]);
    const configs = new Map<number, number>();
    for (let life = 0; life < 5; life++) {
      const { wal, recovered } = await openWal(disk, options);
      const found = new Set(linesOf(recovered));
      for (const [name, record] of acked) {
        if (record.type !== "entry" || record.lsn <= (released.get(record.gid) ?? 0)) continue;
        assert.ok(found.has(name), `seed ${seed}, life ${life}: ${name.slice(0, 20)} is lost`);
      }
      for (const [gid, number] of configs) {
        const last = recovered.findLast((item) => item.type === "config" && item.gid === gid);
        assert.ok(last?.type === "config" && last.epoch >= number, `seed ${seed}: config lost`);
      }
      const lastLsnOf = lastLsns(recovered);
      for (const gid of [1, 2]) next.set(gid, Math.max(next.get(gid)!, 1));
      for (const [gid, last] of lastLsnOf) next.set(gid, last + 1);
      disk.crashAfter(20 + Math.floor(random() * 120));
      try {
        for (let step = 0; step < 60; step++) {
          const gid = 1 + Math.floor(random() * 2);
          const at = next.get(gid)!;
          const records = [entry(gid, at, randomBytes(random, 80))];
          const newConfig = random() < 0.1 ? (configs.get(gid) ?? 0) + 1 : null;
          if (newConfig !== null) records.push(config(gid, newConfig, new Uint8Array([newConfig])));
          disk.capacityBytes = random() < 0.05 ? disk.usedBytes() + 100 : Infinity;
          try {
            await wal.append(records);
          } catch (error) {
            if (isDiskFull(error)) continue;
            throw error;
          }
          next.set(gid, at + 1);
          acked.set(lineOf(records[0]!), records[0]!);
          if (newConfig !== null) configs.set(gid, newConfig);
          if (random() < 0.3) {
            const upTo = Math.max(0, at - Math.floor(random() * 5));
            released.set(gid, Math.max(released.get(gid) ?? 0, upTo));
            wal.release(groupId(gid), lsn(upTo));
          }
        }
        await wal.close();
      } catch (error) {
        const cause = (error as Error).cause;
        assert.ok(error instanceof SimCrash || cause instanceof SimCrash, `seed ${seed}: ${error}`);
      }
      disk.capacityBytes = Infinity;
      disk.crash();
    }
  }
});
