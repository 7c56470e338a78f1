/**
 * What the drive shows: one listing, the selection, how it is sorted and drawn.
 *
 * Where we are is in the address bar alone:
 *
 *     /drive                        the root
 *     /drive/folder/<id>
 *     /drive/trash
 *     /drive/search?q=<words>
 *     …?preview=<id>                a file is open above the listing
 *
 * A listing comes in pages; the first is shown at once, the others follow by themselves, so that
 * sorting by anything works in the browser. Listings seen before are shown from memory and brought
 * up to date behind the scenes.
 */
import { computed, effect, signal, untracked } from "@preact/signals";
import { ApiFailure } from "../../ui/api.ts";
import { navigate, route } from "../../ui/router.ts";
import {
  getFolder,
  getTrash,
  getUsage,
  type Item,
  type PathStep,
  searchItems,
  type Usage,
} from "./drive_api.ts";
import { kindOf } from "./file_kind.ts";

export type Place =
  | { readonly kind: "folder"; readonly id: string }
  | { readonly kind: "trash" }
  | { readonly kind: "search"; readonly query: string };

export interface Listing {
  readonly state: "loading" | "ready" | "failed";
  readonly error?: { readonly code: string; readonly message: string };
  /** Of a folder: from the root to it. */
  readonly path: readonly PathStep[];
  readonly items: readonly Item[];
  /** How many there will be once all pages are here. */
  readonly count: number;
  /** All pages are here. */
  readonly complete: boolean;
  /** A search found more than it shows. */
  readonly more: boolean;
}

export type SortKey = "name" | "modified" | "size" | "type";
export interface Sort {
  readonly key: SortKey;
  readonly down: boolean;
}

export const ROOT = "root";
const ROOT_PATH: readonly PathStep[] = [{ id: ROOT, name: "My drive" }];
const EMPTY: Listing = {
  state: "loading",
  path: [],
  items: [],
  count: 0,
  complete: false,
  more: false,
};
const FIRST_PAGE = 200, NEXT_PAGES = 1000;
const LISTINGS_KEPT = 20;
const REFRESH_MS = 20_000;

const parts = computed(() => route.value.path.split("/").slice(2).map(decodeURIComponent));
export const place = computed((): Place => {
  const [kind = "", id = ""] = parts.value;
  if (kind === "trash") return { kind: "trash" };
  if (kind === "search") return { kind: "search", query: route.value.query.get("q") ?? "" };
  return { kind: "folder", id: kind === "folder" && id !== "" ? id : ROOT };
});
const keyOf = (at: Place): string =>
  at.kind === "folder" ? at.id : at.kind === "trash" ? "trash" : `search ${at.query}`;
/** Changes with the place, not with the preview on top of it. */
export const placeKey = computed(() => keyOf(place.value));
export const previewId = computed(() => route.value.query.get("preview"));
/** The folder that new things go to; null where nothing can be put. */
export const folderId = computed(() => place.value.kind === "folder" ? place.value.id : null);

export function addressOf(at: Place): string {
  if (at.kind === "trash") return "/drive/trash";
  if (at.kind === "search") return `/drive/search?q=${encodeURIComponent(at.query)}`;
  return at.id === ROOT ? "/drive" : `/drive/folder/${encodeURIComponent(at.id)}`;
}
export const folderAddress = (id: string): string => addressOf({ kind: "folder", id });
export const goTo = (at: Place): void => navigate(addressOf(at));

/** The address of this place with a file open above it. */
export function previewAddress(id: string | null): string {
  const address = addressOf(place.value);
  if (id === null) return address;
  return `${address}${address.includes("?") ? "&" : "?"}preview=${encodeURIComponent(id)}`;
}

const listings = signal<ReadonlyMap<string, Listing>>(new Map());
export const listing = computed(() => listings.value.get(placeKey.value) ?? EMPTY);
export const usage = signal<Usage | null>(null);

function setListing(key: string, next: Listing): void {
  const all = new Map(listings.value);
  all.delete(key);
  all.set(key, next);
  for (const old of [...all.keys()].slice(0, Math.max(0, all.size - LISTINGS_KEPT))) {
    all.delete(old);
  }
  listings.value = all;
}

/** Changes the items of listings in memory, before or without asking the server. */
export function patchListings(
  change: (items: readonly Item[], key: string) => readonly Item[],
): void {
  const all = new Map(listings.value);
  for (const [key, one] of all) {
    const items = change(one.items, key);
    if (items !== one.items) {
      all.set(key, { ...one, items, count: one.count + items.length - one.items.length });
    }
  }
  listings.value = all;
}

/** Takes an item's newest form into the listing of its folder, and into what searches found. */
export function noteItem(item: Item): void {
  patchListings((items, key) => {
    if (key.startsWith("search ")) {
      return items.map((one) => one.id === item.id ? { ...one, ...item } : one);
    }
    const without = items.some(({ id }) => id === item.id)
      ? items.filter(({ id }) => id !== item.id)
      : items;
    return key === item.parent ? [...without, item] : without;
  });
}

export function noteGone(ids: ReadonlySet<string>): void {
  patchListings((items) =>
    items.some(({ id }) => ids.has(id)) ? items.filter(({ id }) => !ids.has(id)) : items
  );
}

/** The path to a folder that some listing shows, so that it is there before the answer is. */
function guessPath(id: string): readonly PathStep[] {
  if (id === ROOT) return ROOT_PATH;
  for (const { path, items } of listings.value.values()) {
    const at = path.findIndex((step) => step.id === id);
    if (at >= 0) return path.slice(0, at + 1);
    const item = items.find((one) => one.id === id);
    if (item !== undefined && item.parent === path.at(-1)?.id) {
      return [...path, { id, name: item.name }];
    }
  }
  return [];
}

let loading = new AbortController();

/** Fetches the current place. `quietly` keeps what is shown until all of the new is here. */
export async function load(options: { quietly?: boolean } = {}): Promise<void> {
  loading.abort();
  loading = new AbortController();
  const { signal: abort } = loading;
  const at = place.value, key = keyOf(at), known = listings.value.get(key);
  const quietly = options.quietly ?? known?.state === "ready";
  if (!quietly) {
    const path = at.kind === "folder" ? known?.path ?? guessPath(at.id) : [];
    setListing(key, { ...EMPTY, path });
  }
  try {
    const show = (next: Listing) => {
      if (!quietly || next.complete) setListing(key, next);
    };
    if (at.kind === "search") {
      const { items, more } = await searchItems(at.query, abort);
      show({ ...EMPTY, state: "ready", items, count: items.length, complete: true, more });
      return;
    }
    const items: Item[] = [];
    let cursor: string | null = null;
    do {
      const limit = cursor === null ? FIRST_PAGE : NEXT_PAGES;
      const request = { cursor, limit, signal: abort };
      const page: {
        children: readonly Item[];
        count: number;
        next: string | null;
        path?: readonly PathStep[];
        item?: Item;
      } = at.kind === "trash" ? await getTrash(request) : await getFolder(at.id, request);
      // A file's address leads to its folder, with the file open.
      if (page.item?.type === "file") {
        navigate(`${folderAddress(page.item.parent ?? ROOT)}?preview=${page.item.id}`, {
          replace: true,
        });
        return;
      }
      items.push(...page.children);
      cursor = page.next;
      show({
        state: "ready",
        path: page.path ?? [],
        items: [...items],
        count: cursor === null ? items.length : Math.max(page.count, items.length),
        complete: cursor === null,
        more: false,
      });
    } while (cursor !== null);
  } catch (error) {
    if (abort.aborted) return;
    const failure = error instanceof ApiFailure
      ? { code: error.code, message: error.message }
      : { code: "unknown", message: "This could not be loaded. Reload the page and try again." };
    // What was there before is worth more than an error about its renewal.
    const gone = failure.code === "not_found";
    if (!quietly || gone) {
      setListing(key, { ...EMPTY, path: ROOT_PATH, state: "failed", error: failure });
    }
  }
}

export async function loadUsage(): Promise<void> {
  try {
    usage.value = await getUsage();
  } catch {
    // The rail does without it.
  }
}

// How things are sorted and drawn: kept by the browser.

function remembered<Value extends string>(key: string, values: readonly Value[]): Value {
  try {
    const found = localStorage.getItem(key) as Value | null;
    if (found !== null && values.includes(found)) return found;
  } catch { /* Storage is off: defaults. */ }
  return values[0]!;
}
function remember(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch { /* Then it holds for this page only. */ }
}

const SORTS = ["name", "modified", "size", "type"].flatMap((key) => [`${key} up`, `${key} down`]);
const toSort = (text: string): Sort => {
  const [key, direction] = text.split(" ");
  return { key: key as SortKey, down: direction === "down" };
};
export const sort = signal<Sort>(toSort(remembered("drive.sort", SORTS)));
export const view = signal<"list" | "grid">(remembered("drive.view", ["list", "grid"]));
/** On small screens the panel covers the items, so it opens only when asked for. */
export const detailsOpen = signal(
  innerWidth >= 1100 && remembered("drive.details", ["no", "yes"]) === "yes",
);

/** The same key again turns the order around. Dates and sizes begin with the largest. */
export function sortBy(key: SortKey): void {
  const now = sort.value;
  const down = now.key === key ? !now.down : key === "modified" || key === "size";
  sort.value = { key, down };
  remember("drive.sort", `${key} ${down ? "down" : "up"}`);
}
export function setView(next: "list" | "grid"): void {
  view.value = next;
  remember("drive.view", next);
}
export function setDetails(open: boolean): void {
  detailsOpen.value = open;
  remember("drive.details", open ? "yes" : "no");
}

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const ORDERS: Record<SortKey, (a: Item, b: Item) => number> = {
  name: (a, b) => collator.compare(a.name, b.name),
  modified: (a, b) => a.modified < b.modified ? -1 : a.modified > b.modified ? 1 : 0,
  size: (a, b) => a.size - b.size,
  type: (a, b) => collator.compare(kindOf(a).word, kindOf(b).word),
};

/** The items as they are shown: folders first. The trash keeps its order, newest first. */
export const shown = computed((): readonly Item[] => {
  const { items } = listing.value;
  if (place.value.kind === "trash") return items;
  const { key, down } = sort.value, order = ORDERS[key], sign = down ? -1 : 1;
  return [...items].sort((a, b) => {
    if (a.type !== b.type) return a.type === "folder" ? -1 : 1;
    return sign * order(a, b) || collator.compare(a.name, b.name);
  });
});

// The selection, and the item that the keyboard is on.

export const selected = signal<ReadonlySet<string>>(new Set());
export const cursor = signal<string | null>(null);
let anchor: string | null = null;

export const selection = computed(() => shown.value.filter(({ id }) => selected.value.has(id)));

export function selectOnly(id: string | null): void {
  selected.value = new Set(id === null ? [] : [id]);
  cursor.value = id;
  anchor = id;
}
export function toggle(id: string): void {
  const next = new Set(selected.value);
  if (!next.delete(id)) next.add(id);
  selected.value = next;
  cursor.value = id;
  anchor = id;
}
/** From where the selection began to this item. */
export function extendTo(id: string): void {
  const items = shown.value;
  const from = items.findIndex((item) => item.id === (anchor ?? id));
  const to = items.findIndex((item) => item.id === id);
  const [first, last] = from < to ? [from, to] : [to, from];
  selected.value = new Set(items.slice(Math.max(0, first), last + 1).map((item) => item.id));
  cursor.value = id;
}
export function selectAll(): void {
  selected.value = new Set(shown.value.map(({ id }) => id));
}
export function selectSet(ids: ReadonlySet<string>): void {
  selected.value = ids;
}

/** Moves the keyboard's place by so many items; with `extend` the selection follows. */
export function step(by: number, extend: boolean): void {
  const items = shown.value;
  if (items.length === 0) return;
  const at = items.findIndex(({ id }) => id === cursor.value);
  const next = at < 0 ? (by > 0 ? 0 : items.length - 1) : at + by;
  goToIndex(Math.max(0, Math.min(items.length - 1, next)), extend);
}

/** Moves the keyboard's place to the first item, or to the last. */
export function stepToEnd(end: "first" | "last", extend: boolean): void {
  if (shown.value.length > 0) goToIndex(end === "first" ? 0 : shown.value.length - 1, extend);
}

function goToIndex(index: number, extend: boolean): void {
  const { id } = shown.value[index]!;
  if (extend) extendTo(id);
  else selectOnly(id);
}

/** The items that an action is about: the selected ones, else the one the keyboard is on. */
export function targets(): readonly Item[] {
  if (selection.value.length > 0) return selection.value;
  return shown.value.filter(({ id }) => id === cursor.value);
}

export function startDrive(): void {
  effect(() => {
    placeKey.value;
    untracked(() => {
      selectOnly(null);
      void load();
    });
  });
  void loadUsage();
  const refresh = () => {
    if (document.visibilityState === "visible" && listing.value.state !== "loading") {
      void load({ quietly: listing.value.state === "ready" });
      void loadUsage();
    }
  };
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, REFRESH_MS);
}
