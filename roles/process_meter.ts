/** What this process uses: processor, memory, and how late its event loop runs. */

import { processBeat } from "./beat.ts";

/** Ten seconds. */
const WINDOW_BEATS = 20;
/** Linux counts a process's time in hundredths of a second on every architecture we run on. */
const CLOCK_TICKS_PER_SECOND = 100;

export class ProcessMeter {
  readonly startedMs = Date.now() - performance.now();
  #delaysMs: number[] = [];
  #shares: { readonly atMs: number; readonly cpuSeconds: number }[] = [];

  readonly close: () => void = processBeat.listen((lateMs) => {
    this.#delaysMs.push(lateMs);
    if (this.#delaysMs.length > WINDOW_BEATS) this.#delaysMs.shift();
  });

  /** Time on the processor since the start, all threads; 0 where the system does not say. */
  cpuSeconds(): number {
    try {
      const stat = Deno.readTextFileSync("/proc/self/stat");
      // The second field is the program's name in brackets and may hold spaces.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND;
    } catch {
      return 0;
    }
  }

  memoryBytes(): number {
    return Deno.memoryUsage().rss;
  }

  /** Share of one core since this was last asked, or over the last seconds; 1 is a whole core. */
  cpuShare(): number {
    const now = { atMs: performance.now(), cpuSeconds: this.cpuSeconds() };
    this.#shares.push(now);
    // Asked often, it averages over a few seconds; the hundredths would jump otherwise.
    while (this.#shares.length > 2 && now.atMs - this.#shares[1]!.atMs > 3_000) {
      this.#shares.shift();
    }
    if (this.#shares.length > 64) this.#shares.shift();
    const first = this.#shares[0]!;
    const seconds = (now.atMs - first.atMs) / 1000;
    return seconds <= 0 ? 0 : (now.cpuSeconds - first.cpuSeconds) / seconds;
  }

  /** The longest that the event loop was late in the last ten seconds. */
  loopDelayMs(): number {
    return Math.max(0, ...this.#delaysMs);
  }
}
