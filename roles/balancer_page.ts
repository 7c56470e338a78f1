/**
 * The page that people see while no frontend lives. It comes from the balancer alone, so its few
 * styles are in it, allowed by their hash; it asks again by itself and needs no script.
 */

export const RETRY_AFTER_SECONDS = 2;

const MESSAGE = "PennCloud is starting, or all of its frontends are down. Your data is safe.";

const STYLE = `
:root { color-scheme: light dark; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 24px;
  box-sizing: border-box; font: 1rem/1.5 ui-sans-serif, system-ui, sans-serif;
  background: light-dark(#f4f3ee, #111514); color: light-dark(#1b2220, #e7ebe9); }
main { max-width: 26rem; padding: 32px; border-radius: 12px;
  border: 1px solid light-dark(#e0ddd4, #2b3230); background: light-dark(#ffffff, #191e1d); }
h1 { margin: 0 0 8px; font-size: 1.75rem; line-height: 1.2; }
p { margin: 0 0 16px; color: light-dark(#5a615d, #9ba6a2); }
p:last-child { margin: 0; }
a { color: light-dark(#0d6b58, #64cfb4); }
`;

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="${RETRY_AFTER_SECONDS}">
<title>One moment · PennCloud</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>One moment</h1>
<p>${MESSAGE}</p>
<p role="status">This page tries again by itself every few seconds. <a href="">Try now</a></p>
</main>
</body>
</html>
`;

const POLICY = (async () => {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(STYLE));
  const style = new Uint8Array(hash).toBase64();
  return `default-src 'none'; style-src 'sha256-${style}'; base-uri 'none'; ` +
    `form-action 'none'; frame-ancestors 'none'`;
})();

/** 503 for a person, or for a program that asked the API. */
export async function unavailable(pathname: string): Promise<Response> {
  const headers: Record<string, string> = {
    "retry-after": String(RETRY_AFTER_SECONDS),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  };
  if (/^\/(api|dav)(\/|$)/.test(pathname)) {
    const error = { code: "unavailable", message: "No frontend is alive. Try again soon." };
    return Response.json({ error }, { status: 503, headers });
  }
  headers["content-type"] = "text/html; charset=utf-8";
  headers["content-security-policy"] = await POLICY;
  return new Response(PAGE, { status: 503, headers });
}
