/**
 * What the web frame and its routes work with. roles/frontend.ts makes it once; tests make it over
 * `MemoryKv`.
 *
 * Routes ask for as much as they need: `accountRoutes(context: AppContext)`,
 * `mailRoutes(context: AppContext & { mail: Mail })`, and so on; `createApp()` is given the whole.
 */
import type { Accounts } from "../apps/accounts/accounts.ts";
import type { Env } from "../kv/env.ts";
import type { Kv } from "../kv/kv.ts";
import type { ClusterConfig } from "../proto/cluster_config.ts";
import type { ClusterStatus } from "../proto/cluster_status.ts";

export interface AppContext {
  readonly kv: Kv;
  readonly env: Env;
  readonly config: ClusterConfig;
  readonly accounts: Accounts;
  readonly admin: AdminSource;
}

/** One cell as a backend holds it, for the operator to look at. */
export interface RawCell {
  readonly row: string;
  readonly column: string;
  readonly version: number;
  /** Bytes of the value. */
  readonly size: number;
  /** Base64; absent for values too large for a page. */
  readonly value?: string;
}

export interface RawRowsPage {
  readonly cells: readonly RawCell[];
  /** Pass as `start` for the next page; null when this was the last. */
  readonly next: string | null;
}

/** What the admin console asks of the cluster and may do to its nodes. Nodes go by their port. */
export interface AdminSource {
  status(): Promise<ClusterStatus>;
  kill(port: number): Promise<void>;
  restart(port: number): Promise<void>;
  drain(port: number): Promise<void>;
  /** Rows that the backend on `port` itself holds, from `start` on. */
  rows(port: number, options: { readonly start?: string; readonly limit: number }): Promise<
    RawRowsPage
  >;
}
