/** The console's calls to `/api/v1/admin`. */
import type { ClusterStatus } from "../../../proto/cluster_status.ts";
import { api, ApiFailure, failureOf } from "../../ui/api.ts";
import type { Order } from "./node_facts.ts";

export interface DataCell {
  readonly column: string;
  readonly version: number;
  readonly size: number;
  readonly large: boolean;
  readonly secret: boolean;
  readonly text?: string;
  readonly base64?: string;
  readonly truncated: boolean;
  readonly link: string | null;
}

export interface DataRow {
  readonly row: string;
  readonly group: number;
  readonly cells: readonly DataCell[];
}

export interface DataPage {
  readonly rows: readonly DataRow[];
  readonly next: string | null;
}

/** Tried once: whoever shows the cluster asks again by itself. */
export function fetchStatus(): Promise<ClusterStatus> {
  return api<ClusterStatus>("/admin/cluster", { retryMs: 0 });
}

export async function giveOrder(order: Order, port: number): Promise<void> {
  await api(`/admin/nodes/${port}/${order}`, { method: "POST", retryMs: 5_000 });
}

/** Makes a boundary between tablets at `key`, or takes it away. */
export async function reshapeTablets(kind: "split" | "merge", key: string): Promise<void> {
  await api(`/admin/tablets/${kind}`, { method: "POST", json: { key }, retryMs: 5_000 });
}

export function fetchRows(
  port: number,
  options: { start: string; cursor: string; limit: number; signal: AbortSignal },
): Promise<DataPage> {
  const { start, cursor, limit, signal } = options;
  const query = new URLSearchParams({ start, cursor, limit: String(limit) });
  return api<DataPage>(`/admin/nodes/${port}/rows?${query}`, { retryMs: 4_000, signal });
}

/** A value whole, or its first bytes: the rest is for saving, not for looking at. */
export async function fetchValue(
  link: string,
  options: { bytesMax: number; signal: AbortSignal },
): Promise<Uint8Array<ArrayBuffer>> {
  const { bytesMax, signal } = options;
  let response: Response;
  try {
    response = await fetch(link, { signal });
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw new ApiFailure(0, "offline", `The server does not answer (${error}).`);
  }
  if (!response.ok) throw failureOf(response.status, await response.text());
  const parts: Uint8Array[] = [];
  let length = 0;
  const reader = response.body!.getReader();
  while (length < bytesMax) {
    const { value, done } = await reader.read();
    if (done) break;
    parts.push(value);
    length += value.length;
  }
  await reader.cancel();
  const all = new Uint8Array(await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  return all.subarray(0, bytesMax);
}
