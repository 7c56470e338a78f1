/** Which files of large values go, and which never may, on a disk in memory. */
import assert from "node:assert/strict";
import { BlobStore } from "../../kv/disk/blob_store.ts";
import { SimDisk } from "../../kv/disk/sim_disk.ts";
import type { Env } from "../../kv/env.ts";
import type { Replica, ReplicaRole } from "../../kv/replica.ts";
import { BlobIntake } from "../../roles/blob_intake.ts";
import { BlobSweeper } from "../../roles/blob_sweeper.ts";

const HOUR_MS = 3_600_000;

/** Time passes when a test says so. */
class HandEnv implements Env {
  nowMs = 0;
  #timers: { dueMs: number; run: () => void }[] = [];
  monotonicMs = () => this.nowMs;
  wallMs = () => this.nowMs;
  random = () => 0.5;
  secretBytes = (count: number) => new Uint8Array(count);
  sleep = () => Promise.resolve();
  log = () => {};
  fatal = (error: unknown): never => {
    throw error;
  };
  timer = (ms: number, run: () => void) => {
    const timer = { dueMs: this.nowMs + ms, run };
    this.#timers.push(timer);
    return () => void (this.#timers = this.#timers.filter((item) => item !== timer));
  };

  onBeat = () => () => {};

  pass(ms: number): void {
    this.nowMs += ms;
    const due = this.#timers.filter(({ dueMs }) => dueMs <= this.nowMs);
    this.#timers = this.#timers.filter((timer) => !due.includes(timer));
    for (const { run } of due) run();
  }
}

class Bench {
  readonly env = new HandEnv();
  readonly needed = new Set<string>();
  role: ReplicaRole = "secondary";
  isUncertain = false;
  sweeps = 0;
  private constructor(readonly disk: SimDisk, readonly blobs: BlobStore) {}

  static async open(): Promise<Bench> {
    const disk = new SimDisk({ seed: 1 });
    await disk.mkdir("data");
    return new Bench(disk, await BlobStore.open({ disk, dir: "data" }));
  }

  readonly intake: BlobIntake = new BlobIntake({
    store: {
      put: (id: string, bytes: Uint8Array) => this.blobs.put(id, bytes),
      has: (id: string) => this.blobs.has(id),
      get: (id: string) => this.blobs.get(id),
      remove: (id: string) => this.blobs.remove(id),
    } as unknown as BlobStore,
    env: this.env,
    onDiskFull: () => {},
    fetch: () => Promise.resolve(null),
  });

  readonly sweeper = new BlobSweeper({
    groups: () => [{
      replica: { role: this.role } as Replica,
      needsFile: (id: string) => this.needed.has(id),
    }],
    blobs: { folders: () => (this.sweeps += 1, this.blobs.folders()) } as unknown as BlobStore,
    intake: this.intake,
    env: this.env,
    isUncertain: () => this.isUncertain,
  });

  /** Until no sweep is under way. */
  async idle(): Promise<void> {
    const { sweeps } = this;
    await this.sweeper.sweep();
    this.sweeps = sweeps;
  }

  async ids(): Promise<string[]> {
    return (await Array.fromAsync(this.blobs.folders())).flat().sort();
  }
}

const value = new Uint8Array(70_000).fill(7);

Deno.test("the sweeper removes what nothing mentions, and only that", async () => {
  const bench = await Bench.open(), { blobs, needed, sweeper } = bench;
  for (let i = 0; i < 20; i++) {
    await blobs.put(`file-${i}`, value);
    if (i % 2 === 0) needed.add(`file-${i}`);
  }
  assert.equal(await sweeper.sweep(), 10);
  assert.deepEqual(await bench.ids(), [...needed].sort());
  assert.equal(await sweeper.sweep(), 0);
});

Deno.test("the sweeper leaves alone what is being written, and everything while replicas are not sure", async () => {
  const bench = await Bench.open(), { blobs, intake, sweeper } = bench;
  await blobs.put("left", value);
  bench.isUncertain = true;
  assert.equal(await sweeper.sweep(), 0);
  bench.isUncertain = false;
  for (const role of ["learner", "idle"] as const) {
    bench.role = role;
    assert.equal(await sweeper.sweep(), 0, role);
  }
  bench.role = "primary";
  intake.add("coming", value);
  assert.equal(await sweeper.sweep(), 1);
  await intake.durable(["coming"]);
  assert.deepEqual(await bench.ids(), ["coming"]);
});

Deno.test("the sweeper stops in the middle when a replica is found damaged", async () => {
  const bench = await Bench.open(), { blobs, sweeper } = bench;
  for (let i = 0; i < 20; i++) await blobs.put(`file-${i}`, value);
  Object.defineProperty(bench, "isUncertain", { get: () => sweeper.removedCount >= 5 });
  assert.equal(await sweeper.sweep(), 5);
  assert.equal((await bench.ids()).length, 15);
});

Deno.test("a value that arrives again while its file is removed is there afterwards", async () => {
  const bench = await Bench.open(), { intake } = bench;
  intake.add("again", value);
  await intake.durable(["again"]);
  const removed = intake.discard("again");
  intake.add("again", value);
  await Promise.all([removed, intake.durable(["again"])]);
  assert.deepEqual(await bench.ids(), ["again"]);
  assert.deepEqual(await bench.blobs.get("again"), value);
});

Deno.test("a file that is thrown away before it is written is gone once it is", async () => {
  const bench = await Bench.open(), { intake } = bench;
  intake.add("refused", value);
  await intake.discard("refused");
  assert.deepEqual(await bench.ids(), []);
  assert.equal(await intake.lend("refused"), null, "and takes no memory");
});

Deno.test("the sweeper looks a minute after the start, every few hours, and a minute after it is told of leftovers", async () => {
  const bench = await Bench.open(), { env, sweeper } = bench;
  /** So much later: how often it has looked by then. */
  const after = async (ms: number) => {
    env.pass(ms);
    await bench.idle();
    return bench.sweeps;
  };
  sweeper.start();
  sweeper.soon();
  assert.equal(await after(59_000), 0);
  assert.equal(await after(1_000), 1);
  assert.equal(await after(5 * HOUR_MS), 1);
  assert.equal(await after(HOUR_MS), 2);
  sweeper.soon();
  assert.equal(await after(30_000), 2);
  sweeper.soon();
  assert.equal(await after(30_000), 3, "what is said twice does not put it off");
  sweeper.stop();
  assert.equal(await after(12 * HOUR_MS), 3);
});
