/**
 * The bytes of messages and uploads: written as a stream, read as a stream, shared by all who hold
 * them. A body is one row under a fresh random id, so bodies spread over all backends:
 *
 *     <bodyId>/body
 *       c/<nnnn>       up to CHUNK_BYTES each; a short mail is a single cell
 *       meta           JSON {size, chunkCount}, written with the last chunk: without it, no body
 *       ref/<holder>   one for each mailbox entry or outbox that points here
 *
 * Sharing is safe because holders are only ever removed, or added by somebody who is a holder:
 * all holders of a mail are written with the body, before anything points to it. So a body without
 * holders stays without, and whoever removed the last one deletes the row. A crash between removing
 * an entry and removing its holder leaves garbage, never an entry without its body.
 */
import { encodeJson, type Kv, type Mutation, type RowOp } from "../../kv/kv.ts";
import { decodeJson } from "../../kv/kv.ts";
import { bodyRow } from "./keys.ts";
import { MailError } from "./mail_error.ts";

/** Large enough that 25 MiB are 25 writes, small enough that 50 senders at once stay small. */
export const CHUNK_BYTES = 1024 * 1024;
const HOLDERS_PER_OPERATION = 150;

export interface Body {
  readonly bodyId: string;
  readonly size: number;
  readonly chunkCount: number;
}

/** A body that is stored but for its end: with these mutations of its row, it is there. */
export interface BodyEnd {
  readonly body: Body;
  readonly mutations: readonly Mutation[];
}

export type ByteSource = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

const chunkColumn = (index: number) => `c/${String(index).padStart(4, "0")}`;
const holderColumn = (holder: string) => `ref/${holder}`;

/** Who holds a body: an entry in a mailbox, an upload, an outbox. */
export const entryHolder = (user: string, messageId: string): string => `${user}:${messageId}`;
export const outboxHolder = (outId: string): string => `=${outId}`;

export class BodyStore {
  readonly #kv: Kv;

  constructor(kv: Kv) {
    this.#kv = kv;
  }

  /**
   * Stores a body with all its holders. Nothing points to it yet when this returns.
   *
   * @throws {MailError} `message_too_large`; what was written is deleted again
   */
  async write(
    source: ByteSource,
    options: { bodyId: string; holders: readonly string[]; maxBytes: number },
  ): Promise<Body> {
    const { body, mutations } = await this.writeAllButEnd(source, options);
    try {
      await this.#kv.apply({ row: bodyRow(options.bodyId), mutations });
    } catch (error) {
      await this.delete(options.bodyId).catch(() => {});
      throw error;
    }
    return body;
  }

  /**
   * Stores what goes before the last chunk, for a short mail nothing at all, and leaves the end to the
   * caller, who adds what else is to become true in the same operation.
   *
   * @param options `beforeWrite` is awaited before anything is written; not called if nothing is
   * @throws {MailError} `message_too_large`; what was written is deleted again
   */
  async writeAllButEnd(source: ByteSource, options: {
    bodyId: string;
    holders: readonly string[];
    maxBytes: number;
    beforeWrite?: () => Promise<void>;
  }): Promise<BodyEnd> {
    const row = bodyRow(options.bodyId);
    let chunk = new Uint8Array(0), filled = 0, size = 0, chunkCount = 0, begun = false;
    const apply = async (mutations: readonly Mutation[]) => {
      if (!begun) await options.beforeWrite?.();
      begun = true;
      await this.#kv.apply({ row, mutations });
    };
    const put = (value: Uint8Array): Mutation => {
      return { kind: "put", column: chunkColumn(chunkCount++), value };
    };
    try {
      for await (const piece of source) {
        size += piece.byteLength;
        if (size > options.maxBytes) {
          throw new MailError(
            "message_too_large",
            `The message is larger than ${options.maxBytes} bytes`,
          );
        }
        for (let at = 0; at < piece.byteLength;) {
          if (filled === CHUNK_BYTES) {
            await apply([put(chunk)]);
            // The store may still read the old buffer; it must not change under its hands.
            chunk = new Uint8Array(CHUNK_BYTES);
            filled = 0;
          }
          const take = Math.min(piece.byteLength - at, CHUNK_BYTES - filled);
          if (filled + take > chunk.byteLength) {
            const capacity = Math.min(CHUNK_BYTES, Math.max(2 * chunk.byteLength, filled + take));
            const larger = new Uint8Array(capacity);
            larger.set(chunk.subarray(0, filled));
            chunk = larger;
          }
          chunk.set(piece.subarray(at, at + take), filled);
          filled += take;
          at += take;
        }
      }
      const holders = options.holders.map((holder): Mutation => ({
        kind: "put",
        column: holderColumn(holder),
        value: new Uint8Array(0),
      }));
      while (holders.length > HOLDERS_PER_OPERATION) {
        await apply(holders.splice(0, HOLDERS_PER_OPERATION));
      }
      const end = put(chunk.subarray(0, filled));
      const meta: Mutation = {
        kind: "put",
        column: "meta",
        value: encodeJson({ size, chunkCount }),
      };
      const body = { bodyId: options.bodyId, size, chunkCount };
      return { body, mutations: [end, meta, ...holders] };
    } catch (error) {
      if (begun) await this.delete(options.bodyId).catch(() => {});
      throw error;
    }
  }

  /** The body as it is stored, or null; for ids that can be derived rather than remembered. */
  async find(bodyId: string): Promise<Body | null> {
    const meta = await this.#kv.get(bodyRow(bodyId), "meta");
    if (meta === null) return null;
    const { size, chunkCount } = decodeJson(meta.value) as { size: number; chunkCount: number };
    return { bodyId, size, chunkCount };
  }

  /** The bytes, one chunk in memory at a time. */
  async *read(body: Body, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    for (let index = 0; index < body.chunkCount; index++) {
      const options = signal === undefined ? {} : { signal };
      const cell = await this.#kv.get(bodyRow(body.bodyId), chunkColumn(index), options);
      if (cell === null) {
        throw new MailError("not_found", "This message was deleted while it was read");
      }
      yield cell.value;
    }
  }

  /** The first `limit` bytes (default: all of it) in one array. */
  async readAll(body: Body, limit = Infinity): Promise<Uint8Array> {
    const length = Math.min(body.size, limit);
    const bytes = new Uint8Array(length);
    let at = 0;
    for await (const chunk of this.read(body)) {
      const part = chunk.subarray(0, length - at);
      bytes.set(part, at);
      at += part.byteLength;
      if (at >= length) break;
    }
    return bytes.subarray(0, at);
  }

  /** Adds a holder; only somebody who is one already may, or the body could be gone meanwhile. */
  async share(bodyId: string, from: string, to: string): Promise<boolean> {
    const result = await this.#kv.apply({
      row: bodyRow(bodyId),
      conditions: [{ column: holderColumn(from), is: "present" }],
      mutations: [{ kind: "put", column: holderColumn(to), value: new Uint8Array(0) }],
    });
    return result.applied;
  }

  /** Gives up one hold; the last one out deletes the bytes. Repeating it is harmless. */
  async release(bodyId: string, holder: string): Promise<void> {
    const row = bodyRow(bodyId);
    await this.#kv.apply({
      row,
      mutations: [{ kind: "delete", column: holderColumn(holder) }],
    });
    const left = await this.#kv.getRow(row, { prefix: "ref/", limit: 1, keysOnly: true });
    if (left.cells.length === 0) await this.delete(bodyId);
  }

  /**
   * The operation that gives up one hold where `other` is known to be another: it applies only while
   * that one is there, so the row cannot be left without holders.
   */
  releaseBeside(bodyId: string, holder: string, other: string): RowOp {
    return {
      row: bodyRow(bodyId),
      conditions: [{ column: holderColumn(other), is: "present" }],
      mutations: [{ kind: "delete", column: holderColumn(holder) }],
    };
  }

  /** Deletes a body that nothing points to. */
  async delete(bodyId: string): Promise<void> {
    await this.#kv.apply(this.deletion(bodyId));
  }

  /** The same as an operation. */
  deletion(bodyId: string): RowOp {
    return { row: bodyRow(bodyId), mutations: [{ kind: "deletePrefix", prefix: "" }] };
  }
}
