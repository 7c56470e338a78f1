/**
 * What the replicas of one group say to each other. Every message is one-way and carries a head;
 * answers are messages of their own. Values travel behind the line as raw bytes.
 */
import { z } from "zod";
import { Epoch, GroupId, Incarnation, Lsn, NodeId, StoreId } from "./ids.ts";
import { type Fields, hasFields, isCount, isFiniteNumber } from "./plain.ts";
import { oneWay } from "./rpc.ts";

export const Member = z.object({ node: NodeId, store: StoreId });
export type Member = z.infer<typeof Member>;

/**
 * Who holds a group's data and who orders its writes. The coordinator keeps one durable record a
 * group and changes it by compare-and-swap on `epoch`, which every change raises by one.
 */
export const GroupConfig = z.object({
  gid: GroupId,
  epoch: Epoch,
  /** The epoch in which the current primary was elected; a new election is always a new reign. */
  reign: Epoch,
  primary: z.object({ node: NodeId, store: StoreId, inc: Incarnation }),
  /** Members whose disk must hold an entry before it is committed; includes the primary. */
  inSync: z.array(Member).min(1).max(16),
  /** Not in sync, but complete, because nothing could be committed since they left. */
  eligible: z.array(Member).max(16),
  minInSync: z.int().min(1),
  /**
   * The last epoch that a person began with `force-primary`, accepting the loss of what its primary
   * lacks. A copy that adopted no epoch since then may hold what was given up, so it begins anew.
   */
  forcedEpoch: Epoch.optional(),
  /** A reign that is certainly over: nobody needs to wait for leases granted to it. */
  deadReign: Epoch.nullable(),
  /** Names the change that made this configuration, so that its author can recognise it. */
  changeId: z.string().max(64),
  reason: z.string().max(200),
});
export type GroupConfig = z.infer<typeof GroupConfig>;

const head = {
  gid: GroupId,
  from: NodeId,
  store: StoreId,
  inc: Incarnation,
  /** The receiver's process life that this is meant for; 0 while the sender does not know it. */
  toInc: Incarnation,
  epoch: Epoch,
  reign: Epoch,
};

/** Where each epoch's entries begin in a log, ascending. */
export const EpochHistory = z.array(z.object({ epoch: Epoch, firstLsn: Lsn })).max(10_000);
export type EpochHistory = z.infer<typeof EpochHistory>;

/**
 * primary → replica: make these entries durable, then answer `appendAck`. They are those behind
 * `prevLsn`, one after the other; the bytes of each follow, and behind them those of its files.
 */
export const Append = z.object({
  kind: z.literal("append"),
  ...head,
  /** Raised each time the primary starts over with this replica; refusals echo it. */
  round: z.int().nonnegative(),
  /** Present until the receiver is known to have adopted this epoch. */
  config: GroupConfig.optional(),
  /** The receiver must hold this entry right before the first of those that follow. */
  prevEpoch: Epoch,
  prevLsn: Lsn,
  /** Of each entry, the bytes. */
  sizes: z.array(z.int().nonnegative()).max(1024),
  /** The entries' epochs, ascending: so many are of the first, so many of the next. */
  epochs: z.array(z.object({ epoch: Epoch, count: z.int().positive() })).max(1024),
  /** Files that entries mention, in the order of the entries, `at` counted from 0. */
  files: z.array(z.object({
    at: z.int().nonnegative(),
    blob: z.string().max(128),
    size: z.int().nonnegative(),
    /** Overwritten since: no bytes follow. */
    gone: z.boolean().optional(),
  })).optional(),
  commitLsn: Lsn,
}).refine(
  ({ sizes, epochs }) => epochs.reduce((sum, { count }) => sum + count, 0) === sizes.length,
  "there are as many epochs as entries",
);
export type Append = z.infer<typeof Append>;

/** replica → primary: everything up to `matchLsn` is yours, and on my disk. */
export const AppendAck = z.object({
  kind: z.literal("appendAck"),
  ...head,
  matchLsn: Lsn,
  /**
   * Of an append of this round only the beginning was taken, for want of memory. Nothing more has to
   * be sent until an `appendNack` asks for the rest, or has been waited for in vain.
   */
  full: z.int().nonnegative().optional(),
});
export type AppendAck = z.infer<typeof AppendAck>;

/**
 * replica → primary: find where our logs part, and go on from there. I do not hold `prevLsn` of
 * `prevEpoch`, or have memory again for what I did not take.
 */
export const AppendNack = z.object({
  kind: z.literal("appendNack"),
  ...head,
  /** That of the append that was refused, or of the last one. */
  round: z.int().nonnegative(),
  lastLsn: Lsn,
  /** Entries up to here are in a checkpoint; only what is behind it can be compared. */
  baseLsn: Lsn,
  history: EpochHistory,
});
export type AppendNack = z.infer<typeof AppendNack>;

/** anybody → anybody: `epoch` is newer than yours, or `toInc` was an earlier life of mine. */
export const Behind = z.object({
  kind: z.literal("behind"),
  ...head,
  /** That of the append that was thrown away; absent for other messages. */
  round: z.int().nonnegative().optional(),
});
export type Behind = z.infer<typeof Behind>;

/** primary → replica: promise me not to act as primary for a while. */
export const Heartbeat = z.object({
  kind: z.literal("heartbeat"),
  ...head,
  /** Present until the receiver is known to have adopted this epoch. */
  config: GroupConfig.optional(),
  /** The primary's monotonic clock at sending, echoed by the answer. */
  sentMs: z.number(),
  /** Counts the primary's heartbeats; echoed by the answer. */
  beat: z.int().nonnegative(),
  commitLsn: Lsn,
  /**
   * The receiver's own clock as of its last answer: `commitLsn` covers whatever was acknowledged
   * before. Null when the sender does not know, or cannot tell whether it is still the primary.
   */
  echoMs: z.number().nullable(),
  /** The hash of the applied state as of an earlier entry, to be compared. */
  check: z.object({ lsn: Lsn, hash: z.string() }).nullable(),
});
export type Heartbeat = z.infer<typeof Heartbeat>;

/** replica → primary: promised. `sentMs` and `beat` are the heartbeat's. */
export const HeartbeatAck = z.object({
  kind: z.literal("heartbeatAck"),
  ...head,
  sentMs: z.number(),
  beat: z.int().nonnegative(),
  /** The sender's monotonic clock. */
  stampMs: z.number(),
  /** A write or sync of the sender's log has been under way for longer than any should take. */
  hanging: z.boolean().optional(),
});
export type HeartbeatAck = z.infer<typeof HeartbeatAck>;

/** primary → learner: my log no longer reaches back to yours; fetch a checkpoint from me. */
export const SnapshotOffer = z.object({
  kind: z.literal("snapshotOffer"),
  ...head,
  round: z.int().nonnegative(),
});
export type SnapshotOffer = z.infer<typeof SnapshotOffer>;

export const ReplicaMessage = z.discriminatedUnion("kind", [
  Append,
  AppendAck,
  AppendNack,
  Behind,
  Heartbeat,
  HeartbeatAck,
  SnapshotOffer,
]);
export type ReplicaMessage = z.infer<typeof ReplicaMessage>;

/** What a primary asks the coordinator to change. */
export const ConfigChange = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("remove"), member: Member }),
  z.object({ kind: z.literal("add"), member: Member }),
  /** "I shall not read or commit any more": makes `to` primary, which need not wait for leases. */
  z.object({ kind: z.literal("relinquish"), to: Member }),
]);
export type ConfigChange = z.infer<typeof ConfigChange>;

/**
 * Whether `body` is exactly what `ReplicaMessage` would make of it, for heartbeats and what answers them and
 * appends: the only messages of a group in good order but its entries. Checked by hand because they keep
 * coming on every node; whatever is not recognised is for the schema to judge.
 */
export function isPlainReplicaMessage(body: unknown): boolean {
  if (typeof body !== "object" || body === null) return false;
  const message = body as Fields;
  switch (message.kind) {
    case "heartbeat":
      return hasFields(message, HEAD_FIELDS + 6) && isHead(message) &&
        isFiniteNumber(message.sentMs) && isCount(message.beat) && isCount(message.commitLsn) &&
        (message.echoMs === null || isFiniteNumber(message.echoMs)) && isCheck(message.check);
    case "heartbeatAck":
      return hasFields(message, HEAD_FIELDS + 4) && isHead(message) &&
        isFiniteNumber(message.sentMs) && isCount(message.beat) && isFiniteNumber(message.stampMs);
    case "appendAck":
      return hasFields(message, HEAD_FIELDS + 2) && isHead(message) && isCount(message.matchLsn);
    default:
      return false;
  }
}

const HEAD_FIELDS = Object.keys(head).length;

function isHead({ gid, from, store, inc, toInc, epoch, reign }: Fields): boolean {
  return isCount(gid) && gid > 0 && isCount(from) && typeof store === "string" &&
    store.length >= 1 && store.length <= 64 && isCount(inc) && isCount(toInc) && isCount(epoch) &&
    isCount(reign);
}

const isCheck = (value: unknown): boolean =>
  value === null ||
  hasFields(value, 2) && isCount(value.lsn) && typeof value.hash === "string";

/** Between the replicas; on the control connection, but for appends and their acks. */
export const replicaConversation = {
  replica: oneWay(ReplicaMessage, { request: isPlainReplicaMessage }),
};
