/**
 * Uploads: bytes first, link last.
 *
 * An upload has a record in the tree row before its first chunk is written, and the transaction
 * that links the file removes the record. So a chunk row always belongs to a record, to a file or
 * to garbage (garbage.ts), and whoever dies in between leaves a record that expires
 * `drive.upload_hours` after it was last touched. Linking requires the record, so an upload that
 * was swept away cannot become a file with holes.
 *
 * Here is the simple kind: one request that carries all bytes. resumable.ts is the other.
 */
import { z } from "zod";
import { freshId } from "../../kv/env.ts";
import { type Condition, decodeJson, encodeJson, type Mutation } from "../../kv/kv.ts";
import type { Version } from "../../proto/ids.ts";
import { type ChunkBudget, chunkCount, ChunkWriter } from "./chunks.ts";
import { contentTypeOf } from "./content_types.ts";
import { DriveError } from "./errors.ts";
import { noteContentGarbage, noteGarbage } from "./garbage.ts";
import { isFolder, type PlacedItem, type StoredContent, type StoredItem } from "./items.ts";
import {
  addTo,
  type ConflictPolicy,
  freeName,
  nameExists,
  putItem,
  versionIs,
} from "./structure.ts";
import { childColumn, countColumn, type DriveTree, freePlace, present, USED } from "./tree.ts";

/** Unfinished uploads of one user. */
const UPLOADS_MAX = 500;
/** An upload of unknown length says so many chunks ahead which rows it may write. */
const CHUNKS_NOTED_AHEAD = 64;

const Tail = z.object({ upload: z.string(), bytes: z.int().positive() });

export const UploadRecord = z.object({
  parent: z.string(),
  name: z.string(),
  type: z.string(),
  conflict: z.enum(["fail", "replace", "rename"]),
  chunkBytes: z.int().positive(),
  /** Rows 0 to chunksMax - 1 may exist. */
  chunksMax: z.int().nonnegative(),
  startedMs: z.number(),
  touchedMs: z.number(),
  modifiedMs: z.number().optional(),
  /** Of a resumable upload: the announced size, and what is stored. */
  size: z.int().nonnegative().optional(),
  stored: z.object({ bytes: z.int().nonnegative(), crc: z.int().nonnegative() }).optional(),
  /** Bytes behind `stored` that do not fill a chunk yet, in a chunk row of their own. */
  tail: Tail.optional(),
});
export type UploadRecord = z.infer<typeof UploadRecord>;

export interface UploadLimits {
  readonly chunkBytes: number;
  /** 0 for none. */
  readonly quotaBytes: number;
  readonly fileBytesMax: number;
}

export interface UploadTarget {
  readonly parent: string;
  /** As `checkName` returned it. */
  readonly name: string;
  readonly conflict: ConflictPolicy;
  /** What the client says the file is. */
  readonly contentType?: string | null | undefined;
  /** When the file was last changed where it comes from. */
  readonly modifiedMs?: number | undefined;
}

export const uploadColumn = (upload: string): string => `u/${upload}`;
export const encodeUpload = (record: UploadRecord): Uint8Array => encodeJson(record);
export const decodeUpload = (bytes: Uint8Array): UploadRecord =>
  UploadRecord.parse(decodeJson(bytes));

/**
 * Refuses early what could not be linked in the end: no such folder, name taken, too large. The
 * checks that count are made again when the file is linked.
 */
export async function checkTarget(
  tree: DriveTree,
  target: UploadTarget,
  limits: UploadLimits,
  size: number | null,
): Promise<void> {
  const { parent, name, conflict } = target;
  await tree.target(parent);
  const existing = conflict === "rename" ? null : await tree.child(parent, name);
  if (existing !== null && (conflict === "fail" || isFolder(existing.item))) throw nameExists(name);
  await checkSize(tree, limits, size ?? 0, existing);
}

async function checkSize(
  tree: DriveTree,
  limits: UploadLimits,
  size: number,
  replaced: PlacedItem | null,
): Promise<void> {
  if (size > limits.fileBytesMax) throw tooLarge(limits);
  if (limits.quotaBytes === 0) return;
  const used = (await tree.counter(USED)).value - (replaced?.item.content?.size ?? 0);
  if (used + size > limits.quotaBytes) throw overQuota(limits);
}

const tooLarge = (limits: UploadLimits) =>
  new DriveError("file_too_large", `A file has at most ${limits.fileBytesMax} bytes here`);
const overQuota = (limits: UploadLimits) =>
  new DriveError(
    "quota_exceeded",
    `Your drive holds at most ${limits.quotaBytes} bytes; empty the trash or delete something`,
  );
export const uploadGone = () =>
  new DriveError("upload_gone", "This upload expired or was cancelled; begin it again");

/** Writes the record of a new upload and returns the upload's id. */
export async function beginUpload(tree: DriveTree, record: UploadRecord): Promise<string> {
  const waiting = await tree.page("u/", { limit: UPLOADS_MAX, keysOnly: true });
  if (waiting.cells.length >= UPLOADS_MAX) {
    throw new DriveError("too_many_uploads", `${UPLOADS_MAX} uploads are unfinished already`);
  }
  const upload = freshId(tree.env);
  await tree.commit([], [
    { kind: "put", column: uploadColumn(upload), value: encodeUpload(record) },
  ]);
  return upload;
}

/** Gives an upload up: its record becomes garbage that is free at once. No error when it is gone. */
export async function abandonUpload(tree: DriveTree, upload: string): Promise<boolean> {
  const column = uploadColumn(upload);
  return await tree.retry(async () => {
    const cell = await tree.get(column);
    if (cell === null) return false;
    const done = await tree.commit(
      [{ column, is: "version", version: cell.version }],
      abandonMutations(tree, upload, decodeUpload(cell.value)),
    );
    return done === false ? undefined : true;
  });
}

/** What turns an upload's record into garbage. */
export function abandonMutations(
  tree: DriveTree,
  upload: string,
  record: UploadRecord,
): Mutation[] {
  const nowMs = tree.env.wallMs();
  return [
    { kind: "delete", column: uploadColumn(upload) },
    ...(record.chunksMax > 0 ? [noteGarbage(upload, record.chunksMax, nowMs)] : []),
    ...(record.tail ? [noteGarbage(record.tail.upload, 1, nowMs)] : []),
  ];
}

/** Stores what `body` yields as a file and links it. On any failure nothing is linked. */
export async function uploadFile(
  tree: DriveTree,
  options: {
    readonly target: UploadTarget;
    readonly limits: UploadLimits;
    readonly budget: ChunkBudget;
    /** Bytes that will come; null when the client did not say. */
    readonly size: number | null;
    readonly body: AsyncIterable<Uint8Array>;
  },
): Promise<PlacedItem> {
  const { target, limits, budget, size, body } = options;
  const { chunkBytes } = limits;
  await checkTarget(tree, target, limits, size);
  const nowMs = tree.env.wallMs();
  let record: UploadRecord = {
    parent: target.parent,
    name: target.name,
    type: contentTypeOf(target.name, target.contentType),
    conflict: target.conflict,
    chunkBytes,
    chunksMax: size === null ? CHUNKS_NOTED_AHEAD : chunkCount(size, chunkBytes),
    startedMs: nowMs,
    touchedMs: nowMs,
    ...(target.modifiedMs === undefined ? {} : { modifiedMs: target.modifiedMs }),
  };
  const upload = await beginUpload(tree, record);
  const writer = new ChunkWriter({
    kv: tree.kv,
    budget,
    upload,
    chunkBytes,
    expectedBytes: size,
    beforeChunk: async (index) => {
      const touched = index > 0 && index % CHUNKS_NOTED_AHEAD === 0;
      if (!touched && index < record.chunksMax) return;
      record = {
        ...record,
        chunksMax: Math.max(record.chunksMax, index + CHUNKS_NOTED_AHEAD),
        touchedMs: tree.env.wallMs(),
      };
      await touchUpload(tree, upload, record);
      await checkSize(tree, limits, writer.written.bytes, null);
    },
  });
  try {
    for await (const piece of aborts(body)) {
      await writer.write(piece);
      if (writer.written.bytes > limits.fileBytesMax) throw tooLarge(limits);
    }
    const { bytes, crc } = await writer.finish();
    if (size !== null && bytes !== size) {
      throw new DriveError("upload_aborted", `Only ${bytes} of ${size} bytes arrived`);
    }
    const content: StoredContent = { upload, size: bytes, type: record.type, crc, chunkBytes };
    return await linkFile(tree, { record, content, limits });
  } catch (error) {
    await writer.settle();
    // The sweeper does it later where this fails: the record stays until then.
    await abandonUpload(tree, upload).catch(() => {});
    throw error;
  }
}

/** The client's failure to send is told from the store's failure to take. */
async function* aborts(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const pieces = body[Symbol.asyncIterator]();
  try {
    while (true) {
      let next: IteratorResult<Uint8Array>;
      try {
        next = await pieces.next();
      } catch (cause) {
        throw new DriveError("upload_aborted", "The upload broke off", { cause });
      }
      if (next.done) return;
      yield next.value;
    }
  } finally {
    // Lets go of the request's body when we stop first; a body that broke off has nothing to free.
    await pieces.return?.().catch(() => {});
  }
}

async function touchUpload(tree: DriveTree, upload: string, record: UploadRecord): Promise<void> {
  const column = uploadColumn(upload);
  const done = await tree.commit(
    [{ column, is: "present" }],
    [{ kind: "put", column, value: encodeUpload(record) }],
  );
  if (done === false) throw uploadGone();
}

/** Makes a finished upload a file, and its record go, in one operation. */
export function linkFile(
  tree: DriveTree,
  options: {
    readonly record: UploadRecord;
    readonly content: StoredContent;
    readonly limits: UploadLimits;
    /** Only while the record is still at this version. */
    readonly recordVersion?: Version;
    /** Written together with the link. */
    readonly also?: (item: StoredItem) => readonly Mutation[];
  },
): Promise<PlacedItem> {
  const { record, content, limits, recordVersion } = options;
  const { parent } = record;
  const { upload } = content;
  const newId = freshId(tree.env);
  return tree.retry(async (round) => {
    const mine = round === 0 ? null : await tree.locate(newId);
    if (mine !== null) return mine;
    await tree.target(parent);
    let existing = await tree.child(parent, record.name);
    if (existing?.item.content?.upload === upload) return existing;
    let { name } = record;
    if (existing !== null && record.conflict === "rename") {
      name = await freeName(tree, parent, name);
      existing = null;
    }
    if (existing !== null && (record.conflict === "fail" || isFolder(existing.item))) {
      throw nameExists(name);
    }
    const column = childColumn(parent, name, false);
    const nowMs = tree.env.wallMs();
    const item: StoredItem = {
      id: existing?.item.id ?? newId,
      name,
      createdMs: existing?.item.createdMs ?? nowMs,
      modifiedMs: record.modifiedMs ?? nowMs,
      content,
    };
    const old = existing?.item.content;
    const recordIs: Condition = recordVersion === undefined
      ? { column: uploadColumn(upload), is: "present" }
      : { column: uploadColumn(upload), is: "version", version: recordVersion };
    const version = await tree.commit(
      [
        recordIs,
        ...(existing === null
          ? freePlace(parent, name)
          : [...present(parent), versionIs(existing)]),
        ...await withinQuota(tree, limits, content.size - (old?.size ?? 0)),
      ],
      [
        ...putItem(column, item),
        { kind: "delete", column: uploadColumn(upload) },
        addTo(USED, content.size - (old?.size ?? 0)),
        ...(existing === null ? [addTo(countColumn(parent), 1)] : []),
        ...(old === undefined ? [] : noteContentGarbage(old, nowMs)),
        ...(options.also?.(item) ?? []),
      ],
      column,
    );
    if (version !== false) return { item, parent, column, version };
    const current = await tree.get(uploadColumn(upload));
    if (current !== null && current.version === (recordVersion ?? current.version)) {
      return undefined;
    }
    // Gone because we linked it without hearing of it, or because it was swept or cancelled.
    const linked = await tree.locate(item.id);
    if (linked?.item.content?.upload === upload) return linked;
    throw uploadGone();
  });
}

/** The condition under which the quota is kept, with the numbers as they were just read. */
async function withinQuota(
  tree: DriveTree,
  limits: UploadLimits,
  growth: number,
): Promise<Condition[]> {
  if (limits.quotaBytes === 0 || growth <= 0) return [];
  const used = await tree.counter(USED);
  if (used.value + growth > limits.quotaBytes) throw overQuota(limits);
  return [{ column: USED, is: "version", version: used.version }];
}
