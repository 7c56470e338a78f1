/**
 * What a node answers: handlers bound to the conversations (proto/rpc.ts) they speak, so that one
 * connection can carry several conversations by method name.
 */
import type { Conversation, Method, ReplyOf, RequestOf } from "../../proto/rpc.ts";
import type { RpcConnection } from "./rpc_connection.ts";

/** An answer with raw bytes behind it. They must not change until they are written. */
export interface AnswerWithPayload<Rep> {
  readonly body: Rep;
  readonly payload: Uint8Array | readonly Uint8Array[];
  /** Called when the socket has taken the payload; never, if the answer does not leave. */
  readonly onWritten?: () => void;
}

export type Answer<M> = [ReplyOf<M>] extends [never] ? void
  : ReplyOf<M> | AnswerWithPayload<ReplyOf<M>>;

/**
 * One function per method. `payload` belongs to the handler, as does its buffer (payload_pool.ts). What it throws becomes the caller's
 * error: a KvError or RpcError with its code (and `details`), anything else as `internal`.
 */
export type Handlers<C extends Conversation> = {
  readonly [Name in keyof C]: (
    body: RequestOf<C[Name]>,
    payload: Uint8Array,
    connection: RpcConnection,
  ) => Answer<C[Name]> | Promise<Answer<C[Name]>>;
};

type ErasedHandler = (body: unknown, payload: Uint8Array, connection: RpcConnection) => unknown;

export interface BoundMethod {
  readonly method: Method<unknown, unknown>;
  readonly handle: ErasedHandler;
}

/** Methods by name. Made with `service()` and `services()`. */
export type RpcServices = ReadonlyMap<string, BoundMethod>;

export const NO_SERVICES: RpcServices = new Map();

/** Binds `handlers` to `conversation`. */
export function service<C extends Conversation>(
  conversation: C,
  handlers: Handlers<C>,
): RpcServices {
  return new Map(
    Object.entries(conversation).map(([name, method]) => [
      name,
      { method, handle: handlers[name] as ErasedHandler },
    ]),
  );
}

/** Several services on one connection. A method name may occur in one of them only. */
export function services(...parts: readonly RpcServices[]): RpcServices {
  const all = new Map<string, BoundMethod>();
  for (const part of parts) {
    for (const [name, bound] of part) {
      if (all.has(name)) throw new Error(`Cannot offer method "${name}" twice on one connection`);
      all.set(name, bound);
    }
  }
  return all;
}

export function isAnswerWithPayload(answer: unknown): answer is AnswerWithPayload<unknown> {
  if (typeof answer !== "object" || answer === null || !("payload" in answer)) return false;
  const { payload } = answer;
  return payload instanceof Uint8Array ||
    Array.isArray(payload) && payload.every((part) => part instanceof Uint8Array);
}
