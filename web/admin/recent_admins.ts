/**
 * Lets administrators keep working while the store is away, which is when they are needed most.
 *
 * Who somebody is lies in the store. A frontend therefore remembers, in memory and for ten minutes,
 * the credentials that it has seen belong to an administrator, and trusts them only when the store
 * cannot answer. An administrator whose session is ended at that very moment keeps the console on
 * this frontend until the store is back, at most those ten minutes.
 */
import type { Context, MiddlewareHandler } from "hono";
import { getCookie } from "hono/cookie";
import { KvError } from "../../kv/errors.ts";
import type { AppContext } from "../context.ts";
import { ApiError } from "../errors.ts";
import {
  findUser,
  requireAdmin,
  SESSION_COOKIE,
  type SessionUser,
  type WebEnv,
} from "../session.ts";

const TRUST_MS = 10 * 60_000;
const REMEMBERED_MAX = 100;
/** Longer than any read of a healthy store; failovers take more. */
const PATIENCE_MS = 1_000;

/** As `requireAdmin`, except that the store's absence does not lock known administrators out. */
export function requireAdminInTrouble(context: AppContext): MiddlewareHandler<WebEnv> {
  const { env } = context;
  const ask = requireAdmin(context);
  const known = new Map<string, { user: SessionUser; untilMs: number }>();

  const remember = (credential: string, user: SessionUser) => {
    known.delete(credential);
    known.set(credential, { user, untilMs: env.monotonicMs() + TRUST_MS });
    if (known.size > REMEMBERED_MAX) known.delete(known.keys().next().value!);
  };

  return async (c, next) => {
    const credential = credentialOf(c);
    const trusted = credential === null ? undefined : known.get(credential);
    if (credential === null || trusted === undefined || trusted.untilMs < env.monotonicMs()) {
      return await ask(c, async () => {
        if (credential !== null) remember(credential, c.var.user);
        await next();
      });
    }
    const user = await orAway(context, findUser(context, c));
    if (user === "away") c.set("user", trusted.user);
    else if (user?.admin) {
      remember(credential, user);
      c.set("user", user);
    } else {
      known.delete(credential);
      throw user === null
        ? new ApiError(401, "not_signed_in", "Log in first.")
        : new ApiError(403, "admins_only", "Only administrators may see this.");
    }
    await next();
  };
}

async function orAway<T>({ env }: AppContext, answer: Promise<T>): Promise<T | "away"> {
  const answered = new AbortController();
  const patience = env.sleep(PATIENCE_MS, answered.signal).then(() => "away" as const);
  patience.catch(() => {});
  try {
    return await Promise.race([answer, patience]);
  } catch (error) {
    if (error instanceof KvError) return "away";
    throw error;
  } finally {
    answered.abort();
    answer.catch(() => {}); // It may still fail when nobody waits for it any more.
  }
}

function credentialOf(c: Context<WebEnv>): string | null {
  return getCookie(c, SESSION_COOKIE) ?? c.req.header("authorization") ?? null;
}
