/**
 * What the sender is told when a message could not be delivered, or takes long: a mail in plain
 * words, in the INBOX, as a reply to the message it is about.
 *
 * Local senders only. Mail that came in over SMTP is refused at the door instead (550), so nobody
 * outside ever gets a bounce from us for a sender address that somebody forged.
 */
import MailComposer from "nodemailer/lib/mail-composer";
import type { OutboxHead, OutboxRecipient } from "./outbox.ts";

export interface BounceOptions {
  readonly kind: "failed" | "delayed";
  readonly head: OutboxHead;
  readonly recipient: OutboxRecipient;
  readonly senderAddress: string;
  readonly mailDomain: string;
  readonly bounceId: string;
  readonly nowMs: number;
  readonly giveUpMs: number;
}

export function bounceSubject(options: Pick<BounceOptions, "kind" | "head">): string {
  const about = options.head.entry.subject || "(no subject)";
  return options.kind === "failed" ? `Not delivered: ${about}` : `Still trying: ${about}`;
}

export function bounceText(options: BounceOptions): string {
  const { kind, recipient, head } = options;
  const about = head.entry.subject === "" ? "without a subject" : `"${head.entry.subject}"`;
  const reason = recipient.detail ?? "The reason is not known";
  if (kind === "delayed") {
    return [
      `Your message ${about} to ${recipient.address} has not arrived yet.`,
      `What happened: ${reason}.`,
      `You do not need to do anything. We keep trying until ${
        day(options.giveUpMs)
      } and tell you ` +
      "if it does not work out.",
    ].join("\n\n");
  }
  return [
    `Your message ${about} could not be delivered to ${recipient.address}.`,
    `What happened: ${reason}.`,
    "What you can do: check the address for a typing mistake, or reach the person another way. " +
    "Nothing is lost: your message is still in Sent, and you can send it again from there.",
  ].join("\n\n");
}

const day = (ms: number): string =>
  new Date(ms).toISOString().slice(0, 16).replace("T", " ") + " UTC";

/** The whole MIME message. */
export function composeBounce(options: BounceOptions): Promise<Uint8Array> {
  const { head } = options;
  const reply = head.entry.messageId === undefined
    ? {}
    : { inReplyTo: head.entry.messageId, references: [head.entry.messageId] };
  return new MailComposer({
    from: { name: "Mail delivery", address: `postmaster@${options.mailDomain}` },
    to: options.senderAddress,
    subject: bounceSubject(options),
    text: bounceText(options),
    messageId: `<${options.bounceId}@${options.mailDomain}>`,
    baseBoundary: options.bounceId,
    date: new Date(options.nowMs),
    headers: { "Auto-Submitted": "auto-replied" },
    ...reply,
  }).compile().build();
}
