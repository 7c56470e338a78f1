/** Chooses the folder to move things to, in a tree that opens as one goes down. */
import { type Signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { Button } from "../../ui/components/button.tsx";
import { Dialog } from "../../ui/components/dialog.tsx";
import { Icon } from "../../ui/components/icon.tsx";
import { complain, itemsText, moveItems, moving } from "./drive_actions.ts";
import { getFolder, type Item, type PathStep, postFolder } from "./drive_api.ts";
import { listing, noteItem, ROOT } from "./drive_state.ts";

/** Folders come first in a listing, so a page of this many shows all that a person can scan. */
const FOLDERS_MAX = 1000;
const TREE_ROOT: PathStep = { id: ROOT, name: "My drive" };

interface TreeState {
  readonly open: Signal<ReadonlySet<string>>;
  readonly folders: Signal<ReadonlyMap<string, readonly PathStep[]>>;
  readonly chosen: Signal<PathStep>;
  readonly moved: ReadonlySet<string>;
}

export function MoveDialog({ items }: { items: readonly Item[] }): JSX.Element {
  const path = listing.value.path;
  const tree: TreeState = {
    open: useSignal<ReadonlySet<string>>(new Set([ROOT, ...path.map(({ id }) => id)])),
    folders: useSignal<ReadonlyMap<string, readonly PathStep[]>>(new Map()),
    chosen: useSignal<PathStep>(path.at(-1) ?? TREE_ROOT),
    moved: new Set(items.map(({ id }) => id)),
  };
  const busy = useSignal(false);
  const close = () => moving.value = null;
  const target = tree.chosen.value;
  const same = items.every((item) => item.parent === target.id);

  useEffect(() => {
    for (const id of tree.open.value) void loadFolders(tree, id);
  }, []);

  const addFolder = async () => {
    busy.value = true;
    try {
      const made = await postFolder(target.id, "New folder", "rename");
      noteItem(made);
      await loadFolders(tree, target.id);
      tree.open.value = new Set([...tree.open.value, target.id]);
      tree.chosen.value = { id: made.id, name: made.name };
    } catch (error) {
      complain(error, "No folder was made.");
    }
    busy.value = false;
  };

  return (
    <Dialog
      title={`Move ${itemsText(items)}`}
      onClose={close}
      onSubmit={() => {
        close();
        void moveItems(items, target);
      }}
      footer={
        <>
          <Button onClick={close}>Cancel</Button>
          <Button variant="primary" type="submit" disabled={same}>Move here</Button>
        </>
      }
    >
      <ul class="folder-tree" role="tree" aria-label="Folders">
        <Branch folder={TREE_ROOT} depth={0} tree={tree} />
      </ul>
      <Button
        variant="quiet"
        small
        icon="folder-plus"
        busy={busy.value}
        onClick={() => void addFolder()}
      >
        New folder in {target.name}
      </Button>
    </Dialog>
  );
}

async function loadFolders(tree: TreeState, id: string): Promise<void> {
  try {
    const { children } = await getFolder(id, { limit: FOLDERS_MAX });
    const folders = children.filter(({ type }) => type === "folder");
    tree.folders.value = new Map([...tree.folders.value, [id, folders]]);
  } catch (error) {
    complain(error, "The folders could not be listed.");
  }
}

function Branch(
  { folder, depth, tree }: { folder: PathStep; depth: number; tree: TreeState },
): JSX.Element | null {
  const { id, name } = folder;
  const open = tree.open.value.has(id), below = tree.folders.value.get(id);
  // A folder cannot go into itself, so there is nothing to choose there.
  if (tree.moved.has(id)) return null;
  const chosen = tree.chosen.value.id === id;
  const setOpen = (next: boolean) => {
    const all = new Set(tree.open.value);
    if (next) all.add(id);
    else all.delete(id);
    tree.open.value = all;
    if (next && below === undefined) void loadFolders(tree, id);
  };
  return (
    <li
      role="treeitem"
      aria-selected={chosen ? "true" : "false"}
      aria-expanded={open ? "true" : "false"}
      aria-label={name}
    >
      <div class={chosen ? "folder-tree__row folder-tree__row--chosen" : "folder-tree__row"}>
        <button
          type="button"
          class={open ? "folder-tree__twist folder-tree__twist--open" : "folder-tree__twist"}
          style={{ marginInlineStart: `${depth * 20}px` }}
          aria-label={open ? `Close ${name}` : `Open ${name}`}
          disabled={below?.length === 0}
          onClick={() => setOpen(!open)}
        >
          <Icon name="chevron-right" size="small" />
        </button>
        <button
          type="button"
          class="folder-tree__name"
          {...(chosen ? { autofocus: true } : {})}
          onClick={() => tree.chosen.value = folder}
          onDblClick={() => setOpen(true)}
          onKeyDown={(event) => {
            if (event.key === "ArrowRight") setOpen(true);
            else if (event.key === "ArrowLeft") setOpen(false);
            else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
              event.preventDefault();
              focusNeighbour(event.currentTarget, event.key === "ArrowDown" ? 1 : -1);
            }
          }}
        >
          <Icon name={depth === 0 ? "hard-drive" : open ? "folder-open" : "folder"} />
          <span class="truncate">{name}</span>
        </button>
      </div>
      {open && below !== undefined && below.length > 0 && (
        <ul role="group">
          {below.map((child) => (
            <Branch key={child.id} folder={child} depth={depth + 1} tree={tree} />
          ))}
        </ul>
      )}
    </li>
  );
}

function focusNeighbour(from: HTMLElement, by: 1 | -1): void {
  const all = [
    ...from.closest(".folder-tree")!.querySelectorAll<HTMLElement>(".folder-tree__name"),
  ];
  const next = all[all.indexOf(from) + by];
  next?.focus();
  next?.click();
}
