/**
 * What the web frame and its routes work with. roles/frontend.ts makes it once with `makeContext()`;
 * tests do the same over `MemoryKv`.
 *
 * Routes ask for as much as they need: `accountRoutes(context: AppContext)`,
 * `mailRoutes(context: AppContext & { mail: Mail })`, and so on; `createApp()` is given the whole.
 */
import { Accounts } from "../apps/accounts/accounts.ts";
import { Drive } from "../apps/drive/drive.ts";
import { Mail } from "../apps/mail/mail.ts";
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
  /** Aborts when the process is about to stop: answers without an end come to theirs. */
  readonly stopping?: AbortSignal;
}

/** Everything that a frontend serves. */
export interface FullContext extends AppContext {
  readonly mail: Mail;
  readonly drive: Drive;
}

export interface ContextParts {
  readonly kv: Kv;
  readonly env: Env;
  readonly config: ClusterConfig;
  readonly admin: AdminSource;
  readonly stopping?: AbortSignal;
}

/** The apps over one store, tied together: a new account gets its mail folders at once. */
export function makeContext(parts: ContextParts): FullContext {
  const { kv, env, config } = parts;
  const accounts = new Accounts({
    kv,
    env,
    mailDomain: config.cluster.mail_domain,
    sessionDays: config.web.session_days,
  });
  const mail = new Mail({ kv, env, config, users: accounts });
  const drive = new Drive({ kv, env, config });
  accounts.onCreate(mail.createMailbox);
  return { ...parts, accounts, mail, drive };
}

/** One cell as a backend holds it, for the operator to look at. */
export interface RawCell {
  readonly gid: number;
  readonly row: string;
  readonly column: string;
  readonly version: number;
  /** Bytes of the whole value. */
  readonly size: number;
  /** The value lies in a file of its own. */
  readonly large: boolean;
  /** The first bytes of the value. */
  readonly head: Uint8Array;
}

export interface CellPlace {
  readonly row: string;
  readonly column: string;
}

export interface RawRowsPage {
  readonly cells: readonly RawCell[];
  /** Pass as `after` for the next page; null when this was the last. */
  readonly next: CellPlace | null;
}

export interface RawRowsOptions {
  /** First row wanted, inclusive. */
  readonly start?: string;
  /** Continue behind this cell: a former page's `next`. */
  readonly after?: CellPlace;
  readonly limit: number;
}

/**
 * What the admin console asks of the cluster and may do to its nodes. Nodes go by their port. Every
 * method throws `ApiError` where the node or its supervisor cannot be reached or does not exist.
 */
export interface AdminSource {
  status(): Promise<ClusterStatus>;
  kill(port: number): Promise<void>;
  restart(port: number): Promise<void>;
  drain(port: number): Promise<void>;
  /** Makes a boundary between two tablets at `key`, or takes it away. */
  reshape(kind: "split" | "merge", key: string): Promise<void>;
  /** Rows that the backend on `port` itself holds. */
  rows(port: number, options: RawRowsOptions): Promise<RawRowsPage>;
  /** One value in full, from that backend's own state; null when it has none. */
  rowValue(port: number, place: CellPlace): Promise<Uint8Array | null>;
}
