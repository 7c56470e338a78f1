/** What the disk gives without any system: files written and copied, each with one fsync at its end. */
import { join } from "node:path";

const PIECE_BYTES = 1024 ** 2;

/** Reads `source` once for each copy, as three nodes would; all at the same time. */
export async function copyWithSync(source: string, copies: readonly string[]): Promise<void> {
  await Promise.all(copies.map(async (path) => {
    using from = await Deno.open(source);
    using to = await Deno.open(path, { write: true, create: true, truncate: true });
    const piece = new Uint8Array(PIECE_BYTES);
    for (let count; (count = await from.read(piece)) !== null;) {
      await writeWhole(to, piece.subarray(0, count));
    }
    await to.sync();
  }));
}

/** The same bytes into as many new files as `dirs`, at the same time. */
export async function writeWithSync(
  bytes: Uint8Array,
  name: string,
  dirs: readonly string[],
): Promise<void> {
  await Promise.all(dirs.map(async (dir) => {
    using file = await Deno.open(join(dir, name), { write: true, createNew: true });
    await writeWhole(file, bytes);
    await file.sync();
  }));
}

/** A file of bytes that no disk can compress. */
export async function makeRandomFile(path: string, bytes: number): Promise<void> {
  using file = await Deno.open(path, { write: true, createNew: true });
  const piece = new Uint8Array(PIECE_BYTES);
  for (let left = bytes; left > 0; left -= piece.length) {
    for (let at = 0; at < piece.length; at += 65_536) {
      crypto.getRandomValues(piece.subarray(at, at + 65_536));
    }
    await writeWhole(file, piece.subarray(0, Math.min(left, piece.length)));
  }
}

async function writeWhole(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}
