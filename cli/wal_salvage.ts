/**
 * `penncloud admin wal-salvage NODE`: for a damaged folder that may be the last to hold what was
 * acknowledged. It explains what is damaged and what would be lost; only with a flag does it write.
 */
import { planGroups } from "../proto/cluster_config.ts";
import { groupId } from "../proto/ids.ts";
import { DataFolderError } from "../kv/disk/identity.ts";
import { nodeDir } from "../roles/cluster_folder.ts";
import { type GroupSalvageReport, Salvage, type SalvageReport } from "../roles/salvage.ts";
import { clusterStatus } from "./admin.ts";
import { type ClusterFlags, type OpenCluster, openCluster } from "./cluster_flags.ts";
import { DONE, NOT_FOUND, UnavailableError, UsageError } from "./exit_status.ts";
import { findNode } from "./node_connection.ts";
import { writeJson, writeLine } from "./output.ts";

/** Rows named in the text; `--json` names all. */
const ROWS_SHOWN = 8;

/** Exit status 1 when there is something to salvage and nothing was written. */
export async function walSalvage(
  { target, acceptDataLoss }: { target: string; acceptDataLoss: boolean },
  flags: ClusterFlags,
): Promise<number> {
  const cluster = await openCluster(flags);
  const node = findNode(cluster, target);
  if (node.role !== "backend") {
    throw new UsageError(`Cannot salvage ${node.role}/${node.id}: only backends have a log`);
  }
  const name = `backend/${node.id}`, dir = nodeDir(cluster.clusterDir, node);
  const groups = planGroups(cluster.config).filter((plan) => plan.members.includes(node.id))
    .map((plan) => groupId(plan.id));
  const salvage = await openStopped({ dir, clusterId: cluster.clusterId, groups }, name);
  try {
    const { report } = salvage;
    const elsewhere = await ledElsewhere(cluster, node.id);
    const isNeeded = report.problems.length > 0;
    const advice = adviceFor(name, report, elsewhere);
    if (!isNeeded || !acceptDataLoss) {
      if (flags.json) writeJson({ ...report, elsewhere, written: false });
      else writeLine(`${reportText(name, report, elsewhere)}\n\n${advice}`);
      return isNeeded ? NOT_FOUND : DONE;
    }
    if (groups.every((gid) => elsewhere?.[gid] !== undefined)) throw new UsageError(advice);
    const quarantine = await salvage.apply();
    if (flags.json) writeJson({ ...report, elsewhere, written: true, quarantine });
    else {
      const next = nextSteps(name, report, elsewhere);
      writeLine(
        `${reportText(name, report, elsewhere)}\n\nDone. The damaged files are in ` +
          `${quarantine}.\n${next}`,
      );
    }
    return DONE;
  } finally {
    salvage.close();
  }
}

async function openStopped(
  options: Parameters<typeof Salvage.open>[0],
  name: string,
): Promise<Salvage> {
  try {
    return await Salvage.open(options);
  } catch (error) {
    if (!(error instanceof DataFolderError)) throw error;
    const advice = /another process/.test(error.message)
      ? `: \`penncloud admin kill ${name}\` stops it`
      : ". This has to run on the node's host";
    throw new UsageError(`${error.message}${advice}`, { cause: error });
  }
}

/** By group: the other node that leads it now. Null when nobody knows. */
async function ledElsewhere(
  cluster: OpenCluster,
  self: number,
): Promise<Record<number, string> | null> {
  try {
    const { tablets } = await clusterStatus(cluster);
    const led = tablets.filter(({ primary, state }) =>
      primary !== null && primary !== self && state !== "unavailable"
    );
    return Object.fromEntries(led.map(({ groupId, primary }) => [groupId, `backend/${primary}`]));
  } catch (error) {
    if (error instanceof UnavailableError) return null;
    throw error;
  }
}

function reportText(
  name: string,
  { problems, groups }: SalvageReport,
  elsewhere: Record<number, string> | null,
): string {
  if (problems.length === 0) return `The folder of ${name} is sound: there is nothing to salvage.`;
  return [
    `The folder of ${name} cannot be used as it is:`,
    ...problems.map((problem) => `  ${problem}`),
    "",
    "What of it can be kept:",
    ...groups.flatMap((group) => groupText(group, elsewhere?.[group.gid])),
  ].join("\n");
}

function groupText(group: GroupSalvageReport, leader: string | undefined): string[] {
  const { gid, lastLsn, checkpointDamage, unreadable, lost, committedLsn, isComplete } = group;
  const lines: string[] = [];
  const say = (text: string) =>
    lines.push(lines.length === 0 ? `  group ${gid}: ${text}` : `    ${text}`);
  if (leader !== undefined) say(`nothing is needed: ${leader} leads it and has everything`);
  if (checkpointDamage !== null) {
    say(`nothing: ${checkpointDamage}`);
    return lines;
  }
  say(isComplete ? `everything, up to entry ${lastLsn}` : `entries up to ${lastLsn}`);
  if (unreadable !== null) {
    say(`entries ${unreadable.firstLsn} to ${unreadable.lastLsn} cannot be read`);
  }
  if (lost.length > 0) {
    say(
      `${lost.length} more can be read, but not kept without those before them: ` +
        `${lost[0]!.lsn} to ${lost.at(-1)!.lsn}`,
    );
    const rows = [...new Set(lost.flatMap((entry) => entry.rows))];
    const shown = rows.slice(0, ROWS_SHOWN).map((row) => JSON.stringify(row)).join(", ");
    const rest = rows.length > ROWS_SHOWN ? ` and ${rows.length - ROWS_SHOWN} more (--json)` : "";
    if (rows.length > 0) say(`they change the rows ${shown}${rest}`);
  }
  if (committedLsn > lastLsn) {
    say(`lost for certain: acknowledged writes, entries up to ${committedLsn}`);
  } else if (!isComplete) say("whether acknowledged writes are lost cannot be told");
  return lines;
}

function adviceFor(
  name: string,
  { problems, groups }: SalvageReport,
  elsewhere: Record<number, string> | null,
): string {
  if (problems.length === 0) {
    return `Nothing was written. Start it: penncloud admin restart ${name}`;
  }
  if (groups.every(({ gid }) => elsewhere?.[gid] !== undefined)) {
    return `Nothing was written, and nothing has to be: all groups of ${name} are led by others, who ` +
      `have everything. Start it, and it fills itself again: penncloud admin restart ${name}`;
  }
  const lines = [
    "Nothing was written. A backup of the folder, or any other member of these groups that can be",
    "brought back, has more than what would be kept here.",
  ];
  if (elsewhere === null) lines.push("The coordinator does not answer: others may lead them.");
  lines.push(
    `To keep what can be kept: penncloud admin wal-salvage ${name} --accept-data-loss`,
  );
  return lines.join("\n");
}

function nextSteps(
  name: string,
  { groups }: SalvageReport,
  elsewhere: Record<number, string> | null,
): string {
  const orphans = groups.filter(({ gid, checkpointDamage }) =>
    elsewhere?.[gid] === undefined && checkpointDamage === null
  );
  return [
    "It goes by a new name now, so it does not lead by itself. To let the cluster go on from it:",
    `  penncloud admin restart ${name}`,
    ...orphans.map(({ gid }) =>
      `  penncloud admin force-primary ${gid} ${name} --accept-data-loss`
    ),
  ].join("\n");
}
