/** The HTML document around every page: head, styles, theme, and nothing inline. */
import type { Context } from "hono";
import { getCookie } from "hono/cookie";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { ComponentChildren, JSX } from "preact";
import { render } from "preact-render-to-string";
import type { Assets } from "../assets.ts";
import type { BootData } from "../ui/boot.ts";
import { isTheme, type Theme, THEME_COOKIE } from "../ui/theme.ts";

export interface DocumentOptions {
  readonly assets: Assets;
  readonly title: string;
  readonly body: JSX.Element;
  readonly status?: ContentfulStatusCode;
  readonly headers?: Record<string, string>;
  /** The application to load into the page, with what it needs to know at its start. */
  readonly app?: { readonly entry: string; readonly boot: BootData };
  /** The page asks for itself again after so many seconds. */
  readonly refreshSeconds?: number;
}

/** Answers with a whole page. */
export function respondPage(c: Context, options: DocumentOptions): Response {
  const { status = 200, headers = {} } = options;
  const html = "<!doctype html>" + render(<Document theme={chosenTheme(c)} {...options} />);
  return c.html(html, status, { "Cache-Control": "no-store", ...headers });
}

/** The theme that this browser asked for. */
export function chosenTheme(c: Context): Theme {
  const cookie = getCookie(c, THEME_COOKIE);
  return isTheme(cookie) ? cookie : "system";
}

function Document(props: DocumentOptions & { readonly theme: Theme }): JSX.Element {
  const { assets, title, body, app, refreshSeconds, theme } = props;
  const styles = [
    ...assets.styles("components"),
    ...assets.styles("pages"),
    ...(app ? assets.styles(app.entry) : []),
  ];
  const script = app ? assets.script(app.entry) : null;
  return (
    <html lang="en" {...(theme === "system" ? {} : { "data-theme": theme })}>
      <head>
        <meta charset="utf-8" />
        <title>{title === "PennCloud" ? title : `${title} · PennCloud`}</title>
        <meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover" />
        <meta name="color-scheme" content="light dark" />
        <meta name="theme-color" content="#f4f3ee" media="(prefers-color-scheme: light)" />
        <meta name="theme-color" content="#111514" media="(prefers-color-scheme: dark)" />
        {refreshSeconds !== undefined && (
          <meta http-equiv="refresh" content={String(refreshSeconds)} />
        )}
        <link rel="icon" href="/static/favicon.svg" type="image/svg+xml" />
        {styles.map((href) => <link key={href} rel="stylesheet" href={href} />)}
        {script && <script type="module" src={script}></script>}
      </head>
      <body>
        {app ? <AppRoot boot={app.boot}>{body}</AppRoot> : body}
      </body>
    </html>
  );
}

function AppRoot({ boot, children }: { boot: BootData; children: ComponentChildren }): JSX.Element {
  // A data block, which no policy on scripts concerns; `<` could end it early.
  const json = JSON.stringify(boot).replaceAll("<", "\\u003c");
  return (
    <>
      <div id="app">{children}</div>
      <script type="application/json" id="boot" dangerouslySetInnerHTML={{ __html: json }}></script>
      <noscript>
        <p class="noscript">
          This part of PennCloud needs JavaScript. Your account works without:{" "}
          <a href="/account">
            account settings
          </a>.
        </p>
      </noscript>
    </>
  );
}
