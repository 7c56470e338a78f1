/**
 * The web application of one frontend: the frame that every request passes, then the routes of the
 * API and the pages. It keeps no state of its own, so any frontend serves any request.
 */
import { type Context, Hono } from "hono";
import { InvariantViolation } from "../kv/invariant.ts";
import { Assets } from "./assets.ts";
import type { FullContext } from "./context.ts";
import { ApiError, internalError, toApiError } from "./errors.ts";
import { respondErrorPage } from "./pages/respond_error.tsx";
import { respondStyleguide } from "./pages/respond_styleguide.tsx";
import { accountPageRoutes } from "./routes/account_page.tsx";
import { accountRoutes } from "./routes/accounts.ts";
import { adminRoutes } from "./routes/admin.ts";
import { apiDocsRoutes } from "./routes/api_docs.tsx";
import { driveRoutes } from "./routes/drive.ts";
import { mailRoutes } from "./routes/mail.ts";
import { pageRoutes } from "./routes/pages.tsx";
import { staticRoutes } from "./routes/static.ts";
import { sameOriginOnly, securityHeaders } from "./security.ts";
import type { WebEnv } from "./session.ts";

export interface AppOptions {
  /** The built scripts and styles; without them pages are plain. */
  readonly assets?: Assets;
  /** Also serves `/styleguide`, every component at once. */
  readonly styleguide?: boolean;
}

export function createApp(context: FullContext, options: AppOptions = {}): Hono<WebEnv> {
  const { assets = Assets.none, styleguide = false } = options;
  const app = new Hono<WebEnv>();
  app.use(securityHeaders(context));
  app.use(sameOriginOnly());

  app.route("/", staticRoutes(assets));
  app.route("/api/v1", accountRoutes(context));
  app.route("/api/v1/admin", adminRoutes(context));
  app.route("/api/v1/mail", mailRoutes(context));
  app.route("/api/v1/drive", driveRoutes(context));
  app.route("/", apiDocsRoutes(assets));
  app.route("/", accountPageRoutes(context, assets));
  app.route("/", pageRoutes(context, assets));

  if (styleguide) {
    app.on("GET", ["/styleguide", "/styleguide/*"], (c) => respondStyleguide(c, assets));
  }

  const answer = (c: Context, error: ApiError) =>
    isProgram(c)
      ? c.json(error.toJson(), error.status, error.headers)
      : respondErrorPage(c, assets, error);

  app.notFound((c) => answer(c, new ApiError(404, "not_found", "There is nothing here.")));
  app.onError((error, c) => {
    if (error instanceof InvariantViolation) return context.env.fatal(error);
    const known = toApiError(error);
    if (known === null) {
      context.env.log("error", "a request failed", {
        method: c.req.method,
        path: c.req.path,
        error: error.stack ?? String(error),
      });
    }
    return answer(c, known ?? internalError());
  });
  return app;
}

/** Whether the client wants JSON rather than a page for people. */
function isProgram(c: Context): boolean {
  const { path } = c.req;
  if (path.startsWith("/api/") || path.startsWith("/dav") || path.startsWith("/static/")) {
    return true;
  }
  return !/\btext\/html\b|\*\/\*/.test(c.req.header("accept") ?? "*/*");
}
