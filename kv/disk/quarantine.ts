/**
 * Where damaged files go: `quarantine/<time>/` in the data folder, with `reason.txt` beside them. They
 * are kept for whoever wants to look, or to save what only they still hold, and they are moved, never
 * copied, so that a full disk does not stop a store from healing.
 *
 * Bounded: beyond {@link KEPT_COUNT_MAX} folders or {@link KEPT_BYTES_MAX} bytes the oldest go, the
 * newest never does.
 */
import { type Disk, RealDisk } from "./disk.ts";

export const KEPT_COUNT_MAX = 8;
export const KEPT_BYTES_MAX = 4 * 1024 * 1024 * 1024;

export interface QuarantineContent {
  readonly count: number;
  readonly bytes: number;
}

/**
 * Moves what is there of `names` (paths within the data folder `dir`) aside, durably. Returns the
 * folder that they are in now.
 */
export async function moveAside(
  dir: string,
  { names, reason }: { readonly names: readonly string[]; readonly reason: string },
): Promise<string> {
  const disk = new RealDisk();
  const place = await freshPlace(disk, dir);
  await disk.mkdir(place);
  await disk.syncDir(`${dir}/quarantine`);
  await disk.syncDir(dir);
  await writeReason(disk, place, reason).catch(() => {}); // a full disk must not stop the move
  for (const name of names) {
    if (await disk.stat(`${dir}/${name}`) === null) continue;
    await disk.rename(`${dir}/${name}`, `${place}/${name.replaceAll("/", "-")}`);
    const slash = name.lastIndexOf("/");
    await disk.syncDir(slash < 0 ? dir : `${dir}/${name.slice(0, slash)}`);
  }
  await disk.syncDir(place);
  await removeOldest(disk, dir);
  return place;
}

export async function quarantineContent(dir: string): Promise<QuarantineContent> {
  const disk = new RealDisk();
  const places = await placesIn(disk, dir);
  let bytes = 0;
  for (const place of places) bytes += await bytesBelow(disk, place);
  return { count: places.length, bytes };
}

/** Names ascend, also when several are made within a second or the clock was set back. */
async function freshPlace(disk: Disk, dir: string): Promise<string> {
  const time = new Date().toISOString().replaceAll(/[-:]/g, "").replace(/\..*/, "");
  const last = (await placesIn(disk, dir)).at(-1)?.split("/").at(-1) ?? "";
  const [lastTime = "", number = "0"] = last.split("-");
  const next = lastTime < time ? `${time}-001` : `${lastTime}-${pad(Number(number) + 1)}`;
  return `${dir}/quarantine/${next}`;
}

const pad = (number: number) => String(number).padStart(3, "0");

async function writeReason(disk: Disk, place: string, reason: string): Promise<void> {
  const file = await disk.open(`${place}/reason.txt`, { create: true });
  try {
    await file.writeAt(0, new TextEncoder().encode(`${reason}\n`));
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Oldest first. */
async function placesIn(disk: Disk, dir: string): Promise<string[]> {
  if (await disk.stat(`${dir}/quarantine`) === null) return [];
  const entries = await disk.list(`${dir}/quarantine`);
  return entries.filter((entry) => entry.isDirectory)
    .map(({ name }) => `${dir}/quarantine/${name}`);
}

async function bytesBelow(disk: Disk, place: string): Promise<number> {
  let bytes = 0;
  for (const { name, isDirectory } of await disk.list(place)) {
    const path = `${place}/${name}`;
    bytes += isDirectory ? await bytesBelow(disk, path) : (await disk.stat(path))?.bytes ?? 0;
  }
  return bytes;
}

async function removeOldest(disk: Disk, dir: string): Promise<void> {
  const places = await placesIn(disk, dir);
  const sizes = await Promise.all(places.map((place) => bytesBelow(disk, place)));
  let bytes = sizes.reduce((sum, size) => sum + size, 0);
  for (let i = 0; i < places.length - 1; i++) {
    if (places.length - i <= KEPT_COUNT_MAX && bytes <= KEPT_BYTES_MAX) return;
    await Deno.remove(places[i]!, { recursive: true });
    bytes -= sizes[i]!;
  }
}
