/**
 * The address bar as a signal. Links to the same application change it without loading a page; Back,
 * reload and sharing a link work because nothing else says where we are.
 *
 *     startRouter("/mail");
 *     const folder = route.value.path.split("/")[2];
 *     navigate("/mail/INBOX/42");
 */
import { signal } from "@preact/signals";

export interface Route {
  /** Decoded only by the caller, part by part. */
  readonly path: string;
  readonly query: URLSearchParams;
}

const here = (): Route =>
  typeof location === "undefined"
    ? { path: "/", query: new URLSearchParams() }
    : { path: location.pathname, query: new URLSearchParams(location.search) };

export const route = signal<Route>(here());

/** Goes to an address of this application. `replace` leaves no step to come back to. */
export function navigate(href: string, options: { replace?: boolean } = {}): void {
  if (options.replace) history.replaceState(null, "", href);
  else if (href !== location.pathname + location.search) history.pushState(null, "", href);
  route.value = here();
}

/** @param base the paths that this application serves, such as `/mail` */
export function startRouter(base: string): void {
  addEventListener("popstate", () => {
    route.value = here();
  });
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element).closest("a");
    if (link === null || link.target !== "" || link.hasAttribute("download")) return;
    const url = new URL(link.href, location.href);
    const ours = url.pathname === base || url.pathname.startsWith(`${base}/`);
    if (url.origin !== location.origin || !ours) return;
    event.preventDefault();
    navigate(url.pathname + url.search);
  });
}
