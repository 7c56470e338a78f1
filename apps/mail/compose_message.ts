/**
 * Turns what somebody wrote into MIME, as a stream: attachments are read from the store while the
 * message is written back to it, so a message of 25 MiB needs about one chunk of memory.
 *
 * Bcc recipients are in the envelope only; their addresses never get into a header. Nothing that a
 * user types can start a header of its own: line breaks in subjects, names and file names become
 * blanks before the composer encodes them.
 */
import { Readable } from "node:stream";
import MailComposer from "nodemailer/lib/mail-composer";
import type { Address } from "./addresses.ts";
import type { ByteSource } from "./body_store.ts";
import { MailError } from "./mail_error.ts";
import { messageIds, oneLine } from "./parse_message.ts";

/** An attachment whose bytes can be read when they are needed. */
export interface OpenAttachment {
  readonly filename: string;
  readonly contentType: string;
  readonly size: number;
  readonly open: () => ByteSource;
}

export interface OutgoingMessage {
  readonly to: readonly Address[];
  readonly cc: readonly Address[];
  readonly bcc: readonly Address[];
  readonly subject: string;
  readonly text: string;
  /** Empty when there is none. */
  readonly html: string;
  /** Message-IDs with brackets, oldest first; the last is the message that is answered. */
  readonly references: readonly string[];
  readonly attachments: readonly OpenAttachment[];
}

export interface ComposeOptions {
  readonly from: Address;
  /** With brackets. */
  readonly messageId: string;
  readonly dateMs: number;
  /** Any word that is unique to the message, for the boundaries between parts. */
  readonly boundary: string;
  /** A draft's own copy shows its Bcc line; what is sent never does. */
  readonly keepBcc?: boolean;
}

export const SUBJECT_LENGTH_MAX = 2000;

/** Base64 in lines of 76 with CRLF, and some for the headers of each part. */
export function estimateSize(message: OutgoingMessage): number {
  const encoded = (size: number) => Math.ceil(size / 57) * 78 + 400;
  const text = encoded(2 * message.text.length) + encoded(2 * message.html.length);
  return message.attachments.reduce((sum, { size }) => sum + encoded(size), text);
}

export function composeMessage(
  message: OutgoingMessage,
  options: ComposeOptions,
): AsyncIterable<Uint8Array> {
  const { references } = message, inReplyTo = references.at(-1);
  const address = ({ name, address }: Address) => ({ name: oneLine(name), address });
  const node = new MailComposer({
    from: address(options.from),
    to: message.to.map(address),
    cc: message.cc.map(address),
    bcc: message.bcc.map(address),
    subject: oneLine(message.subject).slice(0, SUBJECT_LENGTH_MAX),
    messageId: options.messageId,
    date: new Date(options.dateMs),
    text: message.text,
    ...(message.html === "" ? {} : { html: message.html }),
    ...(inReplyTo === undefined ? {} : { inReplyTo, references: [...references] }),
    attachments: message.attachments.map((attachment) => ({
      filename: oneLine(attachment.filename).slice(0, 200),
      contentType: safeContentType(attachment.contentType),
      content: Readable.from(attachment.open(), { objectMode: false }),
      contentTransferEncoding: "base64",
    })),
    baseBoundary: options.boundary,
    newline: "\r\n",
    // Content comes from the store alone; a message must never make this process read elsewhere.
    disableFileAccess: true,
    disableUrlAccess: true,
  }).compile();
  node.keepBcc = options.keepBcc ?? false;
  return node.createReadStream();
}

/** A type as the sender named it, or the one that promises nothing. */
export function safeContentType(type: string): string {
  const clean = type.split(";")[0]!.trim().toLowerCase();
  const ok = /^[a-z0-9][a-z0-9!#$&^_.+-]{0,63}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}$/.test(clean);
  // A part of its own structure would be taken apart by the composer and by readers.
  return ok && !/^(multipart|message)\//.test(clean) ? clean : "application/octet-stream";
}

/** @throws {MailError} `invalid_message` for something that is no Message-ID */
export function checkMessageId(text: string): string {
  const [id] = messageIds(text);
  if (id === undefined || id !== text.trim()) {
    throw new MailError("invalid_message", "inReplyTo must be a message's id or its Message-ID");
  }
  return id;
}
