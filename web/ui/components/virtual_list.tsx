/**
 * A list of any length that keeps only the visible rows in the page. Rows are equally high, so that
 * ten thousand cost as much as twenty. Asks for more when its end comes near.
 */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

const SPARE_ROWS = 8;

export interface VirtualListProps<Item> {
  readonly items: readonly Item[];
  readonly rowHeight: number;
  readonly keyOf: (item: Item) => string;
  readonly row: (item: Item, index: number) => ComponentChildren;
  readonly label: string;
  /** Called when fewer than a screen of rows is left below; may be called again while loading. */
  readonly onEndNear?: () => void;
  /** The row to keep in view, such as the one the keyboard is on. */
  readonly reveal?: number | null;
  readonly role?: "list" | "listbox" | "grid";
  readonly class?: string;
}

export function VirtualList<Item>(props: VirtualListProps<Item>): JSX.Element {
  const { items, rowHeight, keyOf, row, label, onEndNear, reveal, role = "list" } = props;
  const list = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 800 });

  useLayoutEffect(() => {
    const element = list.current!;
    const measure = () => setView({ top: element.scrollTop, height: element.clientHeight });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, []);

  useEffect(() => {
    if (items.length * rowHeight - view.top < 2 * view.height) onEndNear?.();
  }, [items.length, view.top, view.height]);

  useEffect(() => {
    const element = list.current!;
    if (reveal === null || reveal === undefined || reveal < 0) return;
    const top = reveal * rowHeight, bottom = top + rowHeight;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (bottom > element.scrollTop + element.clientHeight) {
      element.scrollTop = bottom - element.clientHeight;
    }
  }, [reveal]);

  const first = Math.max(0, Math.floor(view.top / rowHeight) - SPARE_ROWS);
  const last = Math.min(items.length, Math.ceil((view.top + view.height) / rowHeight) + SPARE_ROWS);
  return (
    <div
      ref={list}
      class={["virtual-list", props.class].filter(Boolean).join(" ")}
      role={role}
      aria-label={label}
    >
      <div class="virtual-list__canvas" style={{ height: `${items.length * rowHeight}px` }}>
        {items.slice(first, last).map((item, offset) => {
          const index = first + offset;
          return (
            <div
              key={keyOf(item)}
              class="virtual-list__row"
              {...(role === "list" ? { role: "listitem" as const } : {})}
              style={{ height: `${rowHeight}px`, transform: `translateY(${index * rowHeight}px)` }}
            >
              {row(item, index)}
            </div>
          );
        })}
      </div>
    </div>
  );
}
