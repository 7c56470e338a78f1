/** The bar above the items: where we are and how it is shown, or what to do with the selection. */
import type { JSX } from "preact";
import { Button } from "../../ui/components/button.tsx";
import { Icon } from "../../ui/components/icon.tsx";
import { IconButton } from "../../ui/components/icon_button.tsx";
import { MenuButton } from "../../ui/components/menu.tsx";
import { Segments } from "../../ui/components/segments.tsx";
import { formatCount, formatSize, plural } from "../../ui/format.ts";
import {
  download,
  moveItems,
  moving,
  purgeAll,
  purgeItems,
  renaming,
  restoreItems,
  trashItems,
} from "./drive_actions.ts";
import type { PathStep } from "./drive_api.ts";
import {
  detailsOpen,
  folderAddress,
  listing,
  place,
  selection,
  selectOnly,
  setDetails,
  setView,
  sort,
  sortBy,
  type SortKey,
  view,
} from "./drive_state.ts";
import { dropHandlers, dropTarget, upload } from "./drop_zone.ts";

export function Toolbar(): JSX.Element {
  return selection.value.length > 1 ||
      (selection.value.length === 1 && place.value.kind === "trash")
    ? <SelectionBar />
    : <PlaceBar />;
}

const SORTS: readonly [SortKey, string][] = [
  ["name", "Name"],
  ["modified", "Changed"],
  ["size", "Size"],
  ["type", "Kind"],
];

function PlaceBar(): JSX.Element {
  const at = place.value, { items, count, complete, state, path } = listing.value;
  const [only] = selection.value;
  return (
    <div class="drive-bar">
      <div class="drive-bar__place">
        {at.kind === "folder" && (
          <>
            <h1 class="unseen">{path.at(-1)?.name ?? "Drive"}</h1>
            <Path />
          </>
        )}
        {at.kind === "trash" && <h1 class="drive-bar__title">Trash</h1>}
        {at.kind === "search" && <h1 class="drive-bar__title truncate">Results for “{at.query}”
        </h1>}
      </div>
      {state === "ready" && (
        <span class="drive-bar__count" role="status">
          {complete
            ? plural(items.length, "item", "items")
            : `${formatCount(items.length)} of ${formatCount(count)}`}
        </span>
      )}
      {only && at.kind !== "trash" && (
        <span class="drive-bar__actions">
          <IconButton icon="download" label="Download" onClick={() => download([only])} />
          <IconButton
            icon="pencil"
            label="Rename"
            shortcut="F2"
            onClick={() => renaming.value = only.id}
          />
          <IconButton icon="folder-input" label="Move" onClick={() => moving.value = [only]} />
          <IconButton icon="trash-2" label="Delete" onClick={() => void trashItems([only])} />
        </span>
      )}
      {at.kind === "trash"
        ? items.length > 0 && (
          <Button small icon="trash-2" onClick={() => void purgeAll()}>Empty the trash</Button>
        )
        : (
          <>
            <MenuButton
              label="Sort"
              icon="arrow-up-down"
              items={SORTS.map(([key, label]) => ({
                label,
                checked: sort.value.key === key,
                onSelect: () => sortBy(key),
              }))}
            />
            <Segments
              label="View"
              value={view.value}
              options={[
                { value: "list", label: "List", icon: "list", iconOnly: true },
                { value: "grid", label: "Grid", icon: "layout-grid", iconOnly: true },
              ]}
              onChange={setView}
            />
          </>
        )}
      <span class="drive-bar__details">
        <IconButton
          icon="info"
          label="Details"
          shortcut="i"
          aria-pressed={detailsOpen.value ? "true" : "false"}
          onClick={() => setDetails(!detailsOpen.value)}
        />
      </span>
    </div>
  );
}

/** The path; its steps take what is dropped on them. Long ones lose their middle. */
function Path(): JSX.Element {
  const { path } = listing.value;
  const folded = path.length > 4 ? path.slice(1, -2) : [];
  const steps = folded.length > 0 ? [path[0]!, ...path.slice(-2)] : path;
  return (
    <nav aria-label="Path" class="drive-path">
      {path.length > 1 && (
        <span class="drive-path__up">
          <IconButton icon="arrow-left" label="Up" href={folderAddress(path.at(-2)!.id)} />
        </span>
      )}
      <ol class="breadcrumb">
        {steps.map((step, index) => (
          <li class="breadcrumb__item" key={step.id}>
            {index > 0 && <Icon name="chevron-right" size="small" />}
            {index === 1 && folded.length > 0 && (
              <>
                <MenuButton
                  label="Folders between"
                  icon="ellipsis"
                  align="start"
                  small
                  items={folded.map(({ id, name }) => ({
                    label: name,
                    icon: "folder",
                    href: folderAddress(id),
                  }))}
                />
                <Icon name="chevron-right" size="small" />
              </>
            )}
            <Step step={step} last={index === steps.length - 1} />
          </li>
        ))}
      </ol>
    </nav>
  );
}

function Step({ step, last }: { step: PathStep; last: boolean }): JSX.Element {
  const { id, name } = step;
  const drop = last ? {} : dropHandlers(id, {
    onItems: (items) => void moveItems(items, step),
    onFiles: (files) => void files.then((found) => upload(found, id)),
  });
  const classes = ["breadcrumb__link", dropTarget.value === id && "breadcrumb__link--drop"];
  return (
    <a
      class={classes.filter(Boolean).join(" ")}
      href={folderAddress(id)}
      title={name}
      {...(last ? { "aria-current": "page" as const } : {})}
      {...drop}
    >
      {name}
    </a>
  );
}

function SelectionBar(): JSX.Element {
  const items = selection.value;
  const bytes = items.reduce((sum, { size }) => sum + size, 0);
  return (
    <div class="drive-bar drive-bar--selection" role="toolbar" aria-label="Selected items">
      <IconButton
        icon="x"
        label="Nothing selected"
        shortcut="Esc"
        onClick={() => selectOnly(null)}
      />
      <span class="drive-bar__chosen" role="status">
        {formatCount(items.length)} selected
        {bytes > 0 && <span class="muted">{formatSize(bytes)}</span>}
      </span>
      {place.value.kind === "trash"
        ? (
          <>
            <Button small icon="rotate-ccw" onClick={() => void restoreItems(items)}>
              Restore
            </Button>
            <Button small variant="quiet" icon="trash-2" onClick={() => void purgeItems(items)}>
              Delete for good
            </Button>
          </>
        )
        : (
          <>
            <IconButton icon="download" label="Download" onClick={() => download(items)} />
            <IconButton icon="folder-input" label="Move" onClick={() => moving.value = items} />
            <IconButton icon="trash-2" label="Delete" onClick={() => void trashItems(items)} />
          </>
        )}
    </div>
  );
}
