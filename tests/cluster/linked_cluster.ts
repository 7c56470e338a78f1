/**
 * Three backends and a coordinator as real processes whose every connection to each other runs
 * through a link of the test's: it can be cut, stalled or slowed, and it counts what passes.
 *
 * Each process is given a configuration of its own, in which the others live at the ports of its
 * links. No supervisor: the nodes are started by hand, as an operator may do. The client is not
 * behind a link, so what it sees is what the store does, not what the network did to the client.
 */
import { join } from "node:path";
import type { Kv } from "../../kv/kv.ts";
import type { ClusterConfig, Role } from "../../proto/cluster_config.ts";
import { opsPort } from "../../proto/cluster_config.ts";
import { openClusterFolder } from "../../roles/cluster_folder.ts";
import { loadConfig } from "../../roles/config_file.ts";
import { realEnv } from "../../roles/env.ts";
import { connectKv } from "../../roles/kv_connection.ts";
import { openLog } from "../../roles/log.ts";
import { eventually } from "../eventually.ts";
import { PENNCLOUD, processesOf, runPenncloud } from "./harness.ts";
import { freeOffset } from "./test_ports.ts";
import { Link } from "./link.ts";

const BACKEND_COUNT = 3;
const STOP_DEADLINE_MS = 60_000;
/** Every node with the port that it has before the offset. */
const NODES = [
  { name: "coordinator/0", port: 9999 },
  ...Array.from({ length: BACKEND_COUNT }, (_, id) => ({
    name: `backend/${id}`,
    port: 10_000 + id,
  })),
];

export class LinkedCluster {
  readonly #children = new Map<string, Deno.ChildProcess>();
  readonly #closeKv: () => void;

  constructor(
    readonly config: ClusterConfig,
    readonly configFile: string,
    readonly dir: string,
    readonly rootDir: string,
    /** `backend/0>backend/2`: what the first says to the second, having called it, and its answers. */
    readonly links: ReadonlyMap<string, Link>,
    readonly kv: Kv,
    closeKv: () => void,
  ) {
    this.#closeKv = closeKv;
  }

  start(name: string, configFile: string): void {
    const [role, id] = name.split("/");
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        ...PENNCLOUD,
        `--role=${role}`,
        `--id=${id}`,
        "--config",
        configFile,
        "--data",
        this.dir,
      ],
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    this.#children.set(name, child);
  }

  /** Compares the digests of all replicas, as an operator would. */
  async replicasEqual(): Promise<boolean> {
    const args = ["admin", "verify", "--json", "--config", this.configFile, "--data", this.dir];
    const { code, stdout } = await runPenncloud(args);
    if (code !== 0) return false;
    const { groups } = JSON.parse(stdout);
    return groups.length === BACKEND_COUNT &&
      groups.every((group: { verdict: string; replicas: unknown[] }) =>
        group.verdict === "equal" && group.replicas.length === BACKEND_COUNT
      );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closeKv();
    for (const link of this.links.values()) link.heal();
    const children = [...this.#children.values()];
    for (const child of children) child.kill("SIGINT");
    const timer = setTimeout(
      () => children.forEach((child) => child.kill("SIGKILL")),
      STOP_DEADLINE_MS,
    );
    await Promise.all(children.map((child) => child.status));
    clearTimeout(timer);
    for (const link of this.links.values()) link.close();
    await eventually(() => processesOf(this.dir).length === 0, "every process to be gone");
    await Deno.remove(this.rootDir, { recursive: true });
  }
}

/** Starts it and waits until every tablet is served. `store` goes into all configurations. */
export async function startLinkedCluster(store = ""): Promise<LinkedCluster> {
  const dir = await Deno.makeTempDir({ prefix: "penncloud-links-" });
  const files = await Deno.makeTempDir({ prefix: "penncloud-files-", dir });
  const configFile = join(files, "cluster.toml");
  await Deno.writeTextFile(configFile, configText({ store, portOf: (node) => node.port }));
  const offset = await freeOffset(configFile);
  const data = join(dir, "data");
  const links = new Map<string, Link>();
  for (const from of NODES) {
    for (const to of NODES) {
      if (from !== to) links.set(`${from.name}>${to.name}`, Link.open(to.port + offset));
    }
  }
  const write = async (self: string | null): Promise<string> => {
    const file = join(files, `${(self ?? "outside").replace("/", "-")}.toml`);
    const portOf = (node: { name: string; port: number }) =>
      links.get(`${self}>${node.name}`)?.port ?? node.port + offset;
    await Deno.writeTextFile(file, configText({ store, portOf }));
    return file;
  };
  const outside = await write(null);
  const { config } = await loadConfig({ path: outside, portOffset: 0 });
  const folder = await openClusterFolder(data, { config, create: true });
  const connection = connectKv({
    config,
    node: { role: "client" as Role, id: 0, host: "", port: 0, zone: "" },
    dataDir: "",
    clusterDir: data,
    secret: folder.secret,
    clusterId: folder.clusterId,
    spawnId: "",
    env: realEnv({ node: "test", log: openLog({ node: "test", threshold: "off" }) }),
  });
  const cluster = new LinkedCluster(
    config,
    outside,
    data,
    dir,
    links,
    connection.kv,
    connection.close,
  );
  try {
    for (const { name } of NODES) cluster.start(name, await write(name));
    for (const node of config.node) {
      await eventually(() => isReady(`http://127.0.0.1:${opsPort(node)}`), "a node to be ready", {
        withinMs: 90_000,
        everyMs: 50,
      });
    }
    return cluster;
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
}

async function isReady(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/readyz`);
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

function configText(options: {
  store: string;
  portOf: (node: { name: string; port: number }) => number;
}): string {
  const nodes = NODES.map((node) => {
    const [role, id] = node.name.split("/");
    return `[[node]]\nrole = "${role}"\nid = ${id}\nport = ${options.portOf(node)}\n`;
  });
  return `[cluster]\nname = "links"\n\n[store]\n${options.store}\n\n${nodes.join("\n")}`;
}
