/**
 * An item of the drive, a file or a folder: as it is stored, and as callers see it.
 */
import { z } from "zod";
import { decodeJson, encodeJson } from "../../kv/kv.ts";
import type { Version } from "../../proto/ids.ts";

/** The folder that holds everything. It exists without being created. */
export const ROOT = "root";
/** Deleted items are children of this pseudo folder until they are restored or purged. */
export const TRASH = "trash";

/** What a file holds. `upload` names the chunk rows (chunks.ts) and never changes its bytes. */
export const StoredContent = z.object({
  upload: z.string(),
  size: z.int().nonnegative(),
  type: z.string(),
  /** CRC-32 (IEEE) of all bytes, as zip archives want it. */
  crc: z.int().nonnegative(),
  chunkBytes: z.int().positive(),
});
export type StoredContent = z.infer<typeof StoredContent>;

export const StoredItem = z.object({
  id: z.string(),
  name: z.string(),
  createdMs: z.number(),
  modifiedMs: z.number(),
  /** Files have it, folders do not. */
  content: StoredContent.optional(),
  /** Set while the item itself, not only a folder above it, is in the trash. */
  trashed: z.object({
    atMs: z.number(),
    /** Where it was, to put it back. */
    parent: z.string(),
    /** Names of the folders above it, for people. */
    path: z.array(z.string()),
  }).optional(),
});
export type StoredItem = z.infer<typeof StoredItem>;

/** An item with the place it was found at. */
export interface PlacedItem {
  readonly item: StoredItem;
  /** Id of the folder that holds it; TRASH for an item in the trash. */
  readonly parent: string;
  /** The column that holds it, and that cell's version. */
  readonly column: string;
  readonly version: Version;
}

/** What the API answers. */
export interface DriveItem {
  readonly id: string;
  readonly name: string;
  readonly type: "file" | "folder";
  /** Bytes; 0 for a folder. */
  readonly size: number;
  readonly contentType: string | null;
  /** ISO 8601, UTC. */
  readonly modified: string;
  readonly created: string;
  /** null for the root. */
  readonly parent: string | null;
  /** Changes with the content of a file, and with name and place of a folder. */
  readonly etag: string;
}

export interface TrashedDriveItem extends DriveItem {
  readonly deleted: string;
  /** Names of the folders in which it was, outermost first. */
  readonly origin: readonly string[];
}

export const encodeItem = (item: StoredItem): Uint8Array => encodeJson(item);
export const decodeItem = (bytes: Uint8Array): StoredItem => StoredItem.parse(decodeJson(bytes));

export const isFolder = (item: StoredItem): boolean => item.content === undefined;

export function toDriveItem(placed: PlacedItem): DriveItem {
  const { item, parent, version } = placed;
  return {
    id: item.id,
    name: item.name,
    type: item.content ? "file" : "folder",
    size: item.content?.size ?? 0,
    contentType: item.content?.type ?? null,
    modified: new Date(item.modifiedMs).toISOString(),
    created: new Date(item.createdMs).toISOString(),
    parent,
    etag: item.content?.upload ?? String(version),
  };
}

export function toTrashedItem(placed: PlacedItem): TrashedDriveItem {
  const trashed = placed.item.trashed;
  return {
    ...toDriveItem(placed),
    deleted: new Date(trashed?.atMs ?? placed.item.modifiedMs).toISOString(),
    origin: trashed?.path ?? [],
  };
}

/** The root as an item: it is stored nowhere. */
export const ROOT_ITEM: DriveItem = {
  id: ROOT,
  name: "My drive",
  type: "folder",
  size: 0,
  contentType: null,
  modified: new Date(0).toISOString(),
  created: new Date(0).toISOString(),
  parent: null,
  etag: ROOT,
};
