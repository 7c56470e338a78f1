/**
 * How a call can fail, and how errors cross the wire.
 *
 * A {@link KvError} keeps its code: the caller catches a KvError as if it had been thrown in its own
 * process. Everything else is an {@link RpcError}, whose `sent` tells whether the request may have
 * reached the other side.
 *
 * | code          | sent  | meaning                                                        |
 * | ------------- | ----- | -------------------------------------------------------------- |
 * | `unreachable` | no    | no connection could be made                                    |
 * | `refused`     | no    | the other end refused the handshake: version, cluster, secret  |
 * | `busy`        | no    | our queue to this peer is full                                 |
 * | `too_large`   | no    | the message is over the protocol's limits                      |
 * | `timeout`     | maybe | no answer within the time                                      |
 * | `closed`      | maybe | the connection ended before the answer                         |
 * | `bad_reply`   | yes   | the answer is not what the conversation says                   |
 * | `internal`    | yes   | the handler failed in a way that it did not foresee            |
 * | any other     | yes   | thrown by the handler as an RpcError                           |
 */
import { KvError, type KvErrorCode } from "../../kv/errors.ts";
import type { WireError } from "../../proto/rpc.ts";

export class RpcError extends Error {
  override readonly name = "RpcError";
  /** False when the request certainly never left this process. */
  readonly sent: boolean;
  /** What the handler added for its caller, as JSON. Not checked: parse it before use. */
  readonly details: unknown;

  constructor(
    readonly code: string,
    message: string,
    options: ErrorOptions & { readonly sent?: boolean; readonly details?: unknown } = {},
  ) {
    super(message, options);
    this.sent = options.sent ?? true;
    this.details = options.details;
  }
}

/** A KvError that was thrown by a handler on another node. */
export class RemoteKvError extends KvError {
  /** What the handler added for its caller, as JSON. Not checked: parse it before use. */
  readonly details: unknown;

  constructor(code: KvErrorCode, message: string, details: unknown) {
    super(code, message);
    this.details = details;
  }
}

// A record and not an array, so that a code missing here does not compile.
const KV_ERROR_CODES: Record<KvErrorCode, true> = {
  invalid_request: true,
  not_primary: true,
  wrong_tablet: true,
  frozen: true,
  unavailable: true,
  busy: true,
  disk_full: true,
  row_too_large: true,
  session_too_old: true,
  snapshot_too_old: true,
  outcome_unknown: true,
  corrupted: true,
};

/** The error that the caller gets for what the other side's handler threw. */
export function errorFromWire(error: WireError): Error {
  return Object.hasOwn(KV_ERROR_CODES, error.code)
    ? new RemoteKvError(error.code as KvErrorCode, error.message, error.details)
    : new RpcError(error.code, error.message, { details: error.details });
}

/** A handler's error as it travels. `details` goes along when the error has that property. */
export function errorToWire(error: unknown): WireError & { readonly expected: boolean } {
  const expected = error instanceof KvError || error instanceof RpcError;
  const message = error instanceof Error ? error.message : String(error);
  const details = error instanceof Error && "details" in error ? error.details : undefined;
  return {
    code: expected ? error.code : "internal",
    message: message.slice(0, 4096),
    ...(expected && details !== undefined ? { details } : {}),
    expected,
  };
}
