/**
 * What the processes of a cluster cost the system: memory and open descriptors, read from /proc, and
 * whether each is still the same process.
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import type { TestCluster } from "./harness.ts";

const SAMPLE_MS = 100;
export const MIB = 1024 * 1024;

export interface ProcessState {
  readonly name: string;
  readonly pid: number;
  readonly memoryBytes: number;
  readonly descriptorCount: number;
}

/** Every process of the cluster with its supervisor, which goes by the name `up`. */
export async function processStates(cluster: TestCluster): Promise<Map<string, ProcessState>> {
  const states = new Map<string, ProcessState>();
  const pids: [string, number][] = [["up", cluster.pid]];
  for (const { role, id, pid } of await cluster.processes()) {
    if (pid !== null) pids.push([`${role}/${id}`, pid]);
  }
  for (const [name, pid] of pids) {
    const memoryBytes = residentBytes(pid);
    if (memoryBytes === null) continue;
    states.set(name, { name, pid, memoryBytes, descriptorCount: descriptorCount(pid) });
  }
  return states;
}

/** Null when there is no such process any more. */
export function residentBytes(pid: number): number | null {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const kib = /^VmRSS:\s+(\d+) kB/m.exec(status)?.[1];
    return kib === undefined ? null : Number(kib) * 1024;
  } catch {
    return null;
  }
}

function descriptorCount(pid: number): number {
  try {
    return [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
  } catch {
    return 0; // It ended while we looked.
  }
}

/** Samples the memory of all processes while `work` runs, and gives each one's peak. */
export async function peakMemory(
  cluster: TestCluster,
  work: () => Promise<void>,
): Promise<Map<string, number>> {
  const pids = [...(await processStates(cluster)).values()];
  const peaks = new Map<string, number>();
  const sample = () => {
    for (const { name, pid } of pids) {
      peaks.set(name, Math.max(peaks.get(name) ?? 0, residentBytes(pid) ?? 0));
    }
  };
  sample();
  const timer = setInterval(sample, SAMPLE_MS);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  sample();
  return peaks;
}

export function megabytes(bytes: number): number {
  return Math.round(bytes / MIB);
}

export function describePeaks(peaks: ReadonlyMap<string, number>): string {
  return [...peaks].map(([name, bytes]) => `${name} ${megabytes(bytes)}`).join(", ") + " MiB";
}

/**
 * That nothing which happened since `before` ended a process, kept a descriptor, or made it hold on
 * to more than `grownBytesMax` of memory.
 */
export async function assertUnharmed(
  cluster: TestCluster,
  before: ReadonlyMap<string, ProcessState>,
  { grownBytesMax = 80 * MIB, descriptorsGrownMax = 12 } = {},
): Promise<void> {
  const now = await processStates(cluster);
  for (const { name, pid } of before.values()) {
    assert.equal(now.get(name)?.pid, pid, `${name} is not the same process any more`);
  }
  const grown = async () => {
    const states = await processStates(cluster);
    return [...before.values()].flatMap(({ name, memoryBytes, descriptorCount }) => {
      const state = states.get(name)!;
      const moreBytes = state.memoryBytes - memoryBytes;
      const moreDescriptors = state.descriptorCount - descriptorCount;
      if (moreBytes <= grownBytesMax && moreDescriptors <= descriptorsGrownMax) return [];
      return [`${name}: ${megabytes(moreBytes)} MiB and ${moreDescriptors} descriptors more`];
    });
  };
  // Connections take a moment to close, and memory comes back with the next collection.
  let found: string[] = [];
  await eventually(async () => (found = await grown()).length === 0, "memory to come back", {
    withinMs: 90_000,
    everyMs: 200,
  }).catch(() => assert.deepEqual(found, []));
}
