/**
 * `cluster.toml`: which nodes there are, and how they behave. One schema; every setting has a unit in its
 * name and a default. Reading files and phrasing errors is roles/config_file.ts.
 *
 * Groups are not listed: every backend leads one replica group by preference. With a number of
 * backends that `replicas` divides, backends form sets of `replicas` (10000 to 10002, …) and each
 * group lives on its leader's set; otherwise group i lives on backends i, i+1, i+2 around the ring.
 */
import { z } from "zod";
import { compareKeys } from "../kv/key_order.ts";

export const ROLES = ["coordinator", "backend", "frontend", "balancer", "mail"] as const;
export const Role = z.enum(ROLES);
export type Role = z.infer<typeof Role>;

const Port = z.int().min(1).max(65_000);
const Ms = (fallback: number, min: number, max: number) =>
  z.int().min(min).max(max).default(fallback);
const Bytes = (fallback: number, min: number, max = 2 ** 40) =>
  z.int().min(min).max(max).default(fallback);
const MIB = 1024 * 1024;

const NodeEntry = z.strictObject({
  role: Role,
  id: z.int().nonnegative().max(999),
  /** The name or address under which other nodes reach it; also where it listens. */
  host: z.string().min(1).default("127.0.0.1"),
  port: Port,
  /** Failure domain: a room, a host, a rack. Shown to the operator. */
  zone: z.string().default(""),
});
export type NodeEntry = z.infer<typeof NodeEntry>;

export const ClusterConfig = z.strictObject({
  cluster: z.strictObject({
    name: z.string().regex(/^[a-z0-9-]{1,32}$/, "1 to 32 of a-z, 0-9 and -").default("home"),
    /** Mail addresses end in it. */
    mail_domain: z.string().regex(/^[a-z0-9.-]+$/, "a domain name in lower case")
      .default("penncloud.test"),
    /** Where data folders live, relative to this file. `--data` overrides it. */
    data: z.string().min(1).default("data"),
    /** The supervisor of each host listens here. */
    supervisor_port: Port.default(9998),
  }).prefault({}),
  node: z.array(NodeEntry).min(1),
  store: z.strictObject({
    replicas: z.int().min(1).max(7).default(3),
    min_in_sync: z.int().min(1).max(7).default(2),
    /** First row key of each group but the first, ascending; default: even over the letters. */
    split_keys: z.array(z.string().min(1)).optional(),
    heartbeat_ms: Ms(200, 20, 10_000),
    lease_ms: Ms(1200, 100, 60_000),
    grace_ms: Ms(1800, 150, 90_000),
    ack_timeout_ms: Ms(1000, 100, 60_000),
    /** `confirm`: no read relies on a clock; each waits for a round of heartbeats. */
    read_mode: z.enum(["lease", "confirm"]).default("lease"),
    cold_start_wait_ms: Ms(10_000, 0, 600_000),
    /**
     * Whether what a disk said to be synced is there after a power cut. If not, one copy alone that
     * went through one does not lead: two have to be there, and the longer log counts.
     */
    trust_fsync: z.boolean().default(true),
    checkpoint_dirty_bytes: Bytes(4 * MIB, 64 * 1024),
    checkpoint_log_bytes: Bytes(32 * MIB, MIB),
    checkpoint_interval_ms: Ms(30_000, 1000, 3_600_000),
    /** Ceiling of the data in memory per node: kv/node_memory.ts. */
    memory_bytes: Bytes(96 * MIB, 4 * MIB),
    tablet_max_bytes: Bytes(256 * MIB, MIB),
    /** Of values in files of their own. */
    tablet_max_disk_bytes: Bytes(4096 * MIB, 16 * MIB),
    row_max_bytes: Bytes(64 * MIB, 64 * 1024),
    /** Large values in flight per node; beyond it requests get `busy`. */
    io_buffer_bytes: Bytes(32 * MIB, 8 * MIB),
    /** Everything stored is read again this often, at this rate, to find damage. */
    scrub_hours: z.number().positive().max(8760).default(24),
    scrub_bytes_per_second: Bytes(16 * MIB, 64 * 1024),
    /** How fast a node hands out checkpoints, and fetches values, to fill a replica. */
    transfer_mib_per_s: z.number().min(1).max(10_000).default(20),
    /** A tablet that moves to another group is copied at this rate. */
    move_bytes_per_second: Bytes(16 * MIB, 64 * 1024),
  }).prefault({}),
  coordinator: z.strictObject({
    metadata: z.enum(["sqlite"]).default("sqlite"),
  }).prefault({}),
  balancer: z.strictObject({
    policy: z.enum(["round-robin", "least-connections"]).default("round-robin"),
    health_interval_ms: Ms(1000, 100, 60_000),
  }).prefault({}),
  mail: z.strictObject({
    smtp_port: Port.default(2525),
    submission_port: Port.default(2587),
    submissions_port: Port.default(2465),
    /** Smarthost for outside mail, `smtp://[user:password@]host:port`; empty: deliver by MX. */
    relay: z.string().default(""),
    message_max_bytes: Bytes(25 * MIB, 64 * 1024, 100 * MIB),
    recipients_max: z.int().min(1).max(1000).default(100),
    /** PEM files; empty: a self-signed certificate made at the first start. */
    tls_cert: z.string().default(""),
    tls_key: z.string().default(""),
    /** Give up on an outside recipient after this long, then tell the sender. */
    retry_hours: z.int().min(1).max(240).default(48),
  }).prefault({}),
  drive: z.strictObject({
    chunk_bytes: Bytes(4 * MIB, 64 * 1024, 4 * MIB),
    /** Per user; 0 for no limit. */
    quota_bytes: Bytes(0, 0, Number.MAX_SAFE_INTEGER),
    file_max_bytes: Bytes(64 * 1024 * MIB, MIB, Number.MAX_SAFE_INTEGER),
    trash_days: z.int().min(1).max(3650).default(30),
    /** An upload that is not finished after this long is swept away. */
    upload_hours: z.int().min(1).max(720).default(24),
  }).prefault({}),
  web: z.strictObject({
    session_days: z.int().min(1).max(365).default(14),
    /** `open`: anybody may sign up. `closed`: only an admin makes accounts. */
    signup: z.enum(["open", "closed"]).default("open"),
    /** Set when users reach the frontends over TLS (a proxy in front): marks cookies Secure. */
    https: z.boolean().default(false),
    /** How users reach the cluster, for links in redirects; empty: as the request says. */
    public_host: z.string().default(""),
  }).prefault({}),
}).superRefine((config, context) => {
  const issue = (path: (string | number)[], message: string) =>
    context.addIssue({ code: "custom", path, message });
  const names = new Set<string>(), ports = new Set<string>();
  config.node.forEach((node, index) => {
    const name = `${node.role}/${node.id}`, port = `${node.host}:${node.port}`;
    if (names.has(name)) issue(["node", index, "id"], `an id that no other ${node.role} has`);
    if (ports.has(port)) {
      issue(["node", index, "port"], `a port that no other node on ${node.host} has`);
    }
    names.add(name);
    ports.add(port);
  });
  const backends = config.node.filter((node) => node.role === "backend").length;
  if (backends === 0) issue(["node"], 'at least one node with role = "backend"');
  if (config.node.filter((node) => node.role === "coordinator").length !== 1) {
    issue(["node"], 'exactly one node with role = "coordinator"');
  }
  const { replicas, min_in_sync, split_keys, lease_ms, grace_ms, heartbeat_ms } = config.store;
  if (!config.store.trust_fsync && min_in_sync < 2) {
    issue(
      ["store", "trust_fsync"],
      "true, or store.min_in_sync of at least 2: one copy proves nothing",
    );
  }
  if (min_in_sync > replicas) {
    issue(["store", "min_in_sync"], `at most store.replicas (${replicas})`);
  }
  if (replicas > backends) {
    issue(["store", "replicas"], `at most the number of backends (${backends})`);
  }
  if (split_keys !== undefined) {
    if (split_keys.length !== backends - 1) {
      issue(["store", "split_keys"], `one fewer than backends, so ${backends - 1} keys`);
    }
    for (let i = 1; i < split_keys.length; i++) {
      if (compareKeys(split_keys[i - 1]!, split_keys[i]!) >= 0) {
        issue(["store", "split_keys", i], "keys in ascending order, none twice");
      }
    }
  }
  // GRACE counts from receipt, LEASE from sending, on two clocks that may drift apart by 1 %.
  if (grace_ms * 0.99 < lease_ms * 1.01 + 50) {
    issue(
      ["store", "grace_ms"],
      `at least lease_ms * 1.03 + 60 (${Math.ceil(lease_ms * 1.03 + 60)})`,
    );
  }
  if (heartbeat_ms * 3 > lease_ms) issue(["store", "heartbeat_ms"], "at most a third of lease_ms");
});
export type ClusterConfig = z.infer<typeof ClusterConfig>;

/** Where a node answers /livez, /readyz and /metrics: at its own port where that speaks HTTP. */
export function opsPort(node: Pick<NodeEntry, "role" | "port">): number {
  return node.role === "frontend" || node.role === "balancer" ? node.port : node.port + 1000;
}

/** One replica group as the configuration wishes it at the first start. */
export interface GroupPlan {
  readonly id: number;
  readonly startKey: string;
  readonly endKey: string | null;
  /** Backend ids; the first is the preferred primary. */
  readonly members: readonly number[];
}

/** The groups that a new cluster begins with: one for each key range, so one for each backend. */
export function planGroups(config: ClusterConfig): GroupPlan[] {
  const backends = config.node.filter((node) => node.role === "backend")
    .map((node) => node.id).sort((a, b) => a - b);
  const count = backends.length, { replicas } = config.store;
  const splitKeys = config.store.split_keys ?? evenSplitKeys(count);
  return Array.from({ length: splitKeys.length + 1 }, (_, index) => {
    const members: number[] = [];
    const setStart = index - (index % replicas);
    for (let k = 0; k < replicas; k++) {
      const place = count % replicas === 0
        ? setStart + ((index - setStart + k) % replicas)
        : (index + k) % count;
      members.push(backends[place]!);
    }
    return {
      id: index + 1,
      startKey: index === 0 ? "" : splitKeys[index - 1]!,
      endKey: splitKeys[index] ?? null,
      members,
    };
  });
}

function evenSplitKeys(groups: number): string[] {
  const keys: string[] = [];
  for (let i = 1; i < groups; i++) {
    const position = (26 * i) / groups;
    const first = Math.floor(position), second = Math.floor((position - first) * 26);
    const letter = (n: number) => String.fromCharCode(97 + n);
    keys.push(second === 0 ? letter(first) : letter(first) + letter(second));
  }
  return keys;
}

/** Every port of the configuration plus `offset`, so that several clusters fit on one machine. */
export function withPortOffset(config: ClusterConfig, offset: number): ClusterConfig {
  return {
    ...config,
    cluster: { ...config.cluster, supervisor_port: config.cluster.supervisor_port + offset },
    node: config.node.map((node) => ({ ...node, port: node.port + offset })),
    mail: {
      ...config.mail,
      smtp_port: config.mail.smtp_port + offset,
      submission_port: config.mail.submission_port + offset,
      submissions_port: config.mail.submissions_port + offset,
    },
  };
}
