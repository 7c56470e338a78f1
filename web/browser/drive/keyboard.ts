/** The drive by keyboard. */
import { signal } from "@preact/signals";
import { navigate } from "../../ui/router.ts";
import {
  download,
  moving,
  newFolderOpen,
  openItem,
  purgeItems,
  renaming,
  trashItems,
} from "./drive_actions.ts";
import {
  cursor,
  detailsOpen,
  folderAddress,
  folderId,
  listing,
  place,
  previewId,
  selectAll,
  selected,
  selectOnly,
  setDetails,
  setView,
  shown,
  step,
  stepToEnd,
  targets,
  toggle,
  view,
} from "./drive_state.ts";
import { chooseFiles } from "./drop_zone.ts";

export const helpOpen = signal(false);
/** Items in a row of the grid; the grid says so. */
export const columns = signal(1);

export const SHORTCUTS: readonly (readonly [string, string])[] = [
  ["↑ / ↓", "Previous, next"],
  ["Enter", "Open"],
  ["Backspace", "The folder above"],
  ["Space", "Select or not"],
  ["Shift + ↓", "Select several"],
  ["Ctrl + A", "Select all"],
  ["F2", "Rename"],
  ["m", "Move"],
  ["d", "Download"],
  ["Delete", "To the trash"],
  ["n", "New folder"],
  ["u", "Upload files"],
  ["i", "Details"],
  ["v", "List or grid"],
  ["/", "Search"],
  ["Esc", "Nothing selected"],
  ["?", "These keys"],
];

const inTrash = () => place.value.kind === "trash";
const rowStep = () => view.value === "grid" && !inTrash() ? columns.value : 1;

const KEYS: Record<string, (event: KeyboardEvent) => void> = {
  ArrowDown: (event) => step(rowStep(), event.shiftKey),
  ArrowUp: (event) => step(-rowStep(), event.shiftKey),
  ArrowRight: (event) => step(1, event.shiftKey),
  ArrowLeft: (event) => step(-1, event.shiftKey),
  PageDown: (event) => step(10 * rowStep(), event.shiftKey),
  PageUp: (event) => step(-10 * rowStep(), event.shiftKey),
  Home: (event) => stepToEnd("first", event.shiftKey),
  End: (event) => stepToEnd("last", event.shiftKey),
  Enter: () => {
    const item = shown.value.find(({ id }) => id === cursor.value);
    if (item !== undefined) openItem(item);
  },
  Backspace: () => {
    const { path } = listing.value, above = path.at(-2);
    if (folderId.value !== null && above !== undefined) navigate(folderAddress(above.id));
  },
  " ": () => {
    if (cursor.value !== null) toggle(cursor.value);
  },
  F2: () => {
    const [only, another] = targets();
    if (only !== undefined && another === undefined && !inTrash()) renaming.value = only.id;
  },
  Delete: () => void (inTrash() ? purgeItems(targets()) : trashItems(targets())),
  m: () => {
    if (!inTrash() && targets().length > 0) moving.value = targets();
  },
  d: () => {
    if (!inTrash()) download(targets());
  },
  n: () => newFolderOpen.value = folderId.value !== null,
  u: () => chooseFiles("files"),
  i: () => setDetails(!detailsOpen.value),
  v: () => setView(view.value === "list" ? "grid" : "list"),
  "/": () => document.getElementById("search")?.focus(),
  "?": () => helpOpen.value = true,
  Escape: () => selected.value.size > 0 ? selectOnly(null) : cursor.value = null,
};

export function startKeyboard(): void {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || previewId.value !== null) return;
    const target = event.target as HTMLElement;
    if (target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
    if (document.querySelector("dialog[open], [role=menu]") !== null) return;
    // Enter and space on a control press that control.
    const control = target.closest("a, button, input");
    if (control !== null && (event.key === "Enter" || event.key === " ")) return;
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() !== "a") return;
      event.preventDefault();
      selectAll();
      return;
    }
    const run = KEYS[event.key];
    if (run === undefined) return;
    event.preventDefault();
    run(event);
  });
}
