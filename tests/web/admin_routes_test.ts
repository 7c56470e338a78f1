/** The console's API through the whole web application: shapes, refusals, secrets, pages, orders. */
import assert from "node:assert/strict";
import { KvError } from "../../kv/errors.ts";
import { put } from "../../kv/kv.ts";
import { ClusterStatus } from "../../proto/cluster_status.ts";
import { errorOf, PASSWORD, type WebClient } from "./web_fixture.ts";
import { makeAdminWorld } from "./admin_world.ts";

const API = "/api/v1/admin";

// deno-lint-ignore no-explicit-any -- the shapes are what these tests look at
type Json = any;

async function read(response: Response): Promise<Json> {
  assert.equal(response.status, 200, await response.clone().text());
  return await response.json();
}

/** Every row of a node, page by page. */
async function allRows(client: WebClient, port: number, limit: number): Promise<Json[]> {
  const rows: Json[] = [];
  for (let cursor = "", pages = 0; pages < 1000; pages++) {
    const page = await read(
      await client.request(`${API}/nodes/${port}/rows?limit=${limit}&cursor=${cursor}`),
    );
    rows.push(...page.rows);
    if (page.next === null) return rows;
    cursor = page.next;
  }
  throw new Error("The pages do not end");
}

Deno.test("every call of the console wants an administrator", async () => {
  const { client } = await makeAdminWorld();
  const nobody = await client(), alice = await client("alice");
  const calls = [
    ["GET", "/cluster"],
    ["GET", "/events"],
    ["GET", "/nodes/10003/rows"],
    ["GET", "/nodes/10003/value?row=a&column=b"],
    ["POST", "/nodes/10003/kill"],
    ["POST", "/nodes/10003/restart"],
    ["POST", "/nodes/10003/drain"],
  ] as const;
  for (const [method, path] of calls) {
    const refused = await nobody.send(method, API + path);
    assert.equal(refused.status, 401, path);
    assert.equal(await errorOf(refused), "not_signed_in");
    const forbidden = await alice.send(method, API + path);
    assert.equal(forbidden.status, 403, path);
    assert.equal(await errorOf(forbidden), "admins_only");
  }
});

Deno.test("GET cluster answers with the one status document", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const response = await root.request(`${API}/cluster`);
  assert.equal(response.headers.get("cache-control"), "no-store");
  const status = ClusterStatus.parse(await read(response));
  assert.equal(status.nodes.length, 15);
  assert.equal(status.tablets.length, 9);
});

Deno.test("orders are accepted, carried out and noted in the log", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const stateOf = async (port: number) =>
    (await world.cluster.status()).nodes.find((node) => node.port === port)!.state;
  const killed = await root.send("POST", `${API}/nodes/10003/kill`);
  assert.equal(killed.status, 202);
  assert.deepEqual(await killed.json(), { port: 10003, order: "kill" });
  assert.equal(await stateOf(10003), "stopped");
  assert.equal((await root.send("POST", `${API}/nodes/10003/restart`)).status, 202);
  assert.equal(await stateOf(10003), "live");
  assert.ok(world.env.logged.includes("an administrator gave an order"));
});

Deno.test("a tablet is split and merged by hand, and the reason is told when it cannot be", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const keys = async () => (await world.cluster.status()).tablets.map(({ startKey }) => startKey);
  const before = await keys();
  const body = { key: "kitten" };
  const split = await root.send("POST", `${API}/tablets/split`, body);
  assert.equal(split.status, 200);
  assert.deepEqual(await keys(), [...before, "kitten"].sort());
  const again = await root.send("POST", `${API}/tablets/split`, body);
  assert.equal(again.status, 422);
  assert.equal((await again.json()).error.code, "cannot_reshape");
  assert.equal((await root.send("POST", `${API}/tablets/merge`, body)).status, 200);
  assert.deepEqual(await keys(), before);
  assert.equal((await root.send("POST", `${API}/tablets/split`, { key: "" })).status, 422);
  assert.ok(world.env.logged.includes("an administrator changed tablets"));
});

Deno.test("an order to an unknown port is refused with the ports that there are", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  for (const port of ["10099", "abc", "-1", "10003.0", "99999999999999999999"]) {
    const response = await root.send("POST", `${API}/nodes/${port}/kill`);
    assert.equal(response.status, 404, port);
    const { error } = await response.json();
    assert.equal(error.code, "no_such_node");
    assert.match(error.message, /10003 \(backend\/3\)/);
  }
});

Deno.test("an order that another website makes a browser send is refused", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const response = await root.request(`${API}/nodes/10003/kill`, {
    method: "POST",
    headers: { "sec-fetch-site": "cross-site", origin: "https://evil.example" },
  });
  assert.equal(response.status, 403);
  assert.equal(await errorOf(response), "other_origin");
});

Deno.test("rows come in order, page by page, each cell once", async () => {
  const world = await makeAdminWorld();
  for (let i = 0; i < 40; i++) await put(world.kv, `a-row-${String(i % 9)}`, `c${i}`, `value ${i}`);
  const root = await world.client("root");
  const whole = await allRows(root, 10000, 500);
  for (const limit of [1, 7, 39]) {
    const cells = (rows: Json[]) =>
      rows.flatMap((row) =>
        row.cells.map((cell: Json) => `${row.row} ${cell.column} ${cell.size}`)
      );
    assert.deepEqual(cells(await allRows(root, 10000, limit)), cells(whole));
  }
  const names = whole.map((row) => row.row);
  assert.deepEqual(names, names.toSorted());
  assert.ok(names.includes("a-row-8"));
});

Deno.test("rows begin at the key that was asked for", async () => {
  const world = await makeAdminWorld();
  for (const row of ["aa", "ab", "ac"]) await put(world.kv, row, "c", row);
  const root = await world.client("root");
  const page = await read(await root.request(`${API}/nodes/10000/rows?start=ab&limit=2`));
  assert.deepEqual(page.rows.map((row: Json) => row.row), ["ab", "ac"]);
  assert.deepEqual(page.rows[0].cells[0], {
    column: "c",
    version: page.rows[0].cells[0].version,
    size: 2,
    large: false,
    secret: false,
    text: "ab",
    truncated: false,
    link: "/api/v1/admin/nodes/10000/value?row=ab&column=c",
  });
});

Deno.test("wrong limits, cursors, keys and roles are refused with what is expected", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const wrong = [
    "limit=0",
    "limit=many",
    "limit=1.5",
    "cursor=%%%",
    "cursor=bm90anNvbg",
    `start=${"x".repeat(1025)}`,
  ];
  for (const query of wrong) {
    const response = await root.request(`${API}/nodes/10000/rows?${query}`);
    assert.equal(response.status, 422, query);
    assert.equal(await errorOf(response), "invalid_request");
  }
  const frontend = await root.request(`${API}/nodes/8000/rows`);
  assert.equal(frontend.status, 422);
  assert.equal(await errorOf(frontend), "not_a_backend");
});

Deno.test("large values come as their size and a link, which gives every byte", async () => {
  const world = await makeAdminWorld();
  const large = crypto.getRandomValues(new Uint8Array(64 * 1024)).map((byte) => byte || 1);
  const big = new Uint8Array(3 * 64 * 1024);
  for (let i = 0; i < 3; i++) big.set(large, i * large.length);
  await put(world.kv, "amovie", "chunk", big);
  await put(world.kv, "anote", "text", "x".repeat(5000));
  const root = await world.client("root");
  const page = await read(await root.request(`${API}/nodes/10000/rows?start=amovie`));
  const [movie, note] = page.rows.map((row: Json) => row.cells[0]);
  assert.deepEqual([movie.size, movie.large, movie.truncated], [big.length, true, true]);
  assert.ok(!("text" in movie) && !("base64" in movie));
  assert.deepEqual([note.size, note.large, note.truncated], [5000, false, true]);
  assert.ok(note.text.length < 5000);
  const value = await root.request(movie.link);
  assert.equal(value.headers.get("content-type"), "application/octet-stream");
  assert.equal(value.headers.get("content-disposition"), 'attachment; filename="amovie.chunk"');
  assert.equal(value.headers.get("x-content-type-options"), "nosniff");
  assert.match(value.headers.get("content-security-policy")!, /sandbox/);
  assert.equal(value.headers.get("content-length"), String(big.length));
  assert.deepEqual(new Uint8Array(await value.arrayBuffer()), big);
});

Deno.test("values that are no text come as base64; a cut character does not make them so", async () => {
  const world = await makeAdminWorld();
  await put(world.kv, "abin", "c", new Uint8Array([0, 255, 1]));
  await put(world.kv, "acut", "c", "é".repeat(700).slice(0, 700) + "x");
  await put(world.kv, "acut2", "c", "x" + "é".repeat(700));
  const root = await world.client("root");
  const page = await read(await root.request(`${API}/nodes/10000/rows?start=abin`));
  const [binary, even, odd] = page.rows.map((row: Json) => row.cells[0]);
  assert.equal(binary.base64, "AP8B");
  assert.match(even.text, /^é+$/);
  assert.match(odd.text, /^xé+$/);
});

Deno.test("a file name in a header is made of harmless letters", async () => {
  const world = await makeAdminWorld();
  await put(world.kv, 'a"\r\nSet-Cookie: x=1', "ü/..", "v");
  const root = await world.client("root");
  const page = await read(await root.request(`${API}/nodes/10000/rows?start=a%22`));
  const value = await root.request(page.rows[0].cells[0].link);
  assert.equal(value.status, 200);
  assert.match(value.headers.get("content-disposition")!, /^attachment; filename="[\w.-]+"$/);
  await value.body?.cancel();
});

Deno.test("password hashes, session ids and app passwords never show", async () => {
  const world = await makeAdminWorld();
  const { accounts } = world.context;
  const { token, session } = await accounts.logIn({
    username: "alice",
    password: PASSWORD,
    address: "192.0.2.9",
    device: "test",
  });
  const { password, entry } = await accounts.appPasswords.create("alice", "laptop");
  const stored = await world.kv.get("alice/account", "account");
  const { passwordHash } = JSON.parse(new TextDecoder().decode(stored!.value));
  assert.ok(passwordHash.length > 20);
  const root = await world.client("root");
  let text = "";
  for (const port of [10000, 10003, 10006]) {
    text += JSON.stringify(await allRows(root, port, 50));
  }
  for (const secret of [token, session.id, password, entry.id, passwordHash]) {
    assert.ok(!text.includes(secret), secret);
  }
  // What is not secret about them does show.
  for (const word of ["~session", "alice/app-passwords", "laptop", '\\"admin\\":false']) {
    assert.ok(text.includes(word), word);
  }
});

Deno.test("a secret value cannot be had whole either", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const { session } = await world.context.accounts.logIn({
    username: "alice",
    password: PASSWORD,
    address: "192.0.2.9",
    device: "test",
  });
  const places = [
    ["alice/account", "account"],
    [`${session.id}~session`, "session"],
    ["alice/sessions", session.id],
    ["alice/app-passwords", "abc"],
  ];
  for (const [row, column] of places) {
    const query = new URLSearchParams({ row: row!, column: column! });
    const response = await root.request(`${API}/nodes/10000/value?${query}`);
    assert.equal(response.status, 403, row);
    assert.equal(await errorOf(response), "secret");
  }
});

Deno.test("a value that is gone is 404, and one without a name is refused", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const gone = await root.request(`${API}/nodes/10000/value?row=anowhere&column=c`);
  assert.equal(gone.status, 404);
  assert.equal(await errorOf(gone), "no_such_value");
  assert.equal((await root.request(`${API}/nodes/10000/value?row=a`)).status, 422);
});

Deno.test("administrators keep the console while the store is away, others stay out", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root"), late = await world.client("root");
  const alice = await world.client("alice");
  assert.equal((await root.request(`${API}/cluster`)).status, 200);
  assert.equal((await alice.request(`${API}/cluster`)).status, 403);
  world.store.failWith = new KvError("unavailable", "no primary");
  assert.equal((await root.request(`${API}/cluster`)).status, 200);
  assert.equal((await root.send("POST", `${API}/nodes/10003/restart`)).status, 202);
  // Nobody is taken for an administrator whom this frontend has not seen as one.
  assert.equal((await alice.request(`${API}/cluster`)).status, 503);
  assert.equal((await late.request(`${API}/cluster`)).status, 503);
  await world.env.advance(11 * 60_000);
  assert.equal((await root.request(`${API}/cluster`)).status, 503);
  world.store.failWith = null;
  assert.equal((await root.request(`${API}/cluster`)).status, 200);
});

Deno.test("an administrator's ended session opens nothing while the store answers", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  assert.equal((await root.request(`${API}/cluster`)).status, 200);
  const cookies = new Map(root.cookies);
  assert.equal((await root.send("DELETE", "/api/v1/session")).status, 204);
  root.cookies = cookies;
  const refused = await root.request(`${API}/cluster`);
  assert.equal(refused.status, 401);
  assert.equal(await errorOf(refused), "not_signed_in");
});
