/**
 * One timer for the whole process that lets every open connection check whether its other end is
 * still there. A host that lost power closes no connection; only silence tells. The connections' spare
 * buffers are looked at as well.
 */
import { payloadPool } from "./payload_pool.ts";

export interface Watched {
  /** Called about once a second. `lateMs`: how much longer than that it took this time. */
  checkLiveness(nowMs: number, lateMs: number): void;
}

const TICK_MS = 1_000;
const watched = new Set<Watched>();
let timer: ReturnType<typeof setInterval> | null = null;
let lastTickMs = 0;

export function watchLiveness(connection: Watched): void {
  watched.add(connection);
  if (timer !== null) return;
  lastTickMs = performance.now();
  timer = setInterval(tick, TICK_MS);
  Deno.unrefTimer(timer);
}

export function unwatchLiveness(connection: Watched): void {
  watched.delete(connection);
  if (watched.size > 0 || timer === null) return;
  clearInterval(timer);
  timer = null;
}

function tick(): void {
  const nowMs = performance.now();
  const lateMs = Math.max(0, nowMs - lastTickMs - TICK_MS);
  lastTickMs = nowMs;
  for (const connection of [...watched]) connection.checkLiveness(nowMs, lateMs);
  payloadPool.tick();
}
