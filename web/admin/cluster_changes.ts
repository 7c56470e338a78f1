/**
 * What happened between two looks at the cluster, as sentences: nodes that came and went, primaries
 * that moved, replicas that left and returned. Pure, so that the frontend uses it for its stream of
 * events and the browser for the times when no stream is to be had.
 */
import type { ClusterStatus, NodeStatus, TabletStatus } from "../../proto/cluster_status.ts";

export type ChangeTone = "success" | "warning" | "danger" | "info";

export interface Change {
  readonly atMs: number;
  readonly about: "node" | "tablet";
  /** `backend/3` or a tablet's id. */
  readonly subject: string;
  /** Port of the node; null for tablets. */
  readonly port: number | null;
  readonly tone: ChangeTone;
  /** A sentence that begins with its subject. */
  readonly text: string;
}

/** A change with its place in one frontend's list. */
export interface NumberedChange extends Change {
  readonly id: string;
}

const STATE_WORDS: Record<NodeStatus["state"], { tone: ChangeTone; words: string }> = {
  joining: { tone: "info", words: "has started and is getting ready" },
  live: { tone: "success", words: "is live" },
  suspect: { tone: "warning", words: "has not been heard for a moment" },
  draining: { tone: "info", words: "hands over its work and will stop" },
  down: { tone: "danger", words: "is down" },
  stopped: { tone: "warning", words: "was stopped on purpose" },
};

/** Oldest first; nodes before tablets, since they are usually the cause. */
export function clusterChanges(before: ClusterStatus, after: ClusterStatus): Change[] {
  const changes: Change[] = [];
  const earlierNodes = new Map(before.nodes.map((node) => [node.name, node]));
  for (const node of after.nodes) {
    const earlier = earlierNodes.get(node.name);
    if (earlier !== undefined) changes.push(...nodeChanges(earlier, node, after.generatedMs));
  }
  const earlierGroups = Map.groupBy(before.tablets, (tablet) => tablet.groupId);
  for (const [groupId, tablets] of Map.groupBy(after.tablets, (tablet) => tablet.groupId)) {
    const earlier = earlierGroups.get(groupId);
    if (earlier === undefined) continue;
    changes.push(...shapeChanges(earlier, tablets, after.generatedMs));
    // Tablets of one group share their replicas, so what happens to one happens to all.
    changes.push(...tabletChanges(earlier[0]!, tablets[0]!, tablets.length, after.generatedMs));
  }
  return changes;
}

/** Tablets that came by a split or went by a merge. */
function shapeChanges(
  before: readonly TabletStatus[],
  after: readonly TabletStatus[],
  nowMs: number,
): Change[] {
  const change = (subject: string, text: string): Change => (
    { atMs: nowMs, about: "tablet", subject, port: null, tone: "info", text }
  );
  if (isUnknown(before) || isUnknown(after)) return [];
  const earlier = new Set(before.map((tablet) => tablet.id));
  const now = new Set(after.map((tablet) => tablet.id));
  const came = after.filter((tablet) => !earlier.has(tablet.id)).map(({ id, startKey }) =>
    change(id, `Tablet ${id} begins at "${startKey}" after a split`)
  );
  const went = before.filter((tablet) => !now.has(tablet.id)).map(({ id }) =>
    change(id, `Tablet ${id} was merged into its neighbour`)
  );
  return [...came, ...went];
}

function nodeChanges(before: NodeStatus, after: NodeStatus, nowMs: number): Change[] {
  const change = (tone: ChangeTone, words: string, atMs = nowMs): Change => ({
    atMs,
    about: "node",
    subject: after.name,
    port: after.port,
    tone,
    text: `${after.name} (port ${after.port}) ${words}`,
  });
  if (before.state !== after.state) {
    const { tone, words } = STATE_WORDS[after.state];
    const back = after.state === "live" && before.state !== "joining" ? `${words} again` : words;
    return [change(tone, back, after.sinceMs)];
  }
  if (after.state === "live" && before.pid !== null && after.pid !== before.pid) {
    return [change("info", `was started anew as process ${after.pid ?? "unknown"}`)];
  }
  if (after.problem !== null && after.problem !== before.problem) {
    return [change("warning", `reports: ${after.problem}`)];
  }
  return [];
}

/** What is shown of a group whose primary has not reported since the coordinator began. */
function isUnknown([first, ...more]: readonly TabletStatus[]): boolean {
  return more.length === 0 && first!.generation === 1 && first!.cells === 0;
}

function tabletChanges(
  before: TabletStatus,
  after: TabletStatus,
  count: number,
  nowMs: number,
): Change[] {
  const changes: Change[] = [];
  const say = (tone: ChangeTone, words: string) =>
    changes.push({
      atMs: nowMs,
      about: "tablet",
      subject: after.id,
      port: null,
      tone,
      text: count === 1
        ? `Tablet ${after.id} ${words}`
        : `Tablet ${after.id} (with ${count - 1} more of its group) ${words}`,
    });
  if (before.primary !== after.primary) {
    if (after.primary === null) say("danger", `lost its primary, backend/${before.primary}`);
    else {
      const from = before.primary === null ? "" : ` from backend/${before.primary}`;
      say("info", `moved its primary${from} to backend/${after.primary} (epoch ${after.epoch})`);
    }
  }
  const here = holders(before), there = holders(after);
  const left = [...here].filter((id) => !there.has(id));
  const came = [...there].filter((id) => !here.has(id));
  if (left.length > 0) {
    say("warning", `goes on without ${backends(left)}: ${inSync(after)} in sync`);
  }
  const healed = before.state !== "healthy" && after.state === "healthy";
  if (came.length > 0) {
    const words = healed ? "is healthy again, with" : "goes on with";
    say("success", `${words} ${backends(came)}: ${inSync(after)} in sync`);
  } else if (healed) say("success", "is healthy again");
  if (before.state !== after.state) {
    if (after.state === "readonly") say("danger", "takes no writes until another replica is back");
    if (after.state === "unavailable") {
      if (after.primary === null) say("danger", "does not serve: it has no primary");
      else say("warning", `is changing over: backend/${after.primary} is not ready yet`);
    }
    if (after.state === "degraded" && before.state !== "healthy") {
      say("success", "serves reads and writes again");
    }
  }
  return changes;
}

function holders(tablet: TabletStatus): Set<number> {
  return new Set(
    tablet.primary === null ? tablet.secondaries : [tablet.primary, ...tablet.secondaries],
  );
}

function inSync(tablet: TabletStatus): string {
  const { size } = holders(tablet);
  const wished = tablet.members?.length;
  return wished === undefined ? `${size} replicas` : `${size} of ${wished} replicas`;
}

function backends(ids: readonly number[]): string {
  return ids.map((id) => `backend/${id}`).join(" and ");
}
