/**
 * One user's index of mail: folders, entries, counters. Every method that changes something is a
 * single row operation, so nobody ever sees a message in two folders or in none, and the counters
 * always agree with the entries.
 *
 * A message is found by its id through its Place, which names its entry exactly. The Place of a
 * deleted message stays for a while as a tombstone, so that a delivery which is repeated late does
 * not bring it back. Lists go by time of arrival, so a message that is moved keeps its place in
 * time, while its UID in the new folder is a new one, as IMAP demands.
 */
import type { Env } from "../../kv/env.ts";
import { type Condition, decodeJson, decodeText, encodeJson, type Kv } from "../../kv/kv.ts";
import type { Cell, Mutation, RowPage, RowResult } from "../../kv/kv.ts";
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
import {
  decodeEntry,
  encodeEntry,
  isUnread,
  type MessageEntry,
  type PlacedEntry,
  type StoredEntry,
} from "./message_entry.ts";

type Place = { readonly folder: string; readonly ms: number } | { readonly goneMs: number };

export interface FoundEntry extends PlacedEntry {
  readonly uidAfter: number;
  readonly conditions: readonly Condition[];
}

export interface EntryPage {
  readonly entries: readonly PlacedEntry[];
  /** Pass as `before` for the next page; null at the end. */
  readonly next: string | null;
}

const ATTEMPTS_MAX = 12;
/** Of the UID that a new entry will get. */
const GUESSES_MAX = 2;
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

  /** A page of one folder, newest first; `before` is a former page's `next`, or nonsense. */
  async list(folderId: string, options: { limit: number; before?: string }): Promise<EntryPage> {
    const prefix = keys.entryPrefix(folderId), { before } = options;
    const entries: PlacedEntry[] = [];
    let after = before !== undefined && /^\d{14}\/[a-z0-9-]{1,60}$/.test(before)
      ? prefix + before
      : undefined;
    while (true) {
      const page: RowPage = await this.#kv.getRow(this.row, {
        prefix,
        reverse: true,
        limit: options.limit - entries.length,
        ...(after === undefined ? {} : { after }),
      });
      entries.push(...await Promise.all(page.cells.map((cell) => this.#placed(folderId, cell))));
      if (page.next === null) return { entries, next: null };
      after = page.next;
      if (entries.length >= options.limit) return { entries, next: after.slice(prefix.length) };
    }
  }

  async #placed(folderId: string, cell: Cell): Promise<FoundEntry> {
    const { entry, uid, uidAfter } = decodeEntry(cell.value!);
    return {
      entry,
      folderId,
      uid: uid ?? await this.#lookUpUid(folderId, entry.id, uidAfter),
      uidAfter,
      conditions: [{ column: cell.column, is: "version", version: cell.version }],
    };
  }

  /** For entries whose UID was not noted beside them, because a process died at that moment. */
  async #lookUpUid(folderId: string, messageId: string, uidAfter: number): Promise<number> {
    let after = keys.uidColumn(folderId, uidAfter);
    const prefix = keys.uidPrefix(folderId);
    // Short at first: nearly always it is the very next one.
    for (let limit = 2;; limit = 500) {
      const page = await this.#kv.getRow(this.row, { prefix, after, limit });
      for (const { column, value } of page.cells) {
        if ((decodeJson(value!) as { id: string }).id === messageId) {
          return Number(column.slice(prefix.length));
        }
      }
      // It moved on while we looked; 0 is never a UID.
      if (page.next === null) return 0;
      after = page.next;
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
      const column = keys.entryColumn(place.folder, { ms: place.ms, id: messageId });
      const cell = await this.#kv.get(this.row, column);
      if (cell !== null) return await this.#placed(place.folder, cell);
      // It moved between the two reads: the Place now says where to.
    }
    throw new MailError("conflict", "The message is being moved about; try again");
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
    const { uid } = await this.#lastUid(folderId);
    return this.#addition(folderId, { entry, uid: null, uidAfter: uid });
  }

  async #lastUid(folderId: string): Promise<{ uid: number; condition: Condition }> {
    const column = keys.uidCounter(folderId), counter = await this.#kv.get(this.row, column);
    return {
      uid: counter === null ? 0 : Number(decodeText(counter.value)),
      condition: counter === null
        ? { column, is: "absent" }
        : { column, is: "version", version: counter.version },
    };
  }

  #addition(folderId: string, stored: StoredEntry): Mutation[] {
    const { entry } = stored, { id, receivedMs: ms } = entry;
    return [
      {
        kind: "append",
        counter: keys.uidCounter(folderId),
        prefix: keys.uidPrefix(folderId),
        value: encodeJson({ id, ms }),
      },
      {
        kind: "put",
        column: keys.entryColumn(folderId, { ms, id }),
        value: encodeEntry(stored),
      },
      {
        kind: "put",
        column: keys.idColumn(id),
        value: encodeJson({ folder: folderId, ms } satisfies Place),
      },
      ...countMutations(folderId, 1, isUnread(entry.flags) ? 1 : 0),
    ];
  }

  /** Notes the UID beside an entry that was just filed. Best effort: see {@link StoredEntry}. */
  async noteUid(
    folderId: string,
    entry: MessageEntry,
    filed: RowResult & { applied: true },
  ): Promise<number> {
    const uid = filed.numbers[0]!;
    const column = keys.entryColumn(folderId, { ms: entry.receivedMs, id: entry.id });
    const value = encodeEntry({ entry, uid, uidAfter: uid - 1 });
    await this.#kv.apply({
      row: this.row,
      conditions: [{ column, is: "version", version: filed.version }],
      mutations: [{ kind: "put", column, value }],
    }).catch(() => {});
    return uid;
  }

  /** Files a message once: false when its id was here before, even if it is deleted by now. */
  async add(folderId: string, entry: MessageEntry): Promise<boolean> {
    const isNew: Condition = { column: keys.idColumn(entry.id), is: "absent" };
    // The next UID is known as long as nobody else files something meanwhile; then it needs no noting.
    for (let attempt = 0; attempt < GUESSES_MAX; attempt++) {
      const { uid: uidAfter, condition } = await this.#lastUid(folderId);
      const result = await this.#kv.apply({
        row: this.row,
        conditions: [isNew, condition],
        mutations: this.#addition(folderId, { entry, uid: uidAfter + 1, uidAfter }),
      });
      if (result.applied) return true;
      if (result.conditionIndex === 0) return false;
    }
    const result = await this.#kv.apply({
      row: this.row,
      conditions: [isNew],
      mutations: await this.addition(folderId, entry),
    });
    if (result.applied) await this.noteUid(folderId, entry, result);
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
      const place = { ms: found.entry.receivedMs, id: messageId };
      const column = keys.entryColumn(found.folderId, place);
      const unread = (isUnread(entry.flags) ? 1 : 0) - (isUnread(found.entry.flags) ? 1 : 0);
      const mutations: Mutation[] = moves
        ? [
          ...await this.addition(target, entry),
          // A draft that is saved within the same millisecond has its new entry there already.
          ...(target === found.folderId && place.ms === entry.receivedMs
            ? []
            : [{ kind: "delete", column } as const]),
          { kind: "delete", column: keys.uidColumn(found.folderId, found.uid) },
          ...countMutations(found.folderId, -1, isUnread(found.entry.flags) ? -1 : 0),
        ]
        : [
          { kind: "put", column, value: encodeEntry({ ...found, entry }) },
          ...countMutations(found.folderId, 0, unread),
        ];
      const result = await this.#kv.apply({
        row: this.row,
        conditions: [...found.conditions, ...options.moreConditions ?? []],
        mutations: [...mutations, ...options.more ?? []],
      });
      if (result.applied) {
        const uid = moves ? await this.noteUid(target, entry, result) : found.uid;
        return { entry, folderId: target, uid };
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
      {
        kind: "delete",
        column: keys.entryColumn(folderId, { ms: entry.receivedMs, id: entry.id }),
      },
      { kind: "delete", column: keys.uidColumn(folderId, uid) },
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

function countMutations(folderId: string, total: number, unread: number): Mutation[] {
  const mutations: Mutation[] = [];
  if (total !== 0) mutations.push({ kind: "add", column: keys.totalCounter(folderId), by: total });
  if (unread !== 0) {
    mutations.push({ kind: "add", column: keys.unreadCounter(folderId), by: unread });
  }
  return mutations;
}
