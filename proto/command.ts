/**
 * What a log entry says: the command, not its effect. Every replica evaluates it at the same place
 * in the log. In the log and on the wire a command is
 *
 *     length   u32 LE   bytes of the JSON
 *     json     UTF-8    this schema
 *     bytes             the inline values, one behind the other, in the order of their mention
 *
 * A value larger than INLINE_BYTES_MAX is only named (`blob`); its bytes lie in a file of their own.
 */
import { z } from "zod";
import { Epoch, Version } from "./ids.ts";

const Key = z.string().min(1).max(1024);

/** Exactly as the bytes that follow, or a blob's name. */
export const ValueHead = z.object({
  size: z.int().nonnegative(),
  crc: z.int().nonnegative(),
  blob: z.string().max(128).optional(),
});
export type ValueHead = z.infer<typeof ValueHead>;

export const ConditionHead = z.discriminatedUnion("is", [
  z.object({ is: z.literal("absent"), column: Key }),
  z.object({ is: z.literal("present"), column: Key }),
  z.object({ is: z.literal("version"), column: Key, version: Version }),
  z.object({ is: z.literal("value"), column: Key, value: ValueHead }),
]);

export const MutationHead = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("put"), column: Key, value: ValueHead }),
  z.object({ kind: z.literal("delete"), column: Key }),
  z.object({ kind: z.literal("deletePrefix"), prefix: z.string().max(1024) }),
  z.object({ kind: z.literal("add"), column: Key, by: z.int() }),
  z.object({
    kind: z.literal("append"),
    counter: Key,
    prefix: z.string().max(1024),
    value: ValueHead,
  }),
]);

/** Who asks, and which of its requests this is: together they make a retry recognisable. */
export const RequestStamp = z.object({
  clientId: z.string().min(8).max(64),
  /** Counts the client's requests from 1. */
  seq: z.int().positive(),
  /** The lowest seq whose answer the client still waits for. */
  firstIncomplete: z.int().positive(),
  /** The cluster's wall time at the first attempt, milliseconds since 1970. */
  issuedMs: z.int(),
});
export type RequestStamp = z.infer<typeof RequestStamp>;

export const RowOpHead = z.object({
  row: Key,
  conditions: z.array(ConditionHead).max(256),
  mutations: z.array(MutationHead).min(1).max(256),
});
export type RowOpHead = z.infer<typeof RowOpHead>;

/** A row's part in an operation on several rows. Without mutations it only has to hold. */
export const RowPartHead = RowOpHead.extend({ mutations: z.array(MutationHead).max(256) });
export const RowPartHeads = z.array(RowPartHead).min(1).max(64);
/** A tablet in the shape that an order was given for. */
export const TabletRef = z.object({ id: z.int().positive(), generation: z.int().positive() });
export type TabletRef = z.infer<typeof TabletRef>;

/** A transaction over several groups, and the row whose fate is the whole transaction's. */
export const TxnRef = z.object({ id: z.string().min(8).max(64), anchor: Key });
export const TxnState = z.enum(["pending", "committed", "gone"]);

/** Rows of one group are locked for a transaction, all or none, with what it will do to them. */
export const PrepareHead = z.object({
  txn: TxnRef,
  ops: RowPartHeads,
  /** The transaction's rows in other groups; only where the anchor is. */
  others: z.array(Key).max(63),
  /** For how long nobody may abort it out of impatience, from the group's time now on. */
  lifeMs: z.int().min(1).max(60_000),
});

/**
 * What happens to a transaction next. On the anchor: `extend` its life, `commit`, `abort`, `expire`
 * (abort if its life is over), `forget` (every group has applied it). On the other groups: roll all
 * of its rows `forward` or `back`.
 */
export const SettleHead = z.object({
  txn: TxnRef,
  step: z.enum(["extend", "commit", "abort", "expire", "forget", "forward", "back"]),
  lifeMs: z.int().min(1).max(60_000),
});
export type TxnStep = z.infer<typeof SettleHead>["step"];

export const CommandHead = z.discriminatedUnion("kind", [
  /** A new primary's first entry: everything before it is decided once this commits. */
  z.object({ kind: z.literal("epochStart"), reign: Epoch, timeMs: z.int() }),
  /** `timeMs` never goes back along a log: it is the group's own clock. */
  z.object({ kind: z.literal("rowOp"), stamp: RequestStamp, timeMs: z.int(), op: RowOpHead }),
  /** All rows or none: the conditions of all of them first, then the mutations of all of them. */
  z.object({
    kind: z.literal("multiRow"),
    stamp: RequestStamp,
    timeMs: z.int(),
    ops: RowPartHeads,
  }),
  /** The tablet becomes two: `leftId` keeps what is before `key`, `rightId` gets the rest. */
  z.object({
    kind: z.literal("split"),
    timeMs: z.int(),
    tablet: TabletRef,
    key: Key,
    leftId: z.int().positive(),
    rightId: z.int().positive(),
    byHand: z.boolean(),
  }),
  /** Two neighbours become one, under the id of the left. */
  z.object({ kind: z.literal("merge"), timeMs: z.int(), left: TabletRef, right: TabletRef }),
  PrepareHead.extend({ kind: z.literal("prepare"), stamp: RequestStamp, timeMs: z.int() }),
  SettleHead.extend({ kind: z.literal("settle"), stamp: RequestStamp, timeMs: z.int() }),
]);
export type CommandHead = z.infer<typeof CommandHead>;
