/**
 * Chosen schedules of the core model: the shortest stories in which one rule of the protocol makes the
 * difference. Each is played twice: with the rule all is well, without it a promise breaks.
 *
 * They are here because chance hardly ever plays them (`lease-without-eligible` once stayed unfound in
 * 75 000 random runs), and because they tell better than prose what a rule is for.
 */
import assert from "node:assert/strict";
import { CoreModel, GRACE, LEASE, type Replica, Violation } from "./core_model.ts";
import type { MutantName } from "./mutants.ts";

/** A model in which everything that is told to happen happens at once. */
class Stage {
  readonly model: CoreModel;

  constructor(options: { mutant: MutantName | null; replicas?: number; minInSync?: number }) {
    this.model = new CoreModel({ ...options, random: () => 0 });
    // Reign 1: replica 0 with 1 and 2. All have been up for long.
    this.commit(0, [1, 2]);
    this.wait(GRACE);
  }

  replica(id: number): Replica {
    return this.model.replicas[id]!;
  }

  #deliverLast(): void {
    this.model.deliver(this.model.network.length - 1, false);
  }

  /** `peer` receives everything that `primary` has and acknowledges it. */
  catchUp(primary: number, peer: number): void {
    const { model } = this, from = this.replica(primary), to = this.replica(peer);
    model.meet(from, to);
    for (let common = from.log.length; common >= 0; common--) {
      model.sendAppend(from, to, common, from.log.length);
      this.#deliverLast();
      model.sync(to, to.queue.length);
      const answer = model.network.at(-1);
      this.#deliverLast();
      if (answer?.kind === "ack") return;
    }
  }

  /** A new entry of `primary` reaches `others`. */
  commit(primary: number, others: readonly number[]): void {
    const from = this.replica(primary);
    this.model.request(from);
    this.model.sync(from, from.queue.length);
    for (const peer of others) this.catchUp(primary, peer);
    this.model.tick();
    this.model.check();
  }

  promise(primary: number, others: readonly number[]): void {
    const { model } = this, from = this.replica(primary);
    model.nextBeat(from);
    for (const peer of others) {
      model.meet(from, this.replica(peer));
      model.sendHeartbeat(from, this.replica(peer));
      this.#deliverLast();
      model.sync(this.replica(peer), 100);
      this.#deliverLast();
    }
  }

  /** The coordinator makes what `primary` has proposed last durable, and tells it. */
  accept(primary: number): void {
    const { model } = this;
    model.receiveProposal(model.proposals.length - 1, { again: false, knowsMember: true });
    model.completeSwap();
    model.check();
    model.deliverAnswer(model.answers.length - 1, false);
    model.fetchConfig(this.replica(primary));
  }

  remove(primary: number, member: number): void {
    this.model.proposeRemove(this.replica(primary), member);
    this.accept(primary);
  }

  elect(candidate: number, answered: readonly number[], deathProved = false): void {
    const { model } = this;
    for (const id of answered) model.report(this.replica(id));
    model.elect(candidate, answered.reduce((mask, id) => mask | 1 << id, 0), deathProved);
    model.completeSwap();
    model.check();
    model.fetchConfig(this.replica(candidate));
  }

  crash(id: number): void {
    this.model.crash(this.replica(id), 0);
  }

  wait(ticks: number): void {
    for (let i = 0; i < ticks; i++) this.model.tick();
  }

  /** Whether it answers; throws when it answers wrongly. */
  read(id: number): boolean {
    return this.model.readByLease(this.replica(id));
  }

  get committed(): number {
    return this.model.committed.length;
  }
}

/** Plays the story with the rule, then without it; the story asserts what the rule achieves. */
function tell(
  name: string,
  mutant: MutantName,
  broken: RegExp,
  options: { replicas?: number; minInSync?: number },
  story: (stage: Stage, withRule: boolean) => void,
): void {
  Deno.test(`model: ${name}`, () => {
    story(new Stage({ ...options, mutant: null }), true);
    assert.throws(
      () => story(new Stage({ ...options, mutant }), false),
      (error) => error instanceof Violation && broken.test(error.message),
      `without the rule (${mutant}) nothing broke`,
    );
  });
}

tell(
  "a primary alone in sync asks eligible members for promises, since one of them may be elected",
  "lease-without-eligible",
  /^S3: replica 0 /,
  {},
  (stage) => {
    stage.promise(0, [1, 2]);
    stage.remove(0, 1);
    stage.remove(0, 2);
    // In sync is 0 alone, 2 is eligible. 0 is cut off but alive; 2 is elected and 3 added to it.
    stage.elect(2, [2]);
    stage.wait(2 * GRACE);
    stage.catchUp(2, 3);
    stage.model.sync(stage.replica(2), 100);
    stage.model.proposeAdd(stage.replica(2), 3);
    stage.accept(2);
    stage.commit(2, [3]);
    assert.equal(stage.committed, 4);
    assert.equal(stage.read(0), false);
    assert.equal(stage.model.record.inSync, 0b1100);
  },
);

tell(
  "a primary that adds a member needs its promise before it knows the outcome",
  "lease-without-pending-add",
  /^S3: replica 0 /,
  { minInSync: 1 },
  (stage) => {
    const { model } = stage;
    stage.catchUp(0, 3);
    model.proposeAdd(stage.replica(0), 3);
    model.receiveProposal(0, { again: false, knowsMember: true });
    model.completeSwap();
    // It is done, but 0 is not told, and is cut off from 3, which is elected.
    stage.promise(0, [1, 2]);
    stage.elect(3, [3]);
    stage.commit(3, []);
    assert.equal(stage.committed, 4);
    assert.equal(stage.read(0), false);
  },
);

tell(
  "a new primary commits what it found only once its own disk knows of the reign",
  "own-reign-not-durable",
  /^S1: replica 1 /,
  {},
  (stage, withRule) => {
    const { model } = stage, found = stage.committed;
    // An entry reaches 1, and 0 loses it. Elected again, 0 does not get through to the others.
    model.request(stage.replica(0));
    stage.catchUp(0, 1);
    stage.crash(0);
    model.restart(stage.replica(0));
    stage.elect(0, [0], true);
    model.sync(stage.replica(0), 100);
    stage.elect(1, [1, 2]);
    stage.wait(GRACE);
    stage.catchUp(1, 2);
    if (withRule) assert.equal(stage.committed, found);
    // Back from a crash, 1 knows of no reign in which it led, and 0 still believes in its own.
    stage.crash(1);
    model.restart(stage.replica(1));
    stage.catchUp(0, 1);
    model.check();
  },
);

tell(
  "a restarted process waits as long as the promises bind that it may have forgotten",
  "no-boot-wait",
  /^S3: replica 0 /,
  {},
  (stage, withRule) => {
    stage.promise(0, [1, 2]);
    stage.crash(1);
    stage.model.restart(stage.replica(1));
    stage.elect(1, [1, 2]);
    stage.commit(1, [2]);
    assert.equal(stage.read(0), true);
    if (!withRule) return;
    assert.equal(stage.committed, 2);
    stage.wait(GRACE);
    stage.commit(1, [2]);
    assert(stage.committed > 2);
    assert.equal(stage.read(0), false);
  },
);

tell(
  "a primary that has handed over reads no more, so its successor need not wait for it",
  "relinquished-serves",
  /^S3: replica 0 /,
  {},
  (stage) => {
    stage.promise(0, [1, 2]);
    stage.model.handOver(stage.replica(0), 1);
    stage.model.receiveProposal(0, { again: false, knowsMember: true });
    stage.model.completeSwap();
    stage.model.fetchConfig(stage.replica(1));
    stage.remove(1, 0);
    stage.commit(1, [2]);
    assert.equal(stage.committed, 4, "the successor must not wait");
    assert.equal(stage.read(0), false);
  },
);

tell(
  "proof that one primary is dead voids what was promised to that one, not to others",
  "death-voids-all-promises",
  /^S3: replica 0 /,
  { minInSync: 1 },
  (stage, withRule) => {
    stage.promise(0, [1, 2]);
    // 2 is elected because 0 is silent, and dies for certain. 0 still reads on 1's promise.
    stage.elect(2, [1, 2]);
    stage.crash(2);
    stage.elect(1, [1], true);
    stage.commit(1, []);
    assert.equal(stage.read(0), true);
    if (!withRule) return;
    assert.equal(stage.committed, 2);
    stage.wait(LEASE);
    assert.equal(stage.read(0), false);
    stage.wait(GRACE);
    assert(stage.committed > 2);
  },
);

tell(
  "silence is not death: without proof a new primary waits for the promises it gave",
  "silence-is-death",
  /^S3: replica 0 /,
  {},
  (stage, withRule) => {
    stage.promise(0, [1, 2]);
    stage.elect(1, [1, 2], true);
    stage.commit(1, [2]);
    assert.equal(stage.read(0), true);
    if (withRule) assert.equal(stage.committed, 2);
  },
);

tell(
  "a refused change counts only once its epoch is over: a copy of it may still be accepted",
  "refusal-without-fence",
  /^S1: replica 3 /,
  {},
  (stage, withRule) => {
    const { model } = stage, primary = stage.replica(0);
    stage.catchUp(0, 3);
    model.proposeAdd(primary, 3);
    model.repeatProposal(primary);
    // A coordinator that just started does not know replica 3 and refuses the first copy.
    model.receiveProposal(0, { again: false, knowsMember: false });
    model.deliverAnswer(0, false);
    stage.commit(0, [1, 2]);
    const before = stage.committed;
    // Meanwhile it has heard of 3, and the second copy arrives.
    model.receiveProposal(0, { again: true, knowsMember: true });
    model.completeSwap();
    model.check();
    if (!withRule) return;
    assert.equal(before, 2, "commits wait for the one who may be added");
    stage.accept(0);
    stage.catchUp(0, 3);
    assert.equal(stage.committed, 3);
  },
);

Deno.test("model: a refusal that moves the record lets a primary go on without the member", () => {
  const stage = new Stage({ mutant: null }), { model } = stage, primary = stage.replica(0);
  stage.catchUp(0, 3);
  model.proposeAdd(primary, 3);
  model.repeatProposal(primary);
  model.fence(primary.proposal!);
  model.completeSwap();
  model.fetchConfig(primary);
  stage.commit(0, [1, 2]);
  assert.equal(stage.committed, 3);
  // The copies come too late for ever.
  model.receiveProposal(0, { again: false, knowsMember: true });
  assert.equal(model.swapping, null);
});

Deno.test("model: a member that left before the others died waits for one of them, however long", () => {
  const stage = new Stage({ mutant: null }), { model } = stage;
  stage.crash(0);
  stage.elect(1, [1, 2], true);
  stage.wait(GRACE);
  stage.commit(1, [2]);
  const { inSync } = model.record;
  assert.equal(inSync, 0b110);
  stage.crash(1);
  stage.crash(2);
  model.restart(stage.replica(0));
  const { epoch } = model.record;
  stage.elect(0, [0]);
  assert.equal(model.record.epoch, epoch, "0 is neither in sync nor eligible");
  model.restart(stage.replica(2));
  stage.elect(2, [0, 2], true);
  assert.equal(model.record.primary, 2);
  assert.equal(model.record.eligible, 0b010);
  stage.wait(GRACE);
  // Below the minimum it commits nothing, until 0 has caught up with it.
  const { committed } = stage;
  stage.catchUp(2, 0);
  assert.equal(stage.committed, committed);
  model.proposeAdd(stage.replica(2), 0);
  stage.accept(2);
  stage.commit(2, [0]);
  assert(stage.committed > committed);
});

Deno.test("model: below the minimum rows without undecided entries are read while the record names the epoch", () => {
  const stage = new Stage({ mutant: null }), { model } = stage;
  const primary = stage.replica(1);
  // An entry on its row reaches 1 but not 2, so that it is undecided; then 1 is elected, alone.
  model.request(stage.replica(0));
  stage.catchUp(0, 1);
  const undecided = stage.replica(0).log.at(-1)! % 4;
  stage.crash(0);
  stage.elect(1, [1], true);
  const answered = (row: number) => {
    const before = model.stats.degraded;
    model.beginRead(primary, "record", row);
    model.lookUpRecord(primary);
    model.answerByRecord(primary);
    return model.stats.degraded > before;
  };
  // 1 has not heard that the entry before, on another row, is committed either.
  const limbo = new Set(
    primary.log.slice(primary.commit).filter((e) => e % 4096 > 0).map((e) => e % 4),
  );
  assert(limbo.has(undecided));
  for (let row = 0; row < 4; row++) assert.equal(answered(row), !limbo.has(row));
  const free = [0, 1, 2, 3].find((row) => !limbo.has(row))!;
  assert.equal(answered(free), true);
  // 2 is eligible, and elected because nobody hears 1.
  stage.elect(2, [2]);
  assert.equal(answered(free), false);
});
