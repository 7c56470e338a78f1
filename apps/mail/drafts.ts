/**
 * Messages that are being written. A draft never refuses text: what is in the address fields is kept
 * as it was typed, and checked only when the message is sent.
 *
 * The text is a cell of its own beside its entry in Drafts, and both change in one operation. A
 * client makes up the draft's id, so repeating a save whose answer got lost changes nothing. Each
 * save has a revision: whoever saves on top of a revision that is no longer the last (a second
 * window) is told, and can keep its text as another draft. Sending keeps the id, so a late autosave
 * cannot bring back a draft that has been sent.
 */
import type { Env } from "../../kv/env.ts";
import { decodeJson, encodeJson, type Kv, type Mutation } from "../../kv/kv.ts";
import { type Address, parseRecipients } from "./addresses.ts";
import type { Attachments, Upload } from "./attachments.ts";
import * as keys from "./keys.ts";
import { MailError } from "./mail_error.ts";
import { Mailbox } from "./mailbox.ts";
import type { MessageEntry, PlacedEntry } from "./message_entry.ts";
import { oneLine, snippetOf } from "./parse_message.ts";

export interface DraftAttachment {
  readonly filename: string;
  readonly contentType: string;
  readonly size: number;
  readonly upload?: string;
  readonly message?: string;
  readonly n?: number;
}

export interface DraftContent {
  readonly to: readonly string[];
  readonly cc: readonly string[];
  readonly bcc: readonly string[];
  readonly subject: string;
  readonly text: string;
  readonly html: string;
  /** Id of the message that this one answers, and how: it gets a mark when this one is sent. */
  readonly replyTo?: string;
  readonly forwards?: string;
  /** Message-IDs of the thread, oldest first. */
  readonly references: readonly string[];
  readonly attachments: readonly DraftAttachment[];
}

export interface SavedDraft extends DraftContent {
  readonly revision: number;
  readonly savedMs: number;
}

/** The text of one draft; what is pasted beyond it belongs into an attachment. */
export const DRAFT_BYTES_MAX = 2 * 1024 * 1024;

export class Drafts {
  readonly #kv: Kv;
  readonly #env: Env;
  readonly #attachments: Attachments;
  readonly #mailDomain: string;

  constructor(options: { kv: Kv; env: Env; attachments: Attachments; mailDomain: string }) {
    this.#kv = options.kv;
    this.#env = options.env;
    this.#attachments = options.attachments;
    this.#mailDomain = options.mailDomain;
  }

  /**
   * @param revision the one that the client last saw; leave it out to overwrite whatever is there
   * @throws {MailError} `draft_conflict`, `draft_gone`, `message_too_large`
   */
  async save(
    user: string,
    draft: { id: string; content: DraftContent; revision?: number },
  ): Promise<{ placed: PlacedEntry; saved: SavedDraft }> {
    const mailbox = this.#mailbox(user), { id, content } = draft;
    const column = keys.draftColumn(id), cell = await this.#kv.get(mailbox.row, column);
    const stored = cell === null ? null : decodeJson(cell.value) as SavedDraft;
    const last = stored?.revision ?? 0;
    if (stored !== null && draft.revision !== undefined && draft.revision !== last) {
      // The same save again, because its answer was lost: it is done already.
      if (sameContent(stored, content)) {
        return { placed: await mailbox.find(id), saved: stored };
      }
      throw new MailError(
        "draft_conflict",
        "This draft was changed in another window. Save yours as a new draft to keep both",
      );
    }
    const saved: SavedDraft = { ...content, revision: last + 1, savedMs: this.#env.wallMs() };
    const value = encodeJson(saved);
    if (value.length > DRAFT_BYTES_MAX) {
      throw new MailError("message_too_large", `A draft holds ${DRAFT_BYTES_MAX} bytes of text`);
    }
    const put: Mutation = { kind: "put", column, value };
    if (cell !== null) {
      const placed = await mailbox.change(id, {
        change: (entry) => this.#entry(user, { ...entry, id }, saved),
        folderId: "drafts",
        renumber: true,
        more: [put],
        moreConditions: [{ column, is: "version", version: cell.version }],
      });
      return { placed, saved };
    }
    const entry = this.#entry(user, { id, flags: ["draft", "seen"] }, saved);
    const result = await this.#kv.apply({
      row: mailbox.row,
      conditions: [{ column: keys.idColumn(id), is: "absent" }],
      mutations: [...await mailbox.addition("drafts", entry), put],
    });
    if (!result.applied) {
      throw new MailError("draft_gone", "This draft has been sent or deleted");
    }
    const uid = await mailbox.noteUid("drafts", entry, result);
    return { placed: { entry, folderId: "drafts", uid }, saved };
  }

  async find(user: string, id: string): Promise<SavedDraft | null> {
    const cell = await this.#kv.get(keys.mailRow(user), keys.draftColumn(id));
    return cell === null ? null : decodeJson(cell.value) as SavedDraft;
  }

  /** The uploads that belong to a draft, as far as they still exist. */
  async uploads(user: string, content: DraftContent): Promise<Upload[]> {
    const uploads: Upload[] = [];
    for (const { upload } of content.attachments) {
      if (upload === undefined) continue;
      const found = await this.#attachments.findUpload(user, upload).catch((error) => {
        if (error instanceof MailError) return null;
        throw error;
      });
      if (found !== null) uploads.push(found);
    }
    return uploads;
  }

  #entry(
    user: string,
    base: { id: string; flags: readonly string[] },
    draft: SavedDraft,
  ): MessageEntry {
    const cc = leniently(draft.cc), bcc = leniently(draft.bcc);
    return {
      id: base.id,
      flags: base.flags,
      from: { name: "", address: `${user}@${this.#mailDomain}` },
      to: leniently(draft.to),
      ...(cc.length === 0 ? {} : { cc }),
      ...(bcc.length === 0 ? {} : { bcc }),
      subject: oneLine(draft.subject).slice(0, 300),
      dateMs: draft.savedMs,
      receivedMs: draft.savedMs,
      size: draft.attachments.reduce((sum, { size }) => sum + size, draft.text.length),
      snippet: snippetOf(draft.text),
      hasAttachments: draft.attachments.length > 0,
    };
  }

  #mailbox(user: string): Mailbox {
    return new Mailbox({ kv: this.#kv, env: this.#env, user });
  }
}

function leniently(texts: readonly string[]): Address[] {
  return texts.flatMap((text) => {
    try {
      return parseRecipients(text);
    } catch {
      return [{ name: oneLine(text).slice(0, 100), address: "" }];
    }
  }).slice(0, 20);
}

function sameContent(a: DraftContent, b: DraftContent): boolean {
  const essence = (draft: DraftContent) =>
    JSON.stringify([
      draft.to,
      draft.cc,
      draft.bcc,
      draft.subject,
      draft.text,
      draft.html,
      draft.attachments,
    ]);
  return essence(a) === essence(b);
}
