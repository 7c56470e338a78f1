/**
 * Reading MIME: the summary that the index keeps, and the full message for display.
 *
 * Mail comes from strangers, so nothing here throws because of its content. What the parser refuses
 * (headers without end, parts nested a thousand deep) is shown as the plain text that it is.
 */
import PostalMime, { type Address as ParsedAddress, type Email } from "postal-mime";
import type { Address } from "./addresses.ts";
import type { MessageEntry } from "./message_entry.ts";
import { htmlToText, safeHtml } from "./safe_html.ts";

/** A summary reads this much: headers and the first text are there, attachments mostly are not. */
export const SUMMARY_BYTES = 256 * 1024;
const SUBJECT_LENGTH_MAX = 300;
const SNIPPET_LENGTH_MAX = 140;
const ADDRESSES_IN_SUMMARY_MAX = 20;
const REFERENCES_MAX = 30;
const INLINE_IMAGES_BYTES_MAX = 4 * 1024 * 1024;
/** Beyond it, text is cut for display; the whole is under `raw`. */
const TEXT_LENGTH_MAX = 512 * 1024;

export type Summary = Omit<
  MessageEntry,
  "id" | "receivedMs" | "size" | "flags" | "body" | "bcc"
>;

export interface AttachmentInfo {
  /** Place in the message, from 0: `/attachments/:n`. */
  readonly n: number;
  readonly filename: string;
  readonly contentType: string;
  readonly size: number;
  /** Shown within the HTML rather than below it. */
  readonly inline: boolean;
}

export interface ParsedMessage {
  readonly text: string;
  /** Safe to show; empty when the message has none. */
  readonly html: string;
  readonly remoteImageCount: number;
  readonly attachments: readonly AttachmentInfo[];
  readonly replyTo: readonly Address[];
  readonly cc: readonly Address[];
  readonly to: readonly Address[];
  readonly from: Address | null;
  readonly messageId: string;
  readonly references: readonly string[];
}

async function parse(bytes: Uint8Array): Promise<Email> {
  try {
    return await PostalMime.parse(bytes, { maxNestingDepth: 50, maxHeadersSize: 1024 * 1024 });
  } catch {
    const text = new TextDecoder().decode(bytes.subarray(0, TEXT_LENGTH_MAX));
    return { headers: [], headerLines: [], attachments: [], text };
  }
}

/** @param head the message or its first SUMMARY_BYTES */
export async function summarize(head: Uint8Array, arrivedMs: number): Promise<Summary> {
  const email = await parse(head);
  const text = email.text?.trim() || htmlToText((email.html ?? "").slice(0, 64 * 1024));
  const cc = flatten(email.cc).slice(0, ADDRESSES_IN_SUMMARY_MAX);
  const references = messageIds(`${email.references ?? ""} ${email.inReplyTo ?? ""}`);
  const messageId = messageIds(email.messageId ?? "")[0];
  return {
    from: flatten(email.from === undefined ? [] : [email.from])[0] ?? null,
    to: flatten(email.to).slice(0, ADDRESSES_IN_SUMMARY_MAX),
    ...(cc.length === 0 ? {} : { cc }),
    subject: oneLine(email.subject ?? "").slice(0, SUBJECT_LENGTH_MAX),
    dateMs: saneDate(email.date, arrivedMs),
    snippet: snippetOf(text),
    hasAttachments: email.attachments.some((part) => part.related !== true),
    ...(messageId === undefined ? {} : { messageId }),
    ...(references.length === 0 ? {} : { references }),
  };
}

export async function readMessage(
  bytes: Uint8Array,
  options: { remoteImages?: boolean } = {},
): Promise<ParsedMessage> {
  const email = await parse(bytes);
  const inlineImages = inlineImageUrls(email);
  const source = email.html ?? "";
  const { html, remoteImageCount } = source === ""
    ? { html: "", remoteImageCount: 0 }
    : safeHtml(source, {
      remoteImages: options.remoteImages ?? false,
      inlineImage: (contentId) => inlineImages.get(contentId),
    });
  return {
    text: (email.text ?? htmlToText(source)).slice(0, TEXT_LENGTH_MAX),
    html,
    remoteImageCount,
    attachments: email.attachments.map((part, n) => ({
      n,
      filename: fileName(part.filename, part.mimeType, n),
      contentType: part.mimeType,
      size: contentBytes(part.content).byteLength,
      inline: part.related === true,
    })),
    replyTo: flatten(email.replyTo),
    cc: flatten(email.cc),
    to: flatten(email.to),
    from: flatten(email.from === undefined ? [] : [email.from])[0] ?? null,
    messageId: messageIds(email.messageId ?? "")[0] ?? "",
    references: messageIds(`${email.references ?? ""} ${email.inReplyTo ?? ""}`),
  };
}

/** The bytes of one attachment; null when there is no such number. */
export async function readAttachment(
  bytes: Uint8Array,
  n: number,
): Promise<{ filename: string; contentType: string; content: Uint8Array } | null> {
  const part = (await parse(bytes)).attachments[n];
  if (part === undefined) return null;
  return {
    filename: fileName(part.filename, part.mimeType, n),
    contentType: part.mimeType,
    content: contentBytes(part.content),
  };
}

/** The first words, on one line, without what the mail quotes. */
export function snippetOf(text: string): string {
  const own = text.split("\n").filter((line) => !line.startsWith(">")).join(" ");
  return oneLine(own.slice(0, 2000)).slice(0, SNIPPET_LENGTH_MAX);
}

export const oneLine = (text: string): string =>
  text.replaceAll(/[\p{Cc}\p{Zl}\p{Zp}\s]+/gu, " ").trim();

export function messageIds(text: string): string[] {
  const found = text.match(/<[^<>\s]{1,250}>/g) ?? [];
  // The first starts the thread and the last ones are the nearest, so the middle can go.
  const unique = [...new Set(found)];
  return unique.length <= REFERENCES_MAX
    ? unique
    : [unique[0]!, ...unique.slice(1 - REFERENCES_MAX)];
}

function flatten(addresses: readonly ParsedAddress[] | undefined): Address[] {
  return (addresses ?? []).flatMap((item) => item.group ?? [item]).map(({ name, address }) => ({
    name: oneLine(name).slice(0, 200),
    address: oneLine(address ?? "").slice(0, 254),
  })).filter(({ name, address }) => name !== "" || address !== "");
}

/** A clock that is far off, or a sender who wants to stay on top, must not break the order. */
function saneDate(text: string | undefined, arrivedMs: number): number {
  const ms = Date.parse(text ?? "");
  return ms > 0 && ms <= arrivedMs + 24 * 3_600_000 ? ms : arrivedMs;
}

function fileName(name: string | null, contentType: string, n: number): string {
  const clean = oneLine(name ?? "").replaceAll(/[/\\]/g, "_").slice(0, 200);
  if (clean !== "" && clean !== "." && clean !== "..") return clean;
  const extension = /^message\/rfc822$/.test(contentType)
    ? "eml"
    : /^[a-z]+\/([a-z0-9]{2,5})$/.exec(contentType)?.[1] ?? "bin";
  return `attachment-${n + 1}.${extension}`;
}

function contentBytes(content: ArrayBuffer | Uint8Array | string): Uint8Array {
  if (typeof content === "string") return new TextEncoder().encode(content);
  return content instanceof Uint8Array ? content : new Uint8Array(content);
}

function inlineImageUrls(email: Email): Map<string, string> {
  const urls = new Map<string, string>();
  let total = 0;
  for (const part of email.attachments) {
    const contentId = part.contentId?.replace(/^<|>$/g, "");
    if (contentId === undefined || !/^image\/(png|jpeg|gif|webp)$/.test(part.mimeType)) continue;
    const content = contentBytes(part.content);
    total += content.byteLength;
    if (total > INLINE_IMAGES_BYTES_MAX) break;
    urls.set(contentId, `data:${part.mimeType};base64,${content.toBase64()}`);
  }
  return urls;
}
