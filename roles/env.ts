/** The real {@link Env}: this machine's clocks, randomness, timers and log. */
import { DiskFailedError } from "../kv/disk/disk.ts";
import type { Env } from "../kv/env.ts";
import { processBeat } from "./beat.ts";
import { type Log, openLog } from "./log.ts";

/** The status with which a process ends that found its own invariant broken (EX_SOFTWARE). */
export const FATAL_EXIT_STATUS = 70;

/** The same when its disk failed (EX_TEMPFAIL): the next process begins the store anew. */
export const DISK_FAILED_EXIT_STATUS = 75;

/** What setTimeout can count, 24.8 days; it takes more for 1 ms. */
const TIMER_MS_MAX = 2 ** 31 - 1;
const SECRET_BYTES_AT_ONCE = 65_536;

export interface RealEnvOptions {
  /** Named in every log line: `backend/4`. */
  readonly node: string;
  readonly log?: Log;
}

export function realEnv(options: RealEnvOptions): Env {
  const log = options.log ?? openLog({ node: options.node });
  const timer = (ms: number, run: () => void): () => void => {
    const id = setTimeout(run, Math.min(Math.max(0, ms), TIMER_MS_MAX));
    return () => clearTimeout(id);
  };
  return {
    monotonicMs: () => performance.now(),
    wallMs: () => Date.now(),
    random: () => Math.random(),
    secretBytes(count) {
      const bytes = new Uint8Array(count);
      for (let at = 0; at < count; at += SECRET_BYTES_AT_ONCE) {
        crypto.getRandomValues(bytes.subarray(at, at + SECRET_BYTES_AT_ONCE));
      }
      return bytes;
    },
    sleep(ms, signal) {
      if (signal?.aborted) return Promise.reject(signal.reason);
      return new Promise((resolve, reject) => {
        const cancel = timer(ms, () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        });
        const onAbort = () => {
          cancel();
          reject(signal!.reason);
        };
        signal?.addEventListener("abort", onAbort, { once: true });
      });
    },
    timer,
    onBeat: (run) => processBeat.listen(run),
    log,
    fatal(error) {
      const stack = error instanceof Error ? error.stack ?? error.message : String(error);
      log("error", "fatal", { error: stack });
      Deno.exit(error instanceof DiskFailedError ? DISK_FAILED_EXIT_STATUS : FATAL_EXIT_STATUS);
    },
  };
}
