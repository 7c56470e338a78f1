/** The drive's API through the whole web application: shapes, statuses, headers, bad input. */
import assert from "node:assert/strict";
import { KvError } from "../../kv/errors.ts";
import { CHUNK, pseudoRandomBytes } from "../apps/drive/drive_fixture.ts";
import { type DriveSite, makeDriveSite } from "./drive_fixture.ts";

function test(
  name: string,
  run: (site: DriveSite) => Promise<void>,
  drive: Parameters<typeof makeDriveSite>[0] = {},
): void {
  Deno.test(name, async () => {
    const site = await makeDriveSite(drive);
    try {
      await run(site);
    } finally {
      site.store.failWith = null;
      await site.stop();
    }
  });
}

const text = (value: string) => new TextEncoder().encode(value);

test("every drive call wants a user", async ({ app }) => {
  const calls = [
    ["GET", "/items/root"],
    ["POST", "/folders"],
    ["PUT", "/files?name=x"],
    ["GET", "/items/root/archive"],
    ["DELETE", "/trash"],
    ["POST", "/uploads"],
    ["HEAD", "/uploads/x"],
    ["GET", "/search?q=x"],
  ];
  for (const [method, path] of calls) {
    const { status } = await app.request(`/api/v1/drive${path}`, { method: method! });
    assert.equal(status, 401, `${method} ${path}`);
  }
});

test("items, folders and files have the published shapes", async (site) => {
  const folder = await site.json("/folders", {
    method: "POST",
    json: { parent: "root", name: "Papers" },
  });
  assert.equal(folder.status, 201);
  const file = await site.json(`/files?parent=${folder.json.id}&name=a.txt`, {
    method: "PUT",
    body: "hello",
  });
  assert.equal(file.status, 201);
  assert.deepEqual(Object.keys(file.json), [
    "id",
    "name",
    "type",
    "size",
    "contentType",
    "modified",
    "created",
    "parent",
    "etag",
  ]);
  assert.equal(file.json.contentType, "text/plain");
  const listing = await site.fetch(`/items/${folder.json.id}`);
  assert.equal(listing.headers.get("cache-control"), "no-store");
  const json = await listing.json();
  assert.deepEqual(json.path, [{ id: "root", name: "My drive" }, {
    id: folder.json.id,
    name: "Papers",
  }]);
  assert.deepEqual(json.children, [file.json]);
  assert.equal(json.next, null);
  assert.equal(json.count, 1);
});

test("a taken name is 409 name_exists, also with If-None-Match, or solved as asked", async (site) => {
  await site.put("a.txt", text("one"));
  const refused = await site.json("/files?name=a.txt", { method: "PUT", body: "two" });
  assert.equal(refused.status, 409);
  assert.equal(refused.json.error.code, "name_exists");
  const onlyNew = await site.json("/files?name=a.txt&conflict=replace", {
    method: "PUT",
    body: "two",
    headers: { "if-none-match": "*" },
  });
  assert.equal(onlyNew.status, 409);
  assert.equal((await site.put("a.txt", text("two"), "&conflict=rename")).name, "a (2).txt");
  const replaced = await site.put("a.txt", text("three"), "&conflict=replace");
  assert.equal(replaced.size, 5);
  const bad = await site.json("/files?name=a.txt&conflict=maybe", { method: "PUT", body: "x" });
  assert.equal(bad.status, 422);
});

test("rename, move, trash and restore answer as published", async (site) => {
  const a = (await site.json("/folders", { method: "POST", json: { name: "A" } })).json;
  const b =
    (await site.json("/folders", { method: "POST", json: { parent: a.id, name: "B" } })).json;
  const renamed = await site.json(`/items/${b.id}`, { method: "PATCH", json: { name: "C" } });
  assert.equal(renamed.json.name, "C");
  const ring = await site.json(`/items/${a.id}`, { method: "PATCH", json: { parent: b.id } });
  assert.deepEqual([ring.status, ring.json.error.code], [409, "into_itself"]);
  const nothing = await site.json(`/items/${a.id}`, { method: "PATCH", json: {} });
  assert.equal(nothing.status, 422);
  assert.equal((await site.fetch(`/items/${a.id}`, { method: "DELETE" })).status, 204);
  assert.equal((await site.fetch(`/items/${a.id}`, { method: "DELETE" })).status, 404);
  const trash = await site.json("/trash");
  assert.equal(trash.json.children[0].name, "A");
  assert.deepEqual(trash.json.children[0].origin, []);
  const back = await site.json(`/trash/${a.id}/restore`, { method: "POST" });
  assert.equal(back.json.parent, "root");
  await site.fetch(`/items/${a.id}?forever=1`, { method: "DELETE" });
  assert.equal((await site.json("/trash")).json.count, 0);
  await site.put("x", text("x"));
  assert.equal((await site.fetch("/trash", { method: "DELETE" })).status, 204);
  assert.equal((await site.json("/usage")).json.used, 1);
});

test("content answers ranges, conditions and HEAD", async (site) => {
  const bytes = pseudoRandomBytes(3 * CHUNK + 50);
  const item = await site.put("song.mp3", bytes);
  const get = (headers: Record<string, string>, method = "GET") =>
    site.fetch(`/items/${item.id}/content`, { method, headers });
  const whole = await get({});
  assert.equal(whole.status, 200);
  const etag = whole.headers.get("etag")!, modified = whole.headers.get("last-modified")!;
  assert.equal(etag, `"${item.etag}"`);
  assert.equal(whole.headers.get("accept-ranges"), "bytes");
  assert.equal(whole.headers.get("content-type"), "audio/mpeg");
  assert.equal(whole.headers.get("content-length"), String(bytes.length));
  assert.deepEqual(new Uint8Array(await whole.arrayBuffer()), bytes);

  const head = await get({}, "HEAD");
  assert.equal(head.headers.get("content-length"), String(bytes.length));
  assert.equal((await head.arrayBuffer()).byteLength, 0);

  const part = await get({ range: `bytes=${CHUNK - 1}-${CHUNK}` });
  assert.equal(part.status, 206);
  assert.equal(part.headers.get("content-range"), `bytes ${CHUNK - 1}-${CHUNK}/${bytes.length}`);
  assert.deepEqual(new Uint8Array(await part.arrayBuffer()), bytes.slice(CHUNK - 1, CHUNK + 1));
  const suffix = await get({ range: "bytes=-10" });
  assert.deepEqual(new Uint8Array(await suffix.arrayBuffer()), bytes.slice(-10));
  const beyond = await get({ range: `bytes=${bytes.length}-` });
  assert.equal(beyond.status, 416);
  assert.equal(beyond.headers.get("content-range"), `bytes */${bytes.length}`);
  const several = await get({ range: "bytes=0-1,100-101" });
  assert.equal(several.status, 200);
  await several.body?.cancel();

  assert.equal((await get({ "if-none-match": `"x", ${etag}` })).status, 304);
  assert.equal((await get({ "if-none-match": "*" })).status, 304);
  assert.equal((await get({ "if-modified-since": modified })).status, 304);
  assert.equal((await get({ "if-match": '"other"' })).status, 412);
  for (const [validator, status] of [[etag, 206], [modified, 206], ['"other"', 200]] as const) {
    const answer = await get({ range: "bytes=0-0", "if-range": validator });
    assert.equal(answer.status, status, validator);
    await answer.body?.cancel();
  }
});

test("what users upload cannot act as the user", async (site) => {
  const names = ["page.html", "pic.svg", "code.js", "odd", "a.xml"];
  for (const name of names) {
    const item = await site.put(name, text("<script>alert(1)</script>"));
    const response = await site.fetch(`/items/${item.id}/content`);
    await response.body?.cancel();
    const { headers } = response;
    assert.match(headers.get("content-security-policy")!, /sandbox/);
    assert.equal(headers.get("x-content-type-options"), "nosniff");
    assert.match(headers.get("content-disposition")!, /^attachment;/);
  }
  const item = await site.put("pic.png", text("png"));
  const inline = await site.fetch(`/items/${item.id}/content`);
  assert.match(inline.headers.get("content-disposition")!, /^inline;/);
  await inline.body?.cancel();
  const kept = await site.fetch(`/items/${item.id}/content?download=1`);
  assert.match(kept.headers.get("content-disposition")!, /^attachment;/);
  await kept.body?.cancel();
});

test("file names with quotes, line breaks' look-alikes and other scripts survive the header", async (site) => {
  const name = 'say "hi" 100% – Ünïcode 日本.txt';
  const item = await site.put(name, text("x"));
  const response = await site.fetch(`/items/${item.id}/content?download=1`);
  await response.body?.cancel();
  const header = response.headers.get("content-disposition")!;
  const encoded = /filename\*=UTF-8''(.+)$/.exec(header)![1]!;
  assert.equal(decodeURIComponent(encoded), name);
  assert.match(header, /^attachment; filename="[\x20-\x7e]+"; /);
});

test("bad input gets a fitting status, never a 500", async (site) => {
  const item = await site.put("f", text("x"));
  const cases: [string, RequestInit & { json?: unknown }, number][] = [
    ["/items/nope", {}, 404],
    [`/items/${"a".repeat(26)}`, {}, 404],
    ["/items/%00", {}, 404],
    ["/items/root?cursor=%25%25", {}, 422],
    ["/items/root?limit=many", {}, 422],
    ["/items/root?limit=-1", {}, 422],
    ["/items/root?limit=100000", {}, 200],
    ["/items/root/content", {}, 404],
    [`/items/${item.id}/archive`, {}, 422],
    ["/folders", { method: "POST", json: { name: "" } }, 422],
    ["/folders", { method: "POST", json: { name: "a/b" } }, 422],
    ["/folders", { method: "POST", json: { name: 7 } }, 422],
    ["/folders", { method: "POST", json: { name: "x", parent: "nope" } }, 404],
    ["/folders", { method: "POST", json: { name: "x", parent: item.id } }, 422],
    [
      "/folders",
      { method: "POST", body: "{", headers: { "content-type": "application/json" } },
      400,
    ],
    ["/files", { method: "PUT", body: "x" }, 422],
    ["/files?name=..", { method: "PUT", body: "x" }, 422],
    ["/files?name=x&parent=nope", { method: "PUT", body: "x" }, 404],
    ["/files?name=x&modified=yesterday", { method: "PUT", body: "x" }, 422],
    [`/items/${item.id}`, { method: "PATCH", json: { parent: "trash" } }, 404],
    ["/items/root", { method: "PATCH", json: { name: "x" } }, 404],
    ["/items/root", { method: "DELETE" }, 404],
    ["/trash/nope/restore", { method: "POST" }, 404],
    ["/trash/nope", { method: "DELETE" }, 404],
    ["/nowhere", {}, 404],
  ];
  for (const [path, init, expected] of cases) {
    const { status, json } = await site.json(path, init);
    assert.equal(status, expected, `${init.method ?? "GET"} ${path}: ${JSON.stringify(json)}`);
    if (status >= 400) assert.equal(typeof json.error.code, "string");
  }
});

test("a store that is away gives 503, a full disk 507, and reads go on", async (site) => {
  const item = await site.put("f", text("x"));
  site.store.failWith = new KvError("unavailable", "no primary");
  const away = await site.fetch("/items/root");
  assert.equal(away.status, 503);
  assert.equal(away.headers.get("retry-after"), "1");
  site.store.failWith = null;
  const { kv } = site.context;
  const apply = kv.apply.bind(kv);
  kv.apply = () => Promise.reject(new KvError("disk_full", "no space left"));
  const full = await site.json("/files?name=g", { method: "PUT", body: "x" });
  assert.deepEqual([full.status, full.json.error.code], [507, "disk_full"]);
  assert.equal(await (await site.fetch(`/items/${item.id}/content`)).text(), "x");
  kv.apply = apply;
});

test("the quota is 507 quota_exceeded, the size limit 413", async (site) => {
  const over = await site.json("/files?name=g", { method: "PUT", body: "x".repeat(101) });
  assert.deepEqual([over.status, over.json.error.code], [507, "quota_exceeded"]);
}, { drive: { quota_bytes: 100 } });

test("search finds by name and says where", async (site) => {
  const a = (await site.json("/folders", { method: "POST", json: { name: "Trip" } })).json;
  await site.json(`/files?parent=${a.id}&name=Boat.jpg`, { method: "PUT", body: "x" });
  const { json } = await site.json("/search?q=boat");
  assert.deepEqual(
    json.items.map((one: { name: string; path: string[] }) => [one.name, one.path]),
    [
      ["Boat.jpg", ["Trip"]],
    ],
  );
});

test("tus: create, append, look, resume and finish", async (site) => {
  const bytes = pseudoRandomBytes(2 * CHUNK + 999);
  const base = { "tus-resumable": "1.0.0" };
  const b64 = (value: string) => text(value).toBase64();
  const created = await site.fetch("/uploads", {
    method: "POST",
    headers: {
      ...base,
      "upload-length": String(bytes.length),
      "upload-metadata": `filename ${b64("Ünï.bin")},parent ${b64("root")},filetype`,
    },
  });
  assert.equal(created.status, 201);
  const path = created.headers.get("location")!.replace("/api/v1/drive", "");
  const patch = (offset: number, part: Uint8Array, more: Record<string, string> = {}) =>
    site.fetch(path, {
      method: "PATCH",
      headers: {
        ...base,
        "upload-offset": String(offset),
        "content-type": "application/offset+octet-stream",
        ...more,
      },
      body: part as Uint8Array<ArrayBuffer>,
    });
  assert.equal((await patch(0, bytes.slice(0, 1000))).headers.get("upload-offset"), "1000");
  assert.equal((await patch(0, bytes)).status, 409);
  assert.equal((await patch(1000, bytes, { "content-type": "text/plain" })).status, 415);
  assert.equal((await patch(1000, bytes, { "tus-resumable": "0.1" })).status, 412);
  const head = await site.fetch(path, { method: "HEAD", headers: base });
  assert.equal(head.headers.get("upload-offset"), "1000");
  assert.equal(head.headers.get("upload-length"), String(bytes.length));
  assert.equal(head.headers.get("cache-control"), "no-store");
  assert.match(head.headers.get("upload-metadata")!, /^filename /);
  const last = await patch(1000, bytes.slice(1000));
  assert.equal(last.status, 204);
  const id = last.headers.get("upload-item");
  const content = await site.fetch(`/items/${id}/content`);
  assert.deepEqual(new Uint8Array(await content.arrayBuffer()), bytes);
  const again = await site.fetch(path, { method: "HEAD", headers: base });
  assert.equal(again.headers.get("upload-item"), id);
});

test("tus: whole files in the first request, cancelling, and what it refuses", async (site) => {
  const base = { "tus-resumable": "1.0.0" };
  const create = (headers: Record<string, string>, body?: string) =>
    site.fetch("/uploads", {
      method: "POST",
      headers: { ...base, ...headers },
      ...(body === undefined ? {} : { body }),
    });
  const named = (name: string) => ({ "upload-metadata": `filename ${text(name).toBase64()}` });
  const whole = await create({
    ...named("a"),
    "upload-length": "5",
    "content-type": "application/offset+octet-stream",
  }, "hello");
  assert.equal(whole.headers.get("upload-offset"), "5");
  assert.ok(whole.headers.get("upload-item"));
  const empty = await create({ ...named("b"), "upload-length": "0" });
  assert.ok(empty.headers.get("upload-item"));
  assert.equal((await create({ ...named("a"), "upload-length": "5" })).status, 409);
  assert.equal((await create({ "upload-length": "5" })).status, 422);
  assert.equal((await create(named("c"))).status, 400);
  assert.equal((await create({ ...named("c"), "upload-length": "-1" })).status, 400);
  assert.equal(
    (await create({ "upload-metadata": "filename !", "upload-length": "1" })).status,
    400,
  );
  const created = await create({ ...named("c"), "upload-length": "5" });
  const path = created.headers.get("location")!.replace("/api/v1/drive", "");
  const override = { ...base, "x-http-method-override": "DELETE" };
  assert.equal((await site.fetch(path, { method: "POST", headers: override })).status, 204);
  assert.equal((await site.fetch(path, { method: "HEAD", headers: base })).status, 410);
  const options = await site.app.request("/api/v1/drive/uploads", { method: "OPTIONS" });
  assert.equal(options.headers.get("tus-version"), "1.0.0");
});
