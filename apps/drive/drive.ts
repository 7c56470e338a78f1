/**
 * A user's files and folders: the door that web/ goes through.
 *
 * Promises: the tree stays a tree under any concurrency; a file is there whole or not at all;
 * content is never changed in place, so a reader sees one version from first byte to last; what a
 * transfer holds in memory does not grow with the file. All state is in the store, so any number of
 * processes may serve one user.
 *
 * Start at tree.ts for what is stored, uploads.ts for how bytes come in. Not here: HTTP
 * (web/routes/drive.ts), who the user is (apps/accounts/), versions of files.
 */
import type { Env } from "../../kv/env.ts";
import type { Kv } from "../../kv/kv.ts";
import type { ClusterConfig } from "../../proto/cluster_config.ts";
import { archiveItems } from "./archive.ts";
import { ChunkBudget, readContent, type ReadOptions } from "./chunks.ts";
import { DriveError } from "./errors.ts";
import {
  type DriveItem,
  isFolder,
  type PlacedItem,
  ROOT,
  ROOT_ITEM,
  type StoredContent,
  type StoredItem,
  toDriveItem,
  toTrashedItem,
  TRASH,
  type TrashedDriveItem,
} from "./items.ts";
import { checkName } from "./names.ts";
import { purgeFolders, purgeItem, purgeTrash } from "./purge.ts";
import { appendResumable, createResumable, resumableState, type UploadState } from "./resumable.ts";
import { searchNames, type SearchResult } from "./search.ts";
import {
  type ConflictPolicy,
  createFolder,
  moveItem,
  restoreItem,
  trashItem,
} from "./structure.ts";
import { DriveSweeper } from "./sweeper.ts";
import { countColumn, DriveTree, expectKind, USED } from "./tree.ts";
import { abandonUpload, uploadFile, type UploadLimits, type UploadTarget } from "./uploads.ts";

export const PAGE_MAX = 1000;
const PAGE_DEFAULT = 200;
/** Chunks that all transfers of a process hold beyond one each: 64 MiB at the default size. */
const BUDGET_BYTES = 64 * 1024 * 1024;
/** Emptying the trash answers after at most so many; the sweeper does the rest. */
const EMPTY_AT_ONCE_MAX = 20_000;
const PURGE_STEPS_AT_ONCE = 20;
const ARCHIVE_ITEMS_MAX = 200;

export interface FolderPage {
  readonly item: DriveItem;
  /** From the root down to the item itself. */
  readonly path: readonly { readonly id: string; readonly name: string }[];
  /** Folders first, then by name; empty for a file. */
  readonly children: readonly DriveItem[];
  /** How many children there are on all pages. */
  readonly count: number;
  /** Pass as `cursor` for the next page; null on the last. */
  readonly next: string | null;
}

export interface TrashPage {
  readonly children: readonly TrashedDriveItem[];
  readonly count: number;
  readonly next: string | null;
}

export interface PageOptions {
  readonly cursor?: string | undefined;
  readonly limit?: number | undefined;
}

/** A file that is about to be read: its description and its bytes by range. */
export interface OpenFile {
  readonly item: DriveItem;
  /** Bytes from `start` up to, not including, `end`; see chunks.ts for `freePieces`. */
  read(start: number, end: number, options?: ReadHow): ReadableStream<Uint8Array>;
}

export type ReadHow = Pick<ReadOptions, "freePieces">;

export type UploadRequest = Omit<UploadTarget, "name"> & { readonly name: unknown };

export class Drive {
  readonly sweeper: DriveSweeper;
  readonly #kv: Kv;
  readonly #env: Env;
  readonly #config: ClusterConfig["drive"];
  readonly #limits: UploadLimits;
  readonly #budget: ChunkBudget;

  constructor(context: { readonly kv: Kv; readonly env: Env; readonly config: ClusterConfig }) {
    this.#kv = context.kv;
    this.#env = context.env;
    this.#config = context.config.drive;
    this.#limits = {
      chunkBytes: this.#config.chunk_bytes,
      quotaBytes: this.#config.quota_bytes,
      fileBytesMax: this.#config.file_max_bytes,
    };
    this.#budget = new ChunkBudget(Math.max(4, Math.floor(BUDGET_BYTES / this.#limits.chunkBytes)));
    this.sweeper = new DriveSweeper(context);
  }

  /** An item that is not in the trash, its path and a page of its children. */
  async open(user: string, id: string, options: PageOptions = {}): Promise<FolderPage> {
    const tree = this.#tree(user);
    const placed = id === ROOT ? null : await tree.find(id);
    const above = await tree.ancestry(placed === null ? ROOT : placed.parent);
    const path = [{ id: ROOT, name: ROOT_ITEM.name }, ...above.path];
    if (placed !== null) path.push({ id: placed.item.id, name: placed.item.name });
    const item = placed === null ? ROOT_ITEM : toDriveItem(placed);
    if (item.type === "file") return { item, path, children: [], count: 0, next: null };
    const [count, page] = await Promise.all([
      tree.counter(countColumn(id)),
      tree.children(id, pageOf(options)),
    ]);
    return {
      item,
      path,
      children: page.items.map(toDriveItem),
      count: count.value,
      next: encodeCursor(page.next),
    };
  }

  /** Throws `name_exists` unless `conflict` is "rename". */
  async createFolder(
    user: string,
    options: {
      readonly parent: string;
      readonly name: unknown;
      readonly conflict?: ConflictPolicy;
    },
  ): Promise<DriveItem> {
    const { parent, conflict = "fail" } = options;
    const name = checkName(options.name);
    await this.sweeper.list(user);
    return toDriveItem(await createFolder(this.#tree(user), { parent, name, conflict }));
  }

  /**
   * Stores a file from one stream. `size` is what the client announced, null if nothing; a stream
   * that ends early then fails with `upload_aborted`. Nothing is linked unless all of it arrived.
   */
  async upload(
    user: string,
    request: UploadRequest,
    options: { readonly size: number | null; readonly body: AsyncIterable<Uint8Array> },
  ): Promise<DriveItem> {
    const target = { ...request, name: checkName(request.name) };
    await this.sweeper.list(user);
    const tree = this.#tree(user);
    try {
      const placed = await uploadFile(tree, {
        target,
        limits: this.#limits,
        budget: this.#budget,
        ...options,
      });
      return toDriveItem(placed);
    } catch (error) {
      this.sweeper.soon(user);
      throw error;
    }
  }

  async createUpload(user: string, request: UploadRequest, size: number): Promise<UploadState> {
    const target = { ...request, name: checkName(request.name) };
    await this.sweeper.list(user);
    return await createResumable(this.#tree(user), { target, size, limits: this.#limits });
  }

  uploadState(user: string, upload: string): Promise<UploadState> {
    return resumableState(this.#tree(user), upload);
  }

  appendUpload(
    user: string,
    options: {
      readonly upload: string;
      readonly offset: number;
      readonly body: AsyncIterable<Uint8Array>;
    },
  ): Promise<UploadState> {
    const { budget, limits } = { budget: this.#budget, limits: this.#limits };
    return appendResumable(this.#tree(user), { ...options, budget, limits });
  }

  /** Throws `upload_gone` when there is nothing to cancel. */
  async cancelUpload(user: string, upload: string): Promise<void> {
    await this.uploadState(user, upload);
    await abandonUpload(this.#tree(user), upload);
    this.sweeper.soon(user);
  }

  /** The file as it is now; replacing or deleting it does not disturb the reader for an hour. */
  async openFile(user: string, id: string): Promise<OpenFile> {
    const placed = expectKind(await this.#tree(user).find(id), "file");
    const content: StoredContent = placed.item.content!;
    const source = { kv: this.#kv, budget: this.#budget, content };
    return {
      item: toDriveItem(placed),
      read: (start, end, how) => readContent({ ...source, start, end, ...how }),
    };
  }

  /** Name and zip bytes of folders and files with all below them; a lone file is none. */
  async archive(
    user: string,
    ids: readonly string[],
    how: ReadHow = {},
  ): Promise<{ name: string; body: ReadableStream }> {
    if (ids.length === 0 || ids.length > ARCHIVE_ITEMS_MAX) {
      throw new DriveError("invalid_request", `An archive holds 1 to ${ARCHIVE_ITEMS_MAX} items`);
    }
    const tree = this.#tree(user);
    const items = await Promise.all(
      ids.map(async (id): Promise<StoredItem> =>
        id === ROOT
          ? { id, name: ROOT_ITEM.name, createdMs: 0, modifiedMs: 0 }
          : (await tree.find(id)).item
      ),
    );
    const [only] = items;
    if (items.length === 1 && !isFolder(only!)) {
      throw new DriveError("not_a_folder", `"${only!.name}" is a file: get its content`);
    }
    const body = archiveItems(tree, items, { kv: this.#kv, budget: this.#budget, ...how });
    return { name: `${items.length === 1 ? only!.name : "Files"}.zip`, body };
  }

  /** Renames, moves, or both. Throws `name_exists`, `into_itself`, `not_found`. */
  async move(
    user: string,
    id: string,
    change: {
      readonly name?: unknown;
      readonly parent?: string | undefined;
      readonly conflict?: ConflictPolicy | undefined;
    },
  ): Promise<DriveItem> {
    const { name, parent, conflict = "fail" } = change;
    return toDriveItem(
      await moveItem(this.#tree(user), {
        id,
        conflict,
        ...(name === undefined ? {} : { name: checkName(name) }),
        ...(parent === undefined ? {} : { parent }),
      }),
    );
  }

  async trash(user: string, id: string): Promise<TrashedDriveItem> {
    await this.sweeper.list(user);
    return toTrashedItem(await trashItem(this.#tree(user), id));
  }

  async listTrash(user: string, options: PageOptions = {}): Promise<TrashPage> {
    const tree = this.#tree(user);
    const [count, page] = await Promise.all([
      tree.counter(countColumn(TRASH)),
      tree.trash(pageOf(options)),
    ]);
    return {
      children: page.items.map(toTrashedItem),
      count: count.value,
      next: encodeCursor(page.next),
    };
  }

  async restore(user: string, id: string): Promise<DriveItem> {
    return toDriveItem(await restoreItem(this.#tree(user), id));
  }

  /** Deletes an item of the trash for good. */
  async purge(user: string, id: string): Promise<void> {
    const tree = this.#tree(user);
    await purgeItem(tree, id);
    this.#finishPurge(user, await purgeFolders(tree, PURGE_STEPS_AT_ONCE));
  }

  async emptyTrash(user: string): Promise<void> {
    const tree = this.#tree(user);
    // Later than now, so that a clock that runs behind leaves nothing over.
    const beforeMs = this.#env.wallMs() + 60 * 60_000;
    await purgeTrash(tree, { beforeMs, itemsMax: EMPTY_AT_ONCE_MAX });
    this.#finishPurge(user, await purgeFolders(tree, PURGE_STEPS_AT_ONCE));
  }

  async usage(user: string): Promise<{ used: number; quota: number | null; trashDays: number }> {
    const { value } = await this.#tree(user).counter(USED);
    const { quotaBytes } = this.#limits;
    return {
      used: Math.max(0, value),
      quota: quotaBytes === 0 ? null : quotaBytes,
      trashDays: this.#config.trash_days,
    };
  }

  /** Items whose name holds all words of `query`, at most `limit`, with where they are. */
  search(user: string, query: string, limit = 100): Promise<SearchResult> {
    return searchNames(this.#tree(user), query, limit);
  }

  #finishPurge(user: string, done: boolean): void {
    if (!done) this.sweeper.soon(user);
  }

  #tree(user: string): DriveTree {
    return new DriveTree(this.#kv, this.#env, user);
  }
}

function pageOf(options: PageOptions): { limit: number; after?: string } {
  const { limit = PAGE_DEFAULT, cursor } = options;
  if (!Number.isInteger(limit) || limit < 1) {
    throw new DriveError("invalid_request", `A limit is a whole number from 1 to ${PAGE_MAX}`);
  }
  return {
    limit: Math.min(limit, PAGE_MAX),
    ...(cursor === undefined ? {} : { after: decodeCursor(cursor) }),
  };
}

/** Cursors are opaque to callers: names in URLs would look like something to build on. */
function encodeCursor(next: string | null): string | null {
  if (next === null) return null;
  return new TextEncoder().encode(next).toBase64({ alphabet: "base64url", omitPadding: true });
}

function decodeCursor(cursor: string): string {
  try {
    const bytes = Uint8Array.fromBase64(cursor, { alphabet: "base64url" });
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (text.length > 0 && bytes.length <= 900 && !text.includes("\0")) return text;
  } catch {
    // Falls through to the same answer.
  }
  throw new DriveError("invalid_request", "This cursor is not one that a former page gave");
}

export type { DriveItem, PlacedItem, TrashedDriveItem, UploadState };
