/**
 * Faults of disks: full ones, slow ones, syncs that fail, and bits that flip.
 *
 * Syncs are slowed and failed from outside, by strace, in the running process. A full disk is a tmpfs
 * that shrinks under the backend that lives on it.
 */
import { join } from "node:path";
import { whyNoMounts } from "../cluster/small_disks.ts";
import { eventually } from "../eventually.ts";
import type { SeededRandom } from "../sim/seeded_random.ts";
import { type FaultCluster, sendSignal } from "./fault_cluster.ts";
import { drawMs, drawPrimary, type Fault, hit, type Nemesis } from "./nemesis.ts";

const MIB = 1024 * 1024;
/** Below this much free space a backend takes no new writes. */
const SOFT_LIMIT_MIB = 64;

export const diskFull: Nemesis = {
  name: "disk-full",
  about: "the disk of a primary, or of everybody, is full for 2 to 8 s",
  combines: false,
  needsDisks: true,
  whyNot: whyNoMounts,
  plan: async (cluster, random) => {
    const everybody = random.chance(0.5);
    const victims = everybody ? cluster.backends : [await drawPrimary(cluster, random)];
    const holdMs = drawMs(random, 2_000, 8_000);
    // Sometimes so full that not one write fits, sometimes just below what is refused in words.
    const leaveMib = random.chance(0.5) ? 0 : random.integer(SOFT_LIMIT_MIB);
    const disks = victims.map((name) => cluster.disks.get(name)!);
    return {
      what: `${everybody ? "everybody's" : `${victims[0]}'s`} disk full but for ${leaveMib} MiB ` +
        `for ${holdMs} ms`,
      victims,
      gaps: everybody
        ? { primary: "all disks full: until writes resume", sinceEnd: true }
        : { primary: "primary's disk full" },
      holdMs,
      begin: async () => {
        await Promise.all(disks.map((disk) => disk.fill(leaveMib * MIB)));
      },
      end: async () => {
        await Promise.all(disks.map((disk) => disk.makeRoom()));
      },
    };
  },
};

export const slowSync: Nemesis = {
  name: "slow-fsync",
  about: "every fsync of a primary takes 100 to 800 ms longer for 2 to 8 s (needs strace)",
  combines: true,
  whyNot: whyNoStrace,
  plan: async (cluster, random) => {
    const victim = await drawPrimary(cluster, random);
    const delayMs = drawMs(random, 100, 800), holdMs = drawMs(random, 2_000, 8_000);
    return await syncFault(cluster, {
      what: `syncs of ${victim} ${delayMs} ms slower for ${holdMs} ms`,
      victims: [victim],
      gaps: hit("with slow syncs"),
      holdMs,
    }, `delay_enter=${delayMs * 1_000}`);
  },
};

/** The process must end: after a failed sync nobody knows what the disk holds. */
export const failedSync: Nemesis = {
  name: "failed-fsync",
  about: "an fsync of a primary fails with EIO (needs strace)",
  combines: true,
  whyNot: whyNoStrace,
  plan: async (cluster, random) => {
    const victim = await drawPrimary(cluster, random);
    const fault = await syncFault(cluster, {
      what: `a sync of ${victim} fails`,
      victims: [victim],
      gaps: hit("ended by a failed sync"),
      holdMs: 1_500,
    }, "error=EIO:when=1");
    return fault;
  },
};

async function syncFault(
  cluster: FaultCluster,
  fault: Omit<Fault, "begin" | "end">,
  injection: string,
): Promise<Fault> {
  const pid = await cluster.pidOf(fault.victims[0]!);
  let strace: Deno.ChildProcess | null = null;
  return {
    ...fault,
    begin: async () => {
      strace = await attachStrace(pid, injection);
    },
    end: async () => {
      if (strace === null) return;
      // It lets go of the process and ends; if that has ended, so has strace.
      sendSignal(strace.pid, "SIGINT");
      await strace.status;
    },
  };
}

async function attachStrace(pid: number, injection: string): Promise<Deno.ChildProcess> {
  const calls = "fsync,fdatasync";
  const strace = new Deno.Command("strace", {
    args: [
      "-f",
      "-q",
      "-o",
      "/dev/null",
      "-e",
      `trace=${calls}`,
      "-e",
      `inject=${calls}:${injection}`,
      "-p",
      String(pid),
    ],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  let ended = false;
  void strace.status.then(() => ended = true);
  await eventually(() => ended || isTraced(pid), "strace to take hold");
  return strace;
}

function isTraced(pid: number): boolean {
  try {
    return !/^TracerPid:\s+0$/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch {
    return true; // It has ended, which is as much as a failed sync could do.
  }
}

/** Tries it on a process of our own. */
async function whyNoStrace(): Promise<string | null> {
  const sleeper = new Deno.Command("sleep", { args: ["60"], stdout: "null" }).spawn();
  try {
    const strace = await attachStrace(sleeper.pid, "delay_enter=1");
    sendSignal(strace.pid, "SIGINT");
    const { code, signal } = await strace.status;
    return code === 0 || signal !== null ? null : `strace may not attach here (status ${code})`;
  } catch (error) {
    return `strace cannot be run: ${(error as Error).message}`;
  } finally {
    sleeper.kill("SIGKILL");
    await sleeper.status;
  }
}

/** Which of a backend's files, by folder; "" are those beside the folders. */
const KINDS = ["wal", "groups", "blobs", ""] as const;

/**
 * One bit of one file. A replica that finds it must neither answer from it nor pass it on; what it
 * cannot vouch for it gets from its peers, who are both well.
 */
export function flip(options: { readonly running: boolean }): Nemesis {
  const { running } = options;
  return {
    name: running ? "flip-running" : "flip",
    about: running
      ? "a bit flips in a file of a running replica, which then crashes"
      : "a bit flips in a file of a stopped replica",
    combines: false,
    plan: async (cluster, random) => {
      const victim = await drawPrimary(cluster, random);
      const kind = random.pick(KINDS), dir = join(cluster.dataDirOf(victim), kind);
      const pid = await cluster.pidOf(victim);
      return {
        what: `a bit flips in ${kind === "" ? "a file" : `${kind}/`} of ${victim}, ` +
          `${running ? "which runs" : "which is down"}`,
        victims: [victim],
        gaps: hit(running ? "with a flipped bit, crashed" : "down, with a flipped bit"),
        holdMs: 500,
        begin: async () => {
          if (!running) await cluster.killNode(victim);
          await flipBit(dir, random);
        },
        end: async () => {
          if (!running) return await cluster.startNode(victim);
          cluster.sigkill(pid);
          await cluster.waitGone(victim, pid);
        },
      };
    },
  };
}

/** Flips one bit in one of the files right in `dir`; nothing happens when there is none. */
async function flipBit(dir: string, random: SeededRandom): Promise<void> {
  const files: string[] = [];
  for await (const entry of filesBelow(dir)) files.push(entry);
  if (files.length === 0) return;
  const path = random.pick(files.sort());
  const { size } = await Deno.stat(path);
  if (size === 0) return;
  using file = await Deno.open(path, { read: true, write: true });
  const at = random.integer(size), byte = new Uint8Array(1);
  await file.seek(at, Deno.SeekMode.Start);
  await file.read(byte);
  byte[0]! ^= 1 << random.integer(8);
  await file.seek(at, Deno.SeekMode.Start);
  await file.write(byte);
}

/** The files of a folder and of the folders within, but for the latter in a backend's own folder. */
async function* filesBelow(dir: string): AsyncGenerator<string> {
  const isOwnFolder = /backend-\d+\/?$/.test(dir);
  for await (const entry of Deno.readDir(dir)) {
    const path = join(dir, entry.name);
    if (entry.isFile && entry.name !== "LOCK") yield path;
    else if (entry.isDirectory && !isOwnFolder) yield* filesBelow(path);
  }
}
