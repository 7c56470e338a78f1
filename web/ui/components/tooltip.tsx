/**
 * A few words that appear when the pointer rests on something or the keyboard reaches it. The words
 * must also be the element's label: a tooltip is never read aloud.
 */
import { cloneElement, type JSX, type VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

const DELAY_MS = 450;

interface Place {
  readonly left: number;
  readonly top: number;
}

export function Tooltip(
  { text, children }: { readonly text: string; readonly children: VNode<Record<string, unknown>> },
): JSX.Element {
  const [place, setPlace] = useState<Place | null>(null);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const hide = () => {
    clearTimeout(timer.current);
    setPlace(null);
  };
  useEffect(() => hide, []);
  const show = (target: Element, delayMs: number) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      if (!target.isConnected) return;
      const box = target.getBoundingClientRect();
      const below = box.bottom + 40 < innerHeight;
      setPlace({ left: box.left + box.width / 2, top: below ? box.bottom + 6 : box.top - 34 });
    }, delayMs);
  };
  const own = children.props;
  const chain = (name: string, run: (event: Event) => void) => (event: Event) => {
    run(event);
    (own[name] as ((event: Event) => void) | undefined)?.(event);
  };
  const target = cloneElement(children, {
    onPointerEnter: chain("onPointerEnter", (event) => {
      if ((event as PointerEvent).pointerType === "mouse") {
        show(event.currentTarget as Element, DELAY_MS);
      }
    }),
    onPointerLeave: chain("onPointerLeave", hide),
    onPointerDown: chain("onPointerDown", hide),
    onFocus: chain("onFocus", (event) => {
      const element = event.currentTarget as Element;
      if (element.matches(":focus-visible")) show(element, DELAY_MS);
    }),
    onBlur: chain("onBlur", hide),
  });
  return (
    <>
      {target}
      {place && <TooltipBox text={text} place={place} />}
    </>
  );
}

function TooltipBox({ text, place }: { text: string; place: Place }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [left, setLeft] = useState(place.left);
  useEffect(() => {
    const half = (box.current?.offsetWidth ?? 0) / 2;
    setLeft(Math.max(8, Math.min(innerWidth - 8 - 2 * half, place.left - half)));
  }, [place]);
  return (
    <div
      ref={box}
      class="tooltip"
      aria-hidden="true"
      style={{ left: `${left}px`, top: `${place.top}px` }}
    >
      {text}
    </div>
  );
}
