/**
 * The store's client: finds the primary of a row, asks it, and keeps asking through a failover.
 *
 * Promises: a write is executed at most once however often it is sent, because every attempt
 * carries the same stamp; a write that is reported as not applied was not applied; when nobody
 * knows, the error says so (`outcome_unknown`). Routes come from any backend or the coordinator and
 * are kept until somebody says they are wrong.
 *
 * It does no I/O itself: `KvTransport` carries the calls (roles/kv_connection.ts).
 * Start at {@link KvClient.apply}. Exactly-once follows RIFL (Lee et al. 2015); completions.ts is
 * the other half.
 */
import { crc32 } from "node:zlib";
import { type Lsn, lsn, type NodeId } from "../proto/ids.ts";
import type { ReadBound, RefusalDetails } from "../proto/kv_wire.ts";
import type { RequestStamp } from "../proto/command.ts";
import { mergeRoutes, NO_ROUTES, type Route, type RouteTable } from "../proto/routes.ts";
import { type Env, freshId } from "./env.ts";
import { KvError } from "./errors.ts";
import { compareKeys, inRange } from "./key_order.ts";
import {
  type CallOptions,
  type Cell,
  type FullCell,
  type Kv,
  PAGE_CELLS_MAX,
  type RowOp,
  type RowPage,
  type RowPageOptions,
  type RowResult,
  type ScanOptions,
  type ScanPage,
  type TransactResult,
} from "./kv.ts";
import { checkColumn, checkKey, checkRowOp, checkTransaction } from "./limits.ts";
import { headOf, type LogRequest } from "./command.ts";
import { toLogRowOp, toRowResult } from "./log_value.ts";
import { mutated } from "./mutant.ts";
import { RequestNumbers } from "./request_numbers.ts";
import type { RecordedOutcome, RequestOutcome, TxnRef, TxnState } from "./outcome.ts";
import type { RowLock } from "./row_locks.ts";
import {
  type PortOptions,
  RowsApartError,
  type SendOptions,
  TransactionRunner,
} from "./transaction.ts";

import type { TabletChange } from "./tablet_policy.ts";
import type { KeyRange } from "./tablets.ts";

export type KvMethod =
  | "apply"
  | "multiRow"
  | "prepare"
  | "settle"
  | "txnState"
  | "get"
  | "getRow"
  | "scan"
  | "reshape";
const WRITES: ReadonlySet<KvMethod> = new Set(["apply", "multiRow", "prepare", "settle"]);

export interface ReshapedTablet extends KeyRange {
  readonly id: number;
  readonly rows: number;
  readonly bytes: number;
}

export interface CellHead {
  readonly column: string;
  readonly version: Cell["version"];
  readonly size: number;
  readonly inline: boolean;
}

export interface KvTransport {
  /**
   * @throws {KvError} the node answered with an error; `details` as in proto/kv_wire.ts
   * @throws {NotAnsweredError} anything else
   */
  call(
    node: NodeId,
    method: KvMethod,
    body: Record<string, unknown>,
    payload: readonly Uint8Array[],
    options: { timeoutMs: number; signal?: AbortSignal },
  ): Promise<{ body: unknown; payload: Uint8Array }>;
  /**
   * Asks the coordinator and some backends, these rather than others, where everything is. Resolves when
   * it is worth trying again; what is answered later is offered as well.
   */
  fetchRoutes(
    preferred: readonly NodeId[],
    offer: (table: RouteTable) => void,
  ): Promise<void>;
}

/** No answer came. `sent` false: the request never left, so nothing can have happened. */
export class NotAnsweredError extends Error {
  override readonly name = "NotAnsweredError";
  constructor(message: string, readonly sent: boolean, options: ErrorOptions = {}) {
    super(message, options);
  }
}

const DEADLINE_MS = 10_000;
/** A primary that is silent for longer is asked anew, or its successor is. */
const ATTEMPT_MS = 2_000;
const BACKOFF_MS_MIN = 4;
const BACKOFF_MS_MAX = 100;
/** Who waits for a tablet that moves asks as often as after so many attempts: every 16 ms at most. */
const FROZEN_ROUND = 2;

export class KvClient implements Kv {
  readonly #transport: KvTransport;
  readonly #env: Env;
  readonly #clientId: string;
  /** Transactions over several groups, and the locks that others leave in the way. */
  readonly transactions: TransactionRunner;
  #table: RouteTable = NO_ROUTES;
  #fetching: Promise<void> | null = null;
  /** By group; 0 while it is not known who holds a row. */
  readonly #numbers = new Map<number, RequestNumbers>();
  /** By group: its time minus our wall clock, milliseconds, where it was too much to be overlooked. */
  readonly #clockOffsets = new Map<number, number>();
  /** For metrics: how often a call had to be sent again. */
  retryCount = 0;

  constructor(options: { transport: KvTransport; env: Env }) {
    this.#transport = options.transport;
    this.#env = options.env;
    this.#clientId = freshId(options.env);
    this.transactions = new TransactionRunner({
      env: options.env,
      port: {
        groupsOf: (rows, options) => this.#groupsOf(rows, options),
        send: (rows, request, options) => this.#send(rows, request, options),
        stateOf: (txn, options) => this.#stateOf(txn, options),
      },
    });
  }

  get routes(): RouteTable {
    return this.#table;
  }

  /** Takes over what is newer in a map that came from anybody. */
  offerRoutes(table: RouteTable): void {
    this.#table = mergeRoutes(this.#table, table);
  }

  async get(row: string, column: string, options: CallOptions = {}): Promise<FullCell | null> {
    checkKey("row", row);
    checkColumn("column", column);
    const answer = await this.#read(row, "get", { row, column }, options);
    const { cell } = answer.body as {
      cell: { version: Cell["version"]; size: number; crc: number } | null;
    };
    if (cell === null) return null;
    if (answer.payload.length !== cell.size || crc32(answer.payload) !== cell.crc) {
      throw new KvError("corrupted", `The value of "${row}" "${column}" fails its checksum`);
    }
    return { column, version: cell.version, size: cell.size, value: answer.payload };
  }

  async getRow(row: string, options: RowPageOptions & CallOptions = {}): Promise<RowPage> {
    checkKey("row", row);
    checkLimit(options.limit);
    const { prefix, start, after, limit, reverse, keysOnly } = options;
    const body = withoutUndefined({ row, prefix, start, after, limit, reverse, keysOnly });
    const answer = await this.#read(row, "getRow", body, options);
    const page = answer.body as { cells: CellHead[]; next: string | null };
    return { cells: attachCells(page.cells, answer.payload), next: page.next };
  }

  async scan(options: ScanOptions & CallOptions): Promise<ScanPage> {
    checkLimit(options.limit);
    const { prefix = "", startRow = "", endRow = null, keysOnly, snapshot = false } = options;
    const limit = options.limit ?? 100;
    const first = compareKeys(prefix, startRow) > 0 ? prefix : startRow;
    let after = options.after;
    const cells: (Cell & { row: string })[] = [];
    for (;;) {
      const at = after !== undefined && compareKeys(after.row, first) > 0 ? after.row : first;
      // A replica that is behind may believe that it still has rows which moved away.
      const isRelaxed = options.session !== undefined || options.maxStaleMs !== undefined;
      const ownEnd = isRelaxed ? this.#routeOf(at)?.endKey ?? null : null;
      const body = withoutUndefined({
        startRow: first,
        endRow: earlier(endRow, ownEnd),
        prefix: prefix === "" ? undefined : prefix,
        after: after === undefined ? undefined : { row: after.row, column: after.column },
        limit: limit - cells.length,
        keysOnly,
        snapshot: snapshot ? after?.snapshot ?? "new" : undefined,
      });
      const answer = await this.#read(at, "scan", body, options);
      const page = answer.body as {
        cells: (CellHead & { row: string })[];
        next: { row: string; column: string } | null;
        snapshot?: { gid: number; lsn: number };
        end: string | null;
      };
      cells.push(...attachCells(page.cells, answer.payload) as (Cell & { row: string })[]);
      if (page.next !== null) {
        const inSnapshot = page.snapshot === undefined ? {} : { snapshot: page.snapshot };
        after = { ...page.next, ...inSnapshot };
        if (cells.length > 0) return { cells, next: after };
        // Everything that was looked at has come into being since.
        continue;
      }
      // This group has no more; its neighbour may. Where that begins the group knows better than our map.
      const end = earlier(page.end, ownEnd);
      const done = end === null || (endRow !== null && compareKeys(end, endRow) >= 0) ||
        (prefix !== "" && !end.startsWith(prefix) && compareKeys(end, prefix) > 0);
      if (done) return { cells, next: null };
      after = { row: end, column: "" };
      if (cells.length >= limit) return { cells, next: after };
    }
  }

  async apply(op: RowOp, options: CallOptions = {}): Promise<RowResult> {
    checkRowOp(op);
    const { deadlineMs = DEADLINE_MS, signal, session } = options;
    const deadline = { untilMs: this.#env.monotonicMs() + deadlineMs, signal };
    const outcome = await this.#send([op.row], { kind: "rowOp", op: toLogRowOp(op) }, {
      deadlineMs,
      signal,
      session,
      onLocked: (lock, round) => this.transactions.unblock(lock, round, deadline),
    });
    return toRowResult(outcome);
  }

  async transact(ops: readonly RowOp[], options: CallOptions = {}): Promise<TransactResult> {
    checkTransaction(ops);
    const { deadlineMs = DEADLINE_MS, signal, session } = options;
    return await this.transactions.transact(ops, { deadlineMs, signal, session });
  }

  /** Asks, and asks again after settling what decided transactions left on the rows. */
  async #read(
    row: string,
    method: "get" | "getRow" | "scan",
    body: Record<string, unknown>,
    options: CallOptions,
  ): Promise<{ body: unknown; payload: Uint8Array; route: Route }> {
    const { deadlineMs = DEADLINE_MS, signal } = options;
    let nowMs = this.#env.monotonicMs();
    const untilMs = nowMs + deadlineMs;
    for (;; nowMs = this.#env.monotonicMs()) {
      const answer = await this.#ask([row], method, body, [], { nowMs, untilMs, options });
      const { locks } = answer.body as { locks?: RowLock[] };
      if (locks === undefined || locks.length === 0) return answer;
      const left = { deadlineMs: untilMs - this.#env.monotonicMs(), signal };
      try {
        if (!await this.transactions.settleForRead(locks, left)) return answer;
      } catch (error) {
        throw asUnavailable(error);
      }
    }
  }

  async #groupsOf(rows: readonly string[], options: PortOptions): Promise<number[]> {
    const untilMs = this.#env.monotonicMs() + options.deadlineMs;
    const attempt = newAttempt();
    for (;;) {
      const groups = rows.flatMap((row) => this.#routeOf(row)?.gid ?? []);
      if (groups.length === rows.length) return groups;
      attempt.last = "the cluster has no map of its tablets yet";
      if (this.#env.monotonicMs() >= untilMs) throw gaveUp(rows[0]!, attempt);
      await this.#refreshRoutes([]);
      await this.#backOff(attempt, untilMs, options.signal);
    }
  }

  async #stateOf(
    txn: TxnRef,
    { deadlineMs, signal }: PortOptions,
  ): Promise<{ state: TxnState; remainingMs: number }> {
    const body = { row: txn.anchor, id: txn.id };
    const options = signal === undefined ? {} : { signal };
    const nowMs = this.#env.monotonicMs(), time = { nowMs, untilMs: nowMs + deadlineMs };
    const answer = await this.#ask([txn.anchor], "txnState", body, [], { ...time, options });
    return answer.body as { state: TxnState; remainingMs: number };
  }

  /** Sends a write under one stamp until its outcome is known or the deadline passes. */
  async #send(
    rows: readonly string[],
    logged: LogRequest,
    options: SendOptions,
  ): Promise<RecordedOutcome> {
    const { deadlineMs, signal } = options;
    const { method, body, inline } = wireForm(rows, logged);
    const untilMs = this.#env.monotonicMs() + deadlineMs;
    const [row] = rows as [string];
    if (this.#routeOf(row) === undefined) await this.#refreshRoutes([]);
    const gid = this.#routeOf(row)?.gid ?? 0, numbers = this.#numbersOf(gid);
    const { seq, firstIncomplete } = await numbers.take((done) =>
      this.#env.sleep(deadlineMs, signal === undefined ? done : AbortSignal.any([signal, done]))
    );
    try {
      const stamp: RequestStamp = {
        clientId: `${this.#clientId}-${gid}`,
        seq,
        firstIncomplete,
        issuedMs: Math.round(this.#env.wallMs() + (this.#clockOffsets.get(gid) ?? 0)),
      };
      const request = { stamp, ...body }, attempt = newAttempt();
      const own = signal === undefined ? {} : { signal };
      for (let round = 0;; round++) {
        const nowMs = this.#env.monotonicMs(), time = { nowMs, untilMs };
        const asked = { ...time, options: own, attempt };
        const answer = await this.#ask(rows, method, request, inline, asked);
        const outcome = answer.body as RequestOutcome;
        // A cell's version is the position of its group right after it was written.
        if ("version" in outcome) options.session?.see(answer.route.gid, lsn(outcome.version));
        if (outcome.kind !== "locked") return outcome;
        attempt.last = `Row "${outcome.row}" is locked by a transaction`;
        try {
          await options.onLocked(outcome, round);
          if (this.#env.monotonicMs() >= untilMs) throw new KvError("busy", attempt.last);
        } catch (error) {
          if (error instanceof KvError && attempt.maybeApplied) throw gaveUp(row, attempt);
          throw asUnavailable(error);
        }
      }
    } finally {
      numbers.release(seq);
    }
  }

  /**
   * Splits the tablet that holds `key` there, or merges the one that begins there into its left.
   *
   * @returns the tablets of the group afterwards
   * @throws {KvError} `invalid_request`: a tablet begins there already, or none does
   */
  async reshape(change: TabletChange, options: CallOptions = {}): Promise<ReshapedTablet[]> {
    checkKey("key", change.key);
    const nowMs = this.#env.monotonicMs();
    const untilMs = nowMs + (options.deadlineMs ?? DEADLINE_MS);
    const asked = { nowMs, untilMs, options };
    const answer = await this.#ask([change.key], "reshape", { change }, [], asked);
    return (answer.body as { tablets: ReshapedTablet[] }).tablets;
  }

  #numbersOf(gid: number): RequestNumbers {
    let numbers = this.#numbers.get(gid);
    if (numbers === undefined) this.#numbers.set(gid, numbers = new RequestNumbers());
    return numbers;
  }

  /** Sends a request to the primary of `rows` until it is answered or its time is over. */
  async #ask(
    rows: readonly string[],
    method: KvMethod,
    body: Record<string, unknown>,
    payload: readonly Uint8Array[],
    asked: Asked,
  ): Promise<{ body: unknown; payload: Uint8Array; route: Route }> {
    const { options, untilMs: deadlineMs, attempt = newAttempt() } = asked, { signal } = options;
    const [row] = rows as [string];
    // Looking at the clock is a good part of what a short read costs, so its callers' look counts.
    for (let { nowMs } = asked;; nowMs = this.#env.monotonicMs()) {
      const remainingMs = deadlineMs - nowMs;
      if (remainingMs <= 0) throw gaveUp(row, attempt);
      const route = this.#routeOf(row);
      if (route === undefined) {
        attempt.last = "the cluster has no map of its tablets yet";
        await this.#refreshRoutes([]);
        await this.#backOff(attempt, deadlineMs, signal);
        continue;
      }
      if (!attempt.maybeApplied) this.#checkTogether(rows, route);
      const bound = isRead(method) ? boundOf(options, route) : null;
      // A replica that is not new enough passes the read on to the primary.
      const relaxed = bound !== null && attempt.count === 0;
      const node = attempt.hint ?? (relaxed ? this.#anyMember(route) : route.primary);
      attempt.hint = null;
      try {
        const timeoutMs = Math.min(ATTEMPT_MS, remainingMs);
        const request: Record<string, unknown> = { ...body, gid: route.gid, hops: 0 };
        if (bound !== null) request.bound = bound;
        if (mutated("retry-with-new-number") && method === "apply") {
          const stamp = body.stamp as RequestStamp;
          request.stamp = { ...stamp, clientId: `${stamp.clientId}-${attempt.count}` };
        }
        const callOptions = signal === undefined ? { timeoutMs } : { timeoutMs, signal };
        const answer = await this.#transport.call(node, method, request, payload, callOptions);
        if (isRead(method)) options.session?.see(route.gid, (answer.body as { lsn: Lsn }).lsn);
        return { body: answer.body, payload: answer.payload, route };
      } catch (error) {
        if (signal?.aborted) throw error;
        await this.#recover(error, { node, route, attempt, method, body, deadlineMs, signal });
      }
    }
  }

  /** Decides after a failed attempt: throws when it is final, otherwise prepares the next one. */
  async #recover(
    error: unknown,
    context: {
      node: NodeId;
      route: Route;
      attempt: Attempt;
      method: KvMethod;
      body: Record<string, unknown>;
      deadlineMs: number;
      signal: AbortSignal | undefined;
    },
  ): Promise<void> {
    const { node, route, attempt, method, body, deadlineMs, signal } = context;
    this.retryCount += 1;
    if (error instanceof NotAnsweredError) {
      if (error.sent && WRITES.has(method)) attempt.maybeApplied = true;
      attempt.last = error.message;
      // The dead node is the last to know; its peers or the coordinator may already.
      await this.#refreshRoutes(route.members.filter((member) => member !== node));
      return this.#backOff(attempt, deadlineMs, signal);
    }
    if (!(error instanceof KvError)) throw error;
    attempt.last = error.message;
    const details = detailsOf(error);
    if (details.maybeApplied === true) attempt.maybeApplied = true;
    switch (error.code) {
      case "not_primary":
      case "wrong_tablet":
        if (details.hint != null && details.hint !== node) attempt.hint = details.hint;
        else await this.#refreshRoutes(route.members);
        return this.#backOff(attempt, deadlineMs, signal);
      case "frozen":
        // It is over in a moment, and then it is said where the row is.
        attempt.count = Math.min(attempt.count, FROZEN_ROUND);
        return this.#backOff(attempt, deadlineMs, signal);
      case "unavailable":
      case "busy":
      case "outcome_unknown":
        if (error.code === "outcome_unknown") attempt.maybeApplied = true;
        await this.#refreshRoutes(route.members);
        return this.#backOff(attempt, deadlineMs, signal);
      case "disk_full":
        if (attempt.maybeApplied) throw gaveUp(route.startKey, attempt);
        throw error;
      case "session_too_old":
        if (details.groupTimeMs === undefined || attempt.maybeApplied) throw error;
        if (mutated("group-time-ignored")) throw error;
        this.#goByGroupTime(body, route.gid, details.groupTimeMs);
        return this.#backOff(attempt, deadlineMs, signal);
      default:
        throw error;
    }
  }

  /**
   * Our wall clock and the group's time are too far apart, or one of them has jumped. Which of them is
   * right does not matter: a stamp may bear any time that stays the same for as long as the request
   * could be executed, and this one was certainly not.
   */
  #goByGroupTime(body: Record<string, unknown>, gid: number, groupTimeMs: number): void {
    this.#clockOffsets.set(gid, groupTimeMs - this.#env.wallMs());
    body.stamp = { ...body.stamp as RequestStamp, issuedMs: Math.round(groupTimeMs) };
  }

  async #backOff(
    attempt: Attempt,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const ceiling = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** attempt.count);
    attempt.count = Math.min(attempt.count + 1, 16);
    const remainingMs = Math.max(0, deadlineMs - this.#env.monotonicMs());
    const waitMs = Math.min(remainingMs, ceiling * (0.5 + this.#env.random() / 2));
    await this.#env.sleep(waitMs, signal);
  }

  #checkTogether(rows: readonly string[], { gid }: Route): void {
    const apart = rows.find((row) => this.#routeOf(row)?.gid !== gid);
    if (apart === undefined) return;
    throw new RowsApartError(`Rows "${rows[0]}" and "${apart}" lie in several groups`);
  }

  #anyMember({ members, primary }: Route): NodeId {
    return members[Math.floor(this.#env.random() * members.length)] ?? primary;
  }

  #routeOf(row: string): Route | undefined {
    const { routes } = this.#table;
    let low = 0, high = routes.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1, route = routes[middle]!;
      if (inRange(row, route.startKey, route.endKey)) return route;
      if (compareKeys(row, route.startKey) < 0) high = middle - 1;
      else low = middle + 1;
    }
    return undefined;
  }

  /** One fetch at a time; those who ask meanwhile share its answer. */
  #refreshRoutes(preferred: readonly NodeId[]): Promise<void> {
    this.#fetching ??= this.#transport.fetchRoutes(preferred, (table) => this.offerRoutes(table))
      .finally(() => this.#fetching = null);
    return this.#fetching;
  }
}

/** How long a request may take, and what else its caller wants. */
interface Asked {
  /** Now, or just before. */
  readonly nowMs: number;
  readonly untilMs: number;
  /** But for its deadline. */
  readonly options: CallOptions;
  /** Of a request that is sent more than once. */
  readonly attempt?: Attempt;
}

interface Attempt {
  count: number;
  maybeApplied: boolean;
  hint: NodeId | null;
  last: string;
}

const newAttempt = (): Attempt => ({ count: 0, maybeApplied: false, hint: null, last: "" });

/** A request as proto/kv_wire.ts has it, without the stamp. */
function wireForm(
  rows: readonly string[],
  request: LogRequest,
): { method: KvMethod; body: Record<string, unknown>; inline: Uint8Array[] } {
  const inline: Uint8Array[] = [];
  switch (request.kind) {
    case "rowOp":
      return { method: "apply", body: { op: headOf(request.op, inline) }, inline };
    case "multiRow":
    case "prepare": {
      const { kind, ...rest } = request;
      const ops = request.ops.map((op) => headOf(op, inline));
      return { method: kind, body: { ...rest, ops }, inline };
    }
    case "settle": {
      const { kind, ...rest } = request;
      return { method: kind, body: { ...rest, row: rows[0]! }, inline };
    }
  }
}

/** An unknown outcome of clearing another's lock says nothing about the caller's own request. */
function asUnavailable(error: unknown): unknown {
  if (!(error instanceof KvError) || error.outcome === "not_applied") return error;
  return new KvError("unavailable", error.message, { cause: error });
}

function gaveUp(row: string, attempt: Attempt): KvError {
  return attempt.maybeApplied && !mutated("unknown-reported-as-failed")
    ? new KvError(
      "outcome_unknown",
      `Cannot tell whether the write to "${row}" happened: ${attempt.last}`,
    )
    : new KvError("unavailable", `Cannot reach the primary of "${row}": ${attempt.last}`);
}

function detailsOf(error: KvError): RefusalDetails {
  const details = "details" in error ? error.details : undefined;
  return typeof details === "object" && details !== null ? details : {};
}

const isRead = (method: KvMethod) => method === "get" || method === "getRow" || method === "scan";

/** What a read's options ask of a replica that is not the primary; null: the newest state only. */
function boundOf({ maxStaleMs, session }: CallOptions, { gid }: Route): ReadBound | null {
  if (maxStaleMs === undefined && session === undefined) return null;
  const minLsn = session?.seenOf(gid);
  return { ...(maxStaleMs === undefined ? {} : { maxStaleMs }), ...(minLsn ? { minLsn } : {}) };
}

/** Of two ends of ranges; null is behind all. */
function earlier(a: string | null, b: string | null): string | null {
  if (a === null || b === null) return a ?? b;
  return compareKeys(a, b) < 0 ? a : b;
}

function checkLimit(limit: number | undefined): void {
  if (limit === undefined) return;
  if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_CELLS_MAX) {
    throw new KvError("invalid_request", `A page has 1 to ${PAGE_CELLS_MAX} cells, not ${limit}`);
  }
}

function attachCells(heads: readonly CellHead[], payload: Uint8Array): Cell[] {
  let offset = 0;
  return heads.map((head) => {
    const { inline, ...cell } = head;
    if (!inline) return cell;
    const value = payload.subarray(offset, offset + head.size);
    offset += head.size;
    return { ...cell, value };
  });
}

function withoutUndefined(body: Record<string, unknown>): Record<string, unknown> {
  for (const name of Object.keys(body)) if (body[name] === undefined) delete body[name];
  return body;
}
