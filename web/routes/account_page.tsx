/** The account page and its forms. Each form answers with a redirect, or with the page and a mistake. */
import { type Context, Hono } from "hono";
import { setCookie } from "hono/cookie";
import type { Assets } from "../assets.ts";
import type { AppContext } from "../context.ts";
import { ApiError } from "../errors.ts";
import { AccountPage, type AccountPageProps } from "../pages/account.tsx";
import { chosenTheme, respondPage } from "../pages/document.tsx";
import { readForm } from "../read_form.ts";
import { clientAddress, findUser, type SessionUser, type WebEnv } from "../session.ts";
import { isTheme, THEME_COOKIE } from "../ui/theme.ts";
import { expectRefusal, toLogin } from "./pages.tsx";

/** What a redirect may announce; the address carries only the key. */
const DONE: Record<string, string> = {
  password: "Your password is changed. Every other session has ended.",
  ended: "The session has ended.",
  "ended-others": "All other sessions have ended.",
  revoked: "The app password is revoked.",
};

export function accountPageRoutes(context: AppContext, assets: Assets): Hono<WebEnv> {
  const { accounts, env } = context;
  const routes = new Hono<WebEnv>();

  const show = async (
    c: Context<WebEnv>,
    user: SessionUser,
    extra: Pick<AccountPageProps, "done" | "error" | "newAppPassword">,
    answer?: ApiError,
  ) => {
    const [account, sessions, appPasswords] = await Promise.all([
      accounts.find(user.username),
      accounts.sessions.list(user.username),
      accounts.appPasswords.list(user.username),
    ]);
    if (account === null) throw new ApiError(404, "no_such_user", "This account is gone.");
    const currentSessionId = user.session?.id ?? null;
    return respondPage(c, {
      assets,
      title: "Account",
      body: (
        <AccountPage
          {...{ user, account, sessions, appPasswords, currentSessionId, ...extra }}
          theme={chosenTheme(c)}
          nowMs={env.wallMs()}
        />
      ),
      ...(answer === undefined ? {} : { status: answer.status, headers: { ...answer.headers } }),
    });
  };

  /** Runs a form's action for whoever is logged in. */
  const action = (
    path: string,
    run: (c: Context<WebEnv>, user: SessionUser, form: URLSearchParams) => Promise<Response>,
  ) =>
    routes.post(path, async (c) => {
      const form = await readForm(c), user = await findUser(context, c);
      return user === null ? toLogin(c) : await run(c, user, form);
    });

  routes.get("/account", async (c) => {
    const user = await findUser(context, c);
    if (user === null) return toLogin(c);
    const done = DONE[c.req.query("done") ?? ""];
    return await show(c, user, done === undefined ? {} : { done });
  });

  action("/account/password", async (c, user, form) => {
    try {
      await accounts.changePassword({
        username: user.username,
        current: form.get("current") ?? "",
        next: form.get("new") ?? "",
        address: clientAddress(c),
        ...(user.session === null ? {} : { keep: user.session }),
      });
      return c.redirect("/account?done=password", 303);
    } catch (error) {
      const known = expectRefusal(error);
      const fields = { wrong_password: "current", weak_password: "new" } as const;
      const field = fields[known.code as keyof typeof fields] ?? null;
      return await show(c, user, { error: { field, message: known.message } }, known);
    }
  });

  action("/account/sessions/end", async (c, user, form) => {
    await accounts.sessions.end(user.username, form.get("id") ?? "none");
    return c.redirect("/account?done=ended#sessions", 303);
  });

  action("/account/sessions/end-others", async (c, user) => {
    const { session } = user;
    await accounts.sessions.endAll(user.username, session === null ? {} : { exceptId: session.id });
    return c.redirect("/account?done=ended-others#sessions", 303);
  });

  action("/account/app-passwords", async (c, user, form) => {
    const label = (form.get("label") ?? "").trim();
    if (label === "") {
      const error = { field: "label", message: "Say what it is for." } as const;
      return await show(c, user, { error }, new ApiError(422, "invalid_request", error.message));
    }
    try {
      const { password } = await accounts.appPasswords.create(user.username, label);
      return await show(c, user, { newAppPassword: { label, password } });
    } catch (error) {
      const known = expectRefusal(error);
      return await show(c, user, { error: { field: "label", message: known.message } }, known);
    }
  });

  action("/account/app-passwords/revoke", async (c, user, form) => {
    await accounts.appPasswords.revoke(user.username, form.get("id") || "none");
    return c.redirect("/account?done=revoked#app-passwords", 303);
  });

  routes.post("/account/theme", async (c) => {
    const theme = (await readForm(c)).get("theme") ?? undefined;
    if (isTheme(theme)) {
      setCookie(c, THEME_COOKIE, theme, { path: "/", maxAge: 31_536_000, sameSite: "Lax" });
    }
    return c.redirect("/account#theme", 303);
  });

  return routes;
}
