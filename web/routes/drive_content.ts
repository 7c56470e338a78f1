/**
 * The bytes of a file over HTTP: ranges, conditions and the headers that make it safe to hand out
 * what users uploaded from the same origin as our pages.
 *
 * Everything is sandboxed by its own policy and never sniffed, so an uploaded page is a text without
 * rights. Types that a browser could run in place come as downloads. PDF has no sandbox, in which
 * browsers refuse to show it, but no script either.
 */
import type { Context } from "hono";
import type { OpenFile } from "../../apps/drive/drive.ts";
import { isSafeInline } from "../../apps/drive/content_types.ts";
import type { WebEnv } from "../session.ts";
import { parseByteRange } from "./byte_range.ts";

const SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'self'";
const PDF_POLICY = "script-src 'none'; object-src 'self'; frame-ancestors 'self'";

export function respondContent(c: Context<WebEnv>, file: OpenFile): Response {
  const { item } = file;
  const type = item.contentType ?? "application/octet-stream";
  const etag = `"${item.etag}"`;
  // HTTP dates have whole seconds.
  const modified = new Date(Math.floor(Date.parse(item.modified) / 1000) * 1000).toUTCString();
  const download = c.req.query("download") !== undefined && c.req.query("download") !== "0";
  const headers = new Headers({
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": type === "application/pdf" ? PDF_POLICY : SANDBOX,
    "Content-Type": type.startsWith("text/") ? `${type}; charset=utf-8` : type,
    "Content-Disposition": disposition(download || !isSafeInline(type), item.name),
    "ETag": etag,
    "Last-Modified": modified,
    "X-Content-Type-Options": "nosniff",
  });

  const match = c.req.header("if-match");
  if (match !== undefined && !listsEtag(match, etag)) return new Response(null, { status: 412 });
  const noneMatch = c.req.header("if-none-match");
  const unchanged = noneMatch === undefined
    ? c.req.header("if-modified-since") === modified
    : listsEtag(noneMatch, etag);
  if (unchanged) {
    headers.delete("Content-Type");
    headers.delete("Content-Disposition");
    return new Response(null, { status: 304, headers });
  }

  const ifRange = c.req.header("if-range")?.trim();
  const mayBePart = ifRange === undefined || ifRange === etag || ifRange === modified;
  const range = mayBePart ? parseByteRange(c.req.header("range"), item.size) : null;
  if (range === "unsatisfiable") {
    headers.set("Content-Range", `bytes */${item.size}`);
    headers.set("Content-Length", "0");
    headers.delete("Content-Type");
    headers.delete("Content-Disposition");
    return new Response(null, { status: 416, headers });
  }
  const { start, end } = range ?? { start: 0, end: item.size };
  headers.set("Content-Length", String(end - start));
  if (range !== null) headers.set("Content-Range", `bytes ${start}-${end - 1}/${item.size}`);
  const status = range === null ? 200 : 206;
  const empty = c.req.method === "HEAD" || start === end;
  return new Response(empty ? null : body(file.read(start, end, howToRead(c))), {
    status,
    headers,
  });
}

/** A request that came over a socket names its address; its answer is written piece by piece. */
export const howToRead = (c: Context<WebEnv>) => ({
  freePieces: c.env?.clientAddress !== undefined,
});

/** Names go out twice: as ASCII for old clients and, after RFC 5987, in full. */
export function disposition(attachment: boolean, name: string): string {
  const plain = name.replace(/[^\x20-\x7e]/g, "_").replace(/["\\%]/g, "_");
  const encoded = encodeURIComponent(name).replace(
    /['()*!]/g,
    (char) => "%" + char.charCodeAt(0).toString(16).toUpperCase(),
  );
  const kind = attachment ? "attachment" : "inline";
  return `${kind}; filename="${plain}"; filename*=UTF-8''${encoded}`;
}

/** The platform's types want buffers that are not shared; ours never are. */
export const body = (stream: ReadableStream<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> =>
  stream as ReadableStream<Uint8Array<ArrayBuffer>>;

function listsEtag(header: string, etag: string): boolean {
  return header.split(",").some((one) => {
    const tag = one.trim().replace(/^W\//, "");
    return tag === "*" || tag === etag;
  });
}
