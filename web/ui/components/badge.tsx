/** A word or number in a pill. Where colour carries meaning, give an icon or word with it. */
import type { ComponentChildren, JSX } from "preact";
import type { IconName } from "../icons/icon_names.ts";
import { Icon } from "./icon.tsx";

export interface BadgeProps {
  readonly tone?: "accent" | "success" | "warning" | "danger" | "info";
  readonly icon?: IconName;
  readonly children: ComponentChildren;
}

export function Badge({ tone, icon, children }: BadgeProps): JSX.Element {
  return (
    <span class={tone === undefined ? "badge" : `badge badge--${tone}`}>
      {icon && <Icon name={icon} />}
      {children}
    </span>
  );
}
