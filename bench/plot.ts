/**
 * A line chart as an SVG file: enough to see how a cost grows, without a library.
 *
 * Both axes begin at nice numbers; x is logarithmic where the values span more than a factor of 20.
 * Whiskers show the smallest and the largest round. Colours hold on light and dark pages.
 */
import { numberText } from "./report.ts";
import type { Spread } from "./statistics.ts";

export interface Series {
  readonly name: string;
  readonly points: readonly { readonly x: number; readonly y: Spread }[];
}

export interface Chart {
  readonly title: string;
  readonly xTitle: string;
  readonly yTitle: string;
  readonly series: readonly Series[];
}

const WIDTH = 720, HEIGHT = 400;
const LEFT = 80, RIGHT = 20, TOP = 70, BOTTOM = 60;
const COLOURS = ["#3b78e7", "#d9632b", "#2f9e5b", "#9b5fc0"];
const LOG_SPAN = 20;

/** @throws when there is nothing to draw */
export function chartSvg(chart: Chart): string {
  const points = chart.series.flatMap((series) => series.points);
  if (points.length === 0) throw new Error(`Cannot draw "${chart.title}": it has no points`);
  const xs = points.map(({ x }) => x);
  const xScale = makeXScale(Math.min(...xs), Math.max(...xs));
  const yTicks = niceTicks(Math.max(...points.map(({ y }) => y.max)));
  const yMax = yTicks.at(-1)!;
  const toX = (x: number) => round(LEFT + xScale(x) * (WIDTH - LEFT - RIGHT));
  const toY = (y: number) => round(HEIGHT - BOTTOM - y / yMax * (HEIGHT - TOP - BOTTOM));
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" ` +
    `font-family="system-ui, sans-serif" font-size="13" role="img" ` +
    `aria-label="${escapeXml(chart.title)}">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    text(LEFT, 26, chart.title, 'font-size="16" font-weight="600"'),
    ...yTicks.flatMap((tick) => [
      line([LEFT, toY(tick)], [WIDTH - RIGHT, toY(tick)], "#dddddd"),
      text(LEFT - 8, toY(tick) + 4, numberText(tick), 'text-anchor="end"'),
    ]),
    ...[...new Set(xs)].map((x) =>
      text(toX(x), HEIGHT - BOTTOM + 20, numberText(x), 'text-anchor="middle"')
    ),
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, chart.xTitle, 'text-anchor="middle"'),
    text(18, TOP - 14, chart.yTitle),
  ];
  chart.series.forEach((series, index) => {
    const colour = COLOURS[index % COLOURS.length]!;
    const sorted = series.points.toSorted((a, b) => a.x - b.x);
    const path = sorted.map(({ x, y }) => `${toX(x)},${toY(y.median)}`).join(" ");
    parts.push(`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"/>`);
    for (const { x, y } of sorted) {
      parts.push(line([toX(x), toY(y.min)], [toX(x), toY(y.max)], colour));
      parts.push(`<circle cx="${toX(x)}" cy="${toY(y.median)}" r="4" fill="${colour}"/>`);
    }
    const legendX = LEFT + index * 150;
    parts.push(`<circle cx="${legendX + 5}" cy="42" r="5" fill="${colour}"/>`);
    parts.push(text(legendX + 16, 46, series.name));
  });
  return [...parts, "</svg>", ""].join("\n");
}

/** Where x lies between the edges, 0 to 1; a single value in the middle. */
function makeXScale(min: number, max: number): (x: number) => number {
  if (min === max) return () => 0.5;
  const logarithmic = min > 0 && max / min > LOG_SPAN;
  const at = (x: number) => logarithmic ? Math.log(x) : x;
  return (x) => 0.03 + 0.94 * (at(x) - at(min)) / (at(max) - at(min));
}

/** From 0 to at least `max` in four to ten steps of 1, 2 or 5 times a power of ten. */
export function niceTicks(max: number): number[] {
  if (!(max > 0)) return [0, 1];
  const power = 10 ** Math.floor(Math.log10(max));
  const step = [0.1, 0.2, 0.5, 1, 2].map((each) => each * power)
    .find((each) => max / each <= 8)!;
  const count = Math.ceil(max / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, n) => Number((n * step).toPrecision(12)));
}

const round = (value: number): number => Math.round(value * 10) / 10;

function line([x1, y1]: readonly number[], [x2, y2]: readonly number[], colour: string): string {
  return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${colour}"/>`;
}

function text(x: number, y: number, content: string, attributes = ""): string {
  return `<text x="${x}" y="${y}" fill="#333333" ${attributes}>${escapeXml(content)}</text>`;
}

function escapeXml(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
