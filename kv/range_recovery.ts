/**
 * The range map made anew when the coordinator's records are lost or old, from what the groups serve.
 *
 * Asked for by a person (`admin recover-meta`), who has every backend up: each says which map it heard of
 * last, and then each group's serving primary says which tablets it has. A group serves a tablet that came
 * to it only after the commit, and gives up one of its own only after the other serves; so of a move that
 * was under way
 *
 *   - what the other group serves already was committed, whatever this one still has of it;
 *   - what some living node heard to be committed was; it may be about to act on it;
 *   - anything else nobody has acted on, so it may be called off: a move that is in no record is over.
 *
 * Pure: `recoveredMap` gives the map, or a sentence about what it still waits for.
 */
import type { TabletClaim } from "../proto/control.ts";
import type { GroupId } from "../proto/ids.ts";
import type { MoveRecord, OwnedRange, RangeMap } from "../proto/moves.ts";
import { compareKeys } from "./key_order.ts";
import { joined, overlaps, rangeText } from "./range_map.ts";

export interface RangeEvidence {
  readonly groups: readonly GroupId[];
  /** By group: what its serving primary has now. */
  readonly claims: ReadonlyMap<GroupId, readonly TabletClaim[]>;
  /** What nodes heard of the records. */
  readonly known: readonly RangeMap[];
  /** The newest that anybody knows of. */
  readonly version: number;
  readonly moveId: number;
}

interface Claim extends TabletClaim {
  readonly gid: GroupId;
}

export function recoveredMap(evidence: RangeEvidence): RangeMap | string {
  const { groups, claims, version, moveId } = evidence;
  const silent = groups.filter((gid) => !claims.has(gid));
  if (silent.length > 0) return `group ${silent.join(", ")} is not served`;
  const all: Claim[] = [...claims].flatMap(([gid, tablets]) =>
    tablets.map((tablet) => ({ ...tablet, gid }))
  );
  const moves = all.flatMap((claim) => committedMove(claim, all, evidence) ?? []);
  const isGone = (claim: Claim) =>
    moves.some(({ from, tabletId }) => from === claim.gid && tabletId === claim.id);
  const ranges: OwnedRange[] = all.filter((claim) => !isGone(claim))
    .map(({ startKey, endKey, gid }) => ({ startKey, endKey, gid }));
  for (const { startKey, endKey, to } of moves) {
    const range = { startKey, endKey };
    const isServed = ranges.some((owned) => owned.gid === to && overlaps(owned, range));
    if (!isServed) ranges.push({ ...range, gid: to });
  }
  ranges.sort((a, b) => compareKeys(a.startKey, b.startKey));
  const problem = whyNoTiling(ranges);
  if (problem !== null) return problem;
  return {
    version: version + 1,
    nextMoveId: moveId + 1,
    ranges: joined(ranges),
    moves,
    ended: [],
  };
}

/** The record of the move that takes this tablet away, where that was committed. */
function committedMove(
  { gid, id: tabletId, generation, startKey, endKey, departure }: Claim,
  all: readonly Claim[],
  { known }: RangeEvidence,
): MoveRecord | null {
  if (departure === undefined) return null;
  const { moveId, to } = departure, range = { startKey, endKey };
  const isServed = all.some((other) => other.gid === to && overlaps(other, range));
  const isKnown = known.some(({ moves }) =>
    moves.some(({ id, state }) => id === moveId && state === "committed")
  );
  if (!isServed && !isKnown) return null;
  const record = { id: moveId, tabletId, generation, from: gid, to, ...range };
  return { ...record, state: "committed", reason: "" };
}

/** A group may not have said yet what it does now. */
function whyNoTiling(ranges: readonly OwnedRange[]): string | null {
  let at: string | null = "";
  for (const range of ranges) {
    if (at === null || compareKeys(range.startKey, at) < 0) {
      return `${rangeText(range)} of group ${range.gid} is another group's as well`;
    }
    if (range.startKey !== at) return `no group has the rows from "${at}" on`;
    at = range.endKey;
  }
  return at === null ? null : `no group has the rows from "${at}" on`;
}
