/**
 * A cluster spread over hosts, for faults that take a whole host: one `penncloud up` and one data
 * folder for each host, all on this machine.
 *
 * The coordinator and a frontend have a host of their own (127.0.0.2), so that they can outlive any
 * backend's host. The backends lie on three more (127.0.0.3 to 127.0.0.5), one of each trio on each, as in
 * cluster.hosts.toml. Hosts get copies of the cluster's secret, as an operator would make them.
 *
 * With links, whatever the nodes of one host say to those of another goes through a link for each host
 * and node, which a fault can cut. Clients are not behind links: what they see is what the store
 * does, not what the network did to them.
 *
 * Everything lies below one folder, which stays behind when a campaign has failed.
 */
import { join } from "node:path";
import type { KvClient } from "../../kv/client.ts";
import type { MutantName } from "../../kv/mutant.ts";
import type { ClusterConfig, GroupPlan, NodeEntry, Role } from "../../proto/cluster_config.ts";
import { opsPort, planGroups } from "../../proto/cluster_config.ts";
import type { ClusterStatus } from "../../proto/cluster_status.ts";
import type { SupervisedProcess } from "../../proto/supervision.ts";
import { markAdminMade, openClusterFolder } from "../../roles/cluster_folder.ts";
import { loadConfig } from "../../roles/config_file.ts";
import { realEnv } from "../../roles/env.ts";
import { connectKv, type KvConnection } from "../../roles/kv_connection.ts";
import { openLog } from "../../roles/log.ts";
import { supervisorOf } from "../../roles/supervisor_client.ts";
import { statusOf } from "../cluster/cluster_calls.ts";
import { PENNCLOUD, processesOf } from "../cluster/harness.ts";
import { freeOffset } from "../cluster/test_ports.ts";
import { SmallDisk } from "../cluster/small_disks.ts";
import { eventually } from "../eventually.ts";
import { LinkNet } from "./link_net.ts";

const MUTATED_MAIN = join(import.meta.dirname!, "mutated_main.ts");
const COPIED = ["cluster.json", "secret", "tls_cert.pem", "tls_key.pem"];
const FIRST_HOST = "127.0.0.2";
const BACKEND_HOSTS = 3;
const START_DEADLINE_MS = 90_000;
const STOP_DEADLINE_MS = 30_000;
const OUTPUT_KEPT_CHARS = 4_000;

export interface FaultClusterOptions {
  /** A multiple of three. */
  readonly backends: number;
  /** Lines for `[store]`. */
  readonly store?: string;
  /** Puts links between the hosts. */
  readonly links?: boolean;
  /** Gives each backend a disk of its own of this size, which can be made full. */
  readonly diskMib?: number;
  /** Runs a program with this deliberate bug, to see whether a campaign finds it. */
  readonly mutant?: MutantName;
}

/** One host: its supervisor and the nodes that the configuration places on its address. */
export class FaultHost {
  readonly #configFile: string;
  readonly #mutant: MutantName | undefined;
  #process: Deno.ChildProcess | null = null;
  /** Processes killed together with the whole host, supervisors included. */
  killCount = 0;
  /** The last that its supervisor has printed, over all its lives. */
  output = "";

  constructor(
    readonly address: string,
    readonly dir: string,
    readonly nodes: readonly NodeEntry[],
    options: { readonly configFile: string; readonly mutant?: MutantName | undefined },
  ) {
    this.#configFile = options.configFile;
    this.#mutant = options.mutant;
  }

  /** Of the link over which this host's nodes reach that one. */
  linkTo(node: string): string {
    return `${this.address}>${node}`;
  }

  start(): void {
    if (this.#process !== null) return;
    const process = new Deno.Command(Deno.execPath(), {
      args: [
        ...(this.#mutant === undefined ? PENNCLOUD : [...PENNCLOUD.slice(0, -1), MUTATED_MAIN]),
        "up",
        "--config",
        this.#configFile,
        "--data",
        this.dir,
        "--host",
        this.address,
      ],
      env: {
        NO_COLOR: "1",
        ...(this.#mutant === undefined ? {} : { PENNCLOUD_TEST_MUTANT: this.#mutant }),
      },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#process = process;
    for (const stream of [process.stdout, process.stderr]) void this.#keepOutput(stream);
  }

  /** SIGKILL for the supervisor and everything it runs, as when the power goes. */
  async crash(): Promise<void> {
    const process = this.#process;
    if (process === null) return;
    const pids = new Set([process.pid, ...processesOf(this.dir)]);
    for (const pid of pids) sendSignal(pid, "SIGKILL");
    this.killCount += pids.size;
    await this.#gone(process);
  }

  /** SIGTERM; every node ends in good order. */
  async stop(): Promise<void> {
    const process = this.#process;
    if (process === null) return;
    sendSignal(process.pid, "SIGTERM");
    const timer = setTimeout(() => void this.crash(), STOP_DEADLINE_MS);
    await this.#gone(process);
    clearTimeout(timer);
  }

  async #gone(process: Deno.ChildProcess): Promise<void> {
    await process.status;
    await eventually(() => processesOf(this.dir).length === 0, `${this.address} to be empty`);
    this.#process = null;
  }

  async #keepOutput(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const bytes of stream) {
      this.output = (this.output + decoder.decode(bytes, { stream: true }))
        .slice(-OUTPUT_KEPT_CHARS);
    }
  }
}

export class FaultCluster {
  readonly groups: readonly GroupPlan[];
  readonly #connections: KvConnection[] = [];
  #killCount = 0;

  private constructor(
    /** As clients see it. */
    readonly config: ClusterConfig,
    /** Below it lie the hosts' folders and configurations. */
    readonly dir: string,
    readonly hosts: readonly FaultHost[],
    readonly secret: Uint8Array,
    readonly clusterId: string,
    /** Null without links. */
    readonly net: LinkNet | null,
    /** By the name of the backend. */
    readonly disks: ReadonlyMap<string, SmallDisk>,
  ) {
    this.groups = planGroups(config);
  }

  static async start(options: FaultClusterOptions): Promise<FaultCluster> {
    const dir = await Deno.makeTempDir({ prefix: "penncloud-faults-" });
    const configFile = join(dir, "cluster.toml");
    const offset = await offsetFor(configFile, options);
    const { config } = await loadConfig({ path: configFile });
    const net = options.links === true ? new LinkNet() : null;
    const hosts: FaultHost[] = [];
    for (const address of new Set(config.node.map((node) => node.host))) {
      const nodes = config.node.filter((node) => node.host === address);
      const file = join(dir, `host-${hosts.length}.toml`);
      const host = new FaultHost(address, join(dir, `host-${hosts.length}`), nodes, {
        configFile: file,
        mutant: options.mutant,
      });
      hosts.push(host);
      const places = new Map<string, Place>();
      for (const node of net === null ? [] : config.node) {
        const name = nameOf(node), target = { hostname: node.host, port: node.port };
        if (node.host === address) continue;
        const port = await net!.open(host.linkTo(name), target);
        places.set(name, { host: "127.0.0.1", port });
      }
      await Deno.writeTextFile(file, configText({ ...options, offset, places }));
    }
    const { secret, clusterId } = await makeFolders(hosts, config);
    const disks = await mountDisks(hosts, options.diskMib);
    const cluster = new FaultCluster(config, dir, hosts, secret, clusterId, net, disks);
    try {
      for (const host of hosts) host.start();
      await cluster.waitWhole({ withinMs: START_DEADLINE_MS });
      return cluster;
    } catch (error) {
      for (const host of hosts) await host.crash();
      net?.close();
      for (const disk of disks.values()) await disk.unmount();
      const said = hosts.map((host) => `${host.address}: ${host.output}`).join("\n");
      throw new Error(`The cluster in ${dir} did not start:\n${said}`, { cause: error });
    }
  }

  get backends(): string[] {
    return this.config.node.filter((node) => node.role === "backend")
      .map((node) => nameOf(node));
  }

  node(name: string): NodeEntry {
    const node = this.config.node.find((entry) => nameOf(entry) === name);
    if (node === undefined) throw new Error(`The cluster has no node ${name}`);
    return node;
  }

  opsUrl(name: string): string {
    const node = this.node(name);
    return `http://${node.host}:${opsPort(node)}`;
  }

  hostOf(name: string): FaultHost {
    const { host } = this.node(name);
    return this.hosts.find(({ address }) => address === host)!;
  }

  /** The node's own data folder. */
  dataDirOf(name: string): string {
    return join(this.hostOf(name).dir, name.replace("/", "-"));
  }

  /** A client with connections of its own. */
  connect(): KvClient {
    return this.connection().kv;
  }

  connection(): KvConnection {
    const connection = connectKv({
      config: this.config,
      node: { role: "client" as Role, id: this.#connections.length, host: "", port: 0, zone: "" },
      dataDir: "",
      clusterDir: this.dir,
      secret: this.secret,
      clusterId: this.clusterId,
      spawnId: "",
      env: realEnv({ node: "test", log: openLog({ node: "test", threshold: "off" }) }),
    });
    this.#connections.push(connection);
    return connection;
  }

  supervisorOf(name: string) {
    return supervisorOf({ config: this.config, secret: this.secret }, this.node(name));
  }

  async process(name: string): Promise<SupervisedProcess> {
    const { role, id } = this.node(name);
    const processes = await this.supervisorOf(name).list();
    return processes.find((it) => it.role === role && it.id === id)!;
  }

  async pidOf(name: string): Promise<number> {
    const { pid } = await this.process(name);
    if (pid === null) throw new Error(`${name} does not run`);
    return pid;
  }

  /** Processes that were ended by SIGKILL so far. */
  get killCount(): number {
    return this.hosts.reduce((sum, host) => sum + host.killCount, this.#killCount);
  }

  /** kill -9 behind its supervisor's back, which starts it again. */
  sigkill(pid: number): void {
    sendSignal(pid, "SIGKILL");
    this.#killCount += 1;
  }

  /** Until the supervisor knows that this process is gone: before that the cluster looks whole. */
  async waitGone(name: string, pid: number): Promise<void> {
    const gone = async () => (await this.process(name)).pid !== pid;
    await eventually(gone, `the supervisor to see ${name} gone`, { withinMs: 30_000 });
  }

  /** kill -9 through its supervisor: it stays down. */
  async killNode(name: string): Promise<void> {
    await this.supervisorOf(name).kill();
    this.#killCount += 1;
  }

  /** Starts the node, unless it runs already, without waiting for its supervisor's patience. */
  async startNode(name: string): Promise<void> {
    const { state } = await this.process(name);
    if (state === "waiting" || state === "stopped") await this.supervisorOf(name).restart();
  }

  status(): Promise<ClusterStatus> {
    return statusOf(this);
  }

  /** Why the cluster is not whole: every node up, every tablet with all of its replicas. Else null. */
  async whatIsMissing(): Promise<string | null> {
    try {
      const { nodes, tablets } = await this.status();
      for (const host of this.hosts) {
        for (const { role, id, pid } of await this.supervisorOf(nameOf(host.nodes[0]!)).list()) {
          const name = `${role}/${id}`;
          const reported = nodes.find((node) => node.name === name);
          if (pid === null) return `${name} does not run`;
          if (reported?.pid !== pid || reported.state !== "live") return `${name} is not back`;
        }
      }
      const ill = tablets.find(({ state }) => state !== "healthy");
      return ill === undefined ? null : `tablet ${ill.id} is ${ill.state}`;
    } catch (error) {
      return (error as Error).message;
    }
  }

  async waitWhole({ withinMs }: { withinMs: number }): Promise<void> {
    let missing: string | null = null;
    await eventually(async () => (missing = await this.whatIsMissing()) === null, "", {
      withinMs,
      everyMs: 100,
    }).catch((cause) => {
      throw new Error(`The cluster is not whole after ${withinMs} ms: ${missing}`, { cause });
    });
  }

  disconnect(): void {
    for (const connection of this.#connections.splice(0)) connection.close();
  }

  /** Ends every process. The folder stays. */
  async stop(): Promise<void> {
    this.disconnect();
    const [coordinator, ...others] = this.hosts;
    await Promise.all(others.map((host) => host.stop()));
    await coordinator!.stop();
    this.net?.close();
  }

  async removeFolder(): Promise<void> {
    for (const disk of this.disks.values()) await disk.unmount();
    await Deno.remove(this.dir, { recursive: true });
  }
}

export const nameOf = ({ role, id }: Pick<NodeEntry, "role" | "id">): string => `${role}/${id}`;

export function sendSignal(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal);
  } catch (error) {
    // It ended by itself a moment ago.
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** The cluster is made on the first host; the others get copies, as from an operator. */
async function makeFolders([first, ...others]: readonly FaultHost[], config: ClusterConfig) {
  const folder = await openClusterFolder(first!.dir, { config, create: true });
  // There are no accounts here, and a store that is under attack is no place to make one.
  await markAdminMade(first!.dir);
  for (const host of others) {
    await Deno.mkdir(host.dir);
    for (const name of COPIED) await Deno.copyFile(join(first!.dir, name), join(host.dir, name));
  }
  return folder;
}

async function mountDisks(
  hosts: readonly FaultHost[],
  mib: number | undefined,
): Promise<Map<string, SmallDisk>> {
  const disks = new Map<string, SmallDisk>();
  for (const { dir, nodes } of mib === undefined ? [] : hosts) {
    for (const node of nodes) {
      if (node.role !== "backend") continue;
      disks.set(nameOf(node), await SmallDisk.mount(join(dir, `backend-${node.id}`), mib!));
    }
  }
  return disks;
}

/** Writes the configuration that clients have, with free ports; gives what was added to them. */
async function offsetFor(configFile: string, options: FaultClusterOptions): Promise<number> {
  const write = (offset: number) =>
    Deno.writeTextFile(configFile, configText({ ...options, offset, places: new Map() }));
  await write(0);
  const offset = await freeOffset(configFile);
  await write(offset);
  return offset;
}

interface Place {
  readonly host: string;
  readonly port: number;
}

function configText(
  { backends, store = "", offset, places }: FaultClusterOptions & {
    readonly offset: number;
    /** Where nodes are that are not where they listen: at the near end of a link. */
    readonly places: ReadonlyMap<string, Place>;
  },
): string {
  const node = (role: string, id: number, ownHost: string, ownPort: number) => {
    const own = { host: ownHost, port: ownPort + offset };
    const { host, port } = places.get(`${role}/${id}`) ?? own;
    return `[[node]]\nrole = "${role}"\nid = ${id}\nhost = "${host}"\nport = ${port}\n`;
  };
  const nodes = [
    node("coordinator", 0, FIRST_HOST, 9999),
    node("frontend", 0, FIRST_HOST, 8000),
  ];
  for (let id = 0; id < backends; id++) {
    nodes.push(node("backend", id, `127.0.0.${3 + id % BACKEND_HOSTS}`, 10_000 + id));
  }
  const supervisorPort = 9_998 + offset;
  return `[cluster]\nname = "faults"\nsupervisor_port = ${supervisorPort}\n\n[store]\n${store}\n\n` +
    nodes.join("\n");
}
