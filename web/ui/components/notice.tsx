/** A message that belongs to the page: what happened, whether anything was lost, what to do. */
import type { ComponentChildren, JSX } from "preact";
import { Icon } from "./icon.tsx";

const ICONS = {
  info: "info",
  success: "circle-check",
  warning: "triangle-alert",
  danger: "octagon-alert",
} as const;

export interface NoticeProps {
  readonly tone?: keyof typeof ICONS;
  readonly children: ComponentChildren;
}

export function Notice({ tone = "info", children }: NoticeProps): JSX.Element {
  return (
    <div class={`notice notice--${tone}`} role={tone === "danger" ? "alert" : "status"}>
      <Icon name={ICONS[tone]} />
      <div>{children}</div>
    </div>
  );
}
