import assert from "node:assert/strict";
import { requestPieces } from "../../web/request_pieces.ts";

const LENGTH = 200_000;
const bytes = new Uint8Array(LENGTH).map((_, i) => i % 251);

async function collect(body: ReadableStream<Uint8Array>) {
  const all = new Uint8Array(LENGTH);
  let at = 0;
  for await (const piece of requestPieces(body)) {
    all.set(piece, at);
    at += piece.length;
  }
  assert.equal(at, LENGTH);
  return all;
}

Deno.test("requestPieces() yields a request's body unchanged", async () => {
  const request = new Request("http://x/", { method: "PUT", body: bytes });
  assert.deepEqual(await collect(request.body!), bytes);
});

Deno.test("requestPieces() takes streams that cannot fill a buffer as they are", async () => {
  const parts = [bytes.subarray(0, 1), bytes.subarray(1, 70_000), bytes.subarray(70_000)];
  assert.deepEqual(await collect(ReadableStream.from(parts)), bytes);
});

Deno.test("requestPieces() cancels the body when its reader has enough", async () => {
  let cancelled = false;
  const body = new ReadableStream({
    type: "bytes",
    pull: (controller) => controller.enqueue(new Uint8Array(10)),
    cancel: () => void (cancelled = true),
  });
  for await (const _ of requestPieces(body)) break;
  assert.ok(cancelled);
});

Deno.test("requestPieces() passes on that a body broke off", async () => {
  const body = new ReadableStream({
    type: "bytes",
    pull: () => Promise.reject(new Error("gone")),
  });
  await assert.rejects(async () => {
    for await (const _ of requestPieces(body));
  }, /gone/);
});
