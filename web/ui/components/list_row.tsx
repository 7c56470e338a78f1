/** One line of a list: something in front, a title with a detail, actions at the end. */
import type { ComponentChildren, JSX } from "preact";

export interface ListRowProps {
  readonly start?: ComponentChildren;
  readonly title: ComponentChildren;
  readonly detail?: ComponentChildren;
  readonly end?: ComponentChildren;
  readonly href?: string;
  readonly current?: boolean;
}

export function ListRow({ start, title, detail, end, href, current }: ListRowProps): JSX.Element {
  const content = (
    <>
      {start}
      <div class="list-row__main">
        <div class="list-row__title truncate">{title}</div>
        {detail && <div class="list-row__detail truncate">{detail}</div>}
      </div>
      {end && <div class="list-row__end">{end}</div>}
    </>
  );
  const marks = current ? { "aria-current": "true" as const } : {};
  return href === undefined
    ? <div class="list-row" {...marks}>{content}</div>
    : <a class="list-row list-row--interactive" href={href} {...marks}>{content}</a>;
}
