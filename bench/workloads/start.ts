/**
 * What a system costs before anybody asks anything: time until it is ready, resident memory, and the
 * processor time of a quiet while. PennCloud whole, with nine backends, and its peers.
 */
import { residentBytesOf } from "../measure.ts";
import type { Bench, BenchRun } from "../bench_run.ts";
import { peersOf } from "../compare.ts";
import { CostMeter } from "../measure.ts";
import { type BenchResult, bytesText, type PeerRatio, type Row } from "../report.ts";
import { medianOf, ratiosOf, spreadOf } from "../statistics.ts";
import { PennCloud, type RunningPennCloud } from "../systems/penncloud.ts";
import type { RunningSystem, System } from "../systems/system.ts";

/** Nodes give back the garbage of their start a few seconds after they are ready. */
const SETTLE_MS = 6_000;
const CASE = "start on an empty folder";

export const start: Bench = {
  name: "start",
  about: "time to ready, memory, and processor time of --seconds without requests",
  run: measureStart,
};

interface Sample {
  readonly readySeconds: number;
  readonly residentBytes: number;
  readonly idleCores: number;
  readonly processes: number;
}

async function measureStart(run: BenchRun): Promise<BenchResult> {
  const ours = new PennCloud({ config: "cluster.toml", only: "all" });
  const systems: System[] = [ours, ...await peersOf(run)];
  const samples = new Map<System, Sample[]>(systems.map((system) => [system, []]));
  for (let round = 0; round < run.options.rounds; round++) {
    for (const system of systems) {
      await run.untilIdle();
      samples.get(system)!.push(await measureOne(run, system, round === 0));
    }
  }
  const rows = systems.map((system): Row => {
    const all = samples.get(system)!;
    return {
      system: system.name,
      case: CASE,
      rate: spreadOf(all.map(({ readySeconds }) => readySeconds)),
      unit: "s to ready",
      more: {
        "processes": all[0]!.processes,
        "resident MiB": medianOf(all.map(({ residentBytes }) => residentBytes / 1024 ** 2)),
        "idle cores": medianOf(all.map(({ idleCores }) => idleCores)),
      },
    };
  });
  const times = (system: System) => samples.get(system)!.map(({ readySeconds }) => readySeconds);
  const peers = systems.slice(1).map((peer): PeerRatio => ({
    system: peer.name,
    case: `${CASE}: seconds, so less is better`,
    ratio: ratiosOf(times(ours), times(peer)),
  }));
  return { rows, peers, notes: run.notes };
}

async function measureOne(run: BenchRun, system: System, tells: boolean): Promise<Sample> {
  const startedMs = performance.now();
  const running = await system.start(await run.folder());
  try {
    const readySeconds = (performance.now() - startedMs) / 1000;
    run.say(`${system.name} was ready after ${readySeconds.toFixed(1)} s`);
    await pause(SETTLE_MS);
    const pids = running.pids(), meter = new CostMeter(pids);
    await pause(run.options.seconds * 1000);
    const idleCores = meter.read().cpuSeconds / run.options.seconds;
    const residentBytes = pids.map(residentBytesOf).reduce((sum, bytes) => sum + bytes, 0);
    if (tells && isPennCloud(running)) await noteProcesses(run, running);
    return { readySeconds, residentBytes, idleCores, processes: pids.length };
  } finally {
    await running.stop();
  }
}

const isPennCloud = (running: RunningSystem): running is RunningPennCloud => "cluster" in running;

async function noteProcesses(run: BenchRun, { cluster }: RunningPennCloud): Promise<void> {
  for (const { role, id, pid } of await cluster.processes()) {
    if (pid !== null) run.note(`${role}/${id}: ${bytesText(residentBytesOf(pid))} resident`);
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
