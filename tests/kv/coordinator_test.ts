import assert from "node:assert/strict";
import {
  Coordinator,
  type CoordinatorEffect,
  type CoordinatorInput,
  DEFAULT_TIMING,
} from "../../kv/coordinator.ts";
import type { StoreReport } from "../../proto/control.ts";
import { epoch, groupId, incarnation, lsn, nodeId, storeId } from "../../proto/ids.ts";
import type { ConfigChange, GroupConfig } from "../../proto/replication.ts";

const GID = groupId(1);

/** A coordinator with its record, driven by hand. Nodes A, B and C are 0, 1 and 2. */
class Bench {
  nowMs = 0;
  record: GroupConfig | null = null;
  effects: CoordinatorEffect[] = [];
  #lastId = 0;
  readonly coordinator: Coordinator;

  constructor(options: { record?: GroupConfig; coldStartWaitMs?: number } = {}) {
    this.record = options.record ?? null;
    this.coordinator = new Coordinator({
      plans: [{ id: 1, startKey: "", endKey: null, members: [0, 1, 2] }],
      configs: this.record === null ? [] : [this.record],
      minInSync: 2,
      timing: { ...DEFAULT_TIMING, coldStartWaitMs: options.coldStartWaitMs ?? 10_000 },
      nowMs: 0,
      makeId: () => `id${++this.#lastId}`,
    });
  }

  feed(first: CoordinatorInput): void {
    const inputs = [first];
    for (let input; (input = inputs.shift()) !== undefined;) {
      for (const effect of this.coordinator.step(this.nowMs, input)) {
        this.effects.push(effect);
        if (effect.kind !== "swap") continue;
        const done = (this.record?.epoch ?? 0) === effect.expected;
        if (done) this.record = effect.config;
        inputs.push({ kind: "swapped", gid: effect.gid, done, config: this.record });
      }
    }
  }

  report(
    node: number,
    options: {
      inc?: number;
      lastLsn?: number;
      commitLsn?: number;
      epoch?: number;
      suspect?: boolean;
      doubted?: boolean;
      diskFull?: boolean;
      copy?: string;
    } = {},
  ): void {
    const report: StoreReport = {
      store: storeId(`s${node}`),
      inc: incarnation(options.inc ?? 1),
      draining: false,
      logBytes: 0,
      dataBytes: 0,
      diskFull: options.diskFull ?? false,
      groups: [{
        gid: GID,
        epoch: epoch(options.epoch ?? this.record?.epoch ?? 0),
        role: "secondary",
        lastEpoch: epoch(1),
        lastLsn: lsn(options.lastLsn ?? 0),
        commitLsn: lsn(options.commitLsn ?? 0),
        ...(options.doubted === undefined ? {} : { doubted: options.doubted }),
        ...(options.suspect === undefined ? {} : { suspect: options.suspect }),
        ...(options.copy === undefined ? {} : { store: storeId(options.copy) }),
        serving: false,
        silentMs: 10_000,
        tablets: [],
      }],
    };
    const spawnId = `spawn-${node}-${options.inc ?? 1}`;
    this.feed({ kind: "report", node: nodeId(node), spawnId, report });
  }

  exited(node: number, inc = 1): void {
    this.feed({ kind: "exited", spawnId: `spawn-${node}-${inc}` });
  }

  propose(change: ConfigChange, from = this.record!.primary, at = this.record!.epoch): string {
    const requestId = ++this.#lastId;
    const proposal = { gid: GID, ...from, epoch: at, changeId: `change${requestId}`, change };
    this.feed({ kind: "propose", requestId, proposal });
    const answer = this.effects.findLast((effect) =>
      effect.kind === "answer" && effect.requestId === requestId
    );
    assert(answer?.kind === "answer");
    return answer.result;
  }

  later(ms: number): void {
    for (let passed = 0; passed < ms; passed += 50) {
      this.nowMs += 50;
      this.feed({ kind: "tick" });
    }
  }

  get inSync(): number[] {
    return this.record!.inSync.map((member) => Number(member.node)).sort();
  }

  get eligible(): number[] {
    return this.record!.eligible.map((member) => Number(member.node)).sort();
  }
}

function created(): Bench {
  const bench = new Bench();
  for (const node of [0, 1, 2]) bench.report(node);
  assert.equal(bench.record?.epoch, 1);
  return bench;
}

const member = (node: number) => ({ node: nodeId(node), store: storeId(`s${node}`) });

Deno.test("a group is created once all its planned members are there, led by the wished one", () => {
  const bench = new Bench();
  bench.report(0);
  bench.report(1);
  assert.equal(bench.record, null);
  bench.report(2);
  assert.deepEqual(bench.inSync, [0, 1, 2]);
  assert.equal(bench.record!.primary.node, 0);
});

Deno.test("a group is not created while a planned member is away, however long", () => {
  const bench = new Bench();
  bench.report(0);
  bench.report(2);
  bench.later(60_000);
  for (const node of [0, 2]) bench.report(node);
  assert.equal(bench.record, null);
  bench.report(1);
  assert.deepEqual(bench.inSync, [0, 1, 2]);
});

/** What a member that holds data may say of itself. */
const HOLDERS: readonly Parameters<Bench["report"]>[1][] = [
  { epoch: 12, lastLsn: 40, commitLsn: 40 },
  // It begins anew from its checkpoint, under a new name.
  { epoch: 0, lastLsn: 30, copy: "s-renewed" },
  { epoch: 12, lastLsn: 0 },
  // It cannot say what it holds.
  { epoch: 0, suspect: true },
];

Deno.test("without records nothing is created anew while anybody might hold it, in whatever order they come", () => {
  const orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
  for (const holder of HOLDERS) {
    for (const order of orders) {
      const bench = new Bench();
      // The last has everything; the others' disks were replaced by empty ones.
      for (const node of order) {
        bench.later(20_000);
        bench.report(node, node === 2 ? holder : { inc: 1 });
        assert.equal(bench.record, null);
        // One that has spoken may go away again, and come back.
        if (node === 1) bench.exited(1);
      }
      bench.report(1, { inc: 2 });
      for (const node of [0, 2]) bench.report(node, node === 2 ? holder : {});
      bench.later(60_000);
      assert.equal(bench.record, null, JSON.stringify([holder, order]));
    }
  }
});

Deno.test("proof of death elects the longest log at once, and says that the old reign is over", () => {
  const bench = created();
  const reign = bench.record!.reign;
  bench.exited(0);
  bench.report(1, { lastLsn: 7 });
  assert.equal(bench.record!.primary.node, 0, "one member is still to be heard");
  bench.report(2, { lastLsn: 9 });
  assert.equal(bench.record!.primary.node, 2);
  assert.deepEqual(bench.inSync, [1, 2]);
  assert.equal(bench.record!.deadReign, reign);
  assert.equal(bench.record!.reign, bench.record!.epoch);
});

Deno.test("silence alone elects too, but does not claim that the old primary is dead", () => {
  const bench = created();
  bench.feed({ kind: "suspect", gid: GID, node: nodeId(1), epoch: epoch(1) });
  bench.feed({ kind: "suspect", gid: GID, node: nodeId(2), epoch: epoch(1) });
  bench.report(1, { lastLsn: 1 });
  bench.report(2, { lastLsn: 1 });
  bench.later(400);
  assert.notEqual(bench.record!.primary.node, 0);
  assert.equal(bench.record!.deadReign, null);
});

Deno.test("staggered crash: A dies, B and C go on and die, A comes back first and has to wait", () => {
  const bench = created();
  bench.exited(0);
  bench.report(1, { lastLsn: 5 });
  bench.report(2, { lastLsn: 5 });
  assert.deepEqual(bench.inSync, [1, 2]);
  bench.exited(1);
  bench.exited(2);
  const before = bench.record!;
  bench.report(0, { inc: 2, lastLsn: 4, epoch: 1 });
  bench.later(60_000);
  bench.report(0, { inc: 2, lastLsn: 4, epoch: 1 });
  assert.equal(bench.record!.epoch, before.epoch, "A must not lead, however long it waits");
  bench.report(1, { inc: 2, lastLsn: 9 });
  bench.later(11_000);
  assert.equal(bench.record!.primary.node, 1);
  assert(!bench.inSync.includes(0), "A has to catch up first");
});

Deno.test("below the minimum who leaves stays eligible, and nobody is once it is reached again", () => {
  const bench = created();
  bench.later(2_000);
  assert.equal(bench.propose({ kind: "remove", member: member(1) }), "done");
  assert.deepEqual([bench.inSync, bench.eligible], [[0, 2], []]);
  assert.equal(bench.propose({ kind: "remove", member: member(2) }), "done");
  assert.deepEqual([bench.inSync, bench.eligible], [[0], [2]]);
  assert.equal(bench.propose({ kind: "add", member: member(1) }), "done");
  assert.deepEqual([bench.inSync, bench.eligible], [[0, 1], []]);
});

Deno.test("a change is refused to anyone but the primary of the current epoch", () => {
  const bench = created();
  const change = { kind: "remove", member: member(2) } as const;
  const stranger = { ...member(1), inc: incarnation(1) };
  assert.equal(bench.propose(change, stranger), "refused");
  const formerLife = { ...member(0), inc: incarnation(0) };
  assert.equal(bench.propose(change, formerLife), "refused");
  assert.equal(bench.propose(change, bench.record!.primary, epoch(0)), "refused");
  assert.equal(bench.propose({ kind: "remove", member: member(0) }), "refused");
  assert.equal(bench.record!.epoch, 1);
});

Deno.test("a primary that would drop its last companion though all are well loses its office to it", () => {
  const bench = created();
  assert.equal(bench.propose({ kind: "remove", member: member(1) }), "done");
  bench.later(5_000);
  for (const node of [0, 1, 2]) bench.report(node);
  assert.equal(bench.propose({ kind: "remove", member: member(2) }), "refused");
  for (const node of [0, 1, 2]) bench.report(node);
  assert.equal(bench.record!.primary.node, 2);
  assert.deepEqual(
    bench.record!.eligible,
    [member(0)],
    "nothing is committed before others are in",
  );
  assert.equal(bench.record!.deadReign, null, "the deaf one may still hold promises");
});

Deno.test("a last companion that nobody hears is dropped, and one whose fellows are gone as well", () => {
  for (const heard of [[0, 1], [0, 2]]) {
    const bench = created();
    bench.propose({ kind: "remove", member: member(1) });
    bench.later(5_000);
    for (const node of heard) bench.report(node);
    assert.equal(bench.propose({ kind: "remove", member: member(2) }), "done");
    assert.equal(bench.record!.primary.node, 0);
    assert.deepEqual(bench.inSync, [0]);
  }
});

Deno.test("a replaced disk is another store: it can neither be added as the old one nor lead", () => {
  const bench = created();
  bench.propose({ kind: "remove", member: member(2) });
  const impostor = { node: nodeId(2), store: storeId("another") };
  assert.equal(bench.propose({ kind: "add", member: impostor }), "refused");
});

Deno.test("an addition or a leave that is refused stays refused, whatever a copy of the request would find", () => {
  for (const kind of ["add", "relinquish"] as const) {
    const bench = created();
    if (kind === "add") bench.propose({ kind: "remove", member: member(2) });
    const record = bench.record!;
    // A coordinator that has just started has not heard of node 2 yet.
    const restarted = new Bench({ record });
    for (const node of [0, 1]) restarted.report(node);
    restarted.later(2_000);
    for (const node of [0, 1]) restarted.report(node);
    const change: ConfigChange = kind === "add"
      ? { kind, member: member(2) }
      : { kind, to: member(2) };
    assert.equal(restarted.propose(change), "refused");
    const { epoch: refusedIn, ...refused } = restarted.record!;
    assert.equal(refusedIn, record.epoch + 1);
    const { epoch: _, changeId: _1, reason: _2, ...before } = record;
    const { changeId: _3, reason: _4, ...after } = refused;
    assert.deepEqual(after, before, "nothing but the epoch changes");
    restarted.report(2);
    assert.equal(restarted.propose(change, record.primary, record.epoch), "refused");
    assert.equal(restarted.record!.epoch, refusedIn);
    assert.equal(restarted.propose(change), "done");
  }
});

Deno.test("a coordinator that has just started hears all members before it changes a record", () => {
  const old = created().record!;
  const restarted = new Bench({ record: old });
  // Node 0 is dead, and node 1 was away while the record moved on: only node 2 knows that it did.
  restarted.report(0);
  restarted.feed({ kind: "exited", spawnId: "spawn-0-1" });
  restarted.later(300);
  restarted.report(1);
  restarted.later(1_000);
  restarted.report(1);
  assert.equal(restarted.record!.epoch, old.epoch, "node 2 may know better");
  restarted.report(2, { epoch: 9 });
  restarted.later(30_000);
  assert.equal(restarted.record!.epoch, old.epoch);
  assert.equal([...restarted.coordinator.groups()][0]!.rolledBack, true);
});

Deno.test("a coordinator that has just started does not wait for ever for a member that is gone", () => {
  const old = created().record!;
  const restarted = new Bench({ record: old });
  restarted.report(0);
  restarted.report(1);
  restarted.feed({ kind: "exited", spawnId: "spawn-0-1" });
  assert.equal(restarted.record!.primary.node, 0);
  restarted.later(2_500);
  restarted.report(1, { epoch: old.epoch });
  restarted.later(12_000);
  assert.equal(restarted.record!.primary.node, 1);
});

Deno.test("nodes that know a newer epoch than the record mean lost metadata: nothing is decided", () => {
  const fresh = new Bench();
  for (const node of [0, 1, 2]) fresh.report(node, { epoch: 7 });
  fresh.later(30_000);
  assert.equal(fresh.record, null);
  assert.equal([...fresh.coordinator.groups()][0]!.rolledBack, true);

  const rolledBack = new Bench({ record: created().record! });
  rolledBack.report(1, { epoch: 3 });
  rolledBack.exited(0);
  rolledBack.report(2);
  rolledBack.later(30_000);
  assert.equal(rolledBack.record!.epoch, 1);

  // The news may come while an election is under way on older word.
  const underWay = new Bench({ record: created().record! });
  for (const node of [0, 1, 2]) underWay.report(node);
  underWay.exited(0);
  underWay.report(1, { epoch: 3 });
  underWay.report(2);
  underWay.later(30_000);
  assert.equal(underWay.record!.epoch, 1);
});

Deno.test("a restarted primary is replaced at once: its former reign is certainly over", () => {
  const bench = created();
  bench.report(0, { inc: 2, lastLsn: 3 });
  bench.report(1, { lastLsn: 3 });
  bench.report(2, { lastLsn: 3 });
  assert.equal(bench.record!.reign, 2);
  assert.equal(bench.record!.deadReign, 1);
  assert.deepEqual(bench.inSync, [0, 1, 2]);
});

Deno.test("the office goes back to where it is wished once all is quiet", () => {
  const bench = created();
  bench.exited(0);
  bench.report(1);
  bench.report(2);
  bench.report(0, { inc: 2 });
  bench.propose({ kind: "add", member: member(0) });
  for (let i = 0; i < 30; i++) {
    bench.later(500);
    for (const node of [1, 2]) bench.report(node);
    bench.report(0, { inc: 2 });
  }
  const handOver = bench.effects.find((effect) => effect.kind === "handOver");
  assert(handOver?.kind === "handOver");
  assert.equal(handOver.successor, 0);
});

Deno.test("a primary that reports damage is replaced at once, and its reign is over", () => {
  const bench = created();
  bench.report(0, { suspect: true, epoch: 0 });
  bench.report(1, { lastLsn: 4 });
  bench.report(2, { lastLsn: 4 });
  assert.equal(bench.record!.primary.node, 1);
  assert.deepEqual(bench.inSync, [1, 2]);
  assert.equal(bench.record!.deadReign, 1);
});

Deno.test("a secondary that reports damage is taken out without waiting, and not put in before it began anew", () => {
  const bench = created();
  bench.report(2, { suspect: true, epoch: 0 });
  const down = bench.effects.find((effect) => effect.kind === "memberDown");
  assert(down?.kind === "memberDown" && down.to === 0 && down.node === 2);
  assert.equal(bench.propose({ kind: "remove", member: member(2) }), "done");
  assert.equal(bench.propose({ kind: "add", member: member(2) }), "refused");
  bench.report(2, { copy: "s2~1" });
  assert.equal(
    bench.propose({ kind: "add", member: member(2) }),
    "refused",
    "that copy is no more",
  );
  const anew = { node: nodeId(2), store: storeId("s2~1") };
  assert.equal(bench.propose({ kind: "add", member: anew }), "done");
});

Deno.test("damage everywhere elects nobody", () => {
  const bench = created();
  for (const node of [0, 1, 2]) bench.report(node, { suspect: true, epoch: 0 });
  bench.later(60_000);
  assert.equal(bench.record!.epoch, 1);
});

Deno.test("who lacks what another knows to be committed is not elected, however long the others are away", () => {
  const bench = created();
  bench.report(1, { lastLsn: 9, commitLsn: 9 });
  bench.exited(0);
  bench.exited(1);
  bench.report(2, { inc: 2, lastLsn: 5 });
  bench.later(60_000);
  assert.equal(bench.record!.epoch, 1, "its disk forgot");
  bench.report(1, { inc: 2, lastLsn: 9, commitLsn: 9 });
  bench.later(11_000);
  assert.equal(bench.record!.primary.node, 1);
  assert.deepEqual(bench.inSync, [1]);
});

Deno.test("a primary whose disk is full is asked to hand over to a member that has space", () => {
  const bench = created();
  bench.report(0, { diskFull: true });
  bench.report(1, { diskFull: true });
  bench.report(2);
  bench.later(100);
  const handOver = bench.effects.find((effect) => effect.kind === "handOver");
  assert(handOver?.kind === "handOver" && handOver.to === 0);
  assert.equal(handOver.successor, 2);
  const { primary } = bench.record!;
  const to = member(2);
  assert.equal(bench.propose({ kind: "relinquish", to }, primary), "done");
  bench.effects.length = 0;
  for (let i = 0; i < 30; i++) {
    bench.later(500);
    bench.report(0, { diskFull: true });
    bench.report(1);
    bench.report(2);
  }
  assert(
    !bench.effects.some((effect) => effect.kind === "handOver"),
    "it stays until there is space",
  );
});

Deno.test("lost records are made anew from the newest that the nodes adopted, and all goes on", () => {
  const before = created();
  before.propose({ kind: "remove", member: member(1) });
  const newest = before.record!;
  const fresh = new Bench();
  for (const node of [0, 1, 2]) fresh.report(node, { epoch: 2 });
  fresh.later(10_000);
  assert.equal(fresh.record, null);
  fresh.feed({ kind: "recover", configs: [newest] });
  assert.deepEqual(fresh.inSync, [0, 2]);
  assert.equal(fresh.record!.epoch, newest.epoch + 2);
  assert.equal(fresh.record!.reign, newest.reign, "who leads goes on leading");
  assert.equal([...fresh.coordinator.groups()][0]!.rolledBack, false);
  fresh.exited(0);
  fresh.report(2, { lastLsn: 3, epoch: 4 });
  fresh.later(11_000);
  assert.equal(fresh.record!.primary.node, 2);
  // What the record knows already is left alone.
  const { epoch: now } = fresh.record!;
  fresh.feed({ kind: "recover", configs: [newest] });
  assert.equal(fresh.record!.epoch, now);
});

Deno.test("a person may force a stale member to lead; what others knew before no longer counts", () => {
  const bench = created();
  bench.propose({ kind: "remove", member: member(2) });
  bench.report(0, { lastLsn: 9, commitLsn: 9 });
  bench.report(1, { lastLsn: 9, commitLsn: 9 });
  bench.exited(0);
  bench.exited(1);
  bench.report(2, { lastLsn: 4 });
  bench.later(60_000);
  assert.equal(bench.record!.primary.node, 0, "nobody who may lead is there");
  const answerOf = (requestId: number) =>
    bench.effects.find((effect) => effect.kind === "answer" && effect.requestId === requestId);
  bench.feed({ kind: "force", requestId: 901, gid: GID, node: nodeId(0) });
  assert.equal((answerOf(901) as { result: string }).result, "refused", "it does not run");
  bench.feed({ kind: "force", requestId: 902, gid: GID, node: nodeId(2) });
  assert.equal((answerOf(902) as { result: string }).result, "done");
  const forced = bench.record!;
  assert.deepEqual([bench.inSync, bench.eligible], [[2], []]);
  assert.equal(forced.forcedEpoch, forced.epoch);
  assert.equal(forced.deadReign, null, "the old primary may still be there");
  // A crash of the forced primary: the commits of before must not keep it from being elected again.
  bench.exited(2);
  bench.report(2, { inc: 2, lastLsn: 6, epoch: forced.epoch });
  bench.later(11_000);
  assert.equal(bench.record!.primary.inc, 2);
});

/** All machines lost their power, the coordinator's too: only the record is left. */
function afterPowerLoss(inSync: readonly number[], eligible: readonly number[] = []): Bench {
  const before = created();
  before.record = {
    ...before.record!,
    epoch: epoch(7),
    inSync: inSync.map(member),
    eligible: eligible.map(member),
  };
  return new Bench({ record: before.record });
}

const LATE = { inc: 2, epoch: 7 };

Deno.test("a member whose disk may have lied leads only beside another, by the longest log", () => {
  const bench = afterPowerLoss([0, 1, 2]);
  bench.report(0, { ...LATE, lastLsn: 5, doubted: true });
  bench.later(60_000);
  bench.report(0, { ...LATE, lastLsn: 5, doubted: true });
  assert.equal(bench.record!.epoch, 7, "alone it proves nothing, however long it waits");
  bench.report(2, { ...LATE, lastLsn: 8, doubted: true });
  bench.later(11_000);
  assert.equal(bench.record!.primary.node, 2);
  assert.deepEqual(bench.inSync, [0, 2]);
});

Deno.test("one that did not lose its power is enough beside a doubted one, and alone", () => {
  for (const present of [[1], [1, 0]]) {
    const bench = afterPowerLoss([0, 1, 2]);
    bench.later(2_500);
    bench.feed({ kind: "suspect", gid: GID, node: nodeId(1), epoch: epoch(7) });
    for (const node of present) bench.report(node, { ...LATE, doubted: node === 0 });
    bench.later(11_000);
    assert.deepEqual(bench.inSync, present.toSorted());
  }
});

Deno.test("one that is known to have forgotten is the other one too, but does not lead", () => {
  const bench = afterPowerLoss([0, 1]);
  bench.report(0, { ...LATE, lastLsn: 8, commitLsn: 7, doubted: true });
  bench.later(15_000);
  assert.equal(bench.record!.epoch, 7);
  bench.report(1, { ...LATE, lastLsn: 5, doubted: true });
  bench.later(15_000);
  assert.deepEqual([bench.record!.primary.node, bench.inSync], [0, [0]]);
});

Deno.test("beside a doubted last member an eligible one leads if its log is longer", () => {
  for (const eligibleIsDoubted of [true, false]) {
    const bench = afterPowerLoss([0], [1]);
    bench.report(0, { ...LATE, lastLsn: 5, doubted: true });
    bench.later(15_000);
    assert.equal(bench.record!.epoch, 7);
    bench.report(1, { ...LATE, lastLsn: 8, doubted: eligibleIsDoubted });
    bench.later(15_000);
    assert.equal(bench.record!.primary.node, 1);
  }
});

Deno.test("an eligible member that is doubted does not lead alone either, unless a person says so", () => {
  const bench = afterPowerLoss([0], [1]);
  bench.report(1, { ...LATE, lastLsn: 8, doubted: true });
  bench.later(60_000);
  bench.report(1, { ...LATE, lastLsn: 8, doubted: true });
  assert.equal(bench.record!.epoch, 7);
  bench.feed({ kind: "force", requestId: 900, gid: GID, node: nodeId(1) });
  assert.equal(bench.record!.primary.node, 1);
});

Deno.test("who was never in sync does not count as the other one", () => {
  const bench = afterPowerLoss([0, 1]);
  bench.report(0, { ...LATE, lastLsn: 5, doubted: true });
  bench.report(2, { ...LATE, lastLsn: 3 });
  bench.later(60_000);
  bench.report(0, { ...LATE, lastLsn: 5, doubted: true });
  assert.equal(bench.record!.epoch, 7);
});

Deno.test("a coordinator is calm once every group is led and nothing is being decided", () => {
  const bench = new Bench();
  assert(!bench.coordinator.isCalm, "the group has no record");
  for (const node of [0, 1, 2]) bench.report(node);
  assert(bench.coordinator.isCalm);
  bench.exited(0);
  assert.equal(bench.record!.epoch, 1, "it waits for the others' answers");
  assert(!bench.coordinator.isCalm, "an election is on");
  for (const node of [1, 2]) bench.report(node, { lastLsn: 1 });
  bench.later(100);
  assert.equal(bench.record!.epoch, 2);
  assert(bench.coordinator.isCalm);
});

Deno.test("a coordinator is not calm before it has heard of every primary since its start", () => {
  const before = created();
  const bench = new Bench({ record: before.record! });
  assert(!bench.coordinator.isCalm);
  for (const node of [1, 2]) bench.report(node);
  assert(!bench.coordinator.isCalm, "the primary may be gone");
  bench.report(0);
  assert(bench.coordinator.isCalm);
});
