/**
 * A crash at every single byte of a group commit of 64 KiB. Goal: whatever was acknowledged before is
 * there, the node starts, and what it appends after its recovery is there after the next one.
 *
 * The last batch is cut after each of its bytes in turn. A torn record at the end must be cut off
 * before anything is appended: behind it, the new record would be swallowed by the next recovery.
 */
import assert from "node:assert/strict";
import { SimDisk } from "../../kv/disk/sim_disk.ts";
import { segmentName } from "../../kv/disk/wal_segment.ts";
import { DIR, entry, openWal } from "../kv/disk/wal_testing.ts";

const SEGMENT = `${DIR}/${segmentName(1)}`;
const BATCH_BYTES = 64 * 1024;
const RECORD_BYTES = 4_000;
const BEFORE = 3;

Deno.test("a crash at each byte of a batch of 64 KiB loses nothing acknowledged, before it or after", async () => {
  const first = new SimDisk({ seed: 1 });
  const { wal } = await openWal(first);
  for (let at = 1; at <= BEFORE; at++) {
    await wal.append([entry(1, at, new Uint8Array(100).fill(at))]);
  }
  const start = first.bytesOf(SEGMENT).length;
  const count = Math.floor(BATCH_BYTES / (RECORD_BYTES + 48));
  await wal.append(
    Array.from(
      { length: count },
      (_, i) => entry(1, BEFORE + 1 + i, new Uint8Array(RECORD_BYTES).fill(i + 7)),
    ),
  );
  const bytes = first.bytesOf(SEGMENT);
  assert(bytes.length - start > BATCH_BYTES - 2 * RECORD_BYTES);
  for (let cut = start; cut <= bytes.length; cut++) {
    const disk = new SimDisk({ seed: cut });
    await disk.mkdir(DIR);
    disk.setBytes(SEGMENT, bytes.subarray(0, cut));
    const opened = await openWal(disk);
    const kept = opened.recovered.length;
    const whole = Math.floor((cut - start) / (RECORD_BYTES + 48));
    assert.equal(kept, BEFORE + whole, `GUARANTEE BROKEN: cut at ${cut}`);
    await opened.wal.append([entry(1, kept + 1, new Uint8Array([1, 2, 3]))]);
    disk.crash();
    const again = await openWal(disk);
    assert.equal(again.recovered.length, kept + 1, `GUARANTEE BROKEN: appended after ${cut}`);
    assert.equal(again.wal.tornBytes, 0);
  }
  console.log(`${bytes.length - start + 1} cuts`);
});
