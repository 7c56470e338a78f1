/** A question or a form in front of the page. The browser keeps the focus inside. */
import type { ComponentChildren, JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { IconButton } from "./icon_button.tsx";

export interface DialogProps {
  readonly title: string;
  /** Escape, the cross and a press beside the dialog ask for it; the caller takes it away. */
  readonly onClose: () => void;
  readonly children?: ComponentChildren;
  /** Buttons, the main one last. */
  readonly footer?: ComponentChildren;
  readonly wide?: boolean;
  /** Makes the dialog a form: Enter in a field submits it. */
  readonly onSubmit?: () => void;
}

export function Dialog(props: DialogProps): JSX.Element {
  const { title, onClose, children, footer, wide, onSubmit } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const element = dialog.current!;
    const before = document.activeElement as HTMLElement | null;
    element.showModal();
    element.querySelector<HTMLElement>("[autofocus], .dialog__body input, .dialog__foot button")
      ?.focus();
    return () => {
      element.close();
      before?.focus();
    };
  }, []);
  const content = (
    <>
      <div class="dialog__body">{children}</div>
      {footer && <div class="dialog__foot">{footer}</div>}
    </>
  );
  return (
    <dialog
      ref={dialog}
      class={wide ? "dialog dialog--wide" : "dialog"}
      aria-label={title}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onKeyDown={(event) => event.stopPropagation()}
      onMouseDown={(event) => {
        if (event.target === dialog.current) onClose();
      }}
    >
      <div class="dialog__head">
        <h2 class="dialog__title">{title}</h2>
        <IconButton icon="x" label="Close" onClick={onClose} />
      </div>
      {onSubmit === undefined ? content : (
        <form
          class="dialog__form"
          onSubmit={(event) => {
            event.preventDefault();
            onSubmit();
          }}
        >
          {content}
        </form>
      )}
    </dialog>
  );
}
