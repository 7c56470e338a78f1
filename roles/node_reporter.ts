/**
 * Tells the coordinator twice a second that this process lives and how it fares, and brings back
 * the map of tablets and the cluster's time. Every role but the coordinator runs one. When the
 * coordinator is away nothing happens: reports are news, so none is kept or repeated.
 */
import { repeat } from "../kv/repeat.ts";
import { coordinatorConversation, type NodeReport, type StoreReport } from "../proto/control.ts";
import type { RangeMap } from "../proto/moves.ts";
import type { RouteTable } from "../proto/routes.ts";
import process from "node:process";
import type { PeerLink } from "./peers.ts";
import type { RoleContext } from "./role_context.ts";

export const REPORT_EVERY_MS = 500;
const METER_EVERY_MS = 1_900;

export interface ReporterOptions {
  readonly context: RoleContext;
  readonly coordinator: PeerLink;
  readonly ready: () => boolean;
  /** Requests answered since the process began. */
  readonly requestCount?: () => number;
  readonly connections?: () => number;
  readonly problem?: () => string | null;
  readonly store?: () => StoreReport;
  readonly routesVersion?: () => number;
  readonly onRoutes?: (table: RouteTable) => void;
  readonly onRangeMap?: (map: RangeMap) => void;
  /** The coordinator knows a later life of this very folder. */
  readonly onWentBack?: () => void;
  /** The coordinator took note of this life. */
  readonly onKnown?: () => void;
}

export class NodeReporter {
  readonly #options: ReporterOptions;
  readonly #startedMs: number;
  readonly #meter = new ProcessMeter();
  #lastCount = 0;
  #lastMs: number;
  #perSecond = 0;
  #cancel: (() => void) | null = null;
  #stopped = false;
  #underWay = false;

  constructor(options: ReporterOptions) {
    this.#options = options;
    this.#startedMs = options.context.env.wallMs();
    this.#lastMs = options.context.env.monotonicMs();
  }

  start(): void {
    const { env } = this.#options.context;
    this.#cancel = repeat(env, REPORT_EVERY_MS, () => this.reportNow());
    this.reportNow();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  /** Reports at once, because something changed that others wait for. */
  reportNow(): void {
    if (this.#stopped || this.#underWay) return;
    this.#underWay = true;
    void this.#report().finally(() => this.#underWay = false);
  }

  async #report(): Promise<void> {
    const { coordinator, onRoutes, onWentBack, onKnown } = this.#options;
    try {
      const { body } = await coordinator.call(
        coordinatorConversation,
        "report",
        this.#compose(),
        undefined,
        { timeoutMs: 2_000 },
      );
      if (body.routes !== null) onRoutes?.(body.routes);
      if (body.rangeMap !== null) this.#options.onRangeMap?.(body.rangeMap);
      if (this.#stopped) return;
      if (body.wentBack === true) onWentBack?.();
      else onKnown?.();
    } catch {
      // The coordinator is away. It will see the next report.
    }
  }

  #compose(): NodeReport {
    const { context, ready, requestCount, connections, problem, store, routesVersion } =
      this.#options;
    const nowMs = context.env.monotonicMs();
    const count = requestCount?.() ?? 0;
    if (nowMs - this.#lastMs >= 900) {
      this.#perSecond = (count - this.#lastCount) / ((nowMs - this.#lastMs) / 1000);
      this.#lastCount = count;
      this.#lastMs = nowMs;
    }
    return {
      role: context.node.role,
      id: context.node.id,
      spawnId: context.spawnId,
      pid: Deno.pid,
      startedMs: this.#startedMs,
      ready: ready(),
      requestsPerSecond: Math.round(this.#perSecond * 10) / 10,
      ...this.#meter.use(nowMs),
      connections: connections?.() ?? null,
      problem: problem?.() ?? null,
      routesVersion: routesVersion?.() ?? 0,
      store: store?.() ?? null,
    };
  }
}

interface ProcessUse {
  /** Share of one core since about two seconds ago; 1 is a whole core. */
  readonly cpu: number;
  readonly memoryBytes: number;
}

/** How busy this process is, from the kernel's own account, which is asked now and then. */
class ProcessMeter {
  #lastMs = -Infinity;
  #lastCpuMs = 0;
  #use: ProcessUse = { cpu: 0, memoryBytes: 0 };

  use(nowMs: number): ProcessUse {
    if (nowMs - this.#lastMs < METER_EVERY_MS) return this.#use;
    const { user, system } = process.cpuUsage();
    const cpuMs = (user + system) / 1000;
    const share = this.#lastMs === -Infinity
      ? 0
      : (cpuMs - this.#lastCpuMs) / (nowMs - this.#lastMs);
    this.#use = { cpu: Math.round(share * 1000) / 1000, memoryBytes: Deno.memoryUsage().rss };
    this.#lastMs = nowMs;
    this.#lastCpuMs = cpuMs;
    return this.#use;
  }
}
