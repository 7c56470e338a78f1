/**
 * What clients may ask of a backend: proto/kv_wire.ts, answered from the groups on this node. A
 * secondary passes a request on to the primary, with the same stamp, so that any node can be asked.
 */
import { crc32 } from "node:zlib";
import { isBlobRef, type StoredCell } from "../kv/cell_store.ts";
import { attachAllValues, blobsOf, type LogRequest } from "../kv/command.ts";
import { CorruptionError, KvError } from "../kv/errors.ts";
import { type Env, freshId } from "../kv/env.ts";
import { inRange } from "../kv/key_order.ts";
import { INLINE_BYTES_MAX, OPERATION_BYTES_MAX, VALUE_BYTES_MAX } from "../kv/kv.ts";
import { checkRows } from "../kv/limits.ts";
import { type RowSpan, spanOfRow } from "../kv/read_gate.ts";
import { readRowPage, readScanPage } from "../kv/pages.ts";
import { isInternal } from "../kv/internal_columns.ts";
import type { RequestOutcome } from "../kv/outcome.ts";
import type { LogCondition, LogMutation, LogRowOp, LogValue } from "../kv/row_op.ts";
import type { GroupPlan } from "../proto/cluster_config.ts";
import { type GroupId, groupId, type Lsn, lsn as toLsn, type NodeId } from "../proto/ids.ts";
import type { RequestStamp, RowOpHead } from "../proto/command.ts";
import type { z } from "zod";
import { type GetReply, kvConversation } from "../proto/kv_wire.ts";
import type { RouteTable } from "../proto/routes.ts";
import type { GroupShell } from "./backend_group.ts";
import { refusal } from "./backend_refusal.ts";
import type { BlobIntake, LentValue } from "./blob_intake.ts";
import { payloadPool } from "./net/payload_pool.ts";
import type { Handlers } from "./net/rpc_service.ts";
import type { PeerLinks } from "./peers.ts";

export interface BackendServiceOptions {
  readonly groups: ReadonlyMap<GroupId, GroupShell>;
  /** A replica that is here but takes no part, because it is damaged. */
  readonly isSuspect: (gid: GroupId) => boolean;
  readonly plans: readonly GroupPlan[];
  readonly self: NodeId;
  readonly peers: PeerLinks;
  readonly intake: BlobIntake;
  readonly env: Env;
  /** Bytes of large values that may be under way at once. */
  readonly ioBufferBytes: number;
  readonly routes: () => RouteTable;
  /**
   * A cell of the group cannot be read. True when its replica here takes no further part, so that the
   * next primary should be asked; false when there is nobody else to ask.
   */
  readonly onDamage: (group: GroupShell, error: CorruptionError) => boolean;
}

const HOPS_MAX = 1;
const BULK_BYTES = 64 * 1024;
const FORWARD_TIMEOUT_MS = 2_000;
/** UTF-16 units of the rows that locks name in one answer: a line on the wire holds them easily. */
const LOCKS_LENGTH_MAX = 64 * 1024;

type KvHandlers = Handlers<typeof kvConversation>;
type Forwarded =
  | "apply"
  | "multiRow"
  | "prepare"
  | "settle"
  | "txnState"
  | "get"
  | "getRow"
  | "scan";

export class BackendService {
  readonly #options: BackendServiceOptions;
  readonly #plans = new Map<GroupId, GroupPlan>();
  #largeBytes = 0;
  requestCount = 0;

  constructor(options: BackendServiceOptions) {
    this.#options = options;
    for (const plan of options.plans) this.#plans.set(groupId(plan.id), plan);
  }

  readonly handlers: KvHandlers = {
    apply: (body, payload) => {
      this.requestCount += 1;
      const group = this.#groupOf(body.gid, body.op.row);
      const away = this.#elsewhere(group, body.hops);
      if (away !== null) return this.#forward(away, "apply", body, payload);
      return this.#write(group, body.stamp, { ops: [body.op], payload }, ([op]) => {
        return { kind: "rowOp", op: op! };
      });
    },
    multiRow: (body, payload) => {
      this.requestCount += 1;
      const group = this.#groupOfAll(body.gid, body.ops);
      const away = this.#elsewhere(group, body.hops);
      if (away !== null) return this.#forward(away, "multiRow", body, payload);
      return this.#write(group, body.stamp, { ops: body.ops, payload }, (ops) => {
        return { kind: "multiRow", ops };
      });
    },
    prepare: (body, payload) => {
      this.requestCount += 1;
      const group = this.#groupOfAll(body.gid, body.ops);
      const away = this.#elsewhere(group, body.hops);
      if (away !== null) return this.#forward(away, "prepare", body, payload);
      const { txn, others, lifeMs } = body;
      return this.#write(group, body.stamp, { ops: body.ops, payload }, (ops) => {
        return { kind: "prepare", txn, ops, others, lifeMs };
      });
    },
    settle: async (body, payload) => {
      this.requestCount += 1;
      const group = this.#groupOf(body.gid, body.row);
      const away = this.#elsewhere(group, body.hops);
      if (away !== null) return this.#forward(away, "settle", body, payload);
      const { txn, step, lifeMs } = body;
      return answerOf(await group.apply(body.stamp, { kind: "settle", txn, step, lifeMs }));
    },
    txnState: (body, payload) =>
      this.#read("txnState", body, payload, spanOfRow(body.row), ({ replica: { state } }) => {
        const nowMs = Math.max(state.timeMs, Math.round(this.#options.env.wallMs()));
        return {
          state: state.locks.stateOf(body.id),
          remainingMs: state.locks.remainingMs(body.id, nowMs),
        };
      }),
    get: (body, payload) => {
      const span = spanOfRow(body.row);
      return this.#read("get", body, payload, span, (group) => {
        const cell = group.store.get(body.row, body.column);
        const { appliedLsn } = group.replica.state;
        return this.#cellAnswer(group, cell, appliedLsn, locksIn(group, span));
      });
    },
    getRow: (body, payload) => {
      const span = spanOfRow(body.row);
      return this.#read("getRow", body, payload, span, (group) => {
        const page = readRowPage(group.store, body.row, definedOnly(body));
        const { appliedLsn } = group.replica.state;
        return pageAnswer(page, appliedLsn, body.keysOnly === true, locksIn(group, span));
      });
    },
    scan: (body, payload) => {
      const plan = this.#plans.get(body.gid);
      if (plan === undefined) throw this.#wrongTablet(body.gid);
      const from = body.after?.row ?? body.startRow ?? plan.startKey;
      const span = { from, until: body.endRow ?? plan.endKey };
      return this.#read("scan", body, payload, span, (group) => {
        return this.#scanPage(group, plan, span, body);
      });
    },
    reshape: async ({ gid, change }) => {
      const group = this.#groupOf(gid, change.key);
      await group.reshape(change);
      return {
        tablets: group.replica.state.tablets.list().map(({ id, startKey, endKey, counts }) => ({
          id,
          startKey,
          endKey,
          rows: counts.rows,
          bytes: counts.bytes,
        })),
      };
    },
    routes: () => this.#options.routes(),
    rows: (body) => this.#rows(body),
    rowValue: ({ row, column }) => {
      for (const [gid, group] of this.#options.groups) {
        const plan = this.#plans.get(gid)!;
        if (inRange(row, plan.startKey, plan.endKey)) {
          const { appliedLsn } = group.replica.state;
          const cell = this.#guarded(group, () => group.store.get(row, column));
          return this.#cellAnswer(group, cell, appliedLsn);
        }
      }
      return { lsn: toLsn(0), cell: null };
    },
    digest: () => ({
      groups: Array.from(this.#options.groups.values(), (group) => {
        const { state, epoch } = group.replica;
        const { rows, cells } = state.counts;
        return {
          gid: group.gid,
          epoch,
          appliedLsn: state.appliedLsn,
          hash: state.hash,
          checks: [...group.replica.checks],
          rows,
          cells,
        };
      }),
    }),
  };

  // -------------------------------------------------------------------------------- where

  #groupOf(gid: GroupId, row: string): GroupShell {
    const group = this.#options.groups.get(gid), plan = this.#plans.get(gid);
    if (group === undefined || plan === undefined || !inRange(row, plan.startKey, plan.endKey)) {
      throw this.#wrongTablet(gid);
    }
    return group;
  }

  #groupAt(gid: GroupId): GroupShell {
    const group = this.#options.groups.get(gid);
    if (group === undefined) throw this.#wrongTablet(gid);
    return group;
  }

  #groupOfAll(gid: GroupId, ops: readonly { readonly row: string }[]): GroupShell {
    checkRows(ops);
    for (const { row } of ops) this.#groupOf(gid, row);
    return this.#options.groups.get(gid)!;
  }

  #wrongTablet(gid: GroupId): KvError {
    if (this.#options.isSuspect(gid)) {
      const message = `The copy of group ${gid} at backend/${this.#options.self} is damaged`;
      return refusal("not_primary", message, { hint: null });
    }
    const message = `Node backend/${this.#options.self} has no such row in group ${gid}`;
    return refusal("wrong_tablet", message, {});
  }

  /** The primary, when it is another node and the request has not been passed on yet. */
  #elsewhere(group: GroupShell, hops: number): NodeId | null {
    const { config, role } = group.replica;
    if (role === "primary") return null;
    const primary = config?.primary.node ?? null;
    if (primary === null || primary === this.#options.self || hops >= HOPS_MAX) {
      const message = `Node backend/${this.#options.self} is not the primary of group ${group.gid}`;
      throw refusal("not_primary", message, { hint: null });
    }
    return primary;
  }

  async #forward<Name extends Forwarded>(
    to: NodeId,
    name: Name,
    body: Parameters<KvHandlers[Name]>[0],
    payload: Uint8Array,
    // deno-lint-ignore no-explicit-any -- the answer of the same method, passed through
  ): Promise<any> {
    const lane = payload.length > BULK_BYTES ? "bulk" : "control";
    const peer = this.#options.peers.of("backend", to, lane);
    try {
      const passedOn = { ...body, hops: body.hops + 1 };
      // deno-lint-ignore no-explicit-any -- see above
      return await peer.call(kvConversation, name, passedOn as any, payload, {
        timeoutMs: FORWARD_TIMEOUT_MS,
      });
    } catch (error) {
      if (error instanceof KvError) throw error;
      // We cannot tell how far it came. The client asks again with the same stamp.
      const message = `The primary backend/${to} did not answer: ${(error as Error).message}`;
      throw refusal("not_primary", message, { hint: null, maybeApplied: true });
    }
  }

  // ------------------------------------------------------------------------------- writes

  async #write(
    group: GroupShell,
    stamp: RequestStamp,
    { ops: heads, payload }: { ops: readonly RowOpHead[]; payload: Uint8Array },
    requestOf: (ops: LogRowOp[]) => LogRequest,
  ) {
    checkRows(heads);
    const large = payload.length > INLINE_BYTES_MAX ? payload.length : 0;
    if (large > 0 && this.#largeBytes + large > this.#options.ioBufferBytes) {
      throw new KvError("busy", `${this.#largeBytes} bytes of large values are under way already`);
    }
    group.admit(memoryOf(heads));
    this.#largeBytes += large;
    try {
      const request = requestOf(this.#keepLargeValues(attachAllValues(heads, payload), payload));
      const answer = group.apply(stamp, request);
      if (large > 0 && !group.isLogged(stamp)) this.#discardFiles(request);
      return answerOf(await answer);
    } finally {
      this.#largeBytes -= large;
    }
  }

  /** Checks every value against its checksum, then starts writing large ones to files. */
  #keepLargeValues(ops: readonly LogRowOp[], payload: Uint8Array): LogRowOp[] {
    let bytes = 0;
    for (const { conditions, mutations } of ops) {
      for (const part of [...conditions, ...mutations]) {
        checkColumns(part);
        if ("value" in part) bytes += this.#checked(part.value).size;
      }
    }
    if (bytes > OPERATION_BYTES_MAX) {
      const message = `A request carries at most ${OPERATION_BYTES_MAX} bytes of values`;
      throw new KvError("invalid_request", message);
    }
    return ops.map((op) => this.#withFiles(op, payload));
  }

  #withFiles(op: LogRowOp, payload: Uint8Array): LogRowOp {
    let changed = false;
    const mutations = op.mutations.map((mutation): LogMutation => {
      if (!("value" in mutation)) return mutation;
      const { value } = mutation;
      if (value.size <= INLINE_BYTES_MAX || !(value.value instanceof Uint8Array)) return mutation;
      changed = true;
      const blob = freshId(this.#options.env);
      // Values beside it that stay in the log are views into the same buffer and keep it.
      const buffer = value.size === payload.length ? payloadPool.claim(payload) : null;
      this.#options.intake.add(blob, value.value, buffer);
      buffer?.letGo();
      return { ...mutation, value: { ...value, value: { blob } } };
    });
    return changed ? { ...op, mutations } : op;
  }

  /** The request was refused, or executed before: what it brought has no place. */
  #discardFiles(request: LogRequest): void {
    const { intake, env } = this.#options;
    for (const { blob } of blobsOf(request)) {
      intake.discard(blob).catch((error) =>
        env.log("warning", "a file could not be removed", { blob, message: String(error) })
      );
    }
  }

  #checked(value: LogValue): LogValue {
    if (isBlobRef(value.value)) {
      throw new KvError("invalid_request", "A client cannot name the file of a value");
    }
    if (value.size > VALUE_BYTES_MAX) {
      throw new KvError("invalid_request", `A value has at most ${VALUE_BYTES_MAX} bytes`);
    }
    if (crc32(value.value) !== value.crc) {
      throw new KvError("invalid_request", "A value does not match its checksum");
    }
    return value;
  }

  // -------------------------------------------------------------------------------- reads

  /** `answer` runs in the very turn in which the group's state may be read. */
  #read<Name extends "get" | "getRow" | "scan" | "txnState", T>(
    name: Name,
    body: Parameters<KvHandlers[Name]>[0],
    payload: Uint8Array,
    span: RowSpan,
    answer: (group: GroupShell) => T | Promise<T>,
  ): T | Promise<T> {
    this.requestCount += 1;
    const group = "row" in body ? this.#groupOf(body.gid, body.row) : this.#groupAt(body.gid);
    const run = () => this.#guarded(group, () => answer(group));
    // Snapshots are kept by the primary alone.
    const snapshot = "snapshot" in body ? body.snapshot : undefined;
    const bound = "bound" in body && snapshot === undefined ? body.bound : undefined;
    // What became of a transaction that was decided elsewhere is for the newest state to say.
    if (bound !== undefined && group.satisfies(bound) && !hasLocks(group, span)) return run();
    const away = this.#elsewhere(group, body.hops);
    if (away !== null) return this.#forward(away, name, body, payload);
    return group.read(span, run);
  }

  #cellAnswer(
    group: GroupShell,
    cell: StoredCell | undefined,
    lsn: Lsn,
    locks: LocksAnswer = {},
  ): CellAnswer | Promise<CellAnswer> {
    if (cell === undefined) return { body: { lsn, cell: null, ...locks }, payload: EMPTY };
    const { version, size, crc, value } = cell;
    const body = { lsn, cell: { version, size, crc }, ...locks };
    if (!isBlobRef(value)) return { body, payload: value };
    return this.#readLarge(group, value.blob, crc).then(({ bytes, letGo }) => {
      return { body, payload: bytes, onWritten: letGo };
    });
  }

  /** A file that is damaged is fetched anew from another member, if any has it. */
  async #readLarge(group: GroupShell, blob: string, crc: number): Promise<LentValue> {
    try {
      const value = await this.#options.intake.lendWhole(group.gid, blob, crc);
      if ((value.crc ?? crc32(value.bytes)) === crc) return value;
      throw new CorruptionError("The file of a value is another value's", blob, 0);
    } catch (error) {
      throw this.#damage(group, error);
    }
  }

  /** Runs in a turn in which the group's state may be read. */
  #scanPage(
    group: GroupShell,
    plan: GroupPlan,
    span: RowSpan,
    body: Parameters<KvHandlers["scan"]>[0],
  ) {
    const { snapshot: wanted, ...options } = definedOnly(body);
    const keysOnly = options.keysOnly === true;
    if (wanted === undefined) {
      const page = readScanPage(group.store, options, plan);
      const until = page.next === null ? span.until : page.next.row + "\0";
      const locks = locksIn(group, { from: span.from, until });
      return pageAnswer(page, group.replica.state.appliedLsn, keysOnly, locks);
    }
    const { gid } = group;
    const known = wanted !== "new" && wanted.gid === gid ? wanted.lsn : null;
    const { lsn, source, close } = group.snapshot(known);
    const page = readScanPage(source, options, plan);
    if (page.next === null) close();
    // What is decided but not applied yet when a snapshot begins belongs into it.
    const locks = known === null ? locksIn(group, span) : {};
    const { body: answer, payload } = pageAnswer(page, lsn, keysOnly, locks);
    return { body: { ...answer, snapshot: { gid, lsn } }, payload };
  }

  #guarded<T>(group: GroupShell, read: () => T): T {
    try {
      return read();
    } catch (error) {
      throw this.#damage(group, error);
    }
  }

  #damage(group: GroupShell, error: unknown): unknown {
    if (!(error instanceof CorruptionError)) return error;
    if (this.#options.onDamage(group, error)) return this.#wrongTablet(group.gid);
    return new KvError("corrupted", error.message, { cause: error });
  }

  #rows(body: Parameters<KvHandlers["rows"]>[0]) {
    const cells: {
      gid: GroupId;
      row: string;
      column: string;
      version: StoredCell["version"];
      size: number;
      large: boolean;
      head: string;
    }[] = [];
    const plans = this.#options.plans.filter((plan) => this.#options.groups.has(groupId(plan.id)));
    const at = body.after?.row ?? body.start;
    for (const plan of plans) {
      if (plan.endKey !== null && !inRange(plan.endKey, at, null)) continue;
      if (plan.endKey === at) continue;
      const gid = groupId(plan.id), group = this.#options.groups.get(gid)!;
      const range = body.after === undefined
        ? { from: { row: body.start, column: "" } }
        : { from: body.after, inclusive: false };
      const wanted = body.limit - cells.length + 1;
      const found = this.#guarded(group, () => firstOf(group.store.range(range), wanted));
      for (const cell of found) {
        if (cells.length >= body.limit) {
          const { row, column } = cells.at(-1)!;
          return { cells, next: { row, column } };
        }
        const inline = cell.value instanceof Uint8Array;
        const head = inline ? (cell.value as Uint8Array).subarray(0, body.valueBytes) : EMPTY;
        cells.push({
          gid,
          row: cell.row,
          column: cell.column,
          version: cell.version,
          size: cell.size,
          large: !inline,
          head: head.toBase64(),
        });
      }
    }
    return { cells, next: null };
  }
}

const EMPTY = new Uint8Array();
/** What an operation, and a change in it, takes in a log entry besides keys and values. */
const OP_BYTES = 512, PART_BYTES = 256;

/** What a write takes in memory, about; large values lie in files. */
function memoryOf(heads: readonly RowOpHead[]): number {
  let bytes = OP_BYTES;
  for (const { row, conditions, mutations } of heads) {
    for (const part of [...conditions, ...mutations]) {
      bytes += PART_BYTES + 2 * row.length;
      for (const name of ["column", "prefix", "counter"] as const) {
        bytes += 2 * ((part as Record<string, unknown>)[name] as string | undefined ?? "").length;
      }
      if ("value" in part && part.value.size <= INLINE_BYTES_MAX) bytes += part.value.size;
    }
  }
  return bytes;
}

function firstOf<T>(items: Iterable<T>, count: number): T[] {
  const first: T[] = [];
  for (const item of items) if (first.push(item) >= count) break;
  return first;
}

interface CellAnswer {
  readonly body: z.infer<typeof GetReply>;
  readonly payload: Uint8Array;
  readonly onWritten?: () => void;
}

/** The cells of a page without their values, and behind them the values of those that have one. */
function pageAnswer<Next>(
  page: { cells: readonly StoredCell[]; next: Next },
  lsn: Lsn,
  keysOnly: boolean,
  locks: LocksAnswer,
) {
  const payload: Uint8Array[] = [];
  const cells = page.cells.map((cell) => {
    const { row, column, version, size, value } = cell;
    const inline = !keysOnly && value instanceof Uint8Array;
    if (inline) payload.push(value);
    return { row, column, version, size, inline };
  });
  return { body: { lsn, cells, next: page.next, ...locks }, payload };
}

type LocksAnswer = { locks?: { row: string; id: string; anchor: string }[] };

/** Locks on rows of a page, for the reader to settle if their transactions are decided. */
function locksIn(group: GroupShell, span: RowSpan): LocksAnswer {
  const found = group.replica.state.locks.decidedElsewhere(span);
  if (found.length === 0) return {};
  // One of each transaction is enough: a group settles all rows of a transaction at once.
  const distinct = new Map(found.map(({ row, id, anchor }) => [id, { row, id, anchor }]));
  let length = 0;
  for (const { row, anchor } of distinct.values()) length += row.length + anchor.length;
  if (length > LOCKS_LENGTH_MAX) {
    throw new KvError("busy", `${distinct.size} transactions are under way on these rows`);
  }
  return { locks: [...distinct.values()] };
}

const hasLocks = (group: GroupShell, span: RowSpan) =>
  group.replica.state.locks.decidedElsewhere(span).length > 0;

const answerOf = (outcome: RequestOutcome) =>
  outcome.kind === "applied" ? { ...outcome, numbers: [...outcome.numbers] } : outcome;

function checkColumns(part: LogCondition | LogMutation): void {
  const names = [
    ..."column" in part ? [part.column] : [],
    ..."counter" in part ? [part.counter] : [],
    ..."prefix" in part ? [part.prefix] : [],
  ];
  if (!names.some(isInternal)) return;
  throw new KvError("invalid_request", "Columns that begin with U+0001 are the store's own");
}

/** zod gives `undefined` for what is absent; the options of a page leave it out. */
function definedOnly<T extends object>(body: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(
    Object.entries(body).filter(([, value]) => value !== undefined),
  ) as { [K in keyof T]: Exclude<T[K], undefined> };
}
