/**
 * When a primary splits a tablet or merges two, and where: pure rules over the counts of tablets.ts.
 *
 * A tablet above its limit is split at the row boundary nearest to the middle of its bytes. What one
 * huge row makes too large stays as it is, because splitting off crumbs beside that row would not
 * help. Neighbours are merged when they would together fill less than a quarter of the limit, so that
 * a merged tablet has to quadruple before it is split again, and only a while after the last split.
 * A boundary that a person asked for stays until a person takes it away.
 */
import type { Counts } from "./key_buckets.ts";
import type { Tablet, Tablets } from "./tablets.ts";

export interface TabletLimits {
  /** Bytes in memory and checkpoints above which a tablet is split. */
  readonly bytesMax: number;
  /** Bytes in files of their own above which a tablet is split. */
  readonly largeBytesMax: number;
}

/** What a person may ask for: a boundary at `key`, or none there. */
export interface TabletChange {
  readonly kind: "split" | "merge";
  readonly key: string;
}

/** A change as the log records it, without the time. */
export type TabletOrder =
  | {
    readonly kind: "split";
    readonly tablet: { readonly id: number; readonly generation: number };
    readonly key: string;
    readonly leftId: number;
    readonly rightId: number;
    readonly byHand: boolean;
  }
  | {
    readonly kind: "merge";
    readonly left: { readonly id: number; readonly generation: number };
    readonly right: { readonly id: number; readonly generation: number };
  };

/** A group's tablets travel in every report of its primary, so there is an end to their number. */
export const TABLETS_MAX = 256;
/** Neighbours below this share of the limits are merged. */
const MERGE_BELOW = 1 / 4;
/** The smaller half of a split has at least this share of the limit, or it would not help. */
const CRUMB = 1 / 8;
/** What was just split may be about to grow; what was just merged has been small for longer. */
export const MERGE_AFTER_SPLIT_MS = 10_000;
export const MERGE_AFTER_MERGE_MS = 1_000;

/** The next change that the sizes ask for, or null. */
export function nextChange(
  tablets: Tablets,
  limits: TabletLimits,
  mayMerge: boolean,
): TabletOrder | null {
  const list = tablets.list();
  return nextSplit(tablets, list, limits) ?? (mayMerge ? nextMerge(list, limits) : null);
}

/** The order for what a person asked for, or a sentence why it cannot be done. */
export function orderFor(tablets: Tablets, change: TabletChange): TabletOrder | string {
  const { kind, key } = change;
  const list = tablets.list();
  const tablet = tablets.at(key);
  if (tablet?.state !== "serving") {
    return `Cannot ${kind} at "${key}": it is not in the group's range`;
  }
  if (tablet.departure !== undefined) {
    return `Cannot ${kind} at "${key}": the tablet is being moved to group ${tablet.departure.to}`;
  }
  if (kind === "split") {
    if (tablet.startKey === key) return `Cannot split at "${key}": a tablet begins there already`;
    if (list.length >= TABLETS_MAX) {
      return `Cannot split at "${key}": the group has ${list.length} tablets, which is the limit`;
    }
    return splitOrder(tablets, tablet, { key, byHand: true });
  }
  const index = list.findIndex(({ id }) => id === tablet.id);
  if (tablet.startKey !== key) return `Cannot merge at "${key}": no tablet begins there`;
  const left = list[index - 1];
  if (left === undefined || left.endKey !== key) {
    return `Cannot merge at "${key}": the tablet before it belongs to another group`;
  }
  if (left.departure !== undefined) {
    return `Cannot merge at "${key}": the tablet before it is being moved to group ` +
      `${left.departure.to}`;
  }
  return mergeOrder(left, tablet);
}

function nextSplit(
  tablets: Tablets,
  list: readonly Tablet[],
  limits: TabletLimits,
): TabletOrder | null {
  if (list.length >= TABLETS_MAX) return null;
  for (const measure of ["bytes", "largeBytes"] as const) {
    const max = measure === "bytes" ? limits.bytesMax : limits.largeBytesMax;
    for (const tablet of list) {
      if (tablet.counts[measure] <= max || tablet.departure !== undefined) continue;
      const middle = tablets.middleOf(tablet.id, measure);
      if (middle === null) continue;
      if (Math.min(middle.before[measure], middle.after[measure]) < max * CRUMB) continue;
      return splitOrder(tablets, tablet, { key: middle.key, byHand: false });
    }
  }
  return null;
}

function nextMerge(list: readonly Tablet[], limits: TabletLimits): TabletOrder | null {
  for (let i = 1; i < list.length; i++) {
    const left = list[i - 1]!, right = list[i]!;
    const mayMerge = !right.byHand && left.endKey === right.startKey &&
      left.departure === undefined && right.departure === undefined;
    if (mayMerge && isSmall([left.counts, right.counts], limits)) {
      return mergeOrder(left, right);
    }
  }
  return null;
}

function isSmall([left, right]: readonly [Counts, Counts], limits: TabletLimits): boolean {
  return left.bytes + right.bytes < limits.bytesMax * MERGE_BELOW &&
    left.largeBytes + right.largeBytes < limits.largeBytesMax * MERGE_BELOW;
}

function splitOrder(
  tablets: Tablets,
  tablet: Tablet,
  { key, byHand }: { key: string; byHand: boolean },
): TabletOrder {
  const { id, generation } = tablet;
  const rightId = tablets.nextId;
  return { kind: "split", tablet: { id, generation }, key, leftId: id, rightId, byHand };
}

function mergeOrder(left: Tablet, right: Tablet): TabletOrder {
  return {
    kind: "merge",
    left: { id: left.id, generation: left.generation },
    right: { id: right.id, generation: right.generation },
  };
}
