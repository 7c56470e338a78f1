/**
 * What the default cluster asks of a machine: memory of all sixteen processes, and time to be ready.
 *
 * Resident memory is summed per process, so the program's own pages, which they share, count sixteen
 * times; what the machine really gives is about half. The time is generous, for busy test machines.
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { processesOf, startCluster } from "./harness.ts";

const RESIDENT_MIB_MAX = 1.2 * 1024;
/** Three to six on two free cores. */
const READY_SECONDS_MAX = 90;

Deno.test("the default cluster is ready soon and stays within 1.2 GiB of resident memory", async () => {
  await using cluster = await startCluster({
    config: "cluster.toml",
    env: {
      DENO_USR2_MEMORY_TRIM: "1",
      DENO_V8_FLAGS: "--max-semi-space-size=2,--single-threaded-gc",
    },
  });
  const seconds = cluster.events.at(-1)!.seconds as number;
  const pids = processesOf(cluster.dir);
  assert.equal(pids.length, 16);
  // Nodes give back the garbage of their start a few seconds after they are ready. Later, and for some
  // seconds, all of them write their first checkpoint, which takes a worker of 12 MiB each.
  let residentMib = Infinity;
  await eventually(
    () => {
      residentMib = sum(pids.map((pid) => kibOf(pid, "Rss"))) / 1024;
      return residentMib <= RESIDENT_MIB_MAX;
    },
    "a small footprint",
    { withinMs: 30_000, everyMs: 1000 },
  ).catch(() => {});
  const sharedFairlyMib = sum(pids.map((pid) => kibOf(pid, "Pss"))) / 1024;
  const figures = `ready after ${seconds} s, ${residentMib.toFixed(0)} MiB resident, ` +
    `${sharedFairlyMib.toFixed(0)} MiB with shared pages counted once`;
  console.log(figures);
  assert.ok(residentMib <= RESIDENT_MIB_MAX, figures);
  assert.ok(seconds <= READY_SECONDS_MAX, figures);
});

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);

function kibOf(pid: number, field: "Rss" | "Pss"): number {
  const text = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
  return Number(text.match(new RegExp(`^${field}:\\s+(\\d+) kB`, "m"))?.[1] ?? 0);
}
