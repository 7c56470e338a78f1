/**
 * Sending from the web and the API: from what a person wrote to an accepted message in Sent.
 *
 * A message has one id from its first saved draft to its place in Sent, so sending can be repeated
 * by whoever got no answer: the second time finds it sent. The draft disappears in the operation
 * that accepts the message, so its text is never in neither place.
 */
import { freshId } from "../../kv/env.ts";
import { type Condition, decodeJson } from "../../kv/kv.ts";
import { type Address, parseRecipients, uniqueAddresses } from "./addresses.ts";
import type { AttachmentRef, Attachments } from "./attachments.ts";
import { checkMessageId, composeMessage, estimateSize } from "./compose_message.ts";
import type { OutgoingMessage } from "./compose_message.ts";
import * as keys from "./keys.ts";
import { MailError } from "./mail_error.ts";
import {
  addressOf,
  isKnownRecipient,
  mailboxOf,
  type MailParts,
  messageIdFor,
} from "./mail_parts.ts";
import { type FoundEntry, isMessageId } from "./mailbox.ts";
import { changeFlags } from "./message_entry.ts";
import { type RecipientReport, reportOf } from "./outbox.ts";
import { oneLine, snippetOf } from "./parse_message.ts";
import { htmlToText } from "./safe_html.ts";

export type RecipientField = Parameters<typeof parseRecipients>[0];

export interface SendRequest {
  /** The draft's id, or any fresh one: sending twice under one id sends once. */
  readonly id?: string;
  readonly to: RecipientField;
  readonly cc?: RecipientField;
  readonly bcc?: RecipientField;
  readonly subject?: string;
  readonly text?: string;
  readonly html?: string;
  /** Id of a message here, or a Message-ID with brackets. */
  readonly inReplyTo?: string;
  readonly references?: readonly string[];
  /** Id of the message that is forwarded. */
  readonly forwards?: string;
  readonly attachments?: readonly AttachmentRef[];
}

const SEND_ATTEMPTS_MAX = 4;

export class Sending {
  readonly #parts: MailParts;

  constructor(parts: MailParts) {
    this.#parts = parts;
  }

  /**
   * Accepts a message for delivery and files it in Sent. When it returns, every recipient will get
   * one copy, or the sender a mail that says why not.
   *
   * @throws {MailError} `invalid_address`, `unknown_recipient`, `no_recipients`,
   *   `too_many_recipients`, `message_too_large`, `attachment_missing`, `draft_gone`
   */
  async send(user: string, request: SendRequest): Promise<{
    id: string;
    recipients: readonly RecipientReport[];
  }> {
    const mailbox = mailboxOf(this.#parts, user), id = request.id ?? freshId(this.#parts.env);
    if (!isMessageId(id)) {
      throw new MailError("invalid_message", "The id must be 8 to 60 of a-z0-9-");
    }
    for (let attempt = 0; attempt < SEND_ATTEMPTS_MAX; attempt++) {
      const draft = await mailbox.tryFind(id);
      if (draft !== null && !draft.entry.flags.includes("draft")) {
        return { id, recipients: await this.report(user, id) ?? [] };
      }
      if (draft === null && await mailbox.knows(id) === "gone") {
        throw new MailError("draft_gone", "This message has been sent or deleted");
      }
      const result = await this.#trySend(user, id, request, draft);
      if (result !== null) return { id, recipients: result };
      // The draft was saved, or the same message sent, at this very moment: look again.
    }
    throw new MailError("conflict", "The draft keeps changing; try again");
  }

  async #trySend(
    user: string,
    id: string,
    request: SendRequest,
    draft: FoundEntry | null,
  ): Promise<RecipientReport[] | null> {
    const mailbox = mailboxOf(this.#parts, user);
    const message = await this.#outgoing(user, request);
    const recipients = uniqueAddresses([...message.to, ...message.cc, ...message.bcc]);
    await this.#checkRecipients(recipients);
    if (estimateSize(message) > this.#parts.config.message_max_bytes) {
      const limit = `${Math.floor(this.#parts.config.message_max_bytes / 1024 / 1024)} MB`;
      throw new MailError("message_too_large", `With its attachments it is larger than ${limit}`);
    }
    const saved = draft === null ? null : await this.#parts.drafts.find(user, id);
    const uploads = saved === null ? [] : await this.#parts.drafts.uploads(user, saved);
    const messageId = messageIdFor(this.#parts, freshId(this.#parts.env)),
      nowMs = this.#parts.env.wallMs();
    const from: Address = { name: "", address: addressOf(this.#parts, user) };
    const source = composeMessage(message, { from, messageId, dateMs: nowMs, boundary: id });
    const conditions: Condition[] = draft === null
      ? [{ column: keys.idColumn(id), is: "absent" }]
      : [...draft.conditions];
    const { references } = message;
    const result = await this.#parts.acceptance.accept({
      sender: user,
      envelopeFrom: from.address,
      recipients: recipients.map(({ address }) => address),
      source,
      summarize: () => ({
        from,
        to: message.to.slice(0, 20),
        ...(message.cc.length === 0 ? {} : { cc: message.cc.slice(0, 20) }),
        subject: oneLine(message.subject).slice(0, 300),
        dateMs: nowMs,
        snippet: snippetOf(message.text),
        hasAttachments: message.attachments.length > 0,
        messageId,
        ...(references.length === 0 ? {} : { references }),
      }),
      sent: {
        id,
        bcc: message.bcc.slice(0, 100),
        conditions,
        mutations: [
          ...(draft === null ? [] : mailbox.departure(draft)),
          ...this.#parts.attachments.removal(uploads),
        ],
      },
    });
    if (!result.accepted) return null;
    this.#parts.worker.kick(result.pointer, result.item);
    await this.#afterSend(user, request, uploads);
    return recipients.map(({ address }) => ({ address, status: "queued" }));
  }

  /** Marks and tidies; the message is on its way already, so failures here are nobody's trouble. */
  async #afterSend(
    user: string,
    request: SendRequest,
    uploads: Parameters<Attachments["release"]>[1],
  ): Promise<void> {
    const mailbox = mailboxOf(this.#parts, user);
    const mark = async (id: string | undefined, flag: string) => {
      if (id !== undefined && isMessageId(id)) {
        await mailbox.change(id, {
          change: (entry) => ({ ...entry, flags: changeFlags(entry.flags, { [flag]: true }) }),
        });
      }
    };
    await Promise.allSettled([
      mark(request.inReplyTo, "answered"),
      mark(request.forwards, "forwarded"),
      this.#parts.attachments.release(user, uploads),
    ]);
  }

  async #outgoing(user: string, request: SendRequest): Promise<OutgoingMessage> {
    const references = [...request.references ?? []].map(checkMessageId);
    const { inReplyTo } = request;
    if (inReplyTo !== undefined && isMessageId(inReplyTo)) {
      const original = await mailboxOf(this.#parts, user).tryFind(inReplyTo);
      if (references.length === 0) references.push(...original?.entry.references ?? []);
      if (original?.entry.messageId !== undefined) references.push(original.entry.messageId);
    } else if (inReplyTo !== undefined) {
      references.push(checkMessageId(inReplyTo));
    }
    return {
      to: parseRecipients(request.to),
      cc: parseRecipients(request.cc),
      bcc: parseRecipients(request.bcc),
      subject: request.subject ?? "",
      // Readers without HTML, and lists, get the words of a message that has nothing but HTML.
      text: request.text || htmlToText(request.html ?? ""),
      html: request.html ?? "",
      // The last mention of each counts: the answered message stays last.
      references: [...new Set(references.reverse())].reverse(),
      attachments: await this.#parts.attachments.open(user, request.attachments ?? []),
    };
  }

  async #checkRecipients(recipients: readonly Address[]): Promise<void> {
    if (recipients.length === 0) {
      throw new MailError("no_recipients", "Add at least one recipient");
    }
    const { recipients_max } = this.#parts.config;
    if (recipients.length > recipients_max) {
      throw new MailError("too_many_recipients", `At most ${recipients_max} recipients at once`);
    }
    const unknown = await Promise.all(
      recipients.map(async ({ address }) =>
        await isKnownRecipient(this.#parts, address) ? null : address
      ),
    );
    const bad = unknown.find((address) => address !== null);
    if (bad !== undefined) {
      throw new MailError("unknown_recipient", `There is nobody with the address ${bad} here`, bad);
    }
  }

  /** What became of a sent message, per recipient; null for messages that were not sent here. */
  async report(user: string, id: string): Promise<readonly RecipientReport[] | null> {
    // The outbox may finish between the two reads; then the second round sees the result.
    for (let attempt = 0; attempt < 3; attempt++) {
      const cell = await this.#parts.kv.get(keys.mailRow(user), keys.sentColumn(id));
      if (cell === null) return null;
      const value = decodeJson(cell.value) as { outId: string } | {
        recipients: RecipientReport[];
      };
      if ("recipients" in value) return value.recipients;
      const item = await this.#parts.outbox.load(keys.mailRow(user), value.outId);
      if (item !== null) return reportOf(item);
    }
    return null;
  }
}
