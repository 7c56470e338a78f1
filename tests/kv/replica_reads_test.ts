/** Reads: by lease, by a round of heartbeats, by the coordinator's record, and on secondaries. */
import assert from "node:assert/strict";
import type { Command } from "../../kv/command.ts";
import { LogEntry } from "../../kv/replica_log.ts";
import { spanOfRow } from "../../kv/read_gate.ts";
import type { Effect } from "../../kv/replica.ts";
import { epoch, incarnation, lsn, nodeId, storeId } from "../../proto/ids.ts";
import type { GroupConfig, Heartbeat } from "../../proto/replication.ts";
import { Bench, config, GID, primary, TIMING } from "./replica_bench.ts";

const CONFIRM = { ...TIMING, readMode: "confirm" as const };

function answered(effects: readonly Effect[], readId: number): boolean {
  return effects.some((effect) => effect.kind === "readable" && effect.readId === readId);
}

const checkOf = (effects: readonly Effect[]) =>
  effects.flatMap((effect) => effect.kind === "checkRecord" ? [effect.checkId] : []);

const member = (node: number) => ({ node: nodeId(node), store: storeId(`s${node}`) });

Deno.test("with read_mode confirm a read is answered by a round of heartbeats sent after it came in", () => {
  const bench = primary(undefined, CONFIRM);
  bench.promise(1);
  bench.promise(2);
  const before = bench.beat;
  assert(!answered(bench.step({ kind: "read", readId: 1, span: spanOfRow("r") }), 1));
  bench.step({ kind: "flush" });
  assert.equal(bench.beat, before + 1, "the read sends a round of its own");
  // Answers to an earlier heartbeat, however late, say nothing about the time after the read.
  assert(!answered(bench.promise(1, { beat: before }), 1));
  assert(!answered(bench.promise(2, { beat: before }), 1));
  assert(!answered(bench.promise(1), 1));
  assert(answered(bench.promise(2), 1));
});

Deno.test("reads that come in during a round share the next one", () => {
  const bench = primary(undefined, CONFIRM);
  bench.promise(1);
  bench.promise(2);
  bench.step({ kind: "read", readId: 1, span: spanOfRow("r") });
  bench.step({ kind: "flush" });
  const first = bench.beat;
  bench.step({ kind: "read", readId: 2, span: spanOfRow("r") });
  bench.step({ kind: "read", readId: 3, span: spanOfRow("r") });
  bench.step({ kind: "flush" });
  assert.equal(bench.beat, first, "one round at a time");
  bench.promise(1);
  assert(answered(bench.promise(2), 1));
  bench.step({ kind: "flush" });
  assert.equal(bench.beat, first + 1);
  bench.promise(1);
  const effects = bench.promise(2);
  assert(answered(effects, 2) && answered(effects, 3));
});

Deno.test("a doubted clock takes the leases away until they are given again", () => {
  const bench = primary();
  bench.step({ kind: "clockDoubted" });
  assert(!bench.replica.canReadAt(bench.nowMs));
  bench.step({ kind: "read", readId: 1, span: spanOfRow("r") });
  bench.promise(1);
  assert(answered(bench.promise(2), 1));
});

Deno.test("with a member out of reach a read is answered once the coordinator's record confirms the epoch", () => {
  const bench = primary();
  bench.nowMs += TIMING.leaseMs + 1;
  bench.promise(1);
  assert(!answered(bench.step({ kind: "read", readId: 1, span: spanOfRow("r") }), 1));
  bench.nowMs += 60;
  const [checkId] = checkOf(bench.step({ kind: "tick" }));
  assert(checkId !== undefined);
  // A read that comes in later is not covered by this look at the record.
  bench.step({ kind: "read", readId: 2, span: spanOfRow("r") });
  const effects = bench.step({ kind: "recordChecked", checkId, config: config() });
  assert(answered(effects, 1) && !answered(effects, 2));
});

Deno.test("a record of another epoch, or no answer, answers no read", () => {
  const bench = primary();
  bench.nowMs += TIMING.leaseMs + 1;
  bench.step({ kind: "read", readId: 1, span: spanOfRow("r") });
  bench.nowMs += 60;
  const [first] = checkOf(bench.step({ kind: "tick" }));
  assert(!answered(bench.step({ kind: "recordChecked", checkId: first!, config: null }), 1));
  bench.nowMs += 60;
  const [second] = checkOf(bench.step({ kind: "tick" }));
  const elected = config({
    epoch: epoch(2),
    reign: epoch(2),
    primary: { ...member(1), inc: incarnation(1) },
  });
  const effects = bench.step({ kind: "recordChecked", checkId: second!, config: elected });
  assert(effects.some((effect) => effect.kind === "unreadable" && effect.code === "not_primary"));
});

const STAMP = { clientId: "client-1", seq: 1, firstIncomplete: 1, issuedMs: 0 };
const DELETED = {
  row: "limbo",
  conditions: [],
  mutations: [{ kind: "delete" as const, column: "c" }],
};

/** Elected with too few members to commit anything; its log ends with what may be committed. */
function undecided(
  last: Command = { kind: "rowOp", stamp: STAMP, timeMs: 0, op: DELETED },
): { bench: Bench; record: GroupConfig } {
  const bench = new Bench(0);
  const former = config({ primary: { ...member(1), inc: incarnation(1) } });
  bench.step({ kind: "config", config: former, learners: [] });
  bench.sync();
  const head = {
    gid: GID,
    from: nodeId(1),
    store: storeId("s1"),
    inc: incarnation(1),
    toInc: incarnation(1),
    epoch: epoch(1),
    reign: epoch(1),
  };
  const commands: Command[] = [{ kind: "epochStart", reign: epoch(1), timeMs: 0 }, last];
  const entries = commands.map((command, index) =>
    new LogEntry(epoch(1), lsn(index + 1), new Uint8Array(1), command)
  );
  bench.step({
    kind: "message",
    message: {
      kind: "append",
      ...head,
      round: 0,
      prevEpoch: epoch(0),
      prevLsn: lsn(0),
      sizes: entries.map(() => 1),
      epochs: [{ epoch: epoch(1), count: entries.length }],
      commitLsn: lsn(1),
    },
    entries,
  });
  bench.sync();
  const record = config({
    epoch: epoch(2),
    reign: epoch(2),
    primary: { ...member(0), inc: incarnation(1) },
    inSync: [member(0)],
    eligible: [member(1), member(2)],
  });
  bench.step({ kind: "config", config: record, learners: [] });
  bench.sync();
  return { bench, record };
}

Deno.test("below the minimum a new primary answers reads beside undecided rows, and no others", () => {
  const { bench, record } = undecided();
  assert(!bench.replica.canServe());
  bench.step({ kind: "read", readId: 1, span: spanOfRow("limbo") });
  bench.step({ kind: "read", readId: 2, span: spanOfRow("elsewhere") });
  bench.step({ kind: "read", readId: 3, span: { from: "a", until: null } });
  bench.nowMs += 60;
  const [checkId] = checkOf(bench.step({ kind: "tick" }));
  const effects = bench.step({ kind: "recordChecked", checkId: checkId!, config: record });
  assert(answered(effects, 2), "nothing undecided touches this row");
  assert(!answered(effects, 1), "whether this row was changed is not known");
  assert(!answered(effects, 3), "the span contains such a row");
});

Deno.test("below the minimum a new primary reads no tablet that may be frozen or another group's by now", () => {
  const moved = { moveId: 1, startKey: "c", endKey: "e" };
  for (const kind of ["freeze", "drop"] as const) {
    const { bench, record } = undecided({ kind: "move", timeMs: 0, step: { kind, ...moved } });
    const spans = [spanOfRow("d"), spanOfRow("e"), { from: "a", until: "c" }, {
      from: "a",
      until: "cc",
    }];
    for (const [i, span] of spans.entries()) bench.step({ kind: "read", readId: i, span });
    bench.nowMs += 60;
    const [checkId] = checkOf(bench.step({ kind: "tick" }));
    const effects = bench.step({ kind: "recordChecked", checkId: checkId!, config: record });
    assert.deepEqual(spans.map((_, i) => answered(effects, i)), [false, true, true, false]);
  }
});

/** A heartbeat of node 0 to node 1. */
function heartbeat(change: Partial<Heartbeat>): Heartbeat {
  return {
    kind: "heartbeat",
    gid: GID,
    from: nodeId(0),
    store: storeId("s0"),
    inc: incarnation(1),
    toInc: incarnation(1),
    epoch: epoch(1),
    reign: epoch(1),
    config: config(),
    sentMs: 0,
    beat: 1,
    commitLsn: lsn(0),
    echoMs: null,
    check: null,
    ...change,
  };
}

Deno.test("a secondary knows the age of its state by its own stamp, come back with a heartbeat", () => {
  const bench = new Bench(1);
  bench.step({ kind: "config", config: config(), learners: [] });
  bench.sync();
  assert.equal(bench.replica.stalenessAt(bench.nowMs), Infinity);
  const stampMs = bench.nowMs;
  bench.nowMs += 40;
  bench.step({ kind: "message", message: heartbeat({ echoMs: stampMs }), entries: [] });
  assert.equal(bench.replica.stalenessAt(bench.nowMs), 40);
  // The primary has committed more than we have: how old we are has not changed.
  const more = heartbeat({ echoMs: bench.nowMs, commitLsn: lsn(9) });
  bench.step({ kind: "message", message: more, entries: [] });
  bench.nowMs += 10;
  assert.equal(bench.replica.stalenessAt(bench.nowMs), 50);
});

Deno.test("a primary without leases echoes no stamp: it may have been replaced", () => {
  const bench = primary();
  const echoes = (effects: readonly Effect[]) =>
    effects.flatMap((effect) =>
      effect.kind === "send" && effect.message.kind === "heartbeat" ? [effect.message.echoMs] : []
    );
  bench.promise(1, { stampMs: 77 });
  bench.promise(2, { stampMs: 88 });
  bench.nowMs += TIMING.heartbeatMs;
  assert.deepEqual(echoes(bench.step({ kind: "tick" })), [77, 88]);
  bench.nowMs += TIMING.leaseMs;
  assert.deepEqual(echoes(bench.step({ kind: "tick" })), [null, null]);
});

Deno.test("while the record is what answers, further reads ask it at once", () => {
  const bench = primary();
  bench.nowMs += TIMING.leaseMs + 1;
  bench.step({ kind: "read", readId: 1, span: spanOfRow("r") });
  bench.nowMs += 60;
  const [first] = checkOf(bench.step({ kind: "tick" }));
  assert(answered(bench.step({ kind: "recordChecked", checkId: first!, config: config() }), 1));
  const [second] = checkOf(bench.step({ kind: "read", readId: 2, span: spanOfRow("r") }));
  assert(answered(bench.step({ kind: "recordChecked", checkId: second!, config: config() }), 2));
});
