/**
 * The coordinator as a process: a loop around `Coordinator` (kv/coordinator.ts), its durable records
 * and the connections to the nodes. No rule about replication is decided here.
 */
import {
  backendConversation,
  coordinatorConversation,
  type StoreReport,
} from "../proto/control.ts";
import { planGroups } from "../proto/cluster_config.ts";
import { NO_ROUTES, type Route, routeOf, type RouteTable, tableOf } from "../proto/routes.ts";
import { type Epoch, type GroupId, groupId, type NodeId, nodeId } from "../proto/ids.ts";
import { KvError } from "../kv/errors.ts";
import {
  Coordinator,
  type CoordinatorEffect,
  type CoordinatorInput,
  DEFAULT_TIMING,
} from "../kv/coordinator.ts";
import { Metadata } from "../kv/disk/metadata.ts";
import { freshId } from "../kv/env.ts";
import type { ConfigChange, GroupConfig } from "../proto/replication.ts";
import { ClusterView } from "./cluster_view.ts";
import { CoordinatorMoves } from "./coordinator_moves.ts";
import { serveRpc } from "./net/rpc_server.ts";
import { service } from "./net/rpc_service.ts";
import { opsPort, startOpsServer } from "./ops_server.ts";
import { type PeerLinks, Peers, secretText } from "./peers.ts";
import type { RoleContext, RunningRole } from "./role_context.ts";
import process from "node:process";

/** While something is being decided; otherwise there is one with every beat. */
const TICK_MS = 50;
const RANGES_ROLLED_BACK =
  "Nodes know of newer moves of tablets than the coordinator's records, so it does not know where all " +
  "tablets are. Put the newest records back, or start every backend and run `penncloud admin recover-meta`";

export function runCoordinator(context: RoleContext): Promise<RunningRole> {
  const { config, env, node } = context;
  const metadata = new Metadata({
    path: `${context.dataDir}/metadata.sqlite`,
    clusterId: context.clusterId,
  });
  metadata.raise("coordTerm");
  const shell = new CoordinatorShell(context, { metadata, peers: new Peers(context) });
  const server = serveRpc({
    hostname: node.host,
    port: node.port,
    secret: secretText(context),
    clusterName: config.cluster.name,
    name: `${node.role}/${node.id}`,
    services: shell.services,
    onError: (error, { peer, method }) =>
      env.log("warning", "a request failed", { peer, method, message: String(error) }),
  });
  const ops = startOpsServer({
    hostname: node.host,
    port: opsPort(node.port),
    ready: () => ({ ready: true }),
    metrics: () => shell.metrics(),
  });
  shell.start();
  return Promise.resolve({
    ready: Promise.resolve(),
    stop: async () => {
      shell.stop();
      await Promise.all([server.close(), ops.close()]);
      metadata.close();
    },
  });
}

/** The durable records, as the shell asks for them. */
export type MetadataRecords =
  & Pick<Metadata, "configs" | "get" | "swap" | "rangeMap" | "swapRangeMap">
  /** Absent: folders that went back in time are not looked for. */
  & Partial<Pick<Metadata, "noteLife" | "noteLoss" | "losses">>;

interface Answer {
  readonly result: "done" | "refused";
  readonly config: GroupConfig | null;
}

export class CoordinatorShell {
  readonly #context: RoleContext;
  readonly #metadata: MetadataRecords;
  readonly #core: Coordinator;
  readonly #moves: CoordinatorMoves;
  readonly #view: ClusterView;
  readonly #peers: PeerLinks;
  readonly #answers = new Map<number, (answer: Answer) => void>();
  #lastRequestId = 0;
  #routes: RouteTable = NO_ROUTES;
  /** Set while it runs. */
  #endBeats: (() => void) | null = null;
  /** Set while a tick is due between beats. */
  #cancelTick: (() => void) | null = null;
  #electionCount = 0;

  constructor(context: RoleContext, parts: { metadata: MetadataRecords; peers: PeerLinks }) {
    const { config, env } = context;
    const { metadata } = parts;
    this.#context = context;
    this.#metadata = metadata;
    this.#view = new ClusterView(config, env.wallMs());
    this.#peers = parts.peers;
    this.#core = new Coordinator({
      plans: planGroups(config),
      configs: metadata.configs(),
      minInSync: config.store.min_in_sync,
      timing: { ...DEFAULT_TIMING, coldStartWaitMs: config.store.cold_start_wait_ms },
      nowMs: env.monotonicMs(),
      makeId: () => freshId(env),
    });
    this.#moves = new CoordinatorMoves({
      env,
      record: metadata,
      plans: planGroups(config),
      vouchesFor: (gid) => this.#core.vouchesFor(gid),
      onChanged: (map) => {
        this.#refreshRoutes();
        for (const gid of new Set(map.moves.flatMap(({ from, to }) => [from, to]))) {
          const primary = this.#configOf(gid)?.primary.node;
          if (primary === undefined) continue;
          this.#backend(primary).send(backendConversation, "rangeMap", map);
        }
      },
    });
    this.#refreshRoutes();
  }

  readonly services = service(coordinatorConversation, {
    report: (report) => {
      const { env } = this.#context;
      this.#view.onReport(report, env.wallMs());
      if (report.role === "backend" && report.store !== null) {
        const { spawnId, store } = report;
        if (this.#wentBack(spawnId, store)) {
          const { store: id, inc } = store;
          env.log("error", "a store went back in time", { node: report.id, store: id, inc });
          return { routes: null, rangeMap: null, wentBack: true };
        }
        this.#feed({ kind: "report", node: nodeId(report.id), spawnId, report: store });
        this.#moves.onReport(
          store,
          (gid, epoch) => this.#core.vouchesFor(gid) && this.#configOf(gid)?.epoch === epoch,
        );
      }
      const routes = report.routesVersion < this.#routes.version ? this.#routes : null;
      const { map } = this.#moves;
      const isNews = report.store !== null && (report.store.rangeMapVersion ?? 0) < map.version;
      return { routes, rangeMap: isNews ? map : null };
    },
    routes: () => this.#routes,
    propose: (body) =>
      new Promise((resolve) => {
        const requestId = ++this.#lastRequestId;
        this.#answers.set(requestId, resolve);
        const { change, ...rest } = body;
        const proposal = { ...rest, change: change as ConfigChange };
        this.#feed({ kind: "propose", requestId, proposal });
      }),
    suspect: ({ gid, node, epoch }) => {
      this.#feed({ kind: "suspect", gid, node, epoch });
      return {};
    },
    exited: ({ node, spawn }) => {
      this.#context.env.log("info", "a process ended", { node, spawn });
      this.#view.onExited(spawn, this.#context.env.wallMs());
      this.#feed({ kind: "exited", spawnId: spawn });
      return {};
    },
    configOf: ({ gid }) => ({
      config: this.#core.vouchesFor(groupId(gid)) ? this.#metadata.get(groupId(gid)) : null,
    }),
    beginMove: async (wish) => ({ id: await this.#moves.begin(wish, this.#view.groupReports()) }),
    rangeMap: () => this.#moves.map,
    decideMove: async (body) => ({ rangeMap: await this.#moves.decide(body) }),
    endMove: async ({ id }) => ({ rangeMap: await this.#moves.end(id) }),
    status: () => this.#status(),
    recoverMeta: () => this.#recoverMeta(),
    forcePrimary: async ({ gid, node }) => ({ config: await this.#forcePrimary(gid, node) }),
  });

  /** Whether a later life of this store is known, so that its folder is an older copy of itself. */
  #wentBack(spawn: string, { store, inc }: StoreReport): boolean {
    return this.#metadata.noteLife?.({ store, inc, spawn }) === false;
  }

  /** Makes the records anew from what the nodes adopted last; every member of a group has to say. */
  async #recoverMeta() {
    const plans = planGroups(this.#context.config);
    const nodes = [...new Set(plans.flatMap((plan) => plan.members))];
    const silent: string[] = [];
    const answers = await Promise.all(nodes.map(async (id) => {
      try {
        const { body } = await this.#peers.of("backend", id)
          .call(backendConversation, "configs", {}, undefined, { timeoutMs: 3_000 });
        return body;
      } catch {
        silent.push(`backend/${id}`);
        return { configs: [], rangeMap: null };
      }
    }));
    if (silent.length > 0) {
      throw new KvError(
        "unavailable",
        `Cannot recover the coordinator's records: ${silent.join(", ")} ` +
          `${silent.length === 1 ? "does" : "do"} not answer, and may know a newer configuration ` +
          `than the others. Start every backend first`,
      );
    }
    const configs: GroupConfig[] = [];
    for (const { id } of plans) {
      const known = answers.flatMap(({ configs }) => configs).filter((config) => config.gid === id);
      const newest = known.sort((a, b) => b.epoch - a.epoch)[0];
      if (newest !== undefined) configs.push(newest);
    }
    const was = new Map(configs.map(({ gid }) => [gid, this.#metadata.get(gid)?.epoch ?? 0]));
    this.#feed({ kind: "recover", configs });
    this.#moves.recover(answers.flatMap(({ rangeMap }) => rangeMap ?? []));
    const groups = configs.map(({ gid }) => ({
      gid,
      was: was.get(gid) as Epoch,
      epoch: this.#metadata.get(gid)!.epoch,
    }));
    this.#context.env.log("warning", "records recovered from the nodes", { groups: groups.length });
    return { groups };
  }

  async #forcePrimary(gid: GroupId, node: NodeId): Promise<GroupConfig> {
    const before = [...this.#core.groups()].find((group) => group.gid === gid);
    const { result, config } = await new Promise<Answer>((resolve) => {
      const requestId = ++this.#lastRequestId;
      this.#answers.set(requestId, resolve);
      this.#feed({ kind: "force", requestId, gid, node });
    });
    if (result === "refused" || config === null) {
      throw new KvError(
        "invalid_request",
        `Cannot let backend/${node} lead group ${gid}: it has to be a member of that group that ` +
          `reports to the coordinator and whose copy is not damaged`,
      );
    }
    const { env } = this.#context, atMs = env.wallMs();
    const inSync = before?.config?.inSync.map((member) => `backend/${member.node}`) ?? [];
    const text =
      `backend/${node} was forced to lead group ${gid} in epoch ${config.epoch}; before, ` +
      `${inSync.join(", ")} had everything that was acknowledged`;
    this.#metadata.noteLoss?.({ gid, epoch: config.epoch, atMs, text });
    env.log("error", "loss of data accepted", { gid, epoch: config.epoch, node, text });
    return config;
  }

  /** What is decided of each group, for audits. */
  groups(): ReturnType<Coordinator["groups"]> {
    return this.#core.groups();
  }

  start(): void {
    this.#endBeats = this.#context.env.onBeat(() => {
      // Otherwise a tick of its own is due.
      if (this.#cancelTick === null) this.#tick();
    });
    this.#maybePlanTick();
  }

  stop(): void {
    this.#endBeats?.();
    this.#endBeats = null;
    this.#cancelTick?.();
    this.#peers.close();
  }

  #tick(): void {
    this.#feed({ kind: "tick" });
    this.#moves.tick();
  }

  /** While something is being decided, ticks follow each other closely. */
  #maybePlanTick(): void {
    if (this.#cancelTick !== null || this.#endBeats === null || this.#core.isCalm) return;
    this.#cancelTick = this.#context.env.timer(TICK_MS, () => {
      this.#cancelTick = null;
      this.#tick();
    });
  }

  metrics(): string {
    const { problems, tablets } = this.#status();
    const healthy = tablets.filter((tablet) => tablet.state === "healthy").length;
    const available = tablets.filter((tablet) => tablet.state !== "unavailable").length;
    return [
      "# TYPE penncloud_cluster_healthy gauge",
      `penncloud_cluster_healthy ${problems.length === 0 ? 1 : 0}`,
      "# TYPE penncloud_cluster_available gauge",
      `penncloud_cluster_available ${available === tablets.length ? 1 : 0}`,
      "# TYPE penncloud_tablets gauge",
      `penncloud_tablets{state="healthy"} ${healthy}`,
      `penncloud_tablets{state="all"} ${tablets.length}`,
      "# TYPE penncloud_configuration_changes_total counter",
      `penncloud_configuration_changes_total ${this.#electionCount}`,
      "",
    ].join("\n");
  }

  #status() {
    const { env, node, spawnId } = this.#context;
    const nowMs = env.wallMs();
    this.#view.onReport({
      role: node.role,
      id: node.id,
      spawnId,
      pid: Deno.pid,
      startedMs: STARTED_MS,
      ready: true,
      requestsPerSecond: 0,
      cpu: cpuSinceStart(),
      memoryBytes: Deno.memoryUsage().rss,
      connections: null,
      problem: null,
      routesVersion: this.#routes.version,
      store: null,
    }, nowMs);
    const losses = this.#metadata.losses?.() ?? [];
    const status = this.#view.status(this.#core.groups(), nowMs);
    const { rolledBack, recoveryWaitsFor } = this.#moves;
    const problems = recoveryWaitsFor !== null
      ? [`It is being found out where all tablets are: ${recoveryWaitsFor}`, ...status.problems]
      : rolledBack
      ? [RANGES_ROLLED_BACK, ...status.problems]
      : status.problems;
    return {
      ...status,
      problems,
      tablets: status.tablets.map((tablet) => this.#moves.shown(tablet)),
      losses: losses.map(({ gid, ...loss }) => ({ groupId: gid, ...loss })),
    };
  }

  /** Effects are done in order; what they cause is fed in afterwards. */
  #feed(first: CoordinatorInput): void {
    const inputs = [first];
    try {
      for (let input; (input = inputs.shift()) !== undefined;) {
        for (const effect of this.#core.step(this.#context.env.monotonicMs(), input)) {
          this.#perform(effect, inputs);
        }
      }
      this.#maybePlanTick();
    } catch (error) {
      this.#context.env.fatal(error);
    }
  }

  #perform(effect: CoordinatorEffect, inputs: CoordinatorInput[]): void {
    const { env } = this.#context;
    switch (effect.kind) {
      case "swap": {
        const { gid, expected, config } = effect;
        const done = this.#metadata.swap(gid, expected, config);
        inputs.push({
          kind: "swapped",
          gid,
          done,
          config: done ? config : this.#metadata.get(gid),
        });
        return;
      }
      case "answer": {
        const { requestId, result, config } = effect;
        this.#answers.get(requestId)?.({ result, config });
        this.#answers.delete(requestId);
        return;
      }
      case "sendConfig": {
        const { config, learners } = effect;
        this.#backend(effect.to).send(backendConversation, "config", {
          config,
          learners: [...learners],
        });
        return;
      }
      case "poll":
        this.#poll(effect.node);
        return;
      case "memberDown": {
        const { to, gid, node, inc } = effect;
        this.#backend(to).send(backendConversation, "memberDown", { gid, node, inc });
        return;
      }
      case "handOver":
        this.#backend(effect.to).send(backendConversation, "handOver", {
          gid: effect.gid,
          to: effect.successor,
        });
        return;
      case "routesChanged":
        this.#electionCount += 1;
        this.#refreshRoutes();
        return;
      case "log":
        env.log("info", effect.event, {
          gid: effect.gid,
          epoch: effect.epoch,
          reason: effect.reason,
        });
    }
  }

  #backend(id: number) {
    return this.#peers.of("backend", id);
  }

  #poll(node: ReturnType<typeof nodeId>): void {
    this.#backend(node).call(backendConversation, "poll", {}, undefined, { timeoutMs: 1_000 }).then(
      ({ body: { spawnId, report } }) => {
        // An old copy is told so when it reports by itself; no election may count on it meanwhile.
        if (this.#wentBack(spawnId, report)) return;
        this.#feed({ kind: "report", node, spawnId, report });
      },
      // Silence is the answer: the election goes on without this member.
      () => {},
    );
  }

  #refreshRoutes(): void {
    const routes: Route[] = [], { map } = this.#moves;
    const configs = new Map(Array.from(this.#core.groups(), ({ gid, config }) => [gid, config]));
    for (const range of map.ranges) {
      const config = configs.get(range.gid) ?? null;
      if (config !== null) routes.push(routeOf(range, config));
    }
    this.#routes = tableOf(routes, map.version);
  }

  #configOf(gid: GroupId): GroupConfig | null {
    for (const group of this.#core.groups()) if (group.gid === gid) return group.config;
    return null;
  }
}

const STARTED_MS = Date.now();

function cpuSinceStart(): number {
  const { user, system } = process.cpuUsage();
  return Math.round((user + system) / 1000 / Math.max(1, performance.now()) * 1000) / 1000;
}
