/**
 * The budget of one put: what each process of one replica group spends on it.
 *
 * Unless all groups are asked for, all keys lie in one, so that one backend is the primary of every put
 * and the others are its secondaries. Rows are processes; `--profile` also tells what they did (cpu_profile.ts).
 */
import { metricOf, primaryOf } from "../../tests/cluster/cluster_calls.ts";
import type { Bench, BenchRun } from "../bench_run.ts";
import { caseText } from "../compare.ts";
import { readProfile, selfTimes, uptimeUs } from "../cpu_profile.ts";
import { keyName, type KeySpread } from "../load/key_choice.ts";
import type { KvLoad } from "../load/kv_workload.ts";
import { LoadFleet } from "../load/load_fleet.ts";
import { type Cost, CostMeter } from "../measure.ts";
import { type BenchResult, numberText, type Row } from "../report.ts";
import { medianOf, spreadOf } from "../statistics.ts";
import { PennCloud, type RunningPennCloud } from "../systems/penncloud.ts";
import { keyCountOf } from "./kv.ts";

const WARM_UP_SECONDS = 2;
const TOP = 20;

export const budget: Bench = {
  name: "budget",
  about: "what one put costs each process of a replica group; --profile: in which functions",
  run: measureBudget,
};

/** A process of the cluster, and what it is in this bench. */
interface Part {
  readonly role: string;
  readonly pid: number;
  /** Null where it has no log. */
  readonly node: string | null;
}

interface PartSample {
  readonly cost: Cost;
  readonly fsyncs: number | null;
  readonly logBytes: number | null;
}

interface Window {
  readonly fromUs: number;
  readonly untilUs: number;
  readonly what: string;
}

async function measureBudget(run: BenchRun): Promise<BenchResult> {
  const { outstanding, valueBytes: sizes, profile, spread = "one" } = run.options;
  const profileDir = await run.folder(), windows: Window[] = [];
  const env = { PENNCLOUD_DENO_FLAGS: `--cpu-prof --cpu-prof-dir=${profileDir}` };
  const system = await new PennCloud(profile ? { env } : {}).start(await run.folder());
  const rows: Row[] = [];
  let parts: Part[] = [];
  try {
    const fleet = await LoadFleet.start(system.target, 1);
    try {
      parts = await partsOf(system, fleet, spread);
      for (const valueBytes of sizes) {
        const keyCount = keyCountOf(run, valueBytes);
        const range = { from: 0, until: keyCount, spread, valueBytes };
        await fleet.fill({ ...range, outstanding: 16 });
        for (const count of outstanding) {
          const load: KvLoad = {
            workload: "put",
            outstanding: count,
            valueBytes,
            keyCount,
            spread,
            seed: count,
          };
          const fromUs = uptimeUs();
          rows.push(...await measureCase(run, { system, fleet, parts, load }));
          windows.push({ fromUs, untilUs: uptimeUs(), what: caseText(load) });
        }
      }
    } finally {
      await fleet.stop();
    }
  } finally {
    await system.stop();
  }
  if (profile) await noteProfiles(run, { parts, windows, profileDir, rows });
  return { rows, peers: [], notes: run.notes };
}

async function partsOf(
  { cluster }: RunningPennCloud,
  fleet: LoadFleet,
  spread: KeySpread,
): Promise<Part[]> {
  const primary = spread === "all" ? null : await primaryOf(cluster, keyName(0, "one"));
  const parts: Part[] = [{ role: "client", pid: fleet.pids[0]!, node: null }];
  const backends = cluster.config.node.filter(({ role }) => role === "backend");
  for (const { id } of backends) {
    const node = `backend/${id}`;
    const role = primary === null ? node : node === primary ? "primary" : `secondary ${node}`;
    parts.push({ role, pid: await cluster.pidOf(node), node });
  }
  parts.push({ role: "coordinator", pid: await cluster.pidOf("coordinator/0"), node: null });
  return parts.sort((a, b) => rank(a) - rank(b));
}

const ORDER = ["client", "primary", "secondary", "backend", "coordinator"];
const rank = ({ role }: Part): number => ORDER.findIndex((name) => role.startsWith(name));

async function measureCase(run: BenchRun, { system, fleet, parts, load }: {
  system: RunningPennCloud;
  fleet: LoadFleet;
  parts: readonly Part[];
  load: KvLoad;
}): Promise<Row[]> {
  const { seconds, rounds } = run.options;
  await fleet.run(load, Math.min(WARM_UP_SECONDS, seconds));
  const samples: { parts: PartSample[]; operations: number; rate: number; p50Ms: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    await run.untilIdle();
    const before = await countersOf(system, parts);
    const meter = new CostMeter(parts.map(({ pid }) => pid));
    const { latencies, operationsPerSecond } = await fleet.run(load, seconds);
    const costs = meter.readEach(), after = await countersOf(system, parts);
    run.say(`${caseText(load)}, round ${round + 1}: ${numberText(operationsPerSecond)}/s`);
    samples.push({
      operations: latencies.count,
      rate: operationsPerSecond,
      p50Ms: latencies.quantileMs(0.5),
      parts: parts.map(({ pid }, at) => ({
        cost: costs.get(pid)!,
        fsyncs: difference(after[at]!.fsyncs, before[at]!.fsyncs),
        logBytes: difference(after[at]!.logBytes, before[at]!.logBytes),
      })),
    });
  }
  const rate = spreadOf(samples.map((sample) => sample.rate));
  return parts.map(({ role }, at) => {
    const perOp = (of: (part: PartSample) => number | null) =>
      medianOf(samples.map(({ parts, operations }) => (of(parts[at]!) ?? 0) / operations));
    return {
      system: role,
      case: caseText(load),
      rate,
      unit: "op/s",
      p50Ms: medianOf(samples.map(({ p50Ms }) => p50Ms)),
      more: {
        "CPU µs/op": perOp(({ cost }) => cost.cpuSeconds * 1e6),
        "fsyncs/op": perOp(({ fsyncs }) => fsyncs),
        "log B/op": perOp(({ logBytes }) => logBytes),
        "written B/op": perOp(({ cost }) => cost.writtenBytes),
      },
    };
  });
}

const difference = (after: number | null, before: number | null): number | null =>
  after === null || before === null ? null : after - before;

async function countersOf({ cluster }: RunningPennCloud, parts: readonly Part[]) {
  return await Promise.all(parts.map(async ({ node }) => ({
    fsyncs: node === null ? null : await metricOf(cluster, node, "penncloud_log_fsyncs_total"),
    logBytes: node === null
      ? null
      : await metricOf(cluster, node, "penncloud_log_written_bytes_total"),
  })));
}

async function noteProfiles(run: BenchRun, { parts, windows, profileDir, rows }: {
  parts: readonly Part[];
  windows: readonly Window[];
  profileDir: string;
  rows: readonly Row[];
}): Promise<void> {
  for (const { role, pid, node } of parts) {
    const profile = node === null ? null : await readProfile(profileDir, pid);
    if (profile === null) continue;
    for (const window of windows) {
      const row = rows.find((each) => each.system === role && each.case === window.what)!;
      const us = row.more!["CPU µs/op"]!;
      run.note(`${role}, ${window.what}: ${numberText(us)} µs of processor time an operation`);
      for (const by of ["file", "function"] as const) {
        run.note(`  time in JavaScript by ${by}:`);
        for (const { name, share } of selfTimes(profile, { ...window, by }).slice(0, TOP)) {
          run.note(`  ${(share * 100).toFixed(1).padStart(5)} %  ${name}`);
        }
      }
    }
  }
}
