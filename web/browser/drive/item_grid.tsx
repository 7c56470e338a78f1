/** Items as tiles with thumbnails; a rubber band drawn from an empty spot selects what it touches. */
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Checkbox } from "../../ui/components/checkbox.tsx";
import { MenuButton } from "../../ui/components/menu.tsx";
import { VirtualList } from "../../ui/components/virtual_list.tsx";
import { formatDate, formatSize } from "../../ui/format.ts";
import type { Item } from "./drive_api.ts";
import { cursor, selected, selectOnly, selectSet, shown, toggle } from "./drive_state.ts";
import { itemHandlers, itemMarks, ItemName, menuFor, Thumbnail } from "./item_parts.tsx";
import { columns } from "./keyboard.ts";

const ROW_HEIGHT = 204;
const TILE_MIN = 164;
const PADDING = 12;

interface Band {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export function ItemGrid(): JSX.Element {
  const grid = useRef<HTMLDivElement>(null);
  const band = useSignal<Band | null>(null);
  useLayoutEffect(() => {
    const measure = () => {
      const width = grid.current!.clientWidth - 2 * PADDING;
      columns.value = Math.max(2, Math.floor(width / TILE_MIN));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(grid.current!);
    return () => observer.disconnect();
  }, []);

  const across = columns.value, items = shown.value;
  const rows = Array.from(
    { length: Math.ceil(items.length / across) },
    (_, row) => items.slice(row * across, (row + 1) * across),
  );
  const at = items.findIndex(({ id }) => id === cursor.value);

  /** Rows and tiles are equally large, so a rectangle says which items it touches. */
  const touched = (box: Band): Set<string> => {
    const tile = (grid.current!.clientWidth - 2 * PADDING) / across;
    const column = (x: number) =>
      Math.max(0, Math.min(across - 1, Math.floor((x - PADDING) / tile)));
    const found = new Set<string>();
    const lastRow = Math.floor((box.top + box.height) / ROW_HEIGHT);
    for (let row = Math.max(0, Math.floor(box.top / ROW_HEIGHT)); row <= lastRow; row++) {
      for (let x = column(box.left); x <= column(box.left + box.width); x++) {
        const item = items[row * across + x];
        if (item !== undefined) found.add(item.id);
      }
    }
    return found;
  };

  const startBand = (event: PointerEvent) => {
    const target = event.target as Element;
    if (event.button !== 0 || event.pointerType !== "mouse" || target.closest(".drive-tile")) {
      return;
    }
    const scroller = grid.current!.querySelector(".virtual-list")!;
    const box = scroller.getBoundingClientRect();
    // The scrollbar belongs to the browser.
    if (event.clientX > box.left + scroller.clientWidth) return;
    const point = (one: PointerEvent) => ({
      x: one.clientX - box.left,
      y: one.clientY - box.top + scroller.scrollTop,
    });
    const start = point(event);
    const before = event.ctrlKey || event.metaKey ? selected.value : new Set<string>();
    selectOnly(null);
    selectSet(before);
    const move = (next: PointerEvent) => {
      const { x, y } = point(next);
      const drawn = {
        left: Math.min(x, start.x),
        top: Math.min(y, start.y),
        width: Math.abs(x - start.x),
        height: Math.abs(y - start.y),
      };
      if (band.value === null && drawn.width + drawn.height < 6) return;
      band.value = drawn;
      selectSet(new Set([...before, ...touched(drawn)]));
    };
    const end = () => {
      band.value = null;
      removeEventListener("pointermove", move);
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end, { once: true });
    addEventListener("pointercancel", end, { once: true });
  };

  const drawn = band.value;
  const scrolled = grid.current?.querySelector(".virtual-list")?.scrollTop ?? 0;
  return (
    <div class="drive-grid" ref={grid} onPointerDown={startBand}>
      <VirtualList
        items={rows}
        rowHeight={ROW_HEIGHT}
        keyOf={(row) => row[0]!.id}
        row={(row) => (
          <div class="drive-grid__row" style={{ "--columns": String(across) }}>
            {row.map((item) => <Tile key={item.id} item={item} />)}
          </div>
        )}
        label="Files and folders"
        reveal={at < 0 ? null : Math.floor(at / across)}
      />
      {drawn && (
        <div
          class="rubber-band"
          style={{
            left: `${drawn.left}px`,
            top: `${drawn.top - scrolled}px`,
            width: `${drawn.width}px`,
            height: `${drawn.height}px`,
          }}
        />
      )}
    </div>
  );
}

function Tile({ item }: { item: Item }): JSX.Element {
  const size = item.type === "folder" ? "Folder" : formatSize(item.size);
  return (
    <div class={itemMarks(item, "drive-tile")} {...itemHandlers(item)}>
      <div class="drive-tile__picture">
        <Thumbnail item={item} />
      </div>
      <div class="drive-tile__text">
        <ItemName item={item} />
        <span class="drive-tile__detail truncate">{size} · {formatDate(item.modified)}</span>
      </div>
      <span class="drive-tile__check">
        <Checkbox
          label={`Select ${item.name}`}
          labelUnseen
          checked={selected.value.has(item.id)}
          onChange={() => toggle(item.id)}
        />
      </span>
      <span class="drive-tile__menu">
        <MenuButton label={`Actions for ${item.name}`} items={menuFor([item])} small />
      </span>
    </div>
  );
}
