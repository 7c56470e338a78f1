/**
 * Files and folders from the desktop, dropped anywhere on the page or chosen in a dialog, and the
 * drag of items within the page.
 */
import { signal } from "@preact/signals";
import { showToast } from "../../ui/components/toast.tsx";
import type { Item } from "./drive_api.ts";
import { folderId, selected, selection, selectOnly } from "./drive_state.ts";
import { type PickedFile, uploadFiles } from "./uploads.ts";

const DRAGGED = "application/x-penncloud-items";
const FILES_MAX = 20_000;

/** Files from outside hover over the page. */
export const dropping = signal(false);
/** The folder that the pointer is over while something is dragged. */
export const dropTarget = signal<string | null>(null);
let dragged: readonly Item[] = [];

export const carriesFiles = (event: DragEvent): boolean =>
  event.dataTransfer?.types.includes("Files") ?? false;
export const carriesItems = (event: DragEvent): boolean =>
  event.dataTransfer?.types.includes(DRAGGED) ?? false;
export const draggedItems = (): readonly Item[] => dragged;

export function startDrag(event: DragEvent, item: Item): void {
  if (!selected.value.has(item.id)) selectOnly(item.id);
  dragged = selection.value;
  event.dataTransfer!.effectAllowed = "move";
  event.dataTransfer!.setData(DRAGGED, dragged.map(({ id }) => id).join(","));
  const label = document.createElement("div");
  label.className = "drive-drag";
  label.textContent = dragged.length === 1 ? item.name : `${dragged.length} items`;
  document.body.append(label);
  event.dataTransfer!.setDragImage(label, -12, -8);
  // The browser takes its picture after this handler.
  setTimeout(() => label.remove(), 0);
}

export function endDrag(): void {
  dragged = [];
  dropTarget.value = null;
}

/** Handlers for an element that takes items and files: a folder, a step of the path, the trash. */
export function dropHandlers(
  target: string,
  options: {
    readonly onItems: (items: readonly Item[]) => void;
    /** Absent: takes no files from outside. */
    readonly onFiles?: (files: Promise<readonly PickedFile[]>) => void;
  },
) {
  const takes = (event: DragEvent) => {
    if (carriesItems(event)) return !dragged.some(({ id }) => id === target);
    return options.onFiles !== undefined && carriesFiles(event);
  };
  return {
    onDragOver: (event: DragEvent) => {
      if (!takes(event)) return;
      event.preventDefault();
      event.stopPropagation();
      event.dataTransfer!.dropEffect = carriesItems(event) ? "move" : "copy";
      dropTarget.value = target;
    },
    onDragLeave: () => {
      if (dropTarget.value === target) dropTarget.value = null;
    },
    onDrop: (event: DragEvent) => {
      if (!takes(event)) return;
      event.preventDefault();
      event.stopPropagation();
      dropping.value = false;
      dropTarget.value = null;
      if (carriesItems(event)) options.onItems(dragged);
      else options.onFiles?.(readDrop(event.dataTransfer!));
    },
  };
}

/** Listens on the whole page; what is dropped goes to the folder that is shown. */
export function startDropZone(): void {
  let leaving: ReturnType<typeof setTimeout> | undefined;
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    const takes = folderId.value !== null;
    event.dataTransfer!.dropEffect = takes ? "copy" : "none";
    clearTimeout(leaving);
    dropping.value = takes;
    // Browsers do not tell reliably when a drag leaves the window; it stops telling that it is over.
    leaving = setTimeout(() => dropping.value = false, 250);
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    dropping.value = false;
    const parent = folderId.value;
    if (parent !== null) void readDrop(event.dataTransfer!).then((files) => upload(files, parent));
  });
}

export function upload(files: readonly PickedFile[], parent: string): void {
  if (files.length === 0) return;
  if (files.length >= FILES_MAX) {
    showToast({ message: `Only the first ${FILES_MAX} files are taken`, icon: "triangle-alert" });
  }
  void uploadFiles(files, parent);
}

/** Must begin before the event's handlers end: the entries are gone afterwards. */
export function readDrop(data: DataTransfer): Promise<readonly PickedFile[]> {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry()).filter((one) =>
    one !== null
  );
  if (entries.length === 0) {
    return Promise.resolve([...data.files].map((file) => ({ file, folders: [] })));
  }
  const found: PickedFile[] = [];
  return readEntries(entries, [], found).then(() => found);
}

async function readEntries(
  entries: readonly FileSystemEntry[],
  folders: readonly string[],
  found: PickedFile[],
): Promise<void> {
  for (const entry of entries) {
    if (found.length >= FILES_MAX) return;
    if (entry.isFile) {
      const file = await new Promise<File | null>((resolve) =>
        (entry as FileSystemFileEntry).file(resolve, () => resolve(null))
      );
      if (file !== null) found.push({ file, folders });
      continue;
    }
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    const below: FileSystemEntry[] = [];
    // A reader gives at most a hundred at a time.
    for (;;) {
      const some = await new Promise<FileSystemEntry[]>((resolve) =>
        reader.readEntries(resolve, () => resolve([]))
      );
      if (some.length === 0) break;
      below.push(...some);
    }
    await readEntries(below, [...folders, entry.name], found);
  }
}

/** Opens the browser's dialog for files, or for a folder with all that it holds. */
export function chooseFiles(kind: "files" | "folder"): void {
  const parent = folderId.value;
  if (parent === null) return;
  const input = document.createElement("input");
  input.type = "file";
  input.multiple = true;
  input.webkitdirectory = kind === "folder";
  input.hidden = true;
  input.className = "drive-file-input";
  input.addEventListener("change", () => {
    const picked = [...input.files ?? []].slice(0, FILES_MAX).map((file) => ({
      file,
      folders: file.webkitRelativePath.split("/").slice(0, -1),
    }));
    input.remove();
    upload(picked, parent);
  });
  input.addEventListener("cancel", () => input.remove());
  document.body.append(input);
  input.click();
}
