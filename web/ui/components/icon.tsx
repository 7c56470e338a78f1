/** One icon of the sprite. Decoration only: what it means is said by the text or label beside it. */
import type { JSX } from "preact";
import { type IconName, SPRITE_VERSION } from "../icons/icon_names.ts";

export interface IconProps {
  readonly name: IconName;
  /** 16, 20 (the default) or 28 pixels. */
  readonly size?: "small" | "large";
  readonly class?: string;
  /** Star marks are filled when set. */
  readonly filled?: boolean;
}

export function Icon({ name, size, class: extra, filled }: IconProps): JSX.Element {
  const classes = ["icon", size && `icon--${size}`, extra].filter(Boolean).join(" ");
  return (
    <svg
      class={classes}
      aria-hidden="true"
      focusable="false"
      {...(filled ? { fill: "currentColor" } : {})}
    >
      <use href={`/static/icons.svg?v=${SPRITE_VERSION}#${name}`} />
    </svg>
  );
}
