/**
 * Uploads in several requests, over any frontends: created with a size, appended to at the current
 * offset, linked with the last byte.
 *
 * What counts as received is in the upload's record, and only grows over bytes that are stored.
 * Appending takes the record over: each of its writes requires the record's version, so that of two
 * requests that append at once (a connection that hangs, and its successor) the later one wins and
 * the former stops. Rows of whole chunks may then be written by both, but with the same bytes, since
 * an offset says which bytes those are. Bytes that do not fill a chunk when a request ends go to a
 * row of their own under a fresh id, noted as garbage before it is written and linked by the record
 * afterwards, so a late writer cannot shorten a chunk that others rely on.
 */
import { z } from "zod";
import { freshId } from "../../kv/env.ts";
import { decodeJson, encodeJson, type Mutation } from "../../kv/kv.ts";
import type { Version } from "../../proto/ids.ts";
import { type ChunkBudget, chunkCount, ChunkWriter, getChunk, putChunk } from "./chunks.ts";
import { contentTypeOf } from "./content_types.ts";
import { DriveError } from "./errors.ts";
import { garbageColumn, noteGarbage } from "./garbage.ts";
import { type PlacedItem, ROOT, type StoredContent } from "./items.ts";
import type { DriveTree } from "./tree.ts";
import {
  beginUpload,
  checkTarget,
  decodeUpload,
  encodeUpload,
  linkFile,
  uploadColumn,
  uploadGone,
  type UploadLimits,
  type UploadRecord,
  type UploadTarget,
} from "./uploads.ts";

const ID = /^[a-z][a-z2-7]{25}$/;
/** The record is brought up to date after so many more bytes: what a dead frontend costs. */
const NOTE_EVERY_BYTES = 16 * 1024 * 1024;

/** A tail that nobody linked: longer than any request lives. */
const TAIL_MS = 24 * 60 * 60_000;

/** Of a finished upload, so that a client that missed the answer can still learn of it. */
const FinishedRecord = z.object({
  item: z.string(),
  size: z.int().nonnegative(),
  atMs: z.number(),
});
const finishedColumn = (upload: string): string => `f/${upload}`;

export interface UploadState {
  readonly upload: string;
  readonly size: number;
  readonly offset: number;
  /** The file, once it is linked. */
  readonly item: string | null;
  /** Where it is to become a file; null when it is one. */
  readonly target: { readonly parent: string; readonly name: string } | null;
}

/** A resumable upload is linked at once when it has no bytes. */
export async function createResumable(
  tree: DriveTree,
  options: {
    readonly target: UploadTarget;
    readonly limits: UploadLimits;
    readonly size: number;
  },
): Promise<UploadState> {
  const { target, limits, size } = options;
  await checkTarget(tree, target, limits, size);
  const nowMs = tree.env.wallMs();
  const { parent, name, conflict, modifiedMs } = target;
  const upload = await beginUpload(tree, {
    parent,
    name,
    conflict,
    type: contentTypeOf(name, target.contentType),
    chunkBytes: limits.chunkBytes,
    chunksMax: chunkCount(size, limits.chunkBytes),
    startedMs: nowMs,
    touchedMs: nowMs,
    ...(modifiedMs === undefined ? {} : { modifiedMs }),
    size,
    stored: { bytes: 0, crc: 0 },
  });
  if (size > 0) return { upload, size, offset: 0, item: null, target: { parent, name } };
  const item = await linkResumable(tree, upload, { ...await readRecord(tree, upload), limits });
  return { upload, size, offset: 0, item: item.item.id, target: null };
}

/** Throws `upload_gone`. */
export async function resumableState(tree: DriveTree, upload: string): Promise<UploadState> {
  const finished = await readFinished(tree, upload);
  if (finished !== null) return finished;
  try {
    const { record } = await readRecord(tree, upload);
    return stateOf(upload, record);
  } catch (error) {
    // Linked between the two reads?
    const after = await readFinished(tree, upload);
    if (after !== null) return after;
    throw error;
  }
}

/**
 * Appends what `body` yields from `offset` on. A body that breaks off is no error: what came is
 * kept and counted. Links the file with its last byte.
 */
export async function appendResumable(
  tree: DriveTree,
  options: {
    readonly upload: string;
    readonly offset: number;
    readonly limits: UploadLimits;
    readonly budget: ChunkBudget;
    readonly body: AsyncIterable<Uint8Array>;
  },
): Promise<UploadState> {
  const { upload, offset, limits, budget, body } = options;
  const state = await resumableState(tree, upload);
  if (state.offset !== offset) {
    throw new DriveError(
      "upload_conflict",
      `This upload goes on at ${state.offset}, not ${offset}`,
    );
  }
  if (state.item !== null) return state;
  const hold = new RecordHold(tree, upload, await readRecord(tree, upload));
  const { chunkBytes } = hold.record;
  const size = hold.record.size!, stored = hold.record.stored!;
  const tailUpload = freshId(tree.env);
  // Takes the record over from a request that hangs, and notes the row that a tail may go to.
  await hold.write({}, [noteGarbage(tailUpload, 1, tree.env.wallMs() + TAIL_MS)]);
  const tail = await readTail(tree, hold.record);

  let latest = stored, notedBytes = stored.bytes;
  let noting: Promise<void> = Promise.resolve();
  const noted = { failure: null as { readonly error: unknown } | null };
  const writer = new ChunkWriter({
    kv: tree.kv,
    budget,
    upload,
    chunkBytes,
    from: stored,
    expectedBytes: size - stored.bytes,
    onStored: (prefix) => {
      latest = prefix;
      if (prefix.bytes - notedBytes < NOTE_EVERY_BYTES || prefix.bytes === size) return;
      notedBytes = prefix.bytes;
      noting = noting.then(() => hold.write({ stored: prefix }, dropTail(hold.record)))
        .catch((error) => {
          noted.failure ??= { error };
        });
    },
  });
  let excess = false;
  try {
    await writer.write(tail);
    for await (const piece of body) {
      const room = size - writer.written.bytes;
      await writer.write(piece.subarray(0, room));
      excess = piece.length > room;
      if (excess || noted.failure !== null) break;
    }
  } catch {
    // The client went away, or the writer failed: `writer.failure` tells. What is stored counts.
  }
  await writer.settle();
  await noting;
  if (noted.failure !== null) throw noted.failure.error;

  if (writer.written.bytes === size && writer.failure === null) {
    latest = await writer.finish();
    await hold.write({ stored: latest }, [
      ...dropTail(hold.record),
      { kind: "delete", column: garbageColumn(tailUpload) },
    ]);
    const { item } = await linkResumable(tree, upload, {
      record: hold.record,
      version: hold.version,
      limits,
    });
    return { upload, size, offset: size, item: item.id, target: null };
  }
  // Bytes behind a chunk that failed are not worth keeping.
  const rest = writer.failure === null ? writer.pending : new Uint8Array(0);
  if (rest.length > 0) await putChunk(tree.kv, tailUpload, 0, rest);
  if (writer.failure === null || latest.bytes > hold.record.stored!.bytes) {
    await hold.write(
      {
        stored: latest,
        ...(rest.length > 0 ? { tail: { upload: tailUpload, bytes: rest.length } } : {}),
      },
      [
        ...dropTail(hold.record),
        rest.length > 0
          ? { kind: "delete", column: garbageColumn(tailUpload) }
          : noteGarbage(tailUpload, 1, 0),
      ],
    );
  }
  if (writer.failure !== null) throw writer.failure.error;
  if (excess) {
    throw new DriveError("invalid_request", `More bytes came than the ${size} announced`);
  }
  return stateOf(upload, hold.record);
}

/**
 * All bytes are here, so a name that was taken meanwhile, or a folder that went, no longer turns
 * the upload down: the file gets a number, or goes to the root.
 */
async function linkResumable(
  tree: DriveTree,
  upload: string,
  options: {
    readonly record: UploadRecord;
    readonly version: Version;
    readonly limits: UploadLimits;
  },
): Promise<PlacedItem> {
  const { record, version, limits } = options;
  const size = record.size!;
  const content: StoredContent = {
    upload,
    size,
    type: record.type,
    crc: record.stored!.crc,
    chunkBytes: record.chunkBytes,
  };
  const link = (changed: Partial<UploadRecord>) =>
    linkFile(tree, {
      record: { ...record, ...changed },
      content,
      limits,
      recordVersion: version,
      also: (item) => [{
        kind: "put",
        column: finishedColumn(upload),
        value: encodeJson({ item: item.id, size, atMs: tree.env.wallMs() }),
      }],
    });
  try {
    return await link({});
  } catch (error) {
    if (!(error instanceof DriveError)) throw error;
    if (error.code === "name_exists") return await link({ conflict: "rename" });
    if (error.code !== "not_found" && error.code !== "not_a_folder") throw error;
    return await link({ conflict: "rename", parent: ROOT });
  }
}

/** Drops the records of uploads that were finished before `beforeMs`. */
export async function forgetFinished(tree: DriveTree, beforeMs: number): Promise<void> {
  const { cells } = await tree.page("f/", { limit: 1000 });
  const old = cells.filter((cell) => FinishedRecord.parse(decodeJson(cell.value!)).atMs < beforeMs)
    .slice(0, 200);
  if (old.length === 0) return;
  await tree.commit([], old.map(({ column }) => ({ kind: "delete", column })));
}

/** The record of an upload as one request holds it: every write requires the last one's version. */
class RecordHold {
  record: UploadRecord;
  version: Version;
  constructor(
    readonly tree: DriveTree,
    readonly upload: string,
    start: { readonly record: UploadRecord; readonly version: Version },
  ) {
    this.record = start.record;
    this.version = start.version;
  }

  /** A new `stored` has taken the old tail in; without it the tail stays. */
  async write(
    change: Pick<UploadRecord, "stored" | "tail">,
    mutations: readonly Mutation[],
  ): Promise<void> {
    const column = uploadColumn(this.upload);
    const { tail: oldTail, ...rest } = this.record;
    const tail = change.stored === undefined ? oldTail : change.tail;
    const next: UploadRecord = {
      ...rest,
      ...(change.stored === undefined ? {} : { stored: change.stored }),
      ...(tail === undefined ? {} : { tail }),
      touchedMs: this.tree.env.wallMs(),
    };
    const version = await this.tree.commit(
      [{ column, is: "version", version: this.version }],
      [{ kind: "put", column, value: encodeUpload(next) }, ...mutations],
      column,
    );
    if (version === false) {
      throw new DriveError("upload_conflict", "Another request goes on with this upload");
    }
    this.record = next;
    this.version = version;
  }
}

function dropTail(record: UploadRecord): Mutation[] {
  return record.tail ? [noteGarbage(record.tail.upload, 1, 0)] : [];
}

async function readTail(tree: DriveTree, record: UploadRecord): Promise<Uint8Array> {
  if (record.tail === undefined) return new Uint8Array(0);
  const bytes = await getChunk(tree.kv, record.tail.upload, 0);
  if (bytes?.length !== record.tail.bytes) {
    throw new DriveError("upload_conflict", "Another request goes on with this upload");
  }
  return bytes;
}

async function readRecord(
  tree: DriveTree,
  upload: string,
): Promise<{ record: UploadRecord; version: Version }> {
  const cell = ID.test(upload) ? await tree.get(uploadColumn(upload)) : null;
  const record = cell === null ? null : decodeUpload(cell.value);
  // Without a size it belongs to a request that sends everything at once.
  if (cell === null || record?.size === undefined) throw uploadGone();
  return { record, version: cell.version };
}

async function readFinished(tree: DriveTree, upload: string): Promise<UploadState | null> {
  if (!ID.test(upload)) return null;
  const cell = await tree.get(finishedColumn(upload));
  if (cell === null) return null;
  const { item, size } = FinishedRecord.parse(decodeJson(cell.value));
  return { upload, size, offset: size, item, target: null };
}

function stateOf(upload: string, record: UploadRecord): UploadState {
  const { parent, name, stored, tail } = record;
  const offset = (stored?.bytes ?? 0) + (tail?.bytes ?? 0);
  return { upload, size: record.size ?? 0, offset, item: null, target: { parent, name } };
}
