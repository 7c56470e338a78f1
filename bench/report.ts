/**
 * What a bench says at its end: a table for people, one JSON object for programs.
 *
 * A row is one system in one case. Its rate is the median of all rounds with smallest and largest, and
 * every other figure the median of the rounds. Columns that no row fills are left out.
 */
import { geometricMean, type Spread } from "./statistics.ts";

export interface Row {
  readonly system: string;
  /** What was asked of it: `put, 100 B, 64 outstanding`. */
  readonly case: string;
  readonly rate: Spread;
  /** Of the rate: `op/s`, `MB/s`. */
  readonly unit: string;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  readonly maxMs?: number;
  /** Cores that the clients kept busy: 0.5 is half of one. */
  readonly clientCores?: number;
  /** Of the whole run. */
  readonly clientCpuSeconds?: number;
  readonly serverCpuSeconds?: number;
  readonly serverCpuUsPerOp?: number;
  /** All servers' largest resident memory added up. */
  readonly peakBytes?: number;
  /** By all servers together; null where the kernel does not tell. */
  readonly writtenBytesPerOp?: number | null;
  readonly fsyncsPerOp?: number;
  /** Cores that were busy with anything but this run. */
  readonly othersCores?: number;
  /** What only this bench measures, by name with unit. */
  readonly more?: Readonly<Record<string, number>>;
}

/** How PennCloud did against a peer in one case. */
export interface PeerRatio {
  readonly system: string;
  readonly case: string;
  /** PennCloud's rate divided by the peer's, of each round. */
  readonly ratio: Spread;
}

export interface BenchResult {
  readonly rows: readonly Row[];
  readonly peers: readonly PeerRatio[];
  /** Sentences: who was left out and why, and how the client is known not to be the bottleneck. */
  readonly notes: readonly string[];
  /** Files that were written. */
  readonly plots?: readonly string[];
}

type Column = readonly [title: string, text: (row: Row) => string | undefined];

const COLUMNS: readonly Column[] = [
  ["case", (row) => row.case],
  ["system", (row) => row.system],
  ["rate", (row) => `${spreadText(row.rate)} ${row.unit}`],
  ["p50 ms", (row) => row.p50Ms?.toFixed(2)],
  ["p99 ms", (row) => row.p99Ms?.toFixed(2)],
  ["max ms", (row) => row.maxMs?.toFixed(1)],
  ["client cores", (row) => row.clientCores?.toFixed(2)],
  ["client CPU s", (row) => row.clientCpuSeconds?.toFixed(2)],
  ["server CPU s", (row) => row.serverCpuSeconds?.toFixed(2)],
  ["server CPU µs/op", (row) => row.serverCpuUsPerOp?.toFixed(0)],
  ["peak memory", (row) => row.peakBytes === undefined ? undefined : bytesText(row.peakBytes)],
  [
    "written/op",
    (row) => row.writtenBytesPerOp == null ? undefined : bytesText(row.writtenBytesPerOp),
  ],
  ["fsyncs/op", (row) => row.fsyncsPerOp?.toFixed(3)],
  ["others' cores", (row) => row.othersCores?.toFixed(2)],
];

export function tableLines(rows: readonly Row[]): string[] {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.more ?? {})))];
  const more = names.map((name): Column => [name, (row) => {
    const value = row.more?.[name];
    return value === undefined ? undefined : numberText(value);
  }]);
  const columns = [...COLUMNS, ...more].filter(([, text]) => {
    return rows.some((row) => text(row) !== undefined);
  });
  const cells = [
    columns.map(([title]) => title),
    ...rows.map((row) => columns.map(([, text]) => text(row) ?? "-")),
  ];
  const widths = columns.map((_, at) => Math.max(...cells.map((line) => line[at]!.length)));
  return cells.map((line) => {
    // The first two say what it is, the others how much.
    const padded = line.map((text, at) =>
      at < 2 ? text.padEnd(widths[at]!) : text.padStart(widths[at]!)
    );
    return padded.join("  ").trimEnd();
  });
}

export function ratioLines(peers: readonly PeerRatio[]): string[] {
  return peers.map(({ system, case: what, ratio }) =>
    `ratio to ${system}: ${ratioText(ratio)}  (${what})`
  );
}

/**
 * The last line of `--json`. `ratio` has one number for each peer: of the only case, or the geometric
 * mean over all of them.
 */
export function jsonOf(
  bench: string,
  machine: Readonly<Record<string, unknown>>,
  result: BenchResult,
): string {
  const byPeer = Map.groupBy(result.peers, ({ system }) => system);
  const ratio = Object.fromEntries(
    Array.from(byPeer, ([system, cases]) => {
      return [system, rounded(geometricMean(cases.map((each) => each.ratio.median)))];
    }),
  );
  const peers = result.peers.map((peer) => ({
    ...peer,
    ratio: rounded(peer.ratio.median),
    spread: peer.ratio,
  }));
  const { rows, notes, plots = [] } = result;
  return JSON.stringify({ bench, machine, rows, peers, ratio, notes, plots });
}

const rounded = (value: number): number => Number(value.toPrecision(4));

export function spreadText({ median, min, max }: Spread): string {
  if (min === max) return numberText(median);
  return `${numberText(median)} [${numberText(min)} to ${numberText(max)}]`;
}

function ratioText({ median, min, max }: Spread): string {
  if (min === max) return `${median.toFixed(2)}x`;
  return `${median.toFixed(2)}x [${min.toFixed(2)} to ${max.toFixed(2)}]`;
}

/** Three significant digits, and no more than whole numbers need. */
export function numberText(value: number): string {
  if (Math.abs(value) >= 100) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

export function bytesText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let value = bytes, unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${numberText(value)} ${units[unit]}`;
}
