/**
 * A whole cluster of real processes for a test: `penncloud up` on free ports and a fresh folder.
 *
 *     await using cluster = await startCluster();
 *     await put(cluster.kv, "row", "column", "value");
 *     await cluster.crash("backend/1");        // kill -9 behind the supervisor's back
 *     await cluster.waitReady("backend/1");    // the supervisor has brought it back
 *
 * Stopping fails the test when a process is left behind. The logs of a cluster that did not start are
 * printed. Three backends by default; `config: "cluster.toml"` for the nine.
 */
import { dirname, join } from "node:path";
import type { KvClient } from "../../kv/client.ts";
import type { Kv } from "../../kv/kv.ts";
import type { ClusterConfig, NodeEntry, Role } from "../../proto/cluster_config.ts";
import { opsPort } from "../../proto/cluster_config.ts";
import type { SupervisedProcess } from "../../proto/supervision.ts";
import { openClusterFolder } from "../../roles/cluster_folder.ts";
import { loadConfig } from "../../roles/config_file.ts";
import { realEnv } from "../../roles/env.ts";
import { connectKv, type KvConnection } from "../../roles/kv_connection.ts";
import { openLog } from "../../roles/log.ts";
import { supervisorOf } from "../../roles/supervisor_client.ts";
import { eventually } from "../eventually.ts";
import { PatientKv } from "../faults/patient_kv.ts";
import { freeOffset, releaseOffset } from "./test_ports.ts";

/** What the runtime says when another test starts it from the same folder in the same moment. */
const RUNTIME_WAITS = /^Blocking waiting for file lock .*\n/gm;

export const REPOSITORY = dirname(dirname(import.meta.dirname!));
/** For what never happens, on a machine that has much else to do. */
const START_DEADLINE_MS = 120_000;
const STOP_DEADLINE_MS = 60_000;
const NODE_READY_DEADLINE_MS = 90_000;

export interface ClusterOptions {
  /** A file in the repository, or an absolute path. Default: cluster.small.toml. */
  readonly config?: string;
  /** Default: random, with free ports. */
  readonly offset?: number;
  /** An existing data folder to start on; it is then left in place. Default: a fresh one. */
  readonly dir?: string;
  readonly only?: readonly Role[];
  readonly env?: Readonly<Record<string, string>>;
}

/** One line of `penncloud up --json`. */
export interface UpEvent {
  readonly event: string;
  readonly [field: string]: unknown;
}

export class TestCluster {
  /** Of the first start on this folder, else null. */
  adminPassword: string | null = null;
  /** Everything `up` has said so far. */
  readonly events: UpEvent[] = [];
  readonly #up: Deno.ChildProcess;
  readonly #ownsDir: boolean;
  #connection: KvConnection | null = null;
  #secret: Uint8Array = new Uint8Array(0);
  #clusterId = "";
  #stopped = false;

  constructor(
    readonly config: ClusterConfig,
    readonly dir: string,
    readonly portOffset: number,
    up: Deno.ChildProcess,
    ownsDir: boolean,
  ) {
    this.#up = up;
    this.#ownsDir = ownsDir;
  }

  /** Of the supervisor. */
  get pid(): number {
    return this.#up.pid;
  }

  get upStatus(): Promise<Deno.CommandStatus> {
    return this.#up.status;
  }

  /** Where browsers go: the balancer, or the first frontend. */
  get baseUrl(): string {
    const door = this.config.node.find((node) => node.role === "balancer") ??
      this.config.node.find((node) => node.role === "frontend")!;
    return `http://${door.host}:${door.port}`;
  }

  get secret(): Uint8Array {
    return this.#secret;
  }

  /** The store, for those who can wait: how long something takes is not what most tests are about. */
  get kv(): Kv {
    return new PatientKv(this.client);
  }

  /** The store's client, as a frontend has it. */
  get client(): KvClient {
    this.#connection ??= connectKv({
      config: this.config,
      node: { role: "client" as Role, id: 0, host: "", port: 0, zone: "" },
      dataDir: "",
      clusterDir: this.dir,
      secret: this.#secret,
      clusterId: this.#clusterId,
      spawnId: "",
      env: realEnv({ node: "test", log: openLog({ node: "test", threshold: "off" }) }),
    });
    return this.#connection.kv;
  }

  node(name: string): NodeEntry {
    const node = this.config.node.find((entry) => `${entry.role}/${entry.id}` === name);
    if (node === undefined) throw new Error(`The cluster has no node ${name}`);
    return node;
  }

  /** The URL of a node's HTTP door: pages for frontends, `/readyz` and the like for all. */
  opsUrl(name: string): string {
    const node = this.node(name);
    return `http://${node.host}:${opsPort(node)}`;
  }

  async processes(): Promise<readonly SupervisedProcess[]> {
    return await this.#supervisor(this.config.node[0]!).list();
  }

  async process(name: string): Promise<SupervisedProcess> {
    const { role, id } = this.node(name);
    const found = (await this.processes()).find((it) => it.role === role && it.id === id);
    if (found === undefined) throw new Error(`The supervisor does not know ${name}`);
    return found;
  }

  async pidOf(name: string): Promise<number> {
    const { pid } = await this.process(name);
    if (pid === null) throw new Error(`${name} does not run`);
    return pid;
  }

  /** kill -9 behind the supervisor's back: it will start the node again. */
  async crash(name: string): Promise<void> {
    await this.signal(name, "SIGKILL");
  }

  async signal(name: string, signal: Deno.Signal): Promise<void> {
    Deno.kill(await this.pidOf(name), signal);
  }

  /** Through the supervisor, as `penncloud admin kill` does: the node stays down. */
  async kill(name: string): Promise<void> {
    await this.#supervisor(this.node(name)).kill();
  }

  /** Through the supervisor; resolves when the new process has been started. */
  async restart(name: string): Promise<void> {
    await this.#supervisor(this.node(name)).restart();
  }

  async drain(name: string): Promise<void> {
    await this.#supervisor(this.node(name)).drain();
  }

  /** Waits until the node runs and says that it is ready. */
  async waitReady(name: string): Promise<void> {
    await eventually(
      async () => {
        if ((await this.process(name)).pid === null) return false;
        try {
          const response = await fetch(`${this.opsUrl(name)}/readyz`);
          await response.body?.cancel();
          return response.ok;
        } catch {
          return false;
        }
      },
      `${name} to be ready`,
      { withinMs: NODE_READY_DEADLINE_MS, everyMs: 50 },
    );
  }

  /** Waits until the node's process answers anything, be it ready or not. */
  async waitAnswering(name: string): Promise<void> {
    await eventually(
      async () => {
        const response = await fetch(`${this.opsUrl(name)}/livez`).catch(() => null);
        await response?.body?.cancel();
        return response?.ok === true;
      },
      `${name} to answer`,
      { withinMs: NODE_READY_DEADLINE_MS, everyMs: 50 },
    );
  }

  /** What the node's processes wrote. */
  async log(name: string): Promise<string> {
    const { role, id } = this.node(name);
    return await Deno.readTextFile(join(this.dir, "logs", `${role}-${id}.log`)).catch(() => "");
  }

  /** Runs `penncloud` with these arguments against this cluster. */
  async penncloud(
    args: readonly string[],
    input?: string,
  ): Promise<{ code: number; stdout: string; stderr: string }> {
    return await runPenncloud([...args, "--config", this.configFile, "--data", this.dir], input);
  }

  configFile = "";

  async started(): Promise<void> {
    const folder = await openClusterFolder(this.dir, { config: this.config, create: false });
    this.#secret = folder.secret;
    this.#clusterId = folder.clusterId;
  }

  /** SIGTERM, then checks that `up` ended well and left nothing behind. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#connection?.close();
    trySignal(this.#up.pid, "SIGTERM");
    const timer = setTimeout(() => trySignal(this.#up.pid, "SIGKILL"), STOP_DEADLINE_MS);
    const status = await this.#up.status;
    clearTimeout(timer);
    await this.cleanUp();
    if (status.code !== 0) throw new Error(`penncloud up ended with ${JSON.stringify(status)}`);
  }

  /** For tests that ended `up` themselves: waits for its nodes to go, and removes the folder. */
  async cleanUp(): Promise<void> {
    this.#stopped = true;
    this.#connection?.close();
    try {
      await eventually(() => processesOf(this.dir).length === 0, "every process to be gone", {
        withinMs: 60_000,
      });
    } catch (error) {
      for (const pid of processesOf(this.dir)) trySignal(pid, "SIGKILL");
      throw error;
    } finally {
      if (this.#ownsDir) {
        await Deno.remove(this.dir, { recursive: true }).catch(() => {});
        await releaseOffset(this.portOffset);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #supervisor(node: NodeEntry) {
    return supervisorOf({ config: this.config, secret: this.#secret }, node);
  }
}

/** Starts a cluster and waits until it is ready. */
export async function startCluster(options: ClusterOptions = {}): Promise<TestCluster> {
  const file = join(REPOSITORY, options.config ?? "cluster.small.toml");
  const configFile = options.config?.startsWith("/") ? options.config : file;
  for (let attempt = 1;; attempt++) {
    const portOffset = options.offset ?? await freeOffset(configFile);
    try {
      return await startOnce(configFile, portOffset, options);
    } catch (error) {
      // Another test may have taken a port between our look and the start.
      if (!/is taken by another program/.test(String(error)) || attempt === 5) throw error;
    }
  }
}

async function startOnce(
  configFile: string,
  portOffset: number,
  options: ClusterOptions,
): Promise<TestCluster> {
  const dir = options.dir ?? await Deno.makeTempDir({ prefix: "penncloud-" });
  const { config } = await loadConfig({ path: configFile, portOffset });
  const up = new Deno.Command(Deno.execPath(), {
    args: [
      ...PENNCLOUD,
      "up",
      "--json",
      "--config",
      configFile,
      "--data",
      dir,
      "--port-offset",
      String(portOffset),
      ...(options.only === undefined ? [] : ["--only", options.only.join(",")]),
    ],
    env: { NO_COLOR: "1", ...options.env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const cluster = new TestCluster(config, dir, portOffset, up, options.dir === undefined);
  cluster.configFile = configFile;
  const stderr = collectText(up.stderr);
  const ready = readEvents(up.stdout, cluster);
  const deadline = AbortSignal.timeout(START_DEADLINE_MS);
  const outcome = await Promise.race([
    ready.then(() => "ready" as const, () => "ended" as const),
    new Promise<"late">((resolve) => deadline.addEventListener("abort", () => resolve("late"))),
  ]);
  if (outcome === "ready") {
    await cluster.started();
    return cluster;
  }
  trySignal(up.pid, "SIGTERM");
  await up.status;
  const logs = await allLogs(dir);
  await cluster.cleanUp();
  const events = cluster.events.map((event) => JSON.stringify(event)).join("\n");
  throw new Error(
    `The cluster did not start (${outcome}):\n${events}\n${await stderr}\n${logs}`,
  );
}

/** Resolves at the event `ready`, and goes on reading; rejects when the output ends before it. */
function readEvents(stream: ReadableStream<Uint8Array>, cluster: TestCluster): Promise<void> {
  return new Promise((resolve, reject) => {
    const take = (line: string) => {
      if (!line.startsWith("{")) return;
      const event = JSON.parse(line) as UpEvent;
      cluster.events.push(event);
      if (event.event === "admin") cluster.adminPassword = event.password as string ?? null;
      if (event.event === "ready") resolve();
    };
    const readAll = async () => {
      const decoder = new TextDecoder();
      let rest = "";
      for await (const bytes of stream) {
        const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
        rest = lines.pop()!;
        lines.forEach(take);
      }
      reject(new Error("penncloud up ended"));
    };
    void readAll();
  });
}

/** How tests run this program; the same as `penncloud` for people. */
export const PENNCLOUD: readonly string[] = [
  "run",
  "-A",
  "--no-check",
  join(REPOSITORY, "main.ts"),
];

export async function runPenncloud(
  args: readonly string[],
  input?: string,
  options: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<{ code: number; stdout: string; stderr: string; stdoutBytes: Uint8Array }> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...PENNCLOUD, ...args],
    env: { NO_COLOR: "1", ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  if (input !== undefined) await writer.write(new TextEncoder().encode(input)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const ours = text(stderr).replace(RUNTIME_WAITS, "");
  return { code, stdout: text(stdout), stderr: ours, stdoutBytes: stdout };
}

/** Processes with this data folder on their command line, besides this one. */
export function processesOf(dir: string): number[] {
  const pids: number[] = [];
  for (const entry of Deno.readDirSync("/proc")) {
    const pid = Number(entry.name);
    if (!Number.isInteger(pid) || pid === Deno.pid) continue;
    try {
      const args = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
      if (args.some((arg) => arg === dir || arg === `--data=${dir}`)) pids.push(pid);
    } catch {
      // It ended while we looked.
    }
  }
  return pids;
}

export function trySignal(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal);
  } catch {
    // It is gone already.
  }
}

async function collectText(stream: ReadableStream<Uint8Array>): Promise<string> {
  return await new Response(stream).text();
}

async function allLogs(dir: string): Promise<string> {
  let text = "";
  try {
    for await (const entry of Deno.readDir(join(dir, "logs"))) {
      const log = await Deno.readTextFile(join(dir, "logs", entry.name));
      text += `--- ${entry.name}\n${log.split("\n").slice(-15).join("\n")}\n`;
    }
  } catch {
    // No logs were written.
  }
  return text;
}
