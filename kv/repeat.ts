/**
 * Doing something over and over, at beats where that is often enough: an idle process then wakes once for
 * all that it repeats.
 */
import { BEAT_MS, type Env } from "./env.ts";

/** Beats fall on the multiples of {@link BEAT_MS} on the wall clock. */
export const nextBeatMs = (wallMs: number): number => (Math.floor(wallMs / BEAT_MS) + 1) * BEAT_MS;

/** How long to sleep until the beat that is nearest to `ms` from now, and not at once. */
export function untilBeatMs({ wallMs }: Pick<Env, "wallMs">, ms: number): number {
  const nowMs = wallMs();
  return nextBeatMs(Math.max(nowMs, nowMs + ms - BEAT_MS / 2)) - nowMs;
}

/**
 * Calls `run` about every `ms` until the returned function is called: at the beat nearest to when it is due,
 * or, where beats are too rare for that, by a timer of its own.
 */
export function repeat(
  env: Pick<Env, "onBeat" | "timer" | "monotonicMs">,
  ms: number,
  run: () => void,
): () => void {
  if (ms < BEAT_MS) return repeatByTimer(env, ms, run);
  let lastMs = env.monotonicMs();
  return env.onBeat(() => {
    const nowMs = env.monotonicMs();
    if (nowMs - lastMs < ms - BEAT_MS / 2) return;
    lastMs = nowMs;
    run();
  });
}

function repeatByTimer(env: Pick<Env, "timer">, ms: number, run: () => void): () => void {
  let isOver = false, cancel = () => {};
  const schedule = () => {
    cancel = env.timer(ms, () => {
      run();
      if (!isOver) schedule();
    });
  };
  schedule();
  return () => {
    isOver = true;
    cancel();
  };
}
