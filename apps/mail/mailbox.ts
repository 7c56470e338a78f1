/**
 * One user's index of mail: folders, entries, counters. Every method that changes something is a
 * single row operation, so nobody ever sees a message in two folders or in none, and the counters
 * always agree with the entries.
 *
 * A message is found by its id through its Place: the folder and a UID that was the folder's last
 * one shortly before the message came in. The store gives out the UID within the operation
 * (`append`), so it cannot be part of what that same operation writes; but it is larger than any
 * that was read before, and only the deliveries of that very moment lie between. A few entries
 * behind `after` is the message. The Place of a deleted message stays for a while as a tombstone,
 * so that a delivery which is repeated late does not bring it back.
 */
import type { Env } from "../../kv/env.ts";
import { type Condition, decodeJson, decodeText, encodeJson, type Kv } from "../../kv/kv.ts";
import type { Mutation, RowPage } from "../../kv/kv.ts";
import {
  ARCHIVE,
  checkFolderName,
  findFolder,
  type Folder,
  type FolderRecord,
  FOLDERS_MAX,
  sortFolders,
  STANDARD_FOLDERS,
} from "./folders.ts";
import * as keys from "./keys.ts";
import { MailError } from "./mail_error.ts";
import { decodeEntry, isUnread, type MessageEntry, type PlacedEntry } from "./message_entry.ts";

type Place = { readonly folder: string; readonly after: number } | { readonly goneMs: number };

export interface FoundEntry extends PlacedEntry {
  readonly conditions: readonly Condition[];
}

export interface EntryPage {
  readonly entries: readonly PlacedEntry[];
  /** The UID to continue behind; null at the end. */
  readonly next: number | null;
}

const ATTEMPTS_MAX = 12;
const TOMBSTONE_MS = 14 * 24 * 3_600_000;
const TOMBSTONES_SWEPT_PER_PURGE = 10;

export class Mailbox {
  readonly row: string;
  readonly #kv: Kv;
  readonly #env: Env;

  constructor({ kv, env, user }: { kv: Kv; env: Env; user: string }) {
    this.#kv = kv;
    this.#env = env;
    this.row = keys.mailRow(user);
  }

  /** Makes INBOX, Sent, Drafts, Trash and Junk unless they exist. */
  async ensureFolders(): Promise<void> {
    const uidValidity = Math.floor(this.#env.wallMs() / 1000);
    await this.#kv.apply({
      row: this.row,
      conditions: [{ column: keys.folderColumn("inbox"), is: "absent" }],
      mutations: STANDARD_FOLDERS.map(({ role, name }): Mutation => ({
        kind: "put",
        column: keys.folderColumn(role),
        value: encodeJson({ name, role, uidValidity } satisfies FolderRecord),
      })),
    });
  }

  async folders(): Promise<Folder[]> {
    const [records, counts] = await Promise.all([
      this.#kv.getRow(this.row, { prefix: keys.FOLDER, limit: FOLDERS_MAX + 10 }),
      this.#kv.getRow(this.row, { prefix: keys.COUNT, limit: 3 * (FOLDERS_MAX + 10) }),
    ]);
    if (!records.cells.some((cell) => cell.column === keys.folderColumn("inbox"))) {
      await this.ensureFolders();
      return this.folders();
    }
    const numbers = new Map<string, number>();
    for (const cell of counts.cells) numbers.set(cell.column, Number(decodeText(cell.value!)));
    return sortFolders(records.cells.map((cell) => {
      const id = cell.column.slice(keys.FOLDER.length);
      return {
        id,
        ...decodeJson(cell.value!) as FolderRecord,
        total: numbers.get(keys.totalCounter(id)) ?? 0,
        unread: numbers.get(keys.unreadCounter(id)) ?? 0,
      };
    }));
  }

  /** @throws {MailError} `unknown_folder`; `archive` is made when it is first asked for */
  async folder(wanted: string): Promise<Folder> {
    const folders = await this.folders();
    const found = findFolder(folders, wanted);
    if (found !== undefined) return found;
    if (wanted.toLowerCase() === ARCHIVE.role) {
      await this.#putFolder(ARCHIVE.role, { ...ARCHIVE, uidValidity: this.#uidValidity() });
      return this.folder(ARCHIVE.role);
    }
    throw new MailError("unknown_folder", `There is no folder "${wanted.slice(0, 80)}"`);
  }

  /** @throws {MailError} `folder_exists`, `invalid_folder` */
  async createFolder(folderId: string, name: string): Promise<Folder> {
    const clean = checkFolderName(name);
    const folders = await this.folders();
    if (findFolder(folders, clean) !== undefined) {
      throw new MailError("folder_exists", `There is already a folder "${clean}"`);
    }
    if (folders.length >= FOLDERS_MAX) {
      throw new MailError("invalid_folder", `There can be ${FOLDERS_MAX} folders at most`);
    }
    await this.#putFolder(folderId, { name: clean, role: null, uidValidity: this.#uidValidity() });
    return this.folder(folderId);
  }

  #uidValidity(): number {
    return Math.floor(this.#env.wallMs() / 1000);
  }

  async #putFolder(folderId: string, record: FolderRecord): Promise<void> {
    const column = keys.folderColumn(folderId);
    await this.#kv.apply({
      row: this.row,
      conditions: [{ column, is: "absent" }],
      mutations: [{ kind: "put", column, value: encodeJson(record) }],
    });
  }

  /** A page of one folder by UID, newest first; `before` is a former page's `next`. */
  async list(folderId: string, options: { limit: number; before?: number }): Promise<EntryPage> {
    const prefix = keys.entryPrefix(folderId);
    const entries: PlacedEntry[] = [];
    let after = options.before === undefined
      ? undefined
      : keys.entryColumn(folderId, options.before);
    while (true) {
      const page: RowPage = await this.#kv.getRow(this.row, {
        prefix,
        reverse: true,
        limit: options.limit - entries.length,
        ...(after === undefined ? {} : { after }),
      });
      entries.push(...page.cells.map((cell) => placed(folderId, cell)));
      if (page.next === null) return { entries, next: null };
      after = page.next;
      if (entries.length >= options.limit) return { entries, next: keys.uidOfColumn(after) };
    }
  }

  /** @throws {MailError} `not_found` */
  async find(messageId: string): Promise<FoundEntry> {
    const found = await this.tryFind(messageId);
    if (found === null) {
      throw new MailError("not_found", "There is no such message; it may have been deleted");
    }
    return found;
  }

  async tryFind(messageId: string): Promise<FoundEntry | null> {
    if (!isMessageId(messageId)) return null;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const place = await this.#place(messageId);
      if (place === null || "goneMs" in place) return null;
      const found = await this.#findBehind(messageId, place);
      if (found !== null) return found;
      // It moved between the two reads: the Place now says where to.
    }
    throw new MailError("conflict", "The message is being moved about; try again");
  }

  async #findBehind(
    messageId: string,
    place: { folder: string; after: number },
  ): Promise<FoundEntry | null> {
    const prefix = keys.entryPrefix(place.folder);
    let after = keys.entryColumn(place.folder, place.after);
    // Short at first: nearly always it is the very next one.
    for (let limit = 2;; limit = 200) {
      const page = await this.#kv.getRow(this.row, { prefix, after, limit });
      for (const cell of page.cells) {
        const entry = decodeEntry(cell.value!);
        if (entry.id !== messageId) continue;
        return {
          ...placed(place.folder, cell),
          conditions: [{ column: cell.column, is: "version", version: cell.version }],
        };
      }
      if (page.next === null) return null;
      after = page.next;
    }
  }

  async #place(messageId: string): Promise<Place | null> {
    const cell = await this.#kv.get(this.row, keys.idColumn(messageId));
    return cell === null ? null : decodeJson(cell.value) as Place;
  }

  /** Whether the id was ever taken here (and not so long ago that its tombstone is swept). */
  async knows(messageId: string): Promise<"present" | "gone" | "unknown"> {
    const place = await this.#place(messageId);
    return place === null ? "unknown" : "goneMs" in place ? "gone" : "present";
  }

  /**
   * The mutations that file a new entry, the `append` first: its UID is the first of the numbers
   * that an operation beginning with them gets back.
   */
  async addition(folderId: string, entry: MessageEntry): Promise<Mutation[]> {
    const counter = await this.#kv.get(this.row, keys.uidCounter(folderId));
    const after = counter === null ? 0 : Number(decodeText(counter.value));
    return [
      {
        kind: "append",
        counter: keys.uidCounter(folderId),
        prefix: keys.entryPrefix(folderId),
        value: encodeJson(entry),
      },
      {
        kind: "put",
        column: keys.idColumn(entry.id),
        value: encodeJson({ folder: folderId, after } satisfies Place),
      },
      ...countMutations(folderId, 1, isUnread(entry.flags) ? 1 : 0),
    ];
  }

  /** Files a message once: false when its id was here before, even if it is deleted by now. */
  async add(folderId: string, entry: MessageEntry): Promise<boolean> {
    const result = await this.#kv.apply({
      row: this.row,
      conditions: [{ column: keys.idColumn(entry.id), is: "absent" }],
      mutations: await this.addition(folderId, entry),
    });
    return result.applied;
  }

  /**
   * Changes an entry and, if `folderId` is given, moves it there under a new UID, in one step.
   * `change` may run several times.
   */
  async change(
    messageId: string,
    options: {
      change?: (entry: MessageEntry) => MessageEntry;
      folderId?: string;
      /** Drafts: a new text is a new message to IMAP, so it gets a new UID. */
      renumber?: boolean;
      more?: readonly Mutation[];
      moreConditions?: readonly Condition[];
    },
  ): Promise<PlacedEntry> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const found = await this.find(messageId);
      const entry = options.change?.(found.entry) ?? found.entry;
      const target = options.folderId ?? found.folderId;
      const moves = target !== found.folderId || options.renumber === true;
      const column = keys.entryColumn(found.folderId, found.uid);
      const unread = (isUnread(entry.flags) ? 1 : 0) - (isUnread(found.entry.flags) ? 1 : 0);
      const mutations: Mutation[] = moves
        ? [
          ...await this.addition(target, entry),
          { kind: "delete", column },
          ...countMutations(found.folderId, -1, isUnread(found.entry.flags) ? -1 : 0),
        ]
        : [
          { kind: "put", column, value: encodeJson(entry) },
          ...countMutations(found.folderId, 0, unread),
        ];
      const result = await this.#kv.apply({
        row: this.row,
        conditions: [...found.conditions, ...options.moreConditions ?? []],
        mutations: [...mutations, ...options.more ?? []],
      });
      if (result.applied) {
        return { entry, folderId: target, uid: moves ? result.numbers[0]! : found.uid };
      }
      if (result.conditionIndex >= found.conditions.length) {
        throw new MailError("draft_conflict", "Somebody else changed this in the meantime");
      }
      await this.#backOff(attempt);
    }
    throw new MailError("conflict", "Others keep changing this message; try again");
  }

  /** Removes an entry for good and returns it; null when it was gone already. */
  async purge(messageId: string): Promise<MessageEntry | null> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const found = await this.tryFind(messageId);
      if (found === null) return null;
      const result = await this.#kv.apply({
        row: this.row,
        conditions: found.conditions,
        mutations: [...this.#removal(found), ...await this.#tombstoneSweep()],
      });
      if (result.applied) return found.entry;
      await this.#backOff(attempt);
    }
    throw new MailError("conflict", "Others keep changing this message; try again");
  }

  /** The mutations that take an entry off its place, under `found.conditions`; its id stays taken. */
  departure({ entry, folderId, uid }: FoundEntry): Mutation[] {
    return [
      { kind: "delete", column: keys.entryColumn(folderId, uid) },
      { kind: "delete", column: keys.draftColumn(entry.id) },
      ...countMutations(folderId, -1, isUnread(entry.flags) ? -1 : 0),
    ];
  }

  #removal(found: FoundEntry): Mutation[] {
    const { entry } = found;
    const nowMs = this.#env.wallMs();
    return [
      ...this.departure(found),
      { kind: "delete", column: keys.sentColumn(entry.id) },
      {
        kind: "put",
        column: keys.idColumn(entry.id),
        value: encodeJson({ goneMs: nowMs } satisfies Place),
      },
      { kind: "put", column: keys.goneColumn(nowMs, entry.id), value: new Uint8Array(0) },
    ];
  }

  /** Old tombstones go as new ones come, so their number stays bounded without a sweeper. */
  async #tombstoneSweep(): Promise<Mutation[]> {
    const page = await this.#kv.getRow(this.row, {
      prefix: keys.GONE,
      limit: TOMBSTONES_SWEPT_PER_PURGE,
      keysOnly: true,
    });
    const limit = keys.goneColumn(this.#env.wallMs() - TOMBSTONE_MS, "");
    return page.cells.filter((cell) => cell.column < limit).flatMap(({ column }): Mutation[] => [
      { kind: "delete", column },
      { kind: "delete", column: keys.idColumn(column.slice(column.lastIndexOf("/") + 1)) },
    ]);
  }

  #backOff(attempt: number): Promise<void> {
    return this.#env.sleep(this.#env.random() * Math.min(200, 5 * 2 ** attempt));
  }
}

/** Ids that we make, or that a client made for us. */
export const isMessageId = (text: string): boolean => /^[a-z][a-z0-9-]{7,59}$/.test(text);

function placed(folderId: string, cell: { column: string; value?: Uint8Array }): PlacedEntry {
  return { entry: decodeEntry(cell.value!), folderId, uid: keys.uidOfColumn(cell.column) };
}

function countMutations(folderId: string, total: number, unread: number): Mutation[] {
  const mutations: Mutation[] = [];
  if (total !== 0) mutations.push({ kind: "add", column: keys.totalCounter(folderId), by: total });
  if (unread !== 0) {
    mutations.push({ kind: "add", column: keys.unreadCounter(folderId), by: unread });
  }
  return mutations;
}
