/**
 * Mail as the rest of the product sees it: one object per process, no state but what is in the store.
 *
 * Start at {@link Mail.send}, {@link Mail.read} and smtp_intake.ts. What lies where is told in
 * keys.ts, how a message travels in outbox.ts, how an index changes in mailbox.ts.
 */
import { type Env, freshId } from "../../kv/env.ts";
import type { Kv } from "../../kv/kv.ts";
import type { ClusterConfig } from "../../proto/cluster_config.ts";
import { Acceptance } from "./acceptance.ts";
import { type AttachmentRef, Attachments } from "./attachments.ts";
import { BodyStore, type ByteSource, entryHolder } from "./body_store.ts";
import { composeMessage, type OutgoingMessage } from "./compose_message.ts";
import { type DraftContent, Drafts, type SavedDraft } from "./drafts.ts";
import type { Folder } from "./folders.ts";
import { MailError } from "./mail_error.ts";
import {
  addressOf,
  isKnownRecipient,
  mailboxOf,
  type MailParts,
  messageIdFor,
} from "./mail_parts.ts";
import type { EntryPage, Mailbox } from "./mailbox.ts";
import { changeFlags, type MessageEntry, type PlacedEntry } from "./message_entry.ts";
import { Outbox, type RecipientReport } from "./outbox.ts";
import { type LocalUsers, OutboxWorker, type OutsideTransport } from "./outbox_worker.ts";
import { type ParsedMessage, readAttachment, readMessage } from "./parse_message.ts";
import { ParseSlots } from "./parse_slots.ts";
import { safeHtml } from "./safe_html.ts";
import { searchMailbox, type SearchPage } from "./search.ts";
import { Sending, type SendRequest } from "./sending.ts";
import { SmtpIntake } from "./smtp_intake.ts";

export interface MailOptions {
  readonly kv: Kv;
  readonly env: Env;
  readonly config: ClusterConfig;
  /** Who has a mailbox here: `Accounts`. */
  readonly users: LocalUsers;
  /** Processes with it also carry mail to other servers. */
  readonly outside?: OutsideTransport;
}

export interface FullMessage extends PlacedEntry {
  readonly content: ParsedMessage;
  /** What became of it, on messages that the user sent. */
  readonly recipients?: readonly RecipientReport[];
}

const TRACE_BYTES_MAX = 4096;

export class Mail {
  readonly drafts: Drafts;
  readonly attachments: Attachments;
  readonly worker: OutboxWorker;
  readonly smtp: SmtpIntake;
  readonly mailDomain: string;
  readonly #parts: MailParts;
  readonly #sending: Sending;
  readonly #parsing = new ParseSlots();

  constructor(options: MailOptions) {
    const { kv, env, users } = options, config = options.config.mail;
    const maxBytes = config.message_max_bytes, mailDomain = options.config.cluster.mail_domain;
    const bodies = new BodyStore(kv), outbox = new Outbox({ kv, env, bodies });
    const attachments = new Attachments({ kv, env, bodies, maxBytes });
    const drafts = new Drafts({ kv, env, attachments, mailDomain });
    const workerId = freshId(env);
    // Servers that pass a message on add a few lines to it; those do not count.
    const acceptance = new Acceptance({
      kv,
      env,
      bodies,
      outbox,
      mailDomain,
      maxBytes: maxBytes + TRACE_BYTES_MAX,
      workerId,
    });
    const worker = new OutboxWorker({
      kv,
      env,
      bodies,
      outbox,
      users,
      mailDomain,
      retryHours: config.retry_hours,
      workerId,
      // Frontends deliver what stays here, and share the search for what a dead one left.
      ...(options.outside === undefined
        ? { peerCount: Math.max(1, frontendCount(options.config)) }
        : { outside: options.outside }),
    });
    this.#parts = {
      kv,
      env,
      config,
      mailDomain,
      users,
      bodies,
      outbox,
      acceptance,
      attachments,
      drafts,
      worker,
    };
    this.drafts = drafts;
    this.attachments = attachments;
    this.worker = worker;
    this.mailDomain = mailDomain;
    this.#sending = new Sending(this.#parts);
    this.smtp = new SmtpIntake(this.#parts);
  }

  /** For `Accounts.onCreate`. May be repeated. */
  readonly createMailbox = (user: string): Promise<void> => this.mailbox(user).ensureFolders();

  mailbox(user: string): Mailbox {
    return mailboxOf(this.#parts, user);
  }

  folders(user: string): Promise<Folder[]> {
    return this.mailbox(user).folders();
  }

  createFolder(user: string, name: string): Promise<Folder> {
    return this.mailbox(user).createFolder(freshId(this.#parts.env), name);
  }

  async list(
    user: string,
    options: { folder: string; limit: number; before?: string },
  ): Promise<EntryPage & { folder: Folder }> {
    const mailbox = this.mailbox(user), folder = await mailbox.folder(options.folder);
    return { ...await mailbox.list(folder.id, options), folder };
  }

  search(
    user: string,
    query: string,
    options: { limit: number; cursor?: string },
  ): Promise<SearchPage> {
    return searchMailbox(this.mailbox(user), query, options);
  }

  /** The whole message, safe to show. It is not marked as read. */
  async read(user: string, id: string, options: { remoteImages?: boolean } = {}): Promise<
    FullMessage
  > {
    const found = await this.mailbox(user).find(id);
    const { body } = found.entry;
    if (body === undefined) return { ...found, content: await this.#draftContent(user, found) };
    const content = await this.#parsing.run(
      body.size,
      async () => await readMessage(await this.#parts.bodies.readAll(body), options),
    );
    const recipients = await this.report(user, id);
    return { ...found, content, ...(recipients === null ? {} : { recipients }) };
  }

  async #draftContent(user: string, { entry }: PlacedEntry): Promise<ParsedMessage> {
    const draft = await this.#draft(user, entry.id);
    return {
      text: draft.text,
      html: safeHtml(draft.html).html,
      remoteImageCount: 0,
      attachments: draft.attachments.map(({ filename, contentType, size }, n) => ({
        n,
        filename,
        contentType,
        size,
        inline: false,
      })),
      replyTo: [],
      from: entry.from,
      to: entry.to,
      cc: entry.cc ?? [],
      messageId: "",
      references: draft.references,
    };
  }

  async #draft(user: string, id: string): Promise<SavedDraft> {
    const draft = await this.drafts.find(user, id);
    if (draft === null) throw new MailError("not_found", "This draft has been sent or deleted");
    return draft;
  }

  /** The message as MIME. A draft is put together on the spot. */
  async raw(user: string, id: string): Promise<{
    size: number | null;
    stream: AsyncIterable<Uint8Array>;
  }> {
    const { entry } = await this.mailbox(user).find(id);
    if (entry.body !== undefined) {
      return { size: entry.body.size, stream: this.#parts.bodies.read(entry.body) };
    }
    const draft = await this.#draft(user, id);
    const message: OutgoingMessage = {
      to: entry.to,
      cc: entry.cc ?? [],
      bcc: entry.bcc ?? [],
      subject: draft.subject,
      text: draft.text,
      html: draft.html,
      references: draft.references,
      attachments: await this.attachments.open(user, attachmentRefs(draft)),
    };
    const stream = composeMessage(message, {
      from: entry.from ?? { name: "", address: addressOf(this.#parts, user) },
      messageId: messageIdFor(this.#parts, id),
      dateMs: draft.savedMs,
      boundary: id,
      keepBcc: true,
    });
    return { size: null, stream };
  }

  async attachment(user: string, id: string, n: number): Promise<{
    filename: string;
    contentType: string;
    size: number;
    stream: ByteSource;
  }> {
    const { entry } = await this.mailbox(user).find(id);
    if (entry.body === undefined) {
      const refs = attachmentRefs(await this.#draft(user, id)).slice(n, n + 1);
      const [opened] = await this.attachments.open(user, refs);
      if (opened !== undefined) return { ...opened, stream: opened.open() };
    } else {
      const { body } = entry;
      const part = await this.#parsing.run(
        body.size,
        async () => await readAttachment(await this.#parts.bodies.readAll(body), n),
      );
      if (part !== null) return { ...part, size: part.content.length, stream: [part.content] };
    }
    throw new MailError("not_found", "The message has no such attachment");
  }

  /** Flags, folder or both, in one step. */
  async update(
    user: string,
    id: string,
    change: {
      flags?: readonly string[] | Readonly<Record<string, boolean>>;
      folder?: string;
    },
  ): Promise<PlacedEntry> {
    const mailbox = this.mailbox(user), { flags } = change;
    const target = change.folder === undefined ? undefined : await mailbox.folder(change.folder);
    return await mailbox.change(id, {
      ...(flags === undefined ? {} : {
        change: (entry: MessageEntry) => ({ ...entry, flags: changeFlags(entry.flags, flags) }),
      }),
      ...(target === undefined ? {} : { folderId: target.id }),
    });
  }

  /** To Trash; from there, or with `forGood`, away. A second delete of the same is no error. */
  async delete(user: string, id: string, options: { forGood?: boolean } = {}): Promise<
    "trashed" | "deleted"
  > {
    const mailbox = this.mailbox(user), found = await mailbox.find(id);
    if (found.folderId !== "trash" && options.forGood !== true) {
      await mailbox.change(id, { folderId: "trash" });
      return "trashed";
    }
    const draft = found.entry.body === undefined ? await this.drafts.find(user, id) : null;
    const uploads = draft === null ? [] : await this.drafts.uploads(user, draft);
    const entry = await mailbox.purge(id);
    if (entry?.body !== undefined) {
      await this.#parts.bodies.release(entry.body.bodyId, entryHolder(user, id));
    }
    for (const { id: uploadId } of uploads) await this.attachments.discard(user, uploadId);
    return "deleted";
  }

  /** See `Sending.send`. */
  send(user: string, request: SendRequest): ReturnType<Sending["send"]> {
    return this.#sending.send(user, request);
  }

  /** What became of a sent message, per recipient; null for messages that were not sent here. */
  report(user: string, id: string): Promise<readonly RecipientReport[] | null> {
    return this.#sending.report(user, id);
  }

  isKnownRecipient(address: string): Promise<boolean> {
    return isKnownRecipient(this.#parts, address);
  }

  /** Saves a draft; see `Drafts.save`. */
  saveDraft(user: string, draft: { id: string; content: DraftContent; revision?: number }) {
    return this.drafts.save(user, draft);
  }
}

export function attachmentRefs(draft: DraftContent): AttachmentRef[] {
  return draft.attachments.map(({ upload, message, n }): AttachmentRef =>
    upload === undefined ? { message: message ?? "", n: n ?? 0 } : { upload }
  );
}

const frontendCount = ({ node }: ClusterConfig): number =>
  node.filter(({ role }) => role === "frontend").length;
