/** Reads what a plain HTML form sent, with a limit. */
import type { Context } from "hono";
import { ApiError } from "./errors.ts";
import { readBytes } from "./read_json.ts";

const FORM_BYTES_MAX = 16 * 1024;

/** @throws {ApiError} 413 `too_large`, 415 `not_a_form` */
export async function readForm(c: Context): Promise<URLSearchParams> {
  const type = c.req.header("content-type") ?? "";
  const bytes = await readBytes(c.req.raw.body, FORM_BYTES_MAX);
  // A form without fields is sent without a body, and by some clients without a type.
  if (bytes.length === 0) return new URLSearchParams();
  if (!/^application\/x-www-form-urlencoded\b/i.test(type)) {
    throw new ApiError(415, "not_a_form", "Send the fields as application/x-www-form-urlencoded.");
  }
  return new URLSearchParams(new TextDecoder().decode(bytes));
}
