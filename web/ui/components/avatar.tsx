/** A person as initials on a colour that stays the same for the same address. */
import type { JSX } from "preact";

export interface AvatarProps {
  readonly name: string;
  /** What the colour is made from, when the name may vary. Default: the name. */
  readonly address?: string;
  readonly size?: "small" | "large";
}

export function Avatar({ name, address, size }: AvatarProps): JSX.Element {
  const classes = ["avatar", `avatar--${hueOf(address ?? name)}`, size && `avatar--${size}`];
  return <span class={classes.filter(Boolean).join(" ")} aria-hidden="true">{initials(name)}</span>;
}

/** `AL` for "Ada Lovelace", `A` for "ada@example.org". */
export function initials(name: string): string {
  const words = name.replace(/@.*$/, "").split(/[\s._-]+/).filter((word) =>
    /[\p{L}\p{N}]/u.test(word)
  );
  const letters = words.map((word) => [...word.replace(/^[^\p{L}\p{N}]+/u, "")][0] ?? "");
  const chosen = letters.length > 1 ? [letters[0], letters[letters.length - 1]] : letters;
  return chosen.join("").toUpperCase() || "?";
}

function hueOf(text: string): number {
  let hash = 2166136261;
  for (const char of text.toLowerCase()) hash = Math.imul(hash ^ char.codePointAt(0)!, 16777619);
  return (hash >>> 0) % 8 + 1;
}
