/**
 * What a backend finds in its data folder, and what becomes of it when that is damaged.
 *
 * Damage to one group's checkpoint concerns that group alone (backend_groups.ts). Damage to what all
 * groups share, the identity or the log, means that the whole store cannot be counted on: it waits,
 * taking no part, until every one of its groups is led by another node, then moves the damaged files to
 * quarantine and goes on as a new store. Its checkpoints stay where they are sound, so that what has to
 * be fetched is mostly a little log.
 */
import type { CheckpointedStore } from "../kv/cell_store.ts";
import { isDiskFull } from "../kv/disk/disk.ts";
import { Wal } from "../kv/disk/wal.ts";
import { CorruptionError } from "../kv/errors.ts";
import { mutated } from "../kv/mutant.ts";
import type { Self } from "../kv/replica.ts";
import { planGroups } from "../proto/cluster_config.ts";
import { type GroupId, groupId, lsn as toLsn } from "../proto/ids.ts";
import type { BackendParts } from "./backend_parts.ts";
import { savedMeta } from "./checkpoint_meta.ts";
import type { FoundGroup } from "./backend_groups.ts";
import { RecoveredGroup } from "./backend_recovery.ts";
import { CopySafety } from "./copy_safety.ts";
import { NodeReporter } from "./node_reporter.ts";
import type { OpsAnswers } from "./ops_server.ts";
import type { PeerLinks } from "./peers.ts";
import type { RoleContext } from "./role_context.ts";

const SPACE_RETRY_MS = 1_000;
/** As long as a node's report takes it. */
const PROBLEM_CHARS_MAX = 300;

export interface FoundStore {
  readonly wal: Wal;
  readonly groups: readonly FoundGroup[];
}

/**
 * As `readStore`, but a full disk is waited for: what recovery writes anew takes little, and a node that
 * starts again and again would look broken.
 */
export async function readStoreWithSpace(
  context: RoleContext,
  self: Self,
  parts: BackendParts,
): Promise<FoundStore> {
  const { env, dataDir } = context;
  for (let attempt = 1;; attempt++) {
    try {
      return await readStore(context, self, parts);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      const message = `${(error as Error).message}. Free some space in "${dataDir}"`;
      if (attempt === 1) env.log("error", "waits for space to start", { message });
      // Kept for such moments.
      await parts.ballast?.().then((ballast) => ballast.release()).catch(() => {});
      await env.sleep(SPACE_RETRY_MS);
    }
  }
}

const groupsOf = ({ config, node }: RoleContext): GroupId[] =>
  planGroups(config).filter((plan) => plan.members.includes(node.id))
    .map((plan) => groupId(plan.id));

/** @throws {CorruptionError} the log is damaged; nothing has been changed, and nothing is open */
export async function readStore(
  context: RoleContext,
  self: Self,
  { disk, log, folder, openStore }: BackendParts,
): Promise<FoundStore> {
  const { env, clusterId } = context;
  const dir = `${context.dataDir}/wal`;
  const groups = groupsOf(context).map((gid) => readCheckpoint(gid, openStore));
  const close = () => {
    for (const { store } of groups) if (!(store instanceof Error)) store.close();
  };
  try {
    const startedMs = env.monotonicMs();
    const byGroup = new Map(groups.map((found) => [found.gid, found.recovered]));
    const wal = await Wal.open(
      { ...log, disk, dir, storeId: self.store, clusterId },
      (record) => byGroup.get(record.gid)?.add(record),
    );
    try {
      if (folder?.identity.hasLog === true && wal.isNew) {
        throw new CorruptionError("The log is missing", dir, 0);
      }
      refuseShrunkLog({ dir, self, wal, groups });
      await folder?.noteLog();
      const notes = groups.flatMap(({ gid, recovered, store }) =>
        store instanceof Error ? [] : recovered.missingNote(wal.endOf(gid)) ?? []
      );
      if (notes.length > 0) await wal.append(notes);
    } catch (error) {
      await wal.close();
      throw error;
    }
    env.log("info", "log recovered", {
      bytes: wal.sizeBytes,
      tornBytes: wal.tornBytes,
      ms: Math.round(env.monotonicMs() - startedMs),
    });
    return { wal, groups };
  } catch (error) {
    close();
    throw error;
  }
}

function readCheckpoint(gid: GroupId, openStore: (gid: GroupId) => CheckpointedStore): FoundGroup {
  try {
    const store = openStore(gid);
    const history = store.checkpointLsn === 0 ? [] : savedMeta(gid, store).history;
    const recovered = new RecoveredGroup(gid, { lsn: store.checkpointLsn, history });
    return { gid, recovered, store };
  } catch (error) {
    if (!(error instanceof CorruptionError)) throw error;
    // Of the log only the last configuration is of use then.
    const recovered = new RecoveredGroup(gid, { lsn: toLsn(Number.MAX_SAFE_INTEGER), history: [] });
    return { gid, recovered, store: error };
  }
}

/**
 * A log that lost its last segments, or was put back from an older copy, may look sound in itself. The
 * checkpoints remember how far it had come.
 */
function refuseShrunkLog({ dir, self, wal, groups }: {
  dir: string;
  self: Self;
  wal: Wal;
  groups: readonly FoundGroup[];
}): void {
  for (const { gid, store } of groups) {
    if (store instanceof Error || store.checkpointLsn === 0) continue;
    const { log } = savedMeta(gid, store);
    if (log.store !== self.store || log.batch <= wal.recoveredBatch) continue;
    if (mutated("shrunk-log-accepted")) continue;
    const message = `The log ends with batch ${wal.recoveredBatch}, but a checkpoint was made ` +
      `after batch ${log.batch}`;
    throw new CorruptionError(message, dir, 0);
  }
}

/**
 * Opens a store; one whose log is damaged goes on as a new one, once nobody needs it as it was.
 *
 * @param mayRenew resolves when the store may be given up; until then nothing of it is touched
 * @param renew gives it another name, and moves away what is damaged
 */
export async function openOrRenew<T>({ open, mayRenew, renew }: {
  open: () => Promise<T>;
  mayRenew: (damage: CorruptionError) => Promise<void>;
  renew: (damage: CorruptionError) => Promise<void>;
}): Promise<T> {
  try {
    return await open();
  } catch (error) {
    if (!(error instanceof CorruptionError)) throw error;
    if (!mutated("damaged-store-not-kept")) await mayRenew(error);
    await renew(error);
    return await open();
  }
}

/**
 * Waits until no group needs what this folder holds, and tells the operator meanwhile.
 *
 * @param parts what it stands on; the simulator hands in its own
 */
export async function untilExpendable(
  context: RoleContext,
  damage: CorruptionError,
  signal: AbortSignal,
  parts: {
    readonly peers: PeerLinks;
    /** Answers over HTTP that this node is not ready. */
    readonly startOps: (answers: OpsAnswers) => { close(): Promise<void> };
  },
): Promise<void> {
  const { env } = context;
  env.log("error", "damaged store", { message: damage.message });
  let why = "it asks whether they have everything";
  const sentence = (found = damage.message) =>
    `its store is damaged and takes no part: ${found}. It is filled again from the others; ${why}`;
  // Of a report the end matters most: what it waits for, and what can be done.
  const shortened = () => {
    const tooLong = sentence().length - PROBLEM_CHARS_MAX;
    return tooLong <= 0 ? sentence() : sentence(`${damage.message.slice(0, -tooLong - 1)}…`);
  };
  const { peers } = parts;
  const safety = new CopySafety(context, peers);
  const reporter = new NodeReporter({
    context,
    coordinator: peers.coordinator,
    ready: () => false,
    problem: () => shortened().slice(0, PROBLEM_CHARS_MAX),
  });
  const ops = parts.startOps({
    ready: () => ({ ready: false, reason: sentence() }),
    metrics: () => "",
  });
  reporter.start();
  try {
    for (const gid of groupsOf(context)) {
      const onWaiting = (reason: string) => {
        why = reason;
        env.log("warning", "a damaged store waits", { gid, why });
      };
      await safety.untilSafe(gid, { onWaiting, signal });
    }
  } finally {
    reporter.stop();
    await ops.close();
  }
}
