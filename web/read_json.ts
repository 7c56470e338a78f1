/** Reads a request's JSON body with a limit and a schema, and says what is wrong with it. */
import type { Context } from "hono";
import type { z } from "zod";
import { ApiError } from "./errors.ts";

/** Enough for any form; routes that take more name their own limit. */
export const JSON_BYTES_MAX = 64 * 1024;

/**
 * @throws {ApiError} 413 `too_large`, 400 `invalid_json`, 415 `not_json`, 422 `invalid_request`
 */
export async function readJson<Schema extends z.ZodType>(
  c: Context,
  schema: Schema,
  options: { bytesMax?: number } = {},
): Promise<z.infer<Schema>> {
  // A form of another website can send text/plain, but not this type, without being asked first.
  const type = c.req.header("content-type") ?? "";
  if (!/^application\/([a-z.-]+\+)?json\b/i.test(type)) {
    throw new ApiError(415, "not_json", "Send the body as application/json.");
  }
  const text = new TextDecoder().decode(
    await readBytes(c.req.raw.body, options.bytesMax ?? JSON_BYTES_MAX),
  );
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ApiError(400, "invalid_json", "The body is not valid JSON.");
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? "body" : issue.path.join(".");
  throw new ApiError(422, "invalid_request", `${where}: ${issue?.message ?? "not as expected"}`);
}

/** @throws {ApiError} 413 `too_large` */
export async function readBytes(
  body: ReadableStream<Uint8Array> | null,
  bytesMax: number,
): Promise<Uint8Array> {
  if (body === null) return new Uint8Array();
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of body) {
    length += part.length;
    if (length > bytesMax) {
      throw new ApiError(413, "too_large", `The body is larger than ${bytesMax} bytes.`);
    }
    parts.push(part);
  }
  const all = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}
