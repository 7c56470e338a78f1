/** The last minutes of a number as a small line. Decoration: the number itself stands beside it. */
import type { JSX } from "preact";

const WIDTH = 120, HEIGHT = 32;

export interface SparklineProps {
  readonly values: readonly number[];
  /** The top of the scale; below it the line uses the whole height only when it needs to. */
  readonly scale?: number;
  readonly large?: boolean;
}

export function Sparkline({ values, scale = 0, large }: SparklineProps): JSX.Element {
  const top = Math.max(scale, ...values, 1e-9) * 1.08;
  const step = WIDTH / Math.max(1, values.length - 1);
  const points = values.map((value, index) =>
    `${(index * step).toFixed(1)},${(HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1)}`
  );
  return (
    <svg
      class={large ? "sparkline sparkline--large" : "sparkline"}
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
      aria-hidden="true"
      focusable="false"
    >
      {points.length > 1 && (
        <>
          <polygon
            class="sparkline__area"
            points={`0,${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`}
          />
          <polyline class="sparkline__line" points={points.join(" ")} />
        </>
      )}
    </svg>
  );
}
