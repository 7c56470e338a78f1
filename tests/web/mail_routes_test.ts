/** The mail API through the whole web application: shapes, statuses, and what it refuses. */
import assert from "node:assert/strict";
import { KvError } from "../../kv/errors.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { realEnv } from "../../roles/env.ts";
import { createApp } from "../../web/app.ts";
import { makeContext } from "../../web/context.ts";
import { mailConfig } from "../apps/mail/mail_world.ts";

const PASSWORD = "a long enough password";

// deno-lint-ignore no-explicit-any -- the shapes are what these tests look at
type Json = any;

interface Client {
  (
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number; json: Json; response: Response; bytes: Uint8Array }>;
}

async function withApp(
  run: (world: {
    as: (user: string) => Client;
    idle: () => Promise<void>;
    store: { failWith: KvError | null };
  }) => Promise<void>,
): Promise<void> {
  const store: { failWith: KvError | null } = { failWith: null };
  const kv = new MemoryKv({
    beforeCall: () => {
      if (store.failWith !== null) throw store.failWith;
    },
  });
  const env = { ...realEnv({ node: "test/0" }), log: () => {} };
  const context = makeContext({
    kv,
    env,
    config: mailConfig({ message_max_bytes: 1024 * 1024 }),
    admin: null as never,
  });
  const app = createApp(context);
  for (const username of ["ann", "bob"]) {
    await context.accounts.create({ username, password: PASSWORD });
  }
  const as = (user: string): Client => async (method, path, body, headers = {}) => {
    const json = body !== undefined && !(body instanceof Uint8Array);
    const response = await app.request(`/api/v1/mail${path}`, {
      method,
      headers: {
        ...(user === "" ? {} : { authorization: `Basic ${btoa(`${user}:${PASSWORD}`)}` }),
        ...(json ? { "content-type": "application/json" } : {}),
        ...headers,
      },
      ...(body === undefined ? {} : { body: json ? JSON.stringify(body) : body as BodyInit }),
    });
    const bytes = new Uint8Array(await response.clone().arrayBuffer());
    const isJson = (response.headers.get("content-type") ?? "").includes("json");
    return {
      status: response.status,
      json: isJson ? await response.json() : null,
      response,
      bytes,
    };
  };
  try {
    await run({ as, idle: () => context.mail.worker.idle(), store });
  } finally {
    store.failWith = null;
    await context.mail.worker.idle();
  }
}

const test = (name: string, run: Parameters<typeof withApp>[0]) =>
  Deno.test(name, () => withApp(run));

test("every mail call wants a user", async ({ as }) => {
  for (const path of ["/folders", "/messages", "/search?q=x", "/messages/abcdefgh", "/drafts/x"]) {
    const { status, json } = await as("")("GET", path);
    assert.equal(status, 401, path);
    assert.equal(json.error.code, "not_signed_in");
  }
  assert.equal((await as("")("POST", "/messages", { to: "ann@penncloud.test" })).status, 401);
});

test("GET /folders lists name, role, total and unread", async ({ as }) => {
  const { json } = await as("ann")("GET", "/folders");
  assert.deepEqual(
    json.map((folder: Json) => [folder.name, folder.role, folder.total, folder.unread]),
    [
      ["INBOX", "inbox", 0, 0],
      ["Drafts", "drafts", 0, 0],
      ["Sent", "sent", 0, 0],
      ["Junk", "junk", 0, 0],
      ["Trash", "trash", 0, 0],
    ],
  );
});

test("a message goes from POST to the other's list, text, raw and attachment", async ({ as, idle }) => {
  const ann = as("ann"), bob = as("bob");
  const sent = await ann("POST", "/messages", {
    to: ["Bob <bob@penncloud.test>"],
    cc: "ann@penncloud.test",
    subject: "Hello",
    text: "How are you?",
    html: "<p>How are <b>you</b>?</p><script>alert(1)</script>",
    attachments: [{ filename: "a.txt", contentType: "text/plain", content: btoa("attached") }],
  });
  assert.equal(sent.status, 202);
  assert.deepEqual(sent.json.recipients, [
    { address: "bob@penncloud.test", status: "queued" },
    { address: "ann@penncloud.test", status: "queued" },
  ]);
  await idle();
  const list = (await bob("GET", "/messages?folder=INBOX&limit=10")).json;
  assert.equal(list.next, null);
  const [message] = list.messages;
  const { id, date, size, ...rest } = message;
  assert.ok(Date.parse(date) > 0 && size > 100);
  assert.deepEqual(rest, {
    uid: 1,
    folder: "INBOX",
    from: { name: "", address: "ann@penncloud.test" },
    to: [{ name: "Bob", address: "bob@penncloud.test" }],
    cc: [{ name: "", address: "ann@penncloud.test" }],
    subject: "Hello",
    flags: [],
    snippet: "How are you?",
    hasAttachments: true,
  });
  const full = (await bob("GET", `/messages/${id}`)).json;
  assert.equal(full.text.trim(), "How are you?");
  assert.match(full.html, /<b>you<\/b>/);
  assert.doesNotMatch(full.html, /script|alert/);
  assert.deepEqual(full.attachments, [
    { n: 0, filename: "a.txt", contentType: "text/plain", size: 8, inline: false },
  ]);
  const raw = await bob("GET", `/messages/${id}/raw`);
  assert.equal(raw.response.headers.get("content-type"), "message/rfc822");
  assert.equal(raw.bytes.length, Number(raw.response.headers.get("content-length")));
  assert.match(new TextDecoder().decode(raw.bytes), /^Subject: Hello\r$/m);
  const part = await bob("GET", `/messages/${id}/attachments/0`);
  assert.equal(new TextDecoder().decode(part.bytes), "attached");
  assert.match(part.response.headers.get("content-security-policy")!, /sandbox/);
  assert.equal((await bob("GET", `/messages/${id}/attachments/7`)).status, 404);
  const own = (await ann("GET", `/messages/${sent.json.id}`)).json;
  assert.deepEqual(own.recipients.map((recipient: Json) => recipient.status), [
    "delivered",
    "delivered",
  ]);
  assert.equal((await as("ann")("GET", `/messages/${id}`)).json.folder, "INBOX");
  assert.equal((await bob("GET", `/messages/${sent.json.id}`)).status, 404);
});

test("the frame of a mail has a policy of its own that runs nothing and fetches nothing", async ({ as, idle }) => {
  await as("ann")("POST", "/messages", {
    to: "bob@penncloud.test",
    html: '<p style="color: red">x</p><img src="https://track.example/x.gif" onerror="alert(1)">',
  });
  await idle();
  const bob = as("bob");
  const [{ id }] = (await bob("GET", "/messages")).json.messages;
  const closed = await bob("GET", `/messages/${id}/frame`);
  const policy = closed.response.headers.get("content-security-policy")!;
  assert.match(policy, /default-src 'none'/);
  assert.match(policy, /sandbox allow-same-origin(?!.*allow-scripts)/);
  assert.match(policy, /img-src data:;/);
  const html = new TextDecoder().decode(closed.bytes);
  assert.doesNotMatch(html, / src="https|onerror/);
  const open = await bob("GET", `/messages/${id}/frame?images=1`);
  assert.match(new TextDecoder().decode(open.bytes), / src="https:\/\/track/);
  assert.match(open.response.headers.get("content-security-policy")!, /img-src data: https:/);
  assert.equal((await bob("GET", `/messages/${id}`)).json.remoteImages, 1);
});

test("POST /messages names what is wrong with 422", async ({ as }) => {
  const ann = as("ann");
  const cases: [unknown, string, string?][] = [
    [{ to: "bob@penncloud.test, broken@@x" }, "invalid_address", "broken@@x"],
    [{ to: "ghost@penncloud.test" }, "unknown_recipient", "ghost@penncloud.test"],
    [{ to: [] }, "no_recipients"],
    [{ to: 7 }, "invalid_request"],
    [{ to: "bob@penncloud.test", attachments: [{ upload: "nosuchupload" }] }, "attachment_missing"],
    [
      { to: "bob@penncloud.test", attachments: [{ filename: "a", content: "%%%" }] },
      "invalid_message",
    ],
    [{ to: "bob@penncloud.test", inReplyTo: "x y" }, "invalid_message"],
  ];
  for (const [body, code, address] of cases) {
    const { status, json } = await ann("POST", "/messages", body);
    assert.deepEqual([status, json.error.code], [422, code]);
    if (address !== undefined) {
      assert.equal(json.error.address, address);
      assert.ok(json.error.message.includes(address));
    }
  }
  const large = btoa("x".repeat(900_000));
  const tooLarge = await ann("POST", "/messages", {
    to: "bob@penncloud.test",
    attachments: [{ filename: "a", content: large }],
  });
  assert.deepEqual([tooLarge.status, tooLarge.json.error.code], [413, "message_too_large"]);
  const notJson = await ann("POST", "/messages", new TextEncoder().encode("{"), {
    "content-type": "application/json",
  });
  assert.equal(notJson.status, 400);
});

test("PATCH sets flags and folder, DELETE goes to Trash and then for good", async ({ as, idle }) => {
  await as("ann")("POST", "/messages", { to: "bob@penncloud.test", text: "x" });
  await idle();
  const bob = as("bob");
  const [{ id }] = (await bob("GET", "/messages")).json.messages;
  const seen = await bob("PATCH", `/messages/${id}`, { flags: ["seen", "\\Flagged"] });
  assert.deepEqual([seen.status, seen.json.flags], [200, ["flagged", "seen"]]);
  const moved = await bob("PATCH", `/messages/${id}`, {
    folder: "Junk",
    flags: { flagged: false },
  });
  assert.deepEqual([moved.json.folder, moved.json.flags, moved.json.id], ["Junk", ["seen"], id]);
  assert.equal((await bob("PATCH", `/messages/${id}`, { folder: "No such" })).status, 404);
  assert.equal((await bob("DELETE", `/messages/${id}`)).status, 200);
  assert.equal((await bob("GET", `/messages/${id}`)).json.folder, "Trash");
  assert.equal((await bob("DELETE", `/messages/${id}`)).json.result, "deleted");
  assert.equal((await bob("GET", `/messages/${id}`)).status, 404);
  assert.equal((await bob("DELETE", `/messages/${id}`)).status, 404);
});

test("lists go newest first, page by page, and a cursor of nonsense starts at the top", async ({ as, idle }) => {
  for (let i = 0; i < 7; i++) {
    await new Promise((resolve) => setTimeout(resolve, 2)); // the order is by milliseconds
    await as("ann")("POST", "/messages", { to: "bob@penncloud.test", subject: `${i}` });
    await idle();
  }
  const bob = as("bob"), subjects: string[] = [];
  for (let cursor: string | null = ""; cursor !== null;) {
    const page: Json = (await bob("GET", `/messages?limit=3&cursor=${cursor}`)).json;
    subjects.push(...page.messages.map((message: Json) => message.subject));
    cursor = page.next;
  }
  assert.deepEqual(subjects, ["6", "5", "4", "3", "2", "1", "0"]);
  assert.equal((await bob("GET", "/messages?cursor=%00x&limit=-5")).json.messages.length, 1);
  assert.equal((await bob("GET", "/messages?folder=Nowhere")).status, 404);
  const found = (await bob("GET", "/search?q=subject:3")).json.messages;
  assert.deepEqual(found.map((message: Json) => [message.subject, message.folder]), [[
    "3",
    "INBOX",
  ]]);
});

test("bulk actions do what they can and name what they could not", async ({ as, idle }) => {
  for (let i = 0; i < 5; i++) await as("ann")("POST", "/messages", { to: "bob@penncloud.test" });
  await idle();
  const bob = as("bob");
  const ids = (await bob("GET", "/messages")).json.messages.map((message: Json) => message.id);
  const marked = await bob("POST", "/bulk", {
    ids: [...ids, "nosuchmessage"],
    flags: { seen: true },
  });
  assert.deepEqual(marked.json, { done: 5, failed: [{ id: "nosuchmessage", code: "not_found" }] });
  await bob("POST", "/bulk", { ids, folder: "archive" });
  const folders = (await bob("GET", "/folders")).json;
  assert.deepEqual(
    folders.filter((folder: Json) => folder.total > 0).map((folder: Json) => folder.name),
    ["Archive"],
  );
});

test("drafts are saved under the client's id, conflict by revision, and go with the sent message", async ({ as, idle }) => {
  const ann = as("ann"), id = "qabcdefghijklmnopqrst";
  const upload = await ann("POST", "/uploads?name=%C3%84.txt", new TextEncoder().encode("file"), {
    "content-type": "text/plain",
  });
  assert.equal(upload.status, 201);
  const first = await ann("PUT", `/drafts/${id}`, {
    to: ["bob@penn"],
    text: "H",
    attachments: [upload.json],
    revision: 0,
  });
  assert.deepEqual([first.status, first.json.revision], [200, 1]);
  const second = await ann("PUT", `/drafts/${id}`, { text: "Hello", revision: 1 });
  assert.equal(second.json.revision, 2);
  assert.equal((await ann("PUT", `/drafts/${id}`, { text: "Other", revision: 1 })).status, 409);
  assert.equal((await ann("GET", `/drafts/${id}`)).json.text, "Hello");
  assert.equal((await ann("GET", "/messages?folder=drafts")).json.messages[0].id, id);
  const sent = await ann("POST", "/messages", { id, to: "bob@penncloud.test", text: "Hello" });
  assert.deepEqual([sent.status, sent.json.id], [202, id]);
  const again = await ann("POST", "/messages", { id, to: "bob@penncloud.test", text: "Hello" });
  assert.equal(again.status, 202);
  await idle();
  assert.equal((await as("bob")("GET", "/messages")).json.messages.length, 1);
  assert.equal((await ann("PUT", `/drafts/${id}`, { text: "late" })).status, 410);
  assert.equal((await ann("PUT", "/drafts/short", { text: "x" })).status, 422);
});

test("an upload above the limit is refused with 413", async ({ as }) => {
  const { status } = await as("ann")("POST", "/uploads?name=a", new Uint8Array(1024 * 1024 + 1));
  assert.equal(status, 413);
});

test("while the store is away the API says 503 with Retry-After, and nothing hangs", async ({ as, store }) => {
  const ann = as("ann");
  await ann("GET", "/folders");
  store.failWith = new KvError("unavailable", "no primary");
  for (const path of ["/folders", "/messages", "/search?q=x"]) {
    const { status, response } = await ann("GET", path);
    assert.deepEqual([status, response.headers.get("retry-after")], [503, "1"]);
  }
  const { status } = await ann("POST", "/messages", { to: "bob@penncloud.test", text: "x" });
  assert.equal(status, 503);
});
