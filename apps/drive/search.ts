/**
 * Finding items by name. The columns of the folders' rows hold the names, so a search reads columns
 * only, page by page, and stops after a bounded number: there is no index to keep true.
 */
import type { ScanPage } from "../../kv/kv.ts";
import { DriveError } from "./errors.ts";
import { type DriveItem, type PlacedItem, toDriveItem } from "./items.ts";
import type { DriveTree } from "./tree.ts";

const COLUMNS_MAX = 200_000;
const WORDS_MAX = 10;

export interface SearchResult {
  readonly items: readonly (DriveItem & { readonly path: readonly string[] })[];
  /** There were more, or the drive was too large to look at all of it. */
  readonly more: boolean;
}

/** Case and accents do not matter. */
const fold = (text: string): string => text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "");

export async function searchNames(
  tree: DriveTree,
  query: string,
  limit: number,
): Promise<SearchResult> {
  const words = fold(query).split(/\s+/).filter((word) => word !== "").slice(0, WORDS_MAX);
  if (words.length === 0) return { items: [], more: false };
  const found: string[] = [];
  let after: ScanPage["next"] | undefined, looked = 0, more = false;
  do {
    const page = await tree.childColumns(after);
    for (const column of page.columns) {
      const name = fold(column.slice(column.indexOf("\u0001") + 1));
      if (!words.every((word) => name.includes(word))) continue;
      if (found.length < limit) found.push(column);
      else more = true;
    }
    looked += page.columns.length;
    after = page.next ?? undefined;
    if (looked >= COLUMNS_MAX && after !== undefined) more = true;
  } while (after !== undefined && !more);

  const items: SearchResult["items"][number][] = [];
  const paths = new Map<string, readonly string[] | null>();
  for (const placed of await tree.at(found)) {
    const path = await pathOf(tree, placed, paths);
    if (path !== null) items.push({ ...toDriveItem(placed), path });
  }
  return { items, more };
}

/** Names of the folders above; null for what lies in the trash. */
async function pathOf(
  tree: DriveTree,
  placed: PlacedItem,
  known: Map<string, readonly string[] | null>,
): Promise<readonly string[] | null> {
  const { parent } = placed;
  let path = known.get(parent);
  if (path === undefined) {
    try {
      const { home, path: above } = await tree.ancestry(parent);
      path = home === "drive" ? above.map((folder) => folder.name) : null;
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      path = null; // Deleted since it was found.
    }
    known.set(parent, path);
  }
  return path;
}
