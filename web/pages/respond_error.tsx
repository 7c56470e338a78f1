/** Answers with an error page. While the store is away the page asks for itself again. */
import type { Context } from "hono";
import type { Assets } from "../assets.ts";
import type { ApiError } from "../errors.ts";
import { respondPage } from "./document.tsx";
import { ErrorPage, titleOf } from "./error.tsx";

const RETRY_SECONDS = 3;

export function respondErrorPage(c: Context, assets: Assets, error: ApiError): Response {
  // Asking again repeats a read. A form that was sent is for its sender to send again.
  const mayRepeat = error.status === 503 && c.req.method === "GET";
  return respondPage(c, {
    assets,
    title: titleOf(error),
    body: <ErrorPage error={error} retries={mayRepeat} />,
    status: error.status,
    headers: { ...error.headers },
    ...(mayRepeat ? { refreshSeconds: RETRY_SECONDS } : {}),
  });
}
