/**
 * The tablets of one replica group: which there are, which range each has, and what it holds.
 *
 * Part of the replicated state: a split or a merge is a log entry that every replica applies at the
 * same place, between two writes. So it needs no agreement of its own, moves no data and refuses no
 * request; requests name their group and their row, and the group knows the tablet. Completion
 * records (completions.ts) belong to the group and stay valid through both.
 *
 * A tablet's id lives as long as its first key does: a split leaves it to the left half and gives the
 * right half a new one, a merge keeps the left one. Its generation rises with each change of its
 * range, so an order that was given for an earlier shape is recognised and has no effect.
 *
 * Invariant A8: tablets are in order, disjoint and cover the group's range without a gap; their
 * counts are what the store holds (sampled, see {@link Tablets.audit}).
 *
 * Follows Bigtable (Chang et al. 2006, §5.1), with the split in the log instead of a metadata table.
 * When to split and where is decided by the primary: tablet_policy.ts.
 */
import { z } from "zod";
import type { TabletRef } from "../proto/command.ts";
import { invariant } from "./invariant.ts";
import {
  type BucketLimits,
  type Counts,
  KeyBuckets,
  NO_COUNTS,
  type RowSizes,
  SavedBuckets,
  sum,
} from "./key_buckets.ts";
import { compareKeys, inRange } from "./key_order.ts";
import { mutated } from "./mutant.ts";

export interface KeyRange {
  readonly startKey: string;
  readonly endKey: string | null;
}

/** One tablet as others see it. */
export interface Tablet extends KeyRange {
  readonly id: number;
  readonly generation: number;
  /** Its first key was chosen by a person, so it is not merged away by itself. */
  readonly byHand: boolean;
  readonly counts: Counts;
}

export const SavedTablets = z.object({
  nextId: z.int().positive(),
  tablets: z.array(z.object({
    id: z.int().positive(),
    generation: z.int().positive(),
    byHand: z.boolean(),
    startKey: z.string(),
    endKey: z.string().nullable(),
    buckets: SavedBuckets,
  })).min(1),
});
export type SavedTablets = z.infer<typeof SavedTablets>;

export const DEFAULT_BUCKETS: BucketLimits = {
  bytesMax: 256 * 1024,
  largeBytesMax: 128 * 1024 * 1024,
};

/** Tablet numbers stay below this; more splits than that in one group's life are refused. */
const ID_MAX = 2 ** 31;

interface OwnTablet {
  readonly id: number;
  generation: number;
  readonly byHand: boolean;
  readonly startKey: string;
  endKey: string | null;
  readonly buckets: KeyBuckets;
}

export class Tablets {
  readonly #range: KeyRange;
  /** By start key; never empty. */
  readonly #tablets: OwnTablet[];
  #nextId: number;
  #auditIndex = 0;

  /** @throws when what was saved covers another range than the group has */
  constructor(range: KeyRange, limits: BucketLimits, saved?: SavedTablets) {
    this.#range = range;
    const { startKey, endKey } = range;
    this.#nextId = saved?.nextId ?? 2;
    this.#tablets = saved?.tablets.map(({ buckets, ...tablet }) => ({
      ...tablet,
      buckets: new KeyBuckets(tablet, limits, buckets),
    })) ?? [{
      id: 1,
      generation: 1,
      byHand: false,
      startKey,
      endKey,
      buckets: new KeyBuckets(range, limits),
    }];
    if (this.#tablets[0]!.startKey !== startKey || this.#tablets.at(-1)!.endKey !== endKey) {
      throw new Error(
        `Cannot open the group: its tablets cover ${
          rangeText(this.#covered())
        }, the configuration ` +
          `says ${rangeText(range)} (store.split_keys is read at the first start only)`,
      );
    }
    this.#checkOrder();
  }

  get count(): number {
    return this.#tablets.length;
  }

  /** The number that the next tablet gets. */
  get nextId(): number {
    return this.#nextId;
  }

  get counts(): Counts {
    let total = NO_COUNTS;
    for (const { buckets } of this.#tablets) total = sum(total, buckets.counts);
    return total;
  }

  /** What keeping the counts takes in memory. */
  get memoryBytes(): number {
    let bytes = 0;
    for (const { buckets } of this.#tablets) bytes += 256 + buckets.memoryBytes;
    return bytes;
  }

  list(): Tablet[] {
    return this.#tablets.map(viewOf);
  }

  /** As `at(row).id`, for those who ask often. */
  idAt(row: string): number {
    return this.#tablets[this.#indexOf(row)]!.id;
  }

  /** The tablet that a row of the group belongs to. */
  at(row: string): Tablet {
    return viewOf(this.#tablets[this.#indexOf(row)]!);
  }

  /** Where one tablet is best split by its bytes or by those of its large values. */
  middleOf(
    id: number,
    measure: "bytes" | "largeBytes",
  ): { key: string; before: Counts; after: Counts } | null {
    return this.#tablets.find((tablet) => tablet.id === id)?.buckets.middle(measure) ?? null;
  }

  save(): SavedTablets {
    const tablets = this.#tablets.map(({ buckets, ...tablet }) => ({
      ...tablet,
      buckets: buckets.save(),
    }));
    return { nextId: mutated("tablet-ids-reused") ? 2 : this.#nextId, tablets };
  }

  /** What the state hash says of the tablets: everything that replicas have to agree on. */
  *identities(): Iterable<string> {
    for (const { id, generation, byHand, startKey, endKey, buckets } of this.#tablets) {
      yield JSON.stringify([id, generation, byHand, startKey, endKey, buckets.counts]);
    }
  }

  add(row: string, change: Counts, rowSizes: RowSizes): void {
    this.#tablets[this.#indexOf(row)]!.buckets.add(row, change, rowSizes);
  }

  /** Splits a tablet in two at `key`. False, and nothing happens, when it has changed since. */
  split(
    order: { tablet: TabletRef; key: string; leftId: number; rightId: number; byHand: boolean },
    rowSizes: RowSizes,
  ): boolean {
    const { tablet, key, leftId, rightId, byHand } = order;
    const index = this.#find(tablet);
    if (index === -1 || rightId < this.#nextId || rightId >= ID_MAX || leftId !== tablet.id) {
      return false;
    }
    const left = this.#tablets[index]!;
    if (key === left.startKey || !inRange(key, left.startKey, left.endKey)) return false;
    const { endKey } = left;
    const before = left.buckets.counts;
    const buckets = left.buckets.cutAt(key, rowSizes);
    left.endKey = key;
    left.generation += 1;
    const { generation } = left;
    this.#tablets.splice(index + 1, 0, {
      id: rightId,
      generation,
      byHand,
      startKey: key,
      endKey,
      buckets,
    });
    this.#nextId = rightId + 1;
    const after = sum(left.buckets.counts, buckets.counts);
    invariant(
      before.cells === after.cells && before.bytes === after.bytes,
      "A8",
      () => `tablet ${tablet.id} of ${before.bytes} bytes was split into ${after.bytes}`,
    );
    this.#checkOrder();
    return true;
  }

  /** Merges two neighbours. False, and nothing happens, when one has changed since. */
  merge(order: { left: TabletRef; right: TabletRef }): boolean {
    const index = this.#find(order.left);
    if (index === -1 || this.#find(order.right) !== index + 1) return false;
    const left = this.#tablets[index]!;
    const [right] = this.#tablets.splice(index + 1, 1);
    if (!mutated("merge-counts-lost")) left.buckets.append(right!.buckets);
    left.endKey = right!.endKey;
    left.generation = Math.max(left.generation, right!.generation) + 1;
    this.#checkOrder();
    return true;
  }

  /**
   * A8, sampled: compares the counts of one bucket with the store, another one at each call. Reads
   * no more than a bucket's worth of cells.
   */
  audit(rowSizes: RowSizes): void {
    let index = this.#auditIndex++;
    for (const { id, buckets } of this.#tablets) {
      if (index >= buckets.bucketCount) {
        index -= buckets.bucketCount;
        continue;
      }
      const problem = buckets.audit(index, rowSizes);
      invariant(problem === null, "A8", () => `tablet ${id}: ${problem}`);
      return;
    }
    this.#auditIndex = 0;
  }

  #find({ id, generation }: TabletRef): number {
    return this.#tablets.findIndex((tablet) =>
      tablet.id === id && (tablet.generation === generation || mutated("old-split-obeyed"))
    );
  }

  #indexOf(row: string): number {
    let low = 0, high = this.#tablets.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (compareKeys(this.#tablets[middle]!.startKey, row) <= 0) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #covered(): KeyRange {
    const { startKey } = this.#tablets[0]!, { endKey } = this.#tablets.at(-1)!;
    return { startKey, endKey };
  }

  #checkOrder(): void {
    const { startKey, endKey } = this.#covered();
    let ok = startKey === this.#range.startKey && endKey === this.#range.endKey;
    for (let i = 1; i < this.#tablets.length && ok; i++) {
      const before = this.#tablets[i - 1]!, tablet = this.#tablets[i]!;
      ok = before.endKey === tablet.startKey && compareKeys(before.startKey, tablet.startKey) < 0;
    }
    invariant(
      ok,
      "A8",
      () => `the tablets ${this.#tablets.map(rangeText).join(" ")} do not cover the group's range`,
    );
  }
}

const viewOf = ({ buckets, ...tablet }: OwnTablet): Tablet => ({
  ...tablet,
  counts: buckets.counts,
});

const rangeText = ({ startKey, endKey }: KeyRange) =>
  `["${startKey}", ${endKey === null ? "" : `"${endKey}"`})`;
