/**
 * Commands between their two forms: with values attached, as the code uses them, and as the bytes
 * of a log entry (the format is told in proto/command.ts).
 */
import {
  CommandHead,
  isPlainRowOp,
  type MoveStepHead,
  type RequestStamp,
  type RowOpHead,
  type TxnStep,
  type ValueHead,
} from "../proto/command.ts";
import type { Epoch } from "../proto/ids.ts";
import { type BlobRef, isBlobRef } from "./cell_store.ts";
import { type IdleClients, SavedCompletions } from "./completions.ts";
import type { TxnRef } from "./outcome.ts";
import type { LogMutation, LogRowOp, LogValue } from "./row_op.ts";
import type { MoveStep } from "./tablet_move.ts";
import type { TabletOrder } from "./tablet_policy.ts";
import { TextBuffer } from "./text_buffer.ts";

/** What a client asks of a group, in the form that is logged. */
export type LogRequest =
  | { readonly kind: "rowOp"; readonly op: LogRowOp }
  /** Distinct rows; all or none. */
  | { readonly kind: "multiRow"; readonly ops: readonly LogRowOp[] }
  /** The same, but they are only locked, with what is to be done: see row_locks.ts. */
  | {
    readonly kind: "prepare";
    readonly txn: TxnRef;
    readonly ops: readonly LogRowOp[];
    readonly others: readonly string[];
    readonly lifeMs: number;
  }
  | {
    readonly kind: "settle";
    readonly txn: TxnRef;
    readonly step: TxnStep;
    readonly lifeMs: number;
  };

export type Command =
  | { readonly kind: "epochStart"; readonly reign: Epoch; readonly timeMs: number }
  | LogRequest & { readonly stamp: RequestStamp; readonly timeMs: number }
  | { readonly timeMs: number } & TabletOrder
  | { readonly kind: "forgetClients"; readonly timeMs: number } & IdleClients
  | { readonly kind: "move"; readonly timeMs: number; readonly step: MoveStep };

/** The row operations that a command or request consists of. */
export function rowOpsOf(command: Command | LogRequest): readonly LogRowOp[] {
  switch (command.kind) {
    case "rowOp":
      return [command.op];
    case "multiRow":
    case "prepare":
      return command.ops;
    case "epochStart":
    case "split":
    case "merge":
    case "forgetClients":
    case "settle":
    case "move":
      return [];
  }
}

/** The files that a command's large values lie in. Asked often, and nearly always there are none. */
export function blobsOf(command: Command | LogRequest): readonly BlobFile[] {
  if (command.kind === "rowOp") return blobsIn(command.op, NO_BLOBS);
  if (command.kind === "move") return blobsMoved(command.step);
  let blobs = NO_BLOBS;
  for (const op of rowOpsOf(command)) blobs = blobsIn(op, blobs);
  return blobs;
}

export interface BlobFile {
  readonly blob: string;
  readonly size: number;
}

const NO_BLOBS: readonly BlobFile[] = [];

function blobsMoved(step: MoveStep): readonly BlobFile[] {
  if (step.kind !== "stage") return NO_BLOBS;
  return step.cells.flatMap(({ value, size }) =>
    isBlobRef(value) ? [{ blob: value.blob, size }] : []
  );
}

function blobsIn(op: LogRowOp, before: readonly BlobFile[]): readonly BlobFile[] {
  let blobs = before;
  for (const part of op.mutations) {
    if (!("value" in part) || !isBlobRef(part.value.value)) continue;
    blobs = [...blobs, { blob: part.value.value.blob, size: part.value.size }];
  }
  return blobs;
}

export function encodeCommand(command: Command): Uint8Array {
  const inline: Uint8Array[] = [];
  const json = commandJson(command, inline);
  let length = 4 + json.length;
  for (const bytes of inline) length += bytes.length;
  const payload = new Uint8Array(length);
  for (let i = 0; i < 4; i++) payload[i] = json.length >>> (8 * i);
  payload.set(json, 4);
  let offset = 4 + json.length;
  for (const bytes of inline) {
    payload.set(bytes, offset);
    offset += bytes.length;
  }
  return payload;
}

/**
 * @param payload must not change afterwards: inline values are views into it
 * @throws when the bytes are not a command; log and wire have checksums, so this means a bug or a
 *   newer version
 */
export function decodeCommand(payload: Uint8Array): Command {
  if (payload.length < 4) throw new RangeError("the command is cut short");
  const byte = (at: number) => payload[at]! << (8 * at);
  const jsonEnd = 4 + ((byte(0) | byte(1) | byte(2) | byte(3)) >>> 0);
  const json: unknown = JSON.parse(decoder.decode(payload.subarray(4, jsonEnd)));
  const head = isPlainRowOp(json) ? json : CommandHead.parse(json);
  switch (head.kind) {
    case "rowOp":
      attachAllValues([head.op], payload, jsonEnd);
      return head as unknown as Command;
    case "multiRow":
    case "prepare":
      return { ...head, ops: attachAllValues(head.ops, payload.subarray(jsonEnd)) };
    case "move":
      return { ...head, step: attachMoved(head.step, payload.subarray(jsonEnd)) };
    case "epochStart":
    case "split":
    case "merge":
    case "forgetClients":
    case "settle":
      return head;
  }
}

/** Valid until the next call. The most frequent command is written by hand, in a third of the time. */
function commandJson(command: Command, inline: Uint8Array[]): Uint8Array {
  if (command.kind !== "rowOp") {
    return encoder.encode(JSON.stringify(commandHead(command, inline)));
  }
  const { stamp, timeMs, op } = command;
  text.clear();
  text.add('{"kind":"rowOp","stamp":{"clientId":').addString(stamp.clientId)
    .add(',"seq":').addNumber(stamp.seq)
    .add(',"firstIncomplete":').addNumber(stamp.firstIncomplete)
    .add(',"issuedMs":').addNumber(stamp.issuedMs)
    .add('},"timeMs":').addNumber(timeMs)
    .add(',"op":{"row":').addString(op.row).add(',"conditions":[');
  for (const [at, part] of op.conditions.entries()) {
    if (at > 0) text.add(",");
    text.add('{"is":"').add(part.is).add('","column":').addString(part.column);
    if (part.is === "value") writeValue(part.value, inline);
    if (part.is === "version") text.add(',"version":').addNumber(part.version);
    text.add("}");
  }
  text.add('],"mutations":[');
  for (let at = 0; at < op.mutations.length; at++) {
    if (at > 0) text.add(",");
    writeMutation(op.mutations[at]!, inline);
  }
  text.add("]}}");
  return text.bytes;
}

function writeMutation(part: LogMutation, inline: Uint8Array[]): void {
  text.add('{"kind":"').add(part.kind).add('"');
  switch (part.kind) {
    case "put":
      text.add(',"column":').addString(part.column);
      writeValue(part.value, inline);
      break;
    case "delete":
      text.add(',"column":').addString(part.column);
      break;
    case "deletePrefix":
      text.add(',"prefix":').addString(part.prefix);
      break;
    case "add":
      text.add(',"column":').addString(part.column).add(',"by":').addNumber(part.by);
      break;
    case "append":
      text.add(',"prefix":').addString(part.prefix).add(',"counter":').addString(part.counter);
      writeValue(part.value, inline);
  }
  text.add("}");
}

function writeValue({ size, crc, value }: LogValue, inline: Uint8Array[]): void {
  text.add(',"value":{"size":').addNumber(size).add(',"crc":').addNumber(crc);
  if (isBlobRef(value)) text.add(',"blob":').addString(value.blob);
  else inline.push(value);
  text.add("}");
}

function valueHead(value: LogValue, inline: Uint8Array[]): ValueHead {
  const { size, crc } = value;
  if (isBlobRef(value.value)) return { size, crc, blob: value.value.blob };
  inline.push(value.value);
  return { size, crc };
}

function commandHead(
  command: Exclude<Command, { kind: "rowOp" }>,
  inline: Uint8Array[],
): CommandHead {
  switch (command.kind) {
    case "multiRow":
      return { ...command, ops: command.ops.map((op) => headOf(op, inline)) };
    case "prepare":
      return {
        ...command,
        others: [...command.others],
        ops: command.ops.map((op) => headOf(op, inline)),
      };
    case "move":
      return { ...command, step: headOfMove(command.step, inline) };
    case "epochStart":
    case "split":
    case "merge":
    case "forgetClients":
    case "settle":
      return command;
  }
}

/** The JSON form of a step of a move, as `headOf` is that of an operation. */
export function headOfMove(step: MoveStep, inline: Uint8Array[]): MoveStepHead {
  if (step.kind !== "stage") return step;
  const cells = step.cells.map(({ row, column, version, size, crc, value }) => {
    if (isBlobRef(value)) return { row, column, version, value: { size, crc, blob: value.blob } };
    inline.push(value);
    return { row, column, version, value: { size, crc } };
  });
  return { ...step, cells, gone: [...step.gone] };
}

/** The inverse of `headOfMove`: inline values become views into `bytes`. */
export function attachMoved(step: MoveStepHead, bytes: Uint8Array): MoveStep {
  if (step.kind !== "stage") return step;
  let offset = 0;
  const cells = step.cells.map(({ row, column, version, value: { size, crc, blob } }) => {
    if (blob !== undefined) return { row, column, version, size, crc, value: { blob } };
    if (offset + size > bytes.length) throw new RangeError("the values are cut short");
    return { row, column, version, size, crc, value: bytes.subarray(offset, offset += size) };
  });
  return { ...step, cells, records: SavedCompletions.nullable().parse(step.records) };
}

/** The JSON form of an operation; the bytes of its inline values are pushed to `inline` in order. */
export function headOf(op: LogRowOp, inline: Uint8Array[]): RowOpHead {
  return {
    row: op.row,
    conditions: op.conditions.map((part) =>
      part.is === "value" ? { ...part, value: valueHead(part.value, inline) } : part
    ),
    mutations: op.mutations.map((part) =>
      "value" in part ? { ...part, value: valueHead(part.value, inline) } : part
    ),
  };
}

/** The inverse of `headOf`: values become views into `bytes`. */
export function attachValues(head: RowOpHead, bytes: Uint8Array): LogRowOp {
  return attachAllValues([head], bytes)[0]!;
}

/**
 * The same for several operations whose values lie one behind the other. The heads become the
 * operations; whoever parsed them does not use them any more.
 */
export function attachAllValues(
  heads: readonly RowOpHead[],
  bytes: Uint8Array,
  from = 0,
): LogRowOp[] {
  let offset = from;
  const attach = (value: ValueHead & { value?: Uint8Array | BlobRef }): void => {
    const { size, blob } = value;
    if (blob !== undefined) {
      value.value = { blob };
      delete value.blob;
      return;
    }
    if (offset + size > bytes.length) throw new RangeError("the values are cut short");
    value.value = bytes.subarray(offset, offset + size);
    offset += size;
  };
  for (const { conditions, mutations } of heads) {
    for (const part of conditions) if (part.is === "value") attach(part.value);
    for (const part of mutations) if ("value" in part) attach(part.value);
  }
  return heads as unknown as LogRowOp[];
}

const text = new TextBuffer();
const encoder = new TextEncoder();
const decoder = new TextDecoder();
