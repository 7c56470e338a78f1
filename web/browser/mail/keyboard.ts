/** Mail by keyboard, with the keys that people know from elsewhere. */
import { signal } from "@preact/signals";
import { startCompose, windows } from "./compose_state.ts";
import { answerOpen, askAndRemove } from "./mail_actions.ts";
import {
  addressOf,
  archive,
  cursorId,
  list,
  open,
  openId,
  selected,
  setFlag,
  step,
  targets,
  toggleSelected,
} from "./mail_state.ts";
import { navigate } from "../../ui/router.ts";

export const helpOpen = signal(false);

export const SHORTCUTS: readonly (readonly [string, string])[] = [
  ["c", "Write a message"],
  ["/", "Search"],
  ["j / k", "Next, previous message"],
  ["o or Enter", "Open"],
  ["u", "Back to the list"],
  ["x", "Select"],
  ["e", "Archive"],
  ["#", "Delete"],
  ["s", "Star"],
  ["Shift+I / Shift+U", "Mark as read, as unread"],
  ["r", "Reply"],
  ["a", "Reply to all"],
  ["f", "Forward"],
  ["Ctrl+Enter", "Send, in the message window"],
  ["Esc", "Close"],
  ["?", "These keys"],
];

function messageAtCursor() {
  return list.value.messages.find(({ id }) => id === cursorId.value);
}

const KEYS: Record<string, () => void> = {
  c: () => void startCompose(),
  "/": () => document.getElementById("search")?.focus(),
  j: () => step(1),
  k: () => step(-1),
  o: openCursor,
  Enter: openCursor,
  u: () => navigate(addressOf()),
  x: () => {
    const id = openId.value ?? cursorId.value;
    if (id !== null) toggleSelected(id);
  },
  e: () => void archive(targets.value),
  "#": () => void askAndRemove(targets.value),
  Delete: () => void askAndRemove(targets.value),
  s: () => {
    const ids = targets.value;
    const all = list.value.messages.filter(({ id }) => ids.includes(id));
    void setFlag(ids, "flagged", !all.every(({ flags }) => flags.includes("flagged")));
  },
  I: () => void setFlag(targets.value, "seen", true),
  U: () => void setFlag(targets.value, "seen", false),
  r: () => answerOpen("reply"),
  a: () => answerOpen("reply-all"),
  f: () => answerOpen("forward"),
  "?": () => helpOpen.value = true,
  Escape: () => {
    if (selected.value.size > 0) selected.value = new Set();
    else if (openId.value !== null) navigate(addressOf());
  },
};

function openCursor(): void {
  const message = messageAtCursor();
  if (message !== undefined) open(message);
}

export function startKeyboard(): void {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target as HTMLElement;
    if (target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
    if (document.querySelector("dialog[open]") !== null) return;
    // Enter on a button or a link presses that.
    if (event.key === "Enter" && target.closest("a, button") !== null) return;
    const front = windows.value.some(({ minimized }) => !minimized.value);
    if (front && target.closest(".compose") !== null) return;
    const run = KEYS[event.key];
    if (run === undefined) return;
    event.preventDefault();
    run();
  });
}
