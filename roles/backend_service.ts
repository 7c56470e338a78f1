/**
 * What clients may ask of a backend: proto/kv_wire.ts, answered from the groups on this node. A
 * secondary passes a request on to the primary, with the same stamp, so that any node can be asked.
 */
import { crc32 } from "node:zlib";
import { isBlobRef, type StoredCell } from "../kv/cell_store.ts";
import { attachAllValues, blobsOf, type LogRequest } from "../kv/command.ts";
import { CorruptionError, KvError } from "../kv/errors.ts";
import { type Env, freshId } from "../kv/env.ts";
import { compareKeys } from "../kv/key_order.ts";
import { INLINE_BYTES_MAX, OPERATION_BYTES_MAX, VALUE_BYTES_MAX } from "../kv/kv.ts";
import { checkRows } from "../kv/limits.ts";
import { type RowSpan, spanOfRow } from "../kv/read_gate.ts";
import { readRowPage, readScanPage } from "../kv/pages.ts";
import { isInternal } from "../kv/internal_columns.ts";
import { mutated } from "../kv/mutant.ts";
import type { RequestOutcome } from "../kv/outcome.ts";
import type { Tablet } from "../kv/tablets.ts";
import type { LogCondition, LogMutation, LogRowOp, LogValue } from "../kv/row_op.ts";
import { type GroupId, type Lsn, lsn as toLsn, type NodeId } from "../proto/ids.ts";
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
  #largeBytes = 0;
  requestCount = 0;

  constructor(options: BackendServiceOptions) {
    this.#options = options;
  }

  readonly handlers: KvHandlers = {
    apply: (body, payload) => {
      this.requestCount += 1;
      const group = this.#groupAt(body.gid);
      const away = this.#elsewhere(group, body.hops);
      if (away !== null) return this.#forward(away, "apply", body, payload);
      this.#checkRow(group, body.op.row);
      return this.#write(group, body.stamp, { ops: [body.op], payload }, asRowOp);
    },
    multiRow: (body, payload) => {
      this.requestCount += 1;
      const group = this.#groupAt(body.gid);
      const away = this.#elsewhere(group, body.hops);
      if (away !== null) return this.#forward(away, "multiRow", body, payload);
      this.#checkRows(group, body.ops);
      return this.#write(group, body.stamp, { ops: body.ops, payload }, asMultiRow);
    },
    prepare: (body, payload) => {
      this.requestCount += 1;
      const group = this.#groupAt(body.gid);
      const away = this.#elsewhere(group, body.hops);
      if (away !== null) return this.#forward(away, "prepare", body, payload);
      this.#checkRows(group, body.ops);
      const { txn, others, lifeMs } = body;
      return this.#write(group, body.stamp, { ops: body.ops, payload }, (ops) => {
        return { kind: "prepare", txn, ops, others, lifeMs };
      });
    },
    settle: async (body, payload) => {
      this.requestCount += 1;
      const group = this.#groupAt(body.gid);
      const away = this.#elsewhere(group, body.hops);
      if (away !== null) return this.#forward(away, "settle", body, payload);
      this.#checkSettle(group, body);
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
        const { position } = group.replica.state;
        return this.#cellAnswer(group, cell, position, locksIn(group, span));
      });
    },
    getRow: (body, payload) => {
      const span = spanOfRow(body.row);
      return this.#read("getRow", body, payload, span, (group) => {
        const page = readRowPage(group.store, body.row, definedOnly(body));
        const { position } = group.replica.state;
        return pageAnswer(page, position, body.keysOnly === true, locksIn(group, span));
      });
    },
    scan: (body, payload) => {
      const { tablets } = this.#groupAt(body.gid).replica.state;
      const from = body.after?.row ?? body.startRow ?? "";
      const until = body.endRow ?? tablets.runAt(from, () => true)?.endKey ?? null;
      const span = { from, until };
      return this.#read("scan", body, payload, span, (group) => {
        return this.#scanPage(group, span, body);
      });
    },
    reshape: async ({ gid, change }) => {
      const group = this.#groupAt(gid);
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
      for (const group of this.#options.groups.values()) {
        const { position, tablets } = group.replica.state;
        if (tablets.accessTo(row) === "none") continue;
        const cell = this.#guarded(group, () => group.store.get(row, column));
        return this.#cellAnswer(group, cell, position);
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

  #groupAt(gid: GroupId): GroupShell {
    const group = this.#options.groups.get(gid);
    if (group === undefined) throw this.#wrongTablet(gid);
    return group;
  }

  /**
   * Where tablets came or went, the log knows better than the state what may be done (tablet_moves.ts),
   * and a request that was executed before has its answer wherever the row is now.
   */
  #checkRow({ gid, replica: { state: { tablets } } }: GroupShell, row: string): void {
    if (tablets.isPlain && tablets.idAt(row) === 0) throw this.#wrongTablet(gid);
  }

  #checkRows(group: GroupShell, ops: readonly { readonly row: string }[]): void {
    checkRows(ops);
    for (const { row } of ops) this.#checkRow(group, row);
  }

  /** A transaction that holds nothing here is asked about where its rows are. */
  #checkSettle(
    { gid, replica: { state } }: GroupShell,
    { row, stamp, txn }: { row: string; stamp: RequestStamp; txn: { id: string } },
  ): void {
    if (state.tablets.accessTo(row) !== "none" || state.completions.find(stamp) !== undefined) {
      return;
    }
    const isKnown = !state.locks.rowsOf(txn.id)[Symbol.iterator]().next().done ||
      state.locks.stateOf(txn.id) !== "gone";
    if (!isKnown) throw this.#wrongTablet(gid);
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

  #write(
    group: GroupShell,
    stamp: RequestStamp,
    { ops: heads, payload }: { ops: readonly RowOpHead[]; payload: Uint8Array },
    requestOf: (ops: LogRowOp[]) => LogRequest,
  ) {
    checkRows(heads);
    const large = payload.length > INLINE_BYTES_MAX;
    if (large && this.#largeBytes + payload.length > this.#options.ioBufferBytes) {
      throw new KvError("busy", `${this.#largeBytes} bytes of large values are under way already`);
    }
    group.admit(memoryOf(heads));
    const ops = attachAllValues(heads, payload);
    checkParts(ops);
    if (large) return this.#writeLarge(group, stamp, { ops, payload }, requestOf);
    return group.apply(stamp, requestOf(ops)).then(answerOf);
  }

  /** Some of its values may belong into files of their own. */
  async #writeLarge(
    group: GroupShell,
    stamp: RequestStamp,
    { ops, payload }: { ops: readonly LogRowOp[]; payload: Uint8Array },
    requestOf: (ops: LogRowOp[]) => LogRequest,
  ) {
    this.#largeBytes += payload.length;
    try {
      const request = requestOf(ops.map((op) => this.#withFiles(op, payload)));
      const answer = group.apply(stamp, request);
      if (!group.isLogged(stamp)) this.#discardFiles(request);
      return answerOf(await answer);
    } finally {
      this.#largeBytes -= payload.length;
    }
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
    const group = this.#groupAt(body.gid);
    const run = () => {
      if ("row" in body) group.checkReadable(body.row);
      return this.#guarded(group, () => answer(group));
    };
    // Snapshots are kept by the primary alone.
    const snapshot = "snapshot" in body ? body.snapshot : undefined;
    const bound = "bound" in body && snapshot === undefined ? body.bound : undefined;
    // What became of a transaction that was decided elsewhere is for the newest state to say.
    const isHere = bound !== undefined && group.satisfies(bound) && group.isReadable(span.from);
    if (isHere && !hasLocks(group, span)) return run();
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
    span: RowSpan,
    body: Parameters<KvHandlers["scan"]>[0],
  ) {
    const { snapshot: wanted, ...options } = definedOnly(body);
    const keysOnly = options.keysOnly === true;
    const { gid, replica: { state: { tablets, position } } } = group;
    group.checkReadable(span.from);
    if (wanted !== undefined && wanted !== "new" && wanted.gid !== gid) throw movedAway(span.from);
    const known = wanted === undefined || wanted === "new" ? null : wanted.lsn;
    // What came from another group since is not in the snapshot.
    const run = tablets.runAt(span.from, (tablet) => {
      const isKnown = known === null || tablet.since <= known || mutated("snapshot-crosses-move");
      return group.mayRead(tablet) && isKnown;
    });
    if (run === null) throw movedAway(span.from);
    const end = run.endKey;
    // Whether a frozen tablet is still part of this group is known in a moment; the scan waits for that.
    const checkEnd = (isLastPage: boolean) => {
      if (!isLastPage || end === null || !reachesBeyond(options, end)) return;
      if (tablets.accessTo(end) === "frozen") group.checkReadable(end);
    };
    if (wanted === undefined) {
      const page = readScanPage(group.store, options, run);
      checkEnd(page.next === null);
      const until = page.next === null ? span.until : page.next.row + "\0";
      const locks = locksIn(group, { from: span.from, until });
      const { body: answer, payload } = pageAnswer(page, position, keysOnly, locks);
      return { body: { ...answer, end }, payload };
    }
    const { lsn, source, close } = group.snapshot(known);
    const page = readScanPage(source, options, run);
    checkEnd(page.next === null);
    if (page.next === null) close();
    // What is decided but not applied yet when a snapshot begins belongs into it.
    const locks = known === null ? locksIn(group, span) : {};
    const { body: answer, payload } = pageAnswer(page, lsn, keysOnly, locks);
    return { body: { ...answer, end, snapshot: { gid, lsn } }, payload };
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

  /** Of all groups here, those that they serve. */
  #tabletsByKey(): { group: GroupShell; tablet: Tablet }[] {
    const all = [...this.#options.groups.values()].flatMap((group) =>
      group.replica.state.tablets.list().map((tablet) => ({ group, tablet }))
    );
    return all.sort((a, b) => compareKeys(a.tablet.startKey, b.tablet.startKey));
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
    const at = body.after?.row ?? body.start;
    for (const { group, tablet: { startKey, endKey } } of this.#tabletsByKey()) {
      if (endKey !== null && compareKeys(endKey, at) <= 0) continue;
      const { gid } = group;
      const isFirst = compareKeys(startKey, at) <= 0;
      const range = !isFirst
        ? { from: { row: startKey, column: "" } }
        : body.after === undefined
        ? { from: { row: body.start, column: "" } }
        : { from: body.after, inclusive: false };
      const wanted = body.limit - cells.length + 1;
      const own = cellsBefore(group.store.range(range), endKey);
      const found = this.#guarded(group, () => firstOf(own, wanted));
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
    for (const part of conditions) bytes += partMemory(row, part);
    for (const part of mutations) bytes += partMemory(row, part);
  }
  return bytes;
}

type PartHead = RowOpHead["conditions"][number] | RowOpHead["mutations"][number];

function partMemory(row: string, part: PartHead): number {
  let bytes = PART_BYTES + 2 * row.length;
  if ("column" in part) bytes += 2 * part.column.length;
  else bytes += 2 * part.prefix.length + ("counter" in part ? 2 * part.counter.length : 0);
  if ("value" in part && part.value.size <= INLINE_BYTES_MAX) bytes += part.value.size;
  return bytes;
}

function* cellsBefore(cells: Iterable<StoredCell>, endKey: string | null): Iterable<StoredCell> {
  for (const cell of cells) {
    if (endKey !== null && compareKeys(cell.row, endKey) >= 0) return;
    yield cell;
  }
}

function reachesBeyond(
  { prefix = "", endRow = null }: { prefix?: string; endRow?: string | null },
  end: string,
): boolean {
  return (endRow === null || compareKeys(endRow, end) > 0) && end.startsWith(prefix);
}

const movedAway = (row: string) =>
  new KvError(
    "snapshot_too_old",
    `Cannot go on with a scan at "${row}": the row moved to another group since it began`,
  );

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

/** The wire's types allow to change what nobody changes. */
const answerOf = (outcome: RequestOutcome) => outcome as Writable<RequestOutcome>;
type Writable<T> = T extends { readonly numbers: readonly number[] }
  ? Omit<T, "numbers"> & { numbers: number[] }
  : T;

const asRowOp = ([op]: readonly LogRowOp[]): LogRequest => ({ kind: "rowOp", op: op! });
const asMultiRow = (ops: readonly LogRowOp[]): LogRequest => ({ kind: "multiRow", ops });

/** Checks every name, and every value against its checksum. */
function checkParts(ops: readonly LogRowOp[]): void {
  let bytes = 0;
  for (const { conditions, mutations } of ops) {
    for (const part of conditions) bytes += checkPart(part);
    for (const part of mutations) bytes += checkPart(part);
  }
  if (bytes <= OPERATION_BYTES_MAX) return;
  const message = `A request carries at most ${OPERATION_BYTES_MAX} bytes of values`;
  throw new KvError("invalid_request", message);
}

/** Returns the bytes of the part's value. */
function checkPart(part: LogCondition | LogMutation): number {
  if ("column" in part) checkColumn(part.column);
  if ("counter" in part) checkColumn(part.counter);
  if ("prefix" in part) checkColumn(part.prefix);
  if (!("value" in part)) return 0;
  checkValue(part.value);
  return part.value.size;
}

function checkColumn(name: string): void {
  if (!isInternal(name)) return;
  throw new KvError("invalid_request", "Columns that begin with U+0001 are the store's own");
}

function checkValue(value: LogValue): void {
  if (isBlobRef(value.value)) {
    throw new KvError("invalid_request", "A client cannot name the file of a value");
  }
  if (value.size > VALUE_BYTES_MAX) {
    throw new KvError("invalid_request", `A value has at most ${VALUE_BYTES_MAX} bytes`);
  }
  if (crc32(value.value) !== value.crc) {
    throw new KvError("invalid_request", "A value does not match its checksum");
  }
}

/** zod gives `undefined` for what is absent; the options of a page leave it out. */
function definedOnly<T extends object>(body: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(
    Object.entries(body).filter(([, value]) => value !== undefined),
  ) as { [K in keyof T]: Exclude<T[K], undefined> };
}
