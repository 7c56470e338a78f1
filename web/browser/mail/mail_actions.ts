/** Actions that several parts of the application offer: the bars, the rows, the keyboard. */
import { confirm } from "../../ui/components/confirm.tsx";
import type { MenuItem } from "../../ui/components/menu.tsx";
import { plural } from "../../ui/format.ts";
import type { IconName } from "../../ui/icons/icon_names.ts";
import { EMPTY_DRAFT, startCompose } from "./compose_state.ts";
import type { Folder, FullMessage, Person } from "./mail_api.ts";
import { folder, folders, moveTo, openMessage, remove } from "./mail_state.ts";
import { answer, type AnswerKind, personName } from "./quote.ts";

export const FOLDER_ICONS: Record<string, IconName> = {
  inbox: "inbox",
  sent: "send",
  drafts: "file-text",
  trash: "trash-2",
  junk: "shield-alert",
  archive: "archive",
};

export const folderIcon = ({ role }: Folder): IconName => FOLDER_ICONS[role ?? ""] ?? "folder";
export const folderLabel = ({ role, name }: Folder): string => role === "inbox" ? "Inbox" : name;

/** One entry per folder that the messages could go to. */
export function moveItems(ids: readonly string[]): MenuItem[] {
  return folders.value
    .filter(({ id, role }) => id !== folder.value?.id && role !== "drafts" && role !== "sent")
    .map((target) => ({
      label: folderLabel(target),
      icon: folderIcon(target),
      onSelect: () => void moveTo(ids, target.id, `moved to ${folderLabel(target)}`),
    }));
}

/** Deletes; from Trash only after a question, because that cannot be taken back. */
export async function askAndRemove(ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  const forGood = folder.value?.role === "trash";
  const sure = !forGood || await confirm({
    title: "Delete for good?",
    text: `${plural(ids.length, "message", "messages")} will be gone. This cannot be undone.`,
    action: "Delete for good",
    danger: true,
  });
  if (sure) await remove(ids);
}

let ownAddress = "";
export const setOwnAddress = (address: string): void => {
  ownAddress = address;
};
export const isOwn = (address: string): boolean =>
  address.toLowerCase() === ownAddress.toLowerCase();
export const own = (): string => ownAddress;

/** A person's name; for people of this house without one, the part that tells them apart. */
export function displayName(person: Person | null): string {
  if (person === null || person.name !== "") return personName(person);
  const at = ownAddress.indexOf("@");
  const ours = person.address.toLowerCase().endsWith(ownAddress.slice(at).toLowerCase());
  return ours ? person.address.slice(0, person.address.lastIndexOf("@")) : person.address;
}

export function startAnswer(kind: AnswerKind, message: FullMessage): void {
  startCompose(answer(kind, message, ownAddress));
}

/** Answers the open message, if one is. */
export function answerOpen(kind: AnswerKind): void {
  const shown = openMessage.value;
  if (shown.state === "ready") startAnswer(kind, shown.message);
}

export function writeTo(address: string): void {
  startCompose({ ...EMPTY_DRAFT, to: [address] });
}
