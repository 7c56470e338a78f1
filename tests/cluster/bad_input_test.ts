/**
 * Bad input to every door of a running cluster: the wire between nodes, HTTP, SMTP and the command
 * line. After each kind, every process must be the one that it was, hold about the memory and the
 * descriptors that it held, and serve.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { proveHello } from "../../proto/hello.ts";
import { PROTOCOL_VERSION } from "../../proto/version.ts";
import { connectRaw, type RawClient } from "../roles/net_pair.ts";
import { eventually } from "../eventually.ts";
import { primaryOf, withConnection } from "./cluster_calls.ts";
import { kvConversation } from "../../proto/kv_wire.ts";
import { filesBelow } from "./damage.ts";
import { REPOSITORY, runPenncloud, startCluster, type TestCluster } from "./harness.ts";
import { assertUnharmed, type ProcessState, processStates } from "./process_watch.ts";
import { deliverOne, SmtpTalk } from "./smtp_talk.ts";
import { frontendDoors, newcomer, randomBytes, type Send, Visitor } from "./visitor.ts";

const MIB = 1024 * 1024;
const NONCE = "ab".repeat(16);

let cluster: TestCluster;
let door = "";
let user: Visitor;
let before: Map<string, ProcessState>;

Deno.test.beforeAll(async () => {
  cluster = await startCluster({ config: "tests/cluster/three_doors.toml" });
  door = frontendDoors(cluster)[0]!;
  user = await newcomer(door, "wanda");
  // The first of everything loads code and fills caches; what comes after must not add up.
  await user.send(["wanda"], "warm up");
  await user.upload("kept", "kept");
  assert.match(await deliverOne(cluster.config.mail.smtp_port, "wanda", "warm up"), /^250/);
  before = await processStates(cluster);
});
Deno.test.afterAll(async () => await cluster.stop());

/** Every process lives on as it was, and every door serves. */
async function assertWell(): Promise<void> {
  await assertUnharmed(cluster, before);
  assert.equal((await user.request("/api/v1/mail/folders")).status, 200);
  assert.equal((await user.files())[0]?.name, "kept");
  const sent = await fetch(`${cluster.baseUrl}/login`, { redirect: "manual" });
  await sent.body?.cancel();
  assert.equal(sent.status, 307);
  using talk = await SmtpTalk.open(cluster.config.mail.smtp_port);
  assert.match(await talk.say("NOOP"), /^250/);
}

// The wire.

interface WireDoor {
  readonly name: string;
  readonly port: number;
}

function wireDoors(): WireDoor[] {
  return [
    ...["backend/0", "coordinator/0"].map((name) => ({ name, port: cluster.node(name).port })),
    { name: "supervisor", port: cluster.config.cluster.supervisor_port },
  ];
}

/** Sends `bytes` to a connection and gives what the node says until it hangs up. */
async function sayToWire(client: RawClient, bytes: string | Uint8Array): Promise<string> {
  await client.write(bytes).catch(() => {}); // It may hang up before it has heard everything.
  return (await client.readToEnd()).join("\n");
}

async function hello(client: RawClient, change: Record<string, unknown> = {}): Promise<void> {
  const { nonce: serverNonce } = JSON.parse((await client.readLine())!);
  const name = cluster.config.cluster.name;
  const proof = await proveHello({
    secret: cluster.secret.toHex(),
    cluster: name,
    serverNonce,
    clientNonce: NONCE,
    direction: "client",
    from: "client/7",
  });
  const line = { penncloud: PROTOCOL_VERSION, cluster: name, from: "client/7", nonce: NONCE };
  await client.write(JSON.stringify({ ...line, proof, ...change }) + "\n");
}

async function letIn(port: number): Promise<RawClient> {
  const client = await connectRaw(port);
  await hello(client);
  assert.match((await client.readLine())!, /"re":"hello"/);
  return client;
}

Deno.test("bad input, wire: strangers are told why and cut off, whatever they say", async () => {
  for (const { name, port } of wireDoors()) {
    const says: [string | Uint8Array, RegExp][] = [
      [randomBytes(200_000), /"error"|^$/],
      ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", /broken_json/],
      ['{"id":1,"m":"list","b":{}}\n', /bad_hello/],
      ["[]\n", /bad_message/],
      ['{"penncloud":99}\n', /wrong_version/],
      ["x".repeat(100_000), /line_too_long/],
    ];
    for (const [bytes, answer] of says) {
      using client = await connectRaw(port);
      await client.readLine();
      const heard = await sayToWire(client, bytes);
      assert.match(heard, answer, `${name} to ${String(bytes).slice(0, 40)}`);
    }
    const wrong: [Record<string, unknown>, RegExp][] = [
      [{ proof: "00".repeat(32) }, /wrong_secret/],
      [{ penncloud: PROTOCOL_VERSION + 1 }, /wrong_version/],
      [{ cluster: "other" }, /wrong_cluster/],
      [{ from: "backend/0; rm" }, /bad_hello/],
      [{ nonce: NONCE.toUpperCase() + "!" }, /bad_hello/],
    ];
    for (const [change, answer] of wrong) {
      using client = await connectRaw(port);
      await hello(client, change);
      assert.match((await client.readToEnd()).join("\n"), answer, `${name}: ${answer}`);
    }
    // Half a hello, and nothing more; and many who never say anything.
    using half = await connectRaw(port);
    await half.write('{"penncloud":1,"clu');
    for (let i = 0; i < 100; i++) {
      using _silent = await connectRaw(port);
    }
    // A slow machine needs a moment to notice that they have hung up.
    await eventually(async () => {
      using guest = await connectRaw(port);
      return /"nonce"/.test(await guest.readLine().catch(() => null) ?? "");
    }, `${name} to have room again`);
  }
  await assertWell();
});

Deno.test("bad input, wire: a peer that talks nonsense is told and cut off", async () => {
  for (const { name, port } of wireDoors()) {
    const says: [string | Uint8Array, RegExp][] = [
      ["{broken\n", /broken_json/],
      [new Uint8Array([0xff, 0xfe, 0x0a]), /broken_json/],
      ['{"id":1,"m":"fly","b":{}}\n', /unknown_method/],
      ['{"id":1,"m":"__proto__","b":{}}\n', /unknown_method/],
      ['{"id":-1,"m":"get"}\n', /bad_message/],
      ['{"id":1,"m":"get","bytes":99999999999}\n', /payload_too_large/],
      ['{"id":1,"m":"get","bytes":-5}\n', /bad_message/],
      [`{"id":1,"m":"get","b":${"[".repeat(200_000)}\n`, /broken_json/],
    ];
    for (const [bytes, answer] of says) {
      using client = await letIn(port);
      assert.match(await sayToWire(client, bytes), answer, `${name}: ${answer}`);
    }
    // Answers to questions that nobody asked, and half a payload.
    using client = await letIn(port);
    await client.write('{"re":77,"b":{}}\n{"re":78,"error":{"code":"x","message":"y"}}\n');
    using half = await letIn(port);
    await half.write('{"id":5,"m":"apply","b":{},"bytes":1000}\nonly this');
  }
  await assertWell();
});

Deno.test("bad input, wire: a line of 100 MB ends the connection, not the memory", async () => {
  const piece = new Uint8Array(MIB).fill(0x61);
  for (const { name, port } of wireDoors()) {
    using client = await letIn(port);
    const heard = client.readToEnd();
    try {
      for (let sentMib = 0; sentMib < 100; sentMib++) await client.write(piece);
    } catch {
      // It may hang up before it has heard everything.
    }
    const lines = await heard;
    assert(lines.length === 0 || /line_too_long/.test(lines.join()), `${name} said ${lines}`);
  }
  await assertWell();
});

Deno.test("bad input, wire: what a refused or repeated request brought does not stay on the disk", async () => {
  const primary = await primaryOf(cluster, "wanda"), gid = 3;
  const folder = join(cluster.dir, primary.replace("/", "-"), "blobs");
  const value = new Uint8Array(100_000).fill(1), row = "wanda-large";
  const clientId = `test-${crypto.randomUUID()}`;
  const request = (seq: number, issuedMs: number) => ({
    gid,
    hops: 0,
    stamp: { clientId, seq, firstIncomplete: 1, issuedMs },
    op: {
      row,
      conditions: [],
      mutations: [{
        kind: "put" as const,
        column: "c",
        value: { size: value.length, crc: crc32(value) },
      }],
    },
  });
  const files = (await filesBelow(folder)).length;
  await withConnection(cluster, cluster.node(primary), async (connection) => {
    const ask = (seq: number, issuedMs: number) =>
      // deno-lint-ignore no-explicit-any -- the ids of the wire are branded, these are plain numbers
      connection.call(kvConversation, "apply", request(seq, issuedMs) as any, [value])
        .then(({ body }) => body.kind, (error) => error.code);
    const nowMs = Date.now();
    assert.equal(await ask(1, nowMs), "applied");
    assert.equal(await ask(1, nowMs), "applied", "the answer of the first time");
    assert.equal(await ask(2, 0), "session_too_old");
  });
  await eventually(
    async () => (await filesBelow(folder)).length === files + 1,
    "the files of the other two to go",
  );
});

Deno.test("bad input, wire: wrong bodies are refused one by one, and the connection goes on", async () => {
  const primary = await primaryOf(cluster, "wanda");
  using client = await letIn(cluster.node(primary).port);
  const op = { row: "wanda", conditions: [], mutations: [] };
  const stamp = { clientId: "c".repeat(10), seq: 1, firstIncomplete: 1, issuedMs: Date.now() };
  const put = { kind: "put", column: "c", value: { size: 4, crc: 1 } };
  const ownColumn = { kind: "delete", column: "\u0001lock" };
  const lone = { ...op, mutations: [{ kind: "delete", column: "c" }] };
  const txn = { id: "transaction", anchor: "wanda" };
  const bodies: [string, unknown, string][] = [
    ["get", null, ""],
    ["get", { gid: 1, hops: 0, row: 7, column: "c" }, ""],
    ["get", { gid: 99, hops: 0, row: "wanda", column: "c" }, ""],
    ["get", { gid: 1, hops: 0, row: "r".repeat(2000), column: "c" }, ""],
    ["getRow", { gid: 3, hops: 0, row: "wanda", limit: 1e9 }, ""],
    ["scan", { gid: 3, hops: 0, startRow: "z", endRow: "a", limit: 0 }, ""],
    ["apply", { gid: 3, hops: 0, stamp, op }, ""],
    ["apply", { gid: 3, hops: 0, stamp, op: { ...op, mutations: [put] } }, "none"], // a wrong checksum
    ["apply", { gid: 3, hops: 0, stamp, op: { ...op, mutations: [put] } }, ""], // no value at all
    [
      "apply",
      { gid: 3, hops: 0, stamp: { ...stamp, seq: 1e6 }, op: { ...op, mutations: [put] } },
      "",
    ],
    ["apply", { gid: 3, hops: 0, stamp, op: { ...op, mutations: [ownColumn] } }, ""],
    ["multiRow", { gid: 3, hops: 0, stamp, ops: [] }, ""],
    ["multiRow", { gid: 3, hops: 0, stamp, ops: [lone, lone] }, ""], // one row twice
    ["multiRow", { gid: 3, hops: 0, stamp, ops: [lone, { ...lone, row: "anna" }] }, ""], // another group's
    ["prepare", { gid: 3, hops: 0, stamp, txn, ops: [lone], others: [], lifeMs: 1e9 }, ""],
    ["prepare", { gid: 3, hops: 0, stamp, txn: {}, ops: [lone], others: [], lifeMs: 1 }, ""],
    ["settle", { gid: 3, hops: 0, stamp, row: "wanda", txn, step: "explode", lifeMs: 1 }, ""],
    ["txnState", { gid: 3, hops: 0, row: "wanda", id: "" }, ""],
    ["rows", { start: "", limit: 1e6, valueBytes: 1e9 }, ""],
    ["open", { gid: 42 }, ""],
    ["read", { token: "../../etc/passwd", offset: 0, length: 10 }, ""],
    ["blob", { gid: 1, blob: "../../../etc/passwd" }, ""],
  ];
  for (const [i, [m, b, payload]] of bodies.entries()) {
    const line = { id: i + 1, m, b, ...(payload === "" ? {} : { bytes: payload.length }) };
    await client.write(JSON.stringify(line) + "\n" + payload);
    const answer = JSON.parse((await client.readLine())!);
    assert.equal(answer.re, i + 1);
    const refused = answer.error !== undefined || answer.b?.found === false ||
      answer.b?.kind === "failed";
    assert(refused, `${m} ${JSON.stringify(b).slice(0, 80)}: ${JSON.stringify(answer)}`);
  }
  await assertWell();
});

Deno.test("bad input, wire: strange words about replication stop no healthy node", async () => {
  const primary = await primaryOf(cluster, "wanda");
  const { port } = cluster.node(primary);
  const head = { gid: 3, from: 1, store: "s", inc: 1, toInc: 0, epoch: 1, reign: 1 };
  const entry = { epoch: 1, lsn: 1, size: 9 };
  const evil = { blob: "../../../evil", size: 4 };
  const messages: [Record<string, unknown>, string][] = [
    [{ kind: "appendAck", ...head, matchLsn: Number.MAX_SAFE_INTEGER }, ""],
    [{ kind: "appendNack", ...head, round: 0, lastLsn: 1e15, baseLsn: 1e15, history: [] }, ""],
    [{ kind: "behind", ...head, from: 77 }, ""],
    [{ kind: "heartbeatAck", ...head, sentMs: 1e300 }, ""],
    [{ kind: "snapshotOffer", ...head, round: 0, gid: 99 }, ""],
    [
      {
        kind: "append",
        ...head,
        round: 0,
        prevEpoch: 0,
        prevLsn: 0,
        entries: [entry],
        commitLsn: 1,
      },
      "not json!",
    ],
    [{
      kind: "append",
      ...head,
      round: 0,
      prevEpoch: 0,
      prevLsn: 0,
      entries: [entry],
      commitLsn: 1,
    }, ""],
    [
      {
        kind: "append",
        ...head,
        round: 0,
        prevEpoch: 0,
        prevLsn: 0,
        entries: [{ ...entry, size: 0, blobs: [evil] }],
        commitLsn: 1,
      },
      "evil",
    ],
  ];
  for (const [b, payload] of messages) {
    // An unreadable message may cost its sender the connection, so each comes on one of its own.
    using client = await letIn(port);
    const bytes = payload === "" ? {} : { bytes: payload.length };
    await client.write(JSON.stringify({ m: "replica", b, ...bytes }) + "\n" + payload);
    // The node has dealt with it when it answers what came after, or has hung up.
    await client.write('{"id":1,"m":"digest","b":{}}\n').catch(() => {});
    await client.readLine();
  }
  await assert.rejects(Deno.stat(join(cluster.dir, "..", "evil")), Deno.errors.NotFound);
  await withConnection(cluster, cluster.node(primary), async (connection) => {
    assert.equal((await connection.call(kvConversation, "digest", {})).body.groups.length, 3);
  });
  await assertWell();
});

// HTTP.

/** Sends bytes to an HTTP port and gives the status of the answer; 0 when there was none. */
async function rawStatus(port: number, bytes: string | Uint8Array): Promise<number> {
  using client = await connectRaw(port);
  await client.write(bytes).catch(() => {});
  const line = await Promise.race([
    client.readLine(),
    new Promise<null>((resolve) => setTimeout(() => resolve(null), 3_000)),
  ]);
  return Number(/^HTTP\/1\.[01] (\d{3})/.exec(line ?? "")?.[1] ?? 0);
}

Deno.test("bad input, HTTP: what is no HTTP gets a 4xx or a closed connection", async () => {
  const junk: (string | Uint8Array)[] = [
    randomBytes(100_000),
    "HELLO\r\n\r\n",
    "GET /\r\n\r\n",
    "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    `GET /${"a".repeat(2 * MIB)} HTTP/1.1\r\nHost: x\r\n\r\n`,
    `GET / HTTP/1.1\r\nHost: x\r\nX-Big: ${"b".repeat(2 * MIB)}\r\n\r\n`,
    `GET / HTTP/1.1\r\nHost: x\r\n${"X-Many: y\r\n".repeat(20_000)}\r\n`,
    "GET / HTTP/1.1\r\nHost: a b c\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\nBroken header\r\n\r\n",
    "POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "POST /api/v1/session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // A browser that tries TLS.
  ];
  const ports = [cluster.node("balancer/0").port, cluster.node("frontend/0").port];
  for (const port of ports) {
    const statuses = await Promise.all(junk.map((bytes) => rawStatus(port, bytes)));
    for (const [i, status] of statuses.entries()) {
      const shown = String(junk[i]).slice(0, 40);
      // A redirect is the balancer's answer to anything that could be read after all.
      assert(status < 500, `${port} to ${shown}: ${status}`);
    }
    assert.equal(await rawStatus(port, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
  }
  await assertWell();
});

Deno.test("bad input, HTTP: the balancer sends nobody where they did not want to go", async () => {
  const port = cluster.node("balancer/0").port;
  const doors = new Set(frontendDoors(cluster));
  const paths = ["//evil.example/x", "/\\evil.example", "/%0d%0aSet-Cookie:%20a=b", "/..%2f..%2f"];
  for (const path of paths) {
    using client = await connectRaw(port);
    await client.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n`);
    const lines = (await client.readToEnd()).map((line) => line.trim());
    assert.match(lines[0]!, / (307|400) /, path);
    const location = lines.find((line) => /^location:/i.test(line))?.slice(9).trim();
    if (location !== undefined) assert(doors.has(new URL(location).origin), location);
    assert(!lines.some((line) => /^set-cookie:/i.test(line)), path);
  }
  await assertWell();
});

/** What is sent to the API, and the statuses with which it may be refused. */
const API_CASES: readonly [
  method: string,
  path: string,
  send: Send,
  statuses: readonly number[],
][] = [
  ["POST", "/api/v1/session", { body: "{", headers: { "content-type": "application/json" } }, [
    400,
  ]],
  ["POST", "/api/v1/session", { body: "username=a", headers: { "content-type": "text/plain" } }, [
    415,
  ]],
  ["POST", "/api/v1/session", { json: [] }, [422]],
  ["POST", "/api/v1/session", { json: null }, [422]],
  ["POST", "/api/v1/session", { json: { username: 7, password: {} } }, [422]],
  ["POST", "/api/v1/session", { json: { username: "wanda" } }, [422]],
  ["POST", "/api/v1/session", { json: { username: "\ud800", password: "\udfff" } }, [401]],
  ["POST", "/api/v1/session", { json: { username: "x\0y", password: "\0" } }, [401]],
  ["POST", "/api/v1/session", { json: { username: "x".repeat(5000), password: "y" } }, [422]],
  ["POST", "/api/v1/session", {
    body: "[".repeat(60_000),
    headers: { "content-type": "application/json" },
  }, [400]],
  ["POST", "/api/v1/session", {
    body: new Uint8Array(60 * MIB),
    headers: { "content-type": "application/json" },
  }, [413]],
  ["POST", "/api/v1/session", {
    json: { username: "a", password: "b" },
    headers: { origin: "https://evil.example" },
  }, [403]],
  ["POST", "/api/v1/session", {
    json: { username: "a", password: "b" },
    headers: { "sec-fetch-site": "cross-site" },
  }, [403]],
  ["POST", "/api/v1/accounts", { json: { username: "../etc", password: "long enough 1" } }, [422]],
  ["POST", "/api/v1/accounts", { json: { username: "__proto__", password: "long enough 1" } }, [
    422,
  ]],
  ["POST", "/api/v1/accounts", { json: { username: "admin", password: "long enough 1" } }, [
    409,
    422,
  ]],
  ["POST", "/api/v1/accounts", { json: { username: "wanda", password: "long enough 1" } }, [409]],
  ["PUT", "/api/v1/account/password", { json: { current: "wrong", new: "long enough 1" } }, [403]],
  ["BREW", "/api/v1/session", {}, [404, 405]],
  ["DELETE", "/api/v1/mail/folders", {}, [404, 405]],
  ["GET", "/api/v1/nothing", {}, [404]],
  ["GET", "/api/v1/mail/messages/..%2f..%2fetc", {}, [404, 422]],
  ["GET", `/api/v1/mail/messages/${"z".repeat(3000)}`, {}, [404, 422]],
  ["GET", "/api/v1/mail/messages?folder=%00", {}, [404, 422]],
  ["GET", "/api/v1/mail/messages?folder=nowhere", {}, [404]],
  ["POST", "/api/v1/mail/messages", { json: { to: "not an address", subject: "x" } }, [422]],
  ["POST", "/api/v1/mail/messages", { json: { to: [], subject: "x" } }, [422]],
  ["POST", "/api/v1/mail/messages", { json: { to: ["a@b\r\nBcc: c@d"], subject: "x" } }, [422]],
  ["POST", "/api/v1/mail/messages", {
    json: { to: ["wanda@penncloud.test"], attachments: [{ filename: "a", content: "!" }] },
  }, [422]],
  ["POST", "/api/v1/mail/messages", { json: { to: Array(2000).fill("wanda@penncloud.test") } }, [
    422,
  ]],
  ["PATCH", "/api/v1/mail/messages/abc", { json: { flags: "seen" } }, [404, 422]],
  ["POST", "/api/v1/mail/bulk", { json: { ids: [], action: "explode" } }, [422]],
  ["GET", "/api/v1/drive/items/..%2froot", {}, [404, 422]],
  ["GET", "/api/v1/drive/items/root/content", {}, [404, 409, 422]],
  ["GET", "/api/v1/drive/items/root?cursor=%ff%fe", {}, [400, 422]],
  ["POST", "/api/v1/drive/folders", { json: { parent: "root", name: ".." } }, [422]],
  ["POST", "/api/v1/drive/folders", { json: { parent: "root", name: "a/b" } }, [422]],
  ["POST", "/api/v1/drive/folders", { json: { parent: "root", name: "a\0b" } }, [422]],
  ["POST", "/api/v1/drive/folders", { json: { parent: "root", name: "\ud800" } }, [422]],
  ["POST", "/api/v1/drive/folders", { json: { parent: "root", name: "n".repeat(2000) } }, [422]],
  ["POST", "/api/v1/drive/folders", { json: { parent: "nowhere", name: "x" } }, [404]],
  ["PUT", "/api/v1/drive/files?parent=root&name=", { body: "x" }, [422]],
  ["PUT", "/api/v1/drive/files?parent=root&name=x&modified=never", { body: "x" }, [422]],
  ["PUT", "/api/v1/drive/files?parent=root&name=x&conflict=maybe", { body: "x" }, [422]],
  ["POST", "/api/v1/drive/uploads", { headers: { "tus-resumable": "9.9.9" } }, [412]],
  ["POST", "/api/v1/drive/uploads", {
    headers: { "tus-resumable": "1.0.0", "upload-length": "-4" },
  }, [400]],
  ["POST", "/api/v1/drive/uploads", {
    headers: { "tus-resumable": "1.0.0", "upload-length": "4", "upload-metadata": "filename !!!" },
  }, [400]],
  ["PATCH", "/api/v1/drive/uploads/nothing", {
    headers: {
      "tus-resumable": "1.0.0",
      "upload-offset": "0",
      "content-type": "application/offset+octet-stream",
    },
    body: "x",
  }, [404, 410]],
  ["GET", "/api/v1/admin/cluster", {}, [403]],
  ["POST", "/api/v1/admin/nodes/1/kill", {}, [403]],
  ["GET", "/static/..%2f..%2fmain.ts", {}, [404]],
  ["GET", "/static/%2e%2e/%2e%2e/etc/passwd", {}, [404]],
];

Deno.test("bad input, HTTP: the API refuses each piece of nonsense with a fitting status", async () => {
  const wrong: string[] = [];
  for (const [method, path, send, statuses] of API_CASES) {
    // Guests try their luck at the doors, users at what is behind them.
    const guest = /session$|accounts$/.test(path);
    const visitor = guest ? new Visitor(door, "nobody") : user;
    const { status, text } = await visitor.request(path, { ...send, method });
    if (!statuses.includes(status)) {
      wrong.push(`${method} ${path}: ${status} ${text.slice(0, 120)}`);
    }
  }
  assert.deepEqual(wrong, []);
  await assertWell();
});

Deno.test("bad input, HTTP: bad ranges, cookies and credentials are ignored or refused", async () => {
  const [file] = await user.files();
  const path = `/api/v1/drive/items/${file!.id}/content`;
  const ranges: [string, readonly number[]][] = [
    ["bytes=0-0", [206]],
    ["bytes=99-", [416]],
    ["bytes=3-1", [200, 416]],
    ["bytes=-0", [416]],
    ["bytes=a-b", [200, 416]],
    ["lines=1-2", [200]],
    [`bytes=${"0-0,".repeat(2000)}1-1`, [200, 206, 416]],
    ["bytes=0-99999999999999999999999", [206, 200]],
  ];
  for (const [range, statuses] of ranges) {
    const { status } = await user.request(path, { headers: { range } });
    assert(statuses.includes(status), `${range.slice(0, 40)}: ${status}`);
  }
  const cookies = ["", "=", "abc", "a".repeat(8000), "%00%ff", '"; DROP', "..", "a.b.c.d"];
  for (const cookie of cookies) {
    const stranger = new Visitor(door, "stranger");
    stranger.cookie = `penncloud_session=${cookie}`;
    const { status } = await stranger.request("/api/v1/mail/folders");
    assert.equal(status, 401, cookie.slice(0, 20));
  }
  for (const authorization of ["Basic", "Basic !!!!", `Basic ${btoa("\xff:\xfe")}`, "Bearer x"]) {
    const stranger = new Visitor(door, "stranger");
    const { status } = await stranger.request("/api/v1/session", { headers: { authorization } });
    assert.equal(status, 401, authorization);
  }
  await assertWell();
});

// SMTP.

Deno.test("bad input, SMTP: nonsense gets a 5xx, and the connection or the next one works", async () => {
  const { smtp_port, submission_port } = cluster.config.mail;
  const lines: [readonly string[], RegExp][] = [
    [["MAIL FROM:<a@b.example>"], /^5|^250/],
    [["RCPT TO:<wanda@penncloud.test>"], /^503/],
    [["DATA"], /^503/],
    [["EHLO"], /^501/],
    [["EHLO x", "MAIL FROM:<no at sign>"], /^5/],
    [["EHLO x", "MAIL FROM:<a@b.example> SIZE=99999999999"], /^552/],
    [["EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<nobody-here@penncloud.test>"], /^550/],
    [["EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<someone@elsewhere.example>"], /^550/],
    [["EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<wanda@penncloud.test"], /^5/],
    [["EHLO x", "MAIL FROM:<a@b.example>", `RCPT TO:<${"w".repeat(5000)}@penncloud.test>`], /^5/],
    [["EHLO x", "AUTH PLAIN AGEAYg=="], /^5/],
    [["EHLO x", "FLY me to the moon"], /^5/],
    [["EHLO x", "VRFY wanda"], /^25[02]|^5/],
    [["EHLO x", "\0\0\0"], /^5/],
    [["EHLO x\0y", "NOOP"], /^250|^5/],
  ];
  for (const [say, expected] of lines) {
    using talk = await SmtpTalk.open(smtp_port);
    let reply = "";
    for (const line of say) reply = await talk.say(line);
    assert.match(reply, expected, JSON.stringify(say.at(-1)!.slice(0, 60)));
  }
  // A line without end, junk in one go, and AUTH where it must not be before TLS.
  using endless = await SmtpTalk.open(smtp_port);
  await endless.write("X".repeat(3 * MIB)).catch(() => {});
  await endless.write("\r\n").catch(() => {});
  assert.match(await endless.reply(), /^5|^4|^$/);
  using junk = await SmtpTalk.open(smtp_port);
  await junk.write(randomBytes(300_000)).catch(() => {});
  using pipeline = await SmtpTalk.open(smtp_port);
  await pipeline.write("EHLO x\r\nRSET\r\nBOGUS\r\nNOOP\r\nQUIT\r\n");
  assert.match(await pipeline.untilHangup(), /\r\n5\d\d .*\r\n250 .*\r\n221 /s);
  using plain = await SmtpTalk.open(submission_port);
  await plain.say("EHLO x");
  assert.match(await plain.say("AUTH LOGIN"), /^5/);
  // Nobody has no name, whatever a program makes of that: an account of this name exists.
  await newcomer(door, "undefined");
  for (const name of ["wanda", "undefined"]) {
    assert.match(await plain.say(`MAIL FROM:<${name}@penncloud.test>`), /^530/);
  }
  await assertWell();
});

Deno.test("bad input, SMTP: dots, NULs and bare line ends stay inside of the message they came in", async () => {
  const envelope = { from: "a@b.example", to: ["wanda@penncloud.test"] };
  const bodies = [
    "Subject: dot 1\r\n\r\n..leading dot\r\n...\r\n",
    "Subject: dot 2\r\n\r\nbare\n.\nMAIL FROM:<evil@b.example>\nstill the same\r\n",
    "Subject: dot 3\r\n\r\nbare\r.\rQUIT\r\r\n",
    "Subject: dot 4\r\n\r\nwith \0 NULs \0\r\n",
    "",
    "no headers at all",
    `Subject: ${"long ".repeat(20_000)}\r\n\r\nlong`,
    `Content-Type: multipart/mixed; boundary="b"\r\n\r\n${"--b\r\n\r\n".repeat(2_000)}`,
  ];
  const count = (await user.messages()).length;
  let accepted = 0;
  for (const body of bodies) {
    using talk = await SmtpTalk.open(cluster.config.mail.smtp_port);
    const reply = await talk.deliver(envelope, body);
    assert.match(reply, /^(250|55\d) /, JSON.stringify(body.slice(0, 30)));
    if (reply.startsWith("250")) accepted++;
    assert.match(await talk.say("NOOP"), /^250/, "the connection is where it should be");
  }
  await eventually(
    async () => (await user.messages()).length >= count + accepted,
    "what was accepted to arrive",
  );
  const messages = await user.messages();
  assert.equal(messages.length, count + accepted, "none was made out of another");
  for (const { id } of messages) {
    assert.equal((await user.request(`/api/v1/mail/messages/${id}`)).status, 200);
  }
  await assertWell();
});

Deno.test("bad input, SMTP: a message above the limit is refused without filling the memory", async () => {
  const limit = cluster.config.mail.message_max_bytes;
  using talk = await SmtpTalk.open(cluster.config.mail.smtp_port);
  await talk.say("EHLO x");
  await talk.say("MAIL FROM:<a@b.example>");
  await talk.say("RCPT TO:<wanda@penncloud.test>");
  assert.match(await talk.say("DATA"), /^354/);
  const line = "y".repeat(998) + "\r\n", piece = line.repeat(1000);
  for (let sent = 0; sent < limit * 2; sent += piece.length) await talk.write(piece);
  assert.match(await talk.say("."), /^552 /);
  await assertWell();
});

// The command line.

Deno.test("bad input, command line: exit status 2 names what is wrong", async () => {
  const dir = await Deno.makeTempDir({ prefix: "penncloud-" });
  const good = await Deno.readTextFile(join(REPOSITORY, "cluster.toml"));
  const configs: [name: string, text: string, message: RegExp][] = [
    ["broken", good.replace("[store]", "[store"), /broken\.toml:\d+:\d+: not valid TOML/],
    ["port", good.replace("port = 10003", "port = 70000"), /node\[?\.?\d+\]?\.port: expected/],
    ["role", good.replace('role = "mail"', 'role = "male"'), /role: expected/],
    ["key", good.replace("\nlease_ms", "\nleese_ms"), /store\.leese_ms: unknown key.*lease_ms/],
    ["grace", good.replace("grace_ms = 1800", "grace_ms = 1"), /store\.grace_ms: expected/],
    ["empty", "", /node: expected a list/],
  ];
  try {
    const runs = configs.map(async ([name, text, message]) => {
      const path = join(dir, `${name}.toml`);
      assert.notEqual(text, good, name);
      await Deno.writeTextFile(path, text);
      const { code, stderr } = await runPenncloud([
        "admin",
        "status",
        "--config",
        path,
        "--data",
        dir,
      ]);
      assert.equal(code, 2, `${name}: ${stderr}`);
      assert.match(stderr, message);
      assert.doesNotMatch(stderr, /\n\s+at /, "no stack trace");
    });
    await Promise.all(runs);
    const uses: [readonly string[], RegExp][] = [
      [["kv", "fly", "a"], /unknown command/],
      [["kv", "get", "a", "b", "--colour"], /unknown option/],
      [["kv", "put", "a"], /missing required argument|Expected/],
      [["kv", "put", "", "c", "v"], /row cannot be empty/],
      [["kv", "put", "r".repeat(2000), "c", "v"], /at most 1024 bytes/],
      [["kv", "scan", "a", "--limit", "many"], /whole number/],
      [["admin", "kill", "12"], /Cannot find node "12".*coordinator\/0/],
      [["admin", "rows", "coordinator/0"], /only backends hold rows/],
      [["user", "add", "NO SUCH NAME", "--password-stdin"], /letters|user name/],
    ];
    await Promise.all(uses.map(async ([args, message]) => {
      const { code, stderr } = await cluster.penncloud(args, "a password 12\na password 12\n");
      assert.equal(code, 2, `${args.join(" ")}: ${code} ${stderr}`);
      assert.match(stderr, message);
      assert.doesNotMatch(stderr, /\n\s+at /, "no stack trace");
    }));
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
  await assertWell();
});

Deno.test("bad input, command line: kv ends with 0, 1, 2 or 3 as it says", async () => {
  const kv = async (...args: string[]) => (await cluster.penncloud(["kv", ...args])).code;
  assert.equal(await kv("put", "exit", "c", "one"), 0);
  assert.equal(await kv("get", "exit", "c"), 0);
  assert.deepEqual(
    await Promise.all([
      kv("get", "exit", "none"),
      kv("cput", "exit", "c", "wrong", "two"),
      kv("delete", "exit", "none"),
      kv("cput", "exit", "c", "one", "two"),
      kv("get", "exit"),
    ]),
    [1, 1, 1, 0, 2],
  );
  // The same folder, and ports at which nobody listens.
  const away = await runPenncloud([
    ...["kv", "get", "exit", "c", "--config", join(REPOSITORY, "tests/cluster/three_doors.toml")],
    ...["--data", cluster.dir, "--port-offset", String(cluster.portOffset + 5_555)],
  ]);
  assert.equal(away.code, 3, away.stderr);
  await assertWell();
});
