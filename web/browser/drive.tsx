/**
 * The drive application: places on the left, the items of one place as a list or a grid, details on
 * the right, a file above them all, and the tray of uploads. What is shown and what happens is in
 * drive/drive_state.ts, drive/drive_actions.ts and drive/uploads.ts.
 */
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { type BootData, readBoot } from "../ui/boot.ts";
import { Button } from "../ui/components/button.tsx";
import { Icon } from "../ui/components/icon.tsx";
import { MenuButton, type MenuItem } from "../ui/components/menu.tsx";
import { ProgressBar } from "../ui/components/progress_bar.tsx";
import { SkeletonRows } from "../ui/components/skeleton.tsx";
import { EmptyState, ErrorState } from "../ui/components/states.tsx";
import { formatSize } from "../ui/format.ts";
import { mount } from "../ui/mount.ts";
import { navigate, startRouter } from "../ui/router.ts";
import { AppShell, RailLink } from "../ui/shell.tsx";
import { DetailsPanel } from "./drive/details.tsx";
import { DriveDialogs } from "./drive/dialogs.tsx";
import { moveItems, moving, newFolderOpen, trashItems } from "./drive/drive_actions.ts";
import {
  detailsOpen,
  folderId,
  goTo,
  listing,
  load,
  place,
  ROOT,
  startDrive,
  usage,
  view,
} from "./drive/drive_state.ts";
import {
  chooseFiles,
  dropHandlers,
  dropping,
  dropTarget,
  startDropZone,
} from "./drive/drop_zone.ts";
import { ItemGrid } from "./drive/item_grid.tsx";
import { ItemList } from "./drive/item_list.tsx";
import { ItemContextMenu } from "./drive/item_parts.tsx";
import { startKeyboard } from "./drive/keyboard.ts";
import { MoveDialog } from "./drive/move_dialog.tsx";
import { PreviewHost } from "./drive/preview.tsx";
import { Toolbar } from "./drive/toolbar.tsx";
import { UploadTray } from "./drive/upload_tray.tsx";
import "./drive/drive.css";

/** Shorter waits show nothing, because a flash is worse than a pause. */
const SKELETON_AFTER_MS = 150;

function DriveApp({ boot }: { boot: BootData }): JSX.Element {
  const at = place.value;
  return (
    <AppShell
      app="drive"
      user={boot.user}
      balancer={boot.balancer}
      search={{
        placeholder: "Search files",
        value: at.kind === "search" ? at.query : "",
        onSearch: (query) =>
          goTo(query === "" ? { kind: "folder", id: ROOT } : { kind: "search", query }),
      }}
      rail={<Rail />}
    >
      <div class={detailsOpen.value ? "drive drive--details" : "drive"}>
        <section class="drive__items" aria-label="Files and folders">
          <Toolbar />
          {at.kind === "trash" && <TrashNotice />}
          <Items />
        </section>
        {detailsOpen.value && <DetailsPanel />}
      </div>
      {dropping.value && <DropHint />}
      {folderId.value !== null && (
        <span class="add-button">
          <MenuButton
            label="Add"
            items={ADD_ITEMS}
            trigger={({ open, toggle }) => (
              <button
                type="button"
                aria-label="Add files or a folder"
                aria-haspopup="menu"
                aria-expanded={open ? "true" : "false"}
                onClick={toggle}
              >
                <Icon name="plus" />
              </button>
            )}
          />
        </span>
      )}
      <UploadTray />
      <ItemContextMenu />
      <DriveDialogs />
      {moving.value !== null && <MoveDialog items={moving.value} />}
      <PreviewHost />
    </AppShell>
  );
}

const ADD_ITEMS: readonly MenuItem[] = [
  { label: "Upload files", icon: "upload", shortcut: "u", onSelect: () => chooseFiles("files") },
  { label: "Upload a folder", icon: "folder-up", onSelect: () => chooseFiles("folder") },
  "separator",
  {
    label: "New folder",
    icon: "folder-plus",
    shortcut: "n",
    onSelect: () => newFolderOpen.value = true,
  },
];

function Rail(): JSX.Element {
  const at = place.value;
  const root = { id: ROOT, name: "My drive" };
  return (
    <>
      <div class="rail-action">
        <MenuButton
          label="New"
          align="start"
          items={folderId.value === null
            ? [{ heading: "Open a folder first" }, {
              label: "My drive",
              icon: "hard-drive",
              href: "/drive",
            }]
            : ADD_ITEMS}
          trigger={({ open, toggle }) => (
            <Button
              variant="primary"
              wide
              icon="plus"
              aria-haspopup="menu"
              aria-expanded={open ? "true" : "false"}
              onClick={toggle}
            >
              New
            </Button>
          )}
        />
      </div>
      <RailLink
        icon="hard-drive"
        label="My drive"
        href="/drive"
        current={at.kind === "folder"}
        dropping={dropTarget.value === ROOT}
        {...dropHandlers(ROOT, { onItems: (items) => void moveItems(items, root) })}
      />
      <RailLink
        icon="trash-2"
        label="Trash"
        href="/drive/trash"
        current={at.kind === "trash"}
        dropping={dropTarget.value === "trash"}
        {...dropHandlers("trash", { onItems: (items) => void trashItems(items) })}
      />
      <UsageMeter />
    </>
  );
}

function UsageMeter(): JSX.Element | null {
  const now = usage.value;
  if (now === null) return null;
  const { used, quota } = now;
  const share = quota === null ? 0 : used / quota;
  return (
    <div class="usage">
      {quota !== null && (
        <ProgressBar
          value={share}
          label="Space in use"
          {...(share > 0.9 ? { tone: share >= 1 ? "danger" as const : "warning" as const } : {})}
        />
      )}
      <p>
        {quota === null
          ? `${formatSize(used)} in use`
          : `${formatSize(used)} of ${formatSize(quota)} in use`}
      </p>
    </div>
  );
}

function TrashNotice(): JSX.Element {
  const days = usage.value?.trashDays ?? 30;
  return (
    <p class="trash-notice">
      <Icon name="info" size="small" />
      What lies here for {days} days is deleted for good. Until then it counts as space in use.
    </p>
  );
}

function Items(): JSX.Element {
  const { state, error, items, more } = listing.value, at = place.value;
  if (state === "loading") return <LateSkeleton />;
  if (state === "failed") {
    return error?.code === "not_found"
      ? (
        <EmptyState
          icon="folder"
          title="This folder is not here any more"
          text="It was moved to the trash or deleted."
        >
          <Button href="/drive" icon="hard-drive">My drive</Button>
          <Button href="/drive/trash" icon="trash-2">Trash</Button>
        </EmptyState>
      )
      : (
        <ErrorState
          title="The files could not be listed"
          text={`${error?.message ?? ""} Your files are safe.`}
          onRetry={() => void load()}
        />
      );
  }
  if (items.length === 0) return <NothingHere />;
  return (
    <>
      {view.value === "grid" && at.kind !== "trash" ? <ItemGrid /> : <ItemList />}
      {more && <p class="drive-more">There is more. Add a word to find less.</p>}
    </>
  );
}

function NothingHere(): JSX.Element {
  const at = place.value;
  if (at.kind === "trash") {
    return (
      <EmptyState
        icon="trash-2"
        title="The trash is empty"
        text="What you delete comes here first."
      />
    );
  }
  if (at.kind === "search") {
    return (
      <EmptyState
        icon="search"
        title="Nothing found"
        text={`No file or folder has a name like “${at.query}”.`}
      >
        <Button icon="hard-drive" onClick={() => navigate("/drive")}>My drive</Button>
      </EmptyState>
    );
  }
  const root = at.id === ROOT;
  return (
    <EmptyState
      icon="cloud-upload"
      title={root ? "Your drive is empty" : "This folder is empty"}
      text={matchMedia("(pointer: coarse)").matches
        ? "What you upload appears here, on all your devices."
        : "Drop files or whole folders anywhere on this page."}
    >
      <Button variant="primary" icon="upload" onClick={() => chooseFiles("files")}>
        Upload files
      </Button>
      <Button icon="folder-plus" onClick={() => newFolderOpen.value = true}>New folder</Button>
    </EmptyState>
  );
}

function LateSkeleton(): JSX.Element {
  const late = useSignal(false);
  useEffect(() => {
    const timer = setTimeout(() => late.value = true, SKELETON_AFTER_MS);
    return () => clearTimeout(timer);
  }, []);
  return late.value ? <SkeletonRows count={9} /> : <div />;
}

function DropHint(): JSX.Element {
  const target = listing.value.path.at(-1)?.name ?? "My drive";
  return (
    <div class="drop-hint" aria-hidden="true">
      <div class="drop-hint__card">
        <Icon name="cloud-upload" size="large" />
        Drop to upload to {target}
      </div>
    </div>
  );
}

startRouter("/drive");
startDrive();
startDropZone();
startKeyboard();
mount(<DriveApp boot={readBoot()} />);
