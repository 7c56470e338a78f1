/** Between the coordinator and everybody else. */
import { z } from "zod";
import { Role } from "./cluster_config.ts";
import { ClusterStatus } from "./cluster_status.ts";
import { Epoch, GroupId, Incarnation, Lsn, NodeId, StoreId } from "./ids.ts";
import { DiskReport } from "./disk_report.ts";
import { MoveProgress, RangeMap } from "./moves.ts";
import { ConfigChange, GroupConfig, Member } from "./replication.ts";
import { method, oneWay } from "./rpc.ts";
import { RouteTable } from "./routes.ts";

/** One tablet of a group as its primary counts it. */
export const TabletReport = z.object({
  id: z.int().positive(),
  /** Rises with each split and merge that changes its range. */
  generation: z.int().positive(),
  startKey: z.string(),
  endKey: z.string().nullable(),
  rows: z.number(),
  cells: z.number(),
  bytes: z.number(),
  /** Bytes of values in files of their own. */
  largeBytes: z.number(),
  readsPerSecond: z.number(),
  writesPerSecond: z.number(),
  /** It is being moved away. */
  departure: z.object({ moveId: z.int().positive(), to: GroupId }).optional(),
});
export type TabletReport = z.infer<typeof TabletReport>;
export type TabletClaim = Pick<
  TabletReport,
  "id" | "generation" | "startKey" | "endKey" | "departure"
>;

/** What a backend says of its replica of one group. */
export const GroupReport = z.object({
  gid: GroupId,
  /** What this replica goes by as a member; absent: as its folder does. */
  store: StoreId.optional(),
  /** It found damage, takes no part any more, and waits until it may be given up and begun anew. */
  suspect: z.boolean().optional(),
  /** Its machine was restarted, and its disk may have lied about syncs: it does not count alone. */
  doubted: z.boolean().optional(),
  /** The last configuration that it adopted; 0 for none. */
  epoch: Epoch,
  role: z.enum(["idle", "learner", "secondary", "primary"]),
  lastEpoch: Epoch,
  lastLsn: Lsn,
  commitLsn: Lsn,
  /** As the primary: reconciled and answering. */
  serving: z.boolean(),
  /** As a secondary: how long ago the primary was heard. */
  silentMs: z.number(),
  /** By start key; from the serving primary only. */
  tablets: z.array(TabletReport).max(1000),
  /** The highest move of a tablet that this replica knows of; absent: there was none. */
  lastMoveId: z.int().nonnegative().optional(),
  /** Of the move that this primary gives a tablet away by. */
  move: MoveProgress.optional(),
});
export type GroupReport = z.infer<typeof GroupReport>;

export const StoreReport = z.object({
  store: StoreId,
  inc: Incarnation,
  /** On its way out: gives its offices away and should not be given new ones. */
  draining: z.boolean(),
  logBytes: z.number(),
  dataBytes: z.number(),
  disk: DiskReport.optional(),
  /** Too full for new writes: what others can do should be theirs. */
  diskFull: z.boolean().optional(),
  groups: z.array(GroupReport).max(1000),
  /** The newest range map that it heard of; absent: none. */
  rangeMapVersion: z.int().nonnegative().optional(),
});
export type StoreReport = z.infer<typeof StoreReport>;

/** Every process to the coordinator, twice a second. */
export const NodeReport = z.object({
  role: Role,
  id: z.int().nonnegative(),
  /** Names this life of the process; the supervisor reports its end under this id. */
  spawnId: z.string().max(64),
  pid: z.int(),
  startedMs: z.number(),
  ready: z.boolean(),
  requestsPerSecond: z.number(),
  cpu: z.number(),
  memoryBytes: z.number(),
  connections: z.number().nullable(),
  problem: z.string().max(300).nullable(),
  /** The map that the sender holds, so that a newer one can be sent back. */
  routesVersion: z.int().nonnegative(),
  store: StoreReport.nullable(),
});
export type NodeReport = z.infer<typeof NodeReport>;

export const ReportReply = z.object({
  routes: RouteTable.nullable(),
  /** When it is newer than the sender's. */
  rangeMap: RangeMap.nullable(),
  /** The sender's boot counter went backwards: its folder is an older copy of itself. */
  wentBack: z.boolean().optional(),
});

export const coordinatorConversation = {
  report: method(NodeReport, ReportReply),
  routes: method(z.object({}), RouteTable),
  /** A primary asks for a change of its group's configuration. */
  propose: method(
    z.object({
      gid: GroupId,
      node: NodeId,
      store: StoreId,
      inc: Incarnation,
      epoch: Epoch,
      changeId: z.string().max(64),
      change: ConfigChange,
    }),
    z.object({ result: z.enum(["done", "refused"]), config: GroupConfig.nullable() }),
  ),
  /** A secondary has not heard its primary for longer than it promised to wait. */
  suspect: method(
    z.object({ gid: GroupId, node: NodeId, epoch: Epoch, silentMs: z.number() }),
    z.object({}),
  ),
  /** A supervisor saw this process end: proof of death. */
  exited: method(z.object({ node: z.string(), spawn: z.string() }), z.object({})),
  /** operator → coordinator: give a tablet to another group. */
  beginMove: method(
    z.object({ from: GroupId, tabletId: z.int().positive(), to: GroupId }),
    z.object({ id: z.int() }),
  ),
  /** How moves stand, for whoever waits for one. */
  rangeMap: method(z.object({}), RangeMap),
  /** The primary that gives a tablet away asks for the move's fate, and is told which it is. */
  decideMove: method(
    z.object({
      id: z.int(),
      decision: z.enum(["commit", "abort"]),
      reason: z.string().max(300),
    }),
    z.object({ rangeMap: RangeMap }),
  ),
  /** Both groups have done what the fate asks for. */
  endMove: method(z.object({ id: z.int() }), z.object({ rangeMap: RangeMap })),
  configOf: method(z.object({ gid: GroupId }), z.object({ config: GroupConfig.nullable() })),
  status: method(z.object({}), ClusterStatus),
  /** operator → coordinator: its records are lost or old; make them anew from what the nodes hold. */
  recoverMeta: method(
    z.object({}),
    z.object({ groups: z.array(z.object({ gid: GroupId, epoch: Epoch, was: Epoch })) }),
  ),
  /** operator → coordinator: let `node` lead `gid` although it may lack writes that were acknowledged. */
  forcePrimary: method(
    z.object({ gid: GroupId, node: NodeId, acceptDataLoss: z.literal(true) }),
    z.object({ config: GroupConfig }),
  ),
};

/** coordinator → backend. */
export const backendConversation = {
  /** A durable configuration, and who should be brought up to date by its primary. */
  config: oneWay(z.object({ config: GroupConfig, learners: z.array(Member).max(16) })),
  /** Where do you stand? Asked before an election. */
  poll: method(z.object({}), z.object({ spawnId: z.string().max(64), report: StoreReport })),
  /** The configurations that its replicas adopted last. */
  configs: method(
    z.object({}),
    z.object({
      configs: z.array(GroupConfig).max(1000),
      /** As it last heard it from the coordinator. */
      rangeMap: RangeMap.nullable(),
    }),
  ),
  rangeMap: oneWay(RangeMap),
  memberDown: oneWay(z.object({ gid: GroupId, node: NodeId, inc: Incarnation })),
  handOver: oneWay(z.object({ gid: GroupId, to: NodeId })),
  /** anybody → backend: read all that you store again, now; answered with how far it is. */
  scrub: method(z.object({ start: z.boolean() }), DiskReport),
  /** secondary → primary: our states differ as of `lsn`; find out whether it is yours. */
  differs: method(
    z.object({ gid: GroupId, lsn: Lsn }),
    z.object({ verdict: z.enum(["damaged", "sound"]) }),
  ),
};
