/** A labelled line of text, with a hint and, when something is wrong, what it is. */
import type { AllHTMLAttributes, ComponentChildren, JSX } from "preact";
import { Icon } from "./icon.tsx";

export interface TextFieldProps
  extends Omit<AllHTMLAttributes<HTMLInputElement>, "label" | "name" | "role"> {
  readonly label: string;
  /** Names the field in the form and, with it, ties label, hint and error together. */
  readonly name: string;
  readonly hint?: ComponentChildren;
  readonly error?: string | null;
  /** Shown behind what is typed, such as a mail domain. */
  readonly suffix?: string;
}

export function TextField(props: TextFieldProps): JSX.Element {
  const { label, name, hint, error, suffix, class: extra, ...native } = props;
  const id = native.id ?? `field-${name}`;
  const about = [hint ? `${id}-hint` : "", error ? `${id}-error` : ""].filter(Boolean).join(" ");
  const input = (
    <input
      {...(native as object)}
      id={id}
      name={name}
      class={["input", extra].filter(Boolean).join(" ")}
      {...(error ? { "aria-invalid": "true" as const } : {})}
      {...(about === "" ? {} : { "aria-describedby": about })}
    />
  );
  return (
    <div class="field">
      <label class="field__label" for={id as string}>{label}</label>
      {suffix === undefined ? input : (
        <div class="input-with-suffix">
          {input}
          <span class="input-with-suffix__suffix">{suffix}</span>
        </div>
      )}
      {error && (
        <p class="field__error" id={`${id}-error`}>
          <Icon name="triangle-alert" size="small" />
          <span>{error}</span>
        </p>
      )}
      {hint && <p class="field__hint" id={`${id}-hint`}>{hint}</p>}
    </div>
  );
}
