/**
 * Latencies of many operations in little memory: a histogram whose buckets grow with the value.
 *
 * A bucket is at most 1/64 wide of what it holds, so a quantile is right to within 1.6 percent, and a
 * run of any length needs a few kilobytes. Histograms of several client processes add up, which
 * percentiles do not. The largest value is kept exactly. Follows HdrHistogram (Tene).
 *
 *     value in µs   0 … 127        one bucket each
 *                   128 … 255      64 buckets of 2
 *                   256 … 511      64 buckets of 4, and so on
 */

/** As it travels between processes: pairs of bucket and count, flat. */
export interface HistogramParts {
  readonly counts: readonly number[];
  readonly maxMs: number;
  readonly sumMs: number;
}

const LINEAR = 128;
const STEPS = 64;
/** Up to 2^32 µs: more than an hour. */
const BUCKET_COUNT = LINEAR + 25 * STEPS;

export class Histogram {
  readonly #counts = new Float64Array(BUCKET_COUNT);
  #count = 0;
  #maxMs = 0;
  #sumMs = 0;

  static from(parts: HistogramParts): Histogram {
    const histogram = new Histogram();
    histogram.#add(parts);
    return histogram;
  }

  static merge(all: readonly HistogramParts[]): Histogram {
    const histogram = new Histogram();
    for (const parts of all) histogram.#add(parts);
    return histogram;
  }

  get count(): number {
    return this.#count;
  }

  get maxMs(): number {
    return this.#maxMs;
  }

  get meanMs(): number {
    return this.#count === 0 ? 0 : this.#sumMs / this.#count;
  }

  record(ms: number): void {
    this.#counts[bucketOf(ms * 1000)]! += 1;
    this.#count += 1;
    this.#sumMs += ms;
    if (ms > this.#maxMs) this.#maxMs = ms;
  }

  /** The value that `share` of all are not above, 0 to 1; 0 of an empty histogram. */
  quantileMs(share: number): number {
    let left = Math.max(1, Math.ceil(share * this.#count));
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket++) {
      left -= this.#counts[bucket]!;
      if (left <= 0 && this.#count > 0) {
        return Math.min(this.#maxMs, middleOf(bucket) / 1000);
      }
    }
    return 0;
  }

  parts(): HistogramParts {
    const counts: number[] = [];
    this.#counts.forEach((count, bucket) => {
      if (count > 0) counts.push(bucket, count);
    });
    return { counts, maxMs: this.#maxMs, sumMs: this.#sumMs };
  }

  #add({ counts, maxMs, sumMs }: HistogramParts): void {
    for (let at = 0; at < counts.length; at += 2) {
      this.#counts[counts[at]!]! += counts[at + 1]!;
      this.#count += counts[at + 1]!;
    }
    this.#maxMs = Math.max(this.#maxMs, maxMs);
    this.#sumMs += sumMs;
  }
}

function bucketOf(us: number): number {
  const whole = Math.max(0, Math.floor(us));
  if (whole < LINEAR) return whole;
  const doublings = Math.floor(Math.log2(whole)) - 7;
  const step = Math.floor(whole / 2 ** (doublings + 1)) - STEPS;
  return Math.min(BUCKET_COUNT - 1, LINEAR + doublings * STEPS + step);
}

function middleOf(bucket: number): number {
  if (bucket < LINEAR) return bucket + 0.5;
  const doublings = Math.floor((bucket - LINEAR) / STEPS), step = (bucket - LINEAR) % STEPS;
  const width = 2 ** (doublings + 1);
  return (STEPS + step) * width + width / 2;
}
