/** Who owns which rows: how a move changes it, and that nothing else does (B4). */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  abortMove,
  beginMove,
  commitMove,
  endMove,
  firstRangeMap,
  ownerOf,
} from "../../kv/range_map.ts";
import { groupId } from "../../proto/ids.ts";
import type { RangeMap } from "../../proto/moves.ts";

const PLANS = [
  { id: 1, startKey: "", endKey: "g", members: [0] },
  { id: 2, startKey: "g", endKey: "p", members: [1] },
  { id: 3, startKey: "p", endKey: null, members: [2] },
];

const wish = (from: number, to: number, startKey: string, endKey: string | null) => ({
  from: groupId(from),
  to: groupId(to),
  startKey,
  endKey,
  tabletId: 1,
  generation: 1,
});

function done(next: RangeMap | string): RangeMap {
  assert.notEqual(typeof next, "string", String(next));
  return next as RangeMap;
}

const begun = (map: RangeMap, ...args: Parameters<typeof wish>) =>
  done(beginMove(map, wish(...args)));
const text = ({ ranges }: RangeMap) =>
  ranges.map(({ startKey, endKey, gid }) => `${startKey}-${endKey ?? ""}:${gid}`).join(" ");

Deno.test("a move changes the owner at its commit, and at nothing else", () => {
  const first = firstRangeMap(PLANS);
  const copying = begun(first, 1, 3, "c", "e");
  assert.equal(text(copying), "-g:1 g-p:2 p-:3");
  const committed = done(commitMove(copying, 1));
  assert.equal(text(committed), "-c:1 c-e:3 e-g:1 g-p:2 p-:3");
  const over = done(endMove(committed, 1));
  assert.equal(text(over), text(committed));
  assert.deepEqual(over.ended, [{ id: 1, outcome: "committed", reason: "" }]);
  assert.deepEqual([first, copying, committed, over].map(({ version }) => version), [1, 2, 3, 4]);
});

Deno.test("an aborted move changes no owner, and says why", () => {
  const aborted = done(abortMove(begun(firstRangeMap(PLANS), 1, 2, "", "g"), 1, "too slow"));
  const over = done(endMove(aborted, 1));
  assert.equal(text(over), "-g:1 g-p:2 p-:3");
  assert.deepEqual(over.ended, [{ id: 1, outcome: "aborted", reason: "too slow" }]);
});

Deno.test("the first decision about a move stands", () => {
  const copying = begun(firstRangeMap(PLANS), 1, 2, "c", "e");
  const committed = done(commitMove(copying, 1));
  assert.match(String(abortMove(committed, 1, "")), /Move 1 is committed/);
  const aborted = done(abortMove(copying, 1, ""));
  assert.match(String(commitMove(aborted, 1)), /Move 1 is aborted/);
  assert.match(String(endMove(copying, 1)), /Move 1 is copying/);
  assert.match(String(commitMove(done(endMove(aborted, 1)), 1)), /Move 1 is over/);
});

Deno.test("a group takes part in one move at a time, and gives away only what it owns", () => {
  const map = begun(firstRangeMap(PLANS), 1, 2, "c", "e");
  assert.match(
    String(beginMove(map, wish(3, 1, "q", "r"))),
    /tablet 1.1 is being moved from group 1/,
  );
  assert.match(String(beginMove(map, wish(3, 2, "q", "r"))), /takes part in one move at a time/);
  const first = firstRangeMap(PLANS);
  assert.match(String(beginMove(first, wish(1, 1, "c", "e"))), /it is there already/);
  assert.match(String(beginMove(first, wish(1, 3, "e", "h"))), /group 1 does not own \["e", "h"\)/);
});

Deno.test("a group may give away all that it has, and get it back", () => {
  let map = firstRangeMap(PLANS);
  map = done(endMove(done(commitMove(begun(map, 2, 1, "g", "p"), 1)), 1));
  assert.equal(text(map), "-p:1 p-:3");
  map = done(endMove(done(commitMove(begun(map, 1, 2, "g", "p"), 2)), 2));
  assert.equal(text(map), "-g:1 g-p:2 p-:3");
});

Deno.test("whatever moves, every row has one owner, and only rows of the moved range another one", () => {
  const key = fc.constantFrom(..."abcdefghijklmnopqrstuvwxyz");
  const move = fc.record({
    to: fc.integer({ min: 1, max: 3 }),
    a: key,
    b: key,
    commits: fc.boolean(),
  });
  fc.assert(fc.property(fc.array(move, { maxLength: 30 }), (moves) => {
    let map = firstRangeMap(PLANS);
    for (const { to, a, b, commits } of moves) {
      const [startKey, endKey] = a < b ? [a, b] : [b, a];
      const from = ownerOf(map, startKey);
      const next = startKey === endKey ? "empty" : beginMove(map, wish(from, to, startKey, endKey));
      if (typeof next === "string") continue;
      const id = next.nextMoveId - 1;
      const decided = done(commits ? commitMove(next, id) : abortMove(next, id, ""));
      for (const row of "abcdefghijklmnopqrstuvwxyz") {
        const isMoved = commits && row >= startKey && row < endKey;
        assert.equal(ownerOf(decided, row), isMoved ? to : ownerOf(map, row));
      }
      map = done(endMove(decided, id));
    }
  }));
});
