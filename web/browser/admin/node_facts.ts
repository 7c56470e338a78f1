/**
 * What follows from a status document about one node: how it is shown, what belongs together, and
 * what would happen if it were stopped. Pure.
 */
import type { ClusterStatus, NodeStatus, TabletStatus } from "../../../proto/cluster_status.ts";
import { compareKeys } from "../../../kv/key_order.ts";
import type { BadgeProps } from "../../ui/components/badge.tsx";
import type { IconName } from "../../ui/icons/icon_names.ts";
import type { ScrubReport } from "../../../proto/disk_report.ts";
import { formatFullDate, formatSize, plural } from "../../ui/format.ts";
import { listed } from "./spans.ts";

export type NodeState = NodeStatus["state"];
export type Order = "kill" | "restart" | "drain";

export interface Appearance {
  readonly word: string;
  readonly icon: IconName;
  readonly tone: BadgeProps["tone"];
}

/** Colour, shape and word, so that none of them has to be told from the others alone. */
export const NODE_STATES: Record<NodeState, Appearance> = {
  live: { word: "Live", icon: "circle-check", tone: "success" },
  joining: { word: "Joining", icon: "circle-dot", tone: "info" },
  suspect: { word: "Silent", icon: "circle-help", tone: "warning" },
  draining: { word: "Draining", icon: "hourglass", tone: "info" },
  down: { word: "Down", icon: "octagon-alert", tone: "danger" },
  stopped: { word: "Stopped", icon: "power", tone: undefined },
};

export const TABLET_STATES: Record<TabletStatus["state"], Appearance> = {
  healthy: { word: "Healthy", icon: "circle-check", tone: "success" },
  degraded: { word: "Fewer copies", icon: "triangle-alert", tone: "warning" },
  readonly: { word: "Read only", icon: "lock", tone: "danger" },
  unavailable: { word: "Away", icon: "octagon-alert", tone: "danger" },
};

export const ROLE_ICONS: Record<NodeStatus["role"], IconName> = {
  coordinator: "crown",
  backend: "database",
  frontend: "globe",
  balancer: "split",
  mail: "mail",
};

export const runs = (node: NodeStatus) => node.state !== "down" && node.state !== "stopped";

/** The backends that hold a tablet or should. */
export function membersOf(tablet: TabletStatus): readonly number[] {
  return tablet.members ?? holdersOf(tablet);
}

/** The primary and those in sync with it. */
export function holdersOf(tablet: TabletStatus): number[] {
  return tablet.primary === null
    ? [...tablet.secondaries]
    : [tablet.primary, ...tablet.secondaries];
}

/** Writes need a majority of the wished copies. */
const copiesForWrites = (tablet: TabletStatus) => Math.floor(membersOf(tablet).length / 2) + 1;

export function backend(status: ClusterStatus, id: number): NodeStatus | undefined {
  return status.nodes.find((node) => node.role === "backend" && node.id === id);
}

export interface NodeGroup {
  readonly title: string;
  /** What the group has in common: keys, hosts, zones. */
  readonly detail: string;
  readonly nodes: readonly NodeStatus[];
}

/** What users meet first, then the store: backends that keep the same tablets stand together. */
export function groupNodes(status: ClusterStatus): NodeGroup[] {
  const groups: NodeGroup[] = [];
  const front = status.nodes.filter((node) => node.role !== "backend");
  const order = ["balancer", "frontend", "mail", "coordinator"];
  front.sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role) || a.id - b.id);
  if (front.length > 0) {
    groups.push({ title: "Doors and coordinator", detail: placesOf(front), nodes: front });
  }
  for (const set of backendSets(status)) {
    const ids = new Set(set.map((node) => node.id));
    const tablets = status.tablets.filter((tablet) => membersOf(tablet).some((id) => ids.has(id)));
    const keys = tablets.length === 0 ? "" : `Keys ${rangeOf(tablets)}`;
    const first = set[0]!.id, last = set.at(-1)!.id;
    groups.push({
      title: set.length === 1 ? `Backend ${first}` : `Backends ${first} to ${last}`,
      detail: [keys, placesOf(set)].filter(Boolean).join(" · "),
      nodes: set,
    });
  }
  return groups;
}

/** Backends tied together by the tablets that they share. */
function backendSets(status: ClusterStatus): NodeStatus[][] {
  const leader = new Map<number, number>();
  const find = (id: number): number => {
    const parent = leader.get(id) ?? id;
    return parent === id ? id : find(parent);
  };
  for (const tablet of status.tablets) {
    const [first, ...rest] = membersOf(tablet);
    for (const id of rest) leader.set(find(id), find(first!));
  }
  const backends = status.nodes.filter((node) => node.role === "backend")
    .sort((a, b) => a.id - b.id);
  return [...Map.groupBy(backends, (node) => find(node.id)).values()];
}

function placesOf(nodes: readonly NodeStatus[]): string {
  const places = new Set(
    nodes.map(({ host, zone }) => zone === "" ? host : `${zone} (${host})`),
  );
  return listed([...places], 3);
}

/** "a to j", from the first key to the end of the last. */
export function rangeOf(tablets: readonly TabletStatus[]): string {
  const sorted = [...tablets].sort((a, b) => compareKeys(a.startKey, b.startKey));
  const start = sorted[0]?.startKey ?? "", end = sorted.at(-1)?.endKey ?? null;
  if (start === "" && end === null) return "all";
  if (start === "") return `up to ${end}`;
  return end === null ? `from ${start}` : `${start} to ${end}`;
}

export interface Consequence {
  /** What will happen, in a sentence or two. */
  readonly text: string;
  /** none: nobody notices. less: there is less in reserve. harm: users notice. */
  readonly weight: "none" | "less" | "harm";
}

/** What it would mean if this node stopped working now. */
export function withoutNode(status: ClusterStatus, node: NodeStatus): Consequence {
  if (!runs(node)) return { text: "It does not run, so nothing changes.", weight: "none" };
  switch (node.role) {
    case "backend":
      return withoutBackend(status, node);
    case "frontend":
      return withoutFrontend(status, node);
    case "coordinator":
      return {
        text:
          "Reads and writes go on. Until it is back, no new primary can be chosen, so a backend " +
          "that fails meanwhile takes its tablets with it.",
        weight: "less",
      };
    case "balancer":
      return {
        text: "Who has PennCloud open goes on. New visitors have to be given the address of a " +
          "frontend until it is back.",
        weight: "harm",
      };
    case "mail":
      return {
        text: "Mail between our own users goes on. Mail from and to the outside waits and is " +
          "delivered when it is back.",
        weight: "less",
      };
  }
}

function withoutBackend(status: ClusterStatus, node: NodeStatus): Consequence {
  const held = status.tablets.filter((tablet) => holdersOf(tablet).includes(node.id));
  const led = held.filter((tablet) => tablet.primary === node.id);
  const lost = held.filter((tablet) => holdersOf(tablet).length === 1);
  const frozen = held.filter((tablet) =>
    !lost.includes(tablet) && holdersOf(tablet).length - 1 < copiesForWrites(tablet)
  );
  if (lost.length > 0) {
    return {
      text: `It has the only copy in sync of ${plural(lost.length, "tablet", "tablets")} ` +
        `(${ids(lost)}). What they keep cannot be read or written until it is back.`,
      weight: "harm",
    };
  }
  if (frozen.length > 0) {
    return {
      text:
        `${plural(frozen.length, "tablet", "tablets")} (${ids(frozen)}) would be left with too ` +
        "few copies to take writes. Reading goes on.",
      weight: "harm",
    };
  }
  if (status.stale && led.length > 0) {
    return {
      text: `It leads ${plural(led.length, "tablet", "tablets")} (${ids(led)}), and while the ` +
        "coordinator is away nobody can take over.",
      weight: "harm",
    };
  }
  if (held.length === 0) return { text: "It carries no tablets; nobody notices.", weight: "none" };
  const change = led.length === 0
    ? "No group changes its primary"
    : `${plural(led.length, "group", "groups")} will change primary`;
  return {
    text: `${change}; nobody should notice more than a short pause. ` +
      `${plural(held.length, "tablet has", "tablets have")} one copy less until it is back.`,
    weight: "less",
  };
}

function withoutFrontend(status: ClusterStatus, node: NodeStatus): Consequence {
  const others =
    status.nodes.filter((other) =>
      other.role === "frontend" && other.name !== node.name && other.state === "live"
    ).length;
  if (others === 0) {
    return { text: "It is the last frontend: no page opens until it is back.", weight: "harm" };
  }
  return {
    text: `Its users move to ${others === 1 ? "the other frontend" : `the ${others} others`} and ` +
      "stay logged in; uploads resume there.",
    weight: "none",
  };
}

/** What reading everything on the disk again has found, in a few words. */
export function scrubText({ state, bytes, finishedMs, damaged, finding }: ScrubReport): string {
  const found = damaged === 0 ? "" : `, damage found: ${finding}`;
  if (state !== "idle") return `under way, ${formatSize(bytes)} so far${found}`;
  if (finishedMs === null) return "not yet";
  return `${formatFullDate(finishedMs)}, ${
    damaged === 0 ? "all sound" : `damage found: ${finding}`
  }`;
}

const ids = (tablets: readonly TabletStatus[]) => listed(tablets.map((tablet) => tablet.id));

/** The question before an order is given. */
export function questionFor(
  order: Order,
  node: NodeStatus,
  status: ClusterStatus,
): { title: string; text: string; action: string; danger: boolean } {
  const { text, weight } = withoutNode(status, node);
  const danger = weight === "harm";
  if (order === "kill") {
    return {
      title: `Kill ${node.name}?`,
      text: `The process ends at once, as in a crash, and stays down until you start it. ${text}`,
      action: "Kill",
      danger: true,
    };
  }
  if (order === "drain") {
    const first = node.role === "backend"
      ? "It hands its primaries over first, then stops and stays down until you start it."
      : "It finishes what it has begun, then stops and stays down until you start it.";
    return { title: `Drain ${node.name}?`, text: `${first} ${text}`, action: "Drain", danger };
  }
  return {
    title: `Restart ${node.name}?`,
    text: `It stops in good order and starts again, which takes a few seconds. ${text}`,
    action: "Restart",
    danger,
  };
}
