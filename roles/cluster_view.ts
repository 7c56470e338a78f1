/**
 * The operator's view, made from what nodes report and what the coordinator decided. No state of
 * its own but the reports; `status()` is the document of proto/cluster_status.ts.
 */
import type { ClusterConfig, Role } from "../proto/cluster_config.ts";
import type {
  ClusterStatus,
  NodeState,
  NodeStatus,
  TabletStatus,
} from "../proto/cluster_status.ts";
import type { GroupReport, NodeReport, TabletReport } from "../proto/control.ts";
import type { GroupConfig, Member } from "../proto/replication.ts";
import type { GroupPlan } from "../proto/cluster_config.ts";

const SUSPECT_AFTER_MS = 1_500;
const DOWN_AFTER_MS = 5_000;

interface SeenNode {
  report: NodeReport;
  seenMs: number;
  ended: boolean;
  state: NodeState;
  sinceMs: number;
}

export interface GroupView {
  readonly gid: number;
  readonly plan: GroupPlan;
  readonly config: GroupConfig | null;
  readonly learners: readonly Member[];
  readonly rolledBack: boolean;
}

export class ClusterView {
  readonly #config: ClusterConfig;
  readonly #seen = new Map<string, SeenNode>();
  /** By group: its tablets as a serving primary last reported them. */
  readonly #tablets = new Map<number, readonly TabletReport[]>();
  readonly #startedMs: number;

  constructor(config: ClusterConfig, nowMs: number) {
    this.#config = config;
    this.#startedMs = nowMs;
  }

  onReport(report: NodeReport, nowMs: number): void {
    const name = `${report.role}/${report.id}`;
    const before = this.#seen.get(name);
    const ended = before?.ended === true && before.report.spawnId === report.spawnId;
    const seen: SeenNode = {
      report,
      seenMs: nowMs,
      ended,
      state: before?.state ?? "joining",
      sinceMs: before?.sinceMs ?? nowMs,
    };
    this.#seen.set(name, seen);
    for (const group of report.store?.groups ?? []) {
      if (group.serving) this.#tablets.set(group.gid, group.tablets);
    }
    this.#judge(seen, nowMs);
  }

  onExited(spawnId: string, nowMs: number): void {
    for (const seen of this.#seen.values()) {
      if (seen.report.spawnId !== spawnId) continue;
      seen.ended = true;
      this.#judge(seen, nowMs);
    }
  }

  /** Ports of all nodes that report, by name: for tests and tools. */
  isLive(role: Role, id: number, nowMs: number): boolean {
    const seen = this.#seen.get(`${role}/${id}`);
    return seen !== undefined && !seen.ended && nowMs - seen.seenMs < SUSPECT_AFTER_MS;
  }

  status(groups: Iterable<GroupView>, nowMs: number): ClusterStatus {
    const tablets: TabletStatus[] = [];
    const problems: string[] = [];
    const primaryOf = new Map<number, number[]>(), secondaryOf = new Map<number, number[]>();
    for (const group of groups) {
      const [tablet, ...more] = this.#tabletsOf(group, nowMs);
      if (this.#tablets.get(group.gid)?.length !== 0) tablets.push(tablet, ...more);
      if (tablet.primary !== null) push(primaryOf, tablet.primary, tablet.groupId);
      for (const node of tablet.secondaries) push(secondaryOf, node, tablet.groupId);
      const problem = problemOf(tablet, more.length, group);
      if (problem !== null) problems.push(problem);
    }
    const nodes = this.#config.node.map((entry): NodeStatus => {
      const name = `${entry.role}/${entry.id}`, seen = this.#seen.get(name);
      if (seen !== undefined) this.#judge(seen, nowMs);
      const isBackend = entry.role === "backend";
      const self = entry.role === "coordinator";
      const report = seen?.report;
      return {
        name,
        role: entry.role,
        id: entry.id,
        host: entry.host,
        port: entry.port,
        zone: entry.zone,
        state: seen?.state ?? (nowMs - this.#startedMs > DOWN_AFTER_MS ? "down" : "joining"),
        sinceMs: seen?.sinceMs ?? this.#startedMs,
        pid: report?.pid ?? (self ? Deno.pid : null),
        startedMs: report?.startedMs ?? null,
        requestsPerSecond: report?.requestsPerSecond ?? 0,
        cpu: report?.cpu ?? 0,
        memoryBytes: report?.memoryBytes ?? 0,
        logBytes: report?.store?.logBytes ?? null,
        dataBytes: report?.store?.dataBytes ?? null,
        disk: report?.store?.disk ?? null,
        connections: report?.connections ?? null,
        primaryOf: isBackend ? primaryOf.get(entry.id) ?? [] : [],
        secondaryOf: isBackend ? secondaryOf.get(entry.id) ?? [] : [],
        problem: report?.problem ?? null,
      };
    });
    for (const node of nodes) {
      if (node.state === "down" || node.state === "suspect") {
        const what = node.state === "down" ? "is down" : "has not been heard for a moment";
        problems.push(`${node.name} (port ${node.port}) ${what}`);
      } else if (node.problem !== null) {
        problems.push(`${node.name}: ${node.problem}`);
      }
    }
    const { name, mail_domain: mailDomain } = this.#config.cluster;
    return { name, mailDomain, generatedMs: nowMs, problems, nodes, tablets };
  }

  #judge(seen: SeenNode, nowMs: number): void {
    const silentMs = nowMs - seen.seenMs;
    const { report } = seen;
    const state: NodeState = seen.ended || silentMs > DOWN_AFTER_MS
      ? "down"
      : silentMs > SUSPECT_AFTER_MS
      ? "suspect"
      : report.store?.draining === true
      ? "draining"
      : report.ready
      ? "live"
      : "joining";
    if (state !== seen.state) {
      seen.state = state;
      seen.sinceMs = nowMs;
    }
  }

  /** At least one, by key: a group whose tablets all moved away has its replicas nevertheless. */
  #tabletsOf(group: GroupView, nowMs: number): [TabletStatus, ...TabletStatus[]] {
    const { config, plan, gid } = group;
    const primary = config?.primary.node ?? null;
    const report = primary === null ? undefined : this.#groupReport(primary, gid);
    const alive = primary !== null && this.isLive("backend", primary, nowMs);
    const inOffice = alive && report?.role === "primary";
    const inSync = config?.inSync.length ?? 0;
    // Too few to decide what the log's end is worth still answer reads beside it.
    const serving = inOffice && (report.serving || inSync < config!.minInSync);
    const secondaries = (config?.inSync ?? []).map((member) => Number(member.node))
      .filter((node) => node !== primary);
    const state: TabletStatus["state"] = !serving
      ? "unavailable"
      : inSync < config!.minInSync
      ? "readonly"
      : inSync < plan.members.length
      ? "degraded"
      : "healthy";
    const common = {
      groupId: gid,
      epoch: config?.epoch ?? 0,
      state,
      primary,
      secondaries,
      learners: group.learners.map((member) => Number(member.node)),
      members: [...plan.members],
    };
    const { startKey, endKey } = plan;
    const [first = { ...UNKNOWN_TABLET, startKey, endKey }, ...more] = this.#tablets.get(gid) ?? [];
    // Nobody reads or writes where nobody serves, whatever the last report said.
    const idle = serving ? {} : { readsPerSecond: 0, writesPerSecond: 0 };
    const toStatus = (tablet: TabletReport): TabletStatus => ({
      ...tablet,
      ...idle,
      ...common,
      id: `${gid}.${tablet.id}`,
    });
    return [toStatus(first), ...more.map(toStatus)];
  }

  /** What serving primaries said last of their groups. */
  groupReports(): GroupReport[] {
    const all = [...this.#seen.values()].filter(({ ended }) => !ended);
    return all.flatMap(({ report }) => report.store?.groups.filter(({ serving }) => serving) ?? []);
  }

  #groupReport(node: number, gid: number): GroupReport | undefined {
    const store = this.#seen.get(`backend/${node}`)?.report.store;
    return store?.groups.find((group) => group.gid === gid);
  }
}

/** Of a group whose primary has not reported since the coordinator began. */
const UNKNOWN_TABLET = {
  id: 1,
  generation: 1,
  rows: 0,
  cells: 0,
  bytes: 0,
  largeBytes: 0,
  readsPerSecond: 0,
  writesPerSecond: 0,
};

function push(map: Map<number, number[]>, key: number, value: number): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

/** One sentence for all tablets of a group: they share their replicas and their fate. */
function problemOf(tablet: TabletStatus, others: number, group: GroupView): string | null {
  const many = others > 0;
  const them = many
    ? `Tablets ${tablet.id} and ${others} more of group ${tablet.groupId}`
    : `Tablet ${tablet.id}`;
  if (group.rolledBack) {
    return `${them}: nodes know a newer configuration than the coordinator. Its ` +
      `metadata went back in time: put its folder back, or with every backend running make it anew ` +
      `with \`penncloud admin recover-meta\``;
  }
  switch (tablet.state) {
    case "healthy":
      return null;
    case "degraded":
      return `${them} ${many ? "have" : "has"} ${tablet.secondaries.length + 1} of ` +
        `${group.plan.members.length} replicas in sync; ${many ? "they serve" : "it serves"}`;
    case "readonly":
      return `${them} ${many ? "take" : "takes"} no writes: only ` +
        `${tablet.secondaries.length + 1} replica is in sync. ${many ? "They wait" : "It waits"} ` +
        `for one of backends ${group.plan.members.join(", ")}`;
    case "unavailable":
      return tablet.primary === null
        ? `${them} ${many ? "are" : "is"} being set up: ${
          many ? "they begin" : "it begins"
        } once ` +
          `backends ${
            group.plan.members.join(", ")
          } are all there, for one that is away may hold data`
        : `${them} ${many ? "have" : "has"} no serving primary; a new one is being chosen`;
  }
}
