/**
 * Short messages at the foot of the page, with an action such as Undo:
 *
 *     showToast({ message: "Moved to Trash", action: { label: "Undo", run: restore } });
 *
 * At most three at once; they go by themselves, but stay while the pointer or the keyboard is on
 * them. `ToastHost` shows them; `AppShell` contains it.
 */
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { IconName } from "../icons/icon_names.ts";
import { Icon } from "./icon.tsx";
import { IconButton } from "./icon_button.tsx";

export interface Toast {
  readonly message: string;
  readonly icon?: IconName;
  readonly action?: { readonly label: string; readonly run: () => void };
  /** Default 6 seconds. */
  readonly durationMs?: number;
  /** Called once when the toast goes without its action having been chosen. */
  readonly onGone?: () => void;
}

interface ShownToast extends Toast {
  readonly id: number;
}

const VISIBLE_MAX = 3;
const toasts = signal<readonly ShownToast[]>([]);
let lastId = 0;

/** @returns takes the toast away early */
export function showToast(toast: Toast): () => void {
  const id = ++lastId;
  const all = [...toasts.value, { ...toast, id }];
  for (const old of all.slice(0, -VISIBLE_MAX)) old.onGone?.();
  toasts.value = all.slice(-VISIBLE_MAX);
  return () => dismiss(id, false);
}

function dismiss(id: number, acted: boolean): void {
  const toast = toasts.value.find((one) => one.id === id);
  toasts.value = toasts.value.filter((one) => one.id !== id);
  if (!acted) toast?.onGone?.();
}

export function ToastHost(): JSX.Element {
  const host = useRef<HTMLDivElement>(null);
  return (
    <div class="toasts" role="status" aria-live="polite" ref={host}>
      {toasts.value.map((toast) => <OneToast key={toast.id} toast={toast} />)}
    </div>
  );
}

function OneToast({ toast }: { toast: ShownToast }): JSX.Element {
  const [held, setHeld] = useState(false);
  useEffect(() => {
    if (held) return;
    const timer = setTimeout(() => dismiss(toast.id, false), toast.durationMs ?? 6000);
    return () => clearTimeout(timer);
  }, [held]);
  return (
    <div
      class="toast"
      onPointerEnter={() => setHeld(true)}
      onPointerLeave={() => setHeld(false)}
      onFocusIn={() => setHeld(true)}
      onFocusOut={() => setHeld(false)}
    >
      {toast.icon && <Icon name={toast.icon} />}
      <span class="toast__message">{toast.message}</span>
      {toast.action && (
        <button
          type="button"
          class="toast__action"
          onClick={() => {
            dismiss(toast.id, true);
            toast.action!.run();
          }}
        >
          {toast.action.label}
        </button>
      )}
      <IconButton icon="x" label="Dismiss" small onClick={() => dismiss(toast.id, false)} />
    </div>
  );
}
