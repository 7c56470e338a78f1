/**
 * What strangers and broken peers can do to a node over its port: nothing but be told and cut off.
 * In each test an honest connection goes on working.
 */
import assert from "node:assert/strict";
import { encodeFrame } from "../../proto/codec.ts";
import { HELLO_TIMEOUT_MS } from "../../proto/hello.ts";
import { PROTOCOL_VERSION } from "../../proto/version.ts";
import { RpcError } from "../../roles/net/rpc_error.ts";
import { connectRpc } from "../../roles/net/rpc_client.ts";
import { runOwnProcess } from "../own_process.ts";
import type { LongLineFigures } from "./long_line_probe.ts";
import {
  CHAT,
  connectRaw,
  honestHello,
  IDENTITY,
  NONCE,
  openPair,
  type Pair,
  shakenHands,
  until,
} from "./net_pair.ts";

Deno.test("a wrong secret is refused with a reason, on both ends", async () => {
  await using pair = openPair();
  const error = await pair.connect({ secret: "open barley" }).catch((error) => error);
  assert.ok(error instanceof RpcError);
  assert.deepEqual([error.code, error.sent], ["refused", false]);
  assert.match(error.message, /cluster secret is not ours/);
  assert.match(String(pair.serverErrors[0]), /"client"/);
  assert.equal(pair.server.connections.size, 0);
});

Deno.test("a node of another cluster is refused by name", async () => {
  await using pair = openPair();
  await assert.rejects(pair.connect({ clusterName: "work" }), /of cluster "work": this is "home"/);
});

Deno.test("a node of another protocol version is told both versions and cut off", async () => {
  await using pair = openPair();
  using client = await connectRaw(pair.server.port);
  await client.readLine();
  // A future hello may look different: the version alone must be enough.
  await client.write('{"penncloud":99,"who":"me"}\n');
  const lines = await client.readToEnd();
  assert.equal(lines.length, 1);
  const { code, message } = JSON.parse(lines[0]!).error;
  assert.equal(code, "wrong_version");
  assert.match(message, new RegExp(`version 99.*${PROTOCOL_VERSION}`));
});

Deno.test("a client does not talk to a server that does not know the secret", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = (async () => {
    const conn = await listener.accept();
    await conn.write(encodeFrame({ penncloud: PROTOCOL_VERSION, nonce: NONCE })[0]!);
    await conn.read(new Uint8Array(4096));
    await conn.write(
      encodeFrame({ re: "hello", from: "backend/1", proof: "00".repeat(32) })[0]!,
    );
    const after = await conn.read(new Uint8Array(4096));
    conn.close();
    return after;
  })();
  const { port } = listener.addr;
  const attempt = connectRpc({ ...IDENTITY, port, name: "client", onError: () => {} });
  await assert.rejects(attempt, /does not know our cluster secret/);
  assert.equal(await server, null);
  listener.close();
});

Deno.test("a client that expects another node hangs up", async () => {
  await using pair = openPair();
  await assert.rejects(
    pair.connect({ expectedPeer: "backend/7" }),
    /"backend\/1" listens there, not "backend\/7"/,
  );
});

Deno.test("a recorded hello is worth nothing on another connection", async () => {
  await using pair = openPair();
  using first = await connectRaw(pair.server.port);
  const hello = await honestHello(first);
  await first.write(hello);
  assert.match((await first.readLine())!, /"re":"hello"/);
  using second = await connectRaw(pair.server.port);
  await second.readLine();
  await second.write(hello);
  assert.match((await second.readLine())!, /wrong_secret/);
});

Deno.test("before the handshake, anything but a hello is refused", async () => {
  await using pair = openPair();
  const tries: (string | Uint8Array)[] = [
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "\n",
    "{}\n",
    "[]\n",
    '{"id":1,"m":"echo","b":{"words":"let me in"}}\n',
    `{"penncloud":${PROTOCOL_VERSION}}\n`,
    '{"penncloud":1,"bytes":5}\nhello',
    new Uint8Array(2000).fill(0xff),
    "x".repeat(2000),
    `{"penncloud":"${"9".repeat(3000)}"}\n`,
  ];
  for (const bytes of tries) {
    using client = await connectRaw(pair.server.port);
    await client.readLine();
    await client.write(bytes).catch(() => {});
    const lines = await client.readToEnd();
    assert.ok(lines.length <= 1 && lines.every((line) => "error" in JSON.parse(line)), `${lines}`);
  }
  assert.equal(pair.server.connections.size, 0);
  await assertAlive(pair);
});

Deno.test("a handshake that dawdles is cut off at the deadline, byte by byte or silent", async () => {
  await using pair = openPair({ handshakeTimeoutMs: 150 });
  const startMs = performance.now();
  using silent = await connectRaw(pair.server.port);
  using slow = await connectRaw(pair.server.port);
  const dripping = (async () => {
    for (;;) {
      await slow.write(" ");
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })().catch(() => {});
  assert.equal((await silent.readToEnd()).length, 1);
  await slow.readToEnd();
  const tookMs = performance.now() - startMs;
  assert.ok(tookMs >= 140 && tookMs < HELLO_TIMEOUT_MS, `${tookMs} ms`);
  await dripping;
  await assertAlive(pair);
});

Deno.test("strangers cannot use up the connections of those who shook hands", async () => {
  await using pair = openPair({ handshakesMax: 5, handshakeTimeoutMs: 60_000 });
  const honest = await pair.connect();
  const strangers = await Promise.all(
    Array.from({ length: 20 }, () => connectRaw(pair.server.port)),
  );
  const first = await Promise.all(strangers.map((stranger) => stranger.readLine()));
  const refused = first.filter((line) => line === null || line.includes("limit is reached"));
  assert.equal(refused.length, 15);
  assert.equal((await honest.call(CHAT, "echo", { words: "alive" })).body.words, "alive");
  for (const stranger of strangers) stranger[Symbol.dispose]();
});

const BROKEN: Record<string, { bytes: string | Uint8Array; says: RegExp }> = {
  "broken JSON": { bytes: '{"id":1,\n', says: /broken_json/ },
  "bytes that are no UTF-8": { bytes: new Uint8Array([0xff, 0xfe, 10]), says: /broken_json/ },
  "a line that is no object": { bytes: "[1,2]\n", says: /bad_message/ },
  "a message of no known shape": { bytes: '{"op":"get"}\n', says: /bad_message/ },
  "an unknown method": { bytes: '{"id":1,"m":"rob","b":{}}\n', says: /no such method/ },
  "an unknown notice": { bytes: '{"m":"rob","b":{}}\n', says: /no such method/ },
  "a method of Object's prototype": { bytes: '{"id":1,"m":"toString"}\n', says: /no such method/ },
  "a notice sent as a call": { bytes: '{"id":1,"m":"note","b":{}}\n', says: /no such method/ },
  "a call sent as a notice": { bytes: '{"m":"echo","b":{}}\n', says: /no such method/ },
  "a payload over the limit": {
    bytes: '{"id":1,"m":"echo","b":{},"bytes":8388609}\n',
    says: /payload_too_large/,
  },
  "a negative payload": { bytes: '{"id":1,"m":"echo","b":{},"bytes":-1}\n', says: /bad_message/ },
};

for (const [what, { bytes, says }] of Object.entries(BROKEN)) {
  Deno.test(`${what} gets an error answer and a closed connection`, async () => {
    await using pair = openPair();
    using client = await shakenHands(pair);
    await client.write(bytes);
    const lines = await client.readToEnd();
    assert.match(lines.join("\n"), says);
    const last = JSON.parse(lines.at(-1)!);
    assert.ok("error" in (last.all?.at(-1) ?? last));
    client[Symbol.dispose]();
    await until(() => pair.server.connections.size === 0, "the connection is gone");
    await assertAlive(pair);
  });
}

Deno.test("a message cut in half by the connection's end harms nobody", async () => {
  await using pair = openPair();
  for (const half of ['{"id":1,"m":"ec', '{"id":1,"m":"echo","b":{"words":""},"bytes":100}\nabc']) {
    const client = await shakenHands(pair);
    await client.write(half);
    client[Symbol.dispose]();
  }
  await until(() => pair.server.connections.size === 0, "the connections are gone");
  await assertAlive(pair);
  assert.deepEqual(pair.notes, []);
});

Deno.test("a line of 100 MB is cut off early and leaves memory as it was", async () => {
  const seen = await runOwnProcess<LongLineFigures>(import.meta.resolve("./long_line_probe.ts"));
  assert.match(seen.error, /longer than 1048576 bytes/);
  assert.ok(seen.grown < 40 * 1024 * 1024, `grew by ${seen.grown} bytes`);
});

Deno.test("a peer that sends and never reads is not served without end", async () => {
  await using pair = openPair({ limits: { answerBytesPause: 256 * 1024 } });
  using client = await shakenHands(pair);
  const request = encodeFrame({ id: 1, m: "echo", b: { words: "x".repeat(10_000) } })[0]!;
  // It stops taking requests once its answers pile up, so our writes must come to a halt.
  let written = 0, lastMs = performance.now();
  const flood = (async () => {
    for (;;) {
      await client.write(request);
      written += request.length;
      lastMs = performance.now();
    }
  })().catch(() => {});
  await until(() => performance.now() - lastMs > 500, "the flood stops");
  const [connection] = pair.server.connections;
  assert.ok(connection!.queuedBytes < 2 * 1024 * 1024, `${connection!.queuedBytes} queued`);
  assert.ok(written < 64 * 1024 * 1024, `${written} written`);
  await assertAlive(pair);
  client[Symbol.dispose]();
  await flood;
});

async function assertAlive(pair: Pair): Promise<void> {
  const connection = await pair.connect();
  assert.equal((await connection.call(CHAT, "echo", { words: "alive" })).body.words, "alive");
}
