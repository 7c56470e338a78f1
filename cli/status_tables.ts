/** The cluster's status as plain tables: what `penncloud admin status` and `admin tablets` print. */
import type { ClusterStatus, NodeStatus, TabletStatus } from "../proto/cluster_status.ts";
import { table } from "../roles/table.ts";

/** Everything: what is wrong first, then nodes, then tablets. */
export function statusText(status: ClusterStatus): string {
  const live = status.nodes.filter((node) => node.state === "live").length;
  const healthy = status.tablets.filter((tablet) => tablet.state === "healthy").length;
  const parts = [
    `${status.name} (${status.mailDomain}): ${live} of ${status.nodes.length} nodes live, ` +
    `${healthy} of ${status.tablets.length} tablets healthy`,
    ...(status.problems.length > 0 ? [status.problems.map((p) => `! ${p}`).join("\n")] : []),
    ...((status.losses ?? []).length > 0
      ? [
        status.losses!.map((it) => `! Data was given up at ${iso(it.atMs)}: ${it.text}`).join("\n"),
      ]
      : []),
    nodesTable(status.nodes, status.generatedMs),
    tabletsTable(status.tablets),
  ];
  return parts.join("\n\n");
}

const iso = (ms: number) => new Date(ms).toISOString();

export function nodesTable(nodes: readonly NodeStatus[], nowMs: number): string {
  const rows = nodes.map((node) => [
    node.name,
    `${node.host}:${node.port}`,
    node.state,
    duration(nowMs - node.sinceMs),
    node.pid === null ? "-" : String(node.pid),
    rate(node.requestsPerSecond),
    `${Math.round(node.cpu * 100)}%`,
    bytes(node.memoryBytes),
    node.dataBytes === null ? "-" : bytes(node.dataBytes),
    node.role === "backend"
      ? `${ids(node.primaryOf)} / ${ids(node.secondaryOf)}`
      : node.connections === null
      ? ""
      : `${node.connections} connections`,
  ]);
  return table(
    ["NODE", "ADDRESS", "STATE", "SINCE", "PID", "REQ/S", "CPU", "MEMORY", "DATA", "LOAD"],
    rows,
    [3, 4, 5, 6, 7, 8],
  );
}

export function tabletsTable(tablets: readonly TabletStatus[]): string {
  const rows = tablets.map((tablet) => [
    tablet.id,
    range(tablet),
    tablet.move === undefined ? tablet.state : `${tablet.state}, ${moveText(tablet.move)}`,
    String(tablet.epoch),
    tablet.primary === null ? "none" : `backend/${tablet.primary}`,
    ids(tablet.secondaries),
    ids(tablet.learners),
    String(tablet.rows),
    bytes(tablet.bytes),
    rate(tablet.readsPerSecond),
    rate(tablet.writesPerSecond),
  ]);
  return table(
    [
      "TABLET",
      "RANGE",
      "STATE",
      "EPOCH",
      "PRIMARY",
      "SECONDARIES",
      "LEARNERS",
      "ROWS",
      "BYTES",
      "READ/S",
      "WRITE/S",
    ],
    rows,
    [3, 7, 8, 9, 10],
  );
}

/** `to group 5: copying 40%` */
function moveText(
  { to, state, phase, bytes, bytesTotal }: NonNullable<TabletStatus["move"]>,
): string {
  const share = Math.min(100, Math.floor(100 * bytes / Math.max(1, bytesTotal)));
  const step = state === "copying" ? phase ?? "beginning" : state;
  return `to group ${to}: ${step}${step === "copying" ? ` ${share}%` : ""}`;
}

/** `["d", "g")`, with nothing in place of an open end. */
function range({ startKey, endKey }: TabletStatus): string {
  const start = startKey === "" ? "" : JSON.stringify(startKey);
  return `[${start}, ${endKey === null ? "" : JSON.stringify(endKey)})`;
}

const ids = (numbers: readonly number[]): string => numbers.length === 0 ? "-" : numbers.join(",");
const rate = (perSecond: number): string =>
  perSecond < 10 ? String(Math.round(perSecond * 10) / 10) : String(Math.round(perSecond));

/** `31 MiB`: two or three digits are enough to compare. */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count, unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** `3d 4h`, `2m 05s`: the two largest units. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number) => String(n).padStart(2, "0");
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${two(seconds % 60)}s`;
  if (seconds < 86_400) {
    return `${Math.floor(seconds / 3600)}h ${two(Math.floor(seconds / 60) % 60)}m`;
  }
  return `${Math.floor(seconds / 86_400)}d ${two(Math.floor(seconds / 3600) % 24)}h`;
}
