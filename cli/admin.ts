/** `penncloud admin …`: what the cluster is doing, and orders to its nodes. */
import { shownColumn } from "../kv/internal_columns.ts";
import { type NodeEntry, planGroups } from "../proto/cluster_config.ts";
import type { ClusterStatus } from "../proto/cluster_status.ts";
import { backendConversation, coordinatorConversation } from "../proto/control.ts";
import type { DiskReport } from "../proto/disk_report.ts";
import { groupId, type Lsn, nodeId } from "../proto/ids.ts";
import { kvConversation } from "../proto/kv_wire.ts";
import type { SupervisedProcess } from "../proto/supervision.ts";
import { NoSupervisorError, supervisorOf } from "../roles/supervisor_client.ts";
import { table } from "../roles/table.ts";
import { type ClusterFlags, type OpenCluster, openCluster } from "./cluster_flags.ts";
import { DONE, NOT_FOUND, UnavailableError, UsageError } from "./exit_status.ts";
import { findNode, withNode } from "./node_connection.ts";
import { withKv } from "./kv_session.ts";
import { valueForJson, valueForLine, writeJson, writeLine } from "./output.ts";
import { statusText, tabletsTable } from "./status_tables.ts";

const DRAIN_WAIT_MS = 40_000;
const POLL_MS = 200;
/** Of each value on a page of rows; more is a matter for `kv get`. */
const VALUE_HEAD_BYTES = 256;
const VERIFY_ATTEMPTS = 5;

export async function adminStatus(flags: ClusterFlags): Promise<number> {
  const status = await clusterStatus(await openCluster(flags));
  if (flags.json) writeJson(status);
  else writeLine(statusText(status));
  return DONE;
}

export async function adminTablets(flags: ClusterFlags): Promise<number> {
  const { tablets } = await clusterStatus(await openCluster(flags));
  if (flags.json) writeJson(tablets);
  else writeLine(tabletsTable(tablets));
  return DONE;
}

/** Makes a boundary between two tablets at `key`, or takes it away. */
export async function adminReshape(
  kind: "split" | "merge",
  key: string,
  flags: ClusterFlags,
): Promise<number> {
  const cluster = await openCluster(flags);
  const tablets = await withKv(cluster, (kv) => kv.reshape({ kind, key }));
  if (flags.json) writeJson(tablets);
  else {
    writeLine(table(
      ["TABLET", "FROM", "TO", "ROWS", "BYTES"],
      tablets.map(({ id, startKey, endKey, rows, bytes }) => [
        String(id),
        startKey === "" ? "(first)" : JSON.stringify(startKey),
        endKey === null ? "(end)" : JSON.stringify(endKey),
        String(rows),
        String(bytes),
      ]),
      [3, 4],
    ));
  }
  return DONE;
}

/** Gives a tablet to another group, and waits until it is there or has come to nothing. */
export async function adminMove(
  { tablet, group }: { tablet: string; group: string },
  flags: ClusterFlags,
): Promise<number> {
  const cluster = await openCluster(flags);
  const known = planGroups(cluster.config).map((plan) => plan.id);
  const [from, tabletId] = tablet.split(".").map(Number);
  if (!/^\d+\.\d+$/.test(tablet) || !known.includes(from!)) {
    throw new UsageError(
      `Cannot find tablet "${tablet}": expected a group and a number, as in 1.2; ` +
        `\`penncloud admin tablets\` lists them`,
    );
  }
  if (!known.includes(Number(group))) {
    throw new UsageError(`Cannot find group "${group}": expected one of ${known.join(", ")}`);
  }
  const ended = await withNode(cluster, coordinatorOf(cluster), async (connection) => {
    const wish = { from: groupId(from!), tabletId: tabletId!, to: groupId(Number(group)) };
    const { body: { id } } = await connection.call(coordinatorConversation, "beginMove", wish);
    for (;;) {
      const { body: map } = await connection.call(coordinatorConversation, "rangeMap", {});
      const over = map.ended.find((move) => move.id === id);
      if (over !== undefined) return over;
      if (!map.moves.some((move) => move.id === id)) {
        throw new UnavailableError(`Nobody remembers what became of move ${id} any more`);
      }
      await pause();
    }
  });
  if (flags.json) writeJson(ended);
  else if (ended.outcome === "committed") {
    writeLine(`Tablet ${tablet} has moved to group ${group}`);
  } else writeLine(`Tablet ${tablet} stays in group ${from}: ${ended.reason}`);
  return ended.outcome === "committed" ? DONE : NOT_FOUND;
}

export type NodeOrder = "kill" | "restart" | "drain";

/** Kills, restarts or drains the node that `target` (a port or `role/id`) names. */
export async function adminOrder(
  order: NodeOrder,
  target: string,
  flags: ClusterFlags,
): Promise<number> {
  const cluster = await openCluster(flags);
  const node = findNode(cluster, target);
  const supervisor = supervisorOf(cluster, node);
  try {
    let process = await supervisor[order]();
    if (order === "drain") process = await waitUntilStopped(cluster, node, process);
    if (flags.json) writeJson(process);
    else writeLine(describeOrder(order, process));
    return process.state === "draining" ? NOT_FOUND : DONE;
  } catch (error) {
    if (error instanceof NoSupervisorError) throw new UnavailableError(error.message);
    throw error;
  }
}

export interface RowsFlags extends ClusterFlags {
  readonly start?: string | undefined;
  readonly limit?: number | undefined;
}

/** The raw rows that one backend holds, primary or not. */
export async function adminRows(target: string, flags: RowsFlags): Promise<number> {
  const cluster = await openCluster(flags);
  const node = findNode(cluster, target);
  if (node.role !== "backend") {
    throw new UsageError(`Cannot list rows of ${node.role}/${node.id}: only backends hold rows`);
  }
  const { body: page } = await withNode(
    cluster,
    node,
    (connection) =>
      connection.call(kvConversation, "rows", {
        start: flags.start ?? "",
        limit: flags.limit ?? 100,
        valueBytes: VALUE_HEAD_BYTES,
      }),
  );
  const cells = page.cells.map(({ head, ...cell }) => ({
    ...cell,
    head: Uint8Array.fromBase64(head),
  }));
  if (flags.json) {
    writeJson({
      node: `${node.role}/${node.id}`,
      cells: cells.map(({ head, ...cell }) => ({
        ...cell,
        ...(head.length < cell.size ? { truncated: true } : {}),
        ...valueForJson(head),
      })),
      next: page.next,
    });
    return DONE;
  }
  const rows = cells.map((cell) => [
    cell.row,
    shownColumn(cell.column),
    String(cell.version),
    String(cell.size),
    cell.large ? "(in a file of its own)" : valueForLine(cell.head),
  ]);
  writeLine(table(["ROW", "COLUMN", "VERSION", "BYTES", "VALUE"], rows, [2, 3]));
  if (page.next !== null) writeLine(`More: --start ${JSON.stringify(page.next.row)}`);
  return DONE;
}

/**
 * Has every backend read all that it stores again, and compares the states of each group's replicas.
 * Exit status 1 when anything is damaged or differs.
 */
export async function adminVerify(flags: ClusterFlags): Promise<number> {
  const cluster = await openCluster(flags);
  const disks = await scrubAll(cluster);
  let groups = await compareReplicas(cluster);
  // Replicas apply a write a moment apart; only a difference that stays is one.
  for (let i = 1; i < VERIFY_ATTEMPTS && groups.some((it) => it.verdict !== "equal"); i++) {
    await pause();
    groups = await compareReplicas(cluster);
  }
  if (flags.json) writeJson({ groups, disks });
  else writeLine(`${disksTable(disks)}\n\n${groupsTable(groups)}`);
  const isSound = disks.every(({ disk }) => disk.scrub.damaged === 0) &&
    groups.every(({ verdict }) => verdict !== "different");
  return isSound ? DONE : NOT_FOUND;
}

interface DiskFinding {
  readonly node: string;
  readonly disk: DiskReport;
}

/** Asks all backends at once, and waits until each has been through everything. */
async function scrubAll(cluster: OpenCluster): Promise<DiskFinding[]> {
  const backends = cluster.config.node.filter((node) => node.role === "backend");
  const ask = (node: NodeEntry, start: boolean) =>
    withNode(cluster, node, async (connection) => {
      return (await connection.call(backendConversation, "scrub", { start })).body;
    });
  return await Promise.all(backends.map(async (node) => {
    let disk = await ask(node, true);
    while (disk.scrub.state !== "idle") {
      await pause();
      disk = await ask(node, false);
    }
    return { node: `backend/${node.id}`, disk };
  }));
}

function disksTable(disks: readonly DiskFinding[]): string {
  const rows = disks.map(({ node, disk: { scrub, quarantine } }) => [
    node,
    scrub.damaged === 0 ? "sound" : scrub.damaged === scrub.mended ? "mended" : "damaged",
    String(scrub.cells),
    String(scrub.values),
    String(scrub.bytes),
    String(quarantine.bytes),
    scrub.finding ?? "",
  ]);
  const head = ["NODE", "DISK", "CELLS", "VALUES", "BYTES", "QUARANTINE", "FOUND"];
  return table(head, rows, [2, 3, 4, 5]);
}

interface GroupFinding {
  readonly gid: number;
  /** busy: the replicas have no entry in common at which to compare, so nothing can be said. */
  readonly verdict: "equal" | "different" | "busy";
  /** The entry as of which they were compared. */
  readonly lsn: number | null;
  readonly replicas: readonly {
    readonly node: number;
    readonly appliedLsn: number;
    readonly hash: string;
    readonly rows: number;
    readonly cells: number;
  }[];
}

function groupsTable(groups: readonly GroupFinding[]): string {
  const rows = groups.map((it) => [
    String(it.gid),
    it.verdict,
    it.lsn === null ? "-" : String(it.lsn),
    it.replicas.map((replica) => `backend/${replica.node} at ${replica.appliedLsn}`).join(", "),
    String(it.replicas[0]?.rows ?? 0),
    String(it.replicas[0]?.cells ?? 0),
  ]);
  return table(["GROUP", "STATES", "AS OF", "REPLICAS", "ROWS", "CELLS"], rows, [0, 2, 4, 5]);
}

async function compareReplicas(cluster: OpenCluster): Promise<GroupFinding[]> {
  const backends = cluster.config.node.filter((node) => node.role === "backend");
  const answers = await Promise.all(backends.map(async (node) => {
    const { body } = await withNode(cluster, node, (it) => it.call(kvConversation, "digest", {}));
    return body.groups.map((group) => ({ ...group, node: node.id }));
  }));
  const byGroup = Map.groupBy(answers.flat(), (replica) => replica.gid);
  return [...byGroup].sort(([a], [b]) => a - b).map(([gid, replicas]) => {
    const hashesAt = replicas.map(({ appliedLsn, hash, checks }) =>
      new Map([...checks.map((check) => [check.lsn, check.hash] as const), [appliedLsn, hash]])
    );
    const common = [...hashesAt[0]!.keys()].filter((at) => hashesAt.every((map) => map.has(at)));
    const lsn = common.length === 0 ? null : Math.max(...common) as Lsn;
    const hashes = new Set(lsn === null ? [] : hashesAt.map((map) => map.get(lsn)));
    const verdict = lsn === null ? "busy" : hashes.size > 1 ? "different" : "equal";
    return {
      gid,
      verdict,
      lsn,
      replicas: replicas.map(({ node, appliedLsn, hash, rows, cells }) => ({
        node,
        appliedLsn,
        hash,
        rows,
        cells,
      })),
    };
  });
}

const pause = () => new Promise((resolve) => setTimeout(resolve, POLL_MS));

/** Has the coordinator make its records anew from what all backends adopted last. */
export async function adminRecoverMeta(flags: ClusterFlags): Promise<number> {
  const cluster = await openCluster(flags);
  const { body } = await withNode(
    cluster,
    coordinatorOf(cluster),
    (connection) => connection.call(coordinatorConversation, "recoverMeta", {}),
  );
  if (flags.json) writeJson(body);
  else {
    const rows = body.groups.map(({ gid, was, epoch }) => [
      String(gid),
      was === epoch ? "as it was" : "recovered",
      String(was),
      String(epoch),
    ]);
    writeLine(table(["GROUP", "RECORD", "EPOCH BEFORE", "EPOCH NOW"], rows, [0, 2, 3]));
  }
  return DONE;
}

/** Lets a backend lead a group although it may lack acknowledged writes. */
export async function adminForcePrimary(
  { group, target, acceptDataLoss }: { group: string; target: string; acceptDataLoss: boolean },
  flags: ClusterFlags,
): Promise<number> {
  const cluster = await openCluster(flags);
  const node = findNode(cluster, target);
  const gid = Number(group);
  const known = planGroups(cluster.config).map((plan) => plan.id);
  if (!known.includes(gid)) {
    throw new UsageError(`Cannot find group "${group}": expected one of ${known.join(", ")}`);
  }
  if (node.role !== "backend") {
    throw new UsageError(`Cannot let ${node.role}/${node.id} lead: only backends hold rows`);
  }
  if (!acceptDataLoss) {
    throw new UsageError(
      `Writes that backend/${node.id} lacks, acknowledged ones among them, would be gone for ever. ` +
        `Start the group's other members if you can; if you cannot, add --accept-data-loss`,
    );
  }
  const { body } = await withNode(
    cluster,
    coordinatorOf(cluster),
    (connection) =>
      connection.call(coordinatorConversation, "forcePrimary", {
        gid: groupId(gid),
        node: nodeId(node.id),
        acceptDataLoss: true,
      }),
  );
  if (flags.json) writeJson(body.config);
  else writeLine(`backend/${node.id} leads group ${gid} in epoch ${body.config.epoch}`);
  return DONE;
}

const coordinatorOf = ({ config }: OpenCluster): NodeEntry =>
  config.node.find((node) => node.role === "coordinator")!;

export async function clusterStatus(cluster: OpenCluster): Promise<ClusterStatus> {
  const { body } = await withNode(
    cluster,
    coordinatorOf(cluster),
    (connection) => connection.call(coordinatorConversation, "status", {}),
  );
  return body;
}

async function waitUntilStopped(
  cluster: OpenCluster,
  node: NodeEntry,
  told: SupervisedProcess,
): Promise<SupervisedProcess> {
  const deadlineMs = performance.now() + DRAIN_WAIT_MS;
  let process = told;
  while (process.state === "draining" && performance.now() < deadlineMs) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    const all = await supervisorOf(cluster, node).list();
    process = all.find((entry) => entry.role === node.role && entry.id === node.id) ?? process;
  }
  return process;
}

function describeOrder(order: NodeOrder, process: SupervisedProcess): string {
  const name = `${process.role}/${process.id}`;
  if (order === "kill") return `${name} is killed and stays down: penncloud admin restart ${name}`;
  if (order === "restart") return `${name} is started as process ${process.pid}`;
  return process.state === "draining"
    ? `${name} is still draining`
    : `${name} has drained and stays down: penncloud admin restart ${name}`;
}
