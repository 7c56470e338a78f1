import assert from "node:assert/strict";
import { type Chart, chartSvg, niceTicks } from "../../bench/plot.ts";
import { spreadOf } from "../../bench/statistics.ts";

const CHART: Chart = {
  title: "put & get < all",
  xTitle: "tablets",
  yTitle: "op/s",
  series: [
    { name: "get", points: [{ x: 1, y: spreadOf([90, 100, 110]) }, { x: 9, y: spreadOf([50]) }] },
    { name: "put", points: [{ x: 9, y: spreadOf([10]) }, { x: 1, y: spreadOf([20]) }] },
  ],
};

function circles(svg: string): { x: number; y: number }[] {
  return Array.from(svg.matchAll(/<circle cx="([\d.]+)" cy="([\d.]+)" r="4"/g), ([, x, y]) => {
    return { x: Number(x), y: Number(y) };
  });
}

Deno.test("axes end at a round number that no value is above, in four to ten steps", () => {
  assert.deepEqual(niceTicks(110), [0, 20, 40, 60, 80, 100, 120]);
  for (const max of [1, 3, 7, 9.99, 10, 101, 4_999, 2e6, 0.003]) {
    const ticks = niceTicks(max);
    assert.ok(ticks[0] === 0 && ticks.at(-1)! >= max, `${max}: ${ticks}`);
    assert.ok(ticks.length >= 5 && ticks.length <= 11, `${max}: ${ticks}`);
  }
  assert.deepEqual(niceTicks(0), [0, 1]);
});

Deno.test("every point is drawn, larger values higher and further right", () => {
  const svg = chartSvg(CHART);
  const [first, second, third, fourth] = circles(svg) as [
    { x: number; y: number },
    { x: number; y: number },
    { x: number; y: number },
    { x: number; y: number },
  ];
  assert.ok(first.x < second.x && first.y < second.y, "get falls from left to right");
  assert.ok(third.x === first.x && fourth.x === second.x, "points are drawn in order of x");
  assert.ok(third.y > first.y, "20 is below 100");
  for (const { x, y } of circles(svg)) assert.ok(x > 0 && x < 720 && y > 0 && y < 400);
});

Deno.test("a wide range of x is drawn on a logarithmic axis", () => {
  const points = [1, 10, 100].map((x) => ({ x, y: spreadOf([5]) }));
  const [a, b, c] = circles(chartSvg({ ...CHART, series: [{ name: "get", points }] }));
  assert.ok(Math.abs((b!.x - a!.x) - (c!.x - b!.x)) < 0.5);
});

Deno.test("titles are escaped, and a chart of nothing is refused", () => {
  const svg = chartSvg(CHART);
  assert.match(svg, /put &amp; get &lt; all/);
  assert.throws(() => chartSvg({ ...CHART, series: [] }), /no points/);
});
