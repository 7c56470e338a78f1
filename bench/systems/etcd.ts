/** etcd: three members with their defaults (every entry is fsynced), spoken to over gRPC. */
import { join } from "node:path";
import {
  endProcess,
  freePorts,
  type RunningSystem,
  spawnServer,
  type System,
  until,
  versionOf,
} from "./system.ts";

/** The default quota of 2 GiB is soon full of old revisions of large values. */
const QUOTA_BYTES = 8 * 1024 ** 3;

export interface RunningEtcd extends RunningSystem {
  /** The member that leads now, by its place in the list. */
  leader(): Promise<number>;
  /** kill -9, and the same member started again. */
  crash(member: number): Promise<void>;
  restart(member: number): Promise<void>;
}

export class Etcd implements System {
  readonly name = "etcd";

  async whyNot(): Promise<string | null> {
    const version = await versionOf("etcd", ["--version"], /etcd Version: (\S+)/);
    return version === null ? "no program etcd is installed" : null;
  }

  async start(dir: string): Promise<RunningEtcd> {
    const version = await versionOf("etcd", ["--version"], /etcd Version: (\S+)/);
    const ports = freePorts(6), clients = ports.slice(0, 3), peers = ports.slice(3);
    const cluster = peers.map((port, n) => `m${n}=http://127.0.0.1:${port}`).join(",");
    const spawn = (n: number, state: "new" | "existing") =>
      spawnServer("etcd", [
        `--name=m${n}`,
        `--data-dir=${join(dir, `etcd-${n}`)}`,
        `--listen-client-urls=http://127.0.0.1:${clients[n]}`,
        `--advertise-client-urls=http://127.0.0.1:${clients[n]}`,
        `--listen-peer-urls=http://127.0.0.1:${peers[n]}`,
        `--initial-advertise-peer-urls=http://127.0.0.1:${peers[n]}`,
        `--initial-cluster=${cluster}`,
        `--initial-cluster-state=${state}`,
        `--quota-backend-bytes=${QUOTA_BYTES}`,
        "--logger=zap",
        "--log-level=error",
      ], join(dir, `etcd-${n}.log`));
    const members = clients.map((_, n) => spawn(n, "new"));
    const stop = async () => {
      await Promise.all(members.map(endProcess));
    };
    const leader = () => until(() => findLeader(clients), "a leader of etcd");
    try {
      const first = await leader();
      return {
        name: this.name,
        about: `etcd ${version}, three members, fsync before every acknowledgement`,
        // The leader first: a request to another member takes one more hop.
        target: {
          system: "etcd",
          ports: [first, ...[0, 1, 2].filter((n) => n !== first)].map((n) => clients[n]!),
        },
        pids: () => members.map(({ pid }) => pid),
        counters: async () => ({ fsyncs: await sumOfFsyncs(clients) }),
        leader,
        async crash(member) {
          await endProcess(members[member]!);
        },
        async restart(member) {
          members[member] = spawn(member, "existing");
          await until(() => findLeader(clients, 3), "all members of etcd");
        },
        stop,
      };
    } catch (error) {
      await stop();
      throw error;
    }
  }
}

/** Null until at least `wanted` members answer and agree on a leader that is among them. */
async function findLeader(ports: readonly number[], wanted = 2): Promise<number | null> {
  const answers = await Promise.all(ports.map(async (port, member) => {
    try {
      const response = await fetch(`http://127.0.0.1:${port}/v3/maintenance/status`, {
        method: "POST",
        body: "{}",
        signal: AbortSignal.timeout(1_000),
      });
      const { leader, header } = await response.json();
      return { member, leader: leader as string | undefined, id: header?.member_id as string };
    } catch {
      return null;
    }
  }));
  const known = answers.filter((answer) => answer !== null);
  const leaders = new Set(known.map(({ leader }) => leader));
  const [leader] = leaders;
  if (known.length < wanted || leaders.size !== 1 || !leader || leader === "0") return null;
  return known.find(({ id }) => id === leader)?.member ?? null;
}

async function sumOfFsyncs(ports: readonly number[]): Promise<number> {
  let sum = 0;
  for (const port of ports) {
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    sum += Number(text.match(/^etcd_disk_wal_fsync_duration_seconds_count (\S+)$/m)?.[1] ?? 0);
  }
  return sum;
}
