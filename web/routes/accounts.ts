/** Accounts over HTTP: signing up, sessions, passwords, app passwords. Mounted at `/api/v1`. */
import { Hono } from "hono";
import { z } from "zod";
import type { Session } from "../../apps/accounts/sessions.ts";
import type { AppContext } from "../context.ts";
import { ApiError } from "../errors.ts";
import { readJson } from "../read_json.ts";
import {
  clientAddress,
  clientOf,
  findUser,
  giveCookie,
  requireUser,
  takeCookie,
  type WebEnv,
} from "../session.ts";

const Login = z.object({ username: z.string().max(200), password: z.string().max(1000) });
const PasswordChange = z.object({ current: z.string().max(1000), new: z.string().max(1000) });
const AppPasswordRequest = z.object({ label: z.string().trim().min(1).max(100) });

export function accountRoutes(context: AppContext): Hono<WebEnv> {
  const { accounts, config } = context;
  const routes = new Hono<WebEnv>();
  const user = requireUser(context);

  routes.post("/accounts", async (c) => {
    const { username, password } = await readJson(c, Login);
    if (config.web.signup === "closed") {
      throw new ApiError(403, "signup_closed", "Only an administrator makes accounts here.");
    }
    const account = await accounts.create({ username, password });
    const { token } = await accounts.startSession(account, clientOf(c));
    giveCookie(context, c, token);
    return c.json({ username: account.username, address: account.address }, 201);
  });

  routes.post("/session", async (c) => {
    const { username, password } = await readJson(c, Login);
    const { account, token } = await accounts.logIn({ username, password, ...clientOf(c) });
    giveCookie(context, c, token);
    const { address, admin } = account;
    return c.json({ username: account.username, address, admin });
  });

  routes.get("/session", user, (c) => {
    const { username, address, admin } = c.var.user;
    return c.json({ username, address, admin });
  });

  routes.delete("/session", async (c) => {
    const found = await findUser(context, c);
    if (found?.session) await accounts.sessions.end(found.username, found.session.id);
    takeCookie(context, c);
    return c.body(null, 204);
  });

  routes.get("/account", user, async (c) => {
    const account = await accounts.find(c.var.user.username);
    if (account === null) throw new ApiError(404, "no_such_user", "This account is gone.");
    const { username, address, admin, createdMs, passwordChangedMs } = account;
    return c.json({ username, address, admin, createdMs, passwordChangedMs });
  });

  routes.put("/account/password", user, async (c) => {
    const { current, new: next } = await readJson(c, PasswordChange);
    const { username, session } = c.var.user;
    await accounts.changePassword({
      username,
      current,
      next,
      address: clientAddress(c),
      ...(session === null ? {} : { keep: session }),
    });
    return c.body(null, 204);
  });

  routes.get("/account/sessions", user, async (c) => {
    const { username, session } = c.var.user;
    const sessions = await accounts.sessions.list(username);
    return c.json({ sessions: sessions.map((one) => describeSession(one, session?.id)) });
  });

  routes.delete("/account/sessions", user, async (c) => {
    const { username, session } = c.var.user;
    await accounts.sessions.endAll(username, session === null ? {} : { exceptId: session.id });
    return c.body(null, 204);
  });

  routes.delete("/account/sessions/:id", user, async (c) => {
    if (!await accounts.sessions.end(c.var.user.username, c.req.param("id"))) {
      throw new ApiError(404, "not_found", "This session has ended already.");
    }
    return c.body(null, 204);
  });

  routes.get("/account/app-passwords", user, async (c) => {
    return c.json({ appPasswords: await accounts.appPasswords.list(c.var.user.username) });
  });

  routes.post("/account/app-passwords", user, async (c) => {
    const { label } = await readJson(c, AppPasswordRequest);
    const { username } = c.var.user;
    const { password, entry } = await accounts.appPasswords.create(username, label);
    return c.json({ ...entry, password }, 201);
  });

  routes.delete("/account/app-passwords/:id", user, async (c) => {
    if (!await accounts.appPasswords.revoke(c.var.user.username, c.req.param("id"))) {
      throw new ApiError(404, "not_found", "This app password is revoked already.");
    }
    return c.body(null, 204);
  });

  return routes;
}

function describeSession(session: Session, currentId: string | undefined) {
  const { id, createdMs, lastUsedMs, expiresMs, device, address } = session;
  return { id, createdMs, lastUsedMs, expiresMs, device, address, current: id === currentId };
}
