/**
 * The frontends as the balancer sees them: which live, and whose turn it is.
 *
 * Each is asked for `/readyz` every `intervalMs`. One that refuses the connection or says that it is
 * not ready is out at once; one that is merely slow has to be so twice, because a busy machine is no
 * dead one. Before a frontend is handed out it must accept a connection, so that nobody is sent to
 * one that died a moment ago.
 */
import type { Env } from "../kv/env.ts";
import { repeat } from "../kv/repeat.ts";
import type { ClusterConfig, NodeEntry } from "../proto/cluster_config.ts";
import { closeQuietly } from "./net/handshake.ts";

export interface PooledFrontend {
  readonly node: NodeEntry;
  /** `frontend/2` */
  readonly name: string;
  readonly live: boolean;
  /** Why not. */
  readonly problem: string | null;
  /** Requests in progress, by its own last word, plus those sent there since. */
  readonly load: number;
}

export interface FrontendPoolOptions {
  readonly frontends: readonly NodeEntry[];
  readonly policy: ClusterConfig["balancer"]["policy"];
  readonly intervalMs: number;
  readonly env: Env;
  /** For one `/readyz`. */
  readonly checkTimeoutMs?: number;
}

interface Member {
  readonly node: NodeEntry;
  readonly name: string;
  live: boolean;
  problem: string | null;
  active: number;
  sentSinceCheck: number;
  slowChecks: number;
  probe: Promise<boolean> | null;
  checking: boolean;
  endChecks: () => void;
}

const CHECK_TIMEOUT_MS = 800;
const PROBE_TIMEOUT_MS = 300;
const SLOW_CHECKS_MAX = 2;

export class FrontendPool {
  readonly #options: FrontendPoolOptions;
  readonly #members: readonly Member[];
  readonly #stop = new AbortController();
  readonly #firstLive = Promise.withResolvers<void>();
  #turn = 0;

  constructor(options: FrontendPoolOptions) {
    this.#options = options;
    this.#members = options.frontends.map((node) => ({
      node,
      name: `${node.role}/${node.id}`,
      live: false,
      problem: "not checked yet",
      active: 0,
      sentSinceCheck: 0,
      slowChecks: 0,
      probe: null,
      checking: false,
      endChecks: () => {},
    }));
  }

  /** Resolves when a frontend has lived for the first time. */
  get firstLive(): Promise<void> {
    return this.#firstLive.promise;
  }

  get frontends(): PooledFrontend[] {
    return this.#members.map((member) => ({ ...describe(member) }));
  }

  start(): void {
    for (const member of this.#members) this.#keepChecking(member);
  }

  stop(): void {
    this.#stop.abort();
    for (const member of this.#members) member.endChecks();
  }

  /** A frontend that lives, by the policy, or null when none does. */
  async pick(): Promise<PooledFrontend | null> {
    for (let member; (member = this.#choose()) !== null;) {
      if (await this.#accepts(member)) {
        member.sentSinceCheck++;
        return describe(member);
      }
      this.#setDown(member, "refuses connections");
    }
    return null;
  }

  #choose(): Member | null {
    const count = this.#members.length;
    let best: Member | null = null, bestPlace = 0;
    // From the one whose turn it is onwards, so that equal loads take turns too.
    for (let step = 0; step < count; step++) {
      const place = (this.#turn + step) % count;
      const member = this.#members[place]!;
      if (!member.live) continue;
      if (best === null || this.#options.policy === "least-connections" && less(member, best)) {
        best = member;
        bestPlace = place;
      }
    }
    if (best !== null) this.#turn = (bestPlace + 1) % count;
    return best;
  }

  /** Requests that come at the same time share one probe. */
  #accepts(member: Member): Promise<boolean> {
    member.probe ??= canConnect(member.node).finally(() => member.probe = null);
    return member.probe;
  }

  /** One check at a time: where they may take longer than the interval, some are left out. */
  #keepChecking(member: Member): void {
    const check = () => {
      if (member.checking) return;
      member.checking = true;
      void this.#check(member).finally(() => member.checking = false);
    };
    check();
    const { env, intervalMs } = this.#options;
    member.endChecks = repeat(env, intervalMs, check);
  }

  async #check(member: Member): Promise<void> {
    const { checkTimeoutMs = CHECK_TIMEOUT_MS } = this.#options;
    const sentBefore = member.sentSinceCheck;
    try {
      const { ready, reason, active } = await askReadiness(member.node, {
        timeoutMs: checkTimeoutMs,
        signal: this.#stop.signal,
      });
      member.active = active;
      member.sentSinceCheck -= sentBefore;
      member.slowChecks = 0;
      if (ready) this.#setLive(member);
      else this.#setDown(member, reason);
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      if (error instanceof DOMException && error.name === "TimeoutError") {
        if (++member.slowChecks < SLOW_CHECKS_MAX) return;
        this.#setDown(member, `no answer within ${checkTimeoutMs} ms`);
      } else {
        this.#setDown(member, "refuses connections");
      }
    }
  }

  #setLive(member: Member): void {
    if (member.live) return;
    member.live = true;
    member.problem = null;
    this.#options.env.log("info", "frontend is live", { frontend: member.name });
    this.#firstLive.resolve();
  }

  #setDown(member: Member, problem: string): void {
    if (member.live) {
      this.#options.env.log("warning", "frontend is down", { frontend: member.name, problem });
    }
    member.live = false;
    member.problem = problem;
    member.active = member.sentSinceCheck = 0;
  }
}

/** Where a node that listens everywhere is reached from this host. */
export function dialHost(host: string): string {
  return host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
}

/** As it stands in a URL. */
export function urlHost(host: string): string {
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}

function describe({ node, name, live, problem, active, sentSinceCheck }: Member): PooledFrontend {
  return { node, name, live, problem, load: active + sentSinceCheck };
}

function less(one: Member, other: Member): boolean {
  return one.active + one.sentSinceCheck < other.active + other.sentSinceCheck;
}

async function askReadiness(
  node: NodeEntry,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<{ ready: boolean; reason: string; active: number }> {
  const response = await fetch(`http://${urlHost(dialHost(node.host))}:${node.port}/readyz`, {
    redirect: "manual",
    signal: AbortSignal.any([AbortSignal.timeout(options.timeoutMs), options.signal]),
  });
  const answer = await response.json().catch(() => null) as Record<string, unknown> | null;
  const { reason, active } = answer ?? {};
  return {
    // Anything else that happens to listen there answers otherwise.
    ready: response.status === 200 && answer?.ready === true,
    reason: typeof reason === "string" ? reason : `answers with status ${response.status}`,
    active: typeof active === "number" && active >= 0 ? active : 0,
  };
}

async function canConnect(node: NodeEntry): Promise<boolean> {
  const abort = new AbortController();
  const deadline = setTimeout(() => abort.abort(), PROBE_TIMEOUT_MS);
  try {
    const { port } = node;
    closeQuietly(
      await Deno.connect({ hostname: dialHost(node.host), port, signal: abort.signal }),
    );
    return true;
  } catch {
    return false;
  } finally {
    clearTimeout(deadline);
  }
}
