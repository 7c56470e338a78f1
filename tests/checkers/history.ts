/**
 * Histories: what clients asked of the store, when, and what they were told. The checkers beside
 * this file judge them without knowing anything of how the store works.
 *
 * As a file a history is JSON lines, one event each. Every call leaves an `invoke` line before it is
 * sent, and one of these once it is over:
 *
 *     ok     it was executed; `result` is the answer
 *     fail   it was certainly not executed; with a `result`, because a condition did not hold
 *     info   nobody knows: no answer, or an error that says so
 *
 *     {"client":"c1","id":4,"op":"put","row":"r","column":"x","value":"a","type":"invoke","time_ns":10}
 *     {"client":"c1","id":4,"op":"put","row":"r","column":"x","value":"a","type":"ok","time_ns":25,
 *      "result":{"applied":true,"version":7}}
 *
 * A completion belongs to the client's open call with the same `id`; clients that have one call at
 * a time may leave ids out. A call that is never completed counts as `info`. **The order of the lines
 * is the order of the events**; `time_ns` may not fall from line to line. A read that is `ok` has what
 * it found in `result` and, for readers that only look there, in `value` too. Values are text: those
 * that are long or binary appear as a digest ({@link valueLabel}). A compare-and-put names what it
 * expects as `old` (a value, or null for absent) or as `old_version`.
 *
 * In memory the same is a list of {@link Operation}s. Start at {@link HistoryRecorder} to make one, at
 * {@link parseHistory} to read one. `RecordedKv` (recorded_kv.ts) records whatever goes through a `Kv`.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { Condition as KvCondition, Mutation as KvMutation, RowOp } from "../../kv/kv.ts";

const Version = z.int().nonnegative();

export const Condition = z.union([
  z.strictObject({ column: z.string(), is: z.enum(["absent", "present"]) }),
  z.strictObject({ column: z.string(), is: z.literal("version"), version: Version }),
  z.strictObject({ column: z.string(), is: z.literal("value"), value: z.string() }),
]);
export type Condition = z.infer<typeof Condition>;

export const Mutation = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("put"), column: z.string(), value: z.string() }),
  z.strictObject({ kind: z.literal("delete"), column: z.string() }),
  z.strictObject({ kind: z.literal("deletePrefix"), prefix: z.string() }),
  z.strictObject({ kind: z.literal("add"), column: z.string(), by: z.int() }),
  z.strictObject({
    kind: z.literal("append"),
    counter: z.string(),
    prefix: z.string(),
    value: z.string(),
  }),
]);
export type Mutation = z.infer<typeof Mutation>;

/** One step of a transaction over lists; what a read found is in the result, in order of reads. */
export const TxnStep = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("append"), key: z.string(), element: z.string() }),
  z.strictObject({ kind: z.literal("read"), key: z.string() }),
]);
export type TxnStep = z.infer<typeof TxnStep>;

/** What a client asks. */
export const Call = z.discriminatedUnion("op", [
  z.strictObject({
    op: z.literal("put"),
    row: z.string(),
    column: z.string(),
    value: z.string(),
  }),
  z.strictObject({ op: z.literal("delete"), row: z.string(), column: z.string() }),
  z.strictObject({ op: z.literal("get"), row: z.string(), column: z.string() }),
  z.strictObject({
    op: z.literal("cput"),
    row: z.string(),
    column: z.string(),
    value: z.string(),
    old: z.string().nullable().optional(),
    old_version: Version.optional(),
  }),
  /** All columns that begin with `prefix`, at one instant. */
  z.strictObject({ op: z.literal("getRow"), row: z.string(), prefix: z.string().optional() }),
  z.strictObject({
    op: z.literal("apply"),
    row: z.string(),
    conditions: z.array(Condition),
    mutations: z.array(Mutation),
  }),
  z.strictObject({ op: z.literal("txn"), steps: z.array(TxnStep) }),
]);
export type Call = z.infer<typeof Call>;

/** What a client is told. Which fields there are depends on the call. */
export const Result = z.strictObject({
  /** Writes: false when a condition did not hold. */
  applied: z.boolean().optional(),
  /** Writes: of every cell written, or of the condition's column. `get`: of the cell, 0 for none. */
  version: Version.optional(),
  /** The first condition that did not hold. */
  conditionIndex: z.int().nonnegative().optional(),
  /** The results of `add` and `append`, in order. */
  numbers: z.array(z.number()).optional(),
  /** `get`: null when there is no such cell. */
  value: z.string().nullable().optional(),
  cells: z.array(z.strictObject({
    column: z.string(),
    value: z.string(),
    version: Version.optional(),
  })).optional(),
  /** `txn`: what each read found, in order. */
  lists: z.array(z.array(z.string())).optional(),
});
export type Result = z.infer<typeof Result>;

const EventHead = z.object({
  client: z.string().min(1),
  id: z.int().optional(),
  type: z.enum(["invoke", "ok", "fail", "info"]),
  time_ns: z.number().nonnegative(),
  result: Result.optional(),
  /** Why it failed, or why nobody knows. */
  error: z.string().optional(),
});
export type EventHead = z.infer<typeof EventHead>;
/** One line. A read that is over names what it found where a write has what it wrote. */
export type HistoryEvent =
  & EventHead
  & (Exclude<Call, { op: "get" }> | Call & { op: "get"; value?: string | null });

export type Outcome = "ok" | "fail" | "unknown";

export interface Operation {
  /** Position in the history, from 0. */
  readonly id: number;
  readonly process: string;
  readonly call: Call;
  readonly outcome: Outcome;
  /** With "ok" the answer; with "fail" there is one only when a condition did not hold. */
  readonly result: Result | null;
  readonly error: string | null;
  /** Positions of the two events in the history, for order. No return: `Infinity`. */
  readonly callIndex: number;
  readonly returnIndex: number;
  /** The same for people. */
  readonly callNs: number;
  readonly returnNs: number;
}

export class HistoryError extends Error {
  override readonly name = "HistoryError";
}

// --------------------------------------------------------------------------- recording

export interface OpenCall {
  readonly process: string;
  readonly id: number;
}

/**
 * Writes a history down while it happens. Call `invoke` before the request leaves and the others
 * after the answer is there; then what the recorder saw in order did happen in order.
 */
export class HistoryRecorder {
  readonly #nowNs: () => number;
  readonly #onEvent: ((event: HistoryEvent) => void) | null;
  readonly #operations: Mutable<Operation>[] = [];
  #eventCount = 0;
  #lastNs = 0;

  /** @param options.onEvent is given each line as it happens, for a file */
  constructor(
    options: { nowNs: () => number; onEvent?: (event: HistoryEvent) => void },
  ) {
    this.#nowNs = options.nowNs;
    this.#onEvent = options.onEvent ?? null;
  }

  invoke(process: string, call: Call): OpenCall {
    const id = this.#operations.length, callNs = this.#time();
    this.#operations.push({
      id,
      process,
      call,
      outcome: "unknown",
      result: null,
      error: null,
      callIndex: this.#eventCount++,
      returnIndex: Infinity,
      callNs,
      returnNs: Infinity,
    });
    this.#onEvent?.({ client: process, id, ...call, type: "invoke", time_ns: callNs });
    return { process, id };
  }

  ok(open: OpenCall, result: Result = {}): void {
    this.#complete(open, { outcome: "ok", result });
  }

  /** Certainly not executed. `result` only when that is because a condition did not hold. */
  fail(open: OpenCall, reason: { result?: Result; error?: string } = {}): void {
    this.#complete(open, { outcome: "fail", ...reason });
  }

  /** A write's answer: `applied: false` is a failure that was observed. */
  answered(open: OpenCall, result: Result): void {
    if (result.applied === false) this.fail(open, { result });
    else this.ok(open, result);
  }

  unknown(open: OpenCall, error?: string): void {
    this.#complete(open, { outcome: "unknown", ...(error === undefined ? {} : { error }) });
  }

  get operations(): readonly Operation[] {
    return this.#operations;
  }

  #complete(
    open: OpenCall,
    end: { outcome: Outcome; result?: Result; error?: string },
  ): void {
    const operation = this.#operations[open.id];
    if (operation === undefined || operation.returnNs !== Infinity) {
      throw new HistoryError(
        `Call ${open.id} of "${open.process}" was completed twice or never made`,
      );
    }
    const { outcome, result = null, error = null } = end;
    operation.outcome = outcome;
    operation.result = result;
    operation.error = error;
    operation.returnNs = this.#time();
    const index = this.#eventCount++;
    // What nobody knows the end of may still happen at any later time.
    if (outcome !== "unknown") operation.returnIndex = index;
    this.#onEvent?.(completionEvent(operation));
  }

  #time(): number {
    this.#lastNs = Math.max(this.#lastNs, Math.round(this.#nowNs()));
    return this.#lastNs;
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const TYPE_OF = { ok: "ok", fail: "fail", unknown: "info" } as const;

function completionEvent(operation: Operation): HistoryEvent {
  const { id, process, call, outcome, result, error, returnNs } = operation;
  const head: EventHead = {
    client: process,
    id,
    type: TYPE_OF[outcome],
    time_ns: returnNs,
    ...(result === null ? {} : { result }),
    ...(error === null ? {} : { error }),
  };
  if (call.op === "get" && outcome === "ok") {
    return { ...call, value: result?.value ?? null, ...head };
  }
  return { ...call, ...head };
}

// ----------------------------------------------------------------------------- files

/**
 * Reads a history from JSON lines.
 *
 * @throws {HistoryError} names the line that is not an event, completes nothing or goes back in time
 */
export function parseHistory(text: string): Operation[] {
  const events = text.split("\n").flatMap((line, index) =>
    line.trim() === "" ? [] : [{ line: index + 1, event: parseLine(line, index + 1) }]
  );
  return pairEvents(events);
}

function parseLine(line: string, number: number): HistoryEvent {
  let data: unknown;
  try {
    data = JSON.parse(line);
  } catch (cause) {
    throw new HistoryError(`Line ${number} is not JSON`, { cause });
  }
  const head = EventHead.safeParse(data);
  if (!head.success) throw new HistoryError(`Line ${number}: ${z.prettifyError(head.error)}`);
  const { client: _1, id: _2, type, time_ns: _3, result: _4, error: _5, ...rest } = data as
    & Record<string, unknown>
    & EventHead;
  if (rest.op === "get" && type === "ok") delete rest.value;
  const call = Call.safeParse(rest);
  if (!call.success) throw new HistoryError(`Line ${number}: ${z.prettifyError(call.error)}`);
  return { ...head.data, ...call.data };
}

/** Finds the completion of every invocation. */
function pairEvents(events: readonly { line: number; event: HistoryEvent }[]): Operation[] {
  const operations: Mutable<Operation>[] = [];
  const open = new Map<string, Mutable<Operation>>();
  let lastNs = 0;
  for (const [index, { line, event }] of events.entries()) {
    const { client, id, type, time_ns: timeNs, result = null, error = null, ...call } = event;
    if (timeNs < lastNs) throw new HistoryError(`Line ${line} goes back in time`);
    lastNs = timeNs;
    const key = JSON.stringify([client, id ?? null]);
    if (type === "invoke") {
      if (open.has(key)) {
        throw new HistoryError(`Line ${line}: client "${client}" already has this call open`);
      }
      const operation: Mutable<Operation> = {
        id: operations.length,
        process: client,
        call: call as Call,
        outcome: "unknown",
        result: null,
        error: null,
        callIndex: index,
        returnIndex: Infinity,
        callNs: timeNs,
        returnNs: Infinity,
      };
      operations.push(operation);
      open.set(key, operation);
      continue;
    }
    const operation = open.get(key);
    if (operation === undefined) {
      throw new HistoryError(`Line ${line}: client "${client}" completes a call it did not make`);
    }
    open.delete(key);
    operation.outcome = type === "info" ? "unknown" : type;
    operation.result = result;
    operation.error = error;
    operation.returnNs = timeNs;
    if (type !== "info") operation.returnIndex = index;
  }
  return operations;
}

/** The lines of a history, in order. */
export function* historyLines(operations: Iterable<Operation>): Generator<string> {
  const events: { index: number; event: HistoryEvent }[] = [];
  for (const operation of operations) {
    const { id, process, call, callIndex, callNs, returnIndex, returnNs } = operation;
    const event = { client: process, id, ...call, type: "invoke" as const, time_ns: callNs };
    events.push({ index: callIndex, event });
    if (returnNs === Infinity) continue;
    events.push({ index: returnIndex, event: completionEvent(operation) });
  }
  // The end of a call that nobody knows the outcome of has no place but its time.
  events.sort((a, b) => a.event.time_ns - b.event.time_ns || a.index - b.index);
  for (const { event } of events) yield JSON.stringify(event);
}

// ------------------------------------------------------------------- the store's own shapes

const LABEL_BYTES_MAX = 80;
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** A value as histories show it: short text as it is, anything else by length and digest. */
export function valueLabel(value: Uint8Array): string {
  if (value.length <= LABEL_BYTES_MAX) {
    try {
      return utf8.decode(value);
    } catch {
      // Not text.
    }
  }
  const digest = createHash("sha256").update(value).digest("hex").slice(0, 32);
  return `${value.length} bytes ${digest}`;
}

/** A row operation as a call, in its simplest form. */
export function callOf(op: RowOp): Call & { op: "put" | "delete" | "cput" | "apply" } {
  const { row } = op, conditions = (op.conditions ?? []).map(labelCondition);
  const mutations = op.mutations.map(labelMutation);
  const [mutation] = mutations, [condition] = conditions;
  if (mutations.length === 1 && mutation !== undefined && conditions.length <= 1) {
    if (mutation.kind === "delete" && condition === undefined) {
      return { op: "delete", row, column: mutation.column };
    }
    if (mutation.kind === "put") {
      const { column, value } = mutation;
      if (condition === undefined) return { op: "put", row, column, value };
      if (condition.column === column) {
        const base = { op: "cput", row, column, value } as const;
        if (condition.is === "absent") return { ...base, old: null };
        if (condition.is === "value") return { ...base, old: condition.value };
        if (condition.is === "version") return { ...base, old_version: condition.version };
      }
    }
  }
  return { op: "apply", row, conditions, mutations };
}

const labelCondition = (condition: KvCondition): Condition =>
  condition.is === "value" ? { ...condition, value: valueLabel(condition.value) } : condition;

const labelMutation = (mutation: KvMutation): Mutation =>
  "value" in mutation ? { ...mutation, value: valueLabel(mutation.value) } : mutation;

// ----------------------------------------------------------------------------- in words

/** One operation in words, for people: `#3 c1: put r/x = "a" → version 7 (1.000 to 2.500 ms)`. */
export function describeOperation(operation: Operation): string {
  const { id, process, call, callNs, returnNs } = operation;
  const ms = (ns: number) => (ns / 1e6).toFixed(3);
  const end = returnNs === Infinity ? "on" : `to ${ms(returnNs)} ms`;
  return `#${id} ${process}: ${describeCall(call)} → ${describeEnd(operation)} (${
    ms(callNs)
  } ${end})`;
}

export function describeCall(call: Call): string {
  switch (call.op) {
    case "put":
      return `put ${call.row}/${call.column} = ${JSON.stringify(call.value)}`;
    case "delete":
      return `delete ${call.row}/${call.column}`;
    case "get":
      return `get ${call.row}/${call.column}`;
    case "getRow":
      return `get row ${call.row}${call.prefix ? `, columns ${call.prefix}…` : ""}`;
    case "cput": {
      const { old, old_version } = call;
      const expected = old !== undefined ? JSON.stringify(old) : `version ${old_version}`;
      return `compare-and-put ${call.row}/${call.column} from ${expected} to ${
        JSON.stringify(call.value)
      }`;
    }
    case "apply": {
      const conditions = call.conditions.map((item) => JSON.stringify(item)).join(", ");
      const mutations = call.mutations.map((item) => JSON.stringify(item)).join(", ");
      return `apply to ${call.row}${conditions === "" ? "" : ` if ${conditions}`}: ${mutations}`;
    }
    case "txn":
      return call.steps.map((step) =>
        step.kind === "read" ? `read ${step.key}` : `append ${step.element} to ${step.key}`
      ).join(", ");
  }
}

function describeEnd({ call, outcome, result, error }: Operation): string {
  if (outcome === "unknown") return `unknown${error === null ? "" : `: ${error}`}`;
  if (outcome === "fail" && result === null) return `failed${error === null ? "" : `: ${error}`}`;
  const { version, value, cells, numbers, lists } = result ?? {};
  const at = version === undefined ? "" : ` version ${version}`;
  if (call.op === "get") return value == null ? "nothing" : `${JSON.stringify(value)}${at}`;
  if (cells !== undefined) {
    return cells.map((cell) => `${cell.column}=${JSON.stringify(cell.value)}@${cell.version}`)
      .join(" ") || "an empty row";
  }
  if (lists !== undefined) return lists.map((list) => `[${list.join(" ")}]`).join(", ");
  if (outcome === "fail") return `refused, the column has${at || " another value"}`;
  return `done,${at}${numbers === undefined || numbers.length === 0 ? "" : ` numbers ${numbers}`}`;
}
