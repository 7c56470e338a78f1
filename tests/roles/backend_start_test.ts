/** What a backend does with what it finds when it starts. */
import assert from "node:assert/strict";
import { SimDisk } from "../../kv/disk/sim_disk.ts";
import { Wal } from "../../kv/disk/wal.ts";
import type { Env } from "../../kv/env.ts";
import { groupId, incarnation, lsn, nodeId, storeId } from "../../proto/ids.ts";
import type { BackendParts } from "../../roles/backend.ts";
import { readStoreWithSpace } from "../../roles/backend_start.ts";
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
