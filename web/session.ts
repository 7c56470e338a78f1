/**
 * Who makes a request: the cookie `penncloud_session`, or HTTP Basic with a password or an app
 * password for scripts and programs. Sets `c.var.user`.
 */
import type { Context, MiddlewareHandler } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import type { Session } from "../apps/accounts/sessions.ts";
import type { AppContext } from "./context.ts";
import { ApiError } from "./errors.ts";

export interface SessionUser {
  readonly username: string;
  /** `alice@penncloud.test` */
  readonly address: string;
  readonly admin: boolean;
  /** Null when the request came with HTTP Basic. */
  readonly session: Session | null;
}

/** The types of our Hono applications: `new Hono<WebEnv>()`. */
export interface WebEnv {
  Variables: { user: SessionUser };
  Bindings: { clientAddress?: string };
}

export const SESSION_COOKIE = "penncloud_session";

/** Lets only users pass; anybody else gets 401 `not_signed_in`. */
export function requireUser(context: AppContext): MiddlewareHandler<WebEnv> {
  return async (c, next) => {
    const user = await findUser(context, c);
    if (user === null) throw notSignedIn(c);
    c.set("user", user);
    await next();
  };
}

/** Lets only administrators pass: 401 for nobody, 403 `admins_only` for other users. */
export function requireAdmin(context: AppContext): MiddlewareHandler<WebEnv> {
  return async (c, next) => {
    const user = await findUser(context, c);
    if (user === null) throw notSignedIn(c);
    if (!user.admin) throw new ApiError(403, "admins_only", "Only administrators may see this.");
    c.set("user", user);
    await next();
  };
}

/** Who asks, or null. Wrong credentials in HTTP Basic throw; a stale cookie is nobody. */
export async function findUser(
  context: AppContext,
  c: Context<WebEnv>,
): Promise<SessionUser | null> {
  const token = getCookie(c, SESSION_COOKIE);
  if (token !== undefined) {
    const found = await context.accounts.authenticate(token);
    if (found !== null) {
      if (found.prolonged) giveCookie(context, c, token);
      const { username, address, admin } = found.account;
      return { username, address, admin, session: found.session };
    }
  }
  const credentials = readBasic(c.req.header("authorization"));
  if (credentials === null) return null;
  const account = await context.accounts.verifyPassword({
    ...credentials,
    address: clientAddress(c),
  });
  return {
    username: account.username,
    address: account.address,
    admin: account.admin,
    session: null,
  };
}

/** Hands the session's token to the browser; it lives as long as the session does. */
export function giveCookie(context: AppContext, c: Context<WebEnv>, token: string): void {
  setCookie(c, SESSION_COOKIE, token, {
    path: "/",
    httpOnly: true,
    sameSite: "Lax",
    secure: context.config.web.https,
    maxAge: context.config.web.session_days * 24 * 60 * 60,
  });
}

export function takeCookie(context: AppContext, c: Context<WebEnv>): void {
  deleteCookie(c, SESSION_COOKIE, { path: "/", secure: context.config.web.https });
}

/** The address that limits on attempts go by. */
export function clientAddress(c: Context<WebEnv>): string {
  return c.env?.clientAddress ?? "local";
}

/** What the list of sessions shows for this client. */
export function clientOf(c: Context<WebEnv>): { device: string; address: string } {
  return { device: c.req.header("user-agent") ?? "", address: clientAddress(c) };
}

function notSignedIn(c: Context<WebEnv>): ApiError {
  // A browser's own script would make the browser show its password box.
  const fromPage = c.req.header("sec-fetch-mode") !== undefined;
  return new ApiError(401, "not_signed_in", "Log in first.", {
    headers: fromPage ? {} : { "WWW-Authenticate": 'Basic realm="PennCloud", charset="UTF-8"' },
  });
}

function readBasic(
  header: string | undefined,
): { username: string; password: string } | null {
  const match = /^basic\s+([A-Za-z0-9+/=]{1,2000})\s*$/i.exec(header ?? "");
  if (match === null) return null;
  try {
    const bytes = Uint8Array.from(atob(match[1]!), (char) => char.charCodeAt(0));
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    const colon = text.indexOf(":");
    if (colon < 0) return null;
    return { username: text.slice(0, colon), password: text.slice(colon + 1) };
  } catch {
    return null; // Not base64, or not UTF-8: as good as no credentials.
  }
}
