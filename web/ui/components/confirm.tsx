/**
 * Asks before something that cannot be taken back:
 *
 *     if (await confirm({ title: "Delete for good?", text: "…", action: "Delete" })) …
 *
 * `ConfirmHost` shows the question; `AppShell` contains it.
 */
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { Button } from "./button.tsx";
import { Dialog } from "./dialog.tsx";

export interface Question {
  readonly title: string;
  /** What will happen, in a sentence or two. */
  readonly text: string;
  /** The verb on the button. */
  readonly action: string;
  readonly danger?: boolean;
}

const pending = signal<{ question: Question; answer: (yes: boolean) => void } | null>(null);

/** Resolves to true when the person agrees. A second question takes the first one's place. */
export function confirm(question: Question): Promise<boolean> {
  pending.value?.answer(false);
  return new Promise((resolve) => {
    pending.value = {
      question,
      answer: (yes) => {
        pending.value = null;
        resolve(yes);
      },
    };
  });
}

export function ConfirmHost(): JSX.Element | null {
  const current = pending.value;
  if (current === null) return null;
  const { title, text, action, danger } = current.question;
  return (
    <Dialog
      title={title}
      onClose={() => current.answer(false)}
      footer={
        <>
          <Button onClick={() => current.answer(false)}>Cancel</Button>
          <Button variant={danger ? "danger" : "primary"} onClick={() => current.answer(true)}>
            {action}
          </Button>
        </>
      }
    >
      <p>{text}</p>
    </Dialog>
  );
}
