/**
 * What a browser is told about our pages, and what we refuse from it.
 *
 * Headers: a content security policy without inline script or style, no sniffing, no framing by
 * others, no referrer. A route may set its own policy first (the frame that shows a mail's HTML
 * does); what is set stays.
 *
 * Requests that change something must come from our own pages. Browsers say where a request comes
 * from (`Sec-Fetch-Site`, `Origin`); programs say neither, and carry no cookie that a foreign page
 * could make them send.
 */
import type { Context, MiddlewareHandler } from "hono";
import type { AppContext } from "./context.ts";
import { ApiError } from "./errors.ts";

/** The policy of our own pages. `balancer` may be asked whether another frontend lives. */
export function contentSecurityPolicy(balancer: string | null): string {
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "media-src 'self' blob:",
    "font-src 'self'",
    `connect-src 'self'${balancer === null ? "" : ` ${balancer}`}`,
    "frame-src 'self' blob:",
    "worker-src 'self'",
    "manifest-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'self'",
  ].join("; ");
}

/** Where users reach the cluster as a whole, as seen from this request. */
export function balancerOrigin(context: AppContext, c: Context): string | null {
  const balancer = context.config.node.find((node) => node.role === "balancer");
  if (balancer === undefined || context.config.web.https) return null;
  const url = new URL(c.req.url);
  const host = context.config.web.public_host || url.hostname;
  return `${url.protocol}//${host}:${balancer.port}`;
}

export function securityHeaders(context: AppContext): MiddlewareHandler {
  return async (c, next) => {
    await next();
    const headers = c.res.headers;
    const set = (name: string, value: string) => {
      if (!headers.has(name)) headers.set(name, value);
    };
    set("Content-Security-Policy", contentSecurityPolicy(balancerOrigin(context, c)));
    set("X-Content-Type-Options", "nosniff");
    set("Referrer-Policy", "same-origin");
    set("Cross-Origin-Opener-Policy", "same-origin");
    set("Cross-Origin-Resource-Policy", "same-origin");
    set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()");
    // Browsers answer the requests of a page that was gone back to from their cache, unless told.
    if (c.req.path.startsWith("/api/")) set("Cache-Control", "no-store");
    if (context.config.web.https) set("Strict-Transport-Security", "max-age=31536000");
  };
}

const SAFE_METHODS = new Set(["GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT"]);

/** Refuses what a page of another origin asks a browser to change: 403 `other_origin`. */
export function sameOriginOnly(): MiddlewareHandler {
  return async (c, next) => {
    if (!SAFE_METHODS.has(c.req.method) && !isOurs(c)) {
      throw new ApiError(403, "other_origin", "This request came from another website.");
    }
    await next();
  };
}

function isOurs(c: Context): boolean {
  const site = c.req.header("sec-fetch-site");
  if (site !== undefined) return site === "same-origin" || site === "none";
  const origin = c.req.header("origin");
  if (origin === undefined) return true;
  try {
    return new URL(origin).host === (c.req.header("host") ?? new URL(c.req.url).host);
  } catch {
    return false; // "null": a sandboxed frame or a redirect through elsewhere.
  }
}
