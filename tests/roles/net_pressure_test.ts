/** Slow handlers, full queues, silent peers: what is bounded, and who is told. */
import assert from "node:assert/strict";
import { z } from "zod";
import { method } from "../../proto/rpc.ts";
import { welcomeClient } from "../../roles/net/handshake.ts";
import type { RpcError } from "../../roles/net/rpc_error.ts";
import { service } from "../../roles/net/rpc_service.ts";
import { CHAT, IDENTITY, openPair, until } from "./net_pair.ts";

Deno.test("a slow handler stops the reading at the limit, and every call is answered in the end", async () => {
  await using pair = openPair({ limits: { servedMax: 10 } });
  const connection = await pair.connect();
  const calls = Array.from({ length: 100 }, () => connection.call(CHAT, "hold", {}));
  await until(() => pair.held.length === 10, "the first ten run");
  assert.equal([...pair.server.connections][0]!.servedCount, 10);
  let answered = 0;
  for (const call of calls) void call.then(() => answered++);
  while (answered < 100) {
    assert.ok([...pair.server.connections][0]!.servedCount <= 10);
    pair.held.shift()?.();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
});

Deno.test("payloads that wait for a slow handler are bounded by bytes", async () => {
  const SINK = { take: method(z.object({}), z.object({})) };
  const waiting: (() => void)[] = [];
  await using pair = openPair({
    limits: { servedPayloadBytesMax: 4 * 1024 * 1024 },
    services: service(SINK, {
      take: () => new Promise((resolve) => waiting.push(() => resolve({}))),
    }),
  });
  const connection = await pair.connect();
  const payload = new Uint8Array(1024 * 1024);
  const calls = Array.from({ length: 30 }, () => connection.call(SINK, "take", {}, payload));
  await until(() => waiting.length === 4, "four MiB are taken in");
  let answered = 0;
  for (const call of calls) void call.then(() => answered++);
  while (answered < 30) {
    assert.ok(waiting.length <= 4, `${waiting.length} MiB at once`);
    waiting.shift()?.();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
});

Deno.test("when the queue is full, calls fail with `busy`, unsent, and notices are dropped", async () => {
  await using pair = openPair({ limits: { servedMax: 1 } });
  const connection = await pair.connect({ limits: { queuedBytesMax: 1024 * 1024 } });
  const held = connection.call(CHAT, "hold", {});
  await until(() => pair.held.length === 1, "the server is occupied");
  const payload = new Uint8Array(512 * 1024);
  const calls: Promise<unknown>[] = [];
  let refusal: RpcError | null = null;
  // The kernel's socket buffers take a few MiB before our own queue begins to fill.
  while (refusal === null && calls.length < 200) {
    const call = connection.call(CHAT, "echo", { words: "" }, payload);
    calls.push(call.catch((error) => refusal = error));
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  assert.deepEqual([refusal!.code, refusal!.sent], ["busy", false]);
  assert.ok(connection.queuedBytes < 2 * 1024 * 1024);
  connection.send(CHAT, "note", { words: "lost" });
  assert.equal(connection.droppedNotices, 1);
  pair.held[0]!();
  await Promise.all([held, ...calls]);
  assert.deepEqual(pair.notes, []);
  assert.equal((await connection.call(CHAT, "echo", { words: "alive" })).body.words, "alive");
});

Deno.test("calls that wait are bounded too", async () => {
  await using pair = openPair();
  const connection = await pair.connect({ limits: { pendingMax: 3 } });
  const calls = Array.from({ length: 3 }, () => connection.call(CHAT, "hold", {}));
  const error = await connection.call(CHAT, "hold", {}).catch((error) => error);
  assert.deepEqual([error.code, error.sent], ["busy", false]);
  await until(() => pair.held.length === 3, "they arrive");
  for (const release of pair.held) release();
  await Promise.all(calls);
});

Deno.test("two ends that flood each other over one connection do not lock each other up", async () => {
  const BOTH = { turn: method(z.object({ n: z.int() }), z.object({ n: z.int() })) };
  // Each request makes the server ask back before it answers.
  await using pair = openPair({
    limits: { servedMax: 4 },
    services: service(BOTH, {
      turn: async ({ n }, _payload, connection) =>
        (await connection.call(BOTH, "turn", { n })).body,
    }),
  });
  const connection = await pair.connect({
    limits: { servedMax: 4 },
    services: service(BOTH, { turn: ({ n }) => ({ n: n + 1 }) }),
  });
  const results = await Promise.allSettled(
    Array.from({ length: 50 }, (_, n) => connection.call(BOTH, "turn", { n })),
  );
  const codes = new Set(
    results.map((result) =>
      result.status === "fulfilled" ? "fine" : (result.reason as RpcError).code
    ),
  );
  assert.ok(codes.has("fine"));
  assert.ok([...codes].every((code) => code === "fine" || code === "busy"), [...codes].join());
});

Deno.test("a peer that fell silent is given up, and one that is only slow is not", async () => {
  const limits = { pingAfterMs: 200, deadAfterMs: 1_500 };
  await using pair = openPair();
  // Slow: the handler takes longer than the limit, but the connection answers pings.
  const slow = await pair.connect({ limits });
  const patient = slow.call(CHAT, "hold", {}, undefined, { timeoutMs: 30_000 });
  // Silent: it shakes hands and then, like a host that lost power, neither answers nor closes.
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = listener.accept().then(async (conn) => {
    await welcomeClient(conn, { ...IDENTITY, name: "backend/9" });
    return conn;
  });
  const silent = await pair.connect({ limits, port: listener.addr.port });
  const lost = await silent.call(CHAT, "hold", {}, undefined, { timeoutMs: 30_000 })
    .catch((error) => error);
  assert.equal(lost.code, "closed");
  assert.match(lost.message, /nothing was heard/);
  assert.equal(slow.isClosed, false);
  for (const release of pair.held) release();
  assert.deepEqual((await patient).body, {});
  (await accepted).close();
  listener.close();
});
