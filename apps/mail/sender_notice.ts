/**
 * Puts a notice about a message on its way into the sender's INBOX: once per recipient and kind,
 * however often it is tried, because its id and the row of its body follow from both.
 */
import type { Env } from "../../kv/env.ts";
import type { Kv } from "../../kv/kv.ts";
import { type BodyStore, entryHolder } from "./body_store.ts";
import { bounceSubject, bounceText, composeBounce } from "./bounce.ts";
import { Mailbox } from "./mailbox.ts";
import type { OutboxHead, OutboxRecipient } from "./outbox.ts";
import { snippetOf } from "./parse_message.ts";

const NOTICE_BYTES_MAX = 1024 * 1024;

export async function fileNotice(
  parts: { kv: Kv; env: Env; bodies: BodyStore; mailDomain: string },
  notice: {
    kind: "failed" | "delayed";
    head: OutboxHead;
    recipient: OutboxRecipient;
    giveUpMs: number;
  },
): Promise<void> {
  const { kv, env, bodies, mailDomain } = parts, { kind, head, recipient } = notice;
  // Mail from outside was refused at the door; a notice about a notice would never end.
  if (head.sender === null || head.envelopeFrom === "") return;
  const user = head.sender, senderAddress = `${user}@${mailDomain}`, nowMs = env.wallMs();
  const bounceId = `${head.outId}-${kind}-${await shortHash(recipient.address)}`;
  const mailbox = new Mailbox({ kv, env, user });
  if (await mailbox.knows(bounceId) !== "unknown") return;
  const options = { ...notice, senderAddress, mailDomain, bounceId, nowMs };
  const body = await bodies.find(bounceId) ??
    await bodies.write([await composeBounce(options)], {
      bodyId: bounceId,
      holders: [entryHolder(user, bounceId)],
      maxBytes: NOTICE_BYTES_MAX,
    });
  const { messageId } = head.entry;
  await mailbox.add("inbox", {
    id: bounceId,
    from: { name: "Mail delivery", address: `postmaster@${mailDomain}` },
    to: [{ name: "", address: senderAddress }],
    subject: bounceSubject({ kind, head }),
    dateMs: nowMs,
    receivedMs: nowMs,
    size: body.size,
    flags: [],
    snippet: snippetOf(bounceText(options)),
    hasAttachments: false,
    messageId: `<${bounceId}@${mailDomain}>`,
    ...(messageId === undefined ? {} : { references: [messageId] }),
    body,
  });
}

async function shortHash(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new Uint8Array(digest).subarray(0, 8).toHex();
}
