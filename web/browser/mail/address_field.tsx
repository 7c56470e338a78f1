/**
 * Recipients as chips: typed, pasted, or chosen from people one knows. Comma, semicolon, Enter and
 * Tab finish an address; Backspace in an empty field takes the last one back to be mended.
 */
import type { Signal } from "@preact/signals";
import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { Icon } from "../../ui/components/icon.tsx";
import { bareAddress } from "./compose_state.ts";
import { suggest } from "./contacts.ts";

export interface AddressFieldProps {
  readonly label: string;
  readonly value: Signal<readonly string[]>;
  readonly onChange: () => void;
  /** The one that the server refused. */
  readonly bad: string | null;
  readonly autofocus?: boolean;
}

const LOOKS_RIGHT = /^[^\s@,;<>]+@[^\s@,;<>]+\.[^\s@,;<>]+$/;

/** Splits at commas and semicolons outside quotes and brackets. */
export function splitAddresses(text: string): string[] {
  return (text.match(/(?:"[^"]*"|<[^>]*>|[^,;\n"<])+/g) ?? []).map((part) => part.trim())
    .filter((part) => part !== "");
}

export function AddressField(props: AddressFieldProps): JSX.Element {
  const { label, value, onChange, bad, autofocus } = props;
  const input = useRef<HTMLInputElement>(null);
  const [typed, setTyped] = useState("");
  const [chosen, setChosen] = useState(0);
  const [focused, setFocused] = useState(false);
  const suggestions = focused ? suggest(typed, value.value) : [];
  const id = `compose-${label.toLowerCase()}`;

  const add = (texts: readonly string[]) => {
    setTyped("");
    setChosen(0);
    const fresh = texts.filter((text) => !value.value.includes(text));
    if (fresh.length === 0) return;
    value.value = [...value.value, ...fresh];
    onChange();
  };
  const removeAt = (index: number) => {
    value.value = value.value.filter((_, i) => i !== index);
    onChange();
    input.current?.focus();
  };
  const finish = () => add(splitAddresses(typed));

  const onKeyDown = (event: KeyboardEvent) => {
    const moves: Record<string, number> = { ArrowDown: 1, ArrowUp: -1 };
    const by = moves[event.key];
    if (by !== undefined && suggestions.length > 0) {
      event.preventDefault();
      setChosen((chosen + by + suggestions.length) % suggestions.length);
    } else if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) {
      finish();
    } else if (event.key === "Enter" || (event.key === "Tab" && typed.trim() !== "")) {
      if (typed.trim() === "") return;
      event.preventDefault();
      const suggestion = suggestions[chosen];
      suggestion === undefined ? finish() : add([suggestion]);
    } else if (event.key === "Escape" && suggestions.length > 0) {
      event.stopPropagation();
      setTyped("");
    } else if (event.key === "Backspace" && typed === "" && value.value.length > 0) {
      event.preventDefault();
      const last = value.value.at(-1)!;
      removeAt(value.value.length - 1);
      setTyped(bareAddress(last));
    }
  };

  return (
    <div class="recipients" onClick={() => input.current?.focus()}>
      <label class="recipients__label" for={id}>{label}</label>
      <div class="recipients__chips">
        {value.value.map((text, index) => {
          const wrong = text === bad || !LOOKS_RIGHT.test(bareAddress(text));
          return (
            <span key={text} class={wrong ? "chip chip--wrong" : "chip"} title={text}>
              {wrong && <Icon name="triangle-alert" size="small" />}
              <span class="truncate">{text.replace(/\s*<[^<>]*>$/, "").replaceAll('"', "")}</span>
              <button
                type="button"
                class="chip__remove"
                aria-label={`Remove ${text}`}
                onClick={() => removeAt(index)}
              >
                <Icon name="x" size="small" />
              </button>
            </span>
          );
        })}
        <input
          ref={input}
          id={id}
          class="recipients__input"
          type="text"
          inputMode="email"
          autocomplete="off"
          autocapitalize="off"
          spellcheck={false}
          autofocus={autofocus ?? false}
          role="combobox"
          aria-expanded={suggestions.length > 0 ? "true" : "false"}
          aria-controls={`${id}-suggestions`}
          aria-autocomplete="list"
          {...(suggestions.length > 0 ? { "aria-activedescendant": `${id}-${chosen}` } : {})}
          value={typed}
          onInput={(event) => {
            const text = event.currentTarget.value;
            setChosen(0);
            if (/[,;\n]/.test(text) && !/["<][^">]*$/.test(text)) add(splitAddresses(text));
            else setTyped(text);
          }}
          onKeyDown={onKeyDown}
          onFocus={() => setFocused(true)}
          onBlur={() => {
            setFocused(false);
            finish();
          }}
        />
      </div>
      {suggestions.length > 0 && (
        <ul class="suggestions" id={`${id}-suggestions`} role="listbox" aria-label="Suggestions">
          {suggestions.map((text, index) => (
            <li
              key={text}
              id={`${id}-${index}`}
              role="option"
              class="suggestions__item truncate"
              aria-selected={index === chosen ? "true" : "false"}
              // The press must not take the focus first, or the typed text would become a chip.
              onMouseDown={(event) => {
                event.preventDefault();
                add([text]);
              }}
            >
              {text}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
