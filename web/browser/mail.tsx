/**
 * The mail application: folders on the left, the list, the message; windows for writing above them.
 * What is shown and what happens is in mail/mail_state.ts and mail/compose_state.ts.
 */
import { signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { Button } from "../ui/components/button.tsx";
import { Dialog } from "../ui/components/dialog.tsx";
import { Icon } from "../ui/components/icon.tsx";
import { TextField } from "../ui/components/text_field.tsx";
import { showToast } from "../ui/components/toast.tsx";
import { ApiFailure } from "../ui/api.ts";
import { type BootData, readBoot } from "../ui/boot.ts";
import { mount } from "../ui/mount.ts";
import { navigate, startRouter } from "../ui/router.ts";
import { AppShell, RailAction, RailHeading, RailLink } from "../ui/shell.tsx";
import { resumeDraft, startCompose, startComposing } from "./mail/compose_state.ts";
import { ComposeWindows } from "./mail/compose_window.tsx";
import { helpOpen, SHORTCUTS, startKeyboard } from "./mail/keyboard.ts";
import { folderIcon, folderLabel, setOwnAddress, writeTo } from "./mail/mail_actions.ts";
import { createFolder, type Folder } from "./mail/mail_api.ts";
import {
  folders,
  loadFolders,
  moveTo,
  openDraft,
  openId,
  place,
  startMail,
} from "./mail/mail_state.ts";
import { MessageList } from "./mail/message_list.tsx";
import { MessagePane } from "./mail/message_view.tsx";
import "./mail/mail.css";

const newFolderOpen = signal(false);

function MailApp({ boot }: { boot: BootData }): JSX.Element {
  const here = place.value;
  return (
    <AppShell
      app="mail"
      user={boot.user}
      balancer={boot.balancer}
      search={{
        placeholder: "Search mail",
        value: here.kind === "search" ? here.query : "",
        onSearch: (query) =>
          navigate(query === "" ? "/mail/inbox" : `/mail/search?q=${encodeURIComponent(query)}`),
      }}
      rail={<Rail />}
    >
      <div class={openId.value === null ? "mail" : "mail mail--reading"}>
        <MessageList />
        <MessagePane />
      </div>
      <button
        type="button"
        class="compose-button"
        aria-label="Write a message"
        onClick={() => void startCompose()}
      >
        <Icon name="pencil" />
      </button>
      <ComposeWindows />
      {helpOpen.value && <ShortcutsDialog />}
      {newFolderOpen.value && <NewFolderDialog />}
    </AppShell>
  );
}

function Rail(): JSX.Element {
  const own = folders.value.filter(({ role }) => role === null);
  return (
    <>
      <RailAction icon="pencil" label="Compose" onClick={() => void startCompose()} />
      {folders.value.filter(({ role }) => role !== null).map((one) => (
        <FolderLink key={one.id} folder={one} />
      ))}
      <RailHeading>Folders</RailHeading>
      {own.map((one) => <FolderLink key={one.id} folder={one} />)}
      <button type="button" class="rail-link" onClick={() => newFolderOpen.value = true}>
        <Icon name="folder-plus" />
        <span class="truncate">New folder</span>
      </button>
    </>
  );
}

const dropTarget = signal<string | null>(null);
const DRAGGED = "application/x-penncloud-messages";

function FolderLink({ folder }: { folder: Folder }): JSX.Element {
  const { id, role, unread, total } = folder, here = place.value;
  const takesMail = role !== "drafts" && role !== "sent";
  return (
    <RailLink
      icon={folderIcon(folder)}
      label={folderLabel(folder)}
      href={`/mail/${encodeURIComponent(id)}`}
      current={here.kind === "folder" && here.folder === id}
      count={role === "drafts" ? total : unread}
      dropping={dropTarget.value === id}
      onDragOver={(event) => {
        if (!takesMail || !event.dataTransfer?.types.includes(DRAGGED)) return;
        event.preventDefault();
        dropTarget.value = id;
      }}
      onDragLeave={() => dropTarget.value = null}
      onDrop={(event) => {
        dropTarget.value = null;
        const ids = event.dataTransfer?.getData(DRAGGED);
        if (!ids) return;
        event.preventDefault();
        void moveTo(JSON.parse(ids) as string[], id, `moved to ${folderLabel(folder)}`);
      }}
    />
  );
}

function NewFolderDialog(): JSX.Element {
  const name = useSignal("");
  const close = () => newFolderOpen.value = false;
  const create = async () => {
    try {
      const made = await createFolder(name.value);
      close();
      await loadFolders();
      navigate(`/mail/${encodeURIComponent(made.id)}`);
    } catch (error) {
      const message = error instanceof ApiFailure ? error.message : "The folder was not made.";
      showToast({ message, icon: "triangle-alert" });
    }
  };
  return (
    <Dialog
      title="New folder"
      onClose={close}
      onSubmit={() => void create()}
      footer={
        <>
          <Button onClick={close}>Cancel</Button>
          <Button variant="primary" type="submit">Create</Button>
        </>
      }
    >
      <TextField
        label="Name"
        name="folder-name"
        maxLength={80}
        required
        autofocus
        onInput={(event) => name.value = event.currentTarget.value}
      />
    </Dialog>
  );
}

function ShortcutsDialog(): JSX.Element {
  return (
    <Dialog title="Keys" onClose={() => helpOpen.value = false}>
      <dl class="shortcuts">
        {SHORTCUTS.map(([keys, meaning]) => (
          <>
            <dt>{keys.split(/ (?:\/|or) /).map((key) => <kbd key={key}>{key}</kbd>)}</dt>
            <dd>{meaning}</dd>
          </>
        ))}
      </dl>
    </Dialog>
  );
}

const boot = readBoot();
setOwnAddress(boot.user.address);
openDraft.run = (id) => void resumeDraft(id);
startRouter("/mail");
// `/mail?to=ann@example.org` is what a link to write to somebody looks like.
const to = new URLSearchParams(location.search).get("to");
if (location.pathname === "/mail") navigate("/mail/inbox", { replace: true });
startMail();
startComposing(boot.user.username);
startKeyboard();
mount(<MailApp boot={boot} />);
if (to) writeTo(to);
