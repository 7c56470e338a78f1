/** The benches on rows: PennCloud, etcd and Redis under one and the same load. */
import type { Bench, BenchRun } from "../bench_run.ts";
import { checkClient, compare, fillKeys, peersOf, withContestants } from "../compare.ts";
import type { KvLoad, KvWorkload } from "../load/kv_workload.ts";
import type { BenchResult, PeerRatio, Row } from "../report.ts";
import { PennCloud } from "../systems/penncloud.ts";

const KEYS = 10_000;
/** Large values are kept to so much altogether, so that no run depends on what fits in memory. */
const FILL_BYTES = 128 * 1024 ** 2;
/** Below, two client processes would only add their own switching. */
const CHECKED_OUTSTANDING = 16;

const ABOUT: Readonly<Record<KvWorkload, string>> = {
  put: "one value written over another",
  get: "one value read, linearizably where the system can",
  cput: "one value written if its key is as it was left",
  mixed95: "95 % get and 5 % put, zipfian keys",
  mixed50: "half get and half put, zipfian keys",
  scan: "a hundred keys in order with their values",
};

export function kvBench(workload: KvWorkload): Bench {
  return { name: workload, about: ABOUT[workload], run: (run) => runKv(run, workload) };
}

async function runKv(run: BenchRun, workload: KvWorkload): Promise<BenchResult> {
  const { valueBytes: sizes, outstanding, checkClient: check } = run.options;
  const rows: Row[] = [], peers: PeerRatio[] = [];
  // A store anew for each size: values of another would be read along, and compacted, and counted.
  for (const valueBytes of sizes) {
    const systems = [new PennCloud(), ...await peersOf(run, workload)];
    await withContestants(run, systems, async (contestants) => {
      const keyCount = keyCountOf(run, valueBytes);
      await fillKeys(run, contestants, { keyCount, valueBytes });
      const load = (count: number): KvLoad => ({
        workload,
        outstanding: count,
        valueBytes,
        keyCount,
        spread: run.options.spread ?? "all",
        seed: count,
      });
      for (const count of outstanding) {
        const compared = await compare(run, contestants, load(count));
        rows.push(...compared.rows);
        peers.push(...compared.peers);
      }
      const most = Math.max(...outstanding);
      if (check && most >= CHECKED_OUTSTANDING) await checkClient(run, contestants, load(most));
    });
  }
  return { rows, peers, notes: run.notes };
}

export function keyCountOf(run: BenchRun, valueBytes: number): number {
  return run.options.keyCount ?? Math.max(8, Math.min(KEYS, Math.floor(FILL_BYTES / valueBytes)));
}
