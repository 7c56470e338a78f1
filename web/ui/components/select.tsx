/** One choice out of a few, with the system's own list. */
import type { AllHTMLAttributes, JSX } from "preact";
import { Icon } from "./icon.tsx";

export interface SelectProps
  extends Omit<AllHTMLAttributes<HTMLSelectElement>, "label" | "role" | "size" | "value"> {
  /** Read aloud; write it beside the control as well where it is not obvious. */
  readonly label: string;
  readonly value: string;
  readonly options: readonly { readonly value: string; readonly label: string }[];
}

export function Select(
  { label, options, value, class: extra, ...native }: SelectProps,
): JSX.Element {
  return (
    <span class={["select", extra].filter(Boolean).join(" ")}>
      <select class="input" aria-label={label} value={value} {...(native as object)}>
        {options.map((option) => (
          <option key={option.value} value={option.value} selected={option.value === value}>
            {option.label}
          </option>
        ))}
      </select>
      <Icon name="chevron-down" size="small" />
    </span>
  );
}
