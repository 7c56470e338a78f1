/** What a person's browser asks of a frontend: the inbox, and a folder of ten thousand files. */
import { deliverOne } from "../../tests/cluster/smtp_talk.ts";
import { frontendDoors, newcomer, type Visitor } from "../../tests/cluster/visitor.ts";
import type { Bench, BenchRun } from "../bench_run.ts";
import { type LoopCase, loopRow, sampleLoop } from "../loop_bench.ts";
import type { BenchResult, Row } from "../report.ts";
import { PennCloud } from "../systems/penncloud.ts";
import { until } from "../systems/system.ts";

const FILES = 10_000;
const MESSAGES = 50;
const UPLOADS_AT_ONCE = 16;

export const pages: Bench = {
  name: "pages",
  about: "requests a second: the inbox, and a folder of --count files (default 10000)",
  run: measurePages,
};

async function measurePages(run: BenchRun): Promise<BenchResult> {
  const { outstanding, rounds, count } = run.options;
  const system = await new PennCloud({ only: "all" }).start(await run.folder());
  const rows: Row[] = [];
  try {
    const user = await newcomer(frontendDoors(system.cluster)[0]!, "reader");
    await fillInbox(user, system.cluster.config.mail.smtp_port);
    const startedMs = performance.now(), files = count ?? FILES;
    const folder = await fillFolder(user, files);
    run.note(`${files} files were made in ${seconds(startedMs)} s`);
    const requests: Readonly<Record<string, string>> = {
      "the document of the mail application": "/mail",
      "the inbox": `/api/v1/mail/messages?folder=INBOX&limit=${MESSAGES}`,
      [`a folder of ${files} files`]: `/api/v1/drive/items/${folder}`,
    };
    for (const [name, path] of Object.entries(requests)) {
      for (const connections of outstanding) {
        const loop: LoopCase = {
          system: "penncloud",
          name: `${name}, ${connections} outstanding`,
          outstanding: connections,
          operation: () => read(user, path),
          pids: system.pids(),
          unit: "requests/s",
        };
        const samples = [];
        for (let round = 0; round < rounds; round++) samples.push(await sampleLoop(run, loop));
        rows.push(loopRow(loop, samples));
      }
    }
  } finally {
    await system.stop();
  }
  return { rows, peers: [], notes: run.notes };
}

async function read(user: Visitor, path: string): Promise<void> {
  const response = await fetch(user.door + path, { headers: { cookie: user.cookie } });
  const { length } = await response.bytes();
  if (response.status !== 200 || length === 0) {
    throw new Error(`${path} was answered with ${response.status} and ${length} bytes`);
  }
}

async function fillInbox(user: Visitor, smtpPort: number): Promise<void> {
  for (let n = 0; n < MESSAGES; n++) await deliverOne(smtpPort, user.username, `News ${n}`);
  await until(
    async () => (await user.messages()).length >= MESSAGES ? true : null,
    "all messages to be in the inbox",
  );
}

async function fillFolder(user: Visitor, files: number): Promise<string> {
  const { json, status, text } = await user.request("/api/v1/drive/folders", {
    method: "POST",
    json: { parent: "root", name: "many" },
  });
  if (status !== 201) throw new Error(`The folder was refused with ${status}: ${text}`);
  let next = 0;
  const uploadAll = async () => {
    while (next < files) {
      const name = `file-${String(next++).padStart(6, "0")}.txt`;
      const path = `/api/v1/drive/files?parent=${json.id}&name=${name}`;
      const answer = await user.request(path, { method: "PUT", body: name });
      if (answer.status !== 201) throw new Error(`${name} was refused: ${answer.text}`);
    }
  };
  await Promise.all(Array.from({ length: UPLOADS_AT_ONCE }, uploadAll));
  return json.id;
}

const seconds = (sinceMs: number): string => ((performance.now() - sinceMs) / 1000).toFixed(1);
