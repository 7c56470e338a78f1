/** What a reply or a forward begins with. Pure: messages in, drafts out. */
import { formatFullDate } from "../../ui/format.ts";
import type { DraftText, FullMessage, Person } from "./mail_api.ts";

export type AnswerKind = "reply" | "reply-all" | "forward";

export const personText = ({ name, address }: Person): string =>
  name === "" || name === address ? address : `${quoted(name)} <${address}>`;

/** Names with commas and the like must be quoted, or they read as several addresses. */
const quoted = (name: string) =>
  /^[\p{L}\p{N} .'_-]+$/u.test(name) ? name : `"${name.replaceAll(/["\\]/g, "")}"`;

export const personName = (person: Person | null): string =>
  person === null ? "Unknown sender" : person.name || person.address;

function subjectWith(prefix: "Re" | "Fwd", subject: string): string {
  const known = prefix === "Re" ? /^(re|aw|sv|antw)(\[\d+\])?:/i : /^(fwd?|wg):/i;
  return known.test(subject.trim()) ? subject.trim() : `${prefix}: ${subject}`.trim();
}

export function quoteText(text: string): string {
  return text.trimEnd().split("\n").map((line) => line.startsWith(">") ? `>${line}` : `> ${line}`)
    .join("\n");
}

export function answer(kind: AnswerKind, message: FullMessage, ownAddress: string): DraftText {
  const references = [...message.references, message.messageId].filter((id) => id !== "");
  const base = { bcc: [], attachments: [], references: [...new Set(references)] };
  if (kind === "forward") {
    return {
      ...base,
      to: [],
      cc: [],
      subject: subjectWith("Fwd", message.subject),
      text: forwardedText(message),
      references: [],
      forwards: message.id,
      attachments: message.attachments.filter(({ inline }) => !inline)
        .map(({ n, filename, contentType, size }) => ({
          filename,
          contentType,
          size,
          message: message.id,
          n,
        })),
    };
  }
  const own = (person: Person) => person.address.toLowerCase() === ownAddress.toLowerCase();
  const mine = message.from !== null && own(message.from);
  // A reply to what one wrote oneself goes to those it was written to.
  const to = mine
    ? message.to
    : message.replyTo.length > 0
    ? message.replyTo
    : message.from === null
    ? []
    : [message.from];
  const others = kind === "reply" ? [] : [...(mine ? [] : message.to), ...message.cc];
  const taken = new Set(to.map(({ address }) => address.toLowerCase()));
  const cc = others.filter((person) => {
    const key = person.address.toLowerCase();
    if (own(person) || taken.has(key)) return false;
    taken.add(key);
    return true;
  });
  const when = formatFullDate(message.date);
  return {
    ...base,
    to: to.map(personText),
    cc: cc.map(personText),
    subject: subjectWith("Re", message.subject),
    text: `\n\nOn ${when}, ${personName(message.from)} wrote:\n${quoteText(message.text)}\n`,
    replyTo: message.id,
  };
}

function forwardedText(message: FullMessage): string {
  const lines = [
    "",
    "",
    "---------- Forwarded message ----------",
    ...(message.from === null ? [] : [`From: ${personText(message.from)}`]),
    `Date: ${formatFullDate(message.date)}`,
    `Subject: ${message.subject}`,
    `To: ${message.to.map(personText).join(", ")}`,
    ...(message.cc.length === 0 ? [] : [`Cc: ${message.cc.map(personText).join(", ")}`]),
    "",
    message.text.trimEnd(),
    "",
  ];
  return lines.join("\n");
}

/** Whether a reply to all would reach anybody whom a reply does not. */
export function hasOthers(message: FullMessage, ownAddress: string): boolean {
  return answer("reply-all", message, ownAddress).cc.length > 0;
}
