/** What people see when a page cannot be had, in their words. */
import type { JSX } from "preact";
import type { ApiError } from "../errors.ts";
import { BrandMark } from "../ui/brand.tsx";
import { Button } from "../ui/components/button.tsx";

export function ErrorPage(
  { error, retries }: { error: ApiError; retries: boolean },
): JSX.Element {
  return (
    <div class="gate">
      <div class="gate__sky" aria-hidden="true"></div>
      <main class="gate__card gate__card--message">
        <a class="gate__brand" href="/">
          <BrandMark />
          <span>PennCloud</span>
        </a>
        <h1 class="gate__title">{titleOf(error)}</h1>
        <p>{textOf(error)}</p>
        {retries
          ? (
            <p class="muted" role="status">
              This page tries again by itself every few seconds.
            </p>
          )
          : <Button href="/" variant="primary">Go home</Button>}
      </main>
      <footer class="gate__foot">{error.status} {error.code}</footer>
    </div>
  );
}

export function titleOf(error: ApiError): string {
  switch (error.status) {
    case 403:
      return "Not for you";
    case 404:
      return "Nothing here";
    case 429:
      return "Slow down a little";
    case 503:
      return "One moment";
    case 507:
      return "The disk is full";
    default:
      return error.status >= 500 ? "Something went wrong" : "That did not work";
  }
}

function textOf(error: ApiError): string {
  if (error.status === 404) {
    return "There is no page at this address. It may have been moved or deleted, or the link is " +
      "mistyped.";
  }
  if (error.code === "internal") {
    return "The mistake is ours and has been noted. What you had stored is not affected. Go back and " +
      "try again.";
  }
  return error.message;
}
