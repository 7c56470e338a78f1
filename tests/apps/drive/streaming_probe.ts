/**
 * A program: 300 MB up and down in chunks of 4 MiB, with nothing else in its process, so that its own
 * size can be looked at. Prints what it saw as one line of JSON.
 */
import { makeDrive, USER } from "./drive_fixture.ts";
import { SinkKv, zeros } from "./sink_kv.ts";

export const MIB = 1024 * 1024;
export const CHUNK = 4 * MIB;
export const FILE = 300 * MIB;

export interface StreamingFigures {
  readonly chunkRows: number;
  readonly received: number;
  /** Bytes of values that the store was writing, or reading, at once. */
  readonly upMax: number;
  readonly downMax: number;
  /** How much the process grew from before the upload, in bytes. */
  readonly grown: number;
}

if (import.meta.main) console.log(JSON.stringify(await transfer()));

async function transfer(): Promise<StreamingFigures> {
  const kv = new SinkKv();
  const { drive } = makeDrive({ kv, drive: { chunk_bytes: CHUNK } });
  const before = Deno.memoryUsage().rss;
  let rssMax = before;
  const watch = setInterval(() => rssMax = Math.max(rssMax, Deno.memoryUsage().rss), 20);
  const item = await drive.upload(USER, { parent: "root", name: "big", conflict: "fail" }, {
    size: FILE,
    body: zeros(FILE),
  });
  const upMax = kv.underWayMax;
  kv.underWayMax = 0;
  const file = await drive.openFile(USER, item.id);
  let received = 0;
  for await (const part of file.read(0, FILE)) received += part.length;
  clearInterval(watch);
  const grown = rssMax - before;
  return { chunkRows: kv.sizes.size, received, upMax, downMax: kv.underWayMax, grown };
}
