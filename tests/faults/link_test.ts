import assert from "node:assert/strict";
import { Link } from "../cluster/link.ts";

/** A server that says back what it hears, and counts it. */
function echo() {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = { port: listener.addr.port, heard: "", close: () => listener.close() };
  const serve = async () => {
    for await (const conn of listener) {
      const buffer = new Uint8Array(100);
      for (let count; (count = await conn.read(buffer).catch(() => null)) !== null;) {
        server.heard += new TextDecoder().decode(buffer.subarray(0, count));
        await conn.write(buffer.subarray(0, count));
      }
      conn.close();
    }
  };
  return Object.assign(server, { done: serve() });
}

const pause = () => new Promise<void>((resolve) => setTimeout(resolve, 60));

Deno.test("a link that is stalled in one direction lets the other through, and loses nothing", async () => {
  const server = echo(), link = Link.open(server.port);
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: link.port });
  let answer = "";
  const reading = (async () => {
    const buffer = new Uint8Array(100);
    for (let count; (count = await conn.read(buffer).catch(() => null)) !== null;) {
      answer += new TextDecoder().decode(buffer.subarray(0, count));
    }
  })();
  const say = (text: string) => conn.write(new TextEncoder().encode(text));

  await say("a");
  await pause();
  assert.deepEqual([server.heard, answer], ["a", "a"]);
  link.stall(["back"]);
  await say("b");
  await pause();
  assert.deepEqual([server.heard, answer], ["ab", "a"]);
  link.heal();
  await pause();
  assert.equal(answer, "ab");
  link.stall(["there"]);
  await say("c");
  await pause();
  assert.deepEqual([server.heard, answer], ["ab", "ab"]);
  link.heal();
  await pause();
  assert.deepEqual([server.heard, answer], ["abc", "abc"]);

  conn.close();
  link.close();
  server.close();
  await Promise.all([reading, server.done]);
});
