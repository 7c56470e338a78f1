/**
 * Counters, gauges and histograms, and the text in which Prometheus reads them (format 0.0.4).
 *
 * Only what we use of a metrics library, because the usual one costs each of sixteen processes 19 MiB
 * and 45 ms at the start. A metric has a bounded number of label combinations; what goes beyond is
 * counted under `overflow`, so that a user's input cannot fill the memory.
 */
import { ProcessMeter } from "./process_meter.ts";

export type Labels = Readonly<Record<string, string | number>>;

export interface Counter {
  add(by?: number, labels?: Labels): void;
}
export interface Gauge {
  set(value: number, labels?: Labels): void;
}
export interface Histogram {
  observe(value: number, labels?: Labels): void;
}

/** What a gauge reads when it is asked: one number, or one per label combination. */
export type Reading = number | readonly { readonly labels: Labels; readonly value: number }[];

/** Seconds, from a tenth of a millisecond to ten seconds. */
export const LATENCY_BUCKETS: readonly number[] = [
  0.0001,
  0.00025,
  0.0005,
  0.001,
  0.0025,
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.25,
  0.5,
  1,
  2.5,
  5,
  10,
];

export const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

const SERIES_MAX = 500;
const OVERFLOW = '{overflow="true"}';
const NAME = /^[a-z][a-z0-9_]*$/;

export type ProcessReadings = { readonly [Name in keyof ProcessMeter]: ProcessMeter[Name] };

interface Metric {
  readonly head: string;
  lines(): string[];
}

export class Metrics {
  /** CPU, memory and event-loop delay of this process, also for status reports. */
  readonly process: ProcessReadings;
  readonly #metrics = new Map<string, Metric>();

  constructor(process: ProcessReadings = new ProcessMeter()) {
    this.process = process;
    this.read("process_cpu_seconds_total", {
      help: "Time on the processor",
      type: "counter",
      value: () => process.cpuSeconds(),
    });
    this.read("process_resident_memory_bytes", {
      help: "Memory in RAM",
      value: () => process.memoryBytes(),
    });
    this.read("process_start_time_seconds", {
      help: "Start, in seconds since 1970",
      value: () => process.startedMs / 1000,
    });
    this.read("penncloud_event_loop_delay_seconds", {
      help: "The longest that a timer was late in the last ten seconds",
      value: () => process.loopDelayMs() / 1000,
    });
  }

  counter(name: string, help: string): Counter {
    const series = new Map<string, number>();
    this.#register(name, help, "counter", () => simpleLines(name, series));
    return {
      add(by = 1, labels = {}) {
        const key = seriesKey(series, labels);
        series.set(key, (series.get(key) ?? 0) + by);
      },
    };
  }

  gauge(name: string, help: string): Gauge {
    const series = new Map<string, number>();
    this.#register(name, help, "gauge", () => simpleLines(name, series));
    return { set: (value, labels = {}) => void series.set(seriesKey(series, labels), value) };
  }

  /** A gauge (or counter) whose value is looked up when it is asked for. */
  read(
    name: string,
    options: {
      readonly help: string;
      readonly type?: "gauge" | "counter";
      readonly value: () => Reading;
    },
  ): void {
    this.#register(name, options.help, options.type ?? "gauge", () => {
      const reading = options.value();
      const series = new Map<string, number>();
      if (typeof reading === "number") series.set("", reading);
      else for (const { labels, value } of reading) series.set(seriesKey(series, labels), value);
      return simpleLines(name, series);
    });
  }

  histogram(name: string, help: string, buckets: readonly number[] = LATENCY_BUCKETS): Histogram {
    const series = new Map<string, { counts: number[]; sum: number }>();
    this.#register(name, help, "histogram", () => {
      return [...series].flatMap(([key, state]) => histogramLines(name, key, buckets, state));
    });
    return {
      observe(value, labels = {}) {
        const key = seriesKey(series, labels);
        let state = series.get(key);
        if (state === undefined) {
          state = { counts: new Array(buckets.length + 1).fill(0), sum: 0 };
          series.set(key, state);
        }
        const index = buckets.findIndex((limit) => value <= limit);
        state.counts[index === -1 ? buckets.length : index]!++;
        state.sum += value;
      },
    };
  }

  /** Everything, for `/metrics`. */
  text(): string {
    const lines: string[] = [];
    for (const metric of this.#metrics.values()) lines.push(metric.head, ...metric.lines());
    return lines.join("\n") + "\n";
  }

  /** Stops measuring the event loop. */
  close(): void {
    this.process.close();
  }

  #register(name: string, help: string, type: string, lines: () => string[]): void {
    if (!NAME.test(name)) throw new Error(`Cannot name a metric "${name}": use a-z, 0-9 and _`);
    if (this.#metrics.has(name)) throw new Error(`Cannot register the metric "${name}" twice`);
    this.#metrics.set(name, { head: `# HELP ${name} ${help}\n# TYPE ${name} ${type}`, lines });
  }
}

/** The labels as they are printed, or the overflow series when there are too many. */
function seriesKey(series: ReadonlyMap<string, unknown>, labels: Labels): string {
  const entries = Object.entries(labels);
  if (entries.length === 0) return "";
  const key = `{${entries.map(([name, value]) => `${name}="${escapeLabel(value)}"`).join(",")}}`;
  return series.has(key) || series.size < SERIES_MAX ? key : OVERFLOW;
}

function escapeLabel(value: string | number): string {
  return String(value).replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function simpleLines(name: string, series: ReadonlyMap<string, number>): string[] {
  return [...series].map(([key, value]) => `${name}${key} ${value}`);
}

function histogramLines(
  name: string,
  key: string,
  buckets: readonly number[],
  { counts, sum }: { readonly counts: readonly number[]; readonly sum: number },
): string[] {
  const inner = key === "" ? "" : key.slice(1, -1) + ",";
  const lines: string[] = [];
  let total = 0;
  counts.forEach((count, index) => {
    total += count;
    lines.push(`${name}_bucket{${inner}le="${buckets[index] ?? "+Inf"}"} ${total}`);
  });
  return [...lines, `${name}_sum${key} ${sum}`, `${name}_count${key} ${total}`];
}
