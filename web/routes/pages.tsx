/**
 * The pages: before the door (login, sign-up), home, and the documents that the applications load
 * into. Every address below `/mail`, `/drive` and `/admin` gives the same document; the application
 * reads the rest of the address itself.
 */
import { type Context, Hono } from "hono";
import type { JSX } from "preact";
import { AccountError } from "../../apps/accounts/account_error.ts";
import type { Assets } from "../assets.ts";
import type { FullContext } from "../context.ts";
import { ApiError, toApiError } from "../errors.ts";
import { respondPage } from "../pages/document.tsx";
import { type GateForm, LoginPage, SignupClosedPage, SignupPage } from "../pages/gate.tsx";
import { HomePage } from "../pages/home.tsx";
import { readForm } from "../read_form.ts";
import { balancerOrigin } from "../security.ts";
import {
  clientOf,
  findUser,
  giveCookie,
  type SessionUser,
  takeCookie,
  type WebEnv,
} from "../session.ts";
import type { AppName } from "../ui/boot.ts";
import { SkeletonRows } from "../ui/components/skeleton.tsx";
import { AppShell } from "../ui/shell.tsx";

export function pageRoutes(context: FullContext, assets: Assets): Hono<WebEnv> {
  const { accounts, config } = context;
  const routes = new Hono<WebEnv>();
  const signupOpen = config.web.signup === "open";

  const login = (c: Context<WebEnv>, form: GateForm, status?: ApiError) =>
    respondPage(c, {
      assets,
      title: "Log in",
      body: (
        <LoginPage form={form} signupOpen={signupOpen} loggedOut={c.req.query("out") === "1"} />
      ),
      ...answerTo(status),
    });

  const signup = (c: Context<WebEnv>, form: GateForm, status?: ApiError) =>
    respondPage(c, {
      assets,
      title: "Create your account",
      body: signupOpen
        ? <SignupPage form={form} mailDomain={config.cluster.mail_domain} />
        : <SignupClosedPage />,
      ...answerTo(status),
    });

  routes.get("/login", async (c) => {
    const next = safeNext(c, c.req.query("next"));
    if (await findUser(context, c)) return c.redirect(next, 303);
    return login(c, { next });
  });

  routes.post("/login", async (c) => {
    const form = await readForm(c);
    const username = form.get("username") ?? "", password = form.get("password") ?? "";
    const next = safeNext(c, form.get("next"));
    try {
      const { token } = await accounts.logIn({ username, password, ...clientOf(c) });
      giveCookie(context, c, token);
      return c.redirect(next, 303);
    } catch (error) {
      const known = expectRefusal(error);
      const field = known.code === "wrong_credentials" ? "password" : null;
      return login(c, { username, next, error: { field, message: known.message } }, known);
    }
  });

  routes.get("/signup", async (c) => {
    const next = safeNext(c, c.req.query("next"));
    if (await findUser(context, c)) return c.redirect(next, 303);
    return signup(c, { next });
  });

  routes.post("/signup", async (c) => {
    const form = await readForm(c);
    const username = (form.get("username") ?? "").trim().toLowerCase();
    const password = form.get("password") ?? "", next = safeNext(c, form.get("next"));
    if (!signupOpen) return signup(c, { next });
    try {
      const account = await accounts.create({ username, password });
      const { token } = await accounts.startSession(account, clientOf(c));
      giveCookie(context, c, token);
      return c.redirect(next, 303);
    } catch (error) {
      const known = expectRefusal(error);
      const fields = {
        name_taken: "username",
        invalid_username: "username",
        weak_password: "password",
      };
      const field = fields[known.code as keyof typeof fields] as "username" | "password" ?? null;
      return signup(c, { username, next, error: { field, message: known.message } }, known);
    }
  });

  routes.post("/logout", async (c) => {
    const user = await findUser(context, c);
    if (user?.session) await accounts.sessions.end(user.username, user.session.id);
    takeCookie(context, c);
    return c.redirect("/login?out=1", 303);
  });

  routes.get("/", async (c) => {
    const user = await findUser(context, c);
    if (user === null) return c.redirect("/login", 303);
    const [folders, usage] = await Promise.all([
      context.mail.folders(user.username),
      context.drive.usage(user.username),
    ]);
    const unread = folders.find((folder) => folder.role === "inbox")?.unread ?? 0;
    const body = <HomePage user={user} unread={unread} usedBytes={usage.used} />;
    return respondPage(c, { assets, title: "PennCloud", body });
  });

  const application = (app: AppName, title: string) => async (c: Context<WebEnv>) => {
    const user = await findUser(context, c);
    if (user === null) return toLogin(c);
    if (app === "admin" && !user.admin) {
      throw new ApiError(403, "admins_only", "Only administrators may see this page.");
    }
    const balancer = balancerOrigin(context, c);
    const { username, address, admin } = user;
    const boot = {
      user: { username, address, admin },
      mailDomain: config.cluster.mail_domain,
      balancer,
    };
    const body = <LoadingApp app={app} user={user} />;
    return respondPage(c, { assets, title, body, app: { entry: app, boot } });
  };
  for (const [app, title] of [["mail", "Mail"], ["drive", "Drive"], ["admin", "Admin"]] as const) {
    routes.get(`/${app}`, application(app, title));
    routes.get(`/${app}/*`, application(app, title));
  }
  return routes;
}

function LoadingApp({ app, user }: { app: AppName; user: SessionUser }): JSX.Element {
  return (
    <AppShell app={app} user={user}>
      <SkeletonRows count={10} />
    </AppShell>
  );
}

/** Sends somebody who is not logged in to the login page, and back here afterwards. */
export function toLogin(c: Context): Response {
  const url = new URL(c.req.url);
  const next = c.req.method === "GET" ? url.pathname + url.search : "/";
  return c.redirect(`/login?next=${encodeURIComponent(next)}`, 303);
}

/** A form's mistakes are shown in the form; everything else flies on to the error page. */
export function expectRefusal(error: unknown): ApiError {
  if (!(error instanceof AccountError)) throw error;
  return toApiError(error)!;
}

function answerTo(error: ApiError | undefined) {
  return error === undefined ? {} : { status: error.status, headers: { ...error.headers } };
}

/** An address on this site, or home: nobody is sent elsewhere after logging in. */
function safeNext(c: Context, wanted: string | null | undefined): string {
  if (!wanted?.startsWith("/") || wanted.length > 2000) return "/";
  try {
    const base = new URL(c.req.url).origin, url = new URL(wanted, base);
    return url.origin === base ? url.pathname + url.search : "/";
  } catch {
    return "/";
  }
}
