/**
 * What processes cost, from /proc: processor time, memory, bytes written; and how busy the machine is
 * with other things meanwhile. Linux only, as are the peers' packages.
 */

/** What a set of processes used between two looks. */
export interface Cost {
  /** In user and kernel mode, all threads of all processes. */
  readonly cpuSeconds: number;
  /** The largest resident memory of each process since `begin`, added up. */
  readonly peakBytes: number;
  /** Handed to the disk; null where the kernel does not tell. */
  readonly writtenBytes: number | null;
}

const TICKS_PER_SECOND = 100;

interface ProcessReading {
  readonly cpuSeconds: number;
  readonly writtenBytes: number | null;
}

/** Measures these processes from its making on. */
export class CostMeter {
  readonly #before = new Map<number, ProcessReading>();

  constructor(pids: readonly number[]) {
    for (const pid of pids) {
      resetPeak(pid);
      this.#before.set(pid, readProcess(pid));
    }
  }

  /** Of all of them together, up to now. A process that has ended meanwhile counts as nothing. */
  read(): Cost {
    return addCosts([...this.readEach().values()]);
  }

  readEach(): Map<number, Cost> {
    const costs = new Map<number, Cost>();
    for (const [pid, before] of this.#before) {
      try {
        costs.set(pid, costSince(pid, before));
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
    return costs;
  }
}

function costSince(pid: number, before: ProcessReading): Cost {
  const now = readProcess(pid);
  return {
    cpuSeconds: now.cpuSeconds - before.cpuSeconds,
    peakBytes: peakBytesOf(pid),
    writtenBytes: now.writtenBytes === null || before.writtenBytes === null
      ? null
      : now.writtenBytes - before.writtenBytes,
  };
}

export function addCosts(costs: readonly Cost[]): Cost {
  return costs.reduce((sum, cost) => ({
    cpuSeconds: sum.cpuSeconds + cost.cpuSeconds,
    peakBytes: sum.peakBytes + cost.peakBytes,
    writtenBytes: sum.writtenBytes === null || cost.writtenBytes === null
      ? null
      : sum.writtenBytes + cost.writtenBytes,
  }), { cpuSeconds: 0, peakBytes: 0, writtenBytes: 0 });
}

function readProcess(pid: number): ProcessReading {
  return {
    cpuSeconds: cpuSecondsFromStat(Deno.readTextFileSync(`/proc/${pid}/stat`)),
    writtenBytes: writtenBytesOf(pid),
  };
}

/** utime and stime, the 14th and 15th field; the name before them may hold blanks and brackets. */
export function cpuSecondsFromStat(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

function writtenBytesOf(pid: number): number | null {
  try {
    const io = Deno.readTextFileSync(`/proc/${pid}/io`);
    return Number(io.match(/^write_bytes: (\d+)$/m)?.[1]);
  } catch {
    return null; // Some containers hide it.
  }
}

/** Lets the kernel forget the peak so far, where it lets us. */
function resetPeak(pid: number): void {
  try {
    Deno.writeTextFileSync(`/proc/${pid}/clear_refs`, "5");
  } catch {
    // Then the peak is that of the process's whole life.
  }
}

function peakBytesOf(pid: number): number {
  return statusKib(pid, "VmHWM") * 1024;
}

/** Resident memory now. */
export function residentBytesOf(pid: number): number {
  return statusKib(pid, "VmRSS") * 1024;
}

function statusKib(pid: number, field: string): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(status.match(new RegExp(`^${field}:\\s+(\\d+) kB`, "m"))?.[1] ?? 0);
}

interface MachineReading {
  readonly busySeconds: number;
  readonly allSeconds: number;
}

/** How busy the machine's processors were, from its making on. */
export class MachineMeter {
  readonly #before = readMachine();

  /** Seconds of all processors together, spent on anything at all. */
  get busySeconds(): number {
    return readMachine().busySeconds - this.#before.busySeconds;
  }

  /** 0 to 1. */
  get idleShare(): number {
    const now = readMachine();
    const all = now.allSeconds - this.#before.allSeconds;
    return all <= 0 ? 1 : 1 - (now.busySeconds - this.#before.busySeconds) / all;
  }
}

function readMachine(): MachineReading {
  return machineFromStat(Deno.readTextFileSync("/proc/stat"));
}

export function machineFromStat(stat: string): MachineReading {
  const ticks = stat.split("\n")[0]!.trim().split(/\s+/).slice(1, 9).map(Number);
  const all = ticks.reduce((sum, count) => sum + count, 0);
  const idle = ticks[3]! + ticks[4]!;
  return { busySeconds: (all - idle) / TICKS_PER_SECOND, allSeconds: all / TICKS_PER_SECOND };
}

const IDLE_SHARE = 0.75;
const IDLE_LOOK_MS = 2_000;

/**
 * Waits until the machine has been three quarters idle for two seconds, but no longer than `maxMs`.
 *
 * @returns the idle share that was seen last
 */
export async function waitForIdleMachine(maxMs: number): Promise<number> {
  const untilMs = performance.now() + maxMs;
  for (;;) {
    const meter = new MachineMeter();
    await new Promise((resolve) => setTimeout(resolve, IDLE_LOOK_MS));
    const { idleShare } = meter;
    if (idleShare >= IDLE_SHARE || performance.now() >= untilMs) return idleShare;
  }
}
