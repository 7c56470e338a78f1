import assert from "node:assert/strict";
import { encodeCommand } from "../../kv/command.ts";
import { CorruptionError } from "../../kv/errors.ts";
import { epoch, groupId, lsn } from "../../proto/ids.ts";
import { RecoveredGroup } from "../../roles/backend_recovery.ts";

const GID = groupId(1);

function entry(inEpoch: number, at: number) {
  const payload = encodeCommand({ kind: "epochStart", reign: epoch(inEpoch), timeMs: 0 });
  return { type: "entry" as const, gid: GID, epoch: epoch(inEpoch), lsn: lsn(at), payload };
}

function checkpointAt(at: number, inEpoch: number): RecoveredGroup {
  const history = [{ epoch: epoch(inEpoch), firstLsn: lsn(1) }];
  return new RecoveredGroup(GID, { lsn: lsn(at), history });
}

Deno.test("RecoveredGroup.log() keeps what is behind the checkpoint, after truncations", () => {
  const group = checkpointAt(2, 1);
  for (const at of [1, 2, 3, 4]) group.add(entry(1, at));
  group.add({ type: "truncate", gid: GID, epoch: epoch(2), lsn: lsn(3) });
  group.add(entry(2, 4));
  const log = group.log();
  assert.deepEqual([log.baseLsn, log.lastLsn, log.lastEpoch], [2, 4, 2]);
  assert.equal(log.epochAt(lsn(3)), 1);
});

Deno.test("RecoveredGroup.log() drops a branch that an installed checkpoint replaced", () => {
  // The checkpoint of epoch 5 came from a peer; the process died before the log was told.
  const group = checkpointAt(3, 5);
  for (const at of [1, 2, 3, 4, 5]) group.add(entry(2, at));
  assert.equal(group.log().lastLsn, 3);
});

Deno.test("RecoveredGroup.log() refuses a gap between checkpoint and log", () => {
  const group = checkpointAt(2, 1);
  group.add(entry(1, 5));
  assert.throws(() => group.log(), CorruptionError);
});
