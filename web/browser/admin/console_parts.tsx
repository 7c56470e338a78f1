/** Pieces that several pages of the console show: heads, states, offices, events, the feed's state. */
import type { ComponentChildren, JSX } from "preact";
import type { NodeStatus, TabletStatus } from "../../../proto/cluster_status.ts";
import type { ChangeTone, NumberedChange } from "../../admin/cluster_changes.ts";
import { Badge } from "../../ui/components/badge.tsx";
import { ErrorState } from "../../ui/components/states.tsx";
import { Icon } from "../../ui/components/icon.tsx";
import { SkeletonRows } from "../../ui/components/skeleton.tsx";
import { formatDate, formatFullDate } from "../../ui/format.ts";
import type { IconName } from "../../ui/icons/icon_names.ts";
import { failure, feed, refresh, status } from "./admin_state.ts";
import { NODE_STATES, TABLET_STATES } from "./node_facts.ts";
import { formatClock } from "./spans.ts";

export interface PageHeadProps {
  readonly title: string;
  readonly detail?: ComponentChildren;
  readonly children?: ComponentChildren;
}

export function PageHead({ title, detail, children }: PageHeadProps): JSX.Element {
  return (
    <header class="console-head">
      <div class="console-head__words">
        <div class="console-head__line">
          <h1 class="console-head__title">{title}</h1>
          <FeedMark />
        </div>
        {detail && <div class="console-head__detail">{detail}</div>}
      </div>
      {children && <div class="console-head__end">{children}</div>}
    </header>
  );
}

/** Whether what is shown is the present. */
function FeedMark(): JSX.Element {
  const stale = status.value?.stale === true;
  switch (feed.value) {
    case "connecting":
      return <Badge icon="loader-circle">Connecting</Badge>;
    case "live":
      return stale
        ? <Badge tone="warning" icon="history">Last known</Badge>
        : (
          <span class="badge badge--success feed-live">
            <span class="feed-live__dot" />
            Live view
          </span>
        );
    case "polling":
      return <Badge tone="info" icon="refresh-cw">Every 2 s</Badge>;
    case "away":
      return <Badge tone="warning" icon="wifi-off">No news</Badge>;
  }
}

/** What stands in place of a page until the first status has come. */
export function Waiting(): JSX.Element {
  if (failure.value === null) return <SkeletonRows count={9} />;
  return (
    <ErrorState
      title="The cluster's status cannot be had"
      text={`${failure.value} We keep trying; the page appears by itself.`}
      onRetry={() => void refresh()}
    />
  );
}

export function NodeStateBadge({ state }: { state: NodeStatus["state"] }): JSX.Element {
  const { word, icon, tone } = NODE_STATES[state];
  return <Badge icon={icon} {...(tone === undefined ? {} : { tone })}>{word}</Badge>;
}

export function TabletStateBadge({ state }: { state: TabletStatus["state"] }): JSX.Element {
  const { word, icon, tone } = TABLET_STATES[state];
  return <Badge icon={icon} {...(tone === undefined ? {} : { tone })}>{word}</Badge>;
}

/** A link to a backend's page by its id. */
export function BackendLink({ id }: { id: number }): JSX.Element {
  const node = status.value?.nodes.find((it) => it.role === "backend" && it.id === id);
  if (node === undefined) return <span>backend/{id}</span>;
  return <a class="plain-link" href={`/admin/nodes/${node.port}`}>backend/{id}</a>;
}

const TONE_ICONS: Record<ChangeTone, IconName> = {
  success: "circle-check",
  info: "circle-dot",
  warning: "triangle-alert",
  danger: "octagon-alert",
};

export function EventList({ changes }: { changes: readonly NumberedChange[] }): JSX.Element {
  return (
    <ol class="events">
      {changes.map((change) => {
        const href = change.port === null
          ? `/admin/tablets?tablet=${change.subject}`
          : `/admin/nodes/${change.port}`;
        return (
          <li key={change.id}>
            <a class="event" href={href}>
              <Icon name={TONE_ICONS[change.tone]} size="small" class={`tone-${change.tone}`} />
              <span class="event__text">{change.text}</span>
              <time class="event__time" title={formatFullDate(change.atMs)}>
                {formatMoment(change.atMs)}
              </time>
            </a>
          </li>
        );
      })}
    </ol>
  );
}

/** The clock alone for today, with the day before it for earlier ones. */
function formatMoment(atMs: number): string {
  const today = new Date(atMs).toDateString() === new Date().toDateString();
  return today ? formatClock(atMs) : `${formatDate(atMs)} ${formatClock(atMs)}`;
}

export interface PanelProps {
  readonly title: string;
  readonly detail?: ComponentChildren;
  /** At the end of the head: a link, a switch. */
  readonly end?: ComponentChildren;
  readonly children: ComponentChildren;
  /** What is inside reaches the edges. */
  readonly flush?: boolean;
}

export function Panel({ title, detail, end, children, flush }: PanelProps): JSX.Element {
  return (
    <section class={flush ? "panel panel--flush" : "panel"}>
      <div class="panel__head">
        <h2 class="panel__title">{title}</h2>
        {detail && <span class="panel__detail">{detail}</span>}
        {end && <div class="panel__end">{end}</div>}
      </div>
      {children}
    </section>
  );
}
