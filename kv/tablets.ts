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
 * Invariant A8: tablets are in order and disjoint, every row that is here lies in one, and their counts
 * are what the store holds (sampled, see {@link Tablets.audit}). They cover the group's first range without
 * a gap until some of it moves to another group, or rows of another come here (tablet_move.ts).
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
import { overlaps, rangeText } from "./range_map.ts";

export interface KeyRange {
  readonly startKey: string;
  readonly endKey: string | null;
}

/**
 * `serving`: the group's own. `arriving`: being staged by a move (tablet_move.ts), nobody can see it.
 * `leaving`: what is left of one that is another group's, or of a move that came to nothing.
 */
const TabletState = z.enum(["serving", "arriving", "leaving"]);
export type TabletState = z.infer<typeof TabletState>;

/** Of a tablet that is being moved away. */
const Departure = z.object({
  moveId: z.int().positive(),
  to: z.int().positive(),
  stage: z.enum(["copying", "barred", "frozen"]),
});
export type Departure = z.infer<typeof Departure>;

/** Of a tablet that is being staged. */
const Arrival = z.object({
  moveId: z.int().positive(),
  /** The last piece came from this reign of the other group, and was its so-many-th. */
  reign: z.int(),
  seq: z.int().nonnegative(),
  /** Sum over what is staged, as the state's hash is one over all cells. */
  hash: z.tuple([z.int(), z.int()]),
  /** The position that was given with the seal; null while there is none. */
  sealedAt: z.int().nonnegative().nullable(),
});
export type Arrival = z.infer<typeof Arrival>;

/** One tablet as others see it. */
export interface Tablet extends KeyRange {
  readonly id: number;
  readonly generation: number;
  /** Its first key was chosen by a person, so it is not merged away by itself. */
  readonly byHand: boolean;
  readonly state: TabletState;
  /** The position as of which it is the group's: snapshots of before do not know it. */
  readonly since: number;
  readonly departure?: Departure;
  readonly arrival?: Arrival;
  readonly counts: Counts;
}

/** What says whether a tablet may be read. */
export type TabletStanding = {
  readonly state: TabletState;
  readonly since: number;
  readonly departure?: Departure | undefined;
};

export const SavedTablets = z.object({
  nextId: z.int().positive(),
  /** The range that the group began with. */
  home: z.object({ startKey: z.string(), endKey: z.string().nullable() }),
  /** The highest move that is over here. */
  lastMoveId: z.int().nonnegative(),
  tablets: z.array(z.object({
    id: z.int().positive(),
    generation: z.int().positive(),
    byHand: z.boolean(),
    state: TabletState,
    since: z.int().nonnegative(),
    departure: Departure.optional(),
    arrival: Arrival.optional(),
    startKey: z.string(),
    endKey: z.string().nullable(),
    buckets: SavedBuckets,
  })),
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
  state: TabletState;
  since: number;
  departure?: Departure | undefined;
  arrival?: Arrival | undefined;
  readonly startKey: string;
  endKey: string | null;
  readonly buckets: KeyBuckets;
}

export class Tablets {
  /** The range that the group began with. */
  readonly #home: KeyRange;
  readonly #limits: BucketLimits;
  /** By start key, those that others do not see among them. */
  readonly #tablets: OwnTablet[];
  #nextId: number;
  #lastMoveId: number;
  /** All rows of the group's first range are its own, nothing is on its way, and so it was always. */
  #isPlain = true;
  #auditIndex = 0;

  /** @throws when what was saved is of a group that began with another range */
  constructor(range: KeyRange, limits: BucketLimits, saved?: SavedTablets) {
    const { startKey, endKey } = range;
    this.#home = { startKey, endKey };
    this.#limits = limits;
    this.#nextId = saved?.nextId ?? 2;
    this.#lastMoveId = saved?.lastMoveId ?? 0;
    this.#tablets = saved?.tablets.map(({ buckets, ...tablet }) => ({
      ...tablet,
      buckets: new KeyBuckets(tablet, limits, buckets),
    })) ?? [{
      id: 1,
      generation: 1,
      byHand: false,
      state: "serving",
      since: 0,
      startKey,
      endKey,
      buckets: new KeyBuckets(range, limits),
    }];
    const home = saved?.home ?? this.#home;
    if (home.startKey !== startKey || home.endKey !== endKey) {
      throw new Error(
        `Cannot open the group: its tablets cover ${rangeText(home)}, the configuration ` +
          `says ${rangeText(range)} (store.split_keys is read at the first start only)`,
      );
    }
    this.#checkOrder();
  }

  /** Of those that the group serves. */
  get count(): number {
    return this.#isPlain ? this.#tablets.length : this.list().length;
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

  /** Those that the group serves. */
  list(): Tablet[] {
    return this.all().filter(({ state }) => state === "serving");
  }

  /** Also those that are on their way, and what is left of others. */
  all(): Tablet[] {
    return this.#tablets.map(viewOf);
  }

  get isPlain(): boolean {
    return this.#isPlain;
  }

  /** As `at(row)?.id`, for those who ask often; 0 where there is none. */
  idAt(row: string): number {
    return this.#at(row)?.id ?? 0;
  }

  /** The tablet that a row belongs to, whatever its state. */
  at(row: string): Tablet | undefined {
    const tablet = this.#at(row);
    return tablet === undefined ? undefined : viewOf(tablet);
  }

  /** Whether the group may be asked for the row, and if it may be written. */
  accessTo(row: string): "open" | "barred" | "frozen" | "none" {
    const tablet = this.#at(row);
    if (tablet?.state !== "serving") return "none";
    const stage = tablet.departure?.stage ?? "copying";
    return stage === "copying" ? "open" : stage;
  }

  /**
   * The rows around `row` that can be read in one go: of tablets without a gap between them that `may`
   * be read. Null when the row's own may not.
   */
  runAt(row: string, may: (tablet: TabletStanding) => boolean): KeyRange | null {
    // Where nothing ever moved, all are read alike.
    if (this.#isPlain) {
      return this.#at(row) !== undefined && may(this.#tablets[0]!) ? this.#home : null;
    }
    let index = this.#indexOf(row);
    const isPart = (at: number) => {
      const tablet = this.#tablets[at];
      return tablet !== undefined && tablet.state === "serving" && may(tablet);
    };
    if (this.#at(row) === undefined || !isPart(index)) return null;
    let last = index;
    while (isPart(last + 1) && this.#tablets[last]!.endKey === this.#tablets[last + 1]!.startKey) {
      last += 1;
    }
    while (
      isPart(index - 1) && this.#tablets[index - 1]!.endKey === this.#tablets[index]!.startKey
    ) {
      index -= 1;
    }
    return { startKey: this.#tablets[index]!.startKey, endKey: this.#tablets[last]!.endKey };
  }

  /** Where one tablet is best split by its bytes or by those of its large values. */
  middleOf(
    id: number,
    measure: "bytes" | "largeBytes",
  ): { key: string; before: Counts; after: Counts } | null {
    return this.#tablets.find((tablet) => tablet.id === id)?.buckets.middle(measure) ?? null;
  }

  save(): SavedTablets {
    const tablets = this.#tablets.map(({ buckets, departure, ...tablet }) => ({
      ...tablet,
      ...(departure === undefined || mutated("departure-not-checkpointed") ? {} : { departure }),
      buckets: buckets.save(),
    }));
    return {
      nextId: mutated("tablet-ids-reused") ? 2 : this.#nextId,
      home: this.#home,
      lastMoveId: this.#lastMoveId,
      tablets,
    };
  }

  /** What the state hash says of the tablets: everything that replicas have to agree on. */
  *identities(): Iterable<string> {
    for (const { id, generation, byHand, startKey, endKey, buckets, ...tablet } of this.#tablets) {
      yield JSON.stringify([id, generation, byHand, startKey, endKey, buckets.counts]);
      const { state, since, departure, arrival } = tablet;
      if (state === "serving" && since === 0 && departure === undefined) continue;
      yield JSON.stringify([id, state, since, departure ?? null, arrival ?? null]);
    }
  }

  add(row: string, change: Counts, rowSizes: RowSizes): void {
    const tablet = this.#at(row);
    invariant(tablet !== undefined, "A8", () => `row "${row}" changes, but is in no tablet`);
    tablet.buckets.add(row, change, rowSizes);
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
      state: "serving",
      since: left.since,
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
    if (left.endKey !== this.#tablets[index + 1]!.startKey) return false;
    const [right] = this.#tablets.splice(index + 1, 1);
    if (!mutated("merge-counts-lost")) left.buckets.append(right!.buckets);
    left.endKey = right!.endKey;
    left.since = Math.max(left.since, right!.since);
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

  // -------------------------------------------------------------------------- moves

  /** The tablet that a move takes away from here. */
  departing(moveId: number): Tablet | undefined {
    const tablet = this.#tablets.find(({ departure }) => departure?.moveId === moveId);
    return tablet === undefined ? undefined : viewOf(tablet);
  }

  /** The tablet that a move brings here. */
  arriving(moveId: number): Tablet | undefined {
    const tablet = this.#tablets.find(({ arrival }) => arrival?.moveId === moveId);
    return tablet === undefined ? undefined : viewOf(tablet);
  }

  /** The highest move that this group ever took part in. */
  get knownMoveId(): number {
    const ids = this.#tablets.map(({ arrival, departure }) =>
      arrival?.moveId ?? departure?.moveId ?? 0
    );
    return Math.max(this.#lastMoveId, ...ids);
  }

  /** The highest move that is over here, whichever way it went. */
  get lastMoveId(): number {
    return this.#lastMoveId;
  }

  /** A tablet begins to be moved away; it keeps its shape until that is over. */
  depart(
    { moveId, tablet: ref, to, startKey, endKey }: {
      readonly moveId: number;
      readonly tablet: TabletRef;
      readonly to: number;
    } & KeyRange,
  ): string | null {
    if (moveId <= this.#lastMoveId) return `move ${moveId} is over here`;
    if (this.departing(moveId) !== undefined) return null;
    const tablet = this.#tablets[this.#find(ref)];
    if (tablet === undefined || tablet.startKey !== startKey || tablet.endKey !== endKey) {
      return `tablet ${ref.id} is not what it was any more`;
    }
    tablet.departure = { moveId, to, stage: "copying" };
    this.#checkOrder();
    return null;
  }

  setStage(moveId: number, stage: Departure["stage"] | null): boolean {
    const tablet = this.#tablets.find(({ departure }) => departure?.moveId === moveId);
    if (tablet?.departure === undefined) return false;
    if (stage === null) this.#over(moveId);
    tablet.departure = stage === null ? undefined : { ...tablet.departure, stage };
    this.#checkOrder();
    return true;
  }

  /** A tablet that moved away, or that will not come: what is left of it is not the group's. */
  letGo(moveId: number): boolean {
    const tablet = this.#tablets.find(({ departure, arrival }) =>
      departure?.moveId === moveId || arrival?.moveId === moveId
    );
    if (tablet === undefined) return false;
    this.#over(moveId);
    tablet.state = "leaving";
    tablet.departure = undefined;
    tablet.arrival = undefined;
    this.#checkOrder();
    return true;
  }

  /** Makes place for what a move brings, or goes on with it in a later reign of the other group. */
  arrive(
    { moveId, reign, startKey, endKey }: {
      readonly moveId: number;
      readonly reign: number;
    } & KeyRange,
  ): string | null {
    if (moveId <= this.#lastMoveId) return `move ${moveId} is over here`;
    const known = this.#tablets.find(({ arrival }) => arrival?.moveId === moveId);
    if (known?.arrival !== undefined) {
      if (reign < known.arrival.reign) return "a later primary of the other group came first";
      if (reign > known.arrival.reign) {
        known.arrival = { ...known.arrival, reign, seq: 0, sealedAt: null };
      }
      return null;
    }
    if (this.#tablets.some((tablet) => overlaps(tablet, { startKey, endKey }))) {
      return "what is left of rows of this range is still being cleared away";
    }
    if (this.#nextId >= ID_MAX) return "the group has given out all numbers of tablets";
    this.#tablets.push({
      id: this.#nextId++,
      generation: 1,
      // A person wanted it here; it is not to be merged away at once.
      byHand: true,
      state: "arriving",
      since: 0,
      arrival: { moveId, reign, seq: 0, hash: [0, 0], sealedAt: null },
      startKey,
      endKey,
      buckets: new KeyBuckets({ startKey, endKey }, this.#limits),
    });
    this.#tablets.sort((a, b) => compareKeys(a.startKey, b.startKey));
    this.#checkOrder();
    return null;
  }

  setArrival(arrival: Arrival): void {
    this.#tablets.find((tablet) => tablet.arrival?.moveId === arrival.moveId)!.arrival = arrival;
  }

  /** What was staged is the group's. */
  activate(moveId: number, since: number): void {
    const tablet = this.#tablets.find(({ arrival }) => arrival?.moveId === moveId)!;
    this.#over(moveId);
    tablet.arrival = undefined;
    tablet.state = "serving";
    tablet.since = since;
    tablet.generation += 1;
    this.#checkOrder();
  }

  /** Nothing is left of it. */
  remove(id: number): void {
    const index = this.#tablets.findIndex((tablet) => tablet.id === id);
    const { rows, cells, bytes, largeBytes } = this.#tablets[index]!.buckets.counts;
    invariant(
      rows === 0 && cells === 0 && bytes === 0 && largeBytes === 0,
      "A8",
      () => `tablet ${id} is empty, but counts ${cells} cells`,
    );
    this.#tablets.splice(index, 1);
    this.#checkOrder();
  }

  #over(moveId: number): void {
    this.#lastMoveId = Math.max(this.#lastMoveId, moveId);
  }

  #at(row: string): OwnTablet | undefined {
    const tablet = this.#tablets[this.#indexOf(row)];
    if (tablet === undefined) return undefined;
    return inRange(row, tablet.startKey, tablet.endKey) ? tablet : undefined;
  }

  /** One that the group serves, in the shape that is meant, and not on its way to another. */
  #find({ id, generation }: TabletRef): number {
    return this.#tablets.findIndex((tablet) =>
      tablet.id === id && tablet.state === "serving" && tablet.departure === undefined &&
      (tablet.generation === generation || mutated("old-split-obeyed"))
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

  #checkOrder(): void {
    let at: string | null | undefined, hasGap = false, inOrder = true;
    for (const { startKey, endKey } of this.#tablets) {
      inOrder &&= endKey === null || compareKeys(startKey, endKey) < 0;
      if (at !== undefined) {
        inOrder &&= at !== null && compareKeys(at, startKey) <= 0;
        hasGap ||= at !== startKey;
      }
      at = endKey;
    }
    invariant(
      inOrder,
      "A8",
      () => `the tablets ${this.#tablets.map(rangeText).join(" ")} overlap or are in disorder`,
    );
    const { startKey, endKey } = this.#home;
    const all = this.#tablets;
    this.#isPlain = !hasGap && all.length > 0 && all[0]!.startKey === startKey &&
      all.at(-1)!.endKey === endKey &&
      this.#lastMoveId === 0 &&
      all.every(({ state, departure }) => state === "serving" && departure === undefined);
  }
}

/** Field by field: this is done for every tablet of a group, again and again. */
function viewOf(tablet: OwnTablet): Tablet {
  const { id, generation, byHand, state, since, startKey, endKey, departure, arrival } = tablet;
  const { counts } = tablet.buckets;
  const view = { id, generation, byHand, state, since, startKey, endKey, counts };
  if (departure === undefined && arrival === undefined) return view;
  return {
    ...view,
    ...(departure === undefined ? {} : { departure }),
    ...(arrival === undefined ? {} : { arrival }),
  };
}
