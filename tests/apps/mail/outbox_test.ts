/**
 * Delivery: each recipient gets exactly one copy, whatever dies.
 *
 * Method: processes share one store in memory. A process dies at its n-th call to the store, for
 * every n, once before the call is applied and once right after; then others sweep, and the
 * mailboxes are counted. What is modelled rather than run: the store itself.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { OutsideResult, OutsideTransport } from "../../../apps/mail/outbox_worker.ts";
import { WARN_AFTER_MS } from "../../../apps/mail/outbox_worker.ts";
import { CLAIM_MS, Outbox, POINTER_GRACE_MS } from "../../../apps/mail/outbox.ts";
import { inRange } from "../../../kv/key_order.ts";
import { scanSnapshot } from "../../../kv/kv.ts";
import { MemoryKv } from "../../../kv/memory_kv.ts";
import { BodyStore, CHUNK_BYTES } from "../../../apps/mail/body_store.ts";
import { bodyRow, OUTBOX_SHARDS, outboxShardRow, shardRow } from "../../../apps/mail/keys.ts";
import { planGroups } from "../../../proto/cluster_config.ts";
import { loadConfig } from "../../../roles/config_file.ts";
import { REPOSITORY } from "../../cluster/harness.ts";
import { eventually } from "../../eventually.ts";
import { folderEntries, makeWorld, MortalKv, TestEnv, textOf, type World } from "./mail_world.ts";

/** Two inboxes; the calls are the acceptance, a read and a write for each inbox, and the end. */
const FROM_OUTSIDE = [
  { what: "a short mail from outside", bytes: 14, splitAt: [], callsMax: 6 },
  { what: "a mail from outside whose body and pointer lie apart", bytes: 14, callsMax: 6 },
  { what: "a long mail from outside", bytes: CHUNK_BYTES + 14, splitAt: [], callsMax: 8 },
].map((variant) => ({ splitAt: [..."bcdefghijklmnopqrstuvwxyz"], ...variant }));

const rowsLeft = async ({ kv }: World, end: string) =>
  (await scanSnapshot(kv, { keysOnly: true })).filter(({ row, column }) =>
    row.endsWith(end) || column.startsWith("out/")
  ).map(({ row, column }) => `${row} ${column}`);

Deno.test("200 simultaneous deliveries to one inbox leave 200 messages with ascending UIDs", async () => {
  const senders = Array.from({ length: 20 }, (_, index) => `sender${index}`);
  const world = makeWorld([...senders, "ann"]);
  // Every call takes a turn of the loop, so that the deliveries really run through each other.
  const processes = Array.from({ length: 4 }, () => {
    const turn = <T>(call: () => Promise<T>) =>
      new Promise<void>((resolve) => queueMicrotask(resolve)).then(call);
    const { kv } = world;
    return world.process({
      kv: {
        get: (row, column) => turn(() => kv.get(row, column)),
        getRow: (row, options) => turn(() => kv.getRow(row, options)),
        scan: (options) => turn(() => kv.scan(options)),
        apply: (op) => turn(() => kv.apply(op)),
        transact: (ops) => turn(() => kv.transact(ops)),
      },
    });
  });
  await Promise.all(
    Array.from({ length: 200 }, (_, index) =>
      processes[index % 4]!.send(senders[index % 20]!, {
        to: "ann@penncloud.test",
        subject: `number ${index}`,
        text: "x",
      })),
  );
  await Promise.all(processes.map(({ worker }) => worker.idle()));
  world.env.nowMs += 60_000;
  for (const process of processes) await process.worker.sweep();
  const entries = await folderEntries(world.mail, "ann");
  assert.equal(entries.length, 200);
  assert.equal(new Set(entries.map(({ entry }) => entry.subject)).size, 200);
  assert.deepEqual(
    entries.map(({ uid }) => uid).sort((a, b) => a - b),
    Array.from({ length: 200 }, (_, i) => i + 1),
  );
  const [inbox] = await world.mail.folders("ann");
  assert.deepEqual([inbox!.total, inbox!.unread], [200, 200]);
  for (const { entry } of entries) {
    assert.deepEqual((await world.mail.read("ann", entry.id)).entry, entry);
  }
});

for (const crashAfterApply of [false, true]) {
  const when = crashAfterApply ? "right after" : "right before";
  Deno.test(`a sender's process that dies ${when} any call leaves one copy each, or none and an error`, async () => {
    let crashes = 0;
    for (let crashAt = 1;; crashAt++) {
      const world = makeWorld(["ann", "bob", "cleo", "dan"]);
      const mortal = new MortalKv(world.kv, crashAt, crashAfterApply);
      const dying = world.process({ kv: mortal });
      const request = {
        id: "qretriedbythebrowser",
        to: "bob@penncloud.test, cleo@penncloud.test",
        bcc: "dan@penncloud.test",
        text: "one copy",
      };
      const accepted = await dying.send("ann", request).then(() => true, () => false);
      await dying.worker.idle();
      const died = mortal.calls >= crashAt;
      if (!accepted) {
        // The browser repeats the request at another frontend.
        await world.mail.send("ann", request);
        await world.mail.worker.idle();
      }
      world.env.nowMs += CLAIM_MS + 2_000;
      await world.mail.worker.sweep();
      for (const user of ["bob", "cleo", "dan"]) {
        const entries = await folderEntries(world.mail, user);
        assert.equal(entries.length, 1, `${user} after a crash at call ${crashAt}`);
        const { content } = await world.mail.read(user, entries[0]!.entry.id);
        assert.equal(content.text.trim(), "one copy");
      }
      assert.equal((await folderEntries(world.mail, "ann", "Sent")).length, 1);
      const report = await world.mail.report("ann", request.id);
      assert.deepEqual(report?.map(({ status }) => status), Array(3).fill("delivered"));
      // Nothing is left but the one body: pointers and unused bodies are swept after a while.
      world.env.nowMs += POINTER_GRACE_MS + 1;
      await world.mail.worker.sweep();
      assert.deepEqual(await rowsLeft(world, "=outbox"), [], `crash at call ${crashAt}`);
      const bodies = new Set((await rowsLeft(world, "/body")).map((line) => line.split(" ")[0]));
      assert.equal(bodies.size, 1, `crash at call ${crashAt}: ${[...bodies]}`);
      if (!died) break;
      crashes++;
    }
    assert.ok(crashes > 15, `${crashes} crash points`);
  });

  for (const { what, bytes, splitAt, callsMax } of FROM_OUTSIDE) {
    Deno.test(`${what} is delivered once when the receiving process dies ${when} any call`, async () => {
      let crashes = 0;
      for (let crashAt = 1;; crashAt++) {
        const kv = new MemoryKv({ splitAt, env: new TestEnv() });
        const world = makeWorld(["ann", "bob"], { kv });
        const mortal = new MortalKv(world.kv, crashAt, crashAfterApply);
        const dying = world.process({ kv: mortal });
        const header = new TextEncoder().encode("Subject: hello\r\n\r\n");
        const accepted = await dying.smtp.receive({
          envelopeFrom: "x@else.example",
          recipients: ["ann@penncloud.test", "bob@penncloud.test"],
          source: [header, new Uint8Array(bytes).fill(65)],
          trace: "Received: from else.example",
        }).then(() => true, () => false);
        await dying.worker.idle();
        world.env.nowMs += CLAIM_MS + 2_000;
        await world.mail.worker.sweep();
        const counts = [];
        for (const user of ["ann", "bob"]) {
          const entries = await folderEntries(world.mail, user);
          counts.push(entries.length);
          for (const { entry } of entries) {
            const { stream } = await world.mail.raw(user, entry.id);
            const text = await textOf(stream);
            assert.equal(text.length - text.indexOf("\r\n\r\n") - 4, bytes);
          }
        }
        // Without our "250" the other server sends again, so then it is all or nothing.
        if (accepted) assert.deepEqual(counts, [1, 1], `crash at call ${crashAt}`);
        else {assert.ok(
            counts[0] === counts[1] && counts[0]! <= 1,
            `crash at ${crashAt}: ${counts}`,
          );}
        world.env.nowMs += POINTER_GRACE_MS + 1;
        await world.mail.worker.sweep();
        assert.deepEqual(await rowsLeft(world, "=outbox"), []);
        const bodies = new Set((await rowsLeft(world, "/body")).map((line) => line.split(" ")[0]));
        assert.equal(bodies.size, counts[0], `crash at call ${crashAt}: ${[...bodies]}`);
        if (mortal.calls < crashAt) break;
        crashes++;
      }
      assert.equal(crashes, callsMax, "every call is a place to die, and has its price");
    });
  }

  Deno.test(`a worker that dies ${when} any call is replaced by the next one`, async () => {
    for (let crashAt = 1;; crashAt++) {
      const world = makeWorld(["ann", "bob", "cleo"]);
      // Accepted by a frontend that dies before it delivers anything.
      const accepting = world.process();
      accepting.worker.kick = () => {};
      await accepting.send("ann", { to: "bob@penncloud.test, cleo@penncloud.test", text: "x" });
      world.env.nowMs += CLAIM_MS + 1;
      const mortal = new MortalKv(world.kv, crashAt, crashAfterApply);
      await world.process({ kv: mortal }).worker.sweep().catch(() => {});
      world.env.nowMs += CLAIM_MS + 2_000;
      await world.mail.worker.sweep();
      for (const user of ["bob", "cleo"]) {
        assert.equal((await folderEntries(world.mail, user)).length, 1, `${user}, ${crashAt}`);
      }
      if (mortal.calls < crashAt) break;
    }
  });
}

Deno.test("two workers at once deliver one copy", async () => {
  const world = makeWorld(["ann", "bob", "cleo"]);
  const accepting = world.process();
  accepting.worker.kick = () => {};
  for (let i = 0; i < 10; i++) {
    await accepting.send("ann", { to: "bob@penncloud.test, cleo@penncloud.test", text: `${i}` });
  }
  world.env.nowMs += CLAIM_MS + 1;
  const workers = [world.process().worker, world.process().worker, world.process().worker];
  await Promise.all(workers.map((worker) => worker.sweep()));
  world.env.nowMs += 60_000;
  await workers[0]!.sweep();
  assert.equal((await folderEntries(world.mail, "bob")).length, 10);
  assert.equal((await folderEntries(world.mail, "cleo")).length, 10);
  assert.deepEqual(await rowsLeft(world, "=outbox"), []);
});

Deno.test("a delivery that is repeated after the reader deleted the mail does not bring it back", async () => {
  const world = makeWorld(["ann", "bob"]);
  await world.mail.send("ann", { to: "bob@penncloud.test", text: "x" });
  await world.mail.worker.idle();
  const [got] = await folderEntries(world.mail, "bob");
  await world.mail.delete("bob", got!.entry.id, { forGood: true });
  assert.equal(await world.mail.mailbox("bob").add("inbox", got!.entry), false);
  assert.equal((await folderEntries(world.mail, "bob")).length, 0);
});

/** A mail server elsewhere that answers as the test says. */
function outside(answer: (address: string) => OutsideResult): OutsideTransport & { got: string[] } {
  const got: string[] = [];
  return {
    got,
    async send({ recipients, source }) {
      const text = await textOf(source());
      const results = new Map<string, OutsideResult>();
      for (const address of recipients) {
        const result = answer(address);
        if (result.kind === "delivered") got.push(`${address}: ${text.split("\r\n").at(-2)}`);
        results.set(address, result);
      }
      return results;
    },
  };
}

Deno.test("outside mail waits in the store until a process with SMTP takes it", async () => {
  const world = makeWorld(["ann", "bob"]);
  const { id } = await world.mail.send("ann", {
    to: "bob@penncloud.test, x@else.example, y@else.example",
    text: "hello",
  });
  await world.mail.worker.idle();
  assert.deepEqual((await world.mail.report("ann", id))?.map(({ status }) => status), [
    "delivered",
    "queued",
    "queued",
  ]);
  const transport = outside(() => ({ kind: "delivered" }));
  await world.process({ outside: transport }).worker.sweep();
  assert.deepEqual(transport.got, ["x@else.example: hello", "y@else.example: hello"]);
  assert.deepEqual((await world.mail.report("ann", id))?.map(({ status }) => status), [
    "delivered",
    "delivered",
    "delivered",
  ]);
  assert.deepEqual(await rowsLeft(world, "=outbox"), []);
});

Deno.test("a refused address gives the sender one bounce in plain words, the others get their mail", async () => {
  const world = makeWorld(["ann"]);
  const transport = outside((address) =>
    address.startsWith("no")
      ? { kind: "refused", detail: "The server of else.example knows no such user" }
      : { kind: "delivered" }
  );
  const { id } = await world.mail.send("ann", {
    to: "nobody@else.example, yes@else.example",
    subject: "plan",
    text: "hello",
  });
  await world.process({ outside: transport }).worker.sweep();
  assert.deepEqual(transport.got, ["yes@else.example: hello"]);
  const entries = await folderEntries(world.mail, "ann");
  assert.deepEqual(entries.map(({ entry }) => entry.subject), ["Not delivered: plan"]);
  const { content } = await world.mail.read("ann", entries[0]!.entry.id);
  assert.match(content.text, /"plan" could not be delivered to nobody@else\.example/);
  assert.match(content.text, /knows no such user/);
  assert.equal((await world.mail.report("ann", id))?.[0]?.status, "failed");
});

Deno.test("a bounce comes exactly once when the worker dies at any call", async () => {
  for (const crashAfterApply of [false, true]) {
    for (let crashAt = 1;; crashAt++) {
      const world = makeWorld(["ann"]);
      await world.mail.send("ann", { to: "nobody@else.example", text: "hello" });
      await world.mail.worker.idle();
      const transport = outside(() => ({ kind: "refused", detail: "no such user" }));
      const mortal = new MortalKv(world.kv, crashAt, crashAfterApply);
      await world.process({ kv: mortal, outside: transport }).worker.sweep().catch(() => {});
      world.env.nowMs += 60_000;
      await world.process({ outside: transport }).worker.sweep();
      const entries = await folderEntries(world.mail, "ann");
      assert.equal(entries.length, 1, `crash at call ${crashAt}`);
      assert.match(
        (await world.mail.read("ann", entries[0]!.entry.id)).content.text,
        /no such user/,
      );
      if (mortal.calls < crashAt) break;
    }
  }
});

Deno.test("a server that is away is tried again with growing pauses, then the sender hears of it", async () => {
  const world = makeWorld(["ann"], { mail: { retry_hours: 24 } });
  const triesMs: number[] = [];
  const transport = outside(() => {
    triesMs.push(world.env.nowMs);
    return { kind: "deferred", detail: "The server of else.example does not answer" };
  });
  const { worker } = world.process({ outside: transport });
  const { id } = await world.mail.send("ann", { to: "x@else.example", subject: "plan", text: "t" });
  const startMs = world.env.nowMs;
  const subjects = async () => (await folderEntries(world.mail, "ann")).map((m) => m.entry.subject);
  for (; world.env.nowMs < startMs + 26 * 3_600_000; world.env.nowMs += 60_000) {
    await worker.sweep();
    if (world.env.nowMs < startMs + WARN_AFTER_MS) assert.deepEqual(await subjects(), []);
    if (world.env.nowMs === startMs + 6 * 3_600_000) {
      assert.deepEqual(await subjects(), ["Still trying: plan"]);
      assert.equal((await world.mail.report("ann", id))?.[0]?.status, "delayed");
    }
  }
  assert.deepEqual(await subjects(), ["Not delivered: plan", "Still trying: plan"]);
  assert.equal((await world.mail.report("ann", id))?.[0]?.status, "failed");
  const pauses = triesMs.slice(1).map((ms, i) => Math.round((ms - triesMs[i]!) / 60_000));
  assert.deepEqual(pauses.slice(0, 7), [1, 2, 4, 8, 16, 32, 60]);
  assert.ok(triesMs.length < 40, `${triesMs.length} tries`);
});

Deno.test("mail to somebody whose account is gone meanwhile bounces and frees its share of the body", async () => {
  const users = ["ann", "bob"];
  const world = makeWorld(users);
  world.mail.worker.kick = () => {};
  const { id } = await world.mail.send("ann", { to: "bob@penncloud.test", text: "x" });
  users.pop();
  await world.mail.worker.sweep();
  const [bounce] = await folderEntries(world.mail, "ann");
  assert.match((await world.mail.read("ann", bounce!.entry.id)).content.text, /no such user/);
  await world.mail.delete("ann", id, { forGood: true });
  await world.mail.delete("ann", bounce!.entry.id, { forGood: true });
  assert.deepEqual(await rowsLeft(world, "/body"), []);
});

Deno.test("a worker that read a pointer long ago does not delete what others have delivered since", async () => {
  const world = makeWorld(["ann", "bob"]), { kv, env } = world;
  const outbox = new Outbox({ kv, env, bodies: new BodyStore(kv) });
  const accepting = world.process();
  accepting.worker.kick = () => {};
  await accepting.send("ann", { to: "bob@penncloud.test", text: "to be kept" });
  await accepting.smtp.receive({
    envelopeFrom: "x@else.example",
    recipients: ["bob@penncloud.test"],
    source: [new TextEncoder().encode("Subject: hello\r\n\r\nto be kept\r\n")],
    trace: "Received: from else.example",
  });
  const old = (await Promise.all(OUTBOX_SHARDS.map((shard) => outbox.pointers(shard)))).flat();
  assert.equal(old.length, 2);
  env.nowMs += POINTER_GRACE_MS + 1;
  await world.mail.worker.sweep();
  for (const pointer of old) {
    assert.equal(await outbox.load(pointer.ownerRow, pointer.outId), null);
    await outbox.tidy(pointer);
  }
  const entries = await folderEntries(world.mail, "bob");
  assert.equal(entries.length, 2);
  for (const { entry } of entries) {
    assert.equal((await world.mail.read("bob", entry.id)).content.text.trim(), "to be kept");
  }
});

for (const file of ["cluster.toml", "cluster.small.toml", "cluster.hosts.toml"]) {
  Deno.test(`with ${file} a body and its line in the index lie in one replica group`, async () => {
    const { config } = await loadConfig({ path: join(REPOSITORY, file) });
    const groups = planGroups(config);
    const groupOf = (row: string) =>
      groups.findIndex(({ startKey, endKey }) => inRange(row, startKey, endKey));
    for (const letter of "abcdefghijklmnopqrstuvwxyz") {
      for (const rest of ["2222", "zzzz"]) {
        const row = bodyRow(letter + rest), index = outboxShardRow(letter + rest);
        assert.equal(groupOf(index), groupOf(row), `${row} and ${index}`);
      }
    }
  });
}

Deno.test("parts of the outbox that do not answer keep no mail of the others", async () => {
  const world = makeWorld(["ann", "bob"]);
  const died = world.process();
  await died.worker.stop();
  await died.send("ann", { to: "bob@penncloud.test", subject: "waits", text: "x" });
  assert.deepEqual(await folderEntries(world.mail, "bob"), []);
  const { kv } = world, given = Promise.withResolvers<never>();
  const parts = OUTBOX_SHARDS.map(shardRow);
  const used = new Set((await scanSnapshot(kv, { keysOnly: true })).map(({ row }) => row));
  const silent = parts.filter((row) => !used.has(row));
  assert.equal(silent.length, parts.length - 1);
  const other = world.process({
    kv: {
      get: (row, column) => kv.get(row, column),
      getRow: (row, options) => silent.includes(row) ? given.promise : kv.getRow(row, options),
      scan: (options) => kv.scan(options),
      apply: (op) => kv.apply(op),
      transact: (ops) => kv.transact(ops),
    },
  });
  world.env.nowMs += CLAIM_MS + 2_000;
  const sweep = other.worker.sweep();
  await eventually(
    async () => (await folderEntries(world.mail, "bob")).length === 1,
    "the mail comes although the rest of the index is not there",
  );
  given.reject(new Error("no primary"));
  await assert.rejects(sweep, /no primary/);
});
