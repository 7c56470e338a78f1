/** A nine-backend cluster as the console would see it, for pages that are looked at without one. */
import { compareKeys, inRange } from "../kv/key_order.ts";
import { INLINE_BYTES_MAX, type Kv } from "../kv/kv.ts";
import { MemoryKv } from "../kv/memory_kv.ts";
import { ClusterConfig, planGroups } from "../proto/cluster_config.ts";
import type {
  ClusterStatus,
  NodeState,
  NodeStatus,
  TabletStatus,
} from "../proto/cluster_status.ts";
import { withoutCoordinator } from "../roles/admin_source.ts";
import type { AdminSource, CellPlace, RawRowsOptions, RawRowsPage } from "../web/context.ts";
import { ApiError } from "../web/errors.ts";

const HEAD_BYTES = 1024;

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

/**
 * A made-up but consistent status, which `kill`, `restart`, `drain` and `set` change, over the real
 * rows of the store that is handed in: backends hold those of their groups.
 */
export class SampleAdmin implements AdminSource {
  /** Seconds since this sample began move its loads a little, so that charts have something to draw. */
  readonly #startedMs = Date.now();
  readonly #config: ClusterConfig;
  readonly #kv: Kv;
  readonly #states = new Map<number, { state: NodeState; sinceMs: number }>();
  coordinatorAway = false;

  constructor(config: ClusterConfig, kv: Kv = new MemoryKv()) {
    this.#config = config;
    this.#kv = kv;
  }

  /** Where groups are split further, by group. */
  readonly splitKeys = new Map<number, readonly string[]>();

  set(port: number, state: NodeState, sinceMs = Date.now()): void {
    this.#states.set(port, { state, sinceMs });
  }

  // deno-lint-ignore require-await -- the interface is asynchronous
  async status(): Promise<ClusterStatus> {
    const nowMs = Date.now(), seconds = (nowMs - this.#startedMs) / 1000;
    const wave = (seed: number) => 1 + 0.4 * Math.sin(seconds / (2 + seed % 5) + seed);
    const stateOf = (port: number) => this.#states.get(port)?.state ?? "live";
    const serves = (id: number) => {
      const { port } = this.#config.node.find((node) => node.role === "backend" && node.id === id)!;
      return ["live", "suspect"].includes(stateOf(port));
    };
    const tablets = planGroups(this.#config).flatMap((plan): TabletStatus[] => {
      const up = plan.members.filter(serves);
      const bytes = (plan.id * 7919 % 13 + 2) * 3_100_000;
      const keys = [plan.startKey, ...this.splitKeys.get(plan.id) ?? []];
      return keys.map((startKey, index) => ({
        id: `${plan.id}.${index + 1}`,
        generation: keys.length,
        groupId: plan.id,
        startKey,
        endKey: keys[index + 1] ?? plan.endKey,
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
        members: [...plan.members],
        rows: Math.round(bytes / 900),
        cells: Math.round(bytes / 350),
        bytes,
        largeBytes: bytes * (plan.id % 5),
        readsPerSecond: up.length === 0 ? 0 : plan.id * 37 % 23 * wave(plan.id),
        writesPerSecond: up.length < 2 ? 0 : plan.id * 53 % 11 * wave(plan.id + 3),
      }));
    });
    const nodes = this.#config.node.map((node): NodeStatus => {
      const backend = node.role === "backend";
      const set = this.#states.get(node.port), state = set?.state ?? "live";
      const lead = tablets.filter((tablet) => tablet.primary === node.id);
      const follow = tablets.filter((tablet) => tablet.secondaries.includes(node.id));
      const alive = state !== "down" && state !== "stopped";
      return {
        name: `${node.role}/${node.id}`,
        role: node.role,
        id: node.id,
        host: node.host,
        port: node.port,
        zone: node.zone,
        state,
        sinceMs: set?.sinceMs ?? nowMs - 5_400_000,
        pid: alive ? 4000 + node.port % 1000 : null,
        startedMs: alive ? nowMs - 5_400_000 : null,
        requestsPerSecond: alive ? node.port % 7 * 6 * wave(node.port) : 0,
        cpu: alive ? ((node.port % 5) / 40 + 0.01) * wave(node.id) : 0,
        memoryBytes: alive ? (46 + node.port % 17) * 1024 * 1024 : 0,
        logBytes: backend ? (3 + node.id) * 1_400_000 : null,
        dataBytes: backend ? (node.id % 4 + 2) * 31_000_000 : null,
        connections: node.role === "frontend" ? 3 + node.id * 2 : null,
        primaryOf: backend ? lead.map((tablet) => tablet.groupId) : [],
        secondaryOf: backend ? follow.map((tablet) => tablet.groupId) : [],
        problem: null,
      };
    });
    const problems = [
      ...tablets.filter((tablet) => tablet.state !== "healthy")
        .map((tablet) => `Tablet ${tablet.id} is ${tablet.state}`),
      ...nodes.filter((node) => node.state === "down")
        .map((node) => `${node.name} (port ${node.port}) is down`),
    ];
    const { name, mail_domain: mailDomain } = this.#config.cluster;
    const status = { name, mailDomain, generatedMs: nowMs, problems, nodes, tablets };
    return this.coordinatorAway ? withoutCoordinator(this.#config, status, nowMs) : status;
  }

  // deno-lint-ignore require-await
  async kill(port: number): Promise<void> {
    if (this.#node(port).role === "coordinator") this.coordinatorAway = true;
    this.set(port, "stopped");
  }

  // deno-lint-ignore require-await
  async restart(port: number): Promise<void> {
    if (this.#node(port).role === "coordinator") this.coordinatorAway = false;
    this.set(port, "live");
  }

  drain = (port: number): Promise<void> => this.kill(port);

  // deno-lint-ignore require-await
  async reshape(kind: "split" | "merge", key: string): Promise<void> {
    const { id } = planGroups(this.#config)
      .find((plan) => inRange(key, plan.startKey, plan.endKey))!;
    const keys = this.splitKeys.get(id) ?? [];
    if (keys.includes(key) !== (kind === "merge")) {
      throw new ApiError(422, "cannot_reshape", `Cannot ${kind} at "${key}".`);
    }
    const next = kind === "split" ? [...keys, key] : keys.filter((other) => other !== key);
    this.splitKeys.set(id, next.toSorted(compareKeys));
  }

  async rows(port: number, { start = "", after, limit }: RawRowsOptions): Promise<RawRowsPage> {
    const { role, id } = this.#node(port);
    if (role !== "backend") throw new ApiError(422, "not_a_backend", `${role}/${id} has no rows.`);
    const plans = planGroups(this.#config).filter((plan) => plan.members.includes(id));
    const gidOf = (row: string) =>
      plans.find((plan) => inRange(row, plan.startKey, plan.endKey))?.id ?? null;
    const cells: RawRowsPage["cells"][number][] = [];
    let next: CellPlace | null = after ?? null;
    do {
      const page = await this.#kv.scan(
        next === null
          ? { startRow: start, limit: 500 }
          : { startRow: start, after: next, limit: 500 },
      );
      for (const { row, column, version, size, value } of page.cells) {
        const gid = gidOf(row);
        if (gid === null) continue;
        if (cells.length === limit) {
          const { row, column } = cells.at(-1)!;
          return { cells, next: { row, column } };
        }
        const large = size > INLINE_BYTES_MAX;
        const head = large ? new Uint8Array() : (value ?? new Uint8Array()).subarray(0, HEAD_BYTES);
        cells.push({ gid, row, column, version, size, large, head });
      }
      next = page.next;
    } while (next !== null);
    return { cells, next: null };
  }

  async rowValue(port: number, { row, column }: CellPlace): Promise<Uint8Array | null> {
    this.#node(port);
    return (await this.#kv.get(row, column))?.value ?? null;
  }

  #node(port: number) {
    const node = this.#config.node.find((entry) => entry.port === port);
    if (node === undefined) throw new ApiError(404, "no_such_node", `No node has port ${port}.`);
    return node;
  }
}
