/**
 * A large file through a frontend, against what the disk takes for as many plain copies: three with an
 * fsync each for an upload, which has to be on three nodes; one for a download. And against nginx where it
 * is installed, which keeps one copy and syncs nothing.
 *
 * Bytes of a download are counted and dropped: where they would be stored is another machine's disk.
 */
import { join } from "node:path";
import { frontendDoors, newcomer, type Visitor } from "../../tests/cluster/visitor.ts";
import type { Bench, BenchRun } from "../bench_run.ts";
import { type FileRequest, getFile, putFile } from "../clients/file_client.ts";
import { CostMeter, MachineMeter } from "../measure.ts";
import { type BenchResult, bytesText, numberText, type Row } from "../report.ts";
import { medianOf, ratiosOf, spreadOf } from "../statistics.ts";
import { type RunningNginx, startNginx } from "../systems/nginx.ts";
import { PennCloud, type RunningPennCloud } from "../systems/penncloud.ts";
import { copyWithSync, makeRandomFile } from "../systems/plain_files.ts";

const UPLOAD_COPIES = 3;

export const upload: Bench = {
  name: "upload",
  about: "a file of --size through a frontend, against three plain copies with fsync, and nginx",
  run: (run) => transfer(run, "upload"),
};

export const download: Bench = {
  name: "download",
  about: "a file of --size through a frontend, against one plain copy with fsync, and nginx",
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

/** Who moves the file, and the samples taken of it. */
interface Mover {
  readonly name: string;
  /** Servers have figures of their own; plain copies are made by the client. */
  readonly serves: boolean;
  pids(): number[];
  move(round: number): Promise<unknown>;
  /** What is done after each round, at no cost. */
  tidy?(round: number): Promise<unknown>;
  readonly samples: Sample[];
}

async function transfer(run: BenchRun, direction: "upload" | "download"): Promise<BenchResult> {
  const { fileBytes, rounds } = run.options;
  const dir = await run.folder(), source = join(dir, "source");
  await makeRandomFile(source, fileBytes);
  const system = await new PennCloud({ only: "all" }).start(await run.folder());
  const nginx = await startNginx(await run.folder());
  run.note(nginx?.about ?? "left out: nginx, because no program nginx is installed");
  const movers: Mover[] = [];
  try {
    movers.push(await frontendMover(system, { direction, source, fileBytes }));
    movers.push(plainMover(dir, { direction, source }));
    if (nginx !== null) movers.push(await nginxMover(nginx, { direction, source, fileBytes }));
    for (let round = 0; round < rounds; round++) {
      for (const mover of movers) {
        mover.samples.push(await measure(run, mover, round));
        await mover.tidy?.(round);
      }
      const rates = movers.map(({ name, samples }) =>
        `${name} ${numberText(fileBytes / 1e6 / samples.at(-1)!.seconds)} MB/s`
      );
      run.say(`${direction}, round ${round + 1}: ${rates.join(", ")}`);
    }
  } finally {
    await nginx?.stop();
    await system.stop();
  }
  const what = `${direction} of ${bytesText(fileBytes)}`;
  const speeds = ({ samples }: Mover) => samples.map(({ seconds }) => fileBytes / 1e6 / seconds);
  const [ours, ...others] = movers;
  return {
    rows: movers.map((mover) => rowOf(mover, what, spreadOf(speeds(mover)), fileBytes)),
    peers: others.map((other) => {
      return { system: other.name, case: what, ratio: ratiosOf(speeds(ours!), speeds(other)) };
    }),
    notes: run.notes,
  };
}

interface Transfer {
  readonly direction: "upload" | "download";
  readonly source: string;
  readonly fileBytes: number;
}

async function frontendMover(
  system: RunningPennCloud,
  { direction, source, fileBytes }: Transfer,
): Promise<Mover> {
  const user = await newcomer(frontendDoors(system.cluster)[0]!, "bench");
  const common = { name: "penncloud", serves: true, pids: () => system.pids(), samples: [] };
  if (direction === "upload") {
    return { ...common, move: (round) => uploadFile(user, source, `film-${round}`) };
  }
  const path = `/api/v1/drive/items/${await uploadFile(user, source, "film")}/content`;
  return { ...common, move: () => downloadFile({ ...user, path }, fileBytes) };
}

/** As many copies as PennCloud keeps, for an upload; one for a download. */
function plainMover(dir: string, { direction, source }: Omit<Transfer, "fileBytes">): Mover {
  const count = direction === "upload" ? UPLOAD_COPIES : 1;
  const copies = Array.from({ length: count }, (_, n) => join(dir, `copy-${n}`));
  return {
    name: `${count} plain ${count === 1 ? "copy" : "copies"}`,
    serves: false,
    pids: () => [],
    samples: [],
    move: () => copyWithSync(source, copies),
    tidy: () => Promise.all(copies.map((copy) => Deno.remove(copy))),
  };
}

async function nginxMover(
  nginx: RunningNginx,
  { direction, source, fileBytes }: Transfer,
): Promise<Mover> {
  const common = { name: "nginx", serves: true, pids: () => nginx.pids(), samples: [] };
  const request = { door: nginx.door, cookie: "none=1" };
  if (direction === "upload") {
    return {
      ...common,
      move: () => putFile({ ...request, path: "/film" }, source),
      tidy: () => Deno.remove(join(nginx.folder, "film")),
    };
  }
  await Deno.copyFile(source, join(nginx.folder, "film"));
  return { ...common, move: () => downloadFile({ ...request, path: "/film" }, fileBytes) };
}

async function uploadFile(user: Visitor, source: string, name: string): Promise<string> {
  const path = `/api/v1/drive/files?parent=root&name=${name}`;
  return JSON.parse(await putFile({ ...user, path }, source)).id;
}

async function downloadFile(request: FileRequest, bytes: number): Promise<void> {
  const count = await getFile(request);
  if (count !== bytes) throw new Error(`The download gave ${count} of ${bytes} bytes`);
}

async function measure(run: BenchRun, mover: Mover, round: number): Promise<Sample> {
  await run.untilIdle();
  const client = new CostMeter([Deno.pid]), server = new CostMeter(mover.pids());
  const machine = new MachineMeter(), startedMs = performance.now();
  await mover.move(round);
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

function rowOf(mover: Mover, what: string, rate: Row["rate"], bytes: number): Row {
  const { name: system, samples, serves } = mover;
  const median = (of: (sample: Sample) => number) => medianOf(samples.map(of));
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
