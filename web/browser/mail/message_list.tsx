/** The list of messages: newest first, any length, selected by box, shift and keyboard. */
import type { JSX } from "preact";
import { Avatar } from "../../ui/components/avatar.tsx";
import { Checkbox } from "../../ui/components/checkbox.tsx";
import { Icon } from "../../ui/components/icon.tsx";
import { IconButton } from "../../ui/components/icon_button.tsx";
import { MenuButton, type MenuItem } from "../../ui/components/menu.tsx";
import { SkeletonRows } from "../../ui/components/skeleton.tsx";
import { EmptyState, ErrorState } from "../../ui/components/states.tsx";
import { VirtualList } from "../../ui/components/virtual_list.tsx";
import { formatCount, formatDate, formatFullDate } from "../../ui/format.ts";
import type { Folder, Message, Person } from "./mail_api.ts";
import { askAndRemove, displayName, moveItems } from "./mail_actions.ts";
import {
  addressOf,
  archive,
  cursorId,
  folder,
  list,
  loadList,
  loadMore,
  open,
  openId,
  place,
  refresh,
  selected,
  setFlag,
  toggleSelected,
} from "./mail_state.ts";

const ROW_HEIGHT = 82;

export function MessageList(): JSX.Element {
  return (
    <section class="mail-list" aria-label="Messages">
      {selected.value.size > 0 ? <SelectionBar /> : <ListBar />}
      <div class="mail-list__body">
        <ListBody />
      </div>
    </section>
  );
}

function ListBar(): JSX.Element {
  const here = folder.value;
  const title = place.value.kind === "search" ? `Results for “${place.value.query}”` : here?.name;
  return (
    <div class="mail-bar">
      <SelectAll />
      <h1 class="mail-bar__title truncate">{here?.role === "inbox" ? "Inbox" : title}</h1>
      {here && here.total > 0 && (
        <span class="mail-bar__count muted">
          {here.unread > 0 ? `${formatCount(here.unread)} unread` : formatCount(here.total)}
        </span>
      )}
      <IconButton
        icon="refresh-cw"
        label="Look for new mail"
        onClick={() => {
          void refresh();
          void loadList({ quietly: true });
        }}
      />
      {here?.role === "trash" && here.total > 0 && (
        <MenuButton
          label="Trash"
          items={[{
            label: "Empty the trash",
            icon: "trash-2",
            danger: true,
            onSelect: () => void askAndRemove(list.value.messages.map(({ id }) => id)),
          }]}
        />
      )}
    </div>
  );
}

function SelectAll(): JSX.Element {
  const { messages } = list.value, count = selected.value.size;
  return (
    <Checkbox
      class="mail-bar__all"
      label="Select all"
      labelUnseen
      checked={count > 0 && count === messages.length}
      mixed={count > 0 && count < messages.length}
      disabled={messages.length === 0}
      onChange={() => {
        selected.value = count > 0 ? new Set() : new Set(messages.map(({ id }) => id));
      }}
    />
  );
}

function SelectionBar(): JSX.Element {
  const ids = [...selected.value];
  const chosen = list.value.messages.filter(({ id }) => selected.value.has(id));
  const unread = chosen.some(({ flags }) => !flags.includes("seen"));
  const starred = chosen.every(({ flags }) => flags.includes("flagged"));
  const items: MenuItem[] = [
    {
      label: unread ? "Mark as read" : "Mark as unread",
      icon: unread ? "mail-open" : "mail",
      onSelect: () => void setFlag(ids, "seen", unread),
    },
    {
      label: starred ? "Remove the star" : "Star",
      icon: "star",
      onSelect: () => void setFlag(ids, "flagged", !starred),
    },
    "separator",
    { heading: "Move to" },
    ...moveItems(ids),
  ];
  return (
    <div class="mail-bar mail-bar--selection" role="toolbar" aria-label="Selected messages">
      <SelectAll />
      <span class="mail-bar__title">{formatCount(ids.length)} selected</span>
      <IconButton icon="archive" label="Archive" shortcut="e" onClick={() => void archive(ids)} />
      <IconButton
        icon="trash-2"
        label="Delete"
        shortcut="#"
        onClick={() => void askAndRemove(ids)}
      />
      <IconButton
        icon={unread ? "mail-open" : "mail"}
        label={unread ? "Mark as read" : "Mark as unread"}
        onClick={() => void setFlag(ids, "seen", unread)}
      />
      <MenuButton label="More" items={items} />
    </div>
  );
}

function ListBody(): JSX.Element {
  const { messages, state, error } = list.value;
  if (state === "failed" && messages.length === 0) {
    return (
      <ErrorState
        title="The messages could not be loaded"
        text={`${error ?? ""} Nothing is lost.`}
        onRetry={() => void loadList()}
      />
    );
  }
  if (state === "loading" && messages.length === 0) return <SkeletonRows count={9} />;
  if (messages.length === 0) return <NothingHere here={folder.value} />;
  const at = messages.findIndex(({ id }) => id === (openId.value ?? cursorId.value));
  return (
    <VirtualList
      items={messages}
      rowHeight={ROW_HEIGHT}
      keyOf={({ id }) => id}
      label="Messages"
      onEndNear={() => void loadMore()}
      reveal={at === -1 ? null : at}
      row={(message) => <MessageRow message={message} />}
    />
  );
}

const EMPTY_WORDS: Record<string, { title: string; text: string }> = {
  inbox: { title: "Your inbox is empty", text: "New mail appears here by itself." },
  drafts: { title: "No drafts", text: "What you write is saved here until you send it." },
  sent: { title: "Nothing sent yet", text: "Messages that you send are kept here." },
  trash: { title: "The trash is empty", text: "What you delete stays here until you empty it." },
  junk: { title: "No junk", text: "Move unwanted mail here." },
  archive: { title: "Nothing archived", text: "Archived mail is out of the way but easy to find." },
};

function NothingHere({ here }: { here: Folder | null }): JSX.Element {
  if (place.value.kind === "search") {
    return (
      <EmptyState
        icon="search"
        title="Nothing found"
        text="Try fewer or other words. from:, to:, subject:, is:unread and has:attachment narrow it down."
      />
    );
  }
  const words = EMPTY_WORDS[here?.role ?? ""] ??
    { title: "This folder is empty", text: "Drag messages here to file them." };
  return <EmptyState icon={here?.role === "inbox" ? "inbox" : "folder-open"} {...words} />;
}

/** Who the row is about: in Sent and Drafts those it goes to. */
function peopleOf(message: Message): { words: string; person: Person | null } {
  const outgoing = message.folder === "Sent" || message.folder === "Drafts";
  if (!outgoing) return { words: displayName(message.from), person: message.from };
  const people = [...message.to, ...message.cc, ...message.bcc ?? []];
  const names = people.map((person) => person.name || person.address.replace(/@.*/, ""));
  const words = names.length === 0 ? "No recipient yet" : `To ${names.join(", ")}`;
  return { words, person: people[0] ?? null };
}

function MessageRow({ message }: { message: Message }): JSX.Element {
  const { id, subject, snippet, flags, hasAttachments, date } = message;
  const unread = !flags.includes("seen"), starred = flags.includes("flagged");
  const chosen = selected.value.has(id), { words, person } = peopleOf(message);
  const classes = [
    "mail-row",
    unread && "mail-row--unread",
    chosen && "mail-row--selected",
    cursorId.value === id && "mail-row--cursor",
  ].filter(Boolean).join(" ");
  const name = `${unread ? "Unread. " : ""}${words}: ${subject || "(no subject)"}, ${
    formatDate(date)
  }`;
  return (
    <div
      class={classes}
      draggable
      {...(openId.value === id ? { "aria-current": "true" as const } : {})}
      onDragStart={(event) => {
        const ids = chosen ? [...selected.value] : [id];
        event.dataTransfer?.setData("application/x-penncloud-messages", JSON.stringify(ids));
      }}
    >
      <span class="mail-row__choose">
        <Avatar name={person?.name || person?.address || "?"} address={person?.address ?? ""} />
        <Checkbox
          label={`Select ${subject || "message"}`}
          labelUnseen
          checked={chosen}
          onClick={(event) => {
            event.preventDefault();
            toggleSelected(id, event.shiftKey);
          }}
        />
      </span>
      <a
        class="mail-row__link"
        href={addressOf(id)}
        aria-label={name}
        onClick={(event) => {
          if (event.ctrlKey || event.metaKey) return;
          event.preventDefault();
          if (event.shiftKey) toggleSelected(id, true);
          else open(message);
        }}
      >
        <span class="mail-row__top">
          {unread && <span class="mail-row__dot" />}
          <span class="mail-row__from truncate">{words}</span>
          {flags.includes("answered") && <Icon name="reply" size="small" />}
          {flags.includes("forwarded") && <Icon name="forward" size="small" />}
          {hasAttachments && <Icon name="paperclip" size="small" />}
          <time class="mail-row__date" dateTime={date} title={formatFullDate(date)}>
            {formatDate(date)}
          </time>
        </span>
        <span class="mail-row__subject truncate">
          {place.value.kind === "search" && (
            <span class="mail-row__folder">
              {message.folder === "INBOX" ? "Inbox" : message.folder}
            </span>
          )}
          {subject || "(no subject)"}
        </span>
        <span class="mail-row__snippet truncate">{snippet || "\u00a0"}</span>
      </a>
      <span class={starred ? "mail-row__star mail-row__star--on" : "mail-row__star"}>
        <IconButton
          icon="star"
          filled={starred}
          small
          label={starred ? "Remove the star" : "Star"}
          aria-pressed={starred ? "true" : "false"}
          onClick={() => void setFlag([id], "flagged", !starred)}
        />
      </span>
      <span class="mail-row__actions">
        <IconButton icon="archive" label="Archive" small onClick={() => void archive([id])} />
        <IconButton icon="trash-2" label="Delete" small onClick={() => void askAndRemove([id])} />
        <IconButton
          icon={unread ? "mail-open" : "mail"}
          label={unread ? "Mark as read" : "Mark as unread"}
          small
          onClick={() => void setFlag([id], "seen", unread)}
        />
      </span>
    </div>
  );
}
