/** Rounds of a closed loop run by the bench itself, for what needs no client process of its own. */
import type { BenchRun } from "./bench_run.ts";
import { closedLoop } from "./load/closed_loop.ts";
import { CostMeter, MachineMeter } from "./measure.ts";
import { numberText, type Row } from "./report.ts";
import { medianOf, spreadOf } from "./statistics.ts";

export interface LoopCase {
  readonly system: string;
  readonly name: string;
  readonly outstanding: number;
  readonly operation: (loop: number) => Promise<unknown>;
  /** The servers'; none for work that the bench does itself. */
  readonly pids?: readonly number[];
  /** Per operation, where the rate is to be a volume. */
  readonly bytes?: number;
  readonly unit?: string;
}

export interface LoopSample {
  readonly rate: number;
  readonly operations: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly clientCpuSeconds: number;
  readonly clientCores: number;
  readonly serverCpuSeconds: number;
  readonly peakBytes: number;
  readonly writtenBytes: number | null;
  readonly othersCores: number;
}

export async function sampleLoop(run: BenchRun, loop: LoopCase): Promise<LoopSample> {
  const { operation, outstanding, bytes, pids = [] } = loop;
  await run.untilIdle();
  const client = new CostMeter([Deno.pid]), server = new CostMeter(pids);
  const machine = new MachineMeter();
  const result = await closedLoop(operation, { outstanding, seconds: run.options.seconds });
  const { latencies, seconds } = result, clientCpuSeconds = client.read().cpuSeconds;
  const { cpuSeconds: serverCpuSeconds, peakBytes, writtenBytes } = server.read();
  const rate = latencies.count / seconds * (bytes === undefined ? 1 : bytes / 1e6);
  run.say(`${loop.name}: ${loop.system} ${numberText(rate)} ${unitOf(loop)}`);
  const othersSeconds = machine.busySeconds - clientCpuSeconds - serverCpuSeconds;
  return {
    rate,
    operations: latencies.count,
    p50Ms: latencies.quantileMs(0.5),
    p99Ms: latencies.quantileMs(0.99),
    maxMs: latencies.maxMs,
    clientCpuSeconds,
    clientCores: clientCpuSeconds / seconds,
    serverCpuSeconds,
    peakBytes,
    writtenBytes,
    othersCores: Math.max(0, othersSeconds / seconds),
  };
}

export function loopRow(loop: LoopCase, samples: readonly LoopSample[]): Row {
  const median = (of: (sample: LoopSample) => number) => medianOf(samples.map(of));
  const written = samples.flatMap(({ writtenBytes, operations }) =>
    writtenBytes === null ? [] : [writtenBytes / operations]
  );
  return {
    system: loop.system,
    case: loop.name,
    rate: spreadOf(samples.map(({ rate }) => rate)),
    unit: unitOf(loop),
    p50Ms: median(({ p50Ms }) => p50Ms),
    p99Ms: median(({ p99Ms }) => p99Ms),
    maxMs: Math.max(...samples.map(({ maxMs }) => maxMs)),
    clientCores: median(({ clientCores }) => clientCores),
    clientCpuSeconds: median(({ clientCpuSeconds }) => clientCpuSeconds),
    ...((loop.pids ?? []).length === 0 ? {} : {
      serverCpuSeconds: median(({ serverCpuSeconds }) => serverCpuSeconds),
      serverCpuUsPerOp: median(({ serverCpuSeconds, operations }) =>
        serverCpuSeconds * 1e6 / operations
      ),
      peakBytes: Math.max(...samples.map(({ peakBytes }) => peakBytes)),
      writtenBytesPerOp: written.length === 0 ? null : medianOf(written),
    }),
    othersCores: median(({ othersCores }) => othersCores),
  };
}

const unitOf = ({ unit, bytes }: LoopCase): string =>
  unit ?? (bytes === undefined ? "op/s" : "MB/s");
