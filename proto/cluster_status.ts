/**
 * What the operator sees: `penncloud admin status --json`, `GET /api/v1/admin/cluster` and the
 * console all show this one document, which the coordinator assembles from the nodes' reports.
 */
import { z } from "zod";
import { Role } from "./cluster_config.ts";
import { DiskReport } from "./disk_report.ts";

/**
 * live: reports arrive. suspect: none for a second. down: none for five, or its supervisor saw it
 * end. stopped: ended on purpose. draining: takes no new work. joining: registered, not serving yet.
 */
export const NodeState = z.enum(["joining", "live", "suspect", "draining", "down", "stopped"]);
export type NodeState = z.infer<typeof NodeState>;

export const NodeStatus = z.object({
  /** `backend/4` */
  name: z.string(),
  role: Role,
  id: z.int(),
  host: z.string(),
  port: z.int(),
  zone: z.string(),
  state: NodeState,
  /** When it came into this state, in milliseconds since 1970. */
  sinceMs: z.number(),
  pid: z.int().nullable(),
  startedMs: z.number().nullable(),
  /** Requests it answered in the last second. */
  requestsPerSecond: z.number(),
  /** Share of one core in the last seconds, 1 = a whole core. */
  cpu: z.number(),
  memoryBytes: z.number(),
  /** Backends: bytes of log and of checkpoints and large values. */
  logBytes: z.number().nullable(),
  dataBytes: z.number().nullable(),
  /** Backends: how their disks fare. */
  disk: DiskReport.nullable().optional(),
  /** Frontends: open client connections. */
  connections: z.number().nullable(),
  /** Backends: groups that it leads, and those that it follows. */
  primaryOf: z.array(z.int()),
  secondaryOf: z.array(z.int()),
  /** One sentence when something is wrong. */
  problem: z.string().nullable(),
});
export type NodeStatus = z.infer<typeof NodeStatus>;

/**
 * healthy: all replicas in sync. degraded: serves, with fewer replicas than wished. readonly: fewer
 * than the minimum in sync, so writes are refused. unavailable: no primary.
 */
export const TabletState = z.enum(["healthy", "degraded", "readonly", "unavailable"]);

export const TabletStatus = z.object({
  /** `3.1`: group 3's first tablet. A split keeps the id of the left half, a merge the left id. */
  id: z.string(),
  /** Rises with each split and merge that changes its range. */
  generation: z.int(),
  groupId: z.int(),
  startKey: z.string(),
  endKey: z.string().nullable(),
  epoch: z.int(),
  state: TabletState,
  /** Backend ids; null while there is none. */
  primary: z.int().nullable(),
  /** In sync, without the primary. */
  secondaries: z.array(z.int()),
  /** Catching up. */
  learners: z.array(z.int()),
  /** Backends that should hold it. */
  members: z.array(z.int()).optional(),
  rows: z.number(),
  cells: z.number(),
  bytes: z.number(),
  /** Bytes of values in files of their own, which `bytes` leaves out. */
  largeBytes: z.number(),
  readsPerSecond: z.number(),
  writesPerSecond: z.number(),
  /** While it is on its way to another group. */
  move: z.object({
    id: z.int(),
    to: z.int(),
    state: z.enum(["copying", "committed", "aborted"]),
    /** Absent: its primary has not said yet. */
    phase: z.string().optional(),
    bytes: z.number(),
    bytesTotal: z.number(),
  }).optional(),
});
export type TabletStatus = z.infer<typeof TabletStatus>;

export const ClusterStatus = z.object({
  name: z.string(),
  mailDomain: z.string(),
  generatedMs: z.number(),
  /** The coordinator is away: this is what it said last, at `generatedMs`. */
  stale: z.boolean().optional(),
  /** Sentences, worst first; empty when everything is fine. */
  problems: z.array(z.string()),
  /** Forced elections, oldest first: each gave up what its primary lacked. */
  losses: z.array(
    z.object({ groupId: z.int(), epoch: z.int(), atMs: z.number(), text: z.string() }),
  )
    .optional(),
  nodes: z.array(NodeStatus),
  tablets: z.array(TabletStatus),
});
export type ClusterStatus = z.infer<typeof ClusterStatus>;
