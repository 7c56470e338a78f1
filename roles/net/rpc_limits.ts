/** How much of anything one connection may hold, and what its messages may weigh. */
import { FRAME_LIMITS, type FrameLimits } from "../../proto/codec.ts";

export interface RpcLimits {
  readonly frame: FrameLimits;
  /** Requests of the peer that run at once, and the bytes of their payloads. Then we stop reading. */
  readonly servedMax: number;
  readonly servedPayloadBytesMax: number;
  /** Own calls that wait for an answer. Then calls fail with `busy`. */
  readonly pendingMax: number;
  /** Bytes that wait for the socket. Then calls fail with `busy` and notices are dropped. */
  readonly queuedBytesMax: number;
  /** Answers that the peer does not take: above the first we stop reading, above the other we close. */
  readonly answerBytesPause: number;
  readonly answerBytesMax: number;
  /** With calls pending and nothing heard for so long: ask, and in the end give up. */
  readonly pingAfterMs: number;
  readonly deadAfterMs: number;
}

const MIB = 1024 * 1024;

export const RPC_LIMITS: RpcLimits = {
  frame: FRAME_LIMITS,
  servedMax: 1024,
  servedPayloadBytesMax: 64 * MIB,
  pendingMax: 16 * 1024,
  queuedBytesMax: 32 * MIB,
  answerBytesPause: 8 * MIB,
  answerBytesMax: 256 * MIB,
  pingAfterMs: 3_000,
  deadAfterMs: 10_000,
};

/** Raw bytes behind a line: one array, or several that arrive as one. */
export type Payload = Uint8Array | readonly Uint8Array[];

export const NO_PARTS: readonly Uint8Array[] = [];

export function toParts(payload: Payload | undefined): readonly Uint8Array[] {
  if (payload === undefined) return NO_PARTS;
  return payload instanceof Uint8Array ? [payload] : payload;
}

export function byteCount(parts: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const part of parts) bytes += part.length;
  return bytes;
}

/** What makes a message too large for the protocol, or null when it fits. */
export function describeExcess(
  limits: FrameLimits,
  message: { readonly line: string; readonly payloadBytes: number },
): string | null {
  const { lineBytesMax, payloadBytesMax } = limits;
  const { line, payloadBytes } = message;
  if (payloadBytes > payloadBytesMax) {
    return `${payloadBytes} bytes of payload are over the limit of ${payloadBytesMax}`;
  }
  // Counted only where it could matter: UTF-8 needs at most three bytes per UTF-16 unit.
  if (line.length * 3 <= lineBytesMax) return null;
  const lineBytes = new TextEncoder().encode(line).length;
  if (lineBytes <= lineBytesMax) return null;
  return `${lineBytes} bytes of JSON are over the limit of ${lineBytesMax}`;
}
