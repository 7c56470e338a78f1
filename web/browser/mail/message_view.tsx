/** One message: who, when, what, and what can be done about it. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Avatar } from "../../ui/components/avatar.tsx";
import { Badge, type BadgeProps } from "../../ui/components/badge.tsx";
import { Button } from "../../ui/components/button.tsx";
import { Icon } from "../../ui/components/icon.tsx";
import { IconButton } from "../../ui/components/icon_button.tsx";
import { MenuButton } from "../../ui/components/menu.tsx";
import { Notice } from "../../ui/components/notice.tsx";
import { Skeleton } from "../../ui/components/skeleton.tsx";
import { EmptyState, ErrorState } from "../../ui/components/states.tsx";
import { formatDate, formatFullDate, formatSize, formatTime, plural } from "../../ui/format.ts";
import type { IconName } from "../../ui/icons/icon_names.ts";
import { navigate } from "../../ui/router.ts";
import {
  askAndRemove,
  displayName,
  isOwn,
  moveItems,
  own,
  startAnswer,
  writeTo,
} from "./mail_actions.ts";
import {
  type Attachment,
  attachmentAddress,
  frameAddress,
  type FullMessage,
  type Person,
  rawAddress,
  type RecipientReport,
} from "./mail_api.ts";
import { addressOf, archive, loadMessage, openMessage, setFlag } from "./mail_state.ts";
import { PlainText } from "./plain_text.tsx";
import { hasOthers, personName, personText } from "./quote.ts";

export function MessagePane(): JSX.Element {
  const shown = openMessage.value;
  return (
    <section class="mail-message" aria-label="Message">
      {shown.state === "none" && (
        <EmptyState icon="mail-open" title="No message open" text="Choose one from the list." />
      )}
      {shown.state === "loading" && <Loading />}
      {shown.state === "failed" && (
        <>
          <BackBar />
          <ErrorState
            title="This message cannot be shown"
            text={shown.error}
            onRetry={() => void loadMessage(shown.id)}
          />
        </>
      )}
      {shown.state === "ready" && <MessageView key={shown.message.id} message={shown.message} />}
    </section>
  );
}

const goBack = () => navigate(addressOf());

function BackBar({ children }: { children?: ComponentChildren }): JSX.Element {
  return (
    <div class="mail-bar" role="toolbar" aria-label="Message">
      <span class="mail-bar__back">
        <IconButton icon="arrow-left" label="Back to the list" shortcut="u" onClick={goBack} />
      </span>
      {children}
    </div>
  );
}

function Loading(): JSX.Element {
  return (
    <>
      <BackBar />
      <div class="message" role="status" aria-label="Loading">
        <div class="message__loading">
          <Skeleton width="medium" />
          <Skeleton width="short" />
          <Skeleton />
          <Skeleton />
          <Skeleton width="medium" />
        </div>
      </div>
    </>
  );
}

function MessageView({ message }: { message: FullMessage }): JSX.Element {
  const { id, flags } = message, ids = [id];
  const starred = flags.includes("flagged"), others = hasOthers(message, own());
  const article = useRef<HTMLElement>(null);
  useEffect(() => {
    article.current?.parentElement?.scrollTo(0, 0);
  }, [id]);
  return (
    <>
      <BackBar>
        <IconButton icon="archive" label="Archive" shortcut="e" onClick={() => void archive(ids)} />
        <IconButton
          icon="trash-2"
          label="Delete"
          shortcut="#"
          onClick={() => void askAndRemove(ids)}
        />
        <IconButton
          icon="mail"
          label="Mark as unread"
          onClick={() => {
            void setFlag(ids, "seen", false);
            goBack();
          }}
        />
        <MenuButton label="Move to" icon="folder-input" align="start" items={moveItems(ids)} />
        <span class="mail-bar__gap" />
        <span class="mail-bar__answers">
          <IconButton
            icon="reply"
            label="Reply"
            shortcut="r"
            onClick={() => startAnswer("reply", message)}
          />
          {others && (
            <IconButton
              icon="reply-all"
              label="Reply to all"
              shortcut="a"
              onClick={() => startAnswer("reply-all", message)}
            />
          )}
          <IconButton
            icon="forward"
            label="Forward"
            shortcut="f"
            onClick={() => startAnswer("forward", message)}
          />
        </span>
        <MenuButton
          label="More"
          items={[
            {
              label: starred ? "Remove the star" : "Star",
              icon: "star",
              shortcut: "s",
              onSelect: () => void setFlag(ids, "flagged", !starred),
            },
            { label: "Download as a file", icon: "download", href: rawAddress(id) },
          ]}
        />
      </BackBar>
      <article class="message" ref={article}>
        <div class="message__head">
          <h1 class="message__subject">{message.subject || "(no subject)"}</h1>
          <span class={starred ? "message__star message__star--on" : "message__star"}>
            <IconButton
              icon="star"
              filled={starred}
              label={starred ? "Remove the star" : "Star"}
              aria-pressed={starred ? "true" : "false"}
              onClick={() => void setFlag(ids, "flagged", !starred)}
            />
          </span>
        </div>
        <People message={message} />
        {message.recipients && <Delivery recipients={message.recipients} />}
        <Body message={message} />
        <Attachments message={message} />
        <div class="message__answers">
          <Button icon="reply" onClick={() => startAnswer("reply", message)}>Reply</Button>
          {others && (
            <Button icon="reply-all" onClick={() => startAnswer("reply-all", message)}>
              Reply to all
            </Button>
          )}
          <Button icon="forward" onClick={() => startAnswer("forward", message)}>Forward</Button>
        </div>
      </article>
    </>
  );
}

function People({ message }: { message: FullMessage }): JSX.Element {
  const [open, setOpen] = useState(false);
  const { from, to, cc, bcc = [], date } = message;
  const everybody = [...to, ...cc, ...bcc];
  const short = (person: Person) =>
    isOwn(person.address) ? "me" : person.name || person.address.replace(/@.*/, "");
  const names = everybody.slice(0, 4).map(short).join(", ");
  const more = everybody.length > 4
    ? ` and ${plural(everybody.length - 4, "other", "others")}`
    : "";
  const today = formatDate(date),
    when = today === formatTime(date) ? today : `${today}, ${formatTime(date)}`;
  return (
    <div class="people">
      <Avatar name={personName(from)} address={from?.address ?? ""} />
      <div class="people__main">
        <div class="people__from">
          <span class="people__name truncate">{displayName(from)}</span>
          {from && displayName(from) !== from.address && (
            <button
              type="button"
              class="people__address truncate"
              onClick={() => writeTo(personText(from))}
            >
              {from.address}
            </button>
          )}
        </div>
        <button
          type="button"
          class="people__to"
          aria-expanded={open ? "true" : "false"}
          onClick={() => setOpen(!open)}
        >
          <span class="truncate">
            {everybody.length === 0 ? "to nobody" : `to ${names}${more}`}
          </span>
          <Icon name={open ? "chevron-up" : "chevron-down"} size="small" />
        </button>
      </div>
      <time class="people__date" dateTime={date} title={formatFullDate(date)}>{when}</time>
      {open && (
        <dl class="people__all">
          {([["From", from === null ? [] : [from]], ["To", to], ["Cc", cc], ["Bcc", bcc]] as const)
            .filter(([, list]) => list.length > 0)
            .map(([label, list]) => (
              <>
                <dt>{label}</dt>
                <dd>{list.map(personText).join(", ")}</dd>
              </>
            ))}
          <dt>Date</dt>
          <dd>{formatFullDate(date)}</dd>
        </dl>
      )}
    </div>
  );
}

const STATUS: Record<
  RecipientReport["status"],
  { words: string; icon: IconName; tone?: NonNullable<BadgeProps["tone"]> }
> = {
  queued: { words: "on its way", icon: "clock" },
  delayed: { words: "delayed", icon: "hourglass", tone: "warning" },
  delivered: { words: "delivered", icon: "check", tone: "success" },
  failed: { words: "not delivered", icon: "triangle-alert", tone: "danger" },
};

/** Shown while something is pending or went wrong; silence means that all is well. */
function Delivery({ recipients }: { recipients: readonly RecipientReport[] }): JSX.Element | null {
  const open = recipients.filter(({ status }) => status !== "delivered");
  if (open.length === 0) {
    return recipients.length === 0 ? null : (
      <div class="delivery">
        <Badge tone="success" icon="check-check">Delivered</Badge>
      </div>
    );
  }
  return (
    <ul class="delivery" aria-label="Delivery">
      {open.map(({ address, status, detail }) => (
        <li key={address}>
          <Badge
            {...(STATUS[status].tone ? { tone: STATUS[status].tone } : {})}
            icon={STATUS[status].icon}
          >
            {address}: {STATUS[status].words}
          </Badge>
          {detail && <p class="muted">{detail}.</p>}
        </li>
      ))}
    </ul>
  );
}

function Body({ message }: { message: FullMessage }): JSX.Element {
  const [images, setImages] = useState(false);
  if (message.html === "") return <PlainText text={message.text} />;
  return (
    <>
      {message.remoteImages > 0 && !images && (
        <div class="message__images">
          <Notice>
            {plural(message.remoteImages, "picture", "pictures")}{" "}
            from elsewhere not shown, so that the sender does not learn that you read this.{" "}
            <button type="button" class="link-button" onClick={() => setImages(true)}>
              Show pictures
            </button>
          </Notice>
        </div>
      )}
      <HtmlFrame id={message.id} images={images} />
    </>
  );
}

/**
 * The mail's HTML in a frame that may run nothing. It has our origin, so that its height can be
 * measured, but no scripts, by the frame's sandbox and again by the document's own policy.
 */
function HtmlFrame({ id, images }: { id: string; images: boolean }): JSX.Element {
  const [height, setHeight] = useState(200);
  const observer = useRef<ResizeObserver | null>(null);
  useEffect(() => () => observer.current?.disconnect(), []);
  return (
    <iframe
      class="message__frame"
      title="Message text"
      src={frameAddress(id, images)}
      sandbox="allow-same-origin allow-popups allow-popups-to-escape-sandbox"
      style={{ height: `${height}px` }}
      onLoad={(event) => {
        const inside = event.currentTarget.contentDocument;
        if (!inside?.body) return;
        const measure = () => setHeight(Math.min(20_000, inside.documentElement.scrollHeight));
        observer.current?.disconnect();
        observer.current = new ResizeObserver(measure);
        observer.current.observe(inside.body);
        measure();
      }}
    />
  );
}

const TYPE_ICONS: readonly [RegExp, IconName][] = [
  [/^image\//, "file-image"],
  [/^audio\//, "file-audio"],
  [/^video\//, "file-video-camera"],
  [/zip|compressed|tar/, "file-archive"],
  [/sheet|excel|csv/, "file-spreadsheet"],
  [/^text\/|pdf|word|document/, "file-text"],
];

function Attachments({ message }: { message: FullMessage }): JSX.Element | null {
  const shown = message.attachments.filter(({ inline }) => !inline);
  if (shown.length === 0) return null;
  return (
    <section class="attachments" aria-label="Attachments">
      <h2 class="attachments__title">{plural(shown.length, "attachment", "attachments")}</h2>
      <ul class="attachments__list">
        {shown.map((attachment) => (
          <AttachmentCard key={attachment.n} id={message.id} attachment={attachment} />
        ))}
      </ul>
    </section>
  );
}

const PREVIEW_BYTES_MAX = 5_000_000;

function AttachmentCard({ id, attachment }: { id: string; attachment: Attachment }): JSX.Element {
  const { n, filename, contentType, size } = attachment;
  const picture = /^image\/(png|jpeg|gif|webp|avif)$/.test(contentType) && size < PREVIEW_BYTES_MAX;
  const icon = TYPE_ICONS.find(([pattern]) => pattern.test(contentType))?.[1] ?? "file";
  return (
    <li class="attachment-card">
      <a
        class="attachment-card__open"
        href={attachmentAddress(id, n)}
        target="_blank"
        rel="noopener"
        title={filename}
      >
        <span class="attachment-card__preview">
          {picture
            ? <img src={attachmentAddress(id, n)} alt="" loading="lazy" />
            : <Icon name={icon} size="large" />}
        </span>
        <span class="attachment-card__name truncate">{filename}</span>
        <span class="muted">{formatSize(size)}</span>
      </a>
      <a
        class="icon-button icon-button--small attachment-card__download"
        href={attachmentAddress(id, n, true)}
        download={filename}
        aria-label={`Download ${filename}`}
      >
        <Icon name="download" size="small" />
      </a>
    </li>
  );
}
