/**
 * Which group owns which range of rows, and which tablets are on their way from one to another: the
 * truth between groups, one durable document of the coordinator that changes only by compare-and-swap
 * on its version.
 *
 * Pure functions: each takes a map and gives the next one, or a sentence why there is none. A move is
 *
 *     (none) -> copying -> committed -> (none)
 *                     \--> aborted ---> (none)
 *
 * and `copying -> committed` is what changes the owner. B4: the ranges are in order, without gap or
 * overlap, from the first key to the end, so each row has exactly one owner.
 */
import type { GroupPlan } from "../proto/cluster_config.ts";
import { type GroupId, groupId } from "../proto/ids.ts";
import type { MoveRecord, OwnedRange, RangeMap } from "../proto/moves.ts";
import { invariant } from "./invariant.ts";
import { compareKeys, inRange } from "./key_order.ts";
import { mutated } from "./mutant.ts";
import type { KeyRange } from "./tablets.ts";

const ENDED_MAX = 20;

/** As the configuration divides the rows at the first start. */
export function firstRangeMap(plans: readonly GroupPlan[]): RangeMap {
  const ranges = plans.map(({ id, startKey, endKey }) => ({ startKey, endKey, gid: groupId(id) }));
  return checked({ version: 1, nextMoveId: 1, ranges, moves: [], ended: [] });
}

/** A move begins: it is COPYING, and nothing has changed for any reader or writer. */
export function beginMove(
  map: RangeMap,
  wish: Omit<MoveRecord, "id" | "state" | "reason">,
): RangeMap | string {
  const { from, to, startKey, endKey, tabletId } = wish;
  const name = `tablet ${from}.${tabletId}`;
  if (from === to) return `Cannot move ${name} to group ${to}: it is there already`;
  for (const gid of [from, to]) {
    const other = map.moves.find((move) => move.from === gid || move.to === gid);
    if (other === undefined) continue;
    return `Cannot move ${name} to group ${to}: tablet ${other.from}.${other.tabletId} is being ` +
      `moved from group ${other.from} to group ${other.to}, and a group takes part in one move at a time`;
  }
  if (!owns(map, from, wish)) {
    return `Cannot move ${name}: group ${from} does not own ${rangeText({ startKey, endKey })}`;
  }
  const record: MoveRecord = { ...wish, id: map.nextMoveId, state: "copying", reason: "" };
  return changed(map, { nextMoveId: map.nextMoveId + 1, moves: [...map.moves, record] });
}

/** The commit point: the range is the other group's from here on. */
export function commitMove(map: RangeMap, id: number): RangeMap | string {
  const move = map.moves.find((item) => item.id === id);
  if (move?.state !== "copying") return `Move ${id} is ${move?.state ?? "over"}`;
  return changed(map, {
    ranges: withOwner(map.ranges, move, move.to),
    moves: replaced(map, { ...move, state: "committed" }),
  });
}

export function abortMove(map: RangeMap, id: number, reason: string): RangeMap | string {
  const move = map.moves.find((item) => item.id === id);
  const isOpen = move?.state === "copying" ||
    mutated("committed-move-aborted") && move?.state === "committed";
  if (move === undefined || !isOpen) return `Move ${id} is ${move?.state ?? "over"}`;
  const aborted = { ...move, state: "aborted" as const, reason: reason.slice(0, 300) };
  return changed(map, { moves: replaced(map, aborted) });
}

/** Both groups have done what the outcome asks for. */
export function endMove(map: RangeMap, id: number): RangeMap | string {
  const move = map.moves.find((item) => item.id === id);
  if (move === undefined || move.state === "copying") {
    return `Move ${id} is ${move?.state ?? "over"}`;
  }
  const ended = { id, outcome: move.state, reason: move.reason };
  return changed(map, {
    moves: map.moves.filter((item) => item !== move),
    ended: [...map.ended, ended].slice(-ENDED_MAX),
  });
}

export const ownerOf = (map: RangeMap, row: string): GroupId =>
  map.ranges.find(({ startKey, endKey }) => inRange(row, startKey, endKey))!.gid;

/** Whether all of a range is this group's. */
function owns(map: RangeMap, gid: GroupId, range: KeyRange): boolean {
  return map.ranges.every((item) => item.gid === gid || !overlaps(item, range));
}

export function overlaps(a: KeyRange, b: KeyRange): boolean {
  const before = (end: string | null, start: string) =>
    end !== null && compareKeys(end, start) <= 0;
  return !before(a.endKey, b.startKey) && !before(b.endKey, a.startKey);
}

function withOwner(ranges: readonly OwnedRange[], moved: KeyRange, gid: GroupId): OwnedRange[] {
  const { startKey, endKey } = moved;
  const next: OwnedRange[] = [];
  for (const range of ranges) {
    if (!overlaps(range, moved)) {
      next.push(range);
      continue;
    }
    if (compareKeys(range.startKey, startKey) < 0) next.push({ ...range, endKey: startKey });
    if (range.endKey === endKey || isBefore(endKey, range.endKey)) {
      next.push({ startKey, endKey, gid });
    }
    if (isBefore(endKey, range.endKey)) next.push({ ...range, startKey: endKey! });
  }
  return joined(next);
}

const isBefore = (end: string | null, other: string | null) =>
  end !== null && (other === null || compareKeys(end, other) < 0);

/** Neighbours of one group are one range. */
export function joined(ranges: readonly OwnedRange[]): OwnedRange[] {
  const all: OwnedRange[] = [];
  for (const range of ranges) {
    const last = all.at(-1);
    if (last?.gid === range.gid && last.endKey === range.startKey) last.endKey = range.endKey;
    else all.push({ ...range });
  }
  return all;
}

const replaced = (map: RangeMap, next: MoveRecord) =>
  map.moves.map((move) => move.id === next.id ? next : move);

function changed(map: RangeMap, change: Partial<RangeMap>): RangeMap {
  return checked({ ...map, ...change, version: map.version + 1 });
}

function checked(map: RangeMap): RangeMap {
  let at: string | null = "";
  for (const { startKey, endKey } of map.ranges) {
    const isNext: boolean = at === startKey &&
      (endKey === null || compareKeys(startKey, endKey) < 0);
    invariant(isNext, "B4", () => `the ranges ${map.ranges.map(rangeText).join(" ")} do not tile`);
    at = endKey;
  }
  invariant(at === null, "B4", () => `the ranges end at "${at}"`);
  return map;
}

export const rangeText = ({ startKey, endKey }: KeyRange) =>
  `["${startKey}", ${endKey === null ? "" : `"${endKey}"`})`;
