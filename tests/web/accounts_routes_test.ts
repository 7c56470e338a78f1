/** The account API as scripts and browsers see it. */
import assert from "node:assert/strict";
import { KvError } from "../../kv/errors.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { errorOf, makeWeb, PASSWORD } from "./web_fixture.ts";

async function signedUp() {
  const world = makeWeb(), client = world.client();
  const answer = await client.send("POST", "/api/v1/accounts", {
    username: "alice",
    password: PASSWORD,
  });
  assert.equal(answer.status, 201);
  return { ...world, alice: client, answer };
}

Deno.test("POST /accounts makes an account and logs it in", async () => {
  const { alice, answer } = await signedUp();
  assert.deepEqual(await answer.json(), { username: "alice", address: "alice@penncloud.test" });
  const session = await alice.request("/api/v1/session");
  assert.deepEqual(await session.json(), {
    username: "alice",
    address: "alice@penncloud.test",
    admin: false,
  });
});

Deno.test("POST /accounts answers 409 and 422 with stable codes", async () => {
  const { client } = await signedUp();
  const attempt = (username: string, password: string) =>
    client().send("POST", "/api/v1/accounts", { username, password });
  const taken = await attempt("alice", PASSWORD);
  assert.equal(taken.status, 409);
  assert.equal(await errorOf(taken), "name_taken");
  const invalid = await attempt("No Way", PASSWORD);
  assert.equal(invalid.status, 422);
  assert.equal(await errorOf(invalid), "invalid_username");
  const weak = await attempt("bob", "short");
  assert.equal(weak.status, 422);
  assert.equal(await errorOf(weak), "weak_password");
});

Deno.test("POST /accounts is refused where sign-up is closed", async () => {
  const { client } = makeWeb({ web: { signup: "closed" } });
  const answer = await client().send("POST", "/api/v1/accounts", {
    username: "alice",
    password: PASSWORD,
  });
  assert.equal(answer.status, 403);
  assert.equal(await errorOf(answer), "signup_closed");
});

Deno.test("POST /session gives the cookie; DELETE takes it and ends the session", async () => {
  const { client } = await signedUp();
  const browser = client();
  const login = await browser.send("POST", "/api/v1/session", {
    username: "alice",
    password: PASSWORD,
  });
  assert.equal(login.status, 200);
  const cookie = login.headers.getSetCookie()[0]!;
  assert.match(
    cookie,
    /^penncloud_session=[\w-]{43}; Max-Age=1209600; Path=\/; HttpOnly; SameSite=Lax$/,
  );
  const token = browser.cookies.get("penncloud_session")!;
  assert.equal((await browser.send("DELETE", "/api/v1/session")).status, 204);
  assert.equal(browser.cookies.size, 0);
  browser.cookies.set("penncloud_session", token);
  const after = await browser.request("/api/v1/session");
  assert.equal(after.status, 401);
  assert.equal(await errorOf(after), "not_signed_in");
});

Deno.test("the cookie is Secure where users come over TLS", async () => {
  const { client } = makeWeb({ web: { https: true } });
  const answer = await client().send("POST", "/api/v1/accounts", {
    username: "alice",
    password: PASSWORD,
  });
  assert.match(answer.headers.getSetCookie()[0]!, /; Secure/);
});

Deno.test("POST /session answers 401 for wrong credentials and 429 with Retry-After in the end", async () => {
  const { client } = await signedUp();
  const attempt = () =>
    client().send("POST", "/api/v1/session", { username: "alice", password: "wrong password" });
  const first = await attempt();
  assert.equal(first.status, 401);
  assert.equal(await errorOf(first), "wrong_credentials");
  for (let i = 0; i < 9; i++) await attempt();
  const last = await attempt();
  assert.equal(last.status, 429);
  assert.equal(await errorOf(last), "too_many_attempts");
  const seconds = Number(last.headers.get("retry-after"));
  assert.ok(seconds > 0 && seconds <= 300);
});

Deno.test("HTTP Basic opens the API with the password and with app passwords", async () => {
  const { client, alice } = await signedUp();
  const made = await alice.send("POST", "/api/v1/account/app-passwords", { label: "script" });
  assert.equal(made.status, 201);
  const { password, id } = await made.json();
  const basic = (secret: string) =>
    client().request("/api/v1/session", {
      headers: { authorization: `Basic ${btoa(`alice:${secret}`)}` },
    });
  assert.equal((await basic(PASSWORD)).status, 200);
  assert.equal((await basic(password)).status, 200);
  assert.equal((await basic("wrong password")).status, 401);
  assert.equal((await alice.send("DELETE", `/api/v1/account/app-passwords/${id}`)).status, 204);
  assert.equal((await basic(password)).status, 401);
  assert.equal((await alice.send("DELETE", `/api/v1/account/app-passwords/${id}`)).status, 404);
});

Deno.test("a program is told to use HTTP Basic; a page's script is not", async () => {
  const { client } = makeWeb();
  const program = await client().request("/api/v1/session");
  assert.match(program.headers.get("www-authenticate")!, /^Basic /);
  const script = await client().request("/api/v1/session", {
    headers: { "sec-fetch-mode": "cors", "sec-fetch-site": "same-origin" },
  });
  assert.equal(script.headers.get("www-authenticate"), null);
});

Deno.test("PUT /account/password ends every other session; a wrong one gives 403", async () => {
  const { alice, client } = await signedUp();
  const other = client();
  await other.send("POST", "/api/v1/session", { username: "alice", password: PASSWORD });
  const wrong = await alice.send("PUT", "/api/v1/account/password", {
    current: "wrong password",
    new: "a heron in the reeds",
  });
  assert.equal(wrong.status, 403);
  assert.equal(await errorOf(wrong), "wrong_password");
  const change = { current: PASSWORD, new: "a heron in the reeds" };
  assert.equal((await alice.send("PUT", "/api/v1/account/password", change)).status, 204);
  assert.equal((await alice.request("/api/v1/session")).status, 200);
  assert.equal((await other.request("/api/v1/session")).status, 401);
});

Deno.test("sessions are listed and ended one by one or all but this one", async () => {
  const { alice, client } = await signedUp();
  const others = [client(), client(), client()];
  for (const other of others) {
    await other.send("POST", "/api/v1/session", { username: "alice", password: PASSWORD });
  }
  const list = async () =>
    (await (await alice.request("/api/v1/account/sessions")).json()).sessions as {
      id: string;
      current: boolean;
    }[];
  const sessions = await list();
  assert.equal(sessions.length, 4);
  assert.equal(sessions.filter((session) => session.current).length, 1);
  const { id } = sessions.find((session) => !session.current)!;
  assert.equal((await alice.send("DELETE", `/api/v1/account/sessions/${id}`)).status, 204);
  assert.equal((await list()).length, 3);
  assert.equal((await alice.send("DELETE", "/api/v1/account/sessions")).status, 204);
  assert.equal((await list()).length, 1);
  assert.equal((await alice.request("/api/v1/session")).status, 200);
});

Deno.test("bodies that are not what they should be get 4xx and a code", async () => {
  const { client } = makeWeb();
  const post = (body: string, type = "application/json") =>
    client().request("/api/v1/session", {
      method: "POST",
      headers: { "content-type": type },
      body,
    });
  const expected: [Promise<Response>, number, string][] = [
    [post("{"), 400, "invalid_json"],
    [post("[]"), 422, "invalid_request"],
    [post('{"username":5,"password":"x"}'), 422, "invalid_request"],
    [post('{"username":"alice"}'), 422, "invalid_request"],
    [post("username=alice", "application/x-www-form-urlencoded"), 415, "not_json"],
    [post('{"username":"alice","password":"x"}', "text/plain"), 415, "not_json"],
    [post(`{"username":"${"a".repeat(100_000)}"}`), 413, "too_large"],
    [client().request("/api/v1/nothing-here"), 404, "not_found"],
  ];
  for (const [answer, status, code] of expected) {
    const response = await answer;
    assert.equal(response.status, status, code);
    assert.equal(await errorOf(response), code);
  }
});

Deno.test("what the store cannot do is told with a fitting status and Retry-After", async () => {
  const expected = [
    ["unavailable", 503, "1"],
    ["not_primary", 503, "1"],
    ["busy", 503, "1"],
    ["outcome_unknown", 503, "1"],
    ["disk_full", 507, null],
    ["row_too_large", 413, null],
    ["invalid_request", 422, null],
    ["corrupted", 500, null],
  ] as const;
  for (const [code, status, retryAfter] of expected) {
    const kv = new MemoryKv({
      beforeCall: () => {
        throw new KvError(code, "as the test wants");
      },
    });
    const answer = await makeWeb({ kv }).client().send("POST", "/api/v1/session", {
      username: "alice",
      password: PASSWORD,
    });
    assert.equal(answer.status, status, code);
    assert.equal(answer.headers.get("retry-after"), retryAfter, code);
    assert.ok(!(await answer.text()).includes("as the test wants"));
  }
});

Deno.test("an error that nobody foresaw is a 500 without details, and is logged", async () => {
  const kv = new MemoryKv({
    beforeCall: () => {
      throw new TypeError("secret detail");
    },
  });
  const { client, env } = makeWeb({ kv });
  const answer = await client().send("POST", "/api/v1/session", { username: "a", password: "b" });
  assert.equal(answer.status, 500);
  const text = await answer.text();
  assert.ok(!text.includes("secret detail") && !text.includes(".ts"));
  assert.deepEqual(env.logged, ["a request failed"]);
});

Deno.test("a broken invariant ends the process", async () => {
  const { InvariantViolation } = await import("../../kv/invariant.ts");
  const kv = new MemoryKv({
    beforeCall: () => {
      throw new InvariantViolation("I1", "as the test wants");
    },
  });
  const { client } = makeWeb({ kv });
  const attempt = client().send("POST", "/api/v1/session", { username: "a", password: "b" });
  await assert.rejects(attempt, InvariantViolation);
});
