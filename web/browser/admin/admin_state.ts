/**
 * The cluster as the console shows it, kept up to date without anybody asking.
 *
 * News come as server-sent events; while those fail, the status is asked for every two seconds and
 * the changes are worked out here. Either way the console goes on by itself when the other end is
 * back, on this frontend or, by way of ui/api.ts, on another. A hidden tab listens to nothing.
 */
import { computed, signal } from "@preact/signals";
import type { ClusterStatus } from "../../../proto/cluster_status.ts";
import { clusterChanges, type NumberedChange } from "../../admin/cluster_changes.ts";
import { ApiFailure } from "../../ui/api.ts";
import { fetchStatus } from "./admin_api.ts";
import { diagnose, type Diagnosis } from "./diagnosis.ts";

/** live: the stream. polling: by asking. away: neither works. */
export type Feed = "connecting" | "live" | "polling" | "away";

/** What charts are drawn from: one moment of the cluster's life. */
export interface Sample {
  readonly atMs: number;
  readonly pages: number;
  readonly reads: number;
  readonly writes: number;
  readonly nodes: ReadonlyMap<
    number,
    { readonly rate: number; readonly cpu: number; readonly memory: number }
  >;
}

const CHANGES_MAX = 500;
/** Five minutes, at one a second. */
const SAMPLES_MAX = 300;
const QUIET_MS_MAX = 4_000;
const POLL_EVERY_MS = 2_000;
const REOPEN_EVERY_MS = 5_000;
const SAME_CHANGE_MS = 10_000;

export const status = signal<ClusterStatus | null>(null);
export const changes = signal<readonly NumberedChange[]>([]);
export const samples = signal<readonly Sample[]>([]);
export const feed = signal<Feed>("connecting");
/** Why nothing could be had at all. */
export const failure = signal<string | null>(null);

export const diagnosis = computed<Diagnosis | null>(() =>
  status.value === null ? null : diagnose(status.value)
);

let source: EventSource | null = null;
let lastNewsMs = 0, openedMs = 0, polledMs = 0, polling = false, localCount = 0;

export function startFeed(): void {
  lastNewsMs = performance.now();
  open();
  setInterval(watch, 500);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else {
      lastNewsMs = performance.now();
      open();
    }
  });
}

/** Asks at once, because something was just set going. */
export async function refresh(): Promise<void> {
  try {
    take(await fetchStatus());
  } catch { /* The feed says so soon enough. */ }
}

function open(): void {
  close();
  openedMs = performance.now();
  source = new EventSource("/api/v1/admin/events");
  source.addEventListener("cluster", (event) => {
    lastNewsMs = performance.now();
    feed.value = "live";
    take(JSON.parse(event.data) as ClusterStatus, { stream: true });
  });
  source.addEventListener("change", (event) => {
    addChanges([JSON.parse(event.data) as NumberedChange]);
  });
}

function close(): void {
  source?.close();
  source = null;
}

/** Twice a second: is there still news, and if not, can it be had otherwise? */
function watch(): void {
  const nowMs = performance.now();
  if (document.hidden || nowMs - lastNewsMs < QUIET_MS_MAX) return;
  if (
    (source === null || source.readyState === EventSource.CLOSED) &&
    nowMs - openedMs > REOPEN_EVERY_MS
  ) open();
  if (!polling && nowMs - polledMs > POLL_EVERY_MS) void poll();
}

async function poll(): Promise<void> {
  polling = true;
  polledMs = performance.now();
  try {
    const answer = await fetchStatus();
    // The stream may have come back meanwhile, and has the changes with it.
    if (performance.now() - lastNewsMs >= QUIET_MS_MAX) {
      take(answer);
      feed.value = "polling";
    }
  } catch (error) {
    feed.value = "away";
    failure.value = error instanceof ApiFailure ? error.message : String(error);
  }
  polling = false;
}

function take(next: ClusterStatus, options: { stream?: boolean } = {}): void {
  const before = status.value;
  failure.value = null;
  if (before !== null && !options.stream) {
    addChanges(
      clusterChanges(before, next).map((change) => ({
        ...change,
        id: `here.${++localCount}`,
      })),
    );
  }
  status.value = next;
  if (!next.stale) samples.value = [...samples.value, sampleOf(next)].slice(-SAMPLES_MAX);
}

/** What was worked out here comes again from the stream, under another name. */
function addChanges(added: readonly NumberedChange[]): void {
  const known = changes.value;
  const fresh = added.filter((change) =>
    !known.some((other) =>
      other.id === change.id ||
      (other.text === change.text && Math.abs(other.atMs - change.atMs) < SAME_CHANGE_MS)
    )
  );
  if (fresh.length === 0) return;
  changes.value = [...known, ...fresh].sort((a, b) => a.atMs - b.atMs).slice(-CHANGES_MAX);
}

function sampleOf(cluster: ClusterStatus): Sample {
  const sum = (numbers: readonly number[]) => numbers.reduce((total, one) => total + one, 0);
  return {
    atMs: cluster.generatedMs,
    pages: sum(
      cluster.nodes.filter((node) => node.role === "frontend").map((node) =>
        node.requestsPerSecond
      ),
    ),
    reads: sum(cluster.tablets.map((tablet) => tablet.readsPerSecond)),
    writes: sum(cluster.tablets.map((tablet) => tablet.writesPerSecond)),
    nodes: new Map(cluster.nodes.map((node) => [node.port, {
      rate: node.requestsPerSecond,
      cpu: node.cpu,
      memory: node.memoryBytes,
    }])),
  };
}
