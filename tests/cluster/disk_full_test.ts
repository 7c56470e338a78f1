/**
 * Full disks, and a store that is away: what cannot be done is refused in words that fit each door,
 * what can be done goes on, and all of it comes back by itself.
 *
 * The backends keep their data on small tmpfs disks, which the test makes full and roomy again by
 * resizing them under the running processes. Where mounting is not allowed, the tests of full disks
 * are skipped with the reason, and the others run on the ordinary disk.
 */
import assert from "node:assert/strict";
import { put } from "../../kv/kv.ts";
import { eventually } from "../eventually.ts";
import {
  allHealthy,
  backendsOf,
  primariesAtHome,
  primaryOf,
  replicasEqual,
  statusOf,
} from "./cluster_calls.ts";
import { startCluster, type TestCluster } from "./harness.ts";
import { MIB, processStates } from "./process_watch.ts";
import { type SmallDisks, startOnSmallDisks, whyNoMounts } from "./small_disks.ts";
import { deliverOne, SmtpTalk } from "./smtp_talk.ts";
import { type Answer, frontendDoors, newcomer, randomBytes, type Visitor } from "./visitor.ts";
import { Workload } from "./workload.ts";

/** Below an eighth of a disk of 400 MiB a backend takes no new writes; that is looked at each second. */
const SOFT_FULL_BYTES = 32 * MIB;
/** The goal is 10 s; what it took is printed. */
const RESUME_MS = 120_000;

const noMounts = await whyNoMounts();
if (noMounts !== null) console.log(`Tests of full disks are skipped: ${noMounts}`);

let disks: SmallDisks | null = null;
let cluster: TestCluster;
let user: Visitor;
let smtpPort = 0;
const kept = randomBytes(10 * MIB);
let keptId = "";

Deno.test.beforeAll(async () => {
  disks = noMounts === null ? await startOnSmallDisks({ diskMib: 400 }) : null;
  cluster = disks?.cluster ?? await startCluster({ config: "tests/cluster/three_doors.toml" });
  smtpPort = cluster.config.mail.smtp_port;
  user = await newcomer(frontendDoors(cluster)[0]!, "dora");
  const { status, json } = await user.upload("kept", kept);
  assert.equal(status, 201);
  keptId = json.id;
});
Deno.test.afterAll(async () => {
  if (disks !== null) await disks[Symbol.asyncDispose]();
  else await cluster.stop();
});

let count = 0;
/** Names and subjects that were not used before. */
const fresh = (what: string) => `${what} ${count++}`;

async function readsGoOn(): Promise<void> {
  assert.deepEqual(await user.content(keptId), kept);
  assert.equal((await user.request("/api/v1/mail/folders")).status, 200);
  assert.equal((await user.request("/mail", { headers: { accept: "text/html" } })).status, 200);
}

async function untilRefused(ask: () => Promise<number>, status: number): Promise<void> {
  await eventually(async () => await ask() === status, `refusals with ${status}`, {
    everyMs: 100,
  });
}

/** How long it takes until every kind of write works again. */
async function untilWritesResume(): Promise<number> {
  const startMs = performance.now();
  await eventually(
    async () => {
      const replies = await Promise.all([
        user.upload(fresh("after"), randomBytes(MIB)).then(({ status }) => status === 201),
        user.send(["dora"], fresh("after")).then(({ status }) => status === 202),
        deliverOne(smtpPort, "dora", fresh("after")).then((reply) => reply.startsWith("250")),
        ...["barn", "lamp", "tree"].map((row) =>
          put(cluster.kv, row, "after", "x").then(() => true, () => false)
        ),
      ]);
      return !replies.includes(false);
    },
    "writes to resume",
    { withinMs: RESUME_MS, everyMs: 100 },
  );
  return performance.now() - startMs;
}

async function pids(): Promise<Map<string, number>> {
  return new Map([...(await processStates(cluster)).values()].map(({ name, pid }) => [name, pid]));
}

const onDisks = { ignore: noMounts !== null };

/** The next test shall find room, whatever became of this one. */
function withRoomAfterwards(test: () => Promise<void>): () => Promise<void> {
  return async () => {
    try {
      await test();
    } finally {
      await disks!.makeRoom();
    }
  };
}

Deno.test({
  name: "with full disks every door refuses writes in its own words, and reads go on",
  ...onDisks,
  fn: withRoomAfterwards(async () => {
    const before = await pids();
    const workload = new Workload(cluster.kv, { writers: 2 });
    await workload.progress(100);
    await disks!.fill(SOFT_FULL_BYTES);
    let upload: Answer, sent: Answer;
    await untilRefused(async () => (upload = await user.upload(fresh("no"), "x")).status, 507);
    assert.equal(upload!.json.error.code, "disk_full");
    await untilRefused(async () => (sent = await user.send(["dora"], fresh("no"))).status, 507);
    assert.match(sent!.json.error.message, /disk is full/i);
    await untilRefused(
      async () => Number((await deliverOne(smtpPort, "dora", fresh("no"))).slice(0, 3)),
      452,
    );
    // One that is long enough to be refused before its end.
    using talk = await SmtpTalk.open(smtpPort);
    const envelope = { from: "ann@example.org", to: ["dora@penncloud.test"] };
    const long = "Subject: long\r\n\r\n" + `${"z".repeat(70)}\r\n`.repeat(80_000);
    assert.match(await talk.deliver(envelope, long), /^452 4\.3\.1 /);
    for (const row of ["barn", "lamp", "tree"]) {
      const attempt = () => put(cluster.kv, row, "no", "x").then(() => 0, (error) => error.code);
      await eventually(async () => await attempt() === "disk_full", `refusals of "${row}"`);
    }
    const cli = await cluster.penncloud(["kv", "put", "barn", "no", "x"]);
    assert.equal(cli.code, 3);
    assert.match(cli.stderr, /disk .*full/i);

    await readsGoOn();
    await eventually(
      async () => {
        const { nodes } = await statusOf(cluster);
        return backendsOf(cluster).every((name) =>
          /disk is full/.test(nodes.find((node) => node.name === name)!.problem ?? "")
        );
      },
      "every backend to report it",
    );
    // A node that ends meanwhile comes back, to be read from.
    await cluster.crash("backend/1");
    await cluster.waitReady("backend/1");
    await readsGoOn();

    await disks!.makeRoom();
    console.log(`writes resumed after ${Math.round(await untilWritesResume())} ms`);
    await workload.progress(50);
    await workload.stop();
    assert(workload.refused.every(({ code }) => code === "disk_full"), "refused for other reasons");
    await workload.check();
    await allHealthy(cluster);
    await replicasEqual(cluster);
    const after = await pids();
    for (const [name, pid] of before) {
      if (name !== "backend/1") assert.equal(after.get(name), pid, `${name} ended`);
    }
  }),
});

Deno.test({
  name: "a primary whose disk alone is full hands over to one with space, and writers go on",
  ...onDisks,
  fn: withRoomAfterwards(async () => {
    await primariesAtHome(cluster);
    const before = await pids();
    const full = await primaryOf(cluster, "lamp");
    const workload = new Workload(cluster.kv, { rows: ["lamp full"], writers: 2 });
    await workload.progress(50);
    const disk = disks!.disks.find(({ mount }) => mount.endsWith(full.replace("/", "-")))!;
    // A backend that started while its disk was made small keeps as little as four mebibytes free.
    await disk.fill(2 * MIB);
    await eventually(
      async () => await primaryOf(cluster, "lamp").catch(() => full) !== full,
      "another primary",
      { withinMs: 90_000, everyMs: 100 },
    );
    await workload.progress(50);
    await disks!.makeRoom();
    await workload.stop();
    await workload.check();
    await allHealthy(cluster);
    assert.deepEqual(await pids(), before, "a process ended");
  }),
});

Deno.test({
  name: "a disk that has no byte left in the middle of writes ends no process and loses nothing",
  ...onDisks,
  fn: withRoomAfterwards(async () => {
    const before = await pids();
    const workload = new Workload(cluster.kv, { rows: ["beam", "lens", "twig"], writers: 4 });
    await workload.progress(100);
    const uploads = new Map<string, Uint8Array<ArrayBuffer>>();
    let uploading = true;
    const lane = (async () => {
      while (uploading) {
        const name = fresh("big"), bytes = randomBytes(6 * MIB);
        // Nobody waits for ever: an upload that came too far to be refused waits for space.
        const answer = await user.upload(name, bytes).catch(() => null);
        if (answer?.status === 201) uploads.set(name, bytes);
        else await new Promise((resolve) => setTimeout(resolve, 200));
      }
    })();
    await eventually(() => uploads.size >= 2, "uploads to be under way");
    await disks!.fill(0);
    await eventually(
      () => put(cluster.kv, "barn", "no", "x", { deadlineMs: 500 }).then(() => false, () => true),
      "writes to be refused",
    );
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await readsGoOn();
    assert.deepEqual(await pids(), before, "a process ended");

    await disks!.makeRoom();
    console.log(`writes resumed after ${Math.round(await untilWritesResume())} ms`);
    await workload.progress(50);
    uploading = false;
    await lane;
    await workload.stop();
    await workload.check();
    const files = await user.files();
    for (const [name, bytes] of uploads) {
      const file = files.find((one) => one.name === name);
      assert(file !== undefined, `${name} is gone`);
      assert.deepEqual(await user.content(file.id), bytes, name);
    }
    await allHealthy(cluster);
    await replicasEqual(cluster);
    assert.deepEqual(await pids(), before, "a process ended");
  }),
});

Deno.test("while the store is away: 503 for programs, a page that comes back, 451 for mail", async () => {
  const backends = backendsOf(cluster);
  const before = await pids();
  await Promise.all(backends.map((name) => cluster.kill(name)));
  await untilRefused(async () => (await user.request("/api/v1/mail/folders")).status, 503);
  const [listed, sent, page, reply] = await Promise.all([
    user.request("/api/v1/mail/messages?folder=INBOX"),
    user.send(["dora"], fresh("away")),
    user.request("/mail", { headers: { accept: "text/html" } }),
    deliverOne(smtpPort, "dora", fresh("away")),
  ]);
  for (const { status, headers } of [listed, sent]) {
    assert.equal(status, 503);
    assert.match(headers.get("retry-after") ?? "", /^\d+$/);
  }
  assert.equal(page.status, 503);
  const refresh = /<meta http-equiv="refresh" content="(\d+)/.exec(page.text);
  assert(refresh !== null, "the page asks again by itself");
  assert.match(reply, /^451 4\.3\.0 /);

  await Promise.all(backends.map((name) => cluster.restart(name)));
  await allHealthy(cluster);
  // What a browser would do after those seconds, and a mail server after its own.
  const again = await user.request("/mail", { headers: { accept: "text/html" } });
  assert.equal(again.status, 200);
  const subject = fresh("back");
  assert.match(await deliverOne(smtpPort, "dora", subject), /^250/);
  await eventually(
    async () => (await user.messages()).some((message) => message.subject === subject),
    "the message to arrive",
  );
  const after = await pids();
  for (const [name, pid] of before) {
    if (!backends.includes(name)) assert.equal(after.get(name), pid, `${name} ended`);
  }
});
