/**
 * The tree of one user's drive, and how to read and change it. Everything about structure is cells
 * with names that are unique in the drive, spread over rows so that none grows with the whole drive:
 *
 *     <user>/drive/folder/<folder id>
 *         c/<folder id>/<kind><sort key>\x01<name>   item JSON   a child; kind 0 folder, 1 file
 *         k/<folder id>                              counter     children of the folder
 *     <user>/drive/node/<id>
 *         n/<id>                                     text        the column that holds the item
 *     <user>/drive/tree
 *         t/<newest first>-<id>                      item JSON   in the trash
 *         k/trash                                    counter     items in the trash
 *         p/<id>                                     item JSON   a folder being deleted for good
 *         u/<upload id>                              JSON        an upload under way (uploads.ts)
 *         f/<upload id>                              JSON        finished, for a while (resumable.ts)
 *         g/<upload id>                              JSON        chunks to free (garbage.ts)
 *         used                                       counter     bytes of all files, trash included
 *         tree                                       counter     raised by each move of a folder
 *
 * `commit` changes any of them at once, in one transaction of the store. A user's rows begin alike, so
 * they lie in one replica group and that costs one write. What keeps it a tree:
 *
 * - `n/<id>` and the cell it names are written and deleted together, so an item has one place.
 * - A child is only added while its folder's `n/` cell is present, and a folder's cells only go
 *   while `k/` says that it is empty: no orphans.
 * - A folder only moves while `tree` is what it was when the target's ancestors were read: of two
 *   moves that would make a ring together, one starts again and sees the other.
 *
 * The store's limit of a row (store.row_max_bytes, 64 MiB) bounds a folder at about 200,000 children,
 * and the trash likewise, after which calls that add something fail with `drive_full`. Drives from
 * before there were transactions had all of it in one row: layout.ts brings them over.
 */
import type { Env } from "../../kv/env.ts";
import { KvError } from "../../kv/errors.ts";
import {
  type Condition,
  decodeText,
  type FullCell,
  type Kv,
  type Mutation,
  type RowPage,
  type RowPageOptions,
  type RowResult,
  type ScanPage,
} from "../../kv/kv.ts";
import { type Version, version } from "../../proto/ids.ts";
import { DriveError } from "./errors.ts";
import { ensureLayout } from "./layout.ts";
import { decodeItem, isFolder, type PlacedItem, ROOT, type StoredItem, TRASH } from "./items.ts";
import { sortKey } from "./names.ts";

/** Folders that may lie above an item. People stay below ten. */
export const DEPTH_MAX = 100;
/** Moving deep folders into deep folders can pass DEPTH_MAX; a walk upwards ends here. */
const WALK_MAX = 4000;
/** Conflicts with one user's other requests: each round somebody got through. */
const ATTEMPTS_MAX = 40;
const ID = /^[a-z][a-z2-7]{25}$/;

export const treeRow = (user: string): string => `${user}/drive/tree`;
export const folderRows = (user: string): string => `${user}/drive/folder/`;

/** The row that a cell of the drive lies in. */
export function rowOf(user: string, column: string): string {
  const id = column.split("/", 2)[1] ?? "";
  switch (column.slice(0, 2)) {
    case "c/":
      return folderRows(user) + id;
    case "k/":
      return id === TRASH ? treeRow(user) : folderRows(user) + id;
    case "n/":
      return `${user}/drive/node/${id}`;
    default:
      return treeRow(user);
  }
}

/** The column of a child. Its name is what follows \x01. */
export const childColumn = (parent: string, name: string, folder: boolean): string =>
  `c/${parent}/${folder ? "0" : "1"}${sortKey(name)}\u0001${name}`;
export const nodeColumn = (id: string): string => `n/${id}`;
export const countColumn = (folder: string): string => `k/${folder}`;
export const trashColumn = (atMs: number, id: string): string =>
  `t/${String(9_999_999_999_999 - Math.floor(atMs)).padStart(13, "0")}-${id}`;
export const USED = "used";
export const TREE = "tree";

/** Where the walk from a folder upwards ended, and what it passed, outermost first. */
export interface Ancestry {
  readonly home: "drive" | "trash" | "purging";
  /** The folder asked for is the last; the root is not listed. */
  readonly path: readonly { readonly id: string; readonly name: string }[];
}

export class DriveTree {
  constructor(readonly kv: Kv, readonly env: Env, readonly user: string) {}

  async get(column: string): Promise<FullCell | null> {
    await ensureLayout(this.kv, this.user);
    return await this.kv.get(rowOf(this.user, column), column);
  }

  /** Cells whose columns begin with `prefix`, which names a kind of cell, or a folder's children. */
  async page(
    prefix: string,
    options: Omit<RowPageOptions, "prefix" | "start">,
  ): Promise<RowPage> {
    await ensureLayout(this.kv, this.user);
    return await this.kv.getRow(rowOf(this.user, prefix), { prefix, ...options });
  }

  /** The item with this id wherever it is, or null. */
  async locate(id: string): Promise<PlacedItem | null> {
    if (!ID.test(id)) return null;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const pointer = await this.get(nodeColumn(id));
      if (pointer === null) return null;
      const column = decodeText(pointer.value);
      const placed = await this.#placedAt(column);
      // Null or another: it moved between the two reads.
      if (placed?.item.id === id) return placed;
    }
    throw changed();
  }

  /** An item that is not in the trash. Throws `not_found`. */
  async find(id: string): Promise<PlacedItem> {
    const placed = await this.locate(id);
    if (placed === null || (await this.ancestry(placed.parent)).home !== "drive") {
      throw new DriveError("not_found", `No file or folder has the id "${id.slice(0, 64)}"`);
    }
    return placed;
  }

  /**
   * The folders from the root down to `folder`, which may be ROOT or TRASH. Throws `not_found` when
   * one of them is gone and `not_a_folder` when `folder` is a file.
   */
  async ancestry(folder: string): Promise<Ancestry> {
    const path: { id: string; name: string }[] = [];
    let id = folder;
    while (id !== ROOT) {
      if (id === TRASH) return { home: "trash", path: path.reverse() };
      const pointer = ID.test(id) ? await this.get(nodeColumn(id)) : null;
      if (pointer === null) {
        throw new DriveError("not_found", `No folder has the id "${folder.slice(0, 64)}"`);
      }
      const column = decodeText(pointer.value);
      if (column.startsWith("t/")) return { home: "trash", path: path.reverse() };
      if (column.startsWith("p/")) return { home: "purging", path: path.reverse() };
      const { parent, folder: isFolder, name } = parseChildColumn(column);
      if (!isFolder) {
        throw new DriveError("not_a_folder", `"${name}" is a file, not a folder`);
      }
      path.push({ id, name });
      if (path.length > WALK_MAX) throw tooDeep();
      id = parent;
    }
    return { home: "drive", path: path.reverse() };
  }

  /** Like `ancestry`, for a folder that something is about to be put into. */
  async target(folder: string): Promise<Ancestry> {
    const ancestry = await this.ancestry(folder);
    if (ancestry.home !== "drive") {
      throw new DriveError("not_found", `No folder has the id "${folder.slice(0, 64)}"`);
    }
    if (ancestry.path.length >= DEPTH_MAX) throw tooDeep();
    return ancestry;
  }

  /** The child of that name, file or folder. `name` is as `checkName` returned it. */
  async child(parent: string, name: string): Promise<PlacedItem | null> {
    const [folder, file] = await Promise.all([
      this.#placedAt(childColumn(parent, name, true)),
      this.#placedAt(childColumn(parent, name, false)),
    ]);
    return folder ?? file;
  }

  /** Children in the order of names.ts. `after` and `next` are what follows `c/<folder>/`. */
  async children(
    folder: string,
    options: { readonly after?: string; readonly limit: number },
  ): Promise<{ items: PlacedItem[]; next: string | null }> {
    const prefix = `c/${folder}/`;
    const page = await this.page(prefix, {
      limit: options.limit,
      ...(options.after === undefined ? {} : { after: prefix + options.after }),
    });
    return {
      items: page.cells.flatMap((cell) => cell.value ? [placed(cell.column, cell)] : []),
      next: page.next === null ? null : page.next.slice(prefix.length),
    };
  }

  /** The columns of all children of all folders, a page at a time. */
  async childColumns(
    after?: ScanPage["next"],
  ): Promise<{ columns: string[]; next: ScanPage["next"] }> {
    await ensureLayout(this.kv, this.user);
    const page = await this.kv.scan({
      prefix: folderRows(this.user),
      limit: 1000,
      keysOnly: true,
      ...(after == null ? {} : { after }),
    });
    const columns = page.cells.map(({ column }) => column);
    return { columns: columns.filter((column) => column.startsWith("c/")), next: page.next };
  }

  /** One page of the trash: newest first, or with `oldestFirst` the other way. */
  async trash(
    options: { readonly after?: string; readonly limit: number; readonly oldestFirst?: boolean },
  ): Promise<{ items: PlacedItem[]; next: string | null }> {
    const page = await this.page("t/", {
      limit: options.limit,
      reverse: options.oldestFirst ?? false,
      ...(options.after === undefined ? {} : { after: `t/${options.after}` }),
    });
    return {
      items: page.cells.flatMap((cell) => cell.value ? [placed(cell.column, cell)] : []),
      next: page.next === null ? null : page.next.slice(2),
    };
  }

  /** The items in these columns, without those that are gone. */
  async at(columns: readonly string[]): Promise<PlacedItem[]> {
    const found = await Promise.all(columns.map((column) => this.#placedAt(column)));
    return found.filter((one) => one !== null);
  }

  async counter(column: string): Promise<{ value: number; version: Version }> {
    const cell = await this.get(column);
    return cell === null
      ? { value: 0, version: version(0) }
      : { value: Number(decodeText(cell.value)), version: cell.version };
  }

  /**
   * Changes cells anywhere in the drive, all or none. False: a condition did not hold, read again.
   *
   * @returns the version of what was written to `shown`, or of any cell when that is left out
   */
  async commit(
    conditions: readonly Condition[],
    mutations: readonly Mutation[],
    shown?: string,
  ): Promise<Version | false> {
    await ensureLayout(this.kv, this.user);
    const byRow = new Map<string, { conditions: Condition[]; mutations: Mutation[] }>();
    const partOf = (column: string) => {
      const row = rowOf(this.user, column);
      let part = byRow.get(row);
      if (part === undefined) byRow.set(row, part = { conditions: [], mutations: [] });
      return part;
    };
    for (const condition of conditions) partOf(condition.column).conditions.push(condition);
    for (const mutation of mutations) partOf(columnOf(mutation)).mutations.push(mutation);
    const ops = Array.from(byRow, ([row, part]) => ({ row, ...part }));
    try {
      const [only] = ops;
      const result = ops.length === 1
        ? asTransaction(await this.kv.apply(only!))
        : await this.kv.transact(ops);
      if (!result.applied) return false;
      const index = shown === undefined ? 0 : [...byRow.keys()].indexOf(rowOf(this.user, shown));
      const { version } = result.results[index]!;
      // Another process carried the transaction through for us, and only it knows.
      return version ?? (await this.get(shown ?? columnOf(mutations[0]!)))?.version ?? false;
    } catch (error) {
      if (error instanceof KvError && error.code === "row_too_large") {
        throw new DriveError("drive_full", "This folder, or the trash, holds as much as it can", {
          cause: error,
        });
      }
      throw error;
    }
  }

  /**
   * Runs `attempt` until it returns something other than undefined. It is called again after a
   * conflict, and also when the outcome of its write is unknown: so it begins by reading, and must
   * recognise its own work.
   */
  async retry<T>(attempt: (round: number) => Promise<T | undefined>): Promise<T> {
    let unknown: KvError | undefined;
    for (let round = 0; round < ATTEMPTS_MAX; round++) {
      try {
        const result = await attempt(round);
        if (result !== undefined) return result;
      } catch (error) {
        // One more look settles it; a store that stays silent is reported as it is.
        if (!(error instanceof KvError) || error.outcome !== "unknown" || unknown) throw error;
        unknown = error;
      }
      if (round > 2) await this.env.sleep(this.env.random() * Math.min(200, 5 * 2 ** round));
    }
    throw changed();
  }

  async #placedAt(column: string): Promise<PlacedItem | null> {
    const cell = await this.get(column);
    return cell === null ? null : placed(column, cell);
  }
}

function asTransaction(result: RowResult) {
  if (!result.applied) return { applied: false } as const;
  return { applied: true, results: [{ version: result.version }] } as const;
}

/** The drive puts, deletes and counts; each of these names its column. */
function columnOf(mutation: Mutation): string {
  if ("column" in mutation) return mutation.column;
  throw new Error(`The drive does not use ${mutation.kind}`);
}

/** Conditions under which `name` is free in `parent` and `parent` still exists. */
export function freePlace(parent: string, name: string): Condition[] {
  return [
    ...present(parent),
    { column: childColumn(parent, name, true), is: "absent" },
    { column: childColumn(parent, name, false), is: "absent" },
  ];
}

export const present = (folder: string): Condition[] =>
  folder === ROOT ? [] : [{ column: nodeColumn(folder), is: "present" }];

function placed(
  column: string,
  cell: { readonly version: Version; readonly value?: Uint8Array },
): PlacedItem {
  const item: StoredItem = decodeItem(cell.value!);
  const parent = column.startsWith("c/") ? parseChildColumn(column).parent : TRASH;
  return { item, parent, column, version: cell.version };
}

function parseChildColumn(column: string): { parent: string; folder: boolean; name: string } {
  const slash = column.indexOf("/", 2);
  return {
    parent: column.slice(2, slash),
    folder: column[slash + 1] === "0",
    name: column.slice(column.indexOf("\u0001") + 1),
  };
}

/** Throws `not_a_folder` or `not_a_file`. */
export function expectKind(placed: PlacedItem, kind: "file" | "folder"): PlacedItem {
  if (isFolder(placed.item) !== (kind === "folder")) {
    throw new DriveError(
      kind === "folder" ? "not_a_folder" : "not_a_file",
      `"${placed.item.name}" is not a ${kind}`,
    );
  }
  return placed;
}

const changed = () =>
  new DriveError("changed", "The drive kept changing; nothing was done, try again");
const tooDeep = () =>
  new DriveError("too_deep", `Folders cannot lie more than ${DEPTH_MAX} levels deep`);
