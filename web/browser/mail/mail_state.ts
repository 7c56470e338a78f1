/**
 * What the mail application shows: folders, one list, one open message. Changes show at once and are
 * taken back when the server refuses them.
 *
 * Where we are is in the address bar alone:
 *
 *     /mail/<folder id>[/<message id>]
 *     /mail/search[/<message id>]?q=<query>
 */
import { computed, effect, signal, untracked } from "@preact/signals";
import { ApiFailure } from "../../ui/api.ts";
import { showToast } from "../../ui/components/toast.tsx";
import { navigate, route } from "../../ui/router.ts";
import { plural } from "../../ui/format.ts";
import {
  deleteMessages,
  type Folder,
  type FullMessage,
  getFolders,
  getMessage,
  getPage,
  type Message,
  type Place,
  updateMessages,
} from "./mail_api.ts";

export interface MessageList {
  readonly messages: readonly Message[];
  readonly next: string | null;
  readonly state: "loading" | "ready" | "failed";
  readonly error?: string;
}

export type OpenMessage =
  | { readonly state: "none" }
  | { readonly state: "loading"; readonly id: string; readonly known: Message | null }
  | { readonly state: "ready"; readonly message: FullMessage }
  | { readonly state: "failed"; readonly id: string; readonly error: string };

const EMPTY: MessageList = { messages: [], next: null, state: "loading" };
const LISTS_KEPT = 12;
const MESSAGES_KEPT = 40;
const POLL_MS = 5_000;
const REFRESH_MAX = 200;

export const folders = signal<readonly Folder[]>([]);
const lists = signal<ReadonlyMap<string, MessageList>>(new Map());
const opened = signal<ReadonlyMap<string, OpenMessage>>(new Map());
export const selected = signal<ReadonlySet<string>>(new Set());
/** The message that the keyboard is on. */
export const cursorId = signal<string | null>(null);

const parts = computed(() => route.value.path.split("/").slice(2).map(decodeURIComponent));
export const place = computed((): Place => {
  const [first = ""] = parts.value;
  return first === "search"
    ? { kind: "search", query: route.value.query.get("q") ?? "" }
    : { kind: "folder", folder: first || "inbox" };
});
export const openId = computed(() => parts.value[1] ?? null);
const placeKey = computed(() => JSON.stringify(place.value));
export const list = computed(() => lists.value.get(placeKey.value) ?? EMPTY);
export const openMessage = computed((): OpenMessage =>
  openId.value === null
    ? { state: "none" }
    : opened.value.get(openId.value) ?? { state: "loading", id: openId.value, known: null }
);
export const folder = computed((): Folder | null => {
  const here = place.value;
  if (here.kind === "search") return null;
  return folders.value.find(({ id }) => id === here.folder) ?? null;
});

export function addressOf(messageId?: string): string {
  const here = place.value;
  const base = here.kind === "folder" ? `/mail/${encodeURIComponent(here.folder)}` : "/mail/search";
  const tail = messageId === undefined ? "" : `/${encodeURIComponent(messageId)}`;
  const query = here.kind === "search" ? `?q=${encodeURIComponent(here.query)}` : "";
  return base + tail + query;
}

const isDraftsFolder = () => folder.value?.role === "drafts";

/** Set by the compose code, which drafts open in. */
export const openDraft: { run: (id: string) => void } = { run: () => {} };

export function open(message: Message): void {
  cursorId.value = message.id;
  if (isDraftsFolder() || message.flags.includes("draft")) openDraft.run(message.id);
  else navigate(addressOf(message.id));
}

function putList(key: string, value: MessageList): void {
  const next = new Map(lists.value);
  next.delete(key);
  next.set(key, value);
  for (const old of next.keys()) {
    if (next.size <= LISTS_KEPT) break;
    next.delete(old);
  }
  lists.value = next;
}

function putOpened(id: string, value: OpenMessage): void {
  const next = new Map(opened.value);
  next.delete(id);
  next.set(id, value);
  for (const old of next.keys()) {
    if (next.size <= MESSAGES_KEPT) break;
    next.delete(old);
  }
  opened.value = next;
}

const wordsOf = (error: unknown): string =>
  error instanceof ApiFailure ? error.message : "Something went wrong in this page. Reload it.";

/**
 * Flags that were changed here lately. An answer that was on its way meanwhile does not know of them
 * and must not take them back on screen.
 */
const flagChanges = new Map<string, Map<string, { on: boolean; doneMs: number }>>();
const FLAG_CHANGES_KEPT = 500;

function noteFlag(id: string, flag: string, change: { on: boolean; doneMs: number }): void {
  const known = flagChanges.get(id) ?? new Map();
  flagChanges.delete(id);
  flagChanges.set(id, known.set(flag, change));
  for (const old of flagChanges.keys()) {
    if (flagChanges.size <= FLAG_CHANGES_KEPT) break;
    flagChanges.delete(old);
  }
}

function withOwnFlags<One extends Message>(message: One, askedMs: number): One {
  const flags = new Set(message.flags);
  for (const [flag, { on, doneMs }] of flagChanges.get(message.id) ?? []) {
    if (doneMs > askedMs) on ? flags.add(flag) : flags.delete(flag);
  }
  return { ...message, flags: [...flags] };
}

/** Loads the list again from its top; what is on screen stays until the answer is there. */
export async function loadList(options: { quietly?: boolean } = {}): Promise<void> {
  const key = placeKey.value, here = place.value, old = lists.value.get(key);
  if (old === undefined) putList(key, EMPTY);
  const askedMs = performance.now();
  try {
    const limit = Math.min(REFRESH_MAX, Math.max(50, old?.messages.length ?? 0));
    const page = await getPage(here, { limit, ...(options.quietly ? { retryMs: 0 } : {}) });
    const kept = lists.value.get(key);
    // Pages beyond the first stay if the reload did not reach them.
    const seen = new Set(page.messages.map(({ id }) => id));
    const beyond = page.next === null ? [] : (kept?.messages ?? []).slice(limit)
      .filter(({ id }) => !seen.has(id));
    putList(key, {
      messages: [...page.messages.map((one) => withOwnFlags(one, askedMs)), ...beyond]
        .filter(({ id }) => !leaving.has(id)),
      next: beyond.length > 0 ? kept!.next : page.next,
      state: "ready",
    });
  } catch (error) {
    if (options.quietly) return;
    putList(key, { ...(old ?? EMPTY), state: "failed", error: wordsOf(error) });
  }
}

let loadingMore = false;

export async function loadMore(): Promise<void> {
  const key = placeKey.value, current = lists.value.get(key);
  if (loadingMore || current === undefined || current.next === null) return;
  loadingMore = true;
  try {
    const page = await getPage(place.value, { cursor: current.next });
    const now = lists.value.get(key) ?? current;
    const seen = new Set(now.messages.map(({ id }) => id));
    const messages = [...now.messages, ...page.messages.filter(({ id }) => !seen.has(id))];
    putList(key, { messages, next: page.next, state: "ready" });
  } catch (error) {
    showToast({ message: wordsOf(error), icon: "triangle-alert" });
  } finally {
    loadingMore = false;
  }
}

export async function loadMessage(id: string): Promise<void> {
  const known = list.value.messages.find((message) => message.id === id) ?? null;
  if (opened.value.get(id)?.state !== "ready") putOpened(id, { state: "loading", id, known });
  const askedMs = performance.now();
  try {
    const message = withOwnFlags(await getMessage(id), askedMs);
    putOpened(id, { state: "ready", message });
    if (!message.flags.includes("seen")) void setFlag([id], "seen", true);
  } catch (error) {
    putOpened(id, { state: "failed", id, error: wordsOf(error) });
  }
}

export async function loadFolders(options: { quietly?: boolean } = {}): Promise<boolean> {
  const before = JSON.stringify(folders.value);
  try {
    const fresh = await getFolders(options.quietly ? { retryMs: 0 } : {});
    if (JSON.stringify(fresh) === before) return false;
    folders.value = fresh;
    return true;
  } catch (error) {
    if (!options.quietly) showToast({ message: wordsOf(error), icon: "triangle-alert" });
    return false;
  }
}

/** Looks for new mail now; the list is only fetched when the counters say that something changed. */
export async function refresh(): Promise<void> {
  if (await loadFolders({ quietly: true })) await loadList({ quietly: true });
}

/** Follows the address bar and keeps looking for new mail. */
export function startMail(): void {
  effect(() => {
    placeKey.value;
    untracked(() => {
      selected.value = new Set();
      cursorId.value = openId.value;
      void loadList();
    });
  });
  effect(() => {
    const id = openId.value;
    if (id !== null) untracked(() => void loadMessage(id));
  });
  void loadFolders();
  const poll = () => {
    if (document.visibilityState === "visible") void refresh();
  };
  setInterval(poll, POLL_MS);
  document.addEventListener("visibilitychange", poll);
}

/** Applies a change to every copy of the messages that the page has. */
function patchMessages(
  ids: ReadonlySet<string>,
  change: (message: Message) => Partial<Message>,
): void {
  const patch = <One extends Message>(message: One): One =>
    ids.has(message.id) ? { ...message, ...change(message) } : message;
  lists.value = new Map(
    [...lists.value].map(([key, value]) => [
      key,
      { ...value, messages: value.messages.map(patch) },
    ]),
  );
  opened.value = new Map(
    [...opened.value].map(([id, value]) => [
      id,
      value.state === "ready" ? { ...value, message: patch(value.message) } : value,
    ]),
  );
}

function knownMessage(id: string): Message | undefined {
  const shown = opened.value.get(id);
  if (shown?.state === "ready") return shown.message;
  for (const { messages } of lists.value.values()) {
    const found = messages.find((message) => message.id === id);
    if (found !== undefined) return found;
  }
  return undefined;
}

export async function setFlag(
  ids: readonly string[],
  flag: string,
  on: boolean,
): Promise<void> {
  const changing = ids.filter((id) => knownMessage(id)?.flags.includes(flag) !== on);
  if (changing.length === 0) return;
  const apply = (value: boolean) => {
    if (flag === "seen") countUnread(changing, value ? -1 : 1);
    for (const id of changing) noteFlag(id, flag, { on: value, doneMs: Infinity });
    patchMessages(new Set(changing), ({ flags }) => ({
      flags: value ? [...flags, flag] : flags.filter((one) => one !== flag),
    }));
  };
  apply(on);
  try {
    await updateMessages(changing, { flags: { [flag]: on } });
  } catch (error) {
    apply(on = !on);
    showToast({ message: wordsOf(error), icon: "triangle-alert" });
  }
  for (const id of changing) noteFlag(id, flag, { on, doneMs: performance.now() });
}

function countUnread(ids: readonly string[], by: number): void {
  const names = ids.map((id) => knownMessage(id)?.folder);
  folders.value = folders.value.map((one) => {
    const count = names.filter((name) => name === one.name).length;
    return count === 0 ? one : { ...one, unread: Math.max(0, one.unread + by * count) };
  });
}

/** On their way out of this list: a refresh that overtakes the move must not bring them back. */
const leaving = new Set<string>();

/** Takes messages out of the list at once; the returned function puts them back. */
function takeOut(ids: readonly string[]): () => void {
  const gone = new Set(ids), key = placeKey.value;
  const before = lists.value.get(key);
  for (const id of ids) leaving.add(id);
  const { messages } = list.value;
  const at = messages.findIndex(({ id }) => gone.has(id));
  if (before !== undefined) {
    putList(key, { ...before, messages: messages.filter(({ id }) => !gone.has(id)) });
  }
  const left = list.value.messages;
  const nextId = left[Math.min(at, left.length - 1)]?.id ?? null;
  if (cursorId.value !== null && gone.has(cursorId.value)) cursorId.value = nextId;
  if (openId.value !== null && gone.has(openId.value)) navigate(addressOf(), { replace: true });
  selected.value = new Set([...selected.value].filter((id) => !gone.has(id)));
  return () => {
    for (const id of ids) leaving.delete(id);
    const now = lists.value.get(key);
    if (before === undefined || now === undefined) return;
    const present = new Set(now.messages.map(({ id }) => id));
    const restored = before.messages.filter(({ id }) => gone.has(id) && !present.has(id));
    const all = [...now.messages, ...restored];
    const order = new Map(before.messages.map(({ id }, index) => [id, index]));
    all.sort((a, b) => (order.get(a.id) ?? -1) - (order.get(b.id) ?? -1));
    putList(key, { ...now, messages: all });
  };
}

const messagesText = (count: number) =>
  count === 1 ? "Message" : plural(count, "message", "messages");

/** Moves to a folder by id or role, with a way back. */
export async function moveTo(
  ids: readonly string[],
  target: string,
  words: string,
): Promise<void> {
  if (ids.length === 0) return;
  const from = new Map(ids.map((id) => [id, knownMessage(id)?.folder ?? "INBOX"]));
  const putBack = takeOut(ids);
  try {
    await updateMessages(ids, { folder: target });
    showToast({
      message: `${messagesText(ids.length)} ${words}`,
      action: { label: "Undo", run: () => void undoMove(from, putBack) },
    });
  } catch (error) {
    putBack();
    showToast({ message: wordsOf(error), icon: "triangle-alert" });
  } finally {
    for (const id of ids) leaving.delete(id);
    void loadFolders({ quietly: true });
  }
}

async function undoMove(from: ReadonlyMap<string, string>, putBack: () => void): Promise<void> {
  putBack();
  try {
    for (const [name, ids] of Map.groupBy(from.keys(), (id) => from.get(id)!)) {
      await updateMessages(ids, { folder: name });
    }
  } catch (error) {
    showToast({ message: wordsOf(error), icon: "triangle-alert" });
  }
  await Promise.all([loadList({ quietly: true }), loadFolders({ quietly: true })]);
}

export const archive = (ids: readonly string[]): Promise<void> =>
  moveTo(ids, "archive", "archived");

/** To Trash, with a way back. From Trash there is none, so the caller has asked before. */
export async function remove(ids: readonly string[]): Promise<void> {
  if (folder.value?.role !== "trash") return await moveTo(ids, "trash", "moved to Trash");
  const putBack = takeOut(ids);
  try {
    await deleteMessages(ids);
    showToast({ message: `${messagesText(ids.length)} deleted for good` });
  } catch (error) {
    putBack();
    showToast({ message: wordsOf(error), icon: "triangle-alert" });
  } finally {
    for (const id of ids) leaving.delete(id);
    void loadFolders({ quietly: true });
  }
}

/** What an action of the keyboard or the bar is about: the selection, the open one, the cursor. */
export const targets = computed((): string[] => {
  if (selected.value.size > 0) return [...selected.value];
  const id = openId.value ?? cursorId.value;
  return id === null ? [] : [id];
});

let lastToggled: string | null = null;

/** Selects or deselects; with `range`, everything since the last one that was. */
export function toggleSelected(id: string, range = false): void {
  const next = new Set(selected.value), on = !next.has(id);
  const ids = list.value.messages.map((message) => message.id);
  const from = range && lastToggled !== null ? ids.indexOf(lastToggled) : -1;
  const to = ids.indexOf(id);
  const chosen = from === -1 ? [id] : ids.slice(Math.min(from, to), Math.max(from, to) + 1);
  for (const one of chosen) on ? next.add(one) : next.delete(one);
  lastToggled = id;
  selected.value = next;
}

/** One message up or down; moves the open message along when one is open. */
export function step(by: 1 | -1): void {
  const { messages } = list.value;
  const at = messages.findIndex(({ id }) => id === (openId.value ?? cursorId.value));
  const next = messages[at === -1 ? (by === 1 ? 0 : messages.length - 1) : at + by];
  if (next === undefined) return;
  cursorId.value = next.id;
  if (openId.value !== null) navigate(addressOf(next.id), { replace: true });
}
