/**
 * The header of a message that comes in as a stream: read up to the empty line, looked at, changed,
 * and put back in front of the rest, which passes through untouched.
 */
import type { ByteSource } from "./body_store.ts";
import { MailError } from "./mail_error.ts";

/** Twice what large mailers accept. A header beyond it is an attack or an accident. */
export const HEADER_BYTES_MAX = 256 * 1024;
/** A message that was handed on this often runs in a circle (RFC 5321 asks for at least 100 / 25). */
export const RECEIVED_MAX = 50;

export interface HeaderField {
  /** In lower case. */
  readonly name: string;
  /** The whole field as it came, folded lines and last line break included; latin1 for bytes. */
  readonly raw: string;
}

export interface SplitMessage {
  readonly fields: readonly HeaderField[];
  readonly rest: AsyncIterable<Uint8Array>;
}

const toBytes = (latin1: string): Uint8Array => {
  const bytes = new Uint8Array(latin1.length);
  for (let i = 0; i < latin1.length; i++) bytes[i] = latin1.charCodeAt(i);
  return bytes;
};

/** @throws {MailError} `header_too_large` */
export async function splitHeader(source: ByteSource): Promise<SplitMessage> {
  const iterator = Symbol.asyncIterator in source
    ? source[Symbol.asyncIterator]()
    : source[Symbol.iterator]();
  const parts: Uint8Array[] = [];
  let text = "", end = -1, skip = 0;
  while (end === -1) {
    const { done, value } = await iterator.next();
    if (done === true) break;
    parts.push(value);
    const from = Math.max(0, text.length - 3);
    // One char per byte, so that positions in the text are positions in the bytes.
    for (let at = 0; at < value.length; at += 8192) {
      text += String.fromCharCode(...value.subarray(at, at + 8192));
    }
    if (text.startsWith("\r\n") || text.startsWith("\n")) {
      end = 0;
      skip = text.startsWith("\n") ? 1 : 2;
      break;
    }
    const match = /\r?\n(\r?\n)/.exec(text.slice(from));
    if (match !== null) {
      skip = match[1]!.length;
      end = from + match.index + match[0].length - skip;
    }
    if ((end === -1 ? text.length : end) > HEADER_BYTES_MAX) {
      throw new MailError(
        "header_too_large",
        `The header of the message is larger than ${HEADER_BYTES_MAX} bytes`,
      );
    }
  }
  if (end === -1) end = text.length;
  const fields = text.slice(0, end).split(/(?<=\n)(?![ \t])/).filter((raw) => raw !== "")
    .map((raw): HeaderField => ({
      name: /^([!-9;-~]+)[ \t]*:/.exec(raw)?.[1]?.toLowerCase() ?? "",
      raw,
    }));
  let before = end + skip;
  async function* rest() {
    for (const part of parts) {
      if (before < part.length) yield part.subarray(before);
      before = Math.max(0, before - part.length);
    }
    while (true) {
      const { done, value } = await iterator.next();
      if (done === true) return;
      yield value;
    }
  }
  return { fields, rest: rest() };
}

/** Header, empty line, body: the message again. Every field ends in CRLF. */
export async function* joinHeader(
  fields: readonly string[],
  rest: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  yield toBytes(fields.map((field) => `${field.replace(/\r?\n$/, "")}\r\n`).join("") + "\r\n");
  yield* rest;
}

export function fieldValue(fields: readonly HeaderField[], name: string): string | undefined {
  const field = fields.find((candidate) => candidate.name === name);
  return field?.raw.slice(field.raw.indexOf(":") + 1).replaceAll(/\r?\n[ \t]/g, " ").trim();
}

/** @throws {MailError} `mail_loop` */
export function checkLoop(fields: readonly HeaderField[]): void {
  const hops = fields.filter(({ name }) => name === "received").length;
  if (hops > RECEIVED_MAX) {
    throw new MailError("mail_loop", `The message has passed ${hops} servers and goes in circles`);
  }
}
