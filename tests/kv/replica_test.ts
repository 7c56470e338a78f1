import assert from "node:assert/strict";
import { LogEntry } from "../../kv/replica_log.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { spanOfRow } from "../../kv/read_gate.ts";
import type { LogRequest } from "../../kv/command.ts";
import type { Effect } from "../../kv/replica.ts";
import { epoch, incarnation, lsn, nodeId, storeId } from "../../proto/ids.ts";
import type { GroupConfig, Member } from "../../proto/replication.ts";
import { Bench, config, GID, primary, TIMING } from "./replica_bench.ts";

Deno.test("Replica.step() answers a put only when every member in sync has it on disk", () => {
  const bench = primary();
  const requestId = bench.put("x");
  bench.step({ kind: "flush" });
  bench.ack(1, 2);
  bench.ack(2, 2);
  assert.equal(bench.answerTo(requestId), undefined, "our own disk does not have it yet");
  bench.sync();
  assert.equal(bench.answerTo(requestId)?.kind, "reply");

  const second = bench.put("y");
  bench.sync();
  bench.ack(1, 3);
  assert.equal(bench.answerTo(second), undefined, "member 2 does not have it yet");
  bench.ack(2, 3);
  assert.equal(bench.answerTo(second)?.kind, "reply");
});

Deno.test("Replica.step() ignores an ack of an older reign or of an older life of the peer", () => {
  const bench = primary();
  const requestId = bench.put("x");
  bench.sync();
  bench.ack(1, 2);
  bench.ack(2, 2, { reign: epoch(0) });
  bench.ack(2, 2, { inc: incarnation(7) });
  bench.ack(2, 2, { store: storeId("other") });
  assert.equal(bench.answerTo(requestId), undefined);
});

Deno.test("Replica.step() gives a repeated request the answer of its first execution", () => {
  const bench = primary();
  const first = bench.put("x", 5);
  const meanwhile = bench.put("x", 5);
  bench.sync();
  bench.ack(1, 2);
  bench.ack(2, 2);
  const later = bench.put("x", 5);
  const answers = [first, meanwhile, later].map((id) => bench.answerTo(id));
  assert.deepEqual(
    answers.map((answer) => answer?.kind === "reply" ? answer.outcome : answer),
    Array(3).fill({ kind: "applied", version: 2, numbers: [] }),
  );
  assert.equal(bench.replica.progress.lastLsn, 2, "it was logged once");
});

Deno.test("Replica.step() refuses a request whose answer the client said it has", () => {
  const bench = primary();
  bench.put("x", 5);
  bench.sync();
  bench.ack(1, 2);
  bench.ack(2, 2);
  const stamp = { clientId: "client-1", seq: 9, firstIncomplete: 9, issuedMs: 0 };
  const op = toLogRowOp({ row: "r", mutations: [{ kind: "delete", column: "c" }] });
  bench.step({ kind: "request", requestId: 99, stamp, request: { kind: "rowOp", op }, wallMs: 0 });
  bench.sync();
  bench.ack(1, 3);
  bench.ack(2, 3);
  const answer = bench.answerTo(bench.put("x", 5));
  assert(answer?.kind === "refuse");
  assert.equal(answer.code, "session_too_old");
});

Deno.test("Replica.canReadAt() needs a promise of everybody who could be elected, and only while it lasts", () => {
  const bench = primary();
  assert(bench.replica.canReadAt(bench.nowMs));
  assert(!bench.replica.canReadAt(bench.nowMs + TIMING.leaseMs + 1));
  bench.nowMs += TIMING.leaseMs + 1;
  bench.promise(1);
  const effects = bench.step({ kind: "read", readId: 1, span: spanOfRow("r") });
  assert.deepEqual(effects, [], "member 2 has not promised again");
  const released = bench.promise(2);
  assert(released.some((effect) => effect.kind === "readable" && effect.readId === 1));
});

Deno.test("Replica.canReadAt() needs the promises of members that left but could still be elected", () => {
  const bench = primary();
  const [self, ...left] = config().inSync;
  const alone = config({ epoch: epoch(2), inSync: [self!], eligible: left });
  bench.step({ kind: "config", config: alone, learners: [] });
  bench.sync();
  assert(bench.replica.canReadAt(bench.nowMs), "their promises still last");
  bench.nowMs += TIMING.leaseMs + 1;
  assert(!bench.replica.canReadAt(bench.nowMs));
  bench.promise(1);
  assert(!bench.replica.canReadAt(bench.nowMs), "member 2 may be elected by now");
  bench.promise(2);
  assert(bench.replica.canReadAt(bench.nowMs));
});

Deno.test("Replica.step() takes no writes while fewer than the minimum are in sync, and says why", () => {
  const bench = primary();
  const only = config({ epoch: epoch(2), inSync: config().inSync.slice(0, 1) });
  bench.step({
    kind: "config",
    config: { ...only, eligible: config().inSync.slice(1) },
    learners: [],
  });
  const answer = bench.answerTo(bench.put("x"));
  assert(answer?.kind === "refuse");
  assert.equal(answer.code, "unavailable");
  assert.match(answer.message, /1 of at least 2 replicas are in sync/);
  assert.equal(answer.maybeApplied, false);
});

Deno.test("Replica.step() tells waiting clients that their write may have happened when it is deposed", () => {
  const bench = primary();
  const requestId = bench.put("x");
  bench.sync();
  const next = config({
    epoch: epoch(2),
    reign: epoch(2),
    primary: { node: nodeId(1), store: storeId("s1"), inc: incarnation(1) },
  });
  bench.step({ kind: "config", config: next, learners: [] });
  const answer = bench.answerTo(requestId);
  assert(answer?.kind === "refuse");
  assert.equal(answer.maybeApplied, true);
  assert.equal(bench.replica.role, "secondary");
});

Deno.test("a new primary waits for its promises, unless the reign that it made them to is proved dead", () => {
  for (const proved of [true, false]) {
    const bench = new Bench(1);
    bench.step({ kind: "config", config: config(), learners: [] });
    bench.sync();
    const { epoch: e, reign } = config();
    const head = { gid: GID, from: nodeId(0), store: storeId("s0"), inc: incarnation(1) };
    const heartbeat = {
      kind: "heartbeat" as const,
      ...head,
      toInc: incarnation(1),
      epoch: e,
      reign,
      config: config(),
      sentMs: 1,
      beat: 1,
      commitLsn: lsn(0),
      echoMs: null,
      check: null,
    };
    bench.step({ kind: "message", message: heartbeat, entries: [] });
    const elected = config({
      epoch: epoch(2),
      reign: epoch(2),
      primary: { node: nodeId(1), store: storeId("s1"), inc: incarnation(1) },
      inSync: config().inSync.slice(1),
      deadReign: proved ? epoch(1) : null,
    });
    bench.step({ kind: "config", config: elected, learners: [] });
    bench.sync();
    bench.meet(2);
    bench.promise(2);
    bench.ack(2, 1);
    assert.equal(bench.replica.canServe(), proved, proved ? "at once" : "not yet");
    bench.nowMs += TIMING.graceMs + 1;
    bench.step({ kind: "tick" });
    assert(bench.replica.canServe());
  }
});

Deno.test("a secondary acks an entry only after its own write, and never one it cannot place", () => {
  const bench = new Bench(1);
  bench.step({ kind: "config", config: config(), learners: [] });
  bench.sync();
  const head = {
    gid: GID,
    from: nodeId(0),
    store: storeId("s0"),
    inc: incarnation(1),
    toInc: incarnation(1),
    epoch: epoch(1),
    reign: epoch(1),
  };
  const command = { kind: "epochStart" as const, reign: epoch(1), timeMs: 0 };
  const entry = new LogEntry(epoch(1), lsn(1), new Uint8Array([1]), command);
  const append = {
    kind: "append" as const,
    ...head,
    round: 0,
    prevEpoch: epoch(0),
    prevLsn: lsn(0),
    sizes: [1],
    epochs: [{ epoch: epoch(1), count: 1 }],
    commitLsn: lsn(0),
  };
  const sent = (effects: Effect[]) =>
    effects.flatMap((effect) => effect.kind === "send" ? [effect.message.kind] : []);
  assert.deepEqual(sent(bench.step({ kind: "message", message: append, entries: [entry] })), []);
  assert.deepEqual(sent(bench.sync()), ["appendAck"]);
  const gap = { ...append, prevEpoch: epoch(1), prevLsn: lsn(8), sizes: [], epochs: [] };
  const effects = bench.step({ kind: "message", message: gap, entries: [] });
  assert.deepEqual(sent(effects), ["appendNack"]);
});

Deno.test("a message for an earlier life of the process is not acted upon", () => {
  const bench = new Bench(1);
  bench.step({ kind: "config", config: config(), learners: [] });
  const effects = bench.step({
    kind: "message",
    message: {
      kind: "snapshotOffer",
      round: 0,
      gid: GID,
      from: nodeId(0),
      store: storeId("s0"),
      inc: incarnation(1),
      toInc: incarnation(9),
      epoch: epoch(1),
      reign: epoch(1),
    },
    entries: [],
  });
  const kinds = effects.map((effect) => effect.kind === "send" ? effect.message.kind : effect.kind);
  assert.deepEqual(kinds, ["behind"]);
});

/** What is not kept waiting for the answer to the append before. */
const GATHERED_BYTES = 64 * 1024, GATHERED_ENTRIES = 64;

const appendsTo1 = (effects: readonly Effect[]) =>
  effects.flatMap((effect) =>
    effect.kind === "send" && effect.to === 1 && effect.message.kind === "append"
      ? [effect.message]
      : []
  );

Deno.test("entries that come while the members have an append to answer are written and sent together", () => {
  const bench = primary();
  bench.put("first");
  bench.sync();
  const before = bench.effects.length;
  const waiting = ["a", "b", "c"].map((value) => {
    const requestId = bench.put(value);
    bench.step({ kind: "flush" });
    return requestId;
  });
  assert.deepEqual(bench.effects.slice(before).map(({ kind }) => kind), [], "they wait");
  const released = [...bench.ack(1, 2), ...bench.step({ kind: "flush" })];
  assert.deepEqual(appendsTo1(released).map(({ sizes }) => sizes.length), [3]);
  const writes = released.filter((effect) => effect.kind === "write");
  assert.deepEqual(writes.map(({ records }) => records.length), [3]);
  bench.sync();
  bench.ack(2, 2);
  bench.ack(1, 5);
  bench.ack(2, 5);
  assert.deepEqual(waiting.map((id) => bench.answerTo(id)?.kind), Array(3).fill("reply"));
});

Deno.test("many or large entries do not wait for the answer to the append before", () => {
  const many = primary();
  many.put("first");
  many.sync();
  const before = many.effects.length;
  for (let i = 0; i < GATHERED_ENTRIES; i++) many.put(`${i}`);
  many.sync();
  const sent = appendsTo1(many.effects.slice(before));
  assert.deepEqual(sent.map(({ sizes }) => sizes.length), [GATHERED_ENTRIES]);
  const large = primary();
  large.put("first");
  large.sync();
  large.put("x".repeat(GATHERED_BYTES));
  assert.equal(appendsTo1(large.step({ kind: "flush" })).length, 1);
});

Deno.test("a newer configuration is written at once, whatever entries wait", () => {
  const bench = primary();
  bench.put("first");
  bench.sync();
  bench.put("second");
  bench.step({ kind: "flush" });
  const adopted = config({ epoch: epoch(2), reign: epoch(1) });
  bench.step({ kind: "config", config: adopted, learners: [] });
  const writes = bench.step({ kind: "flush" }).filter((effect) => effect.kind === "write");
  assert.deepEqual(writes.flatMap(({ records }) => records.map(({ type }) => type)), [
    "entry",
    "config",
  ]);
});

Deno.test("appends that a gap made a follower refuse are sent again once, not once for each refusal", () => {
  const bench = primary();
  for (let i = 0; i < 3; i++) {
    bench.put(`v${i}`.repeat(GATHERED_BYTES));
    bench.step({ kind: "flush" });
  }
  const underWay = appendsTo1(bench.effects).slice(-3);
  assert.deepEqual(underWay.map((append) => append.prevLsn), [1, 2, 3]);
  // The first is lost, so the follower refuses the other two.
  const refuse = (round: number) =>
    bench.step({
      kind: "message",
      message: {
        kind: "appendNack",
        round,
        gid: GID,
        from: nodeId(1),
        store: storeId("s1"),
        inc: incarnation(1),
        toInc: incarnation(1),
        epoch: epoch(1),
        reign: epoch(1),
        lastLsn: lsn(1),
        baseLsn: lsn(0),
        history: [{ epoch: epoch(1), firstLsn: lsn(1) }],
      },
      entries: [],
    });
  const again = appendsTo1(refuse(underWay[1]!.round));
  assert.deepEqual(again.map((append) => [append.prevLsn, append.sizes.length]), [[1, 3]]);
  assert.deepEqual(appendsTo1(refuse(underWay[2]!.round)), []);
});

Deno.test("a split is logged like a write, answered once committed, and one at a time", () => {
  const bench = primary();
  bench.step({ kind: "reshape", requestId: 50, change: { kind: "split", key: "m" } });
  bench.step({ kind: "reshape", requestId: 51, change: { kind: "split", key: "n" } });
  const second = bench.answerTo(51);
  assert(second?.kind === "refuse" && second.code === "busy");
  bench.sync();
  bench.ack(1, 2);
  assert.equal(bench.replica.state.tablets.count, 1);
  assert(bench.ack(2, 2).some((effect) => effect.kind === "reshaped" && effect.requestId === 50));
  assert.deepEqual(bench.replica.state.tablets.list().map(({ startKey }) => startKey), ["", "m"]);
  bench.step({ kind: "reshape", requestId: 52, change: { kind: "split", key: "m" } });
  const third = bench.answerTo(52);
  assert(third?.kind === "refuse" && third.code === "invalid_request");
});

Deno.test("only a serving primary splits; one that is deposed meanwhile says that it may have", () => {
  const bench = primary();
  bench.step({ kind: "reshape", requestId: 50, change: { kind: "split", key: "m" } });
  const next = config({
    epoch: epoch(2),
    reign: epoch(2),
    primary: { node: nodeId(1), store: storeId("s1"), inc: incarnation(1) },
  });
  bench.step({ kind: "config", config: next, learners: [] });
  const answer = bench.answerTo(50);
  assert(answer?.kind === "refuse" && answer.code === "not_primary" && answer.maybeApplied);
  bench.step({ kind: "reshape", requestId: 51, change: { kind: "split", key: "m" } });
  const refused = bench.answerTo(51);
  assert(refused?.kind === "refuse" && refused.code === "not_primary" && !refused.maybeApplied);
});

Deno.test("a primary splits a tablet that outgrows its limit, and merges what stays small", () => {
  const bench = primary({ bytesMax: 2_000, largeBytesMax: 1 << 30 });
  let lsnDone = 1;
  const settle = () => {
    bench.nowMs += 100;
    for (const peer of [1, 2]) bench.promise(peer);
    bench.step({ kind: "tick" });
    bench.sync();
    lsnDone = bench.replica.progress.lastLsn;
    for (const peer of [1, 2]) bench.ack(peer, lsnDone);
  };
  for (let i = 0; i < 20; i++) bench.put("x".repeat(200), undefined, `r${i}`);
  settle();
  for (let i = 0; i < 10; i++) settle();
  const count = bench.replica.state.tablets.count;
  assert(count >= 3, `${count} tablets`);
  for (let i = 0; i < 20; i++) bench.remove(`r${i}`);
  for (let i = 0; i < 50; i++) settle();
  assert.equal(
    bench.replica.state.tablets.count,
    count,
    "not before it has been quiet for a while",
  );
  for (let i = 0; i < 1_000; i++) settle();
  assert.equal(bench.replica.state.tablets.count, 1);
});

for (const how of ["silent", "stuck"] as const) {
  Deno.test(`a primary takes a member that is ${how} out once, and does not put it in again until it is not`, () => {
    const bench = primary();
    const [self, one] = config().inSync as [Member, Member];
    const adopt = (number: number, change: Partial<GroupConfig>) =>
      bench.step({
        kind: "config",
        config: config({ epoch: epoch(number), ...change }),
        learners: [],
      });
    adopt(2, { inSync: [self, one] });
    bench.sync();
    bench.put("x");
    bench.sync();
    const proposals = () =>
      bench.effects.flatMap((effect) => effect.kind === "propose" ? [effect.change.kind] : []);
    const pass = (ms: number) => {
      for (let passed = 0; passed < ms; passed += 50) {
        bench.nowMs += 50;
        if (how === "stuck") bench.promise(1);
        bench.step({ kind: "tick" });
      }
    };
    pass(3_000);
    assert(proposals().every((kind) => kind === "remove") && proposals().length > 0);
    // Too few are left to write, so it has all that is committed and could become primary.
    adopt(3, { inSync: [self], eligible: [one] });
    pass(1_000);
    assert(!proposals().includes("add"), "it was put in again");
    bench.meet(1);
    bench.promise(1);
    bench.ack(1, 2);
    bench.step({ kind: "tick" });
    assert.equal(proposals().at(-1), "add");
  });
}

function lastProposal(bench: Bench): Effect & { kind: "propose" } {
  const effect = bench.effects.findLast((item) => item.kind === "propose");
  assert(effect?.kind === "propose");
  return effect;
}

Deno.test("a refused addition counts until its epoch is over: a copy of it may still be granted", () => {
  const bench = primary();
  const learner = { node: nodeId(3), store: storeId("s3") };
  bench.step({ kind: "config", config: config(), learners: [learner] });
  bench.meet(3);
  bench.ack(3, 1);
  const { change, changeId } = lastProposal(bench);
  assert.deepEqual(change, { kind: "add", member: learner });
  bench.step({ kind: "proposed", changeId, result: "refused", config: config() });
  const requestId = bench.put("x");
  bench.sync();
  bench.ack(1, 2);
  bench.ack(2, 2);
  assert.equal(bench.answerTo(requestId), undefined, "node 3 may become a member without it");
  for (const node of [1, 2]) bench.promise(node);
  assert.equal(bench.replica.canReadAt(bench.nowMs), false, "nor has it promised anything");

  const moved = config({ epoch: epoch(2), changeId: "refused for good" });
  bench.step({ kind: "proposed", changeId, result: "refused", config: moved });
  assert.equal(bench.answerTo(requestId)?.kind, "reply");
  assert.equal(bench.replica.canReadAt(bench.nowMs), true);
});

Deno.test("a primary whose leave is refused serves again once that is certain", () => {
  const bench = primary();
  bench.step({ kind: "handOver", to: nodeId(1) });
  const { change, changeId } = lastProposal(bench);
  assert.equal(change.kind, "relinquish");
  bench.step({ kind: "proposed", changeId, result: "refused", config: config() });
  assert.equal(bench.replica.canServe(), false, "its successor may still be installed");
  const moved = config({ epoch: epoch(2), changeId: "refused for good" });
  bench.step({ kind: "proposed", changeId, result: "refused", config: moved });
  assert.equal(bench.replica.canServe(), true);
  const requestId = bench.put("x");
  bench.sync();
  for (const node of [1, 2]) bench.ack(node, 2);
  assert.equal(bench.answerTo(requestId)?.kind, "reply");
});

Deno.test("a primary whose disk hangs gives its office to the member with the longest log, at once", () => {
  const bench = primary();
  const requestId = bench.put("x");
  bench.step({ kind: "flush" });
  bench.ack(2, 2);
  // Our own write never comes back, so nothing can be committed and no orderly hand-over ends.
  const effects = bench.step({ kind: "stepAside" });
  const proposal = effects.find((effect) => effect.kind === "propose");
  assert(proposal?.kind === "propose");
  assert.deepEqual(proposal.change, {
    kind: "relinquish",
    to: { node: nodeId(2), store: storeId("s2") },
  });
  assert(!bench.replica.canServe(), "who offered to leave reads nothing any more");
  bench.ack(1, 2);
  bench.sync();
  assert.equal(bench.answerTo(requestId), undefined, "and commits nothing");
  assert.deepEqual(bench.step({ kind: "stepAside" }), [], "it is asked for once");
});

Deno.test("a member that says that its disk hangs is taken out at once, if enough are left, and not put in again soon", () => {
  const bench = primary();
  const [self, one, two] = config().inSync as [Member, Member, Member];
  const proposals = () =>
    bench.effects.flatMap((effect) => effect.kind === "propose" ? [effect.change.kind] : []);
  bench.promise(2, { hanging: true });
  assert.deepEqual(proposals(), [], "nobody waits for it");
  bench.put("x");
  bench.sync();
  bench.ack(1, 2);
  bench.promise(2, { hanging: true });
  assert.deepEqual(proposals(), ["remove"]);
  assert.deepEqual(lastProposal(bench).change, { kind: "remove", member: two });
  const next = config({ epoch: epoch(2), inSync: [self, one] });
  bench.step({ kind: "config", config: next, learners: [two] });
  bench.sync();
  bench.meet(2);
  const pass = (ms: number) => {
    for (let passed = 0; passed < ms; passed += 50) {
      bench.nowMs += 50;
      for (const peer of [1, 2]) bench.promise(peer);
      for (const peer of [1, 2]) bench.ack(peer, 2);
      bench.step({ kind: "tick" });
    }
  };
  pass(5_000);
  assert.deepEqual(proposals(), ["remove"], "it may hang again");
  pass(6_000);
  assert.equal(proposals()[1], "add");
});

Deno.test("who was taken out for a hanging disk comes in again while nobody writes, however seldom the ticks", () => {
  const bench = primary(undefined, { ...TIMING, ackTimeoutMs: 150 });
  const [self, one, two] = config().inSync as [Member, Member, Member];
  bench.promise(2, { hanging: true });
  bench.step({
    kind: "config",
    config: config({ epoch: epoch(2), inSync: [self, one] }),
    learners: [two],
  });
  bench.sync();
  bench.meet(2);
  for (const peer of [1, 2]) bench.ack(peer, 1);
  const wasAdded = () =>
    bench.effects.some((effect) => effect.kind === "propose" && effect.change.kind === "add");
  // A calm group: answers come at once, and the next tick when they are older than the timeout.
  for (let passedMs = 0; passedMs < 12_000; passedMs += 500) {
    assert(passedMs >= 10_000 || !wasAdded(), `not yet, after ${passedMs} ms`);
    bench.nowMs += 500;
    bench.step({ kind: "tick" });
    for (const peer of [1, 2]) bench.promise(peer);
  }
  assert(wasAdded());
});

Deno.test("a member whose disk hangs stays while too few would be left to write", () => {
  const bench = primary();
  const inSync = config().inSync.slice(0, 2);
  bench.step({ kind: "config", config: config({ epoch: epoch(2), inSync }), learners: [] });
  bench.put("x");
  bench.sync();
  bench.promise(1, { hanging: true });
  assert(!bench.effects.some((effect) => effect.kind === "propose"));
});

Deno.test("a follower tells with its promises that its disk hangs, as long as it does", () => {
  const bench = new Bench(1);
  bench.step({ kind: "config", config: config(), learners: null });
  bench.sync();
  const heartbeat = () => {
    const { epoch, reign, primary: { node: from, store, inc } } = config();
    const head = {
      gid: config().gid,
      from,
      store,
      inc,
      toInc: bench.replica.self.inc,
      epoch,
      reign,
    };
    const message = {
      kind: "heartbeat" as const,
      ...head,
      sentMs: 0,
      beat: 1,
      commitLsn: lsn(0),
      echoMs: null,
      check: null,
    };
    const sent = bench.step({ kind: "message", message, entries: [] }).flatMap((effect) =>
      effect.kind === "send" && effect.message.kind === "heartbeatAck" ? [effect.message] : []
    );
    return sent[0]!.hanging;
  };
  assert.equal(heartbeat(), undefined);
  bench.step({ kind: "stepAside" });
  assert.equal(heartbeat(), true);
  bench.nowMs += 800;
  assert.equal(heartbeat(), undefined);
});

Deno.test("followers hear of a commit with the next tick when no append carries it", () => {
  const bench = primary();
  for (const peer of [1, 2]) bench.promise(peer);
  bench.put("x");
  bench.sync();
  bench.ack(1, 2);
  bench.ack(2, 2);
  const told = () => {
    bench.nowMs += 1;
    return bench.step({ kind: "tick" }).flatMap((effect) =>
      effect.kind === "send" && effect.message.kind === "heartbeat"
        ? [[effect.to, effect.message.commitLsn]]
        : []
    );
  };
  assert.deepEqual(told(), [[1, 2], [2, 2]]);
  assert.deepEqual(told(), []);
});

Deno.test("a follower that restarted is sent an append even if it lacks nothing, so that it may apply", () => {
  const bench = primary();
  for (const peer of [1, 2]) bench.promise(peer);
  const effects = bench.step({
    kind: "message",
    message: {
      kind: "behind",
      gid: GID,
      from: nodeId(1),
      store: storeId("s1"),
      inc: incarnation(2),
      toInc: incarnation(1),
      epoch: epoch(1),
      reign: epoch(1),
    },
    entries: [],
  });
  const appends = effects.flatMap((effect) =>
    effect.kind === "send" && effect.to === 1 && effect.message.kind === "append"
      ? [[effect.message.prevLsn, effect.message.commitLsn, effect.message.sizes.length]]
      : []
  );
  assert.deepEqual(appends, [[1, 1, 0]]);
});

Deno.test("a member that left in good order is asked where it stands, not sent everything again", () => {
  const memory = {
    recentLogBytes: 0,
    appendBytes: 1 << 20,
    lagBytes: Infinity,
    completionBytes: Infinity,
    lockBytes: Infinity,
  };
  const bench = primary(undefined, undefined, { memory });
  const last = 100;
  for (let at = 2; at <= last; at++) {
    bench.put(`v${at}`);
    bench.sync();
    for (const peer of [1, 2]) bench.ack(peer, at);
  }
  assert.equal(bench.replica.entryAt(lsn(1)), undefined, "the reign's beginning has left memory");
  const [kept, left] = [config().inSync.slice(0, 2), config().inSync.slice(2)];
  bench.step({ kind: "config", config: config({ epoch: epoch(2), inSync: kept }), learners: [] });
  bench.step({
    kind: "config",
    config: config({ epoch: epoch(2), inSync: kept }),
    learners: left,
  });
  const before = bench.effects.length;
  bench.meet(2);
  bench.ack(2, last);
  const what = bench.effects.slice(before).map((effect) =>
    effect.kind === "send" && effect.to === 2 ? effect.message : effect.kind
  );
  assert(!what.includes("readLog"), "it lacks nothing");
  const sent = what.filter((item) => typeof item !== "string");
  assert(sent.every(({ kind }) => kind !== "snapshotOffer"));
  const [append] = sent.filter((item) => item.kind === "append");
  assert.deepEqual([append?.prevLsn, append?.sizes], [last, []]);
  const proposed = bench.effects.findLast((effect) => effect.kind === "propose");
  assert.deepEqual(proposed?.change, { kind: "add", member: left[0] });
});

Deno.test("a primary whose locks take their share of memory tells transactions to wait, and only them", () => {
  const bench = primary(undefined, undefined, {
    memory: {
      recentLogBytes: 0,
      appendBytes: 1 << 20,
      lagBytes: Infinity,
      completionBytes: Infinity,
      lockBytes: 2_000,
    },
  });
  let last = 1;
  const commit = (requestId: number) => {
    bench.sync();
    last += 1;
    for (const peer of [1, 2]) bench.ack(peer, last);
    return bench.answerTo(requestId);
  };
  const ask = (n: number, request: LogRequest) => {
    const requestId = 1000 + n;
    const stamp = { clientId: "client-2", seq: n, firstIncomplete: 1, issuedMs: 0 };
    bench.step({ kind: "request", requestId, stamp, request, wallMs: 0 });
    return requestId;
  };
  const txn = (n: number) => ({ id: `transaction-${n}`, anchor: `r${n}` });
  const prepare = (n: number) => {
    const op = { row: `r${n}`, conditions: [], mutations: [] };
    return ask(n, { kind: "prepare", txn: txn(n), ops: [op], others: ["z"], lifeMs: 1_000 });
  };
  for (const n of [1, 2, 3]) assert.equal(commit(prepare(n))?.kind, "reply");
  const refused = bench.answerTo(prepare(4));
  assert(refused?.kind === "refuse" && refused.code === "busy" && !refused.maybeApplied);
  assert.equal(commit(bench.put("x"))?.kind, "reply", "plain writes go on");
  assert.equal(
    commit(ask(5, { kind: "settle", txn: txn(1), step: "abort", lifeMs: 0 }))?.kind,
    "reply",
  );
  assert.equal(commit(prepare(6))?.kind, "reply", "and so does the next transaction");
});

/** A primary whose member 2 answers heartbeats and acknowledges entries, but far behind the others. */
class LaggingBench {
  readonly bench = primary(undefined, undefined, {
    memory: {
      recentLogBytes: 0,
      appendBytes: 1 << 20,
      completionBytes: Infinity,
      lagBytes: 1_000,
      lockBytes: Infinity,
    },
  });
  last = 1;
  lagging = 1;

  write(count: number): void {
    for (let i = 0; i < count; i++) this.bench.put("x".repeat(100));
    this.bench.sync();
    this.last += count;
    this.bench.ack(1, this.last);
  }

  catchUp(count: number): void {
    this.lagging += count;
    this.bench.ack(2, this.lagging);
  }

  pass(ms: number): void {
    const { bench } = this, untilMs = bench.nowMs + ms;
    while (bench.nowMs < untilMs) {
      bench.nowMs += 100;
      for (const peer of [1, 2]) bench.promise(peer);
      bench.step({ kind: "tick" });
      this.write(1);
      this.catchUp(1);
    }
  }

  get proposals() {
    return this.bench.effects.flatMap((effect) => effect.kind === "propose" ? [effect.change] : []);
  }
}

Deno.test("a member that is far behind all others for seconds is taken out, though it makes progress", () => {
  const lagging = new LaggingBench();
  lagging.write(40);
  lagging.pass(4_900);
  assert.deepEqual(lagging.proposals, []);
  lagging.pass(400);
  assert.deepEqual(lagging.proposals[0], { kind: "remove", member: config().inSync[2] });
});

Deno.test("a member that catches up now and then is left alone, and so are all when all are slow", () => {
  const catching = new LaggingBench();
  for (let round = 0; round < 4; round++) {
    catching.write(40);
    catching.pass(3_000);
    catching.catchUp(40);
    catching.pass(200);
  }
  assert.deepEqual(catching.proposals, []);

  const slow = new LaggingBench(), { bench } = slow;
  for (let i = 0; i < 60; i++) bench.put("x".repeat(100));
  bench.sync();
  for (let i = 0; i < 100; i++) {
    bench.nowMs += 100;
    bench.step({ kind: "tick" });
    for (const peer of [1, 2]) {
      bench.promise(peer);
      bench.ack(peer, 2 + Math.floor(i / 4));
    }
  }
  assert.deepEqual(slow.proposals, []);
});

Deno.test("a member that lags is kept where too few would be left to write", () => {
  const lagging = new LaggingBench(), { bench } = lagging;
  bench.step({
    kind: "config",
    config: config({ epoch: epoch(2), minInSync: 3 }),
    learners: [],
  });
  lagging.write(40);
  lagging.pass(8_000);
  assert.deepEqual(lagging.proposals, []);
});

Deno.test("a primary is calm once everybody has what is committed, and knows it", () => {
  const bench = primary();
  assert(!bench.replica.isCalm, "nobody was told that the first entry is committed");
  bench.step({ kind: "tick" });
  assert(bench.replica.isCalm);
  bench.put("x");
  assert(!bench.replica.isCalm, "a write is under way");
  bench.sync();
  bench.ack(1, 2);
  bench.ack(2, 2);
  assert(!bench.replica.isCalm, "the members do not know of the commit");
  bench.step({ kind: "tick" });
  assert(bench.replica.isCalm);
});

Deno.test("a primary is not calm while a member is silent, a read waits or a change is asked for", () => {
  const calm = () => {
    const bench = primary();
    bench.step({ kind: "tick" });
    assert(bench.replica.isCalm);
    return bench;
  };
  const missing = calm();
  missing.nowMs += TIMING.ackTimeoutMs;
  missing.promise(1);
  assert(!missing.replica.isCalm, "member 2 was not heard");
  missing.promise(2);
  assert(missing.replica.isCalm);

  const asked = calm();
  asked.step({ kind: "clockDoubted" });
  asked.step({ kind: "read", readId: 1, span: spanOfRow("r") });
  assert(!asked.replica.isCalm, "a read waits for a round of heartbeats");

  const leaving = calm();
  leaving.step({ kind: "handOver", to: nodeId(1) });
  assert(!leaving.replica.isCalm, "it offered its office");
});

Deno.test("a secondary is calm while it hears its primary, and not from long before it would suspect it", () => {
  const bench = new Bench(1);
  assert(bench.replica.isCalm, "nobody to hear yet");
  bench.step({ kind: "config", config: config(), learners: [] });
  bench.sync();
  assert(bench.replica.isCalm);
  bench.nowMs += TIMING.graceMs / 2;
  bench.step({ kind: "tick" });
  assert(!bench.replica.isCalm);
});

Deno.test("a group that nobody uses keeps its leases however unevenly the beats of its primary come", () => {
  const timing = { heartbeatMs: 200, leaseMs: 1_200, graceMs: 1_800, ackTimeoutMs: 1_000 };
  const bench = primary(undefined, timing);
  bench.nowMs += 6_000;
  bench.step({ kind: "tick" });
  for (const peer of [1, 2]) bench.promise(peer);
  for (const lateMs of [0, 90, 0, 60, 0, 0, 99, 0]) {
    bench.nowMs = Math.floor(bench.nowMs / 500 + 1) * 500 + lateMs;
    assert(bench.replica.canReadAt(bench.nowMs), `the leases ran out before ${bench.nowMs}`);
    const beat = bench.beat;
    bench.step({ kind: "tick" });
    assert.equal(bench.beat, beat + 1, `no heartbeat at ${bench.nowMs}`);
    for (const peer of [1, 2]) bench.promise(peer);
  }
});
