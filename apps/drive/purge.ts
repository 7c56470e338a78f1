/**
 * Deleting for good. A file goes in one transaction that leaves its chunks as garbage. A folder
 * first becomes a `p/` cell, out of everybody's reach, and is then taken apart from the top, a
 * bounded piece at a time: files below it become garbage, folders below it become `p/` cells
 * themselves, and it goes when it is empty. Whoever comes next goes on where a crash stopped us.
 */
import { type Condition, decodeText, type Mutation } from "../../kv/kv.ts";
import { noteContentGarbage } from "./garbage.ts";
import { isFolder, type PlacedItem, TRASH } from "./items.ts";
import { addTo, noSuchItem, putItem, versionIs } from "./structure.ts";
import { countColumn, type DriveTree, nodeColumn, USED } from "./tree.ts";

/**
 * A row for each child, its folder's and the tree row are within a transaction's limit of 64 rows, and
 * so are the longest columns, named twice each, within its limit of 128 KiB of names.
 */
const CHILDREN_PER_STEP = 50;
/** Somebody else empties or restores at the same time: leave it to them. */
const CONFLICTS_MAX = 10;
const DAY_MS = 24 * 60 * 60_000;

const purgeColumn = (id: string): string => `p/${id}`;

/** Deletes one item of the trash for good. Throws `not_found`. */
export async function purgeItem(tree: DriveTree, id: string): Promise<void> {
  await tree.retry(async (round) => {
    const placed = await tree.locate(id);
    if (!placed?.column.startsWith("t/")) {
      if (round > 0) return true; // our own work, or somebody else's
      throw noSuchItem(id);
    }
    return await purgeTrashed(tree, [placed]) ? true : undefined;
  });
}

/** Deletes what has been in the trash since before `beforeMs`, at most `itemsMax` items. */
export async function purgeTrash(
  tree: DriveTree,
  options: { readonly beforeMs: number; readonly itemsMax: number },
): Promise<number> {
  let purged = 0, conflicts = 0;
  while (purged < options.itemsMax && conflicts < CONFLICTS_MAX) {
    const limit = Math.min(CHILDREN_PER_STEP, options.itemsMax - purged);
    const { items } = await tree.trash({ limit, oldestFirst: true });
    const due = items.filter((one) => (one.item.trashed?.atMs ?? 0) <= options.beforeMs);
    if (due.length === 0) break;
    // One that was restored meanwhile stops its whole batch: read again.
    if (await purgeTrashed(tree, due)) purged += due.length;
    else conflicts++;
  }
  return purged;
}

export const trashDue = (nowMs: number, trashDays: number): number => nowMs - trashDays * DAY_MS;

async function purgeTrashed(tree: DriveTree, items: readonly PlacedItem[]): Promise<boolean> {
  const mutations = items.flatMap((placed) => takeAway(tree, placed));
  return await tree.commit(items.map(versionIs), [
    ...mutations,
    ...freed(items),
    addTo(countColumn(TRASH), -items.length),
  ]) !== false;
}

/** Takes purged folders apart with at most `stepsMax` transactions; true when none is left. */
export async function purgeFolders(tree: DriveTree, stepsMax: number): Promise<boolean> {
  for (let step = 0; step < stepsMax; step++) {
    const page = await tree.page("p/", { limit: 1 });
    const cell = page.cells[0];
    if (cell === undefined) return true;
    const folder = cell.column.slice(2);
    const { items } = await tree.children(folder, { limit: CHILDREN_PER_STEP });
    if (items.length > 0) {
      await tree.commit(items.map(versionIs), [
        ...items.flatMap((placed) => takeAway(tree, placed)),
        ...freed(items),
        addTo(countColumn(folder), -items.length),
      ]);
      continue;
    }
    await tree.commit([
      { column: cell.column, is: "version", version: cell.version },
      await isEmpty(tree, folder),
    ], [
      { kind: "delete", column: cell.column },
      { kind: "delete", column: nodeColumn(folder) },
      { kind: "delete", column: countColumn(folder) },
    ]);
  }
  return (await tree.page("p/", { limit: 1, keysOnly: true })).cells
    .length === 0;
}

/** Holds only while no child can have been added since the folder was seen empty. */
async function isEmpty(tree: DriveTree, folder: string): Promise<Condition> {
  const column = countColumn(folder);
  const count = await tree.get(column);
  return count === null || decodeText(count.value) !== "0"
    ? { column, is: "absent" }
    : { column, is: "version", version: count.version };
}

function takeAway(tree: DriveTree, placed: PlacedItem): Mutation[] {
  const { item, column } = placed;
  const gone: Mutation = { kind: "delete", column };
  if (isFolder(item)) return [gone, ...putItem(purgeColumn(item.id), item)];
  return [
    gone,
    { kind: "delete", column: nodeColumn(item.id) },
    ...noteContentGarbage(item.content!, tree.env.wallMs()),
  ];
}

function freed(items: readonly PlacedItem[]): Mutation[] {
  const bytes = items.reduce((sum, placed) => sum + (placed.item.content?.size ?? 0), 0);
  return bytes === 0 ? [] : [addTo(USED, -bytes)];
}
