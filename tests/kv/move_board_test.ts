/** When moves may begin, and how the coordinator ends them. */
import assert from "node:assert/strict";
import {
  MoveBoard,
  type MoveBoardEffect,
  type MoveBoardInput,
  NOT_NOW,
  PATIENCE_MS,
} from "../../kv/move_board.ts";
import { firstRangeMap } from "../../kv/range_map.ts";
import { groupId } from "../../proto/ids.ts";
import type { RangeMap } from "../../proto/moves.ts";

const PLANS = [
  { id: 1, startKey: "", endKey: "g", members: [0] },
  { id: 2, startKey: "g", endKey: null, members: [1] },
];
const WISH = {
  from: groupId(1),
  to: groupId(2),
  startKey: "c",
  endKey: "e",
  tabletId: 3,
  generation: 2,
};

class Bench {
  nowMs = 0;
  vouches = true;
  durable: RangeMap = firstRangeMap(PLANS);
  board = this.#open();
  answers: { refusal: string | null; state: string }[] = [];

  #open(): MoveBoard {
    const vouchesFor = () => this.vouches;
    const groups = PLANS.map(({ id }) => groupId(id));
    return new MoveBoard({ map: this.durable, nowMs: this.nowMs, groups, vouchesFor });
  }

  restart(): void {
    this.board = this.#open();
  }

  feed(input: MoveBoardInput): void {
    for (const effect of this.board.step(this.nowMs, input)) this.#perform(effect);
  }

  #perform(effect: MoveBoardEffect): void {
    if (effect.kind === "swapMap") {
      const done = effect.expected === this.durable.version;
      if (done) this.durable = effect.map;
      this.feed({ kind: "mapSwapped", done, map: this.durable });
    } else if (effect.kind === "answerMove") {
      const { refusal, map } = effect;
      this.answers.push({ refusal, state: map.moves[0]?.state ?? "none" });
    }
  }

  get state(): string {
    return this.durable.moves[0]?.state ?? "none";
  }
}

const BEGIN: MoveBoardInput = { kind: "begin", requestId: 1, wish: WISH };
const decide = (decision: "commit" | "abort"): MoveBoardInput => ({
  kind: "decide",
  requestId: 2,
  id: 1,
  decision,
  reason: "",
});

Deno.test("a commit that is asked for again is answered by what became of the move", () => {
  const bench = new Bench();
  bench.feed(BEGIN);
  bench.feed(decide("commit"));
  bench.restart();
  bench.feed(decide("commit"));
  bench.feed(decide("abort"));
  assert.deepEqual(bench.answers.map(({ state }) => state), [
    "copying",
    "committed",
    "committed",
    "committed",
  ]);
  bench.feed({ kind: "end", requestId: 3, id: 1 });
  bench.feed({ kind: "end", requestId: 4, id: 1 });
  assert.deepEqual(bench.answers.slice(-2), [{ refusal: null, state: "none" }, {
    refusal: null,
    state: "none",
  }]);
});

Deno.test("a move without progress for half a minute is aborted; one that goes on is not", () => {
  const bench = new Bench();
  bench.feed(BEGIN);
  for (let i = 0; i < 3; i++) {
    bench.feed({ kind: "progress", id: 1, mark: `copying ${i}` });
    bench.nowMs += PATIENCE_MS - 1;
    bench.feed({ kind: "tick" });
  }
  assert.equal(bench.state, "copying");
  // The same again is no progress.
  bench.feed({ kind: "progress", id: 1, mark: "copying 2" });
  bench.nowMs += 1;
  bench.feed({ kind: "tick" });
  assert.equal(bench.state, "aborted");
  assert.match(bench.durable.moves[0]!.reason, /no progress for 30 s/);
});

Deno.test("a committed move is never given up, however long its end takes", () => {
  const bench = new Bench();
  bench.feed(BEGIN);
  bench.feed(decide("commit"));
  bench.nowMs += 10 * PATIENCE_MS;
  bench.feed({ kind: "tick" });
  assert.equal(bench.state, "committed");
});

Deno.test("a coordinator whose records may be too old decides nothing about moves", () => {
  const bench = new Bench();
  bench.feed(BEGIN);
  bench.vouches = false;
  bench.feed(decide("commit"));
  bench.nowMs += 2 * PATIENCE_MS;
  bench.feed({ kind: "tick" });
  assert.equal(bench.state, "copying");
  assert.equal(bench.answers.at(-1)!.refusal, NOT_NOW);
  bench.vouches = true;
  // A node that heard of a later map, or whose log knows a later move, shows that this one is old.
  bench.feed({ kind: "seen", version: 1, moveId: 2 });
  bench.feed(decide("commit"));
  assert.equal(bench.state, "copying");
  assert(bench.board.rolledBack);
});

Deno.test("records that are old are made anew when a person asks, from what all groups serve after that", () => {
  const bench = new Bench();
  const served = (gid: number, startKey: string, endKey: string | null): MoveBoardInput => {
    const tablets = [{ id: 1, generation: 1, startKey, endKey }];
    return { kind: "claims", gid: groupId(gid), tablets };
  };
  // While nothing is wrong nothing is changed, whoever asks.
  bench.feed({ kind: "recover", known: [bench.durable] });
  bench.feed(served(1, "", "c"));
  bench.feed(served(2, "c", null));
  assert.equal(bench.durable.version, 1);
  bench.feed({ kind: "seen", version: 0, moveId: 4 });
  bench.feed({ kind: "recover", known: [{ ...bench.durable, version: 7 }] });
  bench.feed(served(1, "", "c"));
  assert.equal(bench.board.recoveryWaitsFor, "group 2 is not served");
  bench.feed(BEGIN);
  assert.equal(bench.answers.at(-1)!.refusal, NOT_NOW);
  bench.feed(served(2, "c", null));
  assert.deepEqual([bench.durable.version, bench.durable.nextMoveId], [8, 5]);
  assert.deepEqual(bench.durable.ranges.map(({ startKey }) => startKey), ["", "c"]);
  assert.deepEqual([bench.board.rolledBack, bench.board.recoveryWaitsFor], [false, null]);
});

Deno.test("of two coordinators only one changes the map; the other learns what it is", () => {
  const bench = new Bench();
  bench.feed(BEGIN);
  const other = bench.board;
  bench.restart();
  bench.feed(decide("abort"));
  bench.board = other;
  bench.feed(decide("commit"));
  assert.equal(bench.state, "aborted");
  assert.equal(bench.board.map.moves[0]!.state, "aborted");
});
