/** What a group's checkpoint carries besides its cells. */
import { z } from "zod";
import type { CheckpointedStore } from "../kv/cell_store.ts";
import { CorruptionError } from "../kv/errors.ts";
import { SavedGroupState } from "../kv/group_state.ts";
import { GroupId, StoreId } from "../proto/ids.ts";
import { EpochHistory } from "../proto/replication.ts";

/** Null for an empty store. */
export function savedState(gid: GroupId, store: CheckpointedStore) {
  return store.checkpointLsn === 0 ? null : savedMeta(gid, store).state;
}

/** @throws {CorruptionError} the checkpoint is another group's */
export function savedMeta(gid: GroupId, store: CheckpointedStore) {
  const meta = CheckpointMeta.parse(store.meta);
  if (meta.gid === gid) return meta;
  const message = `The checkpoint of group ${gid} is one of group ${meta.gid}`;
  throw new CorruptionError(message, `groups/${gid}.db`, 0);
}

export const CheckpointMeta = z.object({
  /** A file under another group's name is noticed. */
  gid: GroupId,
  state: SavedGroupState,
  history: EpochHistory,
  /** The folder's log as it was before the checkpoint; of another folder, if it came from there. */
  log: z.object({ store: StoreId, batch: z.int().nonnegative() }),
});
