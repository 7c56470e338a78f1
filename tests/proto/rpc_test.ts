import assert from "node:assert/strict";
import { FrameError } from "../../proto/codec.ts";
import { readEnvelope } from "../../proto/rpc.ts";

Deno.test("readEnvelope() tells requests, notices, answers, errors and pings apart", () => {
  const b = { row: "a" }, error = { code: "busy", message: "too much" };
  assert.deepEqual(readEnvelope({ id: 7, m: "get", b }), {
    kind: "request",
    id: 7,
    method: "get",
    body: b,
  });
  assert.deepEqual(readEnvelope({ m: "beat", b }), { kind: "notice", method: "beat", body: b });
  assert.deepEqual(readEnvelope({ re: 7, b }), { kind: "reply", re: 7, body: b });
  assert.deepEqual(readEnvelope({ re: 7, error }), { kind: "failure", re: 7, error });
  assert.deepEqual(readEnvelope({ error }), { kind: "broken", error });
  assert.deepEqual(readEnvelope({ ping: 1 }), { kind: "ping" });
  assert.deepEqual(readEnvelope({ pong: 1 }), { kind: "pong" });
});

Deno.test("readEnvelope() refuses every other shape", () => {
  const shapes = [
    {},
    { id: 1 },
    { id: 0, m: "get" },
    { id: -1, m: "get" },
    { id: 1.5, m: "get" },
    { id: "1", m: "get" },
    { id: null, m: "get" },
    { m: 5 },
    { m: "x".repeat(65) },
    { re: "hello" },
    { re: 2 ** 53 },
    { re: 1, error: "text" },
    { re: 1, error: null },
    { re: 1, error: { code: 5, message: "" } },
    { error: { code: "x".repeat(65), message: "" } },
    { ping: 2 },
    { bytes: 5 },
  ];
  for (const shape of shapes) {
    assert.throws(
      () => readEnvelope(shape),
      (error) => error instanceof FrameError && error.code === "bad_message",
      JSON.stringify(shape),
    );
  }
});
