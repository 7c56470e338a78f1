/**
 * Buffers of large payloads are used again, and never while anybody may still look at them: the pool by
 * itself, then behind real connections and the intake of large values.
 */
import assert from "node:assert/strict";
import { z } from "zod";
import { BlobStore } from "../../kv/disk/blob_store.ts";
import { SimDisk } from "../../kv/disk/sim_disk.ts";
import { method } from "../../proto/rpc.ts";
import { BlobIntake } from "../../roles/blob_intake.ts";
import { PayloadPool, payloadPool, POOLED_BYTES_MIN } from "../../roles/net/payload_pool.ts";
import { service } from "../../roles/net/rpc_service.ts";
import { realEnv } from "../../roles/env.ts";
import { openLog } from "../../roles/log.ts";
import { openPair, until } from "./net_pair.ts";

const MIB = 1024 * 1024;

Deno.test("PayloadPool gives a buffer again once all its holders have let go, and not before", () => {
  const pool = new PayloadPool();
  const first = pool.take(4 * MIB);
  const held = pool.claim(first)!;
  held.hold();
  held.letGo();
  assert.notEqual(pool.take(4 * MIB).buffer, first.buffer, "one holder is left");
  held.letGo();
  const again = pool.take(4 * MIB - 100);
  assert.equal(again.buffer, first.buffer);
  assert.equal(again.length, 4 * MIB - 100);
  assert.notEqual(pool.take(4 * MIB).buffer, first.buffer, "it is handed out already");
  assert.throws(() => held.letGo(), /more often than held/);
});

Deno.test("PayloadPool never sees a buffer again that nobody claimed or that is not its own", () => {
  const pool = new PayloadPool();
  const kept = pool.take(MIB);
  assert.notEqual(pool.take(MIB).buffer, kept.buffer);
  assert.equal(pool.claim(new Uint8Array(MIB)), null);
  assert.equal(pool.claim(pool.take(POOLED_BYTES_MIN - 1)), null, "small ones are fresh arrays");
  assert.notEqual(pool.claim(kept), null);
  assert.equal(pool.claim(kept), null, "a buffer has one claimer");
});

Deno.test("PayloadPool keeps few spare buffers, none that is far too large, and none for long", () => {
  const pool = new PayloadPool();
  const held = Array.from({ length: 20 }, () => pool.claim(pool.take(4 * MIB))!);
  for (const buffer of held) buffer.letGo();
  assert.ok(pool.spareBytes <= 18 * MIB && pool.spareBytes >= 16 * MIB, `${pool.spareBytes}`);
  assert.ok(pool.take(MIB).buffer.byteLength < 2 * MIB);
  for (let second = 0; second < 4; second++) pool.tick();
  assert.ok(pool.spareBytes > 0);
  for (let second = 0; second < 4; second++) pool.tick();
  assert.equal(pool.spareBytes, 0);
});

const STORE = {
  put: method(z.object({ id: z.string() }), z.object({})),
  get: method(z.object({ id: z.string() }), z.object({})),
} as const;

/** A server that keeps values as a backend does. */
function openStore(intake: BlobIntake) {
  const gid = 1 as never;
  return openPair({
    services: service(STORE, {
      async put({ id }, payload) {
        const buffer = payloadPool.claim(payload);
        intake.add(id, payload, buffer);
        buffer?.letGo();
        await intake.durable([id]);
        return {};
      },
      async get({ id }) {
        const { bytes, letGo } = await intake.lendWhole(gid, id);
        return { body: {}, payload: bytes, onWritten: letGo };
      },
    }),
  });
}

async function openIntake(): Promise<{ intake: BlobIntake; blobs: BlobStore }> {
  const disk = new SimDisk({ seed: 1 });
  await disk.mkdir("data");
  const blobs = await BlobStore.open({ disk, dir: "data" });
  const env = realEnv({ node: "test", log: openLog({ node: "test", threshold: "off" }) });
  const fetch = () => Promise.resolve(null);
  return { blobs, intake: new BlobIntake({ store: blobs, env, onDiskFull: () => {}, fetch }) };
}

/** Every byte of value n tells n. */
const valueOf = (n: number): Uint8Array => new Uint8Array(MIB + n).fill(1 + n % 250);

Deno.test("many large values at once, each through a used buffer, are stored and read as they were sent", async () => {
  const { intake, blobs } = await openIntake();
  await using pair = openStore(intake);
  const connection = await pair.connect();
  const COUNT = 120;
  let reused = false;
  for (let from = 0; from < COUNT; from += 6) {
    await Promise.all(Array.from({ length: 6 }, async (_, i) => {
      const n = from + i;
      await connection.call(STORE, "put", { id: `v${n}` }, valueOf(n));
      // Right behind it: one that lies in memory, and one that was driven out of it.
      for (const read of [n, Math.floor(n / 2)]) {
        const { payload } = await connection.call(STORE, "get", { id: `v${read}` });
        assert.deepEqual(payload, valueOf(read), `value ${read}`);
      }
    }));
    reused ||= payloadPool.spareBytes > 0;
  }
  assert.ok(reused, "buffers came back");
  for (let n = 0; n < COUNT; n++) {
    assert.deepEqual(await blobs.get(`v${n}`), valueOf(n), `file of value ${n}`);
  }
});

Deno.test("a value that is lent keeps its buffer while others come and go", async () => {
  const { intake } = await openIntake();
  await using pair = openStore(intake);
  const connection = await pair.connect();
  const put = (n: number) => connection.call(STORE, "put", { id: `v${n}` }, valueOf(n));
  await put(0);
  const lent = (await intake.lend("v0"))!;
  for (let n = 1; n < 40; n++) await put(n);
  assert.deepEqual(lent.bytes, valueOf(0));
  lent.letGo();
});

Deno.test("an answer that does not leave, because the peer is gone, gives its buffer to nobody", async () => {
  let written = 0;
  const asked: (() => void)[] = [];
  await using pair = openPair({
    services: service(STORE, {
      put: () => ({}),
      async get() {
        await new Promise<void>((resolve) => asked.push(resolve));
        return { body: {}, payload: valueOf(1), onWritten: () => written++ };
      },
    }),
  });
  const connection = await pair.connect();
  const whole = connection.call(STORE, "get", { id: "a" });
  await until(() => asked.length === 1, "it was asked for");
  asked[0]!();
  assert.equal((await whole).payload.length, MIB + 1);
  await until(() => written === 1, "the socket took it");
  const lost = connection.call(STORE, "get", { id: "b" });
  await until(() => asked.length === 2, "it was asked for again");
  const served = [...pair.server.connections][0]!;
  connection.close();
  await assert.rejects(lost);
  await served.closed;
  asked[1]!();
  await new Promise((resolve) => setTimeout(resolve, 0));
  assert.equal(written, 1);
});
