/** The description of the API: `/api/openapi.json` for programs, `/api/docs` to read. */
import { Hono } from "hono";
import type { Assets } from "../assets.ts";
import { openApiDocument } from "../openapi.ts";
import { ApiDocsPage } from "../pages/api_docs.tsx";
import { respondPage } from "../pages/document.tsx";
import type { WebEnv } from "../session.ts";

export function apiDocsRoutes(assets: Assets): Hono<WebEnv> {
  const routes = new Hono<WebEnv>();
  routes.get("/api/openapi.json", (c) => c.json(openApiDocument()));
  routes.get("/api/docs", (c) => respondPage(c, { assets, title: "API", body: <ApiDocsPage /> }));
  return routes;
}
