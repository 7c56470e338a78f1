/** Damage to the files of a node, as disks and people do it. */
import { join } from "node:path";

/** Flips one bit of a file. Negative offsets count from its end. */
export async function flipBit(path: string, offset: number, bit = 0): Promise<void> {
  using file = await Deno.open(path, { read: true, write: true });
  const at = offset < 0 ? (await file.stat()).size + offset : offset;
  const byte = new Uint8Array(1);
  await file.seek(at, Deno.SeekMode.Start);
  if (await file.read(byte) !== 1) throw new Error(`"${path}" has no byte ${at}`);
  byte[0]! ^= 1 << bit;
  await file.seek(at, Deno.SeekMode.Start);
  await file.write(byte);
  await file.sync();
}

/** Flips a bit in every place of a file that holds `text`. False when there is none. */
export async function flipAll(path: string, text: string): Promise<boolean> {
  const bytes = await Deno.readFile(path), wanted = new TextEncoder().encode(text);
  let found = false;
  for (let at = bytes.indexOf(wanted[0]!); at !== -1; at = bytes.indexOf(wanted[0]!, at + 1)) {
    if (!wanted.every((byte, i) => bytes[at + i] === byte)) continue;
    await flipBit(path, at + (text.length >> 1), 2);
    found = true;
    at += text.length;
  }
  return found;
}

/** Files below a folder, by path, sorted. */
export async function filesBelow(dir: string): Promise<string[]> {
  const paths: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(dir)) {
    const path = join(dir, name);
    if (isDirectory) paths.push(...await filesBelow(path));
    else paths.push(path);
  }
  return paths.sort();
}

/** The newest segment of a node's log. */
export async function lastSegment(nodeDir: string): Promise<string> {
  return (await filesBelow(join(nodeDir, "wal"))).at(-1)!;
}

export async function copyFolder(from: string, to: string): Promise<void> {
  for (const path of await filesBelow(from)) {
    const target = join(to, path.slice(from.length));
    await Deno.mkdir(join(target, ".."), { recursive: true });
    await Deno.copyFile(path, target);
  }
}

/** Why files of a node were moved aside, oldest first. */
export async function quarantineReasons(nodeDir: string): Promise<string[]> {
  const paths = await filesBelow(join(nodeDir, "quarantine")).catch(() => []);
  const reasons = paths.filter((path) => path.endsWith("/reason.txt"));
  return await Promise.all(reasons.map(async (path) => (await Deno.readTextFile(path)).trim()));
}
