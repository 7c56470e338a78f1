/** Items one below the other, with the columns that matter for the place. */
import type { JSX } from "preact";
import { Checkbox } from "../../ui/components/checkbox.tsx";
import { Icon } from "../../ui/components/icon.tsx";
import { MenuButton } from "../../ui/components/menu.tsx";
import { VirtualList } from "../../ui/components/virtual_list.tsx";
import { formatDate, formatFullDate, formatSize } from "../../ui/format.ts";
import type { Item } from "./drive_api.ts";
import {
  cursor,
  place,
  selectAll,
  selected,
  selectOnly,
  shown,
  sort,
  sortBy,
  type SortKey,
  toggle,
} from "./drive_state.ts";
import { FileIcon, itemHandlers, itemMarks, ItemName, menuFor } from "./item_parts.tsx";
import { kindOf } from "./file_kind.ts";

const ROW_HEIGHT = 48;

export function ItemList(): JSX.Element {
  const items = shown.value, at = cursor.value;
  return (
    <div class={`drive-list drive-list--${place.value.kind}`}>
      <ListHead />
      <div class="drive-list__body">
        <VirtualList
          items={items}
          rowHeight={ROW_HEIGHT}
          keyOf={({ id }) => id}
          row={(item) => <Row item={item} />}
          label="Files and folders"
          reveal={at === null ? null : items.findIndex(({ id }) => id === at)}
        />
      </div>
    </div>
  );
}

function ListHead(): JSX.Element {
  const all = shown.value.length, chosen = selected.value.size, { kind } = place.value;
  return (
    <div class="drive-row drive-row--head">
      <Checkbox
        label="Select all"
        labelUnseen
        checked={chosen > 0 && chosen === all}
        mixed={chosen > 0 && chosen < all}
        onChange={() => chosen > 0 ? selectOnly(null) : selectAll()}
      />
      <span />
      {kind === "trash" ? <span>Name</span> : <SortButton by="name" label="Name" />}
      {kind !== "folder" && <span class="drive-row__where">Place</span>}
      {kind === "folder" && <SortButton by="type" label="Kind" />}
      {kind === "trash" ? <span>Deleted</span> : <SortButton by="modified" label="Changed" />}
      {kind === "trash"
        ? <span class="drive-row__size">Size</span>
        : <SortButton by="size" label="Size" />}
      <span />
    </div>
  );
}

function SortButton({ by, label }: { by: SortKey; label: string }): JSX.Element {
  const { key, down } = sort.value, current = key === by;
  return (
    <button
      type="button"
      class={`sort-button sort-button--${by}`}
      aria-label={`Sort by ${label.toLowerCase()}`}
      aria-pressed={current ? "true" : "false"}
      onClick={() => sortBy(by)}
    >
      {label}
      {current && <Icon name={down ? "arrow-down" : "arrow-up"} size="small" />}
    </button>
  );
}

function Row({ item }: { item: Item }): JSX.Element {
  const { kind } = place.value, moment = item.deleted ?? item.modified;
  const size = item.type === "folder" ? "" : formatSize(item.size);
  return (
    <div class={itemMarks(item, "drive-row")} {...itemHandlers(item)}>
      <Checkbox
        label={`Select ${item.name}`}
        labelUnseen
        checked={selected.value.has(item.id)}
        onChange={() => toggle(item.id)}
      />
      <FileIcon item={item} />
      <div class="drive-row__main">
        <ItemName item={item} />
        <span class="drive-row__detail truncate">
          {[formatDate(moment), size, kind === "folder" ? "" : whereOf(item)].filter(Boolean).join(
            " · ",
          )}
        </span>
      </div>
      {kind !== "folder" && (
        <span class="drive-row__where truncate" title={whereOf(item)}>{whereOf(item)}</span>
      )}
      {kind === "folder" && <span class="drive-row__kind truncate">{kindOf(item).word}</span>}
      <time class="drive-row__date" dateTime={moment} title={formatFullDate(moment)}>
        {formatDate(moment)}
      </time>
      <span class="drive-row__size">{size}</span>
      <MenuButton label={`Actions for ${item.name}`} items={menuFor([item])} small />
    </div>
  );
}

/** The folders in which a deleted or found item lies, as people say it. */
export function whereOf(item: Item): string {
  const names = item.origin ?? item.path;
  if (names === undefined) return "";
  return names.length === 0 ? "My drive" : names.join(" / ");
}
