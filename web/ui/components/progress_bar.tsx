/** How far something is, from 0 to 1; null while nobody knows. */
import type { JSX } from "preact";

export interface ProgressBarProps {
  readonly value: number | null;
  readonly label: string;
  readonly tone?: "success" | "warning" | "danger";
}

export function ProgressBar({ value, label, tone }: ProgressBarProps): JSX.Element {
  return (
    <progress
      class={tone === undefined ? "progress" : `progress progress--${tone}`}
      max={1}
      aria-label={label}
      {...(value === null ? {} : { value: Math.max(0, Math.min(1, value)) })}
    />
  );
}
