/**
 * Lets every open connection of this process check, about once a second, whether its other end is
 * still there. A host that lost power closes no connection; only silence tells. The connections' spare
 * buffers are looked at as well.
 */
import { BEAT_MS } from "../../kv/env.ts";
import { processBeat } from "../beat.ts";
import { payloadPool } from "./payload_pool.ts";

export interface Watched {
  /** Called about once a second. `lateMs`: how much longer than that it took this time. */
  checkLiveness(nowMs: number, lateMs: number): void;
}

const TICK_MS = 2 * BEAT_MS;
const watched = new Set<Watched>();
let endWatching: (() => void) | null = null;
let lastTickMs = 0;

export function watchLiveness(connection: Watched): void {
  watched.add(connection);
  if (endWatching !== null) return;
  lastTickMs = performance.now();
  endWatching = processBeat.listen(onBeat);
}

export function unwatchLiveness(connection: Watched): void {
  watched.delete(connection);
  if (watched.size > 0 || endWatching === null) return;
  endWatching();
  endWatching = null;
}

function onBeat(): void {
  const nowMs = performance.now();
  if (nowMs - lastTickMs < TICK_MS - BEAT_MS / 2) return;
  const lateMs = Math.max(0, nowMs - lastTickMs - TICK_MS);
  lastTickMs = nowMs;
  for (const connection of [...watched]) connection.checkLiveness(nowMs, lateMs);
  payloadPool.tick();
}
