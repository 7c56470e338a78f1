/** A box to tick, with its words beside it or, for lists, only read aloud. */
import type { AllHTMLAttributes, JSX } from "preact";

export interface CheckboxProps
  extends Omit<AllHTMLAttributes<HTMLInputElement>, "label" | "role" | "type"> {
  readonly label: string;
  /** The label is read aloud but not shown. */
  readonly labelUnseen?: boolean;
  /** Neither on nor off: some of the things below are ticked. */
  readonly mixed?: boolean;
}

export function Checkbox(props: CheckboxProps): JSX.Element {
  const { label, labelUnseen, mixed, class: extra, ...native } = props;
  return (
    <label class={["checkbox", extra].filter(Boolean).join(" ")}>
      <input
        type="checkbox"
        class="checkbox__box"
        ref={(element) => {
          if (element) element.indeterminate = mixed ?? false;
        }}
        {...(native as object)}
      />
      <span class={labelUnseen ? "unseen" : ""}>{label}</span>
    </label>
  );
}
