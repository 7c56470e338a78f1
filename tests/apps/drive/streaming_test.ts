/**
 * Goal: what a transfer holds in memory does not grow with the file.
 *
 * Method: 300 MB go through a store that forgets values and counts the bytes that are under way at
 * once, both ways, with slow readers among them. The process' own size is looked at as well.
 */
import assert from "node:assert/strict";
import type { CallOptions, FullCell, Kv, RowOp } from "../../../kv/kv.ts";
import { MemoryKv } from "../../../kv/memory_kv.ts";
import { version } from "../../../proto/ids.ts";
import { makeDrive, USER } from "./drive_fixture.ts";

const MIB = 1024 * 1024;
const CHUNK = 4 * MIB;
const FILE = 300 * MIB;

/** Chunk rows are counted and forgotten, and read as zeros; all else goes to a real store. */
class SinkKv implements Kv {
  readonly inner = new MemoryKv();
  readonly sizes = new Map<string, number>();
  underWay = 0;
  underWayMax = 0;
  getRow = this.inner.getRow.bind(this.inner);
  scan = this.inner.scan.bind(this.inner);
  transact = this.inner.transact.bind(this.inner);

  async apply(op: RowOp) {
    if (op.row[3] !== "~") return await this.inner.apply(op);
    const [mutation] = op.mutations;
    const bytes = mutation?.kind === "put" ? mutation.value.length : 0;
    await this.#hold(bytes);
    this.sizes.set(op.row, bytes);
    return { applied: true as const, version: version(1), numbers: [] };
  }

  async get(row: string, column: string, _options?: CallOptions): Promise<FullCell | null> {
    if (row[3] !== "~") return await this.inner.get(row, column);
    const size = this.sizes.get(row)!;
    await this.#hold(size);
    return { column, version: version(1), size, value: new Uint8Array(size) };
  }

  async #hold(bytes: number) {
    this.underWay += bytes;
    this.underWayMax = Math.max(this.underWayMax, this.underWay);
    await new Promise((resolve) => setTimeout(resolve, 1));
    this.underWay -= bytes;
  }
}

async function* zeros(bytes: number) {
  const piece = new Uint8Array(64 * 1024);
  for (let sent = 0; sent < bytes; sent += piece.length) yield await Promise.resolve(piece);
}

Deno.test("streaming: 300 MB up and down hold a few chunks at a time", async () => {
  const kv = new SinkKv();
  const { drive } = makeDrive({ kv, drive: { chunk_bytes: CHUNK } });
  const before = Deno.memoryUsage().rss;
  let rssMax = 0;
  const watch = setInterval(() => rssMax = Math.max(rssMax, Deno.memoryUsage().rss), 20);
  const item = await drive.upload(USER, { parent: "root", name: "big", conflict: "fail" }, {
    size: FILE,
    body: zeros(FILE),
  });
  assert.equal(kv.sizes.size, FILE / CHUNK);
  assert(kv.underWayMax <= 4 * CHUNK, `${kv.underWayMax / MIB} MiB were under way at once`);
  assert(kv.underWayMax > CHUNK, "chunks go in parallel");

  kv.underWayMax = 0;
  const file = await drive.openFile(USER, item.id);
  let received = 0;
  for await (const part of file.read(0, FILE)) received += part.length;
  assert.equal(received, FILE);
  assert(kv.underWayMax <= 3 * CHUNK, `${kv.underWayMax / MIB} MiB were read ahead`);
  clearInterval(watch);
  assert(rssMax - before < 150 * MIB, `grew by ${(rssMax - before) / MIB} MiB`);
});

Deno.test("streaming: forty transfers at once stay within one each and the common budget", async () => {
  const kv = new SinkKv();
  const { drive } = makeDrive({ kv, drive: { chunk_bytes: 64 * 1024 } });
  const bytes = 3 * MIB;
  const items = await Promise.all(
    Array.from(
      { length: 40 },
      (_, i) =>
        drive.upload(USER, { parent: "root", name: `f${i}`, conflict: "fail" }, {
          size: bytes,
          body: zeros(bytes),
        }),
    ),
  );
  // One chunk each, and 64 MiB of budget is more than all of it here: the limit of four each holds.
  assert(kv.underWayMax <= 40 * 4 * 64 * 1024);
  const stalled = await Promise.all(items.map(async (item) => {
    const reader = (await drive.openFile(USER, item.id)).read(0, bytes).getReader();
    await reader.read();
    return reader;
  }));
  for (const reader of stalled) await reader.cancel();
  // Everything lent was given back: a new reader still reads ahead.
  kv.underWayMax = 0;
  for await (const _ of (await drive.openFile(USER, items[0]!.id)).read(0, bytes));
  assert(kv.underWayMax > 64 * 1024);
});
