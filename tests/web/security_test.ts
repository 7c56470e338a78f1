/** What browsers are told, and what is refused from other websites. */
import assert from "node:assert/strict";
import { errorOf, makeWeb, PASSWORD } from "./web_fixture.ts";

const OURS = "http://penncloud.test:8000";

Deno.test("every answer carries the security headers, errors and redirects too", async () => {
  const client = makeWeb().client();
  for (const path of ["/login", "/", "/api/v1/session", "/no/such/page", "/static/none.js"]) {
    const { headers } = await client.request(path);
    const policy = headers.get("content-security-policy")!;
    assert.match(policy, /default-src 'none'/, path);
    assert.match(policy, /script-src 'self'(;|$)/, path);
    assert.doesNotMatch(policy, /unsafe|\*/, path);
    assert.equal(headers.get("x-content-type-options"), "nosniff", path);
    assert.equal(headers.get("referrer-policy"), "same-origin", path);
  }
});

Deno.test("pages hold no inline script, style or handler", async () => {
  const world = makeWeb(), client = world.client();
  await client.send("POST", "/api/v1/accounts", { username: "alice", password: PASSWORD });
  for (const path of ["/login?out=1", "/signup", "/", "/account", "/mail", "/drive", "/nothing"]) {
    const html = await (await client.request(path)).text();
    assert.doesNotMatch(html, /<style|\sstyle=|\son[a-z]+=/i, path);
    for (const [, attributes] of html.matchAll(/<script([^>]*)>/g)) {
      assert.match(attributes!, /src=|type="application\/json"/, path);
    }
  }
});

Deno.test("what users typed is escaped on pages", async () => {
  const client = makeWeb().client();
  const evil = `"><script>alert(1)</script>`;
  const answer = await client.form("/login", { username: evil, password: "x", next: evil });
  assert.ok(!(await answer.text()).includes("<script>alert"));
  const page = await client.request(`/login?next=${encodeURIComponent("/" + evil)}`);
  assert.ok(!(await page.text()).includes("<script>alert"));
});

Deno.test("requests that change something are refused from another origin", async () => {
  const world = makeWeb(), client = world.client();
  await client.send("POST", "/api/v1/accounts", { username: "alice", password: PASSWORD });
  const refused: Record<string, string>[] = [
    { origin: "https://evil.example" },
    { origin: "http://penncloud.test:8001" },
    { origin: "null" },
    { "sec-fetch-site": "cross-site", origin: OURS },
    { "sec-fetch-site": "same-site" },
  ];
  for (const headers of refused) {
    for (const [method, path] of [["DELETE", "/api/v1/session"], ["POST", "/logout"]] as const) {
      const answer = await client.request(path, {
        method,
        headers: { ...headers, accept: "application/json" },
      });
      assert.equal(answer.status, 403, JSON.stringify(headers));
      assert.equal(await errorOf(answer), "other_origin");
    }
  }
  assert.equal((await client.request("/api/v1/session")).status, 200);
});

Deno.test("requests of our own pages and of programs pass", async () => {
  const world = makeWeb();
  const passed: Record<string, string>[] = [
    {},
    { origin: OURS },
    { "sec-fetch-site": "same-origin", origin: OURS },
  ];
  for (const headers of passed) {
    const answer = await world.client().request("/api/v1/session", { method: "DELETE", headers });
    assert.equal(answer.status, 204, JSON.stringify(headers));
  }
});

Deno.test("reading is allowed from anywhere: a link on another website works", async () => {
  const answer = await makeWeb().client().request("/login", {
    headers: { "sec-fetch-site": "cross-site" },
  });
  assert.equal(answer.status, 200);
});
