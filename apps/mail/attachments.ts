/**
 * Attachments before they are part of a message: uploaded bytes that wait, parts of messages that
 * are forwarded, and small ones that came within the request.
 *
 * An upload is written once and belongs to its user until the message is sent or the draft deleted.
 * Uploads that nothing has used for UPLOAD_KEPT_MS are swept when the next one comes in.
 */
import { type Env, freshId } from "../../kv/env.ts";
import { decodeJson, encodeJson, type Kv, type Mutation, remove } from "../../kv/kv.ts";
import { type Body, type BodyStore, type ByteSource, entryHolder } from "./body_store.ts";
import { type OpenAttachment, safeContentType } from "./compose_message.ts";
import * as keys from "./keys.ts";
import { MailError } from "./mail_error.ts";
import { Mailbox } from "./mailbox.ts";
import { oneLine, readAttachment } from "./parse_message.ts";

/** How a request or a draft names an attachment. */
export type AttachmentRef =
  | { readonly upload: string }
  /** Attachment `n` of a message in the same mailbox: what a forward carries along. */
  | { readonly message: string; readonly n: number }
  | { readonly filename: string; readonly contentType: string; readonly content: Uint8Array };

export interface Upload {
  readonly id: string;
  readonly filename: string;
  readonly contentType: string;
  readonly size: number;
  readonly body: Body;
  readonly createdMs: number;
}

export const UPLOAD_KEPT_MS = 7 * 24 * 3_600_000;
export const ATTACHMENTS_MAX = 100;
const UPLOADS_MAX = 500;

export class Attachments {
  readonly #kv: Kv;
  readonly #env: Env;
  readonly #bodies: BodyStore;
  readonly #maxBytes: number;

  constructor(options: { kv: Kv; env: Env; bodies: BodyStore; maxBytes: number }) {
    this.#kv = options.kv;
    this.#env = options.env;
    this.#bodies = options.bodies;
    this.#maxBytes = options.maxBytes;
  }

  /** @throws {MailError} `message_too_large` */
  async upload(
    user: string,
    file: { filename: string; contentType: string; source: ByteSource },
  ): Promise<Upload> {
    await this.#sweep(user);
    const id = freshId(this.#env);
    const body = await this.#bodies.write(file.source, {
      bodyId: freshId(this.#env),
      holders: [entryHolder(user, id)],
      maxBytes: this.#maxBytes,
    });
    const upload: Upload = {
      id,
      filename: oneLine(file.filename).slice(0, 200) || "attachment",
      contentType: safeContentType(file.contentType),
      size: body.size,
      body,
      createdMs: this.#env.wallMs(),
    };
    const column = keys.uploadColumn(id);
    await this.#kv.apply({
      row: keys.mailRow(user),
      mutations: [{ kind: "put", column, value: encodeJson(upload) }],
    });
    return upload;
  }

  async findUpload(user: string, id: string): Promise<Upload> {
    const cell = /^[a-z0-9]{1,40}$/.test(id)
      ? await this.#kv.get(keys.mailRow(user), keys.uploadColumn(id))
      : null;
    if (cell === null) {
      throw new MailError("attachment_missing", "An attachment is gone; attach the file again");
    }
    return decodeJson(cell.value) as Upload;
  }

  /** Makes references readable. @throws {MailError} `attachment_missing` */
  async open(user: string, refs: readonly AttachmentRef[]): Promise<OpenAttachment[]> {
    if (refs.length > ATTACHMENTS_MAX) {
      throw new MailError("invalid_message", `At most ${ATTACHMENTS_MAX} attachments`);
    }
    const opened: OpenAttachment[] = [];
    for (const ref of refs) {
      if ("upload" in ref) {
        const { filename, contentType, size, body } = await this.findUpload(user, ref.upload);
        opened.push({ filename, contentType, size, open: () => this.#bodies.read(body) });
      } else if ("message" in ref) {
        opened.push(await this.#openPart(user, ref));
      } else {
        const { filename, contentType, content } = ref;
        opened.push({ filename, contentType, size: content.length, open: () => [content] });
      }
    }
    return opened;
  }

  async #openPart(
    user: string,
    { message, n }: { message: string; n: number },
  ): Promise<OpenAttachment> {
    const mailbox = new Mailbox({ kv: this.#kv, env: this.#env, user });
    const { body } = (await mailbox.find(message)).entry;
    const part = body === undefined
      ? null
      : await readAttachment(await this.#bodies.readAll(body), n);
    if (part === null) {
      throw new MailError("attachment_missing", "The message to forward has no such attachment");
    }
    const { filename, contentType, content } = part;
    return { filename, contentType, size: content.length, open: () => [content] };
  }

  /** The mutations that take uploads off the user's row; release their bodies afterwards. */
  removal(uploads: readonly Upload[]): Mutation[] {
    return uploads.map(({ id }) => ({ kind: "delete", column: keys.uploadColumn(id) }));
  }

  async release(user: string, uploads: readonly Upload[]): Promise<void> {
    for (const { id, body } of uploads) {
      await this.#bodies.release(body.bodyId, entryHolder(user, id));
    }
  }

  async discard(user: string, id: string): Promise<void> {
    const upload = await this.findUpload(user, id);
    await remove(this.#kv, keys.mailRow(user), keys.uploadColumn(id));
    await this.release(user, [upload]);
  }

  async #sweep(user: string): Promise<void> {
    const row = keys.mailRow(user);
    const page = await this.#kv.getRow(row, { prefix: keys.UPLOAD, limit: UPLOADS_MAX });
    if (page.cells.length >= UPLOADS_MAX) {
      throw new MailError("invalid_message", `At most ${UPLOADS_MAX} attachments can wait at once`);
    }
    const limitMs = this.#env.wallMs() - UPLOAD_KEPT_MS;
    const old = page.cells.map((cell) => decodeJson(cell.value!) as Upload)
      .filter(({ createdMs }) => createdMs < limitMs);
    if (old.length === 0) return;
    const drafts = await this.#kv.getRow(row, { prefix: keys.DRAFT, limit: 1000 });
    // A draft too large for the page might name any of them.
    if (drafts.next !== null || drafts.cells.some((cell) => cell.value === undefined)) return;
    const used = drafts.cells.map((cell) => new TextDecoder().decode(cell.value)).join("\n");
    for (const upload of old) {
      if (!used.includes(`"${upload.id}"`)) await this.discard(user, upload.id);
    }
  }
}
