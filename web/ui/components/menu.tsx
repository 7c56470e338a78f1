/**
 * A menu at a button or at the pointer. Arrow keys move, Enter chooses, Escape and a press elsewhere
 * close; the focus returns to where it was.
 *
 * `MenuButton` is a button with its menu. `Menu` alone is for context menus: show it while a place
 * is set, and forget the place in `onClose`.
 */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { IconName } from "../icons/icon_names.ts";
import { Icon } from "./icon.tsx";
import { IconButton } from "./icon_button.tsx";

export type MenuItem =
  | {
    readonly label: string;
    readonly icon?: IconName;
    readonly onSelect?: () => void;
    readonly href?: string;
    readonly danger?: boolean;
    readonly disabled?: boolean;
    readonly shortcut?: string;
    /** Shows a tick in front: one of several choices, or a thing that is on. */
    readonly checked?: boolean;
  }
  | { readonly heading: string }
  | "separator";

/** Where a menu opens: below a box (a button), or at a point (`width` and `height` 0). */
export interface MenuPlace {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export interface MenuProps {
  readonly items: readonly MenuItem[];
  readonly place: MenuPlace;
  readonly onClose: () => void;
  /** The edge of the button that the menu keeps to. Default: start. */
  readonly align?: "start" | "end";
  readonly label?: string;
  /** The button that opened it, which closes it too: a press there is not one elsewhere. */
  readonly opener?: Element | null;
}

export function Menu(props: MenuProps): JSX.Element {
  const { items, place, onClose, align = "start", label, opener } = props;
  const menu = useRef<HTMLDivElement>(null);
  const [corner, setCorner] = useState<{ left: number; top: number } | null>(null);

  useLayoutEffect(() => {
    const { offsetWidth: width, offsetHeight: height } = menu.current!;
    const wanted = align === "end" ? place.left + place.width - width : place.left;
    const below = place.top + place.height + 4;
    const fits = below + height <= innerHeight - 8;
    setCorner({
      left: Math.max(8, Math.min(wanted, innerWidth - width - 8)),
      top: Math.max(8, fits ? below : place.top - height - 4),
    });
    const before = document.activeElement as HTMLElement | null;
    return () => before?.focus({ preventScroll: true });
  }, []);

  // What is still hidden, because its place is not known, takes no focus.
  useLayoutEffect(() => {
    if (corner !== null) enabledItems(menu.current!)[0]?.focus({ preventScroll: true });
  }, [corner]);

  useEffect(() => {
    const onPointerDown = (event: PointerEvent) => {
      const target = event.target as Node;
      if (!menu.current?.contains(target) && !opener?.contains(target)) onClose();
    };
    // Capture, because what is pressed may keep the event to itself.
    document.addEventListener("pointerdown", onPointerDown, true);
    addEventListener("resize", onClose);
    return () => {
      document.removeEventListener("pointerdown", onPointerDown, true);
      removeEventListener("resize", onClose);
    };
  }, []);

  const onKeyDown = (event: KeyboardEvent) => {
    const entries = enabledItems(menu.current!);
    const current = entries.indexOf(document.activeElement as HTMLElement);
    const moves: Record<string, number> = {
      ArrowDown: (current + 1) % entries.length,
      ArrowUp: (current - 1 + entries.length) % entries.length,
      Home: 0,
      End: entries.length - 1,
    };
    event.stopPropagation();
    if (event.key === "Escape" || event.key === "Tab") {
      event.preventDefault();
      onClose();
    } else if (moves[event.key] !== undefined) {
      event.preventDefault();
      entries[moves[event.key]!]?.focus();
    }
  };

  return (
    <div
      ref={menu}
      class="menu"
      role="menu"
      aria-label={label}
      style={corner === null
        ? { visibility: "hidden" }
        : { left: `${corner.left}px`, top: `${corner.top}px` }}
      onKeyDown={onKeyDown}
    >
      {items.map((item, index) => <Entry key={index} item={item} onClose={onClose} />)}
    </div>
  );
}

function Entry({ item, onClose }: { item: MenuItem; onClose: () => void }): JSX.Element {
  if (item === "separator") return <div class="menu__separator" role="separator" />;
  if ("heading" in item) return <div class="menu__heading">{item.heading}</div>;
  const classes = item.danger ? "menu__item menu__item--danger" : "menu__item";
  const content = (
    <>
      {item.icon && <Icon name={item.icon} />}
      <span class="truncate">{item.label}</span>
      {item.checked && <Icon name="check" size="small" class="menu__shortcut" />}
      {item.shortcut && <span class="menu__shortcut">{item.shortcut}</span>}
    </>
  );
  if (item.href !== undefined) {
    return <a class={classes} role="menuitem" href={item.href} onClick={onClose}>{content}</a>;
  }
  return (
    <button
      type="button"
      class={classes}
      role="menuitem"
      disabled={item.disabled ?? false}
      onClick={() => {
        onClose();
        item.onSelect?.();
      }}
    >
      {content}
    </button>
  );
}

const enabledItems = (menu: HTMLElement) => [
  ...menu.querySelectorAll<HTMLElement>("[role=menuitem]:not(:disabled)"),
];

export interface MenuButtonProps {
  readonly items: readonly MenuItem[];
  readonly label: string;
  readonly icon?: IconName;
  readonly align?: "start" | "end";
  readonly small?: boolean;
  /** Shown instead of an icon button. The function opens the menu below the given element. */
  readonly trigger?: (
    state: { open: boolean; toggle: (event: Event) => void },
  ) => ComponentChildren;
}

export function MenuButton(props: MenuButtonProps): JSX.Element {
  const { items, label, icon = "ellipsis-vertical", align = "end", small, trigger } = props;
  const [place, setPlace] = useState<MenuPlace | null>(null);
  const opener = useRef<Element | null>(null);
  const toggle = (event: Event) => {
    event.stopPropagation();
    opener.current = event.currentTarget as Element;
    const box = opener.current.getBoundingClientRect();
    setPlace(place === null ? box : null);
  };
  const open = place !== null;
  return (
    <>
      {trigger ? trigger({ open, toggle }) : (
        <IconButton
          icon={icon}
          label={label}
          small={small ?? false}
          aria-haspopup="menu"
          aria-expanded={open ? "true" : "false"}
          onClick={toggle}
        />
      )}
      {place && (
        <Menu
          items={items}
          place={place}
          align={align}
          label={label}
          opener={opener.current}
          onClose={() => setPlace(null)}
        />
      )}
    </>
  );
}
