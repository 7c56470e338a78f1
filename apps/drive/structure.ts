/**
 * Changes to the tree: a new folder, renaming and moving, into the trash and back. Each is one
 * transaction whose conditions are what tree.ts says keeps it a tree; when one does not hold, the
 * change is looked at afresh.
 */
import { freshId } from "../../kv/env.ts";
import type { Condition, Mutation } from "../../kv/kv.ts";
import { encodeText } from "../../kv/kv.ts";
import { DriveError } from "./errors.ts";
import { encodeItem, isFolder, type PlacedItem, ROOT, type StoredItem, TRASH } from "./items.ts";
import { numberedName } from "./names.ts";
import {
  childColumn,
  countColumn,
  type DriveTree,
  freePlace,
  nodeColumn,
  present,
  trashColumn,
  TREE,
} from "./tree.ts";

/**
 * What to do when the name is taken: refuse with `name_exists`, take the other's place, or find a
 * free name by adding a number. A folder never takes or loses its place to a file.
 */
export const CONFLICT_POLICIES = ["fail", "replace", "rename"] as const;
export type ConflictPolicy = (typeof CONFLICT_POLICIES)[number];

const NUMBERS_TRIED_MAX = 500;

export const nameExists = (name: string): DriveError =>
  new DriveError("name_exists", `There is already something named "${name}" in this folder`);

/** The name to use in `parent`: `name`, or for "rename" the first numbered one that is free. */
export async function freeName(tree: DriveTree, parent: string, name: string): Promise<string> {
  if (await tree.child(parent, name) === null) return name;
  for (let number = 2; number <= NUMBERS_TRIED_MAX; number++) {
    const candidate = numberedName(name, number);
    if (await tree.child(parent, candidate) === null) return candidate;
  }
  throw nameExists(name);
}

/** Writes an item's cell and the pointer to it. */
export const putItem = (column: string, item: StoredItem): Mutation[] => [
  { kind: "put", column, value: encodeItem(item) },
  { kind: "put", column: nodeColumn(item.id), value: encodeText(column) },
];

export const addTo = (column: string, by: number): Mutation => ({ kind: "add", column, by });

/** With `replace`, a folder that exists is as good as a new one: whole trees are uploaded so. */
export function createFolder(
  tree: DriveTree,
  options: { readonly parent: string; readonly name: string; readonly conflict: ConflictPolicy },
): Promise<PlacedItem> {
  const { parent, conflict } = options;
  const nowMs = tree.env.wallMs();
  const id = freshId(tree.env);
  return tree.retry(async (round) => {
    const mine = round === 0 ? null : await tree.locate(id);
    if (mine !== null) return mine;
    await tree.target(parent);
    let { name } = options;
    const existing = await tree.child(parent, name);
    if (existing !== null && conflict === "replace" && isFolder(existing.item)) return existing;
    if (conflict === "rename") name = await freeName(tree, parent, name);
    else if (existing !== null) throw nameExists(name);
    const item: StoredItem = { id, name, createdMs: nowMs, modifiedMs: nowMs };
    const column = childColumn(parent, name, true);
    const version = await tree.commit(freePlace(parent, name), [
      ...putItem(column, item),
      addTo(countColumn(parent), 1),
    ], column);
    return version === false ? undefined : { item, parent, column, version };
  });
}

/**
 * Renames and moves; what is left out stays. Throws `into_itself` for a folder that would lie below
 * itself. With `replace`, a file in the way goes to the trash.
 */
export function moveItem(
  tree: DriveTree,
  options: {
    readonly id: string;
    readonly name?: string;
    readonly parent?: string;
    readonly conflict: ConflictPolicy;
  },
): Promise<PlacedItem> {
  return tree.retry(async () => {
    // Read before the ancestors, so that any move of a folder after this line is noticed.
    const treeCounter = await tree.counter(TREE);
    const from = await tree.find(options.id);
    const parent = options.parent ?? from.parent;
    const wanted = options.name ?? from.item.name;
    if (parent === from.parent && wanted === from.item.name) return from;
    const folder = isFolder(from.item);
    const { path } = await tree.target(parent);
    if (path.some((above) => above.id === from.item.id)) {
      throw new DriveError("into_itself", `"${from.item.name}" cannot move into itself`);
    }
    return await place(tree, {
      from,
      parent,
      wanted,
      conflict: options.conflict,
      conditions: folder ? [treeUnchanged(treeCounter.version)] : [],
    });
  });
}

/** Puts an item into the trash, as the one thing that a folder and all below it need. */
export function trashItem(tree: DriveTree, id: string): Promise<PlacedItem> {
  return tree.retry(async (round) => {
    const from = await tree.locate(id);
    if (from?.item.trashed && round > 0) return from;
    const home = from && await tree.ancestry(from.parent);
    if (from === null || home?.home !== "drive") throw noSuchItem(id);
    const trashed = {
      atMs: tree.env.wallMs(),
      parent: from.parent,
      path: home.path.map((above) => above.name),
    };
    const { column, item, mutations } = intoTrash(from, trashed);
    const version = await tree.commit(
      [versionIs(from)],
      isFolder(item) ? [...mutations, addTo(TREE, 1)] : mutations,
      column,
    );
    return version === false ? undefined : { item, parent: TRASH, column, version };
  });
}

/**
 * Takes an item out of the trash: back where it was, or into the root when that folder is gone or
 * in the trash itself. A name that was taken meanwhile gets a number.
 */
export function restoreItem(tree: DriveTree, id: string): Promise<PlacedItem> {
  return tree.retry(async (round) => {
    const treeCounter = await tree.counter(TREE);
    const from = await tree.locate(id);
    if (from !== null && round > 0 && from.parent !== TRASH) return from;
    const trashed = from?.item.trashed;
    if (!from || !trashed || !from.column.startsWith("t/")) throw noSuchItem(id);
    const parent = await tree.target(trashed.parent).then(
      () => trashed.parent,
      (error) => {
        if (error instanceof DriveError) return ROOT;
        throw error;
      },
    );
    return await place(tree, {
      from,
      parent,
      wanted: from.item.name,
      conflict: "rename",
      conditions: isFolder(from.item) ? [treeUnchanged(treeCounter.version)] : [],
    });
  });
}

/** Moves an item to a place in the drive; undefined when something changed meanwhile. */
async function place(
  tree: DriveTree,
  options: {
    readonly from: PlacedItem;
    readonly parent: string;
    readonly wanted: string;
    readonly conflict: ConflictPolicy;
    readonly conditions: readonly Condition[];
  },
): Promise<PlacedItem | undefined> {
  const { from, parent, wanted, conflict } = options;
  const folder = isFolder(from.item);
  let name = wanted;
  const inTheWay = await tree.child(parent, wanted);
  const displaced: Mutation[] = [];
  let free = freePlace(parent, name);
  if (inTheWay !== null && inTheWay.item.id !== from.item.id) {
    if (conflict === "rename") {
      name = await freeName(tree, parent, wanted);
      free = freePlace(parent, name);
    } else if (conflict === "replace" && !folder && !isFolder(inTheWay.item)) {
      const { path } = await tree.target(parent);
      displaced.push(
        ...intoTrash(inTheWay, {
          atMs: tree.env.wallMs(),
          parent,
          path: path.map((above) => above.name),
        }).mutations,
      );
      free = [...present(parent), versionIs(inTheWay)];
    } else {
      throw nameExists(wanted);
    }
  }
  const { trashed: _, ...kept } = from.item;
  const item: StoredItem = { ...kept, name };
  const column = childColumn(parent, name, folder);
  const version = await tree.commit(
    [versionIs(from), ...free, ...options.conditions],
    [
      ...displaced,
      { kind: "delete", column: from.column },
      ...putItem(column, item),
      addTo(countColumn(from.parent), -1),
      addTo(countColumn(parent), 1),
      ...(folder ? [addTo(TREE, 1)] : []),
    ],
    column,
  );
  return version === false ? undefined : { item, parent, column, version };
}

function intoTrash(from: PlacedItem, trashed: NonNullable<StoredItem["trashed"]>) {
  const item: StoredItem = { ...from.item, trashed };
  const column = trashColumn(trashed.atMs, item.id);
  const mutations: Mutation[] = [
    { kind: "delete", column: from.column },
    ...putItem(column, item),
    addTo(countColumn(from.parent), -1),
    addTo(countColumn(TRASH), 1),
  ];
  return { item, column, mutations };
}

export const versionIs = (placed: PlacedItem): Condition => ({
  column: placed.column,
  is: "version",
  version: placed.version,
});

const treeUnchanged = (version: PlacedItem["version"]): Condition => ({
  column: TREE,
  is: "version",
  version,
});

export const noSuchItem = (id: string): DriveError =>
  new DriveError("not_found", `No file or folder has the id "${id.slice(0, 64)}"`);
