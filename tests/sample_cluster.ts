/** A nine-backend cluster as the console would see it, for pages that are looked at without one. */
import { ClusterConfig, planGroups } from "../proto/cluster_config.ts";
import type { ClusterStatus, NodeStatus, TabletStatus } from "../proto/cluster_status.ts";
import type { AdminSource } from "../web/context.ts";
import { ApiError } from "../web/errors.ts";

/** The default cluster, without a file. */
export function sampleConfig(overrides: Record<string, unknown> = {}): ClusterConfig {
  const nodes = (role: string, count: number, port: number) =>
    Array.from({ length: count }, (_, id) => ({ role, id, port: port + id }));
  return ClusterConfig.parse({
    node: [
      ...nodes("balancer", 1, 9000),
      ...nodes("coordinator", 1, 9999),
      ...nodes("frontend", 3, 8000),
      ...nodes("mail", 1, 2500),
      ...nodes("backend", 9, 10000),
    ],
    ...overrides,
  });
}

/** Answers with a made-up but consistent status; `kill` and `restart` change it. */
export class SampleAdmin implements AdminSource {
  readonly #config: ClusterConfig;
  readonly #down = new Map<number, number>();

  constructor(config: ClusterConfig) {
    this.#config = config;
  }

  // deno-lint-ignore require-await -- the interface is asynchronous
  async status(): Promise<ClusterStatus> {
    const nowMs = Date.now();
    const tablets = planGroups(this.#config).map((plan): TabletStatus => {
      const up = plan.members.filter((id) => !this.#down.has(10000 + id));
      const bytes = (plan.id * 7919 % 13 + 2) * 3_100_000;
      return {
        id: `${plan.id}.1`,
        groupId: plan.id,
        startKey: plan.startKey,
        endKey: plan.endKey,
        epoch: 3 + (plan.members.length - up.length),
        state: up.length === 3
          ? "healthy"
          : up.length === 2
          ? "degraded"
          : up.length === 1
          ? "readonly"
          : "unavailable",
        primary: up[0] ?? null,
        secondaries: up.slice(1),
        learners: [],
        rows: Math.round(bytes / 900),
        cells: Math.round(bytes / 350),
        bytes,
        readsPerSecond: plan.id * 37 % 23,
        writesPerSecond: plan.id * 53 % 11,
      };
    });
    const nodes = this.#config.node.map((node): NodeStatus => {
      const backend = node.role === "backend";
      const downSince = this.#down.get(node.port);
      const lead = tablets.filter((tablet) => tablet.primary === node.id);
      const follow = tablets.filter((tablet) => tablet.secondaries.includes(node.id));
      const alive = downSince === undefined;
      return {
        name: `${node.role}/${node.id}`,
        role: node.role,
        id: node.id,
        host: node.host,
        port: node.port,
        zone: node.zone,
        state: alive ? "live" : "down",
        sinceMs: downSince ?? nowMs - 5_400_000,
        pid: alive ? 4000 + node.port % 1000 : null,
        startedMs: alive ? nowMs - 5_400_000 : null,
        requestsPerSecond: alive ? node.port % 7 * 6 : 0,
        cpu: alive ? (node.port % 5) / 40 + 0.01 : 0,
        memoryBytes: alive ? (46 + node.port % 17) * 1024 * 1024 : 0,
        logBytes: backend ? (3 + node.id) * 1_400_000 : null,
        dataBytes: backend ? (node.id % 4 + 2) * 31_000_000 : null,
        connections: node.role === "frontend" ? 3 + node.id * 2 : null,
        primaryOf: backend ? lead.map((tablet) => tablet.groupId) : [],
        secondaryOf: backend ? follow.map((tablet) => tablet.groupId) : [],
        problem: null,
      };
    });
    const problems = nodes.filter((node) => node.state === "down")
      .map((node) => `${node.name} (port ${node.port}) is down`);
    const { name, mail_domain: mailDomain } = this.#config.cluster;
    return { name, mailDomain, generatedMs: nowMs, problems, nodes, tablets };
  }

  // deno-lint-ignore require-await
  async kill(port: number): Promise<void> {
    this.#check(port);
    this.#down.set(port, Date.now());
  }

  // deno-lint-ignore require-await
  async restart(port: number): Promise<void> {
    this.#check(port);
    this.#down.delete(port);
  }

  drain = (port: number): Promise<void> => this.kill(port);

  // deno-lint-ignore require-await
  async rows(): ReturnType<AdminSource["rows"]> {
    const head = new TextEncoder().encode('{"createdMs":1767312000000}');
    const cells = ["alice", "bob", "grace.hopper"].map((column, index) => ({
      gid: 1,
      row: "=users",
      column,
      version: 40 + index,
      size: head.length,
      large: false,
      head,
    }));
    return { cells, next: null };
  }

  // deno-lint-ignore require-await
  async rowValue(): Promise<Uint8Array | null> {
    return new TextEncoder().encode('{"createdMs":1767312000000}');
  }

  #check(port: number): void {
    if (this.#config.node.some((node) => node.port === port)) return;
    throw new ApiError(404, "no_such_node", `No node has port ${port}.`);
  }
}
