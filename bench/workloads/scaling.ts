/**
 * How cost grows: get and put with more data than memory, with more tablets, and with more backends;
 * a plot of each.
 *
 * On one machine more backends share the same processors, so their gain cannot show in operations a
 * second. What does show, and what a second machine would multiply, is what one operation costs: the
 * plots draw both.
 */
import { join } from "node:path";
import type { RunningPennCloud } from "../systems/penncloud.ts";
import type { Bench, BenchRun } from "../bench_run.ts";
import { compare, type Contestant, fillKeys, withContestants } from "../compare.ts";
import { connectCluster } from "../clients/penncloud_client.ts";
import { keyName } from "../load/key_choice.ts";
import { chartSvg } from "../plot.ts";
import type { BenchResult, Row } from "../report.ts";
import { spreadOf } from "../statistics.ts";
import { writeConfig } from "../systems/config.ts";
import { PennCloud } from "../systems/penncloud.ts";

const VALUE_BYTES = 1024;
/** Of each backend, for its most wanted cells; small, so that a hundred times as much is soon written. */
const MEMORY_BYTES = 4 * 1024 ** 2;
const KEYS = 10_000;
const WORKLOADS = ["get", "put"] as const;

interface Point {
  readonly x: number;
  readonly rows: readonly Row[];
}

export const scalingData: Bench = {
  name: "scaling-data",
  about: "get and put with 1, 10 and 100 times more data than memory (--count: at most)",
  run: async (run) => {
    const most = run.options.count ?? 100, times = [1, 10, 100].filter((each) => each <= most);
    const config = await writeConfig(await run.folder(), { memoryBytes: MEMORY_BYTES });
    const points: Point[] = [];
    await withContestants(run, [new PennCloud({ config })], async (contestants) => {
      for (const x of times) {
        // Each backend holds a copy of everything, and so each its own memory's multiple.
        const keyCount = Math.ceil(x * MEMORY_BYTES / VALUE_BYTES);
        await fillKeys(run, contestants, { keyCount, valueBytes: VALUE_BYTES });
        points.push({ x, rows: await measure(run, contestants, keyCount, `${x} times memory`) });
      }
    });
    return await report(run, points, { name: "data", xTitle: "data, in multiples of memory" });
  },
};

export const scalingTablets: Bench = {
  name: "scaling-tablets",
  about: "get and put with up to --count tablets (default 1000)",
  run: async (run) => {
    const most = run.options.count ?? 1_000, backends = most > 700 ? 6 : 3;
    const config = await writeConfig(await run.folder(), { backends });
    const points: Point[] = [];
    await withContestants(run, [new PennCloud({ config })], async (contestants) => {
      const keyCount = run.options.keyCount ?? KEYS;
      await fillKeys(run, contestants, { keyCount, valueBytes: VALUE_BYTES });
      const steps = [backends, Math.ceil(most / 10), Math.ceil(most / 3), most];
      for (const x of steps.filter((each, at) => each > (steps[at - 1] ?? 0))) {
        const { system } = contestants[0]!;
        await splitInto(system as RunningPennCloud, { tablets: x, keyCount, groups: backends });
        points.push({ x, rows: await measure(run, contestants, keyCount, `${x} tablets`) });
      }
    });
    return await report(run, points, {
      name: "tablets",
      xTitle: `tablets, on ${backends} backends`,
    });
  },
};

export const scalingBackends: Bench = {
  name: "scaling-backends",
  about: "get and put on 3, 6 and 9 backends (--count: at most)",
  run: async (run) => {
    const most = run.options.count ?? 9, points: Point[] = [];
    for (const x of [3, 6, 9].filter((each) => each <= most)) {
      const config = await writeConfig(await run.folder(), { backends: x });
      await withContestants(run, [new PennCloud({ config })], async (contestants) => {
        const keyCount = run.options.keyCount ?? KEYS;
        await fillKeys(run, contestants, { keyCount, valueBytes: VALUE_BYTES });
        points.push({ x, rows: await measure(run, contestants, keyCount, `${x} backends`) });
      });
    }
    return await report(run, points, { name: "backends", xTitle: "backends" });
  },
};

async function measure(
  run: BenchRun,
  contestants: readonly Contestant[],
  keyCount: number,
  what: string,
): Promise<Row[]> {
  const outstanding = Math.max(...run.options.outstanding), rows: Row[] = [];
  for (const workload of WORKLOADS) {
    const { spread = "all" } = run.options;
    const load = { workload, outstanding, valueBytes: VALUE_BYTES, keyCount, spread, seed: 1 };
    const compared = await compare(run, contestants, load);
    rows.push(...compared.rows.map((row) => ({ ...row, case: `${row.case}, ${what}` })));
  }
  return rows;
}

/** Boundaries at every so many of the keys in order; those that are there already stay. */
async function splitInto(
  system: RunningPennCloud,
  { tablets, keyCount, groups }: { tablets: number; keyCount: number; groups: number },
): Promise<void> {
  const { kv, close } = await connectCluster(system.target);
  try {
    const names = Array.from({ length: keyCount }, (_, n) => keyName(n, "all")).sort();
    // Each group begins with a tablet.
    const wanted = tablets - groups;
    for (let n = 1; n <= wanted; n++) {
      const key = names[Math.floor(n * keyCount / (wanted + 1))]!;
      await kv.reshape({ kind: "split", key }).catch((error) => {
        if (!/already|begins/.test(String(error))) throw error;
      });
    }
  } finally {
    close();
  }
}

/** Two plots: operations a second, and what one of them costs all servers together. */
async function report(
  run: BenchRun,
  points: readonly Point[],
  { name, xTitle }: { name: string; xTitle: string },
): Promise<BenchResult> {
  const series = (y: (row: Row) => Row["rate"]) =>
    WORKLOADS.map((workload, at) => ({
      name: workload,
      points: points.map(({ x, rows }) => ({ x, y: y(rows[at]!) })),
    }));
  const charts = {
    [`scaling-${name}.svg`]: {
      title: `get and put of ${VALUE_BYTES} bytes: rate`,
      yTitle: "operations a second",
      series: series((row) => row.rate),
    },
    [`scaling-${name}-cost.svg`]: {
      title: `get and put of ${VALUE_BYTES} bytes: cost`,
      yTitle: "µs of processor time an operation, all servers",
      series: series((row) => spreadOf([row.serverCpuUsPerOp!])),
    },
  };
  const { plotsDir } = run.options, plots: string[] = [];
  await Deno.mkdir(plotsDir, { recursive: true });
  for (const [file, chart] of Object.entries(charts)) {
    const path = join(plotsDir, file);
    await Deno.writeTextFile(path, chartSvg({ ...chart, xTitle }));
    run.note(`plot: ${path}`);
    plots.push(path);
  }
  return { rows: points.flatMap(({ rows }) => rows), peers: [], notes: run.notes, plots };
}
