/** client → backend: operations on rows. Values follow the line as raw bytes, in order of mention. */
import { z } from "zod";
import {
  isRequestStamp,
  isRowOpHead,
  PrepareHead,
  RequestStamp,
  RowOpHead,
  RowPartHeads,
  SettleHead,
  TxnRef,
  TxnState,
} from "./command.ts";
import { Epoch, GroupId, Lsn, NodeId, Version } from "./ids.ts";
import { type Fields, hasFields, isCount, isKey } from "./plain.ts";
import { method } from "./rpc.ts";
import { RouteTable } from "./routes.ts";

const Key = z.string().min(1).max(1024);
/** Where the caller believes the row to be; the node checks. */
const target = {
  gid: GroupId,
  /** How often this request was passed on by a node that is not the primary. */
  hops: z.int().nonnegative().max(3),
};

export const ApplyRequest = z.object({ ...target, stamp: RequestStamp, op: RowOpHead });
/** Whether it is exactly what `ApplyRequest` would make of it: see `isPlainRowOp`. */
export function isPlainApply(body: unknown): boolean {
  return hasFields(body, 4) && isTarget(body) && isRequestStamp(body.stamp) && isRowOpHead(body.op);
}

const isTarget = ({ gid, hops }: Fields): boolean =>
  isCount(gid) && gid > 0 && isCount(hops) && hops <= 3;

export const ApplyReply = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("applied"), version: Version, numbers: z.array(z.number()) }),
  z.object({
    kind: z.literal("refused"),
    /** Which operation of several; 0 for one. */
    opIndex: z.int().nonnegative(),
    conditionIndex: z.int().nonnegative(),
    version: Version,
  }),
  z.object({
    kind: z.literal("failed"),
    code: z.enum(["row_too_large", "invalid_request", "busy"]),
    message: z.string(),
  }),
  /** Nothing happened: settle the lock (kv/transaction.ts), then send the same request again. */
  z.object({ kind: z.literal("locked"), row: Key, txn: TxnRef }),
  /** To `settle`; `version` 0 when there was nothing to do. */
  z.object({ kind: z.literal("settled"), state: TxnState, version: Version }),
]);

/** Whether it is exactly what `ApplyReply` would make of it, for the most frequent answer. */
export function isPlainApplied(body: unknown): boolean {
  return hasFields(body, 3) && body.kind === "applied" && isCount(body.version) &&
    Array.isArray(body.numbers) && body.numbers.every(Number.isFinite);
}

/** Distinct rows of one group. `numbers` of the reply are those of all operations, in order. */
export const MultiRowRequest = z.object({ ...target, stamp: RequestStamp, ops: RowPartHeads });

export const PrepareRequest = z.object({ ...target, stamp: RequestStamp, ...PrepareHead.shape });
/** `row` is any row of the group that is asked. */
export const SettleRequest = z.object({
  ...target,
  stamp: RequestStamp,
  row: Key,
  ...SettleHead.shape,
});

/**
 * Locks on what was read, whose transactions another group decides: unless they are pending there,
 * the rows have to be settled and read again.
 */
const Locks = z.array(z.object({ row: Key, ...TxnRef.shape })).optional();

const CellHead = z.object({
  column: z.string(),
  version: Version,
  size: z.int().nonnegative(),
  /** Whether the value's bytes follow. */
  inline: z.boolean(),
});
const PageOptions = {
  limit: z.int().min(1).max(1000).optional(),
  keysOnly: z.boolean().optional(),
};

/** How old a state may be that a read is answered from, by any replica. Absent: the newest. */
export const ReadBound = z.object({
  /** Whatever was acknowledged longer ago must be in it. Milliseconds. */
  maxStaleMs: z.number().nonnegative().optional(),
  /** A log position that it must have reached. */
  minLsn: Lsn.optional(),
});
export type ReadBound = z.infer<typeof ReadBound>;
const read = { bound: ReadBound.optional() };
/** How far the state that answered had come: its position, which is what versions are. */
const answered = { lsn: Lsn };

export const GetRequest = z.object({ ...target, ...read, row: Key, column: Key });
export const GetReply = z.object({
  ...answered,
  cell: z.object({ version: Version, size: z.int(), crc: z.int() }).nullable(),
  locks: Locks,
});

/** Whether it is exactly what `GetRequest` would make of it, for one that asks for the newest state. */
export function isPlainGet(body: unknown): boolean {
  return hasFields(body, 4) && isTarget(body) && isKey(body.row) && isKey(body.column);
}

/** Whether it is exactly what `GetReply` would make of it, where no locks are in the way. */
export function isPlainGot(body: unknown): boolean {
  return hasFields(body, 2) && isCount(body.lsn) && (body.cell === null || isCellFound(body.cell));
}

const isCellFound = (cell: unknown): boolean =>
  hasFields(cell, 3) && isCount(cell.version) && Number.isSafeInteger(cell.size) &&
  Number.isSafeInteger(cell.crc);

export const GetRowRequest = z.object({
  ...target,
  ...read,
  row: Key,
  ...PageOptions,
  prefix: z.string().max(1024).optional(),
  start: z.string().max(1024).optional(),
  after: z.string().max(1024).optional(),
  reverse: z.boolean().optional(),
});
export const GetRowReply = z.object({
  ...answered,
  cells: z.array(CellHead),
  next: z.string().nullable(),
  locks: Locks,
});

export const ScanRequest = z.object({
  ...target,
  ...read,
  ...PageOptions,
  startRow: z.string().max(1024).optional(),
  endRow: z.string().max(1024).nullable().optional(),
  prefix: z.string().max(1024).optional(),
  after: z.object({ row: Key, column: z.string().max(1024) }).optional(),
  /** Of one group as of one position: "new", or the one that an earlier answer named. */
  snapshot: z.union([z.literal("new"), z.object({ gid: GroupId, lsn: Lsn })]).optional(),
});
export const ScanReply = z.object({
  ...answered,
  cells: z.array(CellHead.extend({ row: z.string() })),
  /** With a snapshot the page may be empty and yet not the last. */
  next: z.object({ row: z.string(), column: z.string() }).nullable(),
  snapshot: z.object({ gid: GroupId, lsn: Lsn }).optional(),
  /** Where the rows end that this group could be asked for in one go; null: it has all to the end. */
  end: z.string().nullable(),
  locks: Locks,
});

/** What the group of a transaction's anchor, `row`, knows of it. */
export const TxnStateRequest = z.object({ ...target, row: Key, id: TxnRef.shape.id });
export const TxnStateReply = z.object({
  state: TxnState,
  /** For how long a pending one is not to be aborted out of impatience. */
  remainingMs: z.number().nonnegative(),
});

/** Details of an error with which a replica refuses a request. */
export const RefusalDetails = z.object({
  /** The node to ask, when this one knows. */
  hint: NodeId.nullable().optional(),
  /** The command may still be committed: only the same request may be tried again. */
  maybeApplied: z.boolean().optional(),
  /** Only the stamp's time was wrong, and this is the group's: log time, which wall clocks drive. */
  groupTimeMs: z.number().optional(),
});
export type RefusalDetails = z.infer<typeof RefusalDetails>;

/** Raw rows of one node, primary or not, for the operator; each value is cut to `valueBytes`. */
export const RowsRequest = z.object({
  start: z.string().max(1024),
  after: z.object({ row: z.string(), column: z.string() }).optional(),
  limit: z.int().min(1).max(500),
  valueBytes: z.int().min(0).max(4096),
});
export const RowsReply = z.object({
  cells: z.array(z.object({
    gid: GroupId,
    row: z.string(),
    column: z.string(),
    version: Version,
    size: z.int(),
    /** The value lies in a file of its own. */
    large: z.boolean(),
    /** The first bytes of the value, base64. */
    head: z.string(),
  })),
  next: z.object({ row: z.string(), column: z.string() }).nullable(),
});

export const DigestReply = z.object({
  groups: z.array(z.object({
    gid: GroupId,
    epoch: Epoch,
    appliedLsn: Lsn,
    hash: z.string(),
    /** Hashes as of earlier entries, ascending: what replicas at different places can compare. */
    checks: z.array(z.object({ lsn: Lsn, hash: z.string() })).max(1000),
    rows: z.number(),
    cells: z.number(),
  })),
});

/** Splits the tablet that holds `key` there, or merges the one that begins at `key` into its left. */
export const ReshapeRequest = z.object({
  gid: GroupId,
  change: z.object({ kind: z.enum(["split", "merge"]), key: Key }),
});
export const ReshapeReply = z.object({
  /** The group's tablets afterwards. */
  tablets: z.array(z.object({
    id: z.int().positive(),
    startKey: z.string(),
    endKey: z.string().nullable(),
    rows: z.number(),
    bytes: z.number(),
  })),
});

export const kvConversation = {
  /** Answered once the operation is on the disk of every member in sync. */
  apply: method(ApplyRequest, ApplyReply, { request: isPlainApply, reply: isPlainApplied }),
  /** Several rows at once, all or none; `wrong_tablet` unless this group has all of them. */
  multiRow: method(MultiRowRequest, ApplyReply),
  /** Locks rows of one group for a transaction, all or none. */
  prepare: method(PrepareRequest, ApplyReply),
  /** Takes a transaction a step further, here. */
  settle: method(SettleRequest, ApplyReply),
  txnState: method(TxnStateRequest, TxnStateReply),
  get: method(GetRequest, GetReply, { request: isPlainGet, reply: isPlainGot }),
  getRow: method(GetRowRequest, GetRowReply),
  scan: method(ScanRequest, ScanReply),
  /** The map as this node last heard it, so that clients need no coordinator. */
  routes: method(z.object({}), RouteTable),
  rows: method(RowsRequest, RowsReply),
  /** One value in full, from this node's own state, for the operator. */
  rowValue: method(z.object({ row: Key, column: Key }), GetReply),
  digest: method(z.object({}), DigestReply),
  /** Answered by the serving primary once the change is committed. */
  reshape: method(ReshapeRequest, ReshapeReply),
};
