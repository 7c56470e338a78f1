/**
 * A closed loop: `outstanding` requests are always under way, each followed by the next when it is
 * answered. What it measures is the time from asking to the answer, at the speed the system allows.
 */
import { Histogram } from "./histogram.ts";

export interface LoopResult {
  readonly latencies: Histogram;
  /** From the first request to the last answer. */
  readonly seconds: number;
}

/**
 * @param operation told which of the `outstanding` loops asks; a rejection ends the whole run
 */
export async function closedLoop(
  operation: (loop: number) => Promise<unknown>,
  { outstanding, seconds }: { outstanding: number; seconds: number },
): Promise<LoopResult> {
  const latencies = new Histogram();
  const startedMs = performance.now(), untilMs = startedMs + seconds * 1000;
  const loop = async (index: number) => {
    for (let nowMs = performance.now(); nowMs < untilMs;) {
      await operation(index);
      const thenMs = nowMs;
      nowMs = performance.now();
      latencies.record(nowMs - thenMs);
    }
  };
  await Promise.all(Array.from({ length: outstanding }, (_, index) => loop(index)));
  return { latencies, seconds: (performance.now() - startedMs) / 1000 };
}
