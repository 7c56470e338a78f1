/**
 * The cluster's life as server-sent events, for one listener:
 *
 *     event: cluster   the whole status, about once a second
 *     event: change    one thing that happened, with an id to resume from
 *
 * A reader that falls behind gets the newest status only and every change; one that falls far behind
 * is let go, as is everybody after ten minutes, when the server stops, and when the reader is gone.
 * Browsers come back by themselves, with the id of the last change they had, and prove anew who they
 * are.
 */
import type { Env } from "../../kv/env.ts";
import { type ClusterWatch, HISTORY_MAX } from "./cluster_watch.ts";

const LIFE_MS = 10 * 60_000;
const HEARTBEAT_MS = 10_000;
const WAITING_MAX = HISTORY_MAX + 200;
const COME_BACK_AFTER_MS = 1_000;

export interface EventStreamOptions {
  readonly watch: ClusterWatch;
  readonly env: Pick<Env, "timer">;
  readonly lastEventId: string | null;
  /** The server is about to stop. */
  readonly stopping?: AbortSignal;
}

/** @throws {ApiError} 503 when too many listen */
export function eventStream(options: EventStreamOptions): ReadableStream<Uint8Array> {
  const { watch, env, lastEventId, stopping } = options;
  const encoder = new TextEncoder();
  const waiting: string[] = [`retry: ${COME_BACK_AFTER_MS}\n\n`];
  let newestStatus: string | null = null, ended = false;
  let wake = () => {}, cancelHeartbeat = () => {};

  const leave = watch.listen({
    status: (json) => {
      newestStatus = json;
      wake();
    },
    change: (change) => {
      waiting.push(`event: change\nid: ${change.id}\ndata: ${JSON.stringify(change)}\n\n`);
      if (waiting.length > WAITING_MAX) end();
      wake();
    },
  }, lastEventId);

  function end(): void {
    if (ended) return;
    ended = true;
    leave();
    cancelHeartbeat();
    cancelLife();
    stopping?.removeEventListener("abort", end);
    wake();
  }
  const cancelLife = env.timer(LIFE_MS, end);
  stopping?.addEventListener("abort", end);
  const beat = () => {
    // Tells proxies, and us, that the other end is still there.
    if (waiting.length === 0 && newestStatus === null) waiting.push(": still here\n\n");
    wake();
    cancelHeartbeat = env.timer(HEARTBEAT_MS, beat);
  };
  cancelHeartbeat = env.timer(HEARTBEAT_MS, beat);
  if (stopping?.aborted) end();

  return new ReadableStream({
    async pull(controller) {
      while (waiting.length === 0 && newestStatus === null && !ended) {
        await new Promise<void>((resolve) => wake = resolve);
      }
      const status = newestStatus === null ? "" : `event: cluster\ndata: ${newestStatus}\n\n`;
      const text = waiting.splice(0).join("") + status;
      newestStatus = null;
      if (text !== "") controller.enqueue(encoder.encode(text));
      if (ended) controller.close();
    },
    cancel: end,
  }, { highWaterMark: 0 });
}
