/** Zip archives: read back by a small reader of the central directory, zip64 included. */
import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import { writeZip, type ZipEntry } from "../../../apps/drive/archive.ts";
import { makeDrive, pseudoRandomBytes, putFile, readAll, USER } from "./drive_fixture.ts";

interface FoundEntry {
  readonly path: string;
  readonly size: number;
  readonly crc: number;
  readonly offset: number;
}

/** The central directory at the end of `bytes`, which begin at `start` of the archive. */
function readDirectory(bytes: Uint8Array, start = 0): FoundEntry[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const end = bytes.length - 22;
  assert.equal(view.getUint32(end, true), 0x06054b50, "the end record is the last thing");
  let count = view.getUint16(end + 10, true), at = view.getUint32(end + 16, true);
  if (view.getUint32(end - 20, true) === 0x07064b50) {
    const zip64 = Number(view.getBigUint64(end - 20 + 8, true)) - start;
    assert.equal(view.getUint32(zip64, true), 0x06064b50);
    count = Number(view.getBigUint64(zip64 + 32, true));
    at = Number(view.getBigUint64(zip64 + 48, true));
  }
  at -= start;
  const found: FoundEntry[] = [];
  for (let i = 0; i < count; i++) {
    assert.equal(view.getUint32(at, true), 0x02014b50);
    assert.equal(view.getUint16(at + 8, true) & 0x0800, 0x0800, "names are marked as UTF-8");
    const nameBytes = view.getUint16(at + 28, true), extraBytes = view.getUint16(at + 30, true);
    const path = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameBytes));
    let size = view.getUint32(at + 24, true), offset = view.getUint32(at + 42, true);
    let extra = at + 46 + nameBytes + 4;
    if (size === 0xffffffff) {
      size = Number(view.getBigUint64(extra, true));
      extra += 16;
    }
    if (offset === 0xffffffff) offset = Number(view.getBigUint64(extra, true));
    found.push({ path, size, crc: view.getUint32(at + 16, true), offset });
    at += 46 + nameBytes + extraBytes;
  }
  return found;
}

Deno.test("Drive.archive() gives a folder and all below it as a sound zip", async () => {
  const { drive } = makeDrive();
  const trip = await drive.createFolder(USER, { parent: "root", name: "Trip été" });
  const inner = await drive.createFolder(USER, { parent: trip.id, name: "a\\b" });
  await drive.createFolder(USER, { parent: trip.id, name: "empty" });
  const one = pseudoRandomBytes(200_000, 1), two = pseudoRandomBytes(10, 2);
  await putFile(drive, { parent: trip.id, name: "one.bin", bytes: one });
  await putFile(drive, { parent: inner.id, name: "two.bin", bytes: two });
  await putFile(drive, { parent: inner.id, name: "nothing", bytes: new Uint8Array(0) });

  const archive = await drive.archive(USER, [trip.id]);
  assert.equal(archive.name, "Trip été.zip");
  const bytes = await readAll(archive.body);
  const entries = readDirectory(bytes);
  assert.deepEqual(entries.map((entry) => entry.path).sort(), [
    "Trip été/",
    "Trip été/a_b/",
    "Trip été/a_b/nothing",
    "Trip été/a_b/two.bin",
    "Trip été/empty/",
    "Trip été/one.bin",
  ]);
  for (const entry of entries) {
    const view = new DataView(bytes.buffer, entry.offset);
    assert.equal(view.getUint32(0, true), 0x04034b50);
    const start = entry.offset + 30 + view.getUint16(26, true) + view.getUint16(28, true);
    const content = bytes.subarray(start, start + entry.size);
    assert.equal(crc32(content), entry.crc, entry.path);
  }
});

Deno.test("Drive.archive() of the root holds the whole drive", async () => {
  const { drive } = makeDrive();
  await putFile(drive, { name: "a", bytes: new Uint8Array(1) });
  const archive = await drive.archive(USER, ["root"]);
  assert.equal(archive.name, "My drive.zip");
  assert.deepEqual(readDirectory(await readAll(archive.body)).map((one) => one.path), [
    "My drive/",
    "My drive/a",
  ]);
  const item = (await drive.open(USER, "root")).children[0]!;
  await assert.rejects(drive.archive(USER, [item.id]), /is a file/);
  await assert.rejects(drive.archive(USER, []), /1 to 200/);
});

Deno.test("writeZip() uses zip64 for a file above 4 GiB, what follows it, and many entries", async () => {
  const size = 5 * 1024 ** 3;
  const block = new Uint8Array(4 * 1024 * 1024);
  async function* body() {
    for (let sent = 0; sent < size; sent += block.length) yield await Promise.resolve(block);
  }
  async function* entries(): AsyncGenerator<ZipEntry> {
    yield { path: "large", modifiedMs: 0, size, crc: 1, body };
    for (let i = 0; i < 70_000; i++) {
      yield await Promise.resolve({ path: `small ${i}`, modifiedMs: 0, size: 0, crc: 0 });
    }
  }
  // Keeps what follows the large file's bytes.
  const parts: Uint8Array[] = [];
  let start = 0, total = 0;
  for await (const part of writeZip(entries())) {
    total += part.length;
    if (part === block) {
      parts.length = 0;
      start = total;
    } else parts.push(part);
  }
  const tail = new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
  const found = readDirectory(tail, start);
  assert.equal(found.length, 70_001);
  assert.deepEqual(found[0], { path: "large", size, crc: 1, offset: 0 });
  assert.equal(found.at(-1)!.path, "small 69999");
  assert(found.at(-1)!.offset > size);
});
