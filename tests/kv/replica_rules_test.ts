/**
 * Rules of promises, leases and reigns, one by one, each at the moment at which breaking it would show:
 * a millisecond before a promise ends, the first turn after a restart, an answer long under way.
 */
import assert from "node:assert/strict";
import type { Command } from "../../kv/command.ts";
import { REQUEST_AGE_MAX_MS, REQUEST_EARLY_MAX_MS } from "../../kv/completions.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import type { Effect } from "../../kv/replica.ts";
import { LogEntry, ReplicaLog } from "../../kv/replica_log.ts";
import { epoch, incarnation, lsn, nodeId, storeId } from "../../proto/ids.ts";
import type { Append, GroupConfig, Heartbeat, Member } from "../../proto/replication.ts";
import { Bench, config, GID, primary, TIMING } from "./replica_bench.ts";

const member = (node: number): Member => ({ node: nodeId(node), store: storeId(`s${node}`) });

/** Node 1 elected in the second reign, with node 2. */
const SECOND = config({
  epoch: epoch(2),
  reign: epoch(2),
  primary: { ...member(1), inc: incarnation(1) },
  inSync: [member(1), member(2)],
});

/** How a message of the primary of `current` to this replica begins. */
function head(current: GroupConfig) {
  const { primary: { node, store, inc }, epoch, reign } = current;
  return { gid: GID, from: node, store, inc, toInc: incarnation(1), epoch, reign };
}

function heartbeat(current: GroupConfig): Heartbeat {
  const rest = { sentMs: 1, beat: 1, commitLsn: lsn(0), echoMs: null, check: null };
  return { kind: "heartbeat", ...head(current), config: current, ...rest };
}

function append(bench: Bench, current: GroupConfig, behind: number, entries: LogEntry[]): Effect[] {
  const message: Append = {
    kind: "append",
    ...head(current),
    config: current,
    round: 0,
    prevEpoch: epoch(behind === 0 ? 0 : 1),
    prevLsn: lsn(behind),
    sizes: entries.map(() => 1),
    epochs: entries.map((entry) => ({ epoch: entry.epoch, count: 1 })),
    commitLsn: lsn(0),
  };
  return bench.step({ kind: "message", message, entries });
}

function entry(inEpoch: number, at: number): LogEntry {
  const command: Command = { kind: "epochStart", reign: epoch(inEpoch), timeMs: 0 };
  return new LogEntry(epoch(inEpoch), lsn(at), new Uint8Array(1), command);
}

const sentKinds = (effects: readonly Effect[]) =>
  effects.flatMap((effect) => effect.kind === "send" ? [effect.message.kind] : []);

/** Node 1 takes office and hears from node 2 all that it needs. */
function elect(bench: Bench): void {
  bench.step({ kind: "config", config: SECOND, learners: [] });
  bench.sync();
  bench.meet(2);
  bench.promise(2);
  bench.ack(2, 1);
}

Deno.test("a new primary that promised to follow waits to the last millisecond of its promise", () => {
  const bench = new Bench(1);
  bench.step({ kind: "config", config: config(), learners: [] });
  bench.sync();
  bench.step({ kind: "message", message: heartbeat(config()), entries: [] });
  bench.nowMs += TIMING.graceMs - 1;
  elect(bench);
  assert(!bench.replica.canServe(), "the former primary may still read");
  bench.nowMs += 1;
  bench.step({ kind: "tick" });
  assert(bench.replica.canServe());
});

Deno.test("a primary elected right after its start waits as if it had just promised to follow", () => {
  const bench = new Bench(1, undefined, TIMING, { nowMs: 10_000 });
  elect(bench);
  assert(!bench.replica.canServe(), "the process before it may have promised anything");
  bench.nowMs += TIMING.graceMs;
  bench.step({ kind: "tick" });
  assert(bench.replica.canServe());
});

Deno.test("a lease lasts from when the heartbeat was sent, however late the answer comes", () => {
  const bench = primary();
  bench.nowMs += TIMING.leaseMs;
  const sentMs = bench.nowMs;
  bench.nowMs += TIMING.leaseMs - 100;
  for (const peer of [1, 2]) bench.promise(peer, { sentMs });
  assert(bench.replica.canReadAt(sentMs + TIMING.leaseMs - 1));
  assert(!bench.replica.canReadAt(sentMs + TIMING.leaseMs));
});

Deno.test("who is elected again begins anew: it serves once the new reign's first entry is committed", () => {
  const bench = primary();
  const again = config({ epoch: epoch(2), reign: epoch(2) });
  bench.step({ kind: "config", config: again, learners: [] });
  assert(!bench.replica.canServe(), "others may have been primary meanwhile");
  bench.sync();
  for (const peer of [1, 2]) {
    bench.meet(peer);
    bench.ack(peer, 2);
  }
  assert(bench.replica.canServe());
  assert(!bench.replica.canReadAt(bench.nowMs), "and reads once it is promised again");
  for (const peer of [1, 2]) bench.promise(peer);
  assert(bench.replica.canReadAt(bench.nowMs));
});

Deno.test("a restarted primary is none until it is elected anew", () => {
  const self = { ...member(0), inc: incarnation(2) };
  const bench = new Bench(0, undefined, TIMING, { self, config: config() });
  assert.equal(bench.replica.role, "secondary");
  const answer = bench.answerTo(bench.put("x"));
  assert(answer?.kind === "refuse");
  assert.equal(answer.code, "not_primary");
  assert.equal(bench.replica.progress.lastLsn, 0, "it wrote nothing in the epoch of its last life");
});

Deno.test("neither ack nor promise leaves before the epoch that it is given in is on disk", () => {
  const bench = new Bench(1);
  const appended = append(bench, config(), 0, []);
  const beaten = bench.step({ kind: "message", message: heartbeat(config()), entries: [] });
  assert.deepEqual(sentKinds([...appended, ...beaten]), []);
  assert.deepEqual(sentKinds(bench.sync()), ["heartbeatAck", "appendAck"]);
});

Deno.test("a new primary commits what it found only once its own disk knows of the reign", () => {
  const found = { baseLsn: lsn(0), history: [], entries: [entry(1, 1), entry(1, 2)] };
  const log = new ReplicaLog(found);
  const bench = new Bench(1, undefined, TIMING, { log, config: config(), nowMs: -100_000 });
  bench.step({ kind: "config", config: SECOND, learners: [] });
  bench.meet(2);
  bench.ack(2, 2);
  assert.equal(bench.replica.progress.commitLsn, 0, "a crash now would undo the reign here");
  bench.sync();
  assert.equal(bench.replica.progress.commitLsn, 2);
});

Deno.test("a replica stops rather than cut off what its log says is committed (A4)", () => {
  const found = { baseLsn: lsn(0), history: [], entries: [entry(1, 1), entry(1, 2)] };
  const bench = new Bench(2, undefined, TIMING, {
    log: new ReplicaLog(found),
    config: config(),
    commitLsn: lsn(2),
  });
  assert.throws(() => append(bench, SECOND, 1, [entry(2, 2)]), /A4.*below committed 2/);
});

Deno.test("a request that no record can tell from a repeated one is refused, not executed", () => {
  const bench = primary();
  const op = toLogRowOp({ row: "r", mutations: [{ kind: "delete", column: "c" }] });
  const ask = (requestId: number, issuedMs: number, wallMs: number) => {
    const stamp = { clientId: "client-1", seq: requestId, firstIncomplete: 1, issuedMs };
    bench.step({ kind: "request", requestId, stamp, request: { kind: "rowOp", op }, wallMs });
    const answer = bench.answerTo(requestId);
    if (answer?.kind !== "refuse") return answer?.kind;
    assert(!answer.maybeApplied);
    return `${answer.code}, it is ${answer.groupTimeMs}`;
  };
  const early = REQUEST_EARLY_MAX_MS + 1, late = REQUEST_AGE_MAX_MS + 1;
  assert.equal(ask(100, early, 0), "session_too_old, it is 0", "issued in the future");
  assert.equal(ask(101, 0, late), `session_too_old, it is ${late}`);
  assert.equal(bench.replica.progress.lastLsn, 1, "neither was logged");
  assert.equal(ask(102, 0, REQUEST_AGE_MAX_MS), undefined, "taken, and waiting for its commit");
});
