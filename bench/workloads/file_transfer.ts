/**
 * A large file through a frontend, against what the disk takes for as many plain copies: three with an
 * fsync each for an upload, which has to be on three nodes; one for a download.
 *
 * Bytes of a download are counted and dropped: where they would be stored is another machine's disk.
 */
import { join } from "node:path";
import { frontendDoors, newcomer, type Visitor } from "../../tests/cluster/visitor.ts";
import type { Bench, BenchRun } from "../bench_run.ts";
import { getFile, putFile } from "../clients/file_client.ts";
import { CostMeter, MachineMeter } from "../measure.ts";
import { type BenchResult, bytesText, numberText, type Row } from "../report.ts";
import { medianOf, ratiosOf, spreadOf } from "../statistics.ts";
import { PennCloud, type RunningPennCloud } from "../systems/penncloud.ts";
import { copyWithSync, makeRandomFile } from "../systems/plain_files.ts";

const UPLOAD_COPIES = 3;

export const upload: Bench = {
  name: "upload",
  about: "a file of --size through a frontend, against three plain copies with fsync",
  run: (run) => transfer(run, "upload"),
};

export const download: Bench = {
  name: "download",
  about: "a file of --size through a frontend, against one plain copy with fsync",
  run: (run) => transfer(run, "download"),
};

interface Sample {
  readonly seconds: number;
  readonly clientCpuSeconds: number;
  readonly serverCpuSeconds: number;
  readonly peakBytes: number;
  readonly writtenBytes: number | null;
  readonly othersCores: number;
}

async function transfer(run: BenchRun, direction: "upload" | "download"): Promise<BenchResult> {
  const { fileBytes, rounds } = run.options;
  const dir = await run.folder(), source = join(dir, "source");
  await makeRandomFile(source, fileBytes);
  const system = await new PennCloud({ only: "all" }).start(await run.folder());
  const copies = Array.from(
    { length: direction === "upload" ? UPLOAD_COPIES : 1 },
    (_, n) => join(dir, `copy-${n}`),
  );
  const ours: Sample[] = [], plain: Sample[] = [];
  try {
    const user = await newcomer(frontendDoors(system.cluster)[0]!, "bench");
    const id = direction === "download" ? await uploadFile(user, source, "film") : "";
    for (let round = 0; round < rounds; round++) {
      const work = direction === "upload"
        ? () => uploadFile(user, source, `film-${round}`)
        : () => downloadFile(user, id, fileBytes);
      ours.push(await measure(run, system, work));
      plain.push(await measure(run, null, () => copyWithSync(source, copies)));
      for (const copy of copies) await Deno.remove(copy);
      const rates = [ours, plain].map((all) => numberText(fileBytes / 1e6 / all.at(-1)!.seconds));
      run.say(`${direction}, round ${round + 1}: ${rates[0]} MB/s, plain ${rates[1]} MB/s`);
    }
  } finally {
    await system.stop();
  }
  const what = `${direction} of ${bytesText(fileBytes)}`;
  const speeds = (samples: readonly Sample[]) =>
    samples.map(({ seconds }) => fileBytes / 1e6 / seconds);
  const plainName = `${copies.length} plain ${copies.length === 1 ? "copy" : "copies"}`;
  return {
    rows: [
      rowOf("penncloud", what, spreadOf(speeds(ours)), ours, fileBytes),
      rowOf(plainName, what, spreadOf(speeds(plain)), plain, fileBytes),
    ],
    peers: [{ system: "plain", case: what, ratio: ratiosOf(speeds(ours), speeds(plain)) }],
    notes: run.notes,
  };
}

async function uploadFile(user: Visitor, source: string, name: string): Promise<string> {
  const path = `/api/v1/drive/files?parent=root&name=${name}`;
  return JSON.parse(await putFile({ ...user, path }, source)).id;
}

async function downloadFile(user: Visitor, id: string, bytes: number): Promise<void> {
  const count = await getFile({ ...user, path: `/api/v1/drive/items/${id}/content` });
  if (count !== bytes) throw new Error(`The download gave ${count} of ${bytes} bytes`);
}

async function measure(
  run: BenchRun,
  system: RunningPennCloud | null,
  work: () => Promise<unknown>,
): Promise<Sample> {
  await run.untilIdle();
  const client = new CostMeter([Deno.pid]), server = new CostMeter(system?.pids() ?? []);
  const machine = new MachineMeter(), startedMs = performance.now();
  await work();
  const seconds = (performance.now() - startedMs) / 1000;
  const clientCpuSeconds = client.read().cpuSeconds;
  const { cpuSeconds: serverCpuSeconds, peakBytes, writtenBytes } = server.read();
  const othersSeconds = machine.busySeconds - clientCpuSeconds - serverCpuSeconds;
  return {
    seconds,
    clientCpuSeconds,
    serverCpuSeconds,
    peakBytes,
    writtenBytes,
    othersCores: Math.max(0, othersSeconds / seconds),
  };
}

function rowOf(
  system: string,
  what: string,
  rate: Row["rate"],
  samples: readonly Sample[],
  bytes: number,
): Row {
  const median = (of: (sample: Sample) => number) => medianOf(samples.map(of));
  const serves = system === "penncloud";
  return {
    system,
    case: what,
    rate,
    unit: "MB/s",
    clientCores: median(({ clientCpuSeconds, seconds }) => clientCpuSeconds / seconds),
    clientCpuSeconds: median(({ clientCpuSeconds }) => clientCpuSeconds),
    othersCores: median(({ othersCores }) => othersCores),
    ...(!serves ? {} : {
      serverCpuSeconds: median(({ serverCpuSeconds }) => serverCpuSeconds),
      peakBytes: Math.max(...samples.map(({ peakBytes }) => peakBytes)),
      more: {
        "written/byte": median(({ writtenBytes }) => (writtenBytes ?? NaN) / bytes),
      },
    }),
  };
}
