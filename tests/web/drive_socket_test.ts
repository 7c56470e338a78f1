/**
 * The drive over a real socket, where bodies are streams of the network: what comes back is what
 * went in, HEAD tells the length, pieces that were written are freed, and a client that goes away
 * in the middle leaves nothing behind.
 */
import assert from "node:assert/strict";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { checkSound, pseudoRandomBytes } from "../apps/drive/drive_fixture.ts";
import { eventually } from "../eventually.ts";
import { type DriveSite, makeDriveSite } from "./drive_fixture.ts";

const CHUNK = 1024 * 1024;

async function withSocket(
  work: (site: DriveSite, request: typeof fetch, kv: MemoryKv) => Promise<void>,
): Promise<void> {
  const kv = new MemoryKv();
  const site = await makeDriveSite({ kv, drive: { chunk_bytes: CHUNK } });
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request, info) => site.app.fetch(request, { clientAddress: info.remoteAddr.hostname }),
  );
  const base = `http://127.0.0.1:${server.addr.port}/api/v1/drive`;
  const request: typeof fetch = (path, init = {}) => {
    const headers = new Headers(init.headers);
    headers.set("cookie", site.cookie);
    return fetch(base + path, { ...init, headers });
  };
  try {
    await work(site, request, kv);
  } finally {
    await server.shutdown();
    await site.stop();
  }
}

Deno.test("socket: a streamed upload without a length comes back byte for byte, whole and in parts", async () => {
  await withSocket(async (_site, request) => {
    const bytes = pseudoRandomBytes(7 * CHUNK + 321);
    const put = await request("/files?name=song.mp3", {
      method: "PUT",
      body: new Blob([bytes as Uint8Array<ArrayBuffer>]).stream(),
    });
    assert.equal(put.status, 201);
    const { id } = await put.json();
    const head = await request(`/items/${id}/content`, { method: "HEAD" });
    assert.equal(head.headers.get("content-length"), String(bytes.length));
    for (let round = 0; round < 3; round++) {
      const whole = await request(`/items/${id}/content`);
      assert.deepEqual(new Uint8Array(await whole.arrayBuffer()), bytes);
    }
    const range = { range: `bytes=${CHUNK - 5}-${5 * CHUNK + 4}` };
    const part = await request(`/items/${id}/content`, { headers: range });
    assert.equal(part.status, 206);
    assert.deepEqual(
      new Uint8Array(await part.arrayBuffer()),
      bytes.slice(CHUNK - 5, 5 * CHUNK + 5),
    );
    const stopped = await request(`/items/${id}/content`);
    await stopped.body!.cancel();
    const archive = await request("/items/root/archive");
    assert.equal(archive.headers.get("content-type"), "application/zip");
    assert((await archive.arrayBuffer()).byteLength > bytes.length);
  });
});

Deno.test("socket: a client that goes away in the middle of an upload leaves nothing behind", async () => {
  await withSocket(async (site, request, kv) => {
    const aborter = new AbortController();
    const { drive } = site.context;
    let sent = 0;
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      async pull(controller) {
        if (sent >= 5) {
          await new Promise((resolve) => setTimeout(resolve, 20));
          aborter.abort();
          return;
        }
        controller.enqueue(new Uint8Array(CHUNK));
        sent++;
      },
    });
    await assert.rejects(
      request("/files?name=lost", { method: "PUT", body, signal: aborter.signal }),
    );
    await eventually(async () => {
      await drive.sweeper.visit("ann");
      const { uploads, garbage, chunkRows } = await checkSound(kv, "ann");
      return uploads + garbage + chunkRows === 0;
    }, "the chunks to be freed");
    assert.equal((await drive.open("ann", "root")).count, 0);
  });
});
