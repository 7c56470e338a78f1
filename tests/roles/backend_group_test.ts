/**
 * One replica with its log, files and checkpoints, on a disk in memory: in which order things become
 * durable. It is the only member of its group, so what its own disk has is committed.
 */
import assert from "node:assert/strict";
import type { BlobStore } from "../../kv/disk/blob_store.ts";
import { diskFull } from "../../kv/disk/disk.ts";
import { SimDisk } from "../../kv/disk/sim_disk.ts";
import type { Wal } from "../../kv/disk/wal.ts";
import type { Env } from "../../kv/env.ts";
import type { CorruptionError } from "../../kv/errors.ts";
import { encodeCommand } from "../../kv/command.ts";
import { encodeText, INLINE_BYTES_MAX } from "../../kv/kv.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { MEMORY_BYTES_MIN, NodeMemory } from "../../kv/node_memory.ts";
import { UndoBudget } from "../../kv/snapshots.ts";
import { epoch as toEpoch, incarnation, lsn, nodeId, storeId } from "../../proto/ids.ts";
import type { GroupConfig, ReplicaMessage } from "../../proto/replication.ts";
import { GroupShell } from "../../roles/backend_group.ts";
import { savedMeta } from "../../roles/checkpoint_meta.ts";
import { RecoveredGroup } from "../../roles/backend_recovery.ts";
import { BlobIntake } from "../../roles/blob_intake.ts";
import { config, GID } from "../kv/replica_bench.ts";
import { openWal } from "../kv/disk/wal_testing.ts";
import { sampleConfig } from "../sample_cluster.ts";
import { SimCheckpoints } from "../sim/sim_checkpoints.ts";

const SELF = { node: nodeId(0), store: storeId("s0"), inc: incarnation(1) };
const ALONE: GroupConfig = config({ inSync: [SELF], minInSync: 1 });
const OTHER = { node: nodeId(1), store: storeId("s1"), inc: incarnation(1) };
const LEARNING = config({ inSync: [OTHER], primary: OTHER, minInSync: 1 });
const FOLLOWING = config({ inSync: [OTHER, SELF], primary: OTHER, minInSync: 1 });
/** Small enough that a few entries fill one, and none is kept for its own sake. */
const LOG = { segmentBytes: 2_000, keepBytes: 0 };

function fail(error: unknown): never {
  throw error;
}

/** Time does not pass; `waits` counts how often something slept. */
class StillEnv implements Env {
  waits = 0;
  monotonicMs = () => 1_000;
  wallMs = () => 1_000;
  random = () => 0.5;
  secretBytes = (count: number) => new Uint8Array(count).fill(7);
  sleep = () => {
    this.waits += 1;
    return Promise.resolve();
  };
  timer = () => () => {};
  onBeat = () => () => {};
  log = () => {};
  fatal = fail;
}

class Bench {
  readonly env = new StillEnv();
  readonly disk = new SimDisk({ seed: 1 });
  readonly checkpoints = new SimCheckpoints();
  readonly damage: CorruptionError[] = [];
  /** To other replicas. */
  readonly sent: ReplicaMessage[] = [];
  diskFullCount = 0;
  intake!: BlobIntake;
  wal!: Wal;
  shell!: GroupShell;
  isLifeKnown = true;
  /** Of the last request. */
  stamp = stampOf(1);

  /** @param put how the file of a large value gets to the disk */
  static async open(
    put: () => Promise<void> = () => Promise.resolve(),
    memoryBytes = 1 << 30,
  ): Promise<Bench> {
    const bench = new Bench();
    const { wal } = await openWal(bench.disk, LOG);
    bench.wal = wal;
    bench.#start(wal, put, memoryBytes);
    return bench;
  }

  /** What a process that starts now would find in the log, behind the last checkpoint. */
  async recovered(): Promise<RecoveredGroup> {
    this.disk.crash();
    const store = this.openStore();
    const history = store.checkpointLsn === 0 ? [] : savedMeta(GID, store).history;
    const group = new RecoveredGroup(GID, { lsn: store.checkpointLsn, history });
    for (const record of (await openWal(this.disk, LOG)).recovered) group.add(record);
    return group;
  }

  openStore() {
    return this.checkpoints.open(GID, () => Promise.resolve());
  }

  lead(): void {
    this.shell.feed({ kind: "config", config: ALONE, learners: [] });
  }

  /** Becomes a learner whose log the primary's does not reach back to. */
  learn(): void {
    this.shell.feed({ kind: "config", config: LEARNING, learners: null });
    this.offer();
  }

  offer(): void {
    const { epoch, reign, primary: { node: from, store, inc } } = LEARNING;
    const head = { gid: GID, from, store, inc, toInc: SELF.inc, epoch, reign };
    const message = { kind: "snapshotOffer" as const, ...head, round: 0 };
    this.shell.feed({ kind: "message", message, entries: [] });
  }

  /** A value that is too long for the log gets a file. */
  put(row: string, value: string, seq: number): Promise<unknown> {
    const mutations = [{ kind: "put" as const, column: "c", value: encodeText(value) }];
    const op = toLogRowOp({ row, mutations }, (bytes) => {
      this.intake.add(`value-${seq}`, bytes);
      return `value-${seq}`;
    });
    this.stamp = stampOf(seq);
    return this.shell.apply(this.stamp, { kind: "rowOp", op });
  }

  /** Takes part beside another member, which is primary. */
  follow(): void {
    this.shell.feed({ kind: "config", config: FOLLOWING, learners: null });
  }

  /** An append of values of `size` bytes, which are committed; resolves when all is quiet. */
  async append(prevLsn: number, count: number, size: number, round = 0): Promise<void> {
    const { epoch, reign, primary: { node: from, store, inc } } = FOLLOWING;
    const head = { gid: GID, from, store, inc, toInc: SELF.inc, epoch, reign };
    const payloads = Array.from({ length: count }, (_, index) => {
      const seq = prevLsn + index + 1;
      const mutations = [{ kind: "put" as const, column: "c", value: new Uint8Array(size) }];
      const op = toLogRowOp({ row: `r${seq}`, mutations });
      return encodeCommand({ kind: "rowOp", stamp: stampOf(seq), timeMs: 0, op });
    });
    this.shell.receive({
      kind: "append",
      ...head,
      round,
      prevEpoch: prevLsn === 0 ? toEpoch(0) : epoch,
      prevLsn: lsn(prevLsn),
      sizes: payloads.map(({ length }) => length),
      epochs: [{ epoch, count }],
      commitLsn: lsn(prevLsn + count),
    }, joined(payloads));
    // The log takes batches in order, so this ends after what the append led to.
    for (let i = 0; i < 3; i++) {
      await Promise.resolve();
      await this.wal.append([{ type: "commit", gid: GID, lsn: lsn(0) }]);
    }
  }

  #start(wal: Wal, put: () => Promise<void>, memoryBytes: number): void {
    const { env } = this;
    const onDiskFull = () => void (this.diskFullCount += 1);
    const blobs = { put } as unknown as BlobStore;
    const fetch = () => Promise.resolve(null);
    this.intake = new BlobIntake({ store: blobs, env, onDiskFull, fetch });
    const link = {
      call: () => Promise.reject(new Error("nobody is there")),
      send: (_: unknown, __: unknown, message: unknown) =>
        void this.sent.push(message as ReplicaMessage),
    };
    this.shell = new GroupShell({
      context: { env, config: sampleConfig() },
      gid: GID,
      range: { startKey: "", endKey: null },
      self: SELF,
      store: this.openStore(),
      recovered: new RecoveredGroup(GID, { lsn: lsn(0), history: [] }),
      wal,
      folder: storeId("folder"),
      blobs,
      intake: this.intake,
      peers: { coordinator: link, of: () => link, close: () => {} },
      memory: new NodeMemory({
        bytesMax: memoryBytes,
        groupCount: 1,
        users: () => this.shell === undefined ? [] : [this.shell],
      }),
      undo: new UndoBudget(1 << 20),
      fetchSnapshot: () => Promise.resolve(),
      onRoleChanged: () => {},
      onStirred: () => {},
      onDiskFull,
      onFilesLeft: () => {},
      keepDiverged: () => Promise.resolve(),
      onDamage: (error) => void this.damage.push(error),
      onMismatch: () => {},
      isLifeKnown: () => this.isLifeKnown,
    });
  }
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}

const stampOf = (seq: number) => ({ clientId: "client-1", seq, firstIncomplete: 1, issuedMs: 0 });

/** A replica that has a checkpoint with the effects of requests 1 to 3, and its owner's disk. */
async function donor(): Promise<Bench> {
  const bench = await Bench.open();
  bench.lead();
  for (let seq = 1; seq <= 3; seq++) await bench.put(`r${seq}`, "x", seq);
  await bench.shell.checkpoint();
  return bench;
}

function install(bench: Bench, from: Bench, attempt = () => {}): Promise<void> {
  const { lsn } = from.checkpoints.saved(GID)!;
  return bench.shell.install(lsn, () => {
    attempt();
    bench.checkpoints.install(GID, from.checkpoints.saved(GID)!);
    return Promise.resolve(bench.openStore());
  });
}

Deno.test("a checkpoint that fails leaves the whole log behind the one before", async () => {
  const bench = await Bench.open();
  bench.lead();
  for (let seq = 1; seq <= 30; seq++) await bench.put(`r${seq}`, "x".repeat(300), seq);
  bench.checkpoints.isFull = true;
  await bench.shell.checkpoint();
  await bench.wal.collected();
  const log = (await bench.recovered()).log();
  assert.deepEqual([log.baseLsn, log.lastLsn], [0, 31]);
});

Deno.test("once a checkpoint is durable, segments of the log that it covers are deleted", async () => {
  const bench = await Bench.open();
  bench.lead();
  for (let seq = 1; seq <= 30; seq++) await bench.put(`r${seq}`, "x".repeat(300), seq);
  const before = bench.disk.filesIn("wal").length;
  await bench.shell.checkpoint();
  await bench.wal.collected();
  assert(bench.disk.filesIn("wal").length < before);
  assert.equal((await bench.recovered()).log().lastLsn, 31);
});

Deno.test("the log behind a checkpoint that somebody fetches stays, for as long as he was given", async () => {
  const bench = await Bench.open();
  bench.lead();
  const puts = async (from: number, to: number) => {
    for (let seq = from; seq <= to; seq++) await bench.put(`r${seq}`, "x".repeat(300), seq);
  };
  await puts(1, 20);
  bench.shell.keepLogBehind(lsn(12), 5_000);
  await bench.shell.checkpoint();
  await bench.wal.collected();
  const limits = { maxBytes: 1 << 20, maxEntries: 512 };
  const behind = async (at: number) =>
    (await bench.wal.readEntries(GID, lsn(at), limits))?.map((entry) => entry.lsn) ?? null;
  assert.equal(await behind(1), null, "nobody needs what is before it");
  assert.equal((await behind(13))?.[0], 13);
  bench.env.monotonicMs = () => 6_001;
  await puts(21, 22);
  await bench.shell.checkpoint();
  await bench.wal.collected();
  assert.equal(await behind(13), null);
});

Deno.test("a disk that is full keeps no log for others", async () => {
  const bench = await Bench.open();
  bench.lead();
  for (let seq = 1; seq <= 20; seq++) await bench.put(`r${seq}`, "x".repeat(300), seq);
  bench.shell.keepLogBehind(lsn(2), 5_000);
  bench.shell.feed({ kind: "disk", full: true });
  const before = bench.disk.filesIn("wal").length;
  await bench.shell.checkpoint();
  await bench.wal.collected();
  assert(bench.disk.filesIn("wal").length < before);
});

Deno.test("an entry that names a large value is logged after the value's file is on disk", async () => {
  const file = Promise.withResolvers<void>();
  const bench = await Bench.open(() => file.promise);
  bench.lead();
  await bench.put("r", "small", 1);
  let done = false;
  const writing = bench.put("r", "x".repeat(INLINE_BYTES_MAX + 1), 2).then(() => done = true);
  // The log takes batches in order, so these end after any that was begun before them.
  for (let i = 0; i < 3; i++) {
    await Promise.resolve();
    await bench.wal.append([{ type: "commit", gid: GID, lsn: lsn(0) }]);
  }
  assert(!done, "it was acknowledged without its value");
  assert.equal(bench.shell.replica.progress.durableLsn, 2, "it was logged without its value");
  file.resolve();
  await writing;
  assert.equal(bench.shell.replica.progress.durableLsn, 3);
});

Deno.test("a file is needed from before its entry is applied until a while after its cell is overwritten", async () => {
  const bench = await Bench.open();
  const { shell } = bench;
  bench.lead();
  const large = "x".repeat(INLINE_BYTES_MAX + 1);
  const writing = bench.put("r", large, 1);
  assert(shell.isLogged(bench.stamp) && !shell.isLogged({ ...bench.stamp }));
  assert(shell.needsFile("value-1"), "its entry is in the log");
  await writing;
  assert(shell.needsFile("value-1"), "its cell is not in a checkpoint yet");
  await shell.checkpoint();
  assert(shell.needsFile("value-1"));
  await bench.put("r", large, 2);
  await shell.checkpoint();
  assert(shell.needsFile("value-1"), "somebody may still be reading it");
  assert(shell.needsFile("value-2") && !shell.needsFile("value-3"));
  await bench.put("r", large, 2).catch(() => {});
  assert(!shell.isLogged(bench.stamp), "it was answered from the record of the first one");
});

Deno.test("a checkpoint that was fetched says which requests were executed", async () => {
  const bench = await Bench.open();
  bench.learn();
  await install(bench, await donor());
  const { state } = bench.shell.replica;
  assert.equal(state.appliedLsn, 4);
  for (const seq of [1, 2, 3]) {
    assert.deepEqual(state.completions.find(stampOf(seq)), {
      kind: "applied",
      version: seq + 1,
      numbers: [],
    });
  }
});

Deno.test("a disk that is full while a checkpoint is installed is waited for, not taken for damage", async () => {
  const bench = await Bench.open();
  bench.learn();
  let attempts = 0;
  await install(bench, await donor(), () => {
    attempts += 1;
    if (attempts < 3) throw diskFull("groups/1.db");
  });
  assert.deepEqual([attempts, bench.diskFullCount, bench.env.waits], [3, 2, 2]);
  assert.deepEqual(bench.damage, []);
  assert.equal(bench.shell.replica.state.appliedLsn, 4);
});

Deno.test("a fetched checkpoint that cannot be put in place is damage", async () => {
  const bench = await Bench.open();
  bench.learn();
  const broken = () => {
    throw new Error("the file is gone");
  };
  await assert.rejects(install(bench, await donor(), broken), /the file is gone/);
  assert.match(bench.damage[0]!.message, /could not be put in place/);
});

Deno.test("a replica that is given up while it waits for space to install is not taken for damaged", async () => {
  const bench = await Bench.open();
  bench.learn();
  let retired: Promise<void> | undefined;
  const full = () => {
    retired ??= bench.shell.retire();
    throw diskFull("groups/1.db");
  };
  await assert.rejects(install(bench, await donor(), full), /gave up its copy/);
  await retired;
  assert.deepEqual(bench.damage, []);
});

Deno.test("a checkpoint that comes a second time, or too late, changes nothing", async () => {
  const bench = await Bench.open(), from = await donor();
  bench.learn();
  await install(bench, from);
  bench.offer();
  let replaced = false;
  await assert.rejects(install(bench, from, () => replaced = true), /not needed any more/);
  assert.equal(replaced, false);
  const { shell } = bench;
  assert.equal(shell.store, shell.replica.state.store, "what is read is what is applied to");
  const { baseLsn, lastLsn } = (await bench.recovered()).log();
  assert.deepEqual([baseLsn, lastLsn], [4, 4]);
});

Deno.test("a checkpoint does not replace the log of a replica that has become a member meanwhile", async () => {
  const bench = await Bench.open(), from = await donor();
  bench.learn();
  const inSync = [OTHER, SELF], next = toEpoch(LEARNING.epoch + 1);
  bench.shell.feed({
    kind: "config",
    config: { ...LEARNING, epoch: next, inSync },
    learners: null,
  });
  await assert.rejects(install(bench, from), /not needed any more/);
  assert.equal(bench.shell.replica.state.appliedLsn, 0);
});

Deno.test("while a fetched checkpoint is put in place nothing is read, applied, or checkpointed", async () => {
  const bench = await Bench.open(), from = await donor();
  bench.learn();
  const { shell } = bench;
  let during: unknown[] = [];
  await install(bench, from, () => {
    const { role, epoch } = shell.replica;
    shell.feed({
      kind: "config",
      config: { ...ALONE, epoch: toEpoch(LEARNING.epoch + 1) },
      learners: null,
    });
    void shell.checkpoint();
    shell.maybeCheckpoint();
    shell.maybeAudit();
    assert.throws(() => shell.store, /being replaced/);
    during = [role, epoch, shell.satisfies({ maxStaleMs: 1e9 }), bench.checkpoints.saved(GID)];
  });
  assert.deepEqual(during, ["learner", LEARNING.epoch, false, undefined]);
  assert.equal(shell.replica.epoch, LEARNING.epoch, "what came in meanwhile comes again");
  assert.equal(shell.store.checkpointLsn, 4);
});

Deno.test("a process takes no office before the coordinator took note of its life, and then at once", async () => {
  const bench = await Bench.open();
  bench.isLifeKnown = false;
  bench.lead();
  assert.equal(bench.shell.replica.role, "idle", "its folder may be an older copy of itself");
  bench.isLifeKnown = true;
  bench.shell.lifeIsKnown();
  assert.equal(bench.shell.replica.role, "primary");
});

Deno.test("an office that somebody else was given meanwhile is not taken late", async () => {
  const bench = await Bench.open();
  bench.isLifeKnown = false;
  bench.lead();
  bench.shell.feed({
    kind: "config",
    config: { ...LEARNING, epoch: toEpoch(ALONE.epoch + 1) },
    learners: null,
  });
  bench.isLifeKnown = true;
  bench.shell.lifeIsKnown();
  assert.equal(bench.shell.replica.role, "learner");
});

Deno.test("a replica whose memory is full asks for the rest the moment a checkpoint has made room", async () => {
  const done = Promise.withResolvers<void>();
  const bench = await Bench.open(undefined, MEMORY_BYTES_MIN);
  bench.checkpoints.save = async (gid, written) => {
    await done.promise;
    bench.checkpoints.install(gid, written);
  };
  bench.follow();
  // Cells of some 50 KB each, which a checkpoint that does not end keeps twice in memory.
  const size = 50_000, last = () => bench.shell.replica.lastLsn;
  for (let round = 0; bench.shell.cutCount < 3; round++) {
    assert(round < 100, "memory is never full");
    await bench.append(last(), 3, size, round);
  }
  const taken = last(), asked = () => bench.sent.filter(({ kind }) => kind === "appendNack").length;
  const told = bench.sent.findLast((message) => message.kind === "appendAck");
  assert.equal(told?.matchLsn, taken);
  assert.notEqual(told?.full, undefined);
  const before = asked();
  await bench.append(taken, 3, size, 100);
  assert.equal(asked(), before, "it asks while there is no room");
  // There would be room for this one, but what is before it is missing.
  await bench.append(taken + 3, 1, 10, 100);
  assert.equal(last(), taken);
  done.resolve();
  await bench.shell.checkpoint();
  assert.equal(asked(), before + 1);
  await bench.append(taken, 3, size, 101);
  assert.equal(last(), taken + 3);
});
