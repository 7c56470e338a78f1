/** What the coordinator's rules (coordinator.ts) are told, and what they answer with. */
import type { StoreReport } from "../proto/control.ts";
import type { Epoch, GroupId, Incarnation, NodeId, StoreId } from "../proto/ids.ts";
import type { ConfigChange, GroupConfig, Member } from "../proto/replication.ts";

export interface CoordinatorTiming {
  /** A node that has not reported for this long is not counted on. */
  readonly reportTimeoutMs: number;
  /** How long members may take to answer before an election. */
  readonly pollMs: number;
  /** How long an election waits for more members when too few answered to write. */
  readonly coldStartWaitMs: number;
  /** How long a group must have been quiet before its primary is moved to where it is wished. */
  readonly rebalanceAfterMs: number;
}

export const DEFAULT_TIMING: Omit<CoordinatorTiming, "coldStartWaitMs"> = {
  reportTimeoutMs: 2_500,
  pollMs: 300,
  rebalanceAfterMs: 8_000,
};

export type CoordinatorInput =
  | { kind: "tick" }
  /** A backend says who it is and where its replicas stand, unasked or when polled. */
  | { kind: "report"; node: NodeId; spawnId: string | null; report: StoreReport }
  | { kind: "exited"; spawnId: string }
  | { kind: "suspect"; gid: GroupId; node: NodeId; epoch: Epoch }
  | { kind: "propose"; requestId: number; proposal: Proposal }
  /** A person accepts the loss of what `node` lacks (T6). */
  | { kind: "force"; requestId: number; gid: GroupId; node: NodeId }
  /** All nodes told what they adopted last; `configs` are the newest. */
  | { kind: "recover"; configs: readonly GroupConfig[] }
  /** The answer to `swap`: done, or the record is at another epoch, which is then given. */
  | { kind: "swapped"; gid: GroupId; done: boolean; config: GroupConfig | null };

export interface Proposal {
  readonly gid: GroupId;
  readonly node: NodeId;
  readonly store: StoreId;
  readonly inc: Incarnation;
  readonly epoch: Epoch;
  readonly changeId: string;
  readonly change: ConfigChange;
}

export type CoordinatorEffect =
  /** Replace the durable record if it is still at `expected` (0: if there is none). */
  | { kind: "swap"; gid: GroupId; expected: Epoch; config: GroupConfig }
  | { kind: "answer"; requestId: number; result: "done" | "refused"; config: GroupConfig | null }
  | { kind: "sendConfig"; to: NodeId; config: GroupConfig; learners: readonly Member[] }
  | { kind: "poll"; node: NodeId }
  | { kind: "memberDown"; to: NodeId; gid: GroupId; node: NodeId; inc: Incarnation }
  | { kind: "handOver"; to: NodeId; gid: GroupId; successor: NodeId }
  /** The map changed. */
  | { kind: "routesChanged" }
  | { kind: "log"; event: string; gid: GroupId; epoch: Epoch; reason: string };
