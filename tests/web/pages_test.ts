/** The pages as plain HTML: everything here works without browser code. */
import assert from "node:assert/strict";
import { KvError } from "../../kv/errors.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { makeWeb, PASSWORD } from "./web_fixture.ts";

async function signedUp() {
  const world = makeWeb(), alice = world.client();
  const answer = await alice.form("/signup", { username: "alice", password: PASSWORD, next: "/" });
  assert.equal(answer.status, 303);
  return { ...world, alice };
}

const place = (response: Response) => response.headers.get("location");

Deno.test("a form signs up, goes on to where one wanted to go, and logs out", async () => {
  const client = makeWeb().client();
  const first = await client.request("/mail/INBOX?x=1");
  assert.equal(place(first), "/login?next=%2Fmail%2FINBOX%3Fx%3D1");
  const answer = await client.form("/signup", {
    username: "Alice ",
    password: PASSWORD,
    next: "/mail/INBOX?x=1",
  });
  assert.equal(place(answer), "/mail/INBOX?x=1");
  assert.match(await (await client.request("/")).text(), /Hello, alice/);
  assert.equal(place(await client.form("/logout", {})), "/login?out=1");
  assert.equal(place(await client.request("/")), "/login");
});

Deno.test("a wrong password is told next to the field, and the name stays", async () => {
  const { client } = await signedUp();
  const answer = await client().form("/login", {
    username: "alice",
    password: "wrong one",
    next: "/",
  });
  assert.equal(answer.status, 401);
  const html = await answer.text();
  assert.match(html, /id="field-password-error"[^>]*>.*User name or password is not right/s);
  assert.match(html, /value="alice"/);
  assert.ok(!html.includes("wrong one"));
});

Deno.test("a taken name and a weak password are told next to their fields", async () => {
  const { client } = await signedUp();
  const taken = await client().form("/signup", { username: "alice", password: PASSWORD });
  assert.equal(taken.status, 409);
  assert.match(await taken.text(), /id="field-username-error"/);
  const weak = await client().form("/signup", { username: "bob", password: "12345678" });
  assert.equal(weak.status, 422);
  assert.match(await weak.text(), /id="field-password-error"/);
});

Deno.test("nobody is sent to another website after logging in", async () => {
  const { client } = await signedUp();
  const evil = [
    "https://evil.example/",
    "//evil.example",
    "/\\evil.example",
    "javascript:alert(1)",
  ];
  for (const next of [...evil, "\t//evil.example", "", "mail"]) {
    const answer = await client().form("/login", { username: "alice", password: PASSWORD, next });
    assert.equal(place(answer), "/", next);
  }
});

Deno.test("who is logged in skips the login page", async () => {
  const { alice } = await signedUp();
  assert.equal(place(await alice.request("/login?next=/drive")), "/drive");
  assert.equal(place(await alice.request("/signup")), "/");
});

Deno.test("every address of an application gives its page", async () => {
  const { alice } = await signedUp();
  for (const path of ["/mail", "/mail/INBOX/abc", "/drive", "/drive/folder/x"]) {
    const answer = await alice.request(path);
    assert.equal(answer.status, 200, path);
    const html = await answer.text();
    assert.match(html, /id="boot">\{"user":\{"username":"alice"/, path);
  }
});

Deno.test("the console is for administrators", async () => {
  const { alice, context } = await signedUp();
  const refused = await alice.request("/admin", { headers: { accept: "text/html" } });
  assert.equal(refused.status, 403);
  assert.match(await refused.text(), /Only administrators/);
  assert.ok(!(await (await alice.request("/")).text()).includes('href="/admin"'));
  await context.accounts.setAdmin("alice", true);
  assert.equal((await alice.request("/admin/nodes/10003")).status, 200);
  assert.ok((await (await alice.request("/")).text()).includes('href="/admin"'));
});

Deno.test("the account page changes the password and ends sessions", async () => {
  const { alice, client } = await signedUp();
  const other = client({ headers: { "user-agent": "curl/8.5.0" } });
  await other.form("/login", { username: "alice", password: PASSWORD });
  assert.match(await (await alice.request("/account")).text(), /curl.*End/s);
  const wrong = await alice.form("/account/password", {
    current: "no",
    new: "a heron in the reeds",
  });
  assert.equal(wrong.status, 403);
  assert.match(await wrong.text(), /id="field-current-error"/);
  const right = await alice.form("/account/password", {
    current: PASSWORD,
    new: "a heron in the reeds",
  });
  assert.equal(place(right), "/account?done=password");
  assert.match(await (await alice.request("/account?done=password")).text(), /password is changed/);
  assert.equal(place(await other.request("/account")), "/login?next=%2Faccount");
});

Deno.test("an app password is shown once and can be revoked", async () => {
  const { alice } = await signedUp();
  const made = await (await alice.form("/account/app-passwords", { label: "Phone <3" })).text();
  const secret = /class="secret">([a-z2-7-]{23})</.exec(made)?.[1];
  assert.ok(secret);
  const page = await (await alice.request("/account")).text();
  assert.ok(page.includes("Phone &lt;3") && !page.includes(secret));
  const id = /action="\/account\/app-passwords\/revoke">.*?value="([^"]+)"/s.exec(page)![1]!;
  await alice.form("/account/app-passwords/revoke", { id });
  assert.ok(!(await (await alice.request("/account")).text()).includes("Phone &lt;3"));
});

Deno.test("the theme is drawn by the server as the cookie says", async () => {
  const { alice } = await signedUp();
  assert.ok(!(await (await alice.request("/")).text()).includes("data-theme"));
  await alice.form("/account/theme", { theme: "dark" });
  assert.match(await (await alice.request("/")).text(), /<html lang="en" data-theme="dark">/);
  await alice.form("/account/theme", { theme: "pink" });
  assert.match(await (await alice.request("/")).text(), /data-theme="dark"/);
});

Deno.test("a page that finds the store away asks for itself again, a form does not", async () => {
  let away = false;
  const kv = new MemoryKv({
    beforeCall: () => {
      if (away) throw new KvError("unavailable", "no primary");
    },
  });
  const client = makeWeb({ kv }).client();
  await client.form("/signup", { username: "alice", password: PASSWORD });
  away = true;
  const page = await client.request("/account", { headers: { accept: "text/html" } });
  assert.equal(page.status, 503);
  assert.equal(page.headers.get("retry-after"), "1");
  assert.match(await page.text(), /http-equiv="refresh" content="3"/);
  const form = await client.form("/account/password", { current: "a", new: "b" });
  assert.equal(form.status, 503);
  assert.doesNotMatch(await form.text(), /http-equiv="refresh"/);
  away = false;
  assert.equal((await client.request("/account")).status, 200);
});

Deno.test("an unknown address gives a page to people and JSON to programs", async () => {
  const client = makeWeb().client();
  const page = await client.request("/nothing", { headers: { accept: "text/html" } });
  assert.equal(page.status, 404);
  assert.match(await page.text(), /<h1[^>]*>Nothing here/);
  const json = await client.request("/api/v1/nothing", { headers: { accept: "text/html" } });
  assert.match(json.headers.get("content-type")!, /application\/json/);
});
