/**
 * The drive's API: `/api/v1/drive/…`. It reads the request, calls apps/drive, and gives the answer
 * the shape that interfaces promise.
 *
 * Beyond the published calls there are `/trash` (list, restore, delete for good, empty), `/search`,
 * `/usage`, `/archive?id=…&id=…` for several items at once, and `conflict=fail|replace|rename`
 * wherever a name may be taken. Lists come in pages:
 * `cursor` is a former page's `next`, `limit` at most PAGE_MAX.
 */
import { type Context, Hono } from "hono";
import { z } from "zod";
import type { Drive } from "../../apps/drive/drive.ts";
import { CONFLICT_POLICIES } from "../../apps/drive/structure.ts";
import type { AppContext } from "../context.ts";
import { ApiError } from "../errors.ts";
import { readJson } from "../read_json.ts";
import { requestPieces } from "../request_pieces.ts";
import { requireUser, type WebEnv } from "../session.ts";
import { body, disposition, howToRead, respondContent } from "./drive_content.ts";
import { driveUploadRoutes } from "./drive_uploads.ts";

const Id = z.string().max(64);
const Conflict = z.enum(CONFLICT_POLICIES);
const NewFolder = z.object({
  parent: Id.default("root"),
  name: z.string().max(2000),
  conflict: Conflict.optional(),
});
const Change = z.object({
  name: z.string().max(2000).optional(),
  parent: Id.optional(),
  conflict: Conflict.optional(),
}).refine((change) => change.name !== undefined || change.parent !== undefined, {
  message: "give a new name, a new parent, or both",
});

export function driveRoutes(context: AppContext & { readonly drive: Drive }): Hono<WebEnv> {
  const { drive } = context;
  const routes = new Hono<WebEnv>();
  routes.route("/uploads", driveUploadRoutes(context));
  routes.use(requireUser(context));
  const user = (c: Context<WebEnv>) => c.var.user.username;

  routes.get("/items/:id", async (c) => {
    return c.json(await drive.open(user(c), c.req.param("id"), page(c)));
  });

  routes.post("/folders", async (c) => {
    const { parent, name, conflict = "fail" } = await readJson(c, NewFolder);
    return c.json(await drive.createFolder(user(c), { parent, name, conflict }), 201);
  });

  routes.put("/files", async (c) => {
    const onlyNew = c.req.header("if-none-match")?.trim() === "*";
    const conflict = onlyNew ? "fail" : Conflict.safeParse(c.req.query("conflict") ?? "fail").data;
    if (conflict === undefined) {
      throw new ApiError(422, "invalid_request", "conflict: fail, replace or rename.");
    }
    const request = {
      parent: c.req.query("parent") || "root",
      name: c.req.query("name") ?? "",
      contentType: c.req.header("content-type"),
      conflict,
      modifiedMs: modifiedMs(c),
    };
    const length = c.req.header("content-length");
    const stream = c.req.raw.body;
    const size = stream === null ? 0 : length === undefined ? null : Number(length);
    const source = { size, body: requestPieces(stream ?? ReadableStream.from([])) };
    return c.json(await drive.upload(user(c), request, source), 201);
  });

  routes.get("/items/:id/content", async (c) => {
    return respondContent(c, await drive.openFile(user(c), c.req.param("id")));
  });

  const archive = async (c: Context<WebEnv>, ids: readonly string[]) => {
    const { name, body: zip } = await drive.archive(user(c), ids, howToRead(c));
    return new Response(c.req.method === "HEAD" ? null : body(zip), {
      headers: {
        "Cache-Control": "private, no-store",
        "Content-Type": "application/zip",
        "Content-Disposition": disposition(true, name),
        "X-Content-Type-Options": "nosniff",
      },
    });
  };
  routes.get("/items/:id/archive", (c) => archive(c, [c.req.param("id")]));
  routes.get("/archive", (c) => archive(c, c.req.queries("id") ?? []));

  routes.patch("/items/:id", async (c) => {
    const { name, parent, conflict = "fail" } = await readJson(c, Change);
    return c.json(await drive.move(user(c), c.req.param("id"), { name, parent, conflict }));
  });

  routes.delete("/items/:id", async (c) => {
    const id = c.req.param("id");
    await drive.trash(user(c), id);
    if (c.req.query("forever") === "1") await drive.purge(user(c), id);
    return c.body(null, 204);
  });

  routes.get("/trash", async (c) => c.json(await drive.listTrash(user(c), page(c))));

  routes.post("/trash/:id/restore", async (c) => {
    return c.json(await drive.restore(user(c), c.req.param("id")));
  });

  routes.delete("/trash/:id", async (c) => {
    await drive.purge(user(c), c.req.param("id"));
    return c.body(null, 204);
  });

  routes.delete("/trash", async (c) => {
    await drive.emptyTrash(user(c));
    return c.body(null, 204);
  });

  routes.get("/search", async (c) => {
    return c.json(await drive.search(user(c), (c.req.query("q") ?? "").slice(0, 500)));
  });

  routes.get("/usage", async (c) => c.json(await drive.usage(user(c))));

  return routes;
}

function page(c: Context<WebEnv>): { cursor?: string; limit?: number } {
  const cursor = c.req.query("cursor"), limit = c.req.query("limit");
  return {
    ...(cursor ? { cursor } : {}),
    ...(limit === undefined ? {} : { limit: Number(limit) }),
  };
}

/** When the file was last changed where it comes from: ISO 8601 or milliseconds since 1970. */
function modifiedMs(c: Context<WebEnv>): number | undefined {
  const text = c.req.query("modified");
  if (text === undefined) return undefined;
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Date.parse(text);
  if (!Number.isFinite(value) || Math.abs(value) > 8.64e15) {
    throw new ApiError(422, "invalid_request", "modified: a date as ISO 8601 or milliseconds.");
  }
  return value;
}
