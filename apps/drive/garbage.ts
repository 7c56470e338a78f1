/**
 * Chunks that no file links to any more: the record of them, and freeing them.
 *
 * A record is written in the same transaction that takes the last link away, so chunks are either
 * linked, or part of an upload under way, or noted here; no crash can lose track of them. Records of
 * replaced and deleted files wait for GRACE_MS, because somebody may be half-way through a download.
 */
import { z } from "zod";
import { decodeJson, encodeJson, type Mutation } from "../../kv/kv.ts";
import { chunkCount, deleteChunks } from "./chunks.ts";
import type { StoredContent } from "./items.ts";
import type { DriveTree } from "./tree.ts";

/** How long a download of content that was replaced or deleted may still go on. */
export const GARBAGE_GRACE_MS = 60 * 60_000;

const GarbageRecord = z.object({ chunks: z.int().nonnegative(), afterMs: z.number() });

export const garbageColumn = (upload: string): string => `g/${upload}`;

/** Notes that the chunk rows 0 to `chunks - 1` of an upload may be freed after `afterMs`. */
export function noteGarbage(upload: string, chunks: number, afterMs: number): Mutation {
  return { kind: "put", column: garbageColumn(upload), value: encodeJson({ chunks, afterMs }) };
}

export function noteContentGarbage(content: StoredContent, nowMs: number): Mutation[] {
  const chunks = chunkCount(content.size, content.chunkBytes);
  return chunks === 0 ? [] : [noteGarbage(content.upload, chunks, nowMs + GARBAGE_GRACE_MS)];
}

/** Frees chunks that are due, at most about `chunksMax`; returns how many it freed. */
export async function freeGarbage(tree: DriveTree, chunksMax: number): Promise<number> {
  let freed = 0, after: string | undefined;
  while (freed < chunksMax) {
    const page = await tree.page("g/", {
      limit: 100,
      ...(after === undefined ? {} : { after }),
    });
    for (const cell of page.cells) {
      const { chunks, afterMs } = GarbageRecord.parse(decodeJson(cell.value!));
      if (afterMs > tree.env.wallMs() || freed >= chunksMax) continue;
      const upload = cell.column.slice(2);
      // From the end, so that a file larger than one round gets shorter and its record says so.
      const from = Math.max(0, chunks - (chunksMax - freed));
      await deleteChunks(tree.kv, upload, { from, to: chunks });
      freed += chunks - from;
      await tree.commit(
        [{ column: cell.column, is: "version", version: cell.version }],
        [from === 0 ? { kind: "delete", column: cell.column } : noteGarbage(upload, from, afterMs)],
      );
    }
    if (page.next === null) break;
    after = page.next;
  }
  return freed;
}
