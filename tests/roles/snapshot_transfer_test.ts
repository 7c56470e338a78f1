/** Who may fetch a checkpoint when several want one, or died while they fetched. */
import assert from "node:assert/strict";
import type { BlobStore } from "../../kv/disk/blob_store.ts";
import type { Env } from "../../kv/env.ts";
import { KvError } from "../../kv/errors.ts";
import { groupId, lsn } from "../../proto/ids.ts";
import type { GroupShell } from "../../roles/backend_group.ts";
import type { RpcConnection } from "../../roles/net/rpc_connection.ts";
import { SnapshotSource } from "../../roles/snapshot_transfer.ts";

const GID = groupId(1);

function source() {
  const time = { nowMs: 0 }, there = new Set<string>();
  let made = 0, secrets = 0;
  const exportSnapshot = () => {
    const path = `copy-${++made}`;
    there.add(path);
    const remove = () => Promise.resolve(void there.delete(path));
    return Promise.resolve({ lsn: lsn(5), path, bytes: 1, remove });
  };
  const kept: [behind: number, ms: number][] = [];
  const group = {
    checkpointAll: () => Promise.resolve(),
    store: { exportSnapshot },
    keepLogBehind: (behind: number, ms: number) => void kept.push([behind, ms]),
  };
  const env = {
    monotonicMs: () => time.nowMs,
    secretBytes: (count: number) => new Uint8Array(count).fill(++secrets),
  } as unknown as Env;
  const checkpoints = new SnapshotSource({
    groups: new Map([[GID, group as unknown as GroupShell]]),
    blobs: {} as BlobStore,
    env,
  });
  const open = () => checkpoints.handlers.open({ gid: GID }, new Uint8Array(), {} as RpcConnection);
  return { open, time, there, kept, handlers: checkpoints.handlers };
}

Deno.test("while a checkpoint is fetched, and until it is in place, the log behind it is kept", async () => {
  const { open, kept, handlers } = source();
  const { token } = await open() as { token: string };
  assert.deepEqual(kept, [[5, 10_000]], "whoever fetches reads again within that time");
  await handlers.close({ token }, new Uint8Array(), {} as RpcConnection);
  assert.deepEqual(kept.at(-1), [5, 60_000]);
});

Deno.test("a checkpoint whose fetcher died gives its place to the next one who asks", async () => {
  const { open, time, there } = source();
  for (let i = 0; i < 3; i++) {
    await open();
    time.nowMs += 500;
  }
  await assert.rejects(
    async () => await open(),
    (error) => error instanceof KvError && error.code === "busy",
  );
  time.nowMs = 10_200;
  await open();
  assert.deepEqual([...there].sort(), ["copy-2", "copy-3", "copy-4"]);
});
