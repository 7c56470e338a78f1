/** A button with words. With `href` it is a link that looks like one. */
import type { ButtonHTMLAttributes, ComponentChildren, JSX } from "preact";
import type { IconName } from "../icons/icon_names.ts";
import { Icon } from "./icon.tsx";

export interface ButtonProps
  extends Omit<ButtonHTMLAttributes<HTMLButtonElement>, "size" | "icon"> {
  /** One primary button per view; danger only for what cannot be undone. Default: secondary. */
  readonly variant?: "primary" | "secondary" | "quiet" | "danger";
  readonly icon?: IconName;
  readonly small?: boolean;
  readonly wide?: boolean;
  /** Shows that work is under way and takes no further press. */
  readonly busy?: boolean;
  readonly href?: string;
  readonly children?: ComponentChildren;
}

export function Button(props: ButtonProps): JSX.Element {
  const { variant = "secondary", icon, small, wide, busy, href, children, ...rest } = props;
  const { class: extra, disabled, type, ...native } = rest;
  const classes = [
    "button",
    `button--${variant}`,
    small && "button--small",
    wide && "button--wide",
    extra,
  ].filter(Boolean).join(" ");
  const content = (
    <>
      {busy
        ? <Icon name="loader-circle" size="small" class="button__spinner" />
        : icon && <Icon name={icon} size="small" />}
      {children}
    </>
  );
  if (href !== undefined) return <a class={classes} href={href}>{content}</a>;
  return (
    <button
      type={type ?? "button"}
      class={classes}
      disabled={Boolean(disabled) || Boolean(busy)}
      aria-busy={busy ? "true" : undefined}
      {...native}
    >
      {content}
    </button>
  );
}
