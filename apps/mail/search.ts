/**
 * Search over all folders: words and operators, matched against what the index keeps of each message
 * (addresses, subject, the first words of the text).
 *
 *     lunch ann            both words, anywhere
 *     "board meeting"      the two words together
 *     from: to: subject:   in that field only; from:me is not special
 *     in:archive           one folder; without it Trash and Junk are left out
 *     is:unread is:read is:starred    has:attachment
 *     -word  -from:bob     without it
 *
 * It reads entries newest first, merging the folders by date, and stops at SCANNED_MAX per call: the
 * cursor then goes on from there. An index of words, and of whole texts, is not here.
 */
import type { Folder } from "./folders.ts";
import { findFolder } from "./folders.ts";
import type { Mailbox } from "./mailbox.ts";
import { isUnread, type MessageEntry, type PlacedEntry } from "./message_entry.ts";
import type { Address } from "./addresses.ts";

export interface SearchPage {
  readonly entries: readonly PlacedEntry[];
  /** Continue here; null when everything was looked at. */
  readonly next: string | null;
}

interface Term {
  readonly field: string;
  readonly text: string;
  readonly negated: boolean;
}

export const SCANNED_MAX = 5000;
const TERMS_MAX = 20;
const PAGE_ENTRIES = 200;

export function parseQuery(query: string): Term[] {
  const pattern = /(-?)(?:(from|to|subject|in|is|has):)?(?:"([^"]*)"|(\S+))/gi;
  return [...query.slice(0, 500).matchAll(pattern)].slice(0, TERMS_MAX).map((match) => ({
    negated: match[1] === "-",
    field: (match[2] ?? "").toLowerCase(),
    text: fold(match[3] ?? match[4] ?? ""),
  })).filter(({ text }) => text !== "");
}

/** Without capitals and accents: "Zoë" is found by "zoe". */
const fold = (text: string): string =>
  text.normalize("NFKD").replaceAll(/\p{M}/gu, "").toLowerCase();

const people = (addresses: readonly (Address | null)[] | undefined): string =>
  (addresses ?? []).map((who) => who === null ? "" : `${who.name} ${who.address}`).join(" ");

export function matches(entry: MessageEntry, terms: readonly Term[]): boolean {
  return terms.every((term) => matchesTerm(entry, term) !== term.negated);
}

function matchesTerm(entry: MessageEntry, { field, text }: Term): boolean {
  const from = () => fold(people([entry.from]));
  const to = () => fold(`${people(entry.to)} ${people(entry.cc)} ${people(entry.bcc)}`);
  switch (field) {
    case "from":
      return from().includes(text);
    case "to":
      return to().includes(text);
    case "subject":
      return fold(entry.subject).includes(text);
    case "has":
      return /^attachments?$/.test(text) && entry.hasAttachments;
    case "is":
      if (text === "unread") return isUnread(entry.flags);
      if (text === "read") return !isUnread(entry.flags);
      return entry.flags.includes(text === "starred" ? "flagged" : text);
    case "in":
      return true; // The choice of folders has taken care of it.
    default:
      return `${from()} ${to()} ${fold(entry.subject)} ${fold(entry.snippet)}`.includes(text);
  }
}

export function foldersToSearch(folders: readonly Folder[], terms: readonly Term[]): Folder[] {
  const wanted = terms.filter(({ field, negated }) => field === "in" && !negated);
  if (wanted.length > 0) {
    return wanted.flatMap(({ text }) =>
      text === "anywhere" ? folders : findFolder(folders, text) ?? []
    );
  }
  const unwanted = terms.filter(({ field }) => field === "in")
    .map(({ text }) => findFolder(folders, text)?.id);
  return folders.filter(({ id, role }) =>
    role !== "trash" && role !== "junk" && !unwanted.includes(id)
  );
}

/** A folder being read from its newest entry down. */
class Stream {
  #buffer: PlacedEntry[] = [];
  #next: string | null;
  #ended = false;
  constructor(readonly mailbox: Mailbox, readonly folderId: string, public before: string | null) {
    this.#next = before;
  }
  async peek(): Promise<PlacedEntry | undefined> {
    while (this.#buffer.length === 0 && !this.#ended) {
      const page = await this.mailbox.list(this.folderId, {
        limit: PAGE_ENTRIES,
        ...(this.#next === null ? {} : { before: this.#next }),
      });
      this.#buffer = [...page.entries];
      this.#next = page.next;
      this.#ended = page.next === null;
    }
    return this.#buffer[0];
  }
  take(): void {
    const { receivedMs, id } = this.#buffer.shift()!.entry;
    this.before = `${String(receivedMs).padStart(14, "0")}/${id}`;
  }
}

export async function searchMailbox(
  mailbox: Mailbox,
  query: string,
  options: { limit: number; cursor?: string },
): Promise<SearchPage> {
  const terms = parseQuery(query);
  if (terms.length === 0) return { entries: [], next: null };
  const positions = decodeCursor(options.cursor);
  const folders = foldersToSearch(await mailbox.folders(), terms)
    .filter(({ total }) => total > 0);
  const streams = [...new Set(folders.map(({ id }) => id))]
    .map((id) => new Stream(mailbox, id, positions[id] ?? null));
  const entries: PlacedEntry[] = [];
  for (let scanned = 0; scanned < SCANNED_MAX && entries.length < options.limit; scanned++) {
    let newest: Stream | null = null, newestMs = -Infinity;
    for (const stream of streams) {
      const head = await stream.peek();
      if (head === undefined || head.entry.receivedMs <= newestMs) continue;
      newest = stream;
      newestMs = head.entry.receivedMs;
    }
    if (newest === null) return { entries, next: null };
    const found = (await newest.peek())!;
    newest.take();
    if (matches(found.entry, terms)) entries.push(found);
  }
  const next = Object.fromEntries(
    streams.flatMap(({ folderId, before }) => before === null ? [] : [[folderId, before]]),
  );
  return { entries, next: btoa(JSON.stringify(next)).replaceAll("=", "") };
}

/** A cursor that is not ours starts from the beginning. */
function decodeCursor(cursor: string | undefined): Record<string, string> {
  try {
    const value = JSON.parse(atob(cursor ?? "")) as Record<string, unknown>;
    return Object.fromEntries(
      Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === "string"),
    );
  } catch {
    return {};
  }
}
