/** A button that shows only an icon. Its label is read aloud and shown as a tooltip. */
import type { ButtonHTMLAttributes, JSX } from "preact";
import type { IconName } from "../icons/icon_names.ts";
import { Icon } from "./icon.tsx";
import { Tooltip } from "./tooltip.tsx";

export interface IconButtonProps
  extends Omit<ButtonHTMLAttributes<HTMLButtonElement>, "size" | "icon" | "label"> {
  readonly icon: IconName;
  /** What it does, in two or three words: "Delete", "Reply to all". */
  readonly label: string;
  readonly small?: boolean;
  readonly filled?: boolean;
  /** A key that does the same, shown in the tooltip. */
  readonly shortcut?: string;
  readonly href?: string;
}

export function IconButton(props: IconButtonProps): JSX.Element {
  const { icon, label, small, filled, shortcut, href, class: extra, type, ...native } = props;
  const classes = ["icon-button", small && "icon-button--small", extra].filter(Boolean).join(" ");
  const content = <Icon name={icon} {...(filled === undefined ? {} : { filled })} />;
  const tip = shortcut === undefined ? label : `${label} (${shortcut})`;
  return (
    <Tooltip text={tip}>
      {href === undefined
        ? (
          <button type={type ?? "button"} class={classes} aria-label={label} {...native}>
            {content}
          </button>
        )
        : <a class={classes} href={href} aria-label={label}>{content}</a>}
    </Tooltip>
  );
}
