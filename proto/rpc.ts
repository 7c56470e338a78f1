/**
 * Requests, answers and notices: what a frame's line (codec.ts) says once the handshake is over.
 *
 *     {"id":7,"m":"apply","b":{…}}            request; its answer repeats the id
 *     {"re":7,"b":{…}}                        answer
 *     {"re":7,"error":{"code","message"}}     the request failed; the connection is fine
 *     {"m":"heartbeat","b":{…}}               notice: a request that has no answer
 *     {"error":{"code","message"}}            about the connection, which its sender then closes
 *     {"ping":1}  {"pong":1}                  is anybody there?
 *
 * Any of them but the last two may carry `"bytes": N` and a payload. Each side numbers its own
 * requests. A conversation lists methods by name with the zod schema of the body in both
 * directions; the receiving end parses.
 */
import type { z } from "zod";
import { FrameError } from "./codec.ts";

/** Each true only for what its schema would give back as it is. */
export interface PlainChecks {
  readonly request?: (body: unknown) => boolean;
  readonly reply?: (body: unknown) => boolean;
}

/** `reply: null` marks a notice. `Rep` is never then, so that `call` cannot be used on it. */
export interface Method<Req, Rep> {
  readonly request: z.ZodType<Req>;
  readonly reply: z.ZodType<Rep> | null;
  /** What spares frequent messages the schemas (plain.ts). */
  readonly plain: PlainChecks;
}

// deno-lint-ignore no-explicit-any -- a method's types matter only where its name is known
export type Conversation = Readonly<Record<string, Method<any, any>>>;

export function method<Req, Rep>(
  request: z.ZodType<Req>,
  reply: z.ZodType<Rep>,
  plain: PlainChecks = {},
): Method<Req, Rep> {
  return { request, reply, plain };
}

export function oneWay<Req>(
  request: z.ZodType<Req>,
  plain: Pick<PlainChecks, "request"> = {},
): Method<Req, never> {
  return { request, reply: null, plain };
}

export type RequestOf<M> = M extends Method<infer Req, infer _Rep> ? Req : never;
export type ReplyOf<M> = M extends Method<infer _Req, infer Rep> ? Rep : never;
/** The names of methods that are answered. */
export type CallName<C extends Conversation> =
  & string
  & { [Name in keyof C]: [ReplyOf<C[Name]>] extends [never] ? never : Name }[keyof C];
/** The names of notices. */
export type NoticeName<C extends Conversation> =
  & string
  & { [Name in keyof C]: [ReplyOf<C[Name]>] extends [never] ? Name : never }[keyof C];

export interface WireError {
  readonly code: string;
  readonly message: string;
  readonly details?: unknown;
}

export type Envelope =
  | {
    readonly kind: "request";
    readonly id: number;
    readonly method: string;
    readonly body: unknown;
  }
  | { readonly kind: "notice"; readonly method: string; readonly body: unknown }
  | { readonly kind: "reply"; readonly re: number; readonly body: unknown }
  | { readonly kind: "failure"; readonly re: number; readonly error: WireError }
  | { readonly kind: "broken"; readonly error: WireError }
  | { readonly kind: "ping" }
  | { readonly kind: "pong" };

const NAME_LENGTH_MAX = 64;
const CODE_LENGTH_MAX = 64;

/**
 * Sorts a line by what it is. Checked by hand rather than with zod: it runs for every message, and
 * zod's union would cost as much as parsing the JSON.
 *
 * @throws {FrameError} the line is none of the shapes above
 */
export function readEnvelope(line: Readonly<Record<string, unknown>>): Envelope {
  const { id, m, re, error } = line;
  if (typeof m === "string" && m.length <= NAME_LENGTH_MAX) {
    if (id === undefined) return { kind: "notice", method: m, body: line.b };
    if (isId(id)) return { kind: "request", id, method: m, body: line.b };
  } else if (isId(re)) {
    if (error === undefined) return { kind: "reply", re, body: line.b };
    if (isWireError(error)) return { kind: "failure", re, error };
  } else if (isWireError(error)) {
    return { kind: "broken", error };
  } else if (line.ping === 1) {
    return { kind: "ping" };
  } else if (line.pong === 1) {
    return { kind: "pong" };
  }
  throw new FrameError(
    "bad_message",
    "Cannot read a message: it is no request, answer, notice, error or ping",
  );
}

function isId(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value > 0;
}

function isWireError(value: unknown): value is WireError {
  if (typeof value !== "object" || value === null) return false;
  const { code, message } = value as Record<string, unknown>;
  return typeof code === "string" && code.length <= CODE_LENGTH_MAX && typeof message === "string";
}
