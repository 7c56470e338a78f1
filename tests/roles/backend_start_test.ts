/** What a backend does with what it finds when it starts. */
import assert from "node:assert/strict";
import { encodeCommand } from "../../kv/command.ts";
import { SimDisk } from "../../kv/disk/sim_disk.ts";
import { Wal } from "../../kv/disk/wal.ts";
import type { Env } from "../../kv/env.ts";
import { CorruptionError } from "../../kv/errors.ts";
import { GroupState } from "../../kv/group_state.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import { epoch, groupId, incarnation, lsn, nodeId, storeId } from "../../proto/ids.ts";
import type { BackendParts } from "../../roles/backend_parts.ts";
import { openOrRenew, readStore, readStoreWithSpace } from "../../roles/backend_start.ts";
import type { RoleContext } from "../../roles/role_context.ts";
import { sampleConfig } from "../sample_cluster.ts";
import { SimCheckpoints } from "../sim/sim_checkpoints.ts";

Deno.test("a disk that is full at the start is waited for, and what was kept for it is given back", async () => {
  const disk = new SimDisk({ seed: 1 }), checkpoints = new SimCheckpoints();
  const config = sampleConfig(), node = config.node.find(({ role }) => role === "backend")!;
  const self = { node: nodeId(node.id), store: storeId("s0"), inc: incarnation(1) };
  const log = { dir: "data/wal", storeId: self.store, clusterId: "cluster" };
  const wal = await Wal.open({ disk, ...log }, () => {});
  await wal.append([{ type: "commit", gid: groupId(1), lsn: lsn(0) }]);
  await wal.close();

  const said: string[] = [];
  let waits = 0, released = 0;
  const env = {
    monotonicMs: () => 0,
    log: (_level: string, event: string) => said.push(event),
    sleep: () => {
      if (++waits === 3) disk.capacityBytes = Infinity;
      return Promise.resolve();
    },
  } as unknown as Env;
  const context = { env, config, node, dataDir: "data", clusterId: "cluster" };
  const parts = {
    disk,
    openStore: (gid: Parameters<BackendParts["openStore"]>[0]) =>
      checkpoints.open(gid, () => Promise.resolve()),
    ballast: () => Promise.resolve({ release: () => Promise.resolve(void released++) }),
  };
  disk.capacityBytes = 0;
  const found = await readStoreWithSpace(
    context as unknown as RoleContext,
    self,
    parts as unknown as BackendParts,
  );
  assert.deepEqual([waits, released], [3, 3]);
  assert.deepEqual(said, ["waits for space to start", "log recovered"], "it is said once");
  assert(!found.wal.isNew);
  await found.wal.close();
});

Deno.test("a log that ends before a checkpoint was made has shrunk, and is damage", async () => {
  const disk = new SimDisk({ seed: 1 }), checkpoints = new SimCheckpoints();
  const config = sampleConfig(), node = config.node.find(({ role }) => role === "backend")!;
  const self = { node: nodeId(node.id), store: storeId("s0"), inc: incarnation(1) };
  const gid = groupId(1);
  const wal = await Wal.open(
    { disk, dir: "data/wal", storeId: self.store, clusterId: "cluster" },
    () => {},
  );
  await wal.append([{ type: "commit", gid, lsn: lsn(0) }]);
  const { lastBatch } = wal;
  await wal.close();
  const open = async (batch: number, of = self.store) => {
    const store = checkpoints.open(gid, () => Promise.resolve());
    const state = new GroupState(new MemoryCellStore(), { rowBytesMax: 1 << 20 }).save();
    await store.checkpoint({
      lsn: lsn(1),
      meta: { gid, state: { ...state, appliedLsn: 1 }, history: [], log: { store: of, batch } },
    });
    store.close();
    const env = { monotonicMs: () => 0, log: () => {} } as unknown as Env;
    const context = { env, config, node, dataDir: "data", clusterId: "cluster" };
    const parts = {
      disk,
      openStore: (asked: Parameters<BackendParts["openStore"]>[0]) =>
        checkpoints.open(asked, () => Promise.resolve()),
    };
    const found = await readStore(
      context as unknown as RoleContext,
      self,
      parts as unknown as BackendParts,
    );
    await found.wal.close();
  };
  await open(lastBatch);
  await open(1_000, storeId("the folder it was copied from"));
  await assert.rejects(open(1_000), /a checkpoint was made after batch 1000/);
});

Deno.test("a crash before the log was told of a fetched checkpoint is made up for at the start", async () => {
  for (const entries of [0, 2, 9]) {
    const disk = new SimDisk({ seed: 1 }), checkpoints = new SimCheckpoints();
    const config = sampleConfig(), node = config.node.find(({ role }) => role === "backend")!;
    const self = { node: nodeId(node.id), store: storeId("s0"), inc: incarnation(1) };
    const gid = groupId(1), log = { dir: "data/wal", storeId: self.store, clusterId: "cluster" };
    const wal = await Wal.open({ disk, ...log }, () => {});
    // What the log ends with, be it before the checkpoint or, of a branch that it replaced, behind it.
    await wal.append([{ type: "reset", gid, epoch: epoch(0), lsn: lsn(0) }]);
    for (let at = 1; at <= entries; at++) {
      const payload = encodeCommand({ kind: "epochStart", reign: epoch(1), timeMs: 0 });
      await wal.append([{ type: "entry", gid, epoch: epoch(1), lsn: lsn(at), payload }]);
    }
    await wal.close();
    const store = checkpoints.open(gid, () => Promise.resolve());
    const state = new GroupState(new MemoryCellStore(), { rowBytesMax: 1 << 20 }).save();
    const history = [{ epoch: epoch(1), firstLsn: lsn(1) }, { epoch: epoch(2), firstLsn: lsn(2) }];
    await store.checkpoint({
      lsn: lsn(5),
      meta: {
        gid,
        state: { ...state, appliedLsn: 5 },
        history,
        log: { store: storeId("the folder that it was fetched from"), batch: 1_000 },
      },
    });
    store.close();
    const env = { monotonicMs: () => 0, log: () => {} } as unknown as Env;
    const context = { env, config, node, dataDir: "data", clusterId: "cluster" };
    const parts = {
      disk,
      openStore: (asked: Parameters<BackendParts["openStore"]>[0]) =>
        checkpoints.open(asked, () => Promise.resolve()),
    };
    // Once more after what was made up for was used: nothing is left to make up.
    for (const last of [5, 6]) {
      const found = await readStore(
        context as unknown as RoleContext,
        self,
        parts as unknown as BackendParts,
      );
      const { recovered } = found.groups.find((group) => group.gid === gid)!;
      assert.equal(recovered.log().lastLsn, last);
      const payload = encodeCommand({ kind: "epochStart", reign: epoch(2), timeMs: 0 });
      const next = { type: "entry" as const, gid, epoch: epoch(2), lsn: lsn(last + 1), payload };
      await found.wal.append([next]);
      await found.wal.close();
    }
  }
});

Deno.test("a damaged store is touched only once nobody needs it, and then goes on as a new one", async () => {
  const damage = new CorruptionError("a record is damaged", "wal", 0);
  const said: string[] = [];
  let isSafe = () => {};
  const opened = openOrRenew({
    open: () => {
      said.push("open");
      return said.length === 1 ? Promise.reject(damage) : Promise.resolve("a new store");
    },
    mayRenew: (found) => {
      assert.equal(found, damage);
      return new Promise((resolve) => isSafe = resolve);
    },
    renew: () => Promise.resolve(void said.push("renew")),
  });
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  assert.deepEqual(said, ["open"], "it waits");
  isSafe();
  assert.equal(await opened, "a new store");
  assert.deepEqual(said, ["open", "renew", "open"]);

  await assert.rejects(
    openOrRenew({
      open: () => Promise.reject(new Error("no space")),
      mayRenew: () => assert.fail("that is no damage"),
      renew: () => assert.fail("that is no damage"),
    }),
    /no space/,
  );
});
