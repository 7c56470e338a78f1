/**
 * Resumable uploads: the tus protocol, version 1.0.0, with the extensions creation,
 * creation-with-upload and termination. Mounted at `/api/v1/drive/uploads`.
 *
 * Metadata: `filename` (needed), `parent` (default: the root), `filetype`, `conflict` (fail, replace
 * or rename) and `modified` (milliseconds since 1970). The answer that completes an upload, and every
 * HEAD after it, names the new file in `Upload-Item`. Programs behind proxies that know neither
 * PATCH nor DELETE may POST with `X-HTTP-Method-Override`.
 */
import { type Context, Hono } from "hono";
import type { Drive, UploadState } from "../../apps/drive/drive.ts";
import { CONFLICT_POLICIES, type ConflictPolicy } from "../../apps/drive/structure.ts";
import type { AppContext } from "../context.ts";
import { ApiError } from "../errors.ts";
import { requestPieces } from "../request_pieces.ts";
import { requireUser, type WebEnv } from "../session.ts";

const VERSION = "1.0.0";
const CONTENT_TYPE = "application/offset+octet-stream";
const METADATA_BYTES_MAX = 8 * 1024;

export function driveUploadRoutes(context: AppContext & { readonly drive: Drive }): Hono<WebEnv> {
  const { drive, config } = context;
  const routes = new Hono<WebEnv>();

  routes.use(async (c, next) => {
    await next();
    c.res.headers.set("Tus-Resumable", VERSION);
    c.res.headers.set("Cache-Control", "no-store");
  });

  const capabilities = (c: Context<WebEnv>) =>
    c.body(null, 204, {
      "Tus-Version": VERSION,
      "Tus-Extension": "creation,creation-with-upload,termination",
      "Tus-Max-Size": String(config.drive.file_max_bytes),
    });
  routes.options("/", capabilities);
  routes.options("/:id", capabilities);

  routes.use(requireUser(context));
  routes.use(async (c, next) => {
    if (c.req.header("tus-resumable") !== VERSION) {
      throw new ApiError(412, "tus_version", `Send the header Tus-Resumable: ${VERSION}.`, {
        headers: { "Tus-Version": VERSION, "Tus-Resumable": VERSION },
      });
    }
    await next();
  });

  routes.post("/", async (c) => {
    const size = wholeNumber(c, "Upload-Length");
    const metadata = readMetadata(c.req.header("upload-metadata") ?? "");
    const { username } = c.var.user;
    const conflict = metadata.get("conflict") || "fail";
    const modified = Number(metadata.get("modified") ?? NaN);
    if (!CONFLICT_POLICIES.includes(conflict as ConflictPolicy)) {
      throw new ApiError(422, "invalid_request", "conflict: fail, replace or rename.");
    }
    let state = await drive.createUpload(username, {
      parent: metadata.get("parent") || "root",
      name: metadata.get("filename") ?? "",
      contentType: metadata.get("filetype"),
      conflict: conflict as ConflictPolicy,
      ...(Number.isSafeInteger(modified) && modified > 0 ? { modifiedMs: modified } : {}),
    }, size);
    const withBody = c.req.header("content-type")?.toLowerCase() === CONTENT_TYPE;
    if (withBody && c.req.raw.body !== null && state.item === null) {
      const { upload } = state, body = requestPieces(c.req.raw.body);
      state = await drive.appendUpload(username, { upload, offset: 0, body });
    }
    return c.body(null, 201, {
      ...describe(state),
      "Location": `${new URL(c.req.url).pathname.replace(/\/$/, "")}/${state.upload}`,
    });
  });

  const state = async (c: Context<WebEnv, "/:id">) => {
    const found = await drive.uploadState(c.var.user.username, c.req.param("id"));
    return c.body(null, 200, {
      ...describe(found),
      ...(found.target === null ? {} : { "Upload-Metadata": writeMetadata(found.target) }),
    });
  };

  const append = async (c: Context<WebEnv, "/:id">) => {
    if (c.req.header("content-type")?.toLowerCase() !== CONTENT_TYPE) {
      throw new ApiError(415, "wrong_type", `Send the bytes as ${CONTENT_TYPE}.`);
    }
    const found = await drive.appendUpload(c.var.user.username, {
      upload: c.req.param("id"),
      offset: wholeNumber(c, "Upload-Offset"),
      body: requestPieces(c.req.raw.body ?? ReadableStream.from([])),
    });
    return c.body(null, 204, describe(found));
  };

  const cancel = async (c: Context<WebEnv, "/:id">) => {
    await drive.cancelUpload(c.var.user.username, c.req.param("id"));
    return c.body(null, 204);
  };

  // Hono answers HEAD with what GET says, without its body.
  routes.get("/:id", state);
  routes.patch("/:id", append);
  routes.delete("/:id", cancel);
  routes.post("/:id", (c) => {
    switch (c.req.header("x-http-method-override")?.toUpperCase()) {
      case "PATCH":
        return append(c);
      case "DELETE":
        return cancel(c);
      case "HEAD":
        return state(c);
    }
    throw new ApiError(405, "method_not_allowed", "Append with PATCH.", {
      headers: { Allow: "HEAD, PATCH, DELETE" },
    });
  });
  return routes;
}

function describe(state: UploadState): Record<string, string> {
  return {
    "Upload-Offset": String(state.offset),
    "Upload-Length": String(state.size),
    ...(state.item === null ? {} : { "Upload-Item": state.item }),
  };
}

function wholeNumber(c: Context<WebEnv>, header: string): number {
  const text = c.req.header(header) ?? "";
  const value = Number(text);
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(value)) {
    throw new ApiError(400, "invalid_request", `The header ${header} is not a whole number.`);
  }
  return value;
}

/** "filename d29ybGQ=,parent cm9vdA==": keys with values in base64. */
function readMetadata(header: string): Map<string, string> {
  const refuse = () =>
    new ApiError(400, "invalid_request", "The header Upload-Metadata cannot be read.");
  if (header.length > METADATA_BYTES_MAX) throw refuse();
  const metadata = new Map<string, string>();
  for (const pair of header.split(",")) {
    const [key = "", value = ""] = pair.trim().split(/\s+/);
    if (key === "") continue;
    try {
      const bytes = Uint8Array.fromBase64(value);
      metadata.set(key, new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch {
      throw refuse();
    }
  }
  return metadata;
}

function writeMetadata(target: { readonly name: string; readonly parent: string }): string {
  const encode = (text: string) => new TextEncoder().encode(text).toBase64();
  return `filename ${encode(target.name)},parent ${encode(target.parent)}`;
}
