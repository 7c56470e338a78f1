/**
 * Systems side by side: each has its turn in every round, A B A B, under the same load from processes
 * of the bench's own, and the ratio is taken within each round.
 *
 * Before the first round each has some seconds of the load to itself: a server runs for weeks, and its first
 * seconds, in which code is compiled, would say little about them.
 *
 * All systems stay up all the time: an idle one costs the others a few percent of a core, the same in
 * every run. What other programs took meanwhile is measured and shown, since nothing else spoils a
 * measurement as much.
 */
import type { BenchRun } from "./bench_run.ts";
import type { KvLoad } from "./load/kv_workload.ts";
import { LoadFleet } from "./load/load_fleet.ts";
import { addCosts, type Cost, CostMeter, MachineMeter } from "./measure.ts";
import { bytesText, numberText, type PeerRatio, type Row } from "./report.ts";
import { medianOf, ratiosOf, spreadOf } from "./statistics.ts";
import { Etcd } from "./systems/etcd.ts";
import { Redis } from "./systems/redis.ts";
import { Sketch } from "./systems/sketch.ts";
import type { RunningSystem, System } from "./systems/system.ts";

const WARM_UP_SECONDS = 1;
const FILL_OUTSTANDING = 64;
const FILL_OUTSTANDING_LARGE = 4;

/** One run of one system. */
export interface Sample {
  readonly operationsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly seconds: number;
  readonly operations: number;
  readonly client: Cost;
  readonly server: Cost;
  readonly fsyncs: number | null;
  readonly othersCores: number;
}

/** A system that takes part, with the client processes that drive it. */
export class Contestant {
  readonly system: RunningSystem;
  readonly fleet: LoadFleet;

  constructor(system: RunningSystem, fleet: LoadFleet) {
    this.system = system;
    this.fleet = fleet;
  }

  async measure(load: KvLoad, seconds: number): Promise<Sample> {
    return await measureFleet(this.system, this.fleet, load, seconds);
  }
}

async function measureFleet(
  system: RunningSystem,
  fleet: LoadFleet,
  load: KvLoad,
  seconds: number,
): Promise<Sample> {
  await fleet.run(load, Math.min(WARM_UP_SECONDS, seconds));
  const countersBefore = await system.counters();
  const clients = new CostMeter(fleet.pids), servers = new CostMeter(system.pids());
  const machine = new MachineMeter(), startedMs = performance.now();
  const { latencies, operationsPerSecond } = await fleet.run(load, seconds);
  const elapsed = (performance.now() - startedMs) / 1000;
  const client = clients.read(), server = servers.read(), busySeconds = machine.busySeconds;
  const counters = await system.counters();
  const fsyncs = counters.fsyncs === undefined ? null : counters.fsyncs - countersBefore.fsyncs!;
  const ours = addCosts([client, server]).cpuSeconds;
  return {
    operationsPerSecond,
    p50Ms: latencies.quantileMs(0.5),
    p99Ms: latencies.quantileMs(0.99),
    maxMs: latencies.maxMs,
    seconds: elapsed,
    operations: latencies.count,
    client,
    server,
    fsyncs,
    othersCores: Math.max(0, (busySeconds - ours) / elapsed),
  };
}

/** The peers that were asked for and can take part; a note says who cannot, and why. */
export async function peersOf(run: BenchRun, load?: KvLoad["workload"]): Promise<System[]> {
  const present: System[] = [];
  for (const peer of [new Etcd(), new Redis(), new Sketch()]) {
    if (!run.options.against.includes(peer.name)) continue;
    const reason = await peer.whyNot(load);
    if (reason === null) present.push(peer);
    else run.note(`left out: ${peer.name}, because ${reason}`);
  }
  return present;
}

/** Starts all of them on fresh folders, hands them to `work`, and stops them. */
export async function withContestants<T>(
  run: BenchRun,
  systems: readonly System[],
  work: (contestants: readonly Contestant[]) => Promise<T>,
): Promise<T> {
  const running: RunningSystem[] = [], fleets: LoadFleet[] = [];
  try {
    const contestants: Contestant[] = [];
    for (const system of systems) {
      const started = await system.start(await run.folder());
      running.push(started);
      run.say(`${started.name}: ${started.about}`);
      const fleet = await LoadFleet.start(started.target, run.options.clientProcesses);
      fleets.push(fleet);
      contestants.push(new Contestant(started, fleet));
    }
    return await work(contestants);
  } finally {
    await Promise.allSettled(fleets.map((fleet) => fleet.stop()));
    const ends = await Promise.allSettled(running.map((system) => system.stop()));
    for (const end of ends) if (end.status === "rejected") run.note(String(end.reason));
  }
}

/** Writes all keys once, so that everything that is read exists. */
export async function fillKeys(
  run: BenchRun,
  contestants: readonly Contestant[],
  { keyCount, valueBytes }: { keyCount: number; valueBytes: number },
): Promise<void> {
  const { spread = "all" } = run.options;
  const outstanding = valueBytes > LARGE_BYTES ? FILL_OUTSTANDING_LARGE : FILL_OUTSTANDING;
  for (const { fleet } of contestants) {
    await fleet.fill({ from: 0, until: keyCount, spread, valueBytes, outstanding });
  }
}

export interface Comparison {
  readonly rows: Row[];
  readonly peers: PeerRatio[];
}

/** All rounds of one load. The first contestant is the one whose ratio to the others is taken. */
export async function compare(
  run: BenchRun,
  contestants: readonly Contestant[],
  load: KvLoad,
): Promise<Comparison> {
  const what = caseText(load), { rounds, seconds, warmUpSeconds } = run.options;
  const samples = new Map<Contestant, Sample[]>(contestants.map((each) => [each, []]));
  for (const { fleet } of contestants) await fleet.run(load, warmUpSeconds);
  for (let round = 1; round <= rounds; round++) {
    for (const contestant of contestants) {
      await run.untilIdle();
      const sample = await contestant.measure(load, seconds);
      samples.get(contestant)!.push(sample);
      run.say(
        `${what}, round ${round}: ${contestant.system.name} ` +
          `${numberText(sample.operationsPerSecond)}/s`,
      );
    }
  }
  const [ours, ...others] = contestants as [Contestant, ...Contestant[]];
  const rates = (contestant: Contestant) =>
    samples.get(contestant)!.map(({ operationsPerSecond }) => operationsPerSecond);
  return {
    rows: contestants.map((each) => rowOf(each.system.name, load, samples.get(each)!)),
    peers: others.map((other) => ({
      system: other.system.name,
      case: what,
      ratio: ratiosOf(rates(ours), rates(other)),
    })),
  };
}

/**
 * Is the client the bottleneck? Twice as many client processes share the same load: if one had held
 * the system back, two give more.
 */
export async function checkClient(
  run: BenchRun,
  contestants: readonly Contestant[],
  load: KvLoad,
): Promise<void> {
  const { clientProcesses, seconds } = run.options;
  for (const { system, fleet } of contestants) {
    const more = await LoadFleet.start(system.target, clientProcesses * 2);
    try {
      const ratios: number[] = [];
      for (let round = 0; round < 2; round++) {
        await run.untilIdle();
        const one = await measureFleet(system, fleet, load, seconds);
        const two = await measureFleet(system, more, { ...load, seed: load.seed + 7 }, seconds);
        ratios.push(two.operationsPerSecond / one.operationsPerSecond);
      }
      const { median, min, max } = spreadOf(ratios);
      run.note(
        `${system.name}, ${caseText(load)}: ${clientProcesses * 2} client processes give ` +
          `${median.toFixed(2)} times [${min.toFixed(2)} to ${max.toFixed(2)}] what ` +
          `${clientProcesses} give${clientProcesses === 1 ? "s" : ""}`,
      );
    } finally {
      await more.stop();
    }
  }
}

export function caseText({ workload, valueBytes, outstanding }: KvLoad): string {
  return `${workload}, ${bytesText(valueBytes)}, ${outstanding} outstanding`;
}

/** Values from which on the volume says more than the count. */
const LARGE_BYTES = 64 * 1024;

function rowOf(system: string, load: KvLoad, samples: readonly Sample[]): Row {
  const median = (of: (sample: Sample) => number) => medianOf(samples.map(of));
  const megabytes = load.valueBytes / 1e6, large = load.valueBytes >= LARGE_BYTES;
  const perOp = samples.flatMap(({ server, operations }) =>
    server.writtenBytes === null ? [] : [server.writtenBytes / operations]
  );
  const fsyncs = samples.flatMap(({ fsyncs, operations }) =>
    fsyncs === null ? [] : [fsyncs / operations]
  );
  return {
    system,
    case: caseText(load),
    rate: spreadOf(samples.map((each) => each.operationsPerSecond * (large ? megabytes : 1))),
    unit: large ? "MB/s" : "op/s",
    p50Ms: median(({ p50Ms }) => p50Ms),
    p99Ms: median(({ p99Ms }) => p99Ms),
    maxMs: Math.max(...samples.map(({ maxMs }) => maxMs)),
    clientCores: median(({ client, seconds }) => client.cpuSeconds / seconds),
    clientCpuSeconds: median(({ client }) => client.cpuSeconds),
    serverCpuSeconds: median(({ server }) => server.cpuSeconds),
    serverCpuUsPerOp: median(({ server, operations }) => server.cpuSeconds * 1e6 / operations),
    peakBytes: Math.max(...samples.map(({ server }) => server.peakBytes)),
    writtenBytesPerOp: perOp.length === 0 ? null : medianOf(perOp),
    ...(fsyncs.length === 0 ? {} : { fsyncsPerOp: medianOf(fsyncs) }),
    othersCores: median(({ othersCores }) => othersCores),
  };
}
