/** The panel on the right: what the chosen item is, where, since when. */
import type { JSX } from "preact";
import { Button } from "../../ui/components/button.tsx";
import { IconButton } from "../../ui/components/icon_button.tsx";
import { formatFullDate, formatSize, plural } from "../../ui/format.ts";
import { download, moving, openItem, renaming } from "./drive_actions.ts";
import type { Item } from "./drive_api.ts";
import { listing, place, selection, setDetails } from "./drive_state.ts";
import { kindOf } from "./file_kind.ts";
import { whereOf } from "./item_list.tsx";
import { FileIcon, Thumbnail } from "./item_parts.tsx";

export function DetailsPanel(): JSX.Element {
  const chosen = selection.value, [item] = chosen;
  return (
    <aside class="details" aria-label="Details">
      <div class="details__head">
        <h2>Details</h2>
        <IconButton icon="x" label="Close" onClick={() => setDetails(false)} />
      </div>
      {item === undefined
        ? <FolderDetails />
        : chosen.length > 1
        ? <SeveralDetails items={chosen} />
        : <ItemDetails item={item} />}
    </aside>
  );
}

function FolderDetails(): JSX.Element {
  const { items, path, count } = listing.value;
  const bytes = items.reduce((sum, { size }) => sum + size, 0);
  const here = path.at(-1);
  return (
    <>
      {here && <p class="details__name">{here.name}</p>}
      <dl class="details__facts">
        <Fact label="Holds" value={plural(count, "item", "items")} />
        <Fact label="Files here" value={formatSize(bytes)} />
      </dl>
      <p class="details__hint">Choose a file or a folder to see more about it.</p>
    </>
  );
}

function SeveralDetails({ items }: { items: readonly Item[] }): JSX.Element {
  const folders = items.filter(({ type }) => type === "folder").length;
  const bytes = items.reduce((sum, { size }) => sum + size, 0);
  return (
    <>
      <p class="details__name">{plural(items.length, "item", "items")} selected</p>
      <dl class="details__facts">
        {folders > 0 && <Fact label="Folders" value={String(folders)} />}
        {folders < items.length && <Fact label="Files" value={String(items.length - folders)} />}
        <Fact label="Size of the files" value={formatSize(bytes)} />
      </dl>
    </>
  );
}

function ItemDetails({ item }: { item: Item }): JSX.Element {
  const { path } = listing.value, inTrash = place.value.kind === "trash";
  const where = whereOf(item) || path.map(({ name }) => name).join(" / ");
  return (
    <>
      <div class="details__picture">
        {inTrash ? <FileIcon item={item} large /> : <Thumbnail item={item} />}
      </div>
      <p class="details__name">{item.name}</p>
      <dl class="details__facts">
        <Fact label="Kind" value={kindOf(item).word} />
        {item.type === "file" && (
          <Fact
            label="Size"
            value={`${formatSize(item.size)} (${item.size.toLocaleString("en-US")} bytes)`}
          />
        )}
        <Fact label={inTrash ? "Was in" : "Place"} value={where} />
        {item.deleted && <Fact label="Deleted" value={formatFullDate(item.deleted)} />}
        <Fact label="Changed" value={formatFullDate(item.modified)} />
        <Fact label="Added" value={formatFullDate(item.created)} />
        {item.contentType && <Fact label="Type" value={item.contentType} />}
      </dl>
      {!inTrash && (
        <div class="details__actions">
          <Button
            small
            icon={item.type === "folder" ? "folder-open" : "eye"}
            onClick={() => openItem(item)}
          >
            Open
          </Button>
          <Button small icon="download" onClick={() => download([item])}>Download</Button>
          <Button small icon="pencil" onClick={() => renaming.value = item.id}>Rename</Button>
          <Button small icon="folder-input" onClick={() => moving.value = [item]}>Move</Button>
        </div>
      )}
    </>
  );
}

function Fact({ label, value }: { label: string; value: string }): JSX.Element {
  return (
    <div class="details__fact">
      <dt>{label}</dt>
      <dd>{value}</dd>
    </div>
  );
}
