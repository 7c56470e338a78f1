/**
 * A replica that has no memory for all of an append: what it takes, what it says, and when it gets the
 * rest. First the side of the follower, then that of the primary.
 */
import assert from "node:assert/strict";
import type { Effect } from "../../kv/replica.ts";
import { LogEntry } from "../../kv/replica_log.ts";
import { epoch, incarnation, lsn, nodeId, storeId } from "../../proto/ids.ts";
import type { AppendNack } from "../../proto/replication.ts";
import { Bench, config, GID, primary, TIMING } from "./replica_bench.ts";

/** What is not kept waiting for the answer to the append before. */
const GATHERED_BYTES = 64 * 1024;

/** From node 0, which is primary since epoch 1, to node 1. */
const fromPrimary = {
  gid: GID,
  from: nodeId(0),
  store: storeId("s0"),
  inc: incarnation(1),
  toInc: incarnation(1),
  epoch: epoch(1),
  reign: epoch(1),
};

function entry(at: number, of = 1): LogEntry {
  const command = { kind: "epochStart" as const, reign: epoch(of), timeMs: 0 };
  return new LogEntry(epoch(of), lsn(at), new Uint8Array([at]), command);
}

class FollowerBench extends Bench {
  constructor() {
    super(1);
    this.step({ kind: "config", config: config(), learners: [] });
    this.sync();
  }

  /** An append of entries `from` to `to`, of which there is memory for the first `taken`. */
  append(
    { from, to, taken = to - from + 1, round = 0, of = 1, prevOf = of, commit = 0 }: {
      from: number;
      to: number;
      taken?: number;
      round?: number;
      of?: number;
      prevOf?: number;
      commit?: number;
    },
  ): Effect[] {
    const count = to - from + 1;
    const message = {
      kind: "append" as const,
      ...fromPrimary,
      epoch: epoch(of),
      reign: epoch(of),
      round,
      prevEpoch: epoch(from === 1 ? 0 : prevOf),
      prevLsn: lsn(from - 1),
      sizes: Array(count).fill(1),
      epochs: [{ epoch: epoch(of), count }],
      commitLsn: lsn(commit),
    };
    const entries = Array.from({ length: taken }, (_, index) => entry(from + index, of));
    return this.step({ kind: "message", message, entries });
  }
}

const sentBy = (effects: readonly Effect[]) =>
  effects.flatMap((effect) => effect.kind === "send" ? [effect.message] : []);
const acksIn = (effects: readonly Effect[]) =>
  sentBy(effects).flatMap((message) =>
    message.kind === "appendAck" ? [[message.matchLsn, message.full]] : []
  );
const appendsTo = (node: number, effects: readonly Effect[]) =>
  effects.flatMap((effect) =>
    effect.kind === "send" && effect.to === node && effect.message.kind === "append"
      ? [[effect.message.prevLsn, effect.message.sizes.length]]
      : []
  );

Deno.test("a follower without memory for all of an append acks the beginning, and says why no more", () => {
  const bench = new FollowerBench();
  assert.deepEqual(sentBy(bench.append({ from: 1, to: 4, taken: 3, round: 5 })), []);
  assert.deepEqual(acksIn(bench.sync()), [[3, 5]], "once that much is on its disk");
  assert.equal(bench.replica.lastLsn, 3);
  // Of the next attempt it takes nothing, and has nothing to wait for either.
  assert.deepEqual(acksIn(bench.append({ from: 4, to: 4, taken: 0, round: 6 })), [[3, 6]]);
});

Deno.test("a follower asks for the rest as soon as there is memory for it, once", () => {
  const bench = new FollowerBench();
  assert.deepEqual(bench.step({ kind: "room" }), [], "nothing was left out");
  bench.append({ from: 1, to: 4, taken: 3, round: 5 });
  bench.sync();
  const [question] = sentBy(bench.step({ kind: "room" }));
  assert(question?.kind === "appendNack");
  assert.deepEqual([question.round, question.lastLsn], [5, 3]);
  assert.deepEqual(bench.step({ kind: "room" }), []);
  bench.append({ from: 4, to: 6, round: 6 });
  assert.deepEqual(acksIn(bench.sync()), [[6, undefined]]);
  assert.deepEqual(bench.step({ kind: "room" }), []);
});

Deno.test("what follows the entries left out is not refused, but the commits that it tells of count", () => {
  const bench = new FollowerBench();
  bench.append({ from: 1, to: 4, taken: 3 });
  bench.sync();
  assert.deepEqual(sentBy(bench.append({ from: 5, to: 6, taken: 2, commit: 2 })), []);
  assert.deepEqual([bench.replica.lastLsn, bench.replica.state.appliedLsn], [3, 2]);
  const [question] = sentBy(bench.step({ kind: "room" }));
  assert(question?.kind === "appendNack");
  assert.equal(question.lastLsn, 3, "it is asked for together with them");
});

Deno.test("what a follower has behind the entries left out does not count as the primary's", () => {
  const bench = new FollowerBench();
  bench.append({ from: 1, to: 6 });
  bench.sync();
  const elected = { node: nodeId(0), store: storeId("s0"), inc: incarnation(1) };
  const next = config({ epoch: epoch(2), reign: epoch(2), primary: elected });
  bench.step({ kind: "config", config: next, learners: [] });
  // The new reign has other entries from the third on.
  bench.append({ from: 3, to: 6, taken: 1, of: 2, prevOf: 1, commit: 6 });
  assert.deepEqual(acksIn(bench.sync()), [[3, 0]]);
  const again = new FollowerBench();
  again.append({ from: 1, to: 6 });
  again.sync();
  again.step({ kind: "config", config: next, learners: [] });
  again.sync();
  again.append({ from: 3, to: 6, taken: 0, of: 2, prevOf: 1, commit: 6 });
  again.sync();
  assert.equal(again.replica.state.appliedLsn, 2, "the others may have been cut off elsewhere");
});

Deno.test("a follower owes the next reign no question about what the last one sent", () => {
  const bench = new FollowerBench();
  bench.append({ from: 1, to: 4, taken: 3 });
  bench.sync();
  bench.step({
    kind: "config",
    config: config({ epoch: epoch(2), reign: epoch(2) }),
    learners: [],
  });
  assert.deepEqual(sentBy(bench.step({ kind: "room" })), []);
});

/** A primary with four entries under way to node 1, one by one, that has taken the first of them. */
function underWay(): Bench {
  const bench = primary();
  for (let i = 0; i < 3; i++) {
    bench.put(`v${i}`.repeat(GATHERED_BYTES));
    bench.step({ kind: "flush" });
  }
  return bench;
}

function ask(bench: Bench, lastLsn: number, round = 0): Effect[] {
  const message: AppendNack = {
    kind: "appendNack",
    ...fromPrimary,
    from: nodeId(1),
    store: storeId("s1"),
    round,
    lastLsn: lsn(lastLsn),
    baseLsn: lsn(0),
    history: [{ epoch: epoch(1), firstLsn: lsn(1) }],
  };
  return bench.step({ kind: "message", message, entries: [] });
}

Deno.test("who is full is sent nothing more until it asks, and then everything from there on at once", () => {
  const bench = underWay();
  bench.ack(1, 2, { full: 0 });
  bench.put("x".repeat(GATHERED_BYTES));
  assert.deepEqual(appendsTo(1, bench.step({ kind: "flush" })), []);
  assert.deepEqual(appendsTo(1, ask(bench, 2)), [[2, 3]]);
  bench.ack(1, 5);
  bench.put("x");
  assert.deepEqual(appendsTo(1, bench.step({ kind: "flush" })), [[5, 1]]);
});

Deno.test("who says nothing of its memory any more is sent more again", () => {
  const bench = underWay();
  bench.ack(1, 2, { full: 0 });
  bench.put("x".repeat(GATHERED_BYTES));
  bench.step({ kind: "flush" });
  assert.deepEqual(appendsTo(1, bench.ack(1, 3)), [[4, 1]]);
});

Deno.test("a question for the rest that is lost is not waited for for ever", () => {
  const bench = underWay();
  bench.ack(1, 2, { full: 0 });
  bench.nowMs += TIMING.ackTimeoutMs + 1;
  bench.promise(1);
  assert.deepEqual(appendsTo(1, bench.step({ kind: "tick" })), [[2, 2]]);
});

Deno.test("an answer that was overtaken by the question for the rest stops nothing", () => {
  const bench = underWay();
  ask(bench, 2);
  bench.ack(1, 2, { full: 0 });
  bench.put("x".repeat(GATHERED_BYTES));
  assert.deepEqual(appendsTo(1, bench.step({ kind: "flush" })), [[4, 1]]);
});

Deno.test("who has everything that is under way is sent more, whatever an overtaken answer says", () => {
  const bench = underWay();
  bench.ack(1, 4);
  bench.ack(1, 2, { full: 0 });
  bench.put("x");
  assert.deepEqual(appendsTo(1, bench.step({ kind: "flush" })), [[4, 1]]);
});

Deno.test("a primary goes on writing its own log while the members are full", () => {
  const bench = underWay();
  bench.sync();
  for (const peer of [1, 2]) bench.ack(peer, 2, { full: 0 });
  bench.put("x");
  const writes = bench.step({ kind: "flush" }).filter((effect) => effect.kind === "write");
  assert.deepEqual(writes.map(({ records }) => records.length), [1]);
});

Deno.test("who is full hears of a commit at once: applying it makes room", () => {
  const bench = underWay();
  bench.sync();
  bench.ack(1, 3, { full: 0 });
  const told = bench.ack(2, 4).flatMap((effect) =>
    effect.kind === "send" && effect.message.kind === "heartbeat"
      ? [[effect.to, effect.message.commitLsn]]
      : []
  );
  assert.deepEqual(told, [[1, 3]]);
});
