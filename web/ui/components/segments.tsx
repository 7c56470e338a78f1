/** A few choices side by side, one of them on: list or grid, light or dark. */
import type { JSX } from "preact";
import type { IconName } from "../icons/icon_names.ts";
import { Icon } from "./icon.tsx";

export interface SegmentsProps<Value extends string> {
  readonly label: string;
  readonly value: Value;
  readonly options: readonly {
    readonly value: Value;
    readonly label: string;
    readonly icon?: IconName;
    /** Only the icon is shown. */
    readonly iconOnly?: boolean;
  }[];
  readonly onChange: (value: Value) => void;
}

export function Segments<Value extends string>(props: SegmentsProps<Value>): JSX.Element {
  const { label, value, options, onChange } = props;
  return (
    <div class="segments" role="group" aria-label={label}>
      {options.map((option) => (
        <button
          key={option.value}
          type="button"
          class="segments__segment"
          aria-pressed={option.value === value ? "true" : "false"}
          {...(option.iconOnly ? { title: option.label } : {})}
          onClick={() => onChange(option.value)}
        >
          {option.icon && <Icon name={option.icon} size="small" />}
          <span class={option.iconOnly ? "unseen" : ""}>{option.label}</span>
        </button>
      ))}
    </div>
  );
}
