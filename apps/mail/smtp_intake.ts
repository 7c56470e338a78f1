/**
 * Mail that comes in over SMTP: from other servers for users of ours, and from mail programs of our
 * users for anybody. Who may do what is decided at the door (roles/mail_smtp.ts); here the message
 * is looked at and accepted.
 *
 * It streams: only the header and the first SUMMARY_BYTES are ever in memory as a whole.
 */
import { freshId } from "../../kv/env.ts";
import { isLocal, localUser, parseRecipients } from "./addresses.ts";
import type { ByteSource } from "./body_store.ts";
import { checkLoop, fieldValue, joinHeader, splitHeader } from "./header_block.ts";
import { MailError } from "./mail_error.ts";
import { addressOf, type MailParts, messageIdFor } from "./mail_parts.ts";
import { summarize } from "./parse_message.ts";

export class SmtpIntake {
  readonly #parts: MailParts;

  constructor(parts: MailParts) {
    this.#parts = parts;
  }

  /** Mail that came in over SMTP for users of ours. @param trace the `Received` field to put on top */
  async receive(options: {
    envelopeFrom: string;
    recipients: readonly string[];
    source: ByteSource;
    trace: string;
  }): Promise<void> {
    const { fields, rest } = await splitHeader(options.source);
    checkLoop(fields);
    const kept = fields.filter(({ name }) => name !== "bcc" && name !== "return-path");
    const source = joinHeader([
      `Return-Path: <${options.envelopeFrom}>`,
      options.trace,
      ...kept.map(({ raw }) => raw),
    ], rest);
    await this.#acceptRaw({ ...options, source, sender: null });
  }

  /** Mail that a signed-in user hands in over SMTP. It is filed in Sent like any other. */
  async submit(user: string, options: {
    recipients: readonly string[];
    source: ByteSource;
    trace: string;
  }): Promise<void> {
    const { fields, rest } = await splitHeader(options.source);
    checkLoop(fields);
    const own = addressOf(this.#parts, user), from = fieldValue(fields, "from");
    if (from !== undefined) {
      const written = parseRecipients(from);
      if (
        written.length !== 1 || localUser(written[0]!.address) !== user ||
        !isLocal(written[0]!.address, this.#parts.mailDomain)
      ) {
        throw new MailError("not_your_address", `You can only send as ${own}`);
      }
    }
    const has = (name: string) => fields.some((field) => field.name === name);
    const kept = fields.filter(({ name }) => name !== "bcc" && name !== "return-path");
    const id = freshId(this.#parts.env);
    const source = joinHeader([
      options.trace,
      ...kept.map(({ raw }) => raw),
      ...(from === undefined ? [`From: <${own}>`] : []),
      ...(has("date") ? [] : [`Date: ${new Date(this.#parts.env.wallMs()).toUTCString()}`]),
      ...(has("message-id") ? [] : [`Message-ID: ${messageIdFor(this.#parts, id)}`]),
    ], rest);
    await this.#acceptRaw({ ...options, source, sender: user, envelopeFrom: own, sentId: id });
  }

  async #acceptRaw(options: {
    sender: string | null;
    envelopeFrom: string;
    recipients: readonly string[];
    source: ByteSource;
    sentId?: string;
  }): Promise<void> {
    const { sentId } = options;
    const result = await this.#parts.acceptance.accept({
      ...options,
      summarize: (head) => summarize(head, this.#parts.env.wallMs()),
      ...(sentId === undefined ? {} : { sent: { id: sentId, conditions: [], mutations: [] } }),
    });
    if (result.accepted) this.#parts.worker.kick(result.pointer, result.item);
  }
}
