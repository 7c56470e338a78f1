/** A panel that slides in from the side on small screens. */
import type { ComponentChildren, JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

export interface DrawerProps {
  readonly label: string;
  readonly onClose: () => void;
  readonly side?: "start" | "end";
  readonly children: ComponentChildren;
}

export function Drawer({ label, onClose, side = "start", children }: DrawerProps): JSX.Element {
  const drawer = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const element = drawer.current!;
    element.showModal();
    return () => element.close();
  }, []);
  return (
    <dialog
      ref={drawer}
      class={side === "end" ? "drawer drawer--end" : "drawer"}
      aria-label={label}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onMouseDown={(event) => {
        if (event.target === drawer.current) onClose();
      }}
    >
      {children}
    </dialog>
  );
}
