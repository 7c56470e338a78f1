/** What the list and the grid share: icons, names, menus, and how items answer to the pointer. */
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Icon } from "../../ui/components/icon.tsx";
import { Menu, type MenuItem, type MenuPlace } from "../../ui/components/menu.tsx";
import {
  download,
  moveItems,
  moving,
  openItem,
  purgeItems,
  rename,
  renameDraft,
  renaming,
  restoreItems,
  trashItems,
} from "./drive_actions.ts";
import { contentUrl, type Item } from "./drive_api.ts";
import {
  cursor,
  extendTo,
  folderAddress,
  place,
  previewAddress,
  selected,
  selection,
  selectOnly,
  setDetails,
  toggle,
} from "./drive_state.ts";
import { dropHandlers, dropTarget, endDrag, startDrag, upload } from "./drop_zone.ts";
import { hasThumbnail, kindOf, stemLength } from "./file_kind.ts";

export function FileIcon({ item, large }: { item: Item; large?: boolean }): JSX.Element {
  const { icon, hue } = kindOf(item);
  return (
    <span
      class={`file-icon file-icon--${hue}${item.type === "folder" ? " file-icon--folder" : ""}`}
    >
      <Icon name={icon} {...(large ? { size: "large" as const } : {})} />
    </span>
  );
}

/** A small picture of a picture; its icon where there is none or it cannot be drawn. */
export function Thumbnail({ item }: { item: Item }): JSX.Element {
  const [broken, setBroken] = useState<string | null>(null);
  if (!hasThumbnail(item) || broken === item.etag) return <FileIcon item={item} large />;
  return (
    <img
      src={contentUrl(item)}
      alt=""
      loading="lazy"
      decoding="async"
      draggable={false}
      onError={() => setBroken(item.etag)}
    />
  );
}

export const addressOfItem = (item: Item): string =>
  item.type === "folder" ? folderAddress(item.id) : previewAddress(item.id);

/** The name as a link, or as a field while it is being changed. */
export function ItemName({ item }: { item: Item }): JSX.Element {
  if (renaming.value === item.id) return <RenameField item={item} />;
  if (place.value.kind === "trash") {
    return <span class="item-name" title={item.name}>{item.name}</span>;
  }
  return (
    <a
      class="item-name"
      href={addressOfItem(item)}
      title={item.name}
      draggable={false}
      onClick={(event) => {
        if (event.shiftKey || event.ctrlKey || event.metaKey) event.preventDefault();
        else event.stopPropagation();
      }}
    >
      {item.name}
    </a>
  );
}

function RenameField({ item }: { item: Item }): JSX.Element {
  const field = useRef<HTMLInputElement>(null);
  const draft = useRef(renameDraft);
  const done = useRef(false);
  // Before the next key arrives: it belongs to the name.
  useLayoutEffect(() => {
    field.current!.focus();
    field.current!.setSelectionRange(0, stemLength(item));
  }, []);
  const end = (name: string) => {
    if (done.current) return;
    done.current = true;
    void rename(item, name.trim());
  };
  return (
    <input
      ref={field}
      class="input item-rename"
      defaultValue={draft.current ?? item.name}
      aria-label={`New name for ${item.name}`}
      {...(draft.current === null ? {} : { "aria-invalid": "true" as const })}
      autocomplete="off"
      onClick={(event) => event.stopPropagation()}
      onDblClick={(event) => event.stopPropagation()}
      onBlur={(event) => end(event.currentTarget.value)}
      onKeyDown={(event) => {
        event.stopPropagation();
        if (event.key === "Enter") end(event.currentTarget.value);
        if (event.key === "Escape") end(item.name);
      }}
    />
  );
}

const contextMenu = signal<{ place: MenuPlace; items: readonly Item[] } | null>(null);

export function ItemContextMenu(): JSX.Element | null {
  const open = contextMenu.value;
  if (open === null) return null;
  return (
    <Menu
      items={menuFor(open.items)}
      place={open.place}
      label="Actions"
      onClose={() => contextMenu.value = null}
    />
  );
}

/** What can be done with these items, as a menu. */
export function menuFor(items: readonly Item[]): MenuItem[] {
  const [first] = items;
  if (first === undefined) return [];
  if (place.value.kind === "trash") {
    return [
      { label: "Restore", icon: "rotate-ccw", onSelect: () => void restoreItems(items) },
      "separator",
      {
        label: "Delete for good",
        icon: "trash-2",
        danger: true,
        onSelect: () => void purgeItems(items),
      },
    ];
  }
  const one: MenuItem[] = items.length > 1 ? [] : [
    {
      label: first.type === "folder" ? "Open" : "Preview",
      icon: first.type === "folder" ? "folder-open" : "eye",
      onSelect: () => openItem(first),
    },
  ];
  const single: MenuItem[] = items.length > 1 ? [] : [
    { label: "Rename", icon: "pencil", shortcut: "F2", onSelect: () => renaming.value = first.id },
  ];
  const details: MenuItem[] = items.length > 1 ? [] : [
    {
      label: "Details",
      icon: "info",
      shortcut: "i",
      onSelect: () => {
        selectOnly(first.id);
        setDetails(true);
      },
    },
    ...(place.value.kind === "search"
      ? [{
        label: "Show in its folder",
        icon: "folder-input" as const,
        href: folderAddress(first.parent ?? "root"),
      }]
      : []),
  ];
  return [
    ...one,
    { label: "Download", icon: "download", shortcut: "d", onSelect: () => download(items) },
    "separator",
    ...single,
    {
      label: "Move to…",
      icon: "folder-input",
      shortcut: "m",
      onSelect: () => moving.value = items,
    },
    ...details,
    "separator",
    {
      label: "Delete",
      icon: "trash-2",
      shortcut: "Del",
      danger: true,
      onSelect: () => void trashItems(items),
    },
  ];
}

const touch = () => matchMedia("(pointer: coarse)").matches;

/** The behaviour of a row or a tile: press, double press, menu, drag, and being dropped on. */
export function itemHandlers(item: Item) {
  const free = place.value.kind !== "trash";
  const drop = item.type === "folder" && free
    ? dropHandlers(item.id, {
      onItems: (items) => void moveItems(items, item),
      onFiles: (files) => void files.then((found) => upload(found, item.id)),
    })
    : {};
  return {
    draggable: free && renaming.value !== item.id && !touch(),
    onDragStart: (event: DragEvent) => startDrag(event, item),
    onDragEnd: endDrag,
    onClick: (event: MouseEvent) => {
      if ((event.target as Element).closest("button, input, label, .menu")) return;
      if (event.shiftKey) extendTo(item.id);
      else if (event.ctrlKey || event.metaKey) toggle(item.id);
      else if (touch() && selected.value.size > 0) toggle(item.id);
      else if (touch()) openItem(item);
      else selectOnly(item.id);
    },
    onDblClick: (event: MouseEvent) => {
      if (!(event.target as Element).closest("button, input, label")) openItem(item);
    },
    onContextMenu: (event: MouseEvent) => {
      event.preventDefault();
      if (!selected.value.has(item.id)) selectOnly(item.id);
      const place = { left: event.clientX, top: event.clientY, width: 0, height: 0 };
      contextMenu.value = { place, items: selection.value };
    },
    ...drop,
  };
}

/** Marks that change while things are chosen and dragged. */
export function itemMarks(item: Item, base: string): string {
  return [
    base,
    selected.value.has(item.id) && `${base}--selected`,
    cursor.value === item.id && `${base}--cursor`,
    dropTarget.value === item.id && `${base}--drop`,
  ].filter(Boolean).join(" ");
}
