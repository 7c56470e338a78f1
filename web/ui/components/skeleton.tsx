/** The shape of what is about to appear. Show it only when loading takes longer than a blink. */
import type { JSX } from "preact";

export function Skeleton({ width }: { width?: "short" | "medium" | "circle" }): JSX.Element {
  return <span class={width === undefined ? "skeleton" : `skeleton skeleton--${width}`} />;
}

/** A list that is loading. */
export function SkeletonRows({ count = 6 }: { count?: number }): JSX.Element {
  return (
    <div role="status" aria-label="Loading">
      {Array.from({ length: count }, (_, index) => (
        <div class="list-row" key={index}>
          <Skeleton width="circle" />
          <div class="list-row__main">
            <Skeleton width={index % 2 === 0 ? "short" : "medium"} />
          </div>
        </div>
      ))}
    </div>
  );
}
