/**
 * The admin console's API, for administrators only. Mounted at `/api/v1/admin`.
 *
 * Beyond the published calls, `nodes/:port/value?row=&column=` gives one value whole, and `rows` goes
 * on with `cursor`, an earlier page's `next`. `tablets/split` and `tablets/merge` make a boundary
 * between tablets, or take it away, and answer when it is done. Orders to nodes are answered 202 when their host's
 * supervisor has taken them; that they are done shows in the status. Orders, and looks into values,
 * go to the log with the administrator's name.
 */
import { type Context, Hono } from "hono";
import { z } from "zod";
import { ClusterWatch } from "../admin/cluster_watch.ts";
import { eventStream } from "../admin/event_stream.ts";
import { requireAdminInTrouble } from "../admin/recent_admins.ts";
import { hideSecrets } from "../admin/secret_cells.ts";
import type { AppContext, CellPlace, RawCell } from "../context.ts";
import { ApiError } from "../errors.ts";
import { readJson } from "../read_json.ts";
import type { WebEnv } from "../session.ts";

const ORDERS = ["kill", "restart", "drain"] as const;
const PAGE_DEFAULT = 100, PAGE_MAX = 500;
const KEY_LENGTH_MAX = 1024;
const Boundary = z.object({ key: z.string().min(1).max(KEY_LENGTH_MAX) });

export function adminRoutes(context: AppContext): Hono<WebEnv> {
  const { admin, env } = context;
  const watch = new ClusterWatch(admin, env);
  const routes = new Hono<WebEnv>();
  routes.use(requireAdminInTrouble(context));
  routes.use(async (c, next) => {
    await next();
    c.res.headers.set("Cache-Control", "no-store");
  });

  routes.get("/cluster", async (c) => c.json(await admin.status()));

  for (const order of ORDERS) {
    routes.post(`/nodes/:port/${order}`, async (c) => {
      const port = knownPort(context, c);
      env.log("info", "an administrator gave an order", {
        order,
        port,
        user: c.var.user.username,
      });
      await admin[order](port);
      return c.json({ port, order }, 202);
    });
  }

  for (const kind of ["split", "merge"] as const) {
    routes.post(`/tablets/${kind}`, async (c) => {
      const { key } = await readJson(c, Boundary);
      env.log("info", "an administrator changed tablets", {
        kind,
        key,
        user: c.var.user.username,
      });
      await admin.reshape(kind, key);
      return c.json({ kind, key });
    });
  }

  routes.get("/nodes/:port/rows", async (c) => {
    const port = knownPort(context, c);
    const start = c.req.query("start") ?? "", cursor = c.req.query("cursor");
    if (start.length > KEY_LENGTH_MAX) throw invalid(`start: at most ${KEY_LENGTH_MAX} characters`);
    const page = await admin.rows(port, {
      start,
      limit: pageLimit(c),
      ...(cursor === undefined || cursor === "" ? {} : { after: readCursor(cursor) }),
    });
    return c.json({
      port,
      rows: groupByRow(page.cells, port),
      next: page.next === null ? null : writeCursor(page.next),
    });
  });

  routes.get("/nodes/:port/value", async (c) => {
    const port = knownPort(context, c);
    const row = c.req.query("row") ?? "", column = c.req.query("column") ?? "";
    if (row === "" || column === "") throw invalid("row and column: both are needed");
    if (hideSecrets({ row, column, head: new Uint8Array() }).secret) {
      throw new ApiError(
        403,
        "secret",
        "This cell keeps a secret, which nobody gets to see whole.",
      );
    }
    env.log("info", "an administrator looked at a value", {
      port,
      row,
      column,
      user: c.var.user.username,
    });
    const bytes = await admin.rowValue(port, { row, column });
    if (bytes === null) {
      throw new ApiError(404, "no_such_value", "This node does not hold such a value any more.");
    }
    // A stored page or script must come out as bytes to save, whatever the browser thinks of it.
    return c.body(bytes as Uint8Array<ArrayBuffer>, 200, {
      "Content-Type": "application/octet-stream",
      "Content-Length": String(bytes.length),
      "Content-Disposition": `attachment; filename="${fileName(row, column)}"`,
      "Content-Security-Policy": "default-src 'none'; sandbox",
    });
  });

  routes.get("/events", (c) => {
    const { stopping } = context;
    const body = eventStream({
      watch,
      env,
      lastEventId: c.req.header("last-event-id") ?? null,
      ...(stopping === undefined ? {} : { stopping }),
    });
    return c.body(body, 200, {
      "Content-Type": "text/event-stream; charset=utf-8",
      "X-Accel-Buffering": "no",
    });
  });

  return routes;
}

interface PublicCell {
  readonly column: string;
  readonly version: number;
  /** Bytes of the whole value. */
  readonly size: number;
  /** The value lies in a file of its own. */
  readonly large: boolean;
  readonly secret: boolean;
  /** The value, or its beginning, where it is text. */
  readonly text?: string;
  /** The same where it is not. */
  readonly base64?: string;
  /** There is more than is shown here. */
  readonly truncated: boolean;
  /** Where the whole value is; null when it is secret. */
  readonly link: string | null;
}

interface PublicRow {
  readonly row: string;
  readonly group: number;
  readonly cells: PublicCell[];
}

function groupByRow(cells: readonly RawCell[], port: number): PublicRow[] {
  const rows: PublicRow[] = [];
  let lastName: string | null = null;
  for (const cell of cells) {
    const shown = hideSecrets(cell);
    if (cell.row !== lastName) rows.push({ row: shown.row, group: cell.gid, cells: [] });
    lastName = cell.row;
    const query = new URLSearchParams({ row: cell.row, column: cell.column });
    const text = cell.large ? null : asText(shown.head);
    rows.at(-1)!.cells.push({
      column: shown.column,
      version: cell.version,
      size: cell.size,
      large: cell.large,
      secret: shown.secret,
      ...(cell.large ? {} : text === null ? { base64: shown.head.toBase64() } : { text }),
      truncated: cell.large || cell.head.length < cell.size,
      link: shown.secret ? null : `/api/v1/admin/nodes/${port}/value?${query}`,
    });
  }
  return rows;
}

/** The bytes as text, with a character that is cut at the end left out; null when they are none. */
function asText(bytes: Uint8Array): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    // deno-lint-ignore no-control-regex -- control characters are what we look for
    return /[\u0000-\u0008\u000b\u000c\u000e-\u001f]/.test(text) ? null : text;
  } catch {
    return null;
  }
}

/** A cursor is the last cell's place, written so that nobody takes it for a key to be edited. */
function writeCursor({ row, column }: CellPlace): string {
  return new TextEncoder().encode(JSON.stringify([row, column]))
    .toBase64({ alphabet: "base64url", omitPadding: true });
}

function readCursor(cursor: string): CellPlace {
  try {
    const bytes = Uint8Array.fromBase64(cursor, { alphabet: "base64url" });
    const [row, column, ...rest] = JSON.parse(new TextDecoder().decode(bytes));
    const isKey = (key: unknown): key is string =>
      typeof key === "string" && key !== "" && key.length <= KEY_LENGTH_MAX;
    if (isKey(row) && isKey(column) && rest.length === 0) return { row, column };
  } catch { /* Said below. */ }
  throw invalid("cursor: the `next` of an earlier page");
}

/** @throws {ApiError} 404 that lists the ports there are */
function knownPort(context: AppContext, c: Context): number {
  const text = c.req.param("port") ?? "";
  const nodes = context.config.node;
  const node = nodes.find(({ port }) => String(port) === text);
  if (node !== undefined) return node.port;
  const ports = nodes.map(({ port, role, id }) => `${port} (${role}/${id})`).join(", ");
  const message = `No node has port ${JSON.stringify(text.slice(0, 20))}. There are ${ports}.`;
  throw new ApiError(404, "no_such_node", message);
}

function pageLimit(c: Context): number {
  const text = c.req.query("limit");
  if (text === undefined || text === "") return PAGE_DEFAULT;
  const limit = Number(text);
  if (Number.isInteger(limit) && limit >= 1) return Math.min(limit, PAGE_MAX);
  throw invalid(`limit: a whole number from 1 to ${PAGE_MAX}`);
}

function fileName(row: string, column: string): string {
  return `${row}.${column}`.replaceAll(/[^A-Za-z0-9._-]+/g, "-").slice(0, 100) || "value";
}

function invalid(message: string): ApiError {
  return new ApiError(422, "invalid_request", `${message}.`);
}
