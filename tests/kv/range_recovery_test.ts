/** The range map made anew from what groups serve, for every moment at which a move was interrupted. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { beginMove, commitMove, firstRangeMap } from "../../kv/range_map.ts";
import { type RangeEvidence, recoveredMap } from "../../kv/range_recovery.ts";
import type { TabletClaim } from "../../proto/control.ts";
import { groupId } from "../../proto/ids.ts";
import type { OwnedRange, RangeMap } from "../../proto/moves.ts";

const ONE = groupId(1), TWO = groupId(2);
const claim = (startKey: string, endKey: string | null, id = 1): TabletClaim => ({
  id,
  generation: 1,
  startKey,
  endKey,
});
const LEAVING = { ...claim("c", "g", 2), departure: { moveId: 5, to: TWO } };
const MOVED = claim("c", "g", 9);

function evidence(
  one: readonly TabletClaim[],
  two: readonly TabletClaim[],
  known: readonly RangeMap[] = [],
): RangeEvidence {
  return {
    groups: [ONE, TWO],
    claims: new Map([[ONE, one], [TWO, two]]),
    known,
    version: 8,
    moveId: 5,
  };
}

const text = (map: RangeMap | string) =>
  typeof map === "string"
    ? map
    : map.ranges.map(({ startKey, endKey, gid }) => `${startKey}-${endKey ?? ""}:${gid}`).join(" ");
const movesOf = (map: RangeMap | string) =>
  typeof map === "string" ? [] : map.moves.map(({ id, state, to }) => [id, state, to]);

/** In which move 5 was committed, or not yet. */
function heard(isCommitted: boolean): RangeMap {
  const wish = { from: ONE, to: TWO, startKey: "c", endKey: "g", tabletId: 2, generation: 1 };
  const first = firstRangeMap([
    { id: 1, startKey: "", endKey: "g", members: [0] },
    { id: 2, startKey: "g", endKey: null, members: [1] },
  ]);
  const begun = beginMove({ ...first, nextMoveId: 5 }, wish) as RangeMap;
  return isCommitted ? commitMove(begun, 5) as RangeMap : begun;
}

Deno.test("owners are those who serve, under a version and move numbers that nobody knows yet", () => {
  const map = recoveredMap(evidence([claim("", "c")], [MOVED, claim("g", null)]));
  assert.equal(text(map), "-c:1 c-:2");
  assert(typeof map !== "string");
  assert.deepEqual([map.version, map.nextMoveId, map.moves], [9, 6, []]);
});

Deno.test("what another group serves already was committed, though this one still has it", () => {
  const map = recoveredMap(evidence([claim("", "c"), LEAVING], [MOVED, claim("g", null)]));
  assert.equal(text(map), "-c:1 c-:2");
  assert.deepEqual(movesOf(map), [[5, "committed", TWO]]);
});

Deno.test("so was what a living node heard of, even if nobody serves it yet", () => {
  const claims = [[claim("", "c"), LEAVING], [claim("g", null)]] as const;
  const map = recoveredMap(evidence(...claims, [heard(false), heard(true)]));
  assert.equal(text(map), "-c:1 c-:2");
  assert.deepEqual(movesOf(map), [[5, "committed", TWO]]);
});

Deno.test("a move that nobody has acted on is over, and its tablet where it was", () => {
  const map = recoveredMap(
    evidence([claim("", "c"), LEAVING], [claim("g", null)], [heard(false)]),
  );
  assert.equal(text(map), "-g:1 g-:2");
  assert.deepEqual(movesOf(map), []);
});

Deno.test("without a word from every group, or with rows that are nobody's or two groups', there is no map", () => {
  const silent = { ...evidence([], []), claims: new Map([[ONE, [claim("", null)]]]) };
  assert.equal(text(recoveredMap(silent)), "group 2 is not served");
  // The one let it go, and the other has not said yet that it came.
  const gap = evidence([claim("", "c")], [claim("g", null)]);
  assert.equal(text(recoveredMap(gap)), 'no group has the rows from "c" on');
  const both = evidence([claim("", "g")], [claim("c", null)]);
  assert.equal(text(recoveredMap(both)), `["c", ) of group 2 is another group's as well`);
  assert.equal(
    text(recoveredMap(evidence([claim("", "g")], []))),
    'no group has the rows from "g" on',
  );
});

Deno.test("whoever serves what, the map gives each row to the group that serves it", () => {
  const cuts = fc.uniqueArray(fc.constantFrom(..."bcdefghijk"), { maxLength: 6 });
  const owners = fc.array(fc.constantFrom(1, 2, 3), { minLength: 7, maxLength: 7 });
  fc.assert(fc.property(cuts, owners, (keys, gids) => {
    const starts = ["", ...keys.toSorted()];
    const claims = new Map([1, 2, 3].map((gid) => [groupId(gid), [] as TabletClaim[]]));
    for (const [i, startKey] of starts.entries()) {
      claims.get(groupId(gids[i]!))!.push(claim(startKey, starts[i + 1] ?? null, i + 1));
    }
    const groups = [...claims.keys()];
    const map = recoveredMap({ groups, claims, known: [], version: 1, moveId: 0 });
    assert(typeof map !== "string");
    for (const [i, startKey] of starts.entries()) {
      const owner: OwnedRange = map.ranges.findLast((range) => range.startKey <= startKey)!;
      assert.equal(owner.gid, gids[i]);
    }
  }));
});
