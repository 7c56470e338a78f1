/** What a replica is told, what it answers, and what it is made of: the words of replica.ts. */
import type { RequestStamp } from "../proto/command.ts";
import type { Epoch, GroupId, Incarnation, Lsn, NodeId, StoreId } from "../proto/ids.ts";
import type {
  ConfigChange,
  EpochHistory,
  GroupConfig,
  Member,
  ReplicaMessage,
} from "../proto/replication.ts";
import type { LogRequest } from "./command.ts";
import type { KvErrorCode } from "./errors.ts";
import type { GroupState } from "./group_state.ts";
import type { RowSpan } from "./read_gate.ts";
import type { LogEntry, ReplicaLog } from "./replica_log.ts";
import type { RequestOutcome } from "./outcome.ts";
import type { MoveOutcome, MoveStep } from "./tablet_move.ts";
import type { TabletChange, TabletLimits } from "./tablet_policy.ts";

export interface ReplicaTiming {
  readonly heartbeatMs: number;
  /** How long a promise lasts for the primary, counted from when it asked. */
  readonly leaseMs: number;
  /** How long it binds the one who gave it, counted from when he was asked. Longer than a lease. */
  readonly graceMs: number;
  /** A member that is silent for this long is taken out. */
  readonly ackTimeoutMs: number;
  /** `confirm`: reads never rely on leases, so on no clock; each waits for a round of heartbeats. */
  readonly readMode?: "lease" | "confirm";
}

/** How often the primary of a group that nobody uses lets itself be heard: its leases last all the same. */
export function idleHeartbeatMs(
  { heartbeatMs, leaseMs }: Pick<ReplicaTiming, "heartbeatMs" | "leaseMs">,
): number {
  return Math.max(heartbeatMs, Math.min(heartbeatMs * 2.5, leaseMs * 5 / 12));
}

/** After this silence something may be wrong with somebody whose group nobody uses. */
export const oddSilenceMs = (timing: ReplicaTiming): number => 1.5 * idleHeartbeatMs(timing);

export interface Self {
  readonly node: NodeId;
  readonly store: StoreId;
  readonly inc: Incarnation;
}

/** Something that happened to this replica. */
export type Input =
  | { kind: "tick" }
  | {
    kind: "request";
    requestId: number;
    stamp: RequestStamp;
    request: LogRequest;
    wallMs: number;
  }
  | { kind: "read"; readId: number; span: RowSpan }
  /** What the coordinator's record says, looked up for `checkRecord`; null when nobody could tell. */
  | { kind: "recordChecked"; checkId: number; config: GroupConfig | null }
  /** Our clock stood still or jumped: what leases it measured is not to be trusted. */
  | { kind: "clockDoubted" }
  /** Split or merge tablets because a person asks for it. */
  | { kind: "reshape"; requestId: number; change: TabletChange }
  /** Log a step of a tablet's move; `timeMs`: as late as it is where the tablet comes from. */
  | { kind: "move"; requestId: number; step: MoveStep; timeMs: number }
  /** Send and write what has gathered; the shell calls it once a turn. */
  | { kind: "flush" }
  | { kind: "written"; writeId: number }
  /** `entries`: those of an append, or of them the first, as many as there is memory for. */
  | { kind: "message"; message: ReplicaMessage; entries: readonly LogEntry[] }
  /** There is memory again for entries that were left out. */
  | { kind: "room" }
  /** `learners` null: the sender does not know them. */
  | { kind: "config"; config: GroupConfig; learners: readonly Member[] | null }
  | { kind: "proposed"; changeId: string; result: "done" | "refused"; config: GroupConfig | null }
  /** A member's process is known to have ended. */
  | { kind: "memberDown"; node: NodeId; inc: Incarnation }
  | { kind: "logRead"; node: NodeId; fromLsn: Lsn; entries: readonly LogEntry[] | null }
  | { kind: "snapshotInstalled"; state: GroupState; history: EpochHistory }
  | { kind: "snapshotFailed" }
  /** A learner that we offered a checkpoint is still fetching it. */
  | { kind: "snapshotSent"; node: NodeId }
  /** Hand the office over to a member, the named one if it is in sync. */
  | { kind: "handOver"; to: NodeId | null }
  /** Our disk hangs: whoever is in sync and there should lead instead, at once. */
  | { kind: "stepAside" }
  /** The disk is (no longer) too full for new entries. */
  | { kind: "disk"; full: boolean };

/** Something for the shell to do. No effect relies on another in the same list. */
export type Effect =
  /** Answered by `written` once it is on disk; writes are done in the order of their ids. */
  | { kind: "write"; writeId: number; records: readonly LogRecord[] }
  | { kind: "send"; to: NodeId; message: ReplicaMessage; entries: readonly LogEntry[] }
  | { kind: "reply"; requestId: number; outcome: RequestOutcome }
  /** The tablets are as they were asked to be. */
  | { kind: "reshaped"; requestId: number }
  /** A step of a move was applied, with or without effect. */
  | { kind: "moved"; requestId: number; outcome: MoveOutcome }
  /**
   * `maybeApplied`: the command may still be committed, so only the same request may be retried.
   * `groupTimeMs`: nothing but the stamp's time was wrong; this is the group's.
   */
  | {
    kind: "refuse";
    requestId: number;
    code: RefusalCode;
    message: string;
    maybeApplied: boolean;
    groupTimeMs?: number;
  }
  /** The applied state may be read in this very turn. */
  | { kind: "readable"; readId: number }
  | { kind: "unreadable"; readId: number; code: RefusalCode; message: string }
  | { kind: "propose"; epoch: Epoch; changeId: string; change: ConfigChange }
  | { kind: "suspect"; epoch: Epoch; silentMs: number }
  /** Look up the group's durable record, now, and say so by `recordChecked`. */
  | { kind: "checkRecord"; checkId: number }
  /** Somebody is at a newer epoch: fetch the configuration from the coordinator. */
  | { kind: "askConfig" }
  | { kind: "readLog"; node: NodeId; fromLsn: Lsn }
  | { kind: "fetchSnapshot"; from: NodeId }
  | { kind: "diverged"; entries: readonly LogEntry[]; reason: string }
  | { kind: "hashMismatch"; lsn: Lsn; mine: string; theirs: string }
  | { kind: "roleChanged"; role: ReplicaRole; epoch: Epoch };

export type LogRecord =
  | { type: "entry"; entry: LogEntry }
  | { type: "truncate"; epoch: Epoch; lsn: Lsn }
  | { type: "config"; epoch: Epoch; config: GroupConfig }
  | { type: "commit"; lsn: Lsn };

export type RefusalCode = KvErrorCode;
export type ReplicaRole = "idle" | "learner" | "secondary" | "primary";

export interface ReplicaOptions {
  readonly gid: GroupId;
  readonly self: Self;
  readonly timing: ReplicaTiming;
  readonly state: GroupState;
  readonly log: ReplicaLog;
  /** The last configuration that this store adopted, or null for a new one. */
  readonly config: GroupConfig | null;
  /** A lower bound of what is committed. */
  readonly commitLsn: Lsn;
  readonly nowMs: number;
  readonly makeId: () => string;
  /** When to split and merge tablets; absent: only when asked. */
  readonly tablets?: TabletLimits;
  readonly memory?: ReplicaMemory;
}

export interface ReplicaMemory {
  /** Committed entries kept for replicas that are a little behind. */
  readonly recentLogBytes: number;
  /** Of one append on the wire, unless a single entry is larger. */
  readonly appendBytes: number;
  /** Completion records above which clients that have none are told to wait. */
  readonly completionBytes: number;
  /** A member whose disk is so much of the log behind all others' for long is taken out. */
  readonly lagBytes: number;
  /** Locks above which transactions are told to wait. */
  readonly lockBytes: number;
}
