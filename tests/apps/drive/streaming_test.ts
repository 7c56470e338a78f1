/**
 * Goal: what a transfer holds in memory does not grow with the file.
 *
 * Method: 300 MB go through a store that forgets values and counts the bytes that are under way at
 * once, both ways, in a process of its own, whose size is looked at as well; then many transfers at
 * once, with slow readers among them.
 */
import assert from "node:assert/strict";
import { runOwnProcess } from "../../own_process.ts";
import { makeDrive, USER } from "./drive_fixture.ts";
import { SinkKv, zeros } from "./sink_kv.ts";
import { CHUNK, FILE, MIB, type StreamingFigures } from "./streaming_probe.ts";

Deno.test("streaming: 300 MB up and down hold a few chunks at a time", async () => {
  const seen = await runOwnProcess<StreamingFigures>(import.meta.resolve("./streaming_probe.ts"));
  assert.equal(seen.chunkRows, FILE / CHUNK);
  assert.equal(seen.received, FILE);
  assert(seen.upMax <= 4 * CHUNK, `${seen.upMax / MIB} MiB were under way at once`);
  assert(seen.upMax > CHUNK, "chunks go in parallel");
  assert(seen.downMax <= 3 * CHUNK, `${seen.downMax / MIB} MiB were read ahead`);
  // Half the file: the runtime keeps dead chunks for a while before it looks at them.
  assert(seen.grown < FILE / 2, `grew by ${seen.grown / MIB} MiB`);
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
