/**
 * What the index keeps of a message: enough for a list, a search, and to find the body. The body
 * itself is never changed; flags and folder are the index's own.
 */
import { decodeJson, encodeJson } from "../../kv/kv.ts";
import type { Address } from "./addresses.ts";
import type { Body } from "./body_store.ts";

/** Words without `\` or `$`; `imapFlag` of a later IMAP server maps them. Others are keywords. */
export const SYSTEM_FLAGS = ["seen", "flagged", "answered", "forwarded", "draft"] as const;
const FLAGS_MAX = 30;

export interface MessageEntry {
  /** Stays the same while the message moves between folders. Unique per user. */
  readonly id: string;
  readonly from: Address | null;
  readonly to: readonly Address[];
  readonly cc?: readonly Address[];
  /** Only on what the user sent or drafts. */
  readonly bcc?: readonly Address[];
  readonly subject: string;
  /** The Date header, or the time of arrival where that is missing or absurd. */
  readonly dateMs: number;
  readonly receivedMs: number;
  /** Bytes of the MIME. */
  readonly size: number;
  readonly flags: readonly string[];
  readonly snippet: string;
  readonly hasAttachments: boolean;
  /** The Message-ID header with its brackets. */
  readonly messageId?: string;
  /** Message-IDs of In-Reply-To and References, oldest first: what a thread is made from. */
  readonly references?: readonly string[];
  /** Absent on drafts, which live in a cell of their own until they are sent. */
  readonly body?: Body;
}

/** A message and where it is now. */
export interface PlacedEntry {
  readonly entry: MessageEntry;
  readonly folderId: string;
  readonly uid: number;
}

/**
 * The UID beside the entry is a copy, for lists; the truth is in `u/`. The store gives out a UID
 * within the operation that files the message. Who files on condition that no other was given out
 * meanwhile writes it with the entry; who cannot, because many file at once, adds it right after.
 * Where a crash came in between, `uidAfter`, a UID of a moment before, says where to look.
 */
export interface StoredEntry {
  readonly entry: MessageEntry;
  readonly uid: number | null;
  readonly uidAfter: number;
}

export function decodeEntry(bytes: Uint8Array): StoredEntry {
  const { uid = null, uidAfter, ...entry } = decodeJson(bytes) as MessageEntry & {
    uid?: number;
    uidAfter: number;
  };
  return { entry, uid, uidAfter };
}

export const encodeEntry = ({ entry, uid, uidAfter }: StoredEntry): Uint8Array =>
  encodeJson({ ...entry, ...(uid === null ? {} : { uid }), uidAfter });

export const isUnread = (flags: readonly string[]): boolean => !flags.includes("seen");

/** Accepts `seen`, `\Seen` and `$seen`; drops what cannot be a flag, sorts, removes doubles. */
export function normalizeFlags(flags: readonly string[]): string[] {
  const clean = flags.map((flag) => flag.replace(/^[\\$]/, "").toLowerCase())
    .map((flag) => flag === "starred" ? "flagged" : flag === "read" ? "seen" : flag)
    .filter((flag) => /^[a-z0-9_.-]{1,40}$/.test(flag));
  return [...new Set(clean)].sort().slice(0, FLAGS_MAX);
}

/** A list replaces the flags; an object sets those that are true and clears those that are false. */
export function changeFlags(
  old: readonly string[],
  change: readonly string[] | Readonly<Record<string, boolean>>,
): string[] {
  if (Array.isArray(change)) return normalizeFlags(change);
  const flags = new Set(old);
  for (const [name, on] of Object.entries(change)) {
    for (const flag of normalizeFlags([name])) on ? flags.add(flag) : flags.delete(flag);
  }
  return normalizeFlags([...flags]);
}
