/** Durations by kind, and their percentiles: what a campaign prints. */

export interface Figure {
  readonly kind: string;
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export class Figures {
  readonly #samples = new Map<string, number[]>();

  add(kind: string, ms: number): void {
    const samples = this.#samples.get(kind);
    if (samples === undefined) this.#samples.set(kind, [ms]);
    else samples.push(ms);
  }

  list(): Figure[] {
    return [...this.#samples].map(([kind, samples]) => {
      const sorted = samples.toSorted((a, b) => a - b);
      return {
        kind,
        count: sorted.length,
        p50Ms: rounded(percentile(sorted, 0.5)),
        p99Ms: rounded(percentile(sorted, 0.99)),
        maxMs: rounded(sorted.at(-1)!),
      };
    });
  }
}

/** Milliseconds as people read them: of short times two digits count. */
const rounded = (ms: number) => ms < 100 ? Number(ms.toPrecision(2)) : Math.round(ms);

/** The smallest sample that at least this share of all samples does not exceed. */
export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)]!;
}

export function figureLines(title: string, figures: readonly Figure[]): string[] {
  const cell = (text: string | number) => String(text).padStart(8);
  const head = `${title.padEnd(48)}${["count", "p50", "p99", "max"].map(cell).join("")}`;
  return [
    head,
    ...figures.map(({ kind, count, p50Ms, p99Ms, maxMs }) =>
      `  ${kind.padEnd(46)}${[count, p50Ms, p99Ms, maxMs].map(cell).join("")}`
    ),
  ];
}
