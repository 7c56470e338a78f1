/** The built scripts, styles and icons at `/static/…`. */
import { Hono } from "hono";
import type { Assets } from "../assets.ts";
import { ApiError } from "../errors.ts";
import type { WebEnv } from "../session.ts";

const FOR_EVER = "public, max-age=31536000, immutable";
const FOR_AN_HOUR = "public, max-age=3600";

export function staticRoutes(assets: Assets): Hono<WebEnv> {
  const routes = new Hono<WebEnv>();
  routes.get("/static/:name", async (c) => {
    const name = c.req.param("name"), asset = assets.files.get(name);
    if (asset === undefined) throw new ApiError(404, "not_found", "There is no such file.");
    const named = /-[A-Z0-9]{8}\.\w+$/.test(name) || c.req.query("v") !== undefined;
    c.header("Content-Type", asset.type);
    c.header("Cache-Control", named ? FOR_EVER : FOR_AN_HOUR);
    c.header("Vary", "Accept-Encoding");
    if (!/\bgzip\b/.test(c.req.header("accept-encoding") ?? "")) return c.body(asset.bytes);
    c.header("Content-Encoding", "gzip");
    return c.body(await asset.gzip());
  });
  return routes;
}
