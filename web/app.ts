/**
 * The web application of one frontend: the frame that every request passes, then the routes of the
 * API and the pages. It keeps no state of its own, so any frontend serves any request.
 */
import { Hono } from "hono";
import { InvariantViolation } from "../kv/invariant.ts";
import type { AppContext } from "./context.ts";
import { ApiError, internalError, toApiError } from "./errors.ts";
import { accountRoutes } from "./routes/accounts.ts";
import { sameOriginOnly, securityHeaders } from "./security.ts";
import type { WebEnv } from "./session.ts";

export function createApp(context: AppContext): Hono<WebEnv> {
  const app = new Hono<WebEnv>();
  app.use(securityHeaders(context));
  app.use(sameOriginOnly());

  app.route("/api/v1", accountRoutes(context));

  app.notFound(() => {
    throw new ApiError(404, "not_found", "There is nothing here.");
  });
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
    const answer = known ?? internalError();
    return c.json(answer.toJson(), answer.status, answer.headers);
  });
  return app;
}
