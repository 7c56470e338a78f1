/**
 * How much of one tablet lies where: its key range cut into buckets, each with exact counts.
 *
 * This is what makes a split cheap. The middle of a tablet is found by adding up the buckets, and it
 * is a bucket's first key, so a row boundary with exact counts on both sides and nothing to read. A
 * bucket that outgrows its limit is cut in two by reading its rows, which is a bounded amount: rows
 * that are large by themselves are known by their sizes and skipped. Small neighbours grow together
 * again. A single row is never cut, so a bucket of one row may have any size.
 *
 * Buckets are an index beside the state, not part of what replicas have to agree on: two replicas
 * may cut at different keys and still count every range alike.
 */
import { z } from "zod";
import { CorruptionError } from "./errors.ts";
import { invariant } from "./invariant.ts";
import { compareKeys } from "./key_order.ts";

/** What a key range holds. */
export interface Counts {
  readonly rows: number;
  readonly cells: number;
  /** Bytes that take part in memory and checkpoints: columns, inline values, a constant a cell. */
  readonly bytes: number;
  /** Bytes of values that lie in files of their own. */
  readonly largeBytes: number;
}

export const NO_COUNTS: Counts = { rows: 0, cells: 0, bytes: 0, largeBytes: 0 };

export interface BucketLimits {
  readonly bytesMax: number;
  readonly largeBytesMax: number;
}

/** Rows in order with their sizes: how a bucket that is to be cut is read. */
export type RowSizes = (
  range: { readonly startKey: string; readonly endKey: string | null },
) => Iterable<{ readonly row: string } & Omit<Counts, "rows">>;

export const SavedBuckets = z.array(
  z.tuple([z.string(), z.int(), z.int(), z.int(), z.int()]),
).min(1);
export type SavedBuckets = z.infer<typeof SavedBuckets>;

interface Bucket {
  readonly startKey: string;
  counts: Counts;
  /** A damaged cell kept it from being cut: not tried again before it has grown to this. */
  tryAgainAt?: number;
}

/** Below this share of the limit two neighbours become one bucket again. */
const TOGETHER = 0.5;
/** A bucket in memory without its key, roughly. */
const BUCKET_OVERHEAD_BYTES = 160;

export class KeyBuckets {
  #endKey: string | null;
  readonly #limits: BucketLimits;
  /** By start key without gaps; the first begins where the tablet does. */
  #buckets: Bucket[];
  #total: Counts;
  #keyBytes = 0;

  constructor(
    range: { startKey: string; endKey: string | null },
    limits: BucketLimits,
    saved?: SavedBuckets,
  ) {
    this.#endKey = range.endKey;
    this.#limits = limits;
    this.#buckets = saved === undefined
      ? [{ startKey: range.startKey, counts: NO_COUNTS }]
      : saved.map(([startKey, rows, cells, bytes, largeBytes]) => ({
        startKey,
        counts: { rows, cells, bytes, largeBytes },
      }));
    this.#total = this.#recount();
  }

  get counts(): Counts {
    return this.#total;
  }

  get bucketCount(): number {
    return this.#buckets.length;
  }

  /** What the buckets themselves take in memory. */
  get memoryBytes(): number {
    return this.#buckets.length * BUCKET_OVERHEAD_BYTES + 2 * this.#keyBytes;
  }

  save(): SavedBuckets {
    return this.#buckets.map(({ startKey, counts }) => {
      const { rows, cells, bytes, largeBytes } = counts;
      return [startKey, rows, cells, bytes, largeBytes];
    });
  }

  /** Counts a change of `row`, which lies in this tablet. */
  add(row: string, change: Counts, rowSizes: RowSizes): void {
    const index = this.#indexOf(row), bucket = this.#buckets[index]!;
    bucket.counts = sum(bucket.counts, change);
    this.#total = sum(this.#total, change);
    const { rows, cells, bytes, largeBytes } = bucket.counts;
    invariant(
      rows >= 0 && cells >= 0 && bytes >= 0 && largeBytes >= 0,
      "A10",
      () => `the bucket at "${bucket.startKey}" shrank to ${JSON.stringify(bucket.counts)}`,
    );
    if (this.#isFull(bucket)) this.#tryToHalve(index, rowSizes);
    else if (change.bytes < 0 || change.largeBytes < 0) this.#maybeJoin(index);
  }

  /** The bucket boundary that comes nearest to halving the tablet; null when there is none. */
  middle(measure: "bytes" | "largeBytes"): { key: string; before: Counts; after: Counts } | null {
    let best: { key: string; before: Counts; after: Counts } | null = null;
    let before = NO_COUNTS;
    for (const [index, bucket] of this.#buckets.entries()) {
      const after = difference(this.#total, before);
      const larger = Math.max(before[measure], after[measure]);
      if (index > 0 && (best === null || larger < larges(best, measure))) {
        best = { key: bucket.startKey, before, after };
      }
      before = sum(before, bucket.counts);
    }
    return best;
  }

  /** Keeps what lies before `key` and returns the rest. Reads at most one bucket. */
  cutAt(key: string, rowSizes: RowSizes): KeyBuckets {
    let index = this.#indexOf(key);
    if (this.#buckets[index]!.startKey !== key) this.#cutBucket(index++, key, rowSizes);
    const rest = this.#buckets.splice(index);
    const right = new KeyBuckets({ startKey: key, endKey: this.#endKey }, this.#limits);
    right.#buckets = rest;
    right.#total = right.#recount();
    this.#endKey = key;
    this.#total = this.#recount();
    return right;
  }

  /** Takes in the buckets of the tablet that follows. */
  append(right: KeyBuckets): void {
    const seam = this.#buckets.length;
    this.#buckets.push(...right.#buckets);
    this.#endKey = right.#endKey;
    this.#total = this.#recount();
    this.#maybeJoin(seam);
  }

  /**
   * Compares one bucket, `index` modulo their number, with what the store holds.
   *
   * @returns a sentence when they differ
   */
  audit(index: number, rowSizes: RowSizes): string | null {
    const at = index % this.#buckets.length, bucket = this.#buckets[at]!;
    let found = NO_COUNTS;
    for (const row of rowSizes({ startKey: bucket.startKey, endKey: this.#endOf(at) })) {
      found = sum(found, { ...row, rows: 1 });
    }
    return sameCounts(found, bucket.counts)
      ? null
      : `the bucket at "${bucket.startKey}" counts ${JSON.stringify(bucket.counts)}, the store ` +
        `holds ${JSON.stringify(found)}`;
  }

  #recount(): Counts {
    let total = NO_COUNTS;
    this.#keyBytes = 0;
    for (const { counts, startKey } of this.#buckets) {
      total = sum(total, counts);
      this.#keyBytes += startKey.length;
    }
    return total;
  }

  #isFull({ counts }: Bucket): boolean {
    const { bytesMax, largeBytesMax } = this.#limits;
    return counts.rows > 1 && (counts.bytes > bytesMax || counts.largeBytes > largeBytesMax);
  }

  #tryToHalve(index: number, rowSizes: RowSizes): void {
    const bucket = this.#buckets[index]!;
    const weight = bucket.counts.bytes + bucket.counts.largeBytes;
    if (weight < (bucket.tryAgainAt ?? 0)) return;
    try {
      this.#halve(index, rowSizes);
    } catch (error) {
      // The write that made the bucket full is sound; a row beside it must not stop it.
      if (!(error instanceof CorruptionError)) throw error;
      bucket.tryAgainAt = weight + this.#limits.bytesMax;
    }
  }

  /** Cuts a full bucket where the larger part comes out smallest. */
  #halve(index: number, rowSizes: RowSizes): void {
    const bucket = this.#buckets[index]!, { counts } = bucket;
    const measure = counts.bytes > this.#limits.bytesMax ? "bytes" : "largeBytes";
    let before = NO_COUNTS, best: { key: string; before: Counts; larger: number } | null = null;
    for (const size of rowSizes({ startKey: bucket.startKey, endKey: this.#endOf(index) })) {
      const larger = Math.max(before[measure], counts[measure] - before[measure]);
      if (before.rows > 0) {
        if (best !== null && larger >= best.larger) break;
        best = { key: size.row, before, larger };
      }
      before = sum(before, { ...size, rows: 1 });
    }
    if (best === null) return;
    this.#insertCut(index, best.key, best.before);
    this.#maybeJoin(index + 1);
    this.#maybeJoin(index);
  }

  #cutBucket(index: number, key: string, rowSizes: RowSizes): void {
    let before = NO_COUNTS;
    for (const size of rowSizes({ startKey: this.#buckets[index]!.startKey, endKey: key })) {
      before = sum(before, { ...size, rows: 1 });
    }
    this.#insertCut(index, key, before);
  }

  #insertCut(index: number, key: string, before: Counts): void {
    const bucket = this.#buckets[index]!;
    const after = difference(bucket.counts, before);
    invariant(
      after.rows >= 0 && after.cells >= 0 && after.bytes >= 0 && after.largeBytes >= 0,
      "A8",
      () => `the bucket at "${bucket.startKey}" holds less than its rows before "${key}"`,
    );
    bucket.counts = before;
    this.#buckets.splice(index + 1, 0, { startKey: key, counts: after });
    this.#keyBytes += key.length;
  }

  /** Joins a bucket with the one after it or before it when both are small. */
  #maybeJoin(index: number): void {
    this.#joinAt(index + 1);
    this.#joinAt(index);
  }

  /** Joins the bucket at `index` with the one before it. */
  #joinAt(index: number): void {
    const left = this.#buckets[index - 1], right = this.#buckets[index];
    if (left === undefined || right === undefined) return;
    const together = sum(left.counts, right.counts);
    const { bytesMax, largeBytesMax } = this.#limits;
    if (together.bytes > bytesMax * TOGETHER || together.largeBytes > largeBytesMax * TOGETHER) {
      return;
    }
    left.counts = together;
    this.#buckets.splice(index, 1);
    this.#keyBytes -= right.startKey.length;
  }

  #endOf(index: number): string | null {
    return this.#buckets[index + 1]?.startKey ?? this.#endKey;
  }

  /** The last bucket that begins at or before the row. */
  #indexOf(row: string): number {
    let low = 0, high = this.#buckets.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (compareKeys(this.#buckets[middle]!.startKey, row) <= 0) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

export function sum(a: Counts, b: Counts): Counts {
  return {
    rows: a.rows + b.rows,
    cells: a.cells + b.cells,
    bytes: a.bytes + b.bytes,
    largeBytes: a.largeBytes + b.largeBytes,
  };
}

export function sameCounts(a: Counts, b: Counts): boolean {
  return a.rows === b.rows && a.cells === b.cells && a.bytes === b.bytes &&
    a.largeBytes === b.largeBytes;
}

function difference(a: Counts, b: Counts): Counts {
  return {
    rows: a.rows - b.rows,
    cells: a.cells - b.cells,
    bytes: a.bytes - b.bytes,
    largeBytes: a.largeBytes - b.largeBytes,
  };
}

const larges = (cut: { before: Counts; after: Counts }, measure: "bytes" | "largeBytes") =>
  Math.max(cut.before[measure], cut.after[measure]);
