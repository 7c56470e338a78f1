/**
 * The HTML of a mail as a document of its own, for the sandboxed frame that shows it.
 *
 * It comes from an address rather than from `srcdoc`, because a `srcdoc` document inherits the
 * page's policy, which forbids the inline styles that every formatted mail is made of. The policy
 * here allows those and nothing else: no scripts, no forms, no frames, no fonts, pictures only from
 * the mail itself unless the reader asked for remote ones. `allow-same-origin` lets the page around
 * it measure its height; without `allow-scripts` nothing inside can make use of that.
 */

export interface MailFrameOptions {
  readonly remoteImages: boolean;
}

export function mailFramePolicy({ remoteImages }: MailFrameOptions): string {
  return [
    "default-src 'none'",
    `img-src data:${remoteImages ? " https: http:" : ""}`,
    "style-src 'unsafe-inline'",
    "form-action 'none'",
    "base-uri 'none'",
    "frame-ancestors 'self'",
    "sandbox allow-same-origin allow-popups allow-popups-to-escape-sandbox",
  ].join("; ");
}

/** Mail is written for white paper; on a dark screen it keeps it, as its colours rely on it. */
const STYLE = `
  :root { color-scheme: light; }
  body { margin: 0; padding: 16px; background: #fff; color: #1c2321; overflow-wrap: anywhere;
    font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
  img { max-width: 100%; height: auto; }
  img[data-remote-src] { min-width: 16px; min-height: 16px; background: #e8e8e4; }
  table { max-width: 100%; }
  pre { white-space: pre-wrap; }
  blockquote { margin: 8px 0 8px 4px; padding-left: 12px; border-left: 2px solid #c8cdca;
    color: #55605b; }
  a { color: #0b6b4f; }`;

/** @param html already safe: see apps/mail/safe_html.ts */
export function mailFrame(html: string, options: MailFrameOptions): Response {
  const page = `<!doctype html><html lang="und"><head><meta charset="utf-8">` +
    `<meta name="viewport" content="width=device-width"><title>Message</title>` +
    `<style>${STYLE}</style></head><body>${html}</body></html>`;
  return new Response(page, {
    headers: {
      "Content-Type": "text/html; charset=utf-8",
      "Content-Security-Policy": mailFramePolicy(options),
      "Cache-Control": "private, max-age=300",
    },
  });
}
