import assert from "node:assert/strict";
import { CALL_TIMEOUT_MS } from "../../roles/net/rpc_connection.ts";
import { RpcPeer } from "../../roles/net/rpc_peer.ts";
import { CHAT, IDENTITY, openPair, until } from "./net_pair.ts";

Deno.test("RpcPeer connects at the first call and keeps the connection", async () => {
  await using pair = openPair();
  const peer = peerOf(pair.server.port);
  assert.equal(peer.connection, null);
  const answers = await Promise.all(
    ["a", "b", "c"].map((words) => peer.call(CHAT, "echo", { words })),
  );
  assert.deepEqual(answers.map(({ body }) => body.words), ["a", "b", "c"]);
  await peer.call(CHAT, "echo", { words: "again" });
  assert.equal(pair.server.connections.size, 1);
  peer.close();
  await assert.rejects(peer.call(CHAT, "echo", { words: "" }), /closed|stopping/);
});

Deno.test("RpcPeer fails at once while nobody listens, and finds the node when it is back", async () => {
  const pair = openPair();
  const { port } = pair.server;
  const reasons: string[] = [];
  const peer = peerOf(port, { onDisconnected: (reason) => reasons.push(reason) });
  await peer.call(CHAT, "echo", { words: "first life" });
  await pair[Symbol.asyncDispose]();
  await until(() => peer.connection === null, "the loss is noticed");
  assert.equal(reasons.length, 1);
  for (let i = 0; i < 20; i++) {
    const startMs = performance.now();
    const error = await peer.call(CHAT, "echo", { words: "" }).catch((error) => error);
    assert.deepEqual([error.code, error.sent], ["unreachable", false]);
    assert.ok(performance.now() - startMs < CALL_TIMEOUT_MS, "it does not wait for an answer");
  }
  await using _again = openPair({ port });
  await until(() => {
    peer.connect().catch(() => {});
    return peer.connection !== null;
  }, "it is found again");
  assert.equal((await peer.call(CHAT, "echo", { words: "second life" })).body.words, "second life");
  peer.close();
});

Deno.test("RpcPeer spaces its attempts by a back-off that grows to its limit", async () => {
  let attempts = 0;
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepting = (async () => {
    for await (const conn of listener) {
      attempts++;
      conn.close();
    }
  })().catch(() => {});
  const peer = peerOf(listener.addr.port, { backoffMsMin: 20, backoffMsMax: 100 });
  const startMs = performance.now(), wanted = 16;
  // Without a limit the last one alone would come after ten minutes.
  await until(() => {
    peer.connect().catch(() => {});
    return attempts >= wanted;
  }, `${wanted} attempts`);
  // 20 + 40 + 80 + 100 + 100 … ms, each halved at most by the jitter.
  const tookMs = performance.now() - startMs, leastMs = (140 + (wanted - 4) * 100) / 2;
  assert.ok(tookMs >= leastMs, `${wanted} attempts in ${tookMs} ms`);
  listener.close();
  await accepting;
  peer.close();
});

Deno.test("RpcPeer holds a notice until the attempt under way has succeeded", async () => {
  await using pair = openPair();
  const peer = peerOf(pair.server.port);
  peer.send(CHAT, "note", { words: "one" });
  peer.send(CHAT, "note", { words: "two" });
  await until(() => pair.notes.length === 2, "the notices arrive");
  assert.deepEqual(pair.notes, ["one", "two"]);
  peer.close();
});

Deno.test("RpcPeer gives up a call whose time runs out while it connects", async () => {
  // A full backlog: the handshake never begins.
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = listener.accept();
  const handshakeTimeoutMs = 20_000;
  const peer = peerOf(listener.addr.port, { handshakeTimeoutMs });
  const startMs = performance.now();
  const error = await peer.call(CHAT, "echo", { words: "" }, undefined, { timeoutMs: 100 })
    .catch((error) => error);
  assert.deepEqual([error.code, error.sent], ["unreachable", false]);
  assert.ok(performance.now() - startMs < handshakeTimeoutMs);
  (await accepted).close();
  listener.close();
  await peer.connect().catch(() => {});
  peer.close();
});

Deno.test("RpcPeer tells a refusal from an absence", async () => {
  await using pair = openPair();
  const peer = peerOf(pair.server.port, { secret: "guess" });
  const error = await peer.call(CHAT, "echo", { words: "" }).catch((error) => error);
  assert.deepEqual([error.code, error.sent], ["refused", false]);
  peer.close();
});

function peerOf(
  port: number,
  options: Partial<ConstructorParameters<typeof RpcPeer>[0]> = {},
): RpcPeer {
  return new RpcPeer({ ...IDENTITY, port, name: "client", onError: () => {}, ...options });
}
