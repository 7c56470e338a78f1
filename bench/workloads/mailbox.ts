/**
 * Mail by SMTP into many inboxes: deliveries a second, each acknowledged when the message is on three
 * disks, against the plain limit: the same bytes into three new files, each with an fsync.
 *
 * Connections stay open, one for each outstanding delivery. Before the next run all of a run's messages
 * have to be in their inboxes, and how long that took is told: the rate that can go on for ever. At the
 * end every inbox is read and the messages counted: a delivery that was acknowledged and is not there
 * fails the bench.
 */
import { join } from "node:path";
import { SmtpTalk } from "../../tests/cluster/smtp_talk.ts";
import { frontendDoors, newcomer, type Visitor } from "../../tests/cluster/visitor.ts";
import type { Bench, BenchRun } from "../bench_run.ts";
import { type LoopCase, loopRow, type LoopSample, sampleLoop } from "../loop_bench.ts";
import { type BenchResult, bytesText, type PeerRatio, type Row } from "../report.ts";
import { ratiosOf } from "../statistics.ts";
import { PennCloud } from "../systems/penncloud.ts";
import { writeWithSync } from "../systems/plain_files.ts";
import { until } from "../systems/system.ts";

const INBOXES = 20;
const PLAIN_COPIES = 3;
const ALL_THERE_MS = 120_000;
const LINE = "All the news that is fit to be delivered, in lines of sixty-odd.";

export const mailbox: Bench = {
  name: "mailbox",
  about: "SMTP deliveries into --count inboxes, against three plain files with fsync each",
  run: measureMailbox,
};

async function measureMailbox(run: BenchRun): Promise<BenchResult> {
  const { outstanding, valueBytes: sizes, rounds, count } = run.options;
  const system = await new PennCloud({ only: "all" }).start(await run.folder());
  const rows: Row[] = [], peers: PeerRatio[] = [];
  try {
    const door = frontendDoors(system.cluster)[0]!;
    const users: Visitor[] = [];
    for (let n = 0; n < (count ?? INBOXES); n++) users.push(await newcomer(door, `reader${n}`));
    const delivered = new Map<string, number>(users.map(({ username }) => [username, 0]));
    const port = system.cluster.config.mail.smtp_port;
    for (const bytes of sizes) {
      for (const connections of outstanding) {
        const name = `message of ${bytesText(bytes)}, ${connections} outstanding`;
        const talks: SmtpTalk[] = [];
        for (let n = 0; n < connections; n++) talks.push(await SmtpTalk.open(port));
        const ours: LoopCase = {
          system: "penncloud",
          name,
          outstanding: connections,
          operation: deliverTo(talks, delivered, bytes),
          pids: system.pids(),
          unit: "messages/s",
        };
        const plain: LoopCase = {
          system: "3 plain files",
          name,
          outstanding: connections,
          operation: await plainFiles(run, bytes),
          unit: "messages/s",
        };
        const samples: [LoopSample[], LoopSample[]] = [[], []];
        for (let round = 0; round < rounds; round++) {
          const startedMs = performance.now();
          const sample = await sampleLoop(run, ours);
          await allAreFiled(users, delivered);
          const filed = sample.operations / ((performance.now() - startedMs) / 1000);
          run.note(`${name}: ${filed.toFixed(0)} messages/s until all were in their inboxes`);
          samples[0].push(sample);
          samples[1].push(await sampleLoop(run, plain));
        }
        for (const talk of talks) talk.close();
        rows.push(loopRow(ours, samples[0]), loopRow(plain, samples[1]));
        const rates = samples.map((all) => all.map(({ rate }) => rate));
        peers.push({ system: "plain", case: name, ratio: ratiosOf(rates[0]!, rates[1]!) });
      }
    }
    await allAreThere(run, users, delivered);
  } finally {
    await system.stop();
  }
  return { rows, peers, notes: run.notes };
}

/** Each connection goes round all inboxes. */
function deliverTo(
  talks: readonly SmtpTalk[],
  delivered: Map<string, number>,
  bytes: number,
): (loop: number) => Promise<void> {
  const names = [...delivered.keys()];
  const lines = Math.max(1, Math.ceil(bytes / (LINE.length + 2)));
  const body = Array.from({ length: lines }, () => LINE).join("\r\n");
  let count = 0;
  return async (loop) => {
    const n = ++count, name = names[n % names.length]!;
    const head = [
      "From: Ann <ann@example.org>",
      `To: <${name}@penncloud.test>`,
      `Subject: News ${n}`,
      `Message-ID: <${crypto.randomUUID()}@example.org>`,
    ];
    const envelope = { from: "ann@example.org", to: [`${name}@penncloud.test`] };
    const reply = await talks[loop]!.deliver(envelope, [...head, "", body].join("\r\n"));
    if (!reply.startsWith("250")) throw new Error(`A delivery was answered with "${reply}"`);
    delivered.set(name, delivered.get(name)! + 1);
  };
}

async function plainFiles(run: BenchRun, bytes: number): Promise<() => Promise<void>> {
  const dir = await run.folder(), content = new Uint8Array(bytes).fill(65);
  const dirs = Array.from({ length: PLAIN_COPIES }, (_, n) => join(dir, String(n)));
  for (const each of dirs) await Deno.mkdir(each);
  let count = 0;
  return () => writeWithSync(content, String(++count), dirs);
}

/** By the counters of the inboxes, which are quickly asked for. */
async function allAreFiled(
  users: readonly Visitor[],
  delivered: ReadonlyMap<string, number>,
): Promise<void> {
  for (const user of users) {
    const expected = delivered.get(user.username)!;
    await until(
      async () => await inboxTotal(user) >= expected ? true : null,
      `${expected} messages to be in the inbox of ${user.username}`,
      ALL_THERE_MS,
    );
  }
}

async function inboxTotal(user: Visitor): Promise<number> {
  const { json, status, text } = await user.request("/api/v1/mail/folders");
  if (status !== 200) throw new Error(`The folders were refused with ${status}: ${text}`);
  return json.find(({ role }: { role: string | null }) => role === "inbox").total;
}

async function allAreThere(
  run: BenchRun,
  users: readonly Visitor[],
  delivered: ReadonlyMap<string, number>,
): Promise<void> {
  const startedMs = performance.now();
  for (const user of users) {
    const expected = delivered.get(user.username)!;
    await until(
      async () => (await user.messages()).length >= expected ? true : null,
      `${expected} messages in the inbox of ${user.username}`,
      ALL_THERE_MS,
    );
  }
  const total = [...delivered.values()].reduce((sum, count) => sum + count, 0);
  const seconds = (performance.now() - startedMs) / 1000;
  run.note(`all ${total} messages were in their inboxes, read in ${seconds.toFixed(1)} s`);
}
