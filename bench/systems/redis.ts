/** Redis: a master and two replicas, each with an append-only file that is fsynced at every turn. */
import { join } from "node:path";
import { RespConnection } from "../clients/resp_connection.ts";
import type { KvWorkload } from "../load/kv_workload.ts";
import {
  endProcess,
  freePorts,
  type RunningSystem,
  spawnServer,
  type System,
  until,
  versionOf,
} from "./system.ts";

export class Redis implements System {
  readonly name = "redis";

  async whyNot(workload?: KvWorkload): Promise<string | null> {
    if (workload === "scan") return "Redis keeps its keys in no order";
    const version = await versionOf("redis-server", ["--version"], /v=(\S+)/);
    return version === null ? "no program redis-server is installed" : null;
  }

  async start(dir: string): Promise<RunningSystem> {
    const version = await versionOf("redis-server", ["--version"], /v=(\S+)/);
    const ports = freePorts(3), [master] = ports as [number];
    const servers: Deno.ChildProcess[] = [];
    for (const [n, port] of ports.entries()) {
      const own = join(dir, `redis-${n}`);
      await Deno.mkdir(own, { recursive: true });
      const flags = {
        port: String(port),
        bind: "127.0.0.1",
        dir: own,
        appendonly: "yes",
        appendfsync: "always",
        save: "",
      };
      const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
      const replica = n === 0 ? [] : ["--replicaof", "127.0.0.1", String(master)];
      servers.push(spawnServer("redis-server", [...args, ...replica], join(dir, `redis-${n}.log`)));
    }
    const stop = async () => {
      await Promise.all(servers.map(endProcess));
    };
    try {
      await until(() => bothReplicasAreOnline(master), "the replicas of Redis");
    } catch (error) {
      await stop();
      throw error;
    }
    return {
      name: this.name,
      about: `Redis ${version}, master and two replicas, appendfsync always, WAIT 2 ` +
        "(which counts receipt, not the replicas' fsync)",
      target: { system: "redis", port: master },
      pids: () => servers.map(({ pid }) => pid),
      counters: () => Promise.resolve({}),
      stop,
    };
  }
}

async function bothReplicasAreOnline(port: number): Promise<true | null> {
  const connection = await RespConnection.connect(port);
  try {
    const written = await connection.call(["SET", "bench", "ready"]);
    const replicas = await connection.call(["WAIT", "2", "500"]);
    return written === "OK" && replicas === 2 ? true : null;
  } finally {
    connection.close();
  }
}
