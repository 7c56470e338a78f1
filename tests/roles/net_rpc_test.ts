import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { z } from "zod";
import { KvError } from "../../kv/errors.ts";
import { method } from "../../proto/rpc.ts";
import { CALL_TIMEOUT_MS } from "../../roles/net/rpc_connection.ts";
import { RemoteKvError, RpcError } from "../../roles/net/rpc_error.ts";
import { service, services } from "../../roles/net/rpc_service.ts";
import { CHAT, openPair, shakenHands, until } from "./net_pair.ts";

Deno.test("a call brings body and payload over and back", async () => {
  await using pair = openPair();
  const connection = await pair.connect({ name: "frontend/2" });
  assert.equal(connection.peer, "backend/1");
  assert.deepEqual([...pair.server.connections].map(({ peer }) => peer), ["frontend/2"]);
  const payload = [new Uint8Array([1, 2]), new Uint8Array(0), new Uint8Array([3])];
  const answer = await connection.call(CHAT, "echo", { words: "ä\n🎈" }, payload);
  assert.deepEqual(answer.body, { words: "ä\n🎈" });
  assert.deepEqual([...answer.payload], [3, 2, 1]);
});

Deno.test("thousands of calls at once each get their own answer and their own bytes", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  await Promise.all(Array.from({ length: 5000 }, async (_, n) => {
    const payload = numbered(n, (n * 37) % 3000);
    const expected = [...payload].reverse();
    const answer = await connection.call(CHAT, "echo", { words: `call ${n}` }, payload);
    assert.equal(answer.body.words, `call ${n}`);
    assert.deepEqual([...answer.payload], expected);
  }));
  assert.equal(connection.pendingCount, 0);
  assert.equal(connection.queuedBytes, 0);
});

Deno.test("small answers of one turn share a line, and large ones go by themselves", async () => {
  await using pair = openPair();
  using client = await shakenHands(pair);
  const ask = (id: number, words: string) => `{"id":${id},"m":"echo","b":{"words":"${words}"}}`;
  const requests = [ask(1, "a"), ask(2, "b"), ask(3, "c".repeat(5_000)), ask(4, "d"), ask(5, "e")];
  await client.write(`{"all":[${requests.join()}]}\n`);
  const lines = [await client.readLine(), await client.readLine(), await client.readLine()]
    .map((line) => JSON.parse(line!));
  assert.deepEqual(
    lines.map(({ all, re }) => all?.map((each: { re: number }) => each.re) ?? re),
    [[1, 2], 3, [4, 5]],
  );
});

Deno.test("of many requests in one line the first half is answered before the rest is looked at", async () => {
  const answered: number[] = [];
  const services = service(CHAT, {
    echo: ({ words }) => ({ words }),
    fail: () => ({}),
    lie: () => ({ truth: true as const }),
    note: () => {},
    // Called behind the first half; by then its answers are with the socket.
    hold: (_body, _payload, connection) => {
      answered.push(connection.queuedBytes);
      return {};
    },
  });
  await using pair = openPair({ services });
  using client = await shakenHands(pair);
  const ask = (id: number) => `{"id":${id},"m":"${id === 25 ? "hold" : "echo"}","b":{"words":"w"}}`;
  const requests = Array.from({ length: 48 }, (_, index) => ask(index + 1));
  await client.write(`{"all":[${requests.join()}]}\n`);
  const idsOf = (line: string | null) =>
    JSON.parse(line!).all.map((each: { re: number }) => each.re);
  const ids = Array.from({ length: 48 }, (_, index) => index + 1);
  assert.deepEqual(idsOf(await client.readLine()), ids.slice(0, 24));
  assert.deepEqual(idsOf(await client.readLine()), ids.slice(24));
  assert.deepEqual(answered, [0]);
});

Deno.test("payloads of many MiB cross each other unharmed", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  await Promise.all(Array.from({ length: 8 }, async (_, n) => {
    const payload = numbered(n, 4 * 1024 * 1024 + n);
    const expected = payload.slice().reverse();
    const answer = await connection.call(CHAT, "echo", { words: "" }, payload);
    assert.equal(Buffer.compare(answer.payload, expected), 0);
  }));
});

Deno.test("a slow answer does not hold up the others", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  const slow = connection.call(CHAT, "hold", {});
  assert.equal((await connection.call(CHAT, "echo", { words: "fast" })).body.words, "fast");
  pair.held[0]!();
  assert.deepEqual((await slow).body, {});
});

Deno.test("notices arrive in order, and calls after them", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  const words = Array.from({ length: 200 }, (_, n) => `note ${n}`);
  for (const word of words) connection.send(CHAT, "note", { words: word });
  await connection.call(CHAT, "echo", { words: "" });
  assert.deepEqual(pair.notes, words);
});

Deno.test("a KvError keeps its code, its outcome and its details across the wire", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  await assert.rejects(
    connection.call(CHAT, "fail", { how: "kv" }),
    (error) =>
      error instanceof KvError && error.code === "row_too_large" &&
      error.outcome === "not_applied" && error.message === "Cannot grow the row",
  );
  const error = await connection.call(CHAT, "fail", { how: "details" }).catch((error) => error);
  assert.ok(error instanceof RemoteKvError);
  assert.deepEqual(error.details, { hint: 3 });
  assert.deepEqual(pair.serverErrors, []);
});

Deno.test("an RpcError keeps its code; any other error is internal, and the server hears of it", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  const own = await connection.call(CHAT, "fail", { how: "rpc" }).catch((error) => error);
  assert.ok(own instanceof RpcError);
  assert.deepEqual([own.code, own.details, own.sent], ["own_code", { luck: 0 }, true]);
  const bug = await connection.call(CHAT, "fail", { how: "bug" }).catch((error) => error);
  assert.ok(bug instanceof RpcError);
  assert.deepEqual([bug.code, bug.sent], ["internal", true]);
  assert.ok(pair.serverErrors[0] instanceof TypeError);
  await assert.rejects(connection.call(CHAT, "fail", { how: "loop" }), /circular/);
  assert.equal((await connection.call(CHAT, "echo", { words: "alive" })).body.words, "alive");
});

Deno.test("both ends parse: a bad request is refused, a bad answer is not believed", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  await assert.rejects(
    connection.call(CHAT, "echo", { words: 5 } as never),
    (error) =>
      error instanceof KvError && error.code === "invalid_request" &&
      error.message.includes("words"),
  );
  await assert.rejects(
    connection.call(CHAT, "lie", {}),
    (error) => error instanceof RpcError && error.code === "bad_reply",
  );
  assert.equal((await connection.call(CHAT, "echo", { words: "alive" })).body.words, "alive");
});

Deno.test("a call times out alone, and its late answer disturbs nobody", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  const startMs = performance.now();
  const slow = connection.call(CHAT, "hold", {}, undefined, { timeoutMs: 50 });
  const slower = connection.call(CHAT, "hold", {}, undefined, { timeoutMs: 100 });
  const patient = connection.call(CHAT, "hold", {});
  const errors = await Promise.all([slow, slower].map((call) => call.catch((error) => error)));
  const tookMs = performance.now() - startMs;
  assert.deepEqual(errors.map(({ code, sent }) => [code, sent]), [
    ["timeout", true],
    ["timeout", true],
  ]);
  assert.ok(tookMs >= 95 && tookMs < CALL_TIMEOUT_MS, `${tookMs} ms`);
  for (const release of pair.held) release();
  assert.deepEqual((await patient).body, {});
});

Deno.test("a signal ends the wait with its own reason", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  const abort = new AbortController();
  const call = connection.call(CHAT, "hold", {}, undefined, { signal: abort.signal });
  abort.abort(new Error("no longer wanted"));
  await assert.rejects(call, /no longer wanted/);
  await assert.rejects(
    connection.call(CHAT, "hold", {}, undefined, { signal: abort.signal }),
    /no longer wanted/,
  );
  assert.equal(connection.pendingCount, 0);
});

Deno.test("closing the connection in mid-call fails it with `closed`, sent", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  const call = connection.call(CHAT, "hold", {});
  await until(() => pair.held.length === 1, "the request arrives");
  [...pair.server.connections][0]!.close();
  const error = await call.catch((error) => error);
  assert.ok(error instanceof RpcError);
  assert.deepEqual([error.code, error.sent], ["closed", true]);
  await connection.closed;
  assert.match(connection.closeReason!, /other end closed/);
  const late = await connection.call(CHAT, "echo", { words: "" }).catch((error) => error);
  assert.deepEqual([late.code, late.sent], ["closed", false]);
  connection.send(CHAT, "note", { words: "dropped without a sound" });
});

Deno.test("closing on this side before the request left tells that it was not sent", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  const call = connection.call(CHAT, "echo", { words: "never leaves" });
  connection.close();
  const error = await call.catch((error) => error);
  assert.deepEqual([error.code, error.sent], ["closed", false]);
});

Deno.test("a message over the limits fails alone and is not sent", async () => {
  await using pair = openPair();
  const connection = await pair.connect();
  const tooMany = new Uint8Array(8 * 1024 * 1024 + 1);
  for (
    const call of [
      connection.call(CHAT, "echo", { words: "" }, tooMany),
      connection.call(CHAT, "echo", { words: "ä".repeat(600_000) }),
    ]
  ) {
    const error = await call.catch((error) => error);
    assert.deepEqual([error.code, error.sent], ["too_large", false]);
  }
  assert.equal((await connection.call(CHAT, "echo", { words: "alive" })).body.words, "alive");
});

Deno.test("the server calls back over the client's connection", async () => {
  const NEWS = { ask: method(z.object({ n: z.int() }), z.object({ n: z.int() })) };
  await using pair = openPair();
  const connection = await pair.connect({
    services: service(NEWS, { ask: ({ n }) => ({ n: n + 1 }) }),
  });
  await until(() => pair.server.connections.size === 1, "the server knows the client");
  const back = [...pair.server.connections][0]!;
  assert.equal((await back.call(NEWS, "ask", { n: 1 })).body.n, 2);
  assert.equal(
    (await connection.call(CHAT, "echo", { words: "both ways" })).body.words,
    "both ways",
  );
});

Deno.test("a method name can be offered once per connection", () => {
  const one = { ask: method(z.object({}), z.object({})) };
  const offered = service(one, { ask: () => ({}) });
  assert.throws(() => services(offered, offered), /"ask" twice/);
});

function numbered(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (seed * 31 + i * 7) & 255;
  return bytes;
}
