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
import { Epoch, GroupId, Lsn, Version } from "./ids.ts";
import { type Fields, hasFields, isCount, isKey } from "./plain.ts";

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

/** A cell that moves to another group, as it is: its version too stays the same. */
export const MovedCellHead = z.object({
  row: Key,
  column: z.string().min(1).max(1200),
  version: Version,
  value: ValueHead,
});
export const CellPlace = z.object({ row: z.string().max(1025), column: z.string().max(1200) });

const moveId = z.int().positive();
const range = { startKey: z.string().max(1024), endKey: z.string().max(1024).nullable() };
/** Of the group that a step comes from: what an earlier reign still sends is recognised by it. */
const from = { reign: Epoch, seq: z.int().positive() };

/**
 * What a tablet's move from one group to another does to the log of either: tablet_move.ts. In the
 * group that gives it away: `depart`, `freeze`, `thaw` (it stays after all), `drop`, `purge`; in the
 * one that takes it: `arrive`, `stage`, `seal`, `activate`, `cancel`, and `purge` after that.
 */
export const MoveStepHead = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("depart"), moveId, tablet: TabletRef, to: GroupId, ...range }),
  z.object({ kind: z.literal("freeze"), moveId, ...range }),
  /** `isOver` false: transactions may lock its rows again, and it will be frozen later. */
  z.object({ kind: z.literal("thaw"), moveId, isOver: z.boolean() }),
  z.object({ kind: z.literal("drop"), moveId, ...range }),
  /** Removes so many cells, and in the end the tablet itself, of what is here but not served. */
  z.object({ kind: z.literal("purge"), tabletId: z.int().positive(), cells: z.int().positive() }),
  z.object({ kind: z.literal("arrive"), moveId, reign: Epoch, ...range }),
  z.object({
    kind: z.literal("stage"),
    moveId,
    ...from,
    /** These places hold nothing but `cells` afterwards; `to` is the first that is not meant. */
    clear: z.object({ from: CellPlace, to: CellPlace.nullable() }).nullable(),
    cells: z.array(MovedCellHead).max(4096),
    gone: z.array(CellPlace).max(4096),
    /** Completion records (kv/completions.ts), or null. */
    records: z.unknown(),
  }),
  z.object({
    kind: z.literal("seal"),
    moveId,
    ...from,
    /** What has to be here by now. */
    hash: z.string().max(32),
    cells: z.int().nonnegative(),
    /** Every version that was given so far is below; so the next ones here must be above. */
    position: z.int().nonnegative(),
  }),
  z.object({ kind: z.literal("activate"), moveId }),
  z.object({ kind: z.literal("cancel"), moveId }),
]);
export type MoveStepHead = z.infer<typeof MoveStepHead>;

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
  /**
   * Room is made for new clients: those last heard at `heardThrough` or before it are forgotten, if all
   * that they asked was issued before `issuedBeforeMs`.
   */
  z.object({
    kind: z.literal("forgetClients"),
    timeMs: z.int(),
    heardThrough: Lsn,
    issuedBeforeMs: z.int(),
  }),
  PrepareHead.extend({ kind: z.literal("prepare"), stamp: RequestStamp, timeMs: z.int() }),
  SettleHead.extend({ kind: z.literal("settle"), stamp: RequestStamp, timeMs: z.int() }),
  z.object({ kind: z.literal("move"), timeMs: z.int(), step: MoveStepHead }),
]);
export type CommandHead = z.infer<typeof CommandHead>;

/**
 * Whether `value` is exactly what `CommandHead` would make of it, for the most frequent command: one
 * row, its columns put, deleted or added to. Checked by hand because every write passes through here
 * on every replica; whatever is not recognised is for the schema to judge.
 */
export function isPlainRowOp(value: unknown): value is CommandHead & { kind: "rowOp" } {
  return hasFields(value, 4) && value.kind === "rowOp" && Number.isSafeInteger(value.timeMs) &&
    isRequestStamp(value.stamp) && isRowOpHead(value.op);
}

export function isRequestStamp(value: unknown): value is RequestStamp {
  if (!hasFields(value, 4)) return false;
  const { clientId, seq, firstIncomplete, issuedMs } = value;
  return typeof clientId === "string" && clientId.length >= 8 && clientId.length <= 64 &&
    isCount(seq) && seq > 0 && isCount(firstIncomplete) && firstIncomplete > 0 &&
    Number.isSafeInteger(issuedMs);
}

export function isRowOpHead(value: unknown): value is RowOpHead {
  if (!hasFields(value, 3)) return false;
  const { row, conditions, mutations } = value;
  return isKey(row) && Array.isArray(conditions) && Array.isArray(mutations) &&
    conditions.length <= 256 && mutations.length >= 1 && mutations.length <= 256 &&
    conditions.every(isCondition) && mutations.every(isMutation);
}

function isCondition(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const part = value as Fields;
  switch (part.is) {
    case "absent":
    case "present":
      return hasFields(part, 2) && isKey(part.column);
    case "version":
      return hasFields(part, 3) && isKey(part.column) && isCount(part.version);
    case "value":
      return hasFields(part, 3) && isKey(part.column) && isValueHead(part.value);
    default:
      return false;
  }
}

function isMutation(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const part = value as Fields;
  switch (part.kind) {
    case "put":
      return hasFields(part, 3) && isKey(part.column) && isValueHead(part.value);
    case "delete":
      return hasFields(part, 2) && isKey(part.column);
    case "add":
      return hasFields(part, 3) && isKey(part.column) && Number.isSafeInteger(part.by);
    default:
      return false;
  }
}

/** Of a value that follows; the name of a file is for the schema to check. */
const isValueHead = (value: unknown): boolean =>
  hasFields(value, 2) && isCount(value.size) && isCount(value.crc);
