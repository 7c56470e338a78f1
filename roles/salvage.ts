/**
 * The folder of a stopped backend whose damaged log may be the last to hold what was acknowledged: what
 * of it can be saved, what would be lost, and, if a person wants it so, a folder that starts again.
 *
 * The salvaged replicas go by a new name. Nobody counts on them as on the old ones, so they neither
 * lead nor vote until the group's real members have brought them up to date, or the operator forces
 * one to lead. The damaged files stay in the folder's quarantine.
 */
import { inspectCheckpoint } from "../kv/disk/checkpoint_file.ts";
import { RealDisk } from "../kv/disk/disk.ts";
import { DamagedFolder } from "../kv/disk/identity.ts";
import {
  type DamagedLog,
  inspectLog,
  type LogFindings,
  rewriteLog,
  type SalvagedGroup,
} from "../kv/disk/wal_salvage.ts";
import { decodeCommand, rowOpsOf } from "../kv/command.ts";
import { CorruptionError } from "../kv/errors.ts";
import { type GroupId, type Lsn, lsn as toLsn, type StoreId } from "../proto/ids.ts";
import { CheckpointMeta } from "./checkpoint_meta.ts";

export interface SalvageReport {
  /** Why the folder cannot be used as it is, one sentence each. Empty: it can. */
  readonly problems: readonly string[];
  readonly segmentCount: number;
  readonly groups: readonly GroupSalvageReport[];
}

export interface GroupSalvageReport {
  readonly gid: GroupId;
  /** What is wrong with its checkpoint; then nothing of the group can be saved by this. */
  readonly checkpointDamage: string | null;
  /** What was applied up to here remains. */
  readonly lastLsn: Lsn;
  /** Entries after `lastLsn` that cannot be read at all, as far as it is known. */
  readonly unreadable: { readonly firstLsn: Lsn; readonly lastLsn: Lsn } | null;
  /** Entries behind those, which can be read, and cannot be kept without them. */
  readonly lost: readonly { readonly lsn: Lsn; readonly rows: readonly string[] }[];
  /** Entries up to here were acknowledged for certain. */
  readonly committedLsn: Lsn;
  /** Whether it is certain that nothing else of the group is lost. */
  readonly isComplete: boolean;
}

interface FoundCheckpoint {
  readonly lsn: Lsn;
  readonly damage: CorruptionError | null;
  /** How far which log had come before the checkpoint. */
  readonly log: { readonly store: StoreId; readonly batch: number } | null;
}

export class Salvage {
  readonly report: SalvageReport;
  readonly #folder: DamagedFolder;
  readonly #source: DamagedLog;
  readonly #clusterId: string;

  private constructor(
    folder: DamagedFolder,
    parts: { source: DamagedLog; clusterId: string; report: SalvageReport },
  ) {
    this.#folder = folder;
    this.#source = parts.source;
    this.#clusterId = parts.clusterId;
    this.report = parts.report;
  }

  /**
   * Locks the folder and reads all of it; nothing is changed, unless a former `apply` was cut short by a
   * crash: that is ended first.
   *
   * @throws {DataFolderError} the node runs, or the folder is not there
   */
  static async open({ dir, clusterId, groups }: {
    readonly dir: string;
    readonly clusterId: string;
    /** Those whose replicas belong in the folder. */
    readonly groups: readonly GroupId[];
  }): Promise<Salvage> {
    const folder = await DamagedFolder.open(dir, clusterId);
    try {
      await folder.finishReplacing("The log was salvaged by an operator");
      const found = new Map<GroupId, FoundCheckpoint>();
      for (const gid of groups) found.set(gid, await findCheckpoint(dir, gid));
      const source: DamagedLog = {
        disk: new RealDisk(),
        dir: `${dir}/wal`,
        clusterId,
        storeId: folder.identity?.storeId ?? null,
        checkpoints: new Map(Array.from(found, ([gid, { lsn }]) => [gid, lsn])),
      };
      const findings = await inspectLog(source);
      const report = makeReport(folder, findings, found);
      return new Salvage(folder, { source, clusterId, report });
    } catch (error) {
      folder.close();
      throw error;
    }
  }

  /** Puts what remains in place of the damaged log. Returns where the old files are kept. */
  async apply(): Promise<string> {
    const { problems } = this.report;
    return await this.#folder.replaceLog(this.#clusterId, {
      reason: `The log was salvaged by an operator: ${problems.join("; ")}`,
      build: (target) => rewriteLog(this.#source, target),
    });
  }

  close(): void {
    this.#folder.close();
  }
}

async function findCheckpoint(dir: string, gid: GroupId): Promise<FoundCheckpoint> {
  try {
    const found = await inspectCheckpoint(dir, gid);
    if (found === null || found.lsn === 0) return { lsn: toLsn(0), damage: null, log: null };
    const meta = CheckpointMeta.parse(found.meta);
    if (meta.gid === gid) return { lsn: found.lsn, damage: null, log: meta.log };
    const message = `The checkpoint of group ${gid} is one of group ${meta.gid}`;
    throw new CorruptionError(message, `groups/${gid}.db`, 0);
  } catch (error) {
    if (!(error instanceof CorruptionError)) throw error;
    return { lsn: toLsn(0), damage: error, log: null };
  }
}

function makeReport(
  folder: DamagedFolder,
  findings: LogFindings,
  checkpoints: ReadonlyMap<GroupId, FoundCheckpoint>,
): SalvageReport {
  const problems: string[] = [];
  if (folder.distrust !== null) problems.push(folder.distrust.message);
  if (findings.segmentCount === 0 && folder.identity?.hasLog !== false) {
    problems.push("The log is missing");
  }
  for (const { file, offset, what } of findings.damages) {
    problems.push(`The log is damaged: ${what} (${file}, byte ${offset})`);
  }
  const logEnd = shrunkBefore(folder, findings, checkpoints);
  if (logEnd !== null) {
    problems.push(
      `The log ends with batch ${findings.lastBatch}, but a checkpoint was made after batch ${logEnd}`,
    );
  }
  const endIsMissing = findings.segmentCount === 0 || logEnd !== null;
  const groups = Array.from(checkpoints, ([gid, { damage }]) => {
    const group = findings.groups.get(gid)!;
    return {
      ...describe(group),
      checkpointDamage: damage?.message ?? null,
      isComplete: group.isProven && group.lost.length === 0 && !endIsMissing && damage === null,
    };
  });
  return { problems, segmentCount: findings.segmentCount, groups };
}

/** The batch that this log must have had at its end, when it has not. */
function shrunkBefore(
  { identity }: DamagedFolder,
  { lastBatch }: LogFindings,
  checkpoints: ReadonlyMap<GroupId, FoundCheckpoint>,
): number | null {
  let wanted = lastBatch;
  for (const { log } of checkpoints.values()) {
    if (log !== null && log.store === identity?.storeId) wanted = Math.max(wanted, log.batch);
  }
  return wanted > lastBatch ? wanted : null;
}

function describe({ gid, lastLsn, lost, committedLsn }: SalvagedGroup) {
  const first = lost[0]?.lsn ?? (committedLsn > lastLsn ? committedLsn + 1 : null);
  const isGap = first !== null && first > lastLsn + 1;
  return {
    gid,
    lastLsn,
    committedLsn,
    lost: lost.map((entry) => ({ lsn: entry.lsn, rows: rowsOf(entry.payload) })),
    unreadable: isGap ? { firstLsn: toLsn(lastLsn + 1), lastLsn: toLsn(first - 1) } : null,
  };
}

function rowsOf(payload: Uint8Array): string[] {
  try {
    return rowOpsOf(decodeCommand(payload)).map((op) => op.row);
  } catch {
    return []; // parts of it are missing
  }
}
