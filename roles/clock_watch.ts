/**
 * Notices that this machine slept. A lease is counted on the monotonic clock, which stands still while
 * a machine is suspended: its neighbours' clocks went on, and somebody else may be primary by now. The
 * kernel's uptime counts the time asleep, so the two part by as much.
 */

/** More than the ticks of the uptime and a busy machine account for; far less than a lease. */
const APART_MS_MAX = 200;

export class ClockWatch {
  readonly #uptimeMs: () => number | null;
  readonly #monotonicMs: () => number;
  #apartMs: number | null = null;

  /** @param uptimeMs null where the system does not tell */
  constructor(uptimeMs: () => number | null, monotonicMs: () => number) {
    this.#uptimeMs = uptimeMs;
    this.#monotonicMs = monotonicMs;
    this.sleptMs();
  }

  /** How long the machine slept since the last call, in milliseconds; 0 if it did not. */
  sleptMs(): number {
    const beforeMs = this.#monotonicMs(), uptimeMs = this.#uptimeMs();
    if (uptimeMs === null) return 0;
    const apartMs = uptimeMs - beforeMs;
    const wasMs = this.#apartMs ?? apartMs;
    this.#apartMs = apartMs;
    return Math.abs(apartMs - wasMs) > APART_MS_MAX ? Math.abs(apartMs - wasMs) : 0;
  }
}

/** Of Linux; null elsewhere. */
export function systemUptimeMs(): number | null {
  try {
    return Number(Deno.readTextFileSync("/proc/uptime").split(" ")[0]) * 1000;
  } catch {
    return null;
  }
}
