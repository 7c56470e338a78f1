/**
 * Folders: the five that everybody has, those that people make, and how a name finds one.
 *
 * A folder's id is in the key of each of its messages and never changes; its name may. The ids of
 * the standard five are their roles, so a delivery needs no look-up.
 */
import { MailError } from "./mail_error.ts";

export type FolderRole = "inbox" | "sent" | "drafts" | "trash" | "junk" | "archive";

export interface FolderRecord {
  readonly name: string;
  readonly role: FolderRole | null;
  /** With it an IMAP client can tell this folder from a later one of the same name. */
  readonly uidValidity: number;
}

export interface Folder extends FolderRecord {
  readonly id: string;
  readonly total: number;
  readonly unread: number;
}

export const STANDARD_FOLDERS: readonly { role: FolderRole; name: string }[] = [
  { role: "inbox", name: "INBOX" },
  { role: "sent", name: "Sent" },
  { role: "drafts", name: "Drafts" },
  { role: "trash", name: "Trash" },
  { role: "junk", name: "Junk" },
];
/** Made when somebody first archives a message. */
export const ARCHIVE = { role: "archive", name: "Archive" } as const;
export const FOLDERS_MAX = 100;
const NAME_LENGTH_MAX = 80;

const order = (folder: FolderRecord): number => {
  const place = ["inbox", "drafts", "sent", "archive", "junk", "trash"].indexOf(folder.role ?? "");
  return place === -1 ? 3.5 : place;
};

/** Standard folders first, as people use them; then the others by name. */
export function sortFolders(folders: readonly Folder[]): Folder[] {
  return folders.toSorted((a, b) => order(a) - order(b) || a.name.localeCompare(b.name));
}

/** Finds a folder by id, or by name without case; undefined when there is none. */
export function findFolder(folders: readonly Folder[], wanted: string): Folder | undefined {
  const lower = wanted.toLowerCase();
  return folders.find((folder) => folder.id === wanted) ??
    folders.find((folder) => folder.name.toLowerCase() === lower || folder.role === lower);
}

/** @throws {MailError} `invalid_folder` */
export function checkFolderName(name: string): string {
  const clean = name.normalize("NFC").trim();
  if (clean === "" || clean.length > NAME_LENGTH_MAX || /[\p{Cc}/*%\\]/u.test(clean)) {
    throw new MailError(
      "invalid_folder",
      `A folder name has 1 to ${NAME_LENGTH_MAX} characters, none of them / \\ * %`,
    );
  }
  return clean;
}
