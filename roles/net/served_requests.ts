/**
 * The requests of one peer that are being handled: parses them, runs their handlers, and turns what
 * comes out into answers. It knows how much is under way; when to stop taking more is the
 * connection's decision.
 */
import { encodeLine, FrameError } from "../../proto/codec.ts";
import { errorToWire, RpcError } from "./rpc_error.ts";
import type { RpcConnection, RpcErrorListener } from "./rpc_connection.ts";
import { byteCount, describeExcess, NO_PARTS, type RpcLimits, toParts } from "./rpc_limits.ts";
import { type BoundMethod, isAnswerWithPayload, type RpcServices } from "./rpc_service.ts";

export interface ServedRequestsOptions {
  readonly services: RpcServices;
  readonly limits: RpcLimits;
  /** What handlers get to see. */
  readonly connection: RpcConnection;
  readonly onError: RpcErrorListener;
  /** Sends one answer, unless the connection has ended. */
  readonly sendAnswer: (
    line: string,
    parts: readonly Uint8Array[],
    onWritten: (() => void) | null,
  ) => void;
  /** A request has been answered, so there is room for another. */
  readonly onSettled: () => void;
}

export interface IncomingRequest {
  /** Null for a notice, which has no answer. */
  readonly id: number | null;
  readonly name: string;
  readonly body: unknown;
  readonly payload: Uint8Array;
}

export class ServedRequests {
  count = 0;
  payloadBytes = 0;
  readonly #options: ServedRequestsOptions;

  constructor(options: ServedRequestsOptions) {
    this.#options = options;
  }

  get atLimit(): boolean {
    const { servedMax, servedPayloadBytesMax } = this.#options.limits;
    return this.count >= servedMax || this.payloadBytes >= servedPayloadBytesMax;
  }

  /** @throws {FrameError} the peer asks for what this node does not do; it has been told */
  begin(request: IncomingRequest): void {
    const { id, name } = request;
    const bound = this.#options.services.get(name);
    if (bound === undefined || (id === null) !== (bound.method.reply === null)) {
      const message = `Cannot answer "${name}": this node has no such method`;
      this.#fail(request, new RpcError("unknown_method", message));
      throw new FrameError("bad_message", message);
    }
    const { method } = bound;
    if (method.plain.request?.(request.body)) return this.#run(request, bound, request.body);
    const parsed = method.request.safeParse(request.body);
    if (parsed.success) return this.#run(request, bound, parsed.data);
    const message = `Cannot read ${name}: ${describeIssue(parsed.error)}`;
    this.#fail(request, new RpcError("invalid_request", message));
  }

  /** Refuses what there is no room for. */
  refuse(request: IncomingRequest): void {
    this.#fail(request, new RpcError("busy", `Cannot take on ${request.name}: too much to do`));
  }

  #run(request: IncomingRequest, bound: BoundMethod, body: unknown): void {
    const bytes = request.payload.length;
    this.count++;
    this.payloadBytes += bytes;
    const settle = (failed: boolean, result: unknown): void => {
      this.count--;
      this.payloadBytes -= bytes;
      if (failed) this.#fail(request, result);
      else this.#answer(request, result);
      this.#options.onSettled();
    };
    let result: unknown;
    try {
      result = bound.handle(body, request.payload, this.#options.connection);
    } catch (error) {
      return settle(true, error);
    }
    if (result instanceof Promise) {
      result.then((answer) => settle(false, answer), (error) => settle(true, error));
    } else {
      settle(false, result);
    }
  }

  #answer(request: IncomingRequest, result: unknown): void {
    const { id: re, name } = request;
    if (re === null) return;
    const withPayload = isAnswerWithPayload(result);
    const b = withPayload ? result.body : result;
    const parts = withPayload ? toParts(result.payload) : NO_PARTS, bytes = byteCount(parts);
    let line: string;
    try {
      line = encodeLine(bytes === 0 ? { re, b } : { re, b, bytes });
    } catch (error) {
      return this.#fail(request, error); // the handler's answer is no JSON
    }
    const excess = describeExcess(this.#options.limits.frame, { line, payloadBytes: bytes });
    const onWritten = withPayload ? result.onWritten ?? null : null;
    if (excess === null) this.#options.sendAnswer(line, parts, onWritten);
    else this.#fail(request, new Error(`Cannot send the answer to ${name}: ${excess}`));
  }

  #fail({ id, name }: IncomingRequest, error: unknown): void {
    const { expected, ...wireError } = errorToWire(error);
    // A notice has nobody to tell, so even an expected error goes to the listener.
    if (!expected || id === null) {
      this.#options.onError(error, { peer: this.#options.connection.peer, method: name });
    }
    if (id === null) return;
    this.#options.sendAnswer(encodeLine({ re: id, error: wireError }), NO_PARTS, null);
  }
}

/** The first thing that zod found wrong, and where. */
export function describeIssue(
  error: { readonly issues: readonly { readonly path: PropertyKey[]; readonly message: string }[] },
): string {
  const issue = error.issues[0]!;
  return `${issue.path.length === 0 ? "body" : issue.path.map(String).join(".")}: ${issue.message}`;
}
