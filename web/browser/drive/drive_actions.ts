/**
 * What people do to items: make, rename, move, delete, restore, download. Each shows its effect at
 * once, says so with a way back where there is one, and tells plainly when it did not work.
 */
import { signal } from "@preact/signals";
import { ApiFailure } from "../../ui/api.ts";
import { confirm } from "../../ui/components/confirm.tsx";
import { showToast } from "../../ui/components/toast.tsx";
import { plural } from "../../ui/format.ts";
import { navigate } from "../../ui/router.ts";
import { ConflictBatch } from "./conflicts.ts";
import {
  deleteItem,
  downloadUrl,
  emptyTrash,
  type Item,
  patchItem,
  postFolder,
  purgeItem,
  restoreItem,
} from "./drive_api.ts";
import {
  folderAddress,
  folderId,
  load,
  loadUsage,
  noteGone,
  noteItem,
  place,
  previewAddress,
  selectOnly,
} from "./drive_state.ts";

/** Requests of one action at a time. */
const AT_ONCE = 4;

/** The item whose name is being edited, and what was typed when that could not be saved. */
export const renaming = signal<string | null>(null);
export let renameDraft: string | null = null;
/** What the move dialog is open for. */
export const moving = signal<readonly Item[] | null>(null);
export const newFolderOpen = signal(false);

export const itemsText = (items: readonly Item[]): string =>
  items.length === 1 ? `“${items[0]!.name}”` : plural(items.length, "item", "items");

export function complain(error: unknown, what: string): void {
  const why = error instanceof ApiFailure ? error.message : "Something went wrong in this page.";
  showToast({ message: `${what} ${why}`, icon: "triangle-alert", durationMs: 9000 });
}

export function openItem(item: Item): void {
  if (place.value.kind === "trash") return;
  navigate(item.type === "folder" ? folderAddress(item.id) : previewAddress(item.id));
}

export async function makeFolder(name: string): Promise<boolean> {
  const parent = folderId.value;
  if (parent === null) return false;
  const item = await postFolder(parent, name);
  noteItem(item);
  selectOnly(item.id);
  return true;
}

/** Shows the new name at once. When it cannot be saved the field opens again, with what was typed. */
export async function rename(item: Item, name: string): Promise<void> {
  renaming.value = null;
  renameDraft = null;
  if (name === "" || name === item.name) return;
  noteItem({ ...item, name });
  try {
    noteItem(await patchItem(item.id, { name }));
  } catch (error) {
    noteItem(item);
    complain(error, "Not renamed.");
    renameDraft = name;
    renaming.value = item.id;
  }
}

/** Runs `work` for each item, a few at once; returns those that went well. */
async function each(
  items: readonly Item[],
  what: string,
  work: (item: Item) => Promise<boolean>,
): Promise<Item[]> {
  const waiting = [...items], done: Item[] = [];
  let failure: unknown = null;
  const worker = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) {
      try {
        if (await work(item)) done.push(item);
      } catch (error) {
        failure ??= error;
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (failure !== null) {
    complain(failure, what);
    void load({ quietly: true });
  }
  return done;
}

export async function moveItems(
  items: readonly Item[],
  target: { readonly id: string; readonly name: string },
): Promise<void> {
  const moved = items.filter((item) => item.parent !== target.id && item.id !== target.id);
  if (moved.length === 0) return;
  const batch = new ConflictBatch(moved.length > 1);
  const done = await each(moved, "Not moved.", async (item) => {
    try {
      noteItem(await patchItem(item.id, { parent: target.id }));
    } catch (error) {
      if (!(error instanceof ApiFailure) || error.code !== "name_exists") throw error;
      const choice = await batch.ask(item.name, item.type === "file");
      if (choice === "skip") return false;
      const conflict = choice === "replace" ? "replace" : "rename";
      noteItem(await patchItem(item.id, { parent: target.id, conflict }));
      if (conflict === "replace") void load({ quietly: true });
    }
    return true;
  });
  selectOnly(null);
  if (done.length === 0) return;
  showToast({
    message: `${itemsText(done)} moved to ${target.name}`,
    icon: "folder-input",
    action: { label: "Undo", run: () => void moveBack(done) },
  });
}

async function moveBack(items: readonly Item[]): Promise<void> {
  await each(items, "Not moved back.", async ({ id, name, parent }) => {
    noteItem(await patchItem(id, { parent: parent!, name, conflict: "rename" }));
    return true;
  });
}

export async function trashItems(items: readonly Item[]): Promise<void> {
  if (items.length === 0) return;
  noteGone(new Set(items.map(({ id }) => id)));
  selectOnly(null);
  const done = await each(items, "Not deleted.", async (item) => {
    await deleteItem(item.id);
    return true;
  });
  if (done.length === 0) return;
  showToast({
    message: `${itemsText(done)} moved to the trash`,
    icon: "trash-2",
    action: { label: "Undo", run: () => void restoreItems(done, { quietly: true }) },
  });
}

export async function restoreItems(
  items: readonly Item[],
  options: { quietly?: boolean } = {},
): Promise<void> {
  if (place.value.kind === "trash") noteGone(new Set(items.map(({ id }) => id)));
  selectOnly(null);
  const places: Item[] = [];
  const done = await each(items, "Not restored.", async (item) => {
    const back = await restoreItem(item.id);
    places.push(back);
    noteItem(back);
    return true;
  });
  if (options.quietly || done.length === 0) return;
  const [first] = places;
  showToast({
    message: `${itemsText(done)} restored`,
    icon: "rotate-ccw",
    action: { label: "Show", run: () => navigate(folderAddress(first!.parent ?? "root")) },
  });
}

export async function purgeItems(items: readonly Item[]): Promise<void> {
  const sure = await confirm({
    title: "Delete for good?",
    text: `${itemsText(items)} will be gone for good. This cannot be undone.`,
    action: "Delete for good",
    danger: true,
  });
  if (!sure) return;
  noteGone(new Set(items.map(({ id }) => id)));
  selectOnly(null);
  await each(items, "Not deleted.", async (item) => {
    await purgeItem(item.id);
    return true;
  });
  void loadUsage();
}

export async function purgeAll(): Promise<void> {
  const sure = await confirm({
    title: "Empty the trash?",
    text: "Everything in it will be gone for good. This cannot be undone.",
    action: "Empty the trash",
    danger: true,
  });
  if (!sure) return;
  try {
    await emptyTrash();
    showToast({ message: "The trash is empty", icon: "check" });
  } catch (error) {
    complain(error, "Not emptied.");
  }
  await load({ quietly: true });
  void loadUsage();
}

export function download(items: readonly Item[]): void {
  if (items.length === 0) return;
  const link = document.createElement("a");
  link.href = downloadUrl(items);
  link.download = "";
  document.body.append(link);
  link.click();
  link.remove();
}
