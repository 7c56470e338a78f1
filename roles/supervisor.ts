/**
 * `penncloud up`: starts every node that the configuration places on this host and looks after them.
 *
 * Promises: a node that crashes is started again, one that was ended on purpose is not; on SIGINT,
 * SIGTERM or SIGHUP every child ends and the exit status is 0; if this process itself is killed, the
 * children notice and end by themselves (supervised_node.ts). A child's end is reported to the
 * coordinator at once: it is the proof of death that makes failover fast.
 *
 * Not here: who is primary of what (coordinator.ts), and files of the cluster (cluster_folder.ts).
 */
import { join } from "node:path";
import type { NodeEntry, Role } from "../proto/cluster_config.ts";
import { opsPort } from "../proto/cluster_config.ts";
import {
  type ClusterFolder,
  ClusterFolderError,
  isClusterFolder,
  markAdminMade,
  openClusterFolder,
  UpLockFile,
} from "./cluster_folder.ts";
import type { LoadedConfig } from "./config_file.ts";
import { giveBackMemory } from "./memory_return.ts";
import { saysReady } from "./readiness.ts";
import { selfCommand } from "./self_command.ts";
import { type ExitReport, SupervisedNode } from "./supervised_node.ts";
import { makeAdminAccount } from "./supervisor_admin.ts";
import { serveSupervision } from "./supervisor_control.ts";
import { ExitReporter } from "./supervisor_exit_report.ts";
import { nodesOfThisHost, takenPorts } from "./supervisor_ports.ts";
import { Screen } from "./supervisor_screen.ts";

const READY_POLL_MS = 100;
/** After this long `up` says which nodes it still waits for, and why. */
const SLOW_START_MS = 20_000;
/** Nodes of an `up` that was killed end within their own grace time. */
const FORMER_NODES_GONE_MS = 8_000;
/** Front doors close first and the coordinator last, so that nothing asks for what is gone. */
const STOP_ORDER: readonly (readonly Role[])[] = [
  ["frontend", "mail", "balancer"],
  ["backend"],
  ["coordinator"],
];

export interface UpOptions {
  readonly loaded: LoadedConfig;
  readonly portOffset: number;
  /** `--only`: just these roles; empty for all. */
  readonly only: readonly Role[];
  /** `--host`: take these for this host's names; empty: its own addresses. */
  readonly hosts: readonly string[];
  readonly json: boolean;
}

/** Runs until a signal ends it. Resolves with the exit status. */
export async function up(options: UpOptions): Promise<number> {
  const { config, clusterDir } = options.loaded;
  const stop = new StopSignal();
  const screen = new Screen({ json: options.json });
  const nodes = nodesOfThisHost(config, options.hosts)
    .filter((node) => options.only.length === 0 || options.only.includes(node.role));
  if (nodes.length === 0) throw new ClusterFolderError(nothingToStart(options));

  const hasCoordinator = nodes.some((node) => node.role === "coordinator");
  const folder = await openFolder(options.loaded, hasCoordinator);
  const lock = await UpLockFile.take(clusterDir, options.portOffset);
  try {
    screen.say(
      "starting",
      `PennCloud: cluster "${config.cluster.name}", ${
        count(nodes.length)
      } on this host, data in ${clusterDir}` +
        (folder.created
          ? "\nMade a new cluster: its secret and its certificate are in that folder"
          : ""),
      {
        cluster: config.cluster.name,
        nodes: nodes.length,
        dataDir: clusterDir,
        created: folder.created,
      },
    );
    await waitForPorts(options, nodes, lock.formerWasCutShort, screen);
    return await supervise({ options, nodes, folder, screen, stop });
  } finally {
    await lock.release();
    stop.close();
  }
}

/** Only the coordinator's host may make up the secret; the others get it from there. */
async function openFolder(
  { config, clusterDir }: LoadedConfig,
  hasCoordinator: boolean,
): Promise<ClusterFolder> {
  if (!hasCoordinator && !await isClusterFolder(clusterDir)) {
    const coordinator = config.node.find((node) => node.role === "coordinator")!;
    throw new ClusterFolderError(
      `The coordinator is not started here, so the cluster's secret has to be there already: start ` +
        `\`penncloud up\` on ${coordinator.host} first, and copy cluster.json, secret, tls_cert.pem ` +
        `and tls_key.pem from its data folder to "${clusterDir}"`,
    );
  }
  return await openClusterFolder(clusterDir, { config, create: true });
}

interface Start {
  readonly options: UpOptions;
  readonly nodes: readonly NodeEntry[];
  readonly folder: ClusterFolder;
  readonly screen: Screen;
  readonly stop: StopSignal;
}

async function supervise({ options, nodes, folder, screen, stop }: Start): Promise<number> {
  const { config, clusterDir } = options.loaded;
  const reporter = new ExitReporter({ config, secret: folder.secret });
  const watching = new Set<Promise<void>>();
  const watch = (child: SupervisedNode) => {
    const watched = awaitReadiness(child, stop).finally(() => watching.delete(watched));
    watching.add(watched);
  };
  const children = nodes.map((node) =>
    new SupervisedNode({
      node,
      command: selfCommand(node.role, nodeArgs(node, options)),
      logPath: join(clusterDir, "logs", `${node.role}-${node.id}.log`),
      onStarting: watch,
      onGone: (gone) => reporter.report(gone),
      onExit: (report) => sayExit(report, screen, stop),
    })
  );
  const control = serveSupervision({ config, secret: folder.secret, children });
  try {
    for (const child of children) child.start();
    if (await becomeReady({ children, folder, screen, stop, options })) {
      giveBackMemory(); // From here on there is little to do.
      await stop.asked;
    }
    screen.say("stopping", `Stopping ${count(children.length)}`);
    await shutDown(children, stop);
    await Promise.all(watching);
    screen.say("stopped", "Stopped");
    return 0;
  } finally {
    await shutDown(children, stop); // nothing stays behind, whatever went wrong above
    await control.close();
    await reporter.close();
    for (const child of children) child.close();
  }
}

/** The start as people see it. False when it was cut short by a signal. */
async function becomeReady(
  { children, folder, screen, stop, options }: Omit<Start, "nodes"> & {
    readonly children: readonly SupervisedNode[];
  },
): Promise<boolean> {
  const { config } = options.loaded;
  const waiting = new Set(children);
  let nextWarningMs = performance.now() + SLOW_START_MS;
  while (waiting.size > 0) {
    if (await stop.within(READY_POLL_MS / 2)) return false;
    for (const child of [...waiting]) {
      if (child.state === "starting" || child.state === "waiting") continue;
      waiting.delete(child); // running, or ended on purpose meanwhile
      const ready = children.length - waiting.size;
      screen.nodeReady(child.name, { ready, all: children.length });
    }
    if (performance.now() < nextWarningMs) continue;
    nextWarningMs += SLOW_START_MS;
    const names = [...waiting].map((child) => child.name).join(", ");
    const logs = join(options.loaded.clusterDir, "logs");
    screen.say("slow", `Still waiting for ${names} after ${screen.seconds()} s; see ${logs}`);
  }
  const url = frontDoor(children.map((child) => child.node));
  screen.nodes(
    children.map((child) => ({
      node: child.node,
      process: child.describe(),
      logPath: child.logPath,
    })),
  );
  const hasStore = children.some((child) => child.node.role === "backend");
  if (!folder.adminMade && hasStore) {
    const made = await makeAdminAccount(options);
    if (made.done) await markAdminMade(folder.dir);
    screen.say("admin", made.sentence, made.fields);
  }
  if (stop.wasAsked) return false;
  if (url === null) {
    screen.say("ready", `ready ${config.cluster.name}`, { seconds: Number(screen.seconds()) });
  } else screen.say("ready", `ready ${url}`, { url, seconds: Number(screen.seconds()) });
  return true;
}

/** Asks `/readyz` until it says yes, or the process that was just started is not there any more. */
async function awaitReadiness(child: SupervisedNode, stop: StopSignal): Promise<void> {
  const { spawn } = child.describe();
  const isStarting = () => child.state === "starting" && child.describe().spawn === spawn;
  while (!await stop.within(READY_POLL_MS) && isStarting()) {
    const ready = await saysReady(child.node.host, opsPort(child.node));
    if (ready && isStarting()) child.markReady();
  }
}

async function shutDown(children: readonly SupervisedNode[], stop: StopSignal): Promise<void> {
  for (const roles of STOP_ORDER) {
    const group = children.filter((child) => roles.includes(child.node.role));
    // A second Ctrl-C means: now.
    const impatient = stop.askedTwice.then(() => Promise.all(group.map((child) => child.kill())));
    await Promise.race([Promise.all(group.map((child) => child.shutDown())), impatient]);
  }
}

async function waitForPorts(
  options: UpOptions,
  nodes: readonly NodeEntry[],
  formerWasCutShort: boolean,
  screen: Screen,
): Promise<void> {
  const deadlineMs = performance.now() + (formerWasCutShort ? FORMER_NODES_GONE_MS : 0);
  let said = false;
  for (;;) {
    const taken = takenPorts(options.loaded.config, nodes);
    if (taken.length === 0) return;
    if (performance.now() >= deadlineMs) {
      const lines = taken.map(({ port, wantedBy }) =>
        `Port ${port} is taken by another program; ${wantedBy} needs it`
      );
      throw new ClusterFolderError(
        [...lines, "Stop that program, or move all ports: penncloud up --port-offset 20000"].join(
          "\n",
        ),
      );
    }
    if (!said) screen.say("waiting", "Waiting for the nodes of a former run to end");
    said = true;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

function nodeArgs(node: NodeEntry, options: UpOptions): string[] {
  const { source, clusterDir } = options.loaded;
  return [
    `--role=${node.role}`,
    `--id=${node.id}`,
    `--config=${source}`,
    `--data=${clusterDir}`,
    `--port-offset=${options.portOffset}`,
  ];
}

function sayExit(report: ExitReport, screen: Screen, stop: StopSignal): void {
  if (stop.wasAsked) return;
  const name = `${report.node.role}/${report.node.id}`;
  const fields = { node: name, exit: report.exit, restartInMs: report.restartInMs };
  if (!report.crashed) {
    screen.say(
      "node-stopped",
      `${name} ${report.exit}; it stays down until it is restarted`,
      fields,
    );
    return;
  }
  const because = report.reason === null ? "" : ` (${report.reason})`;
  screen.say(
    "node-crashed",
    `${name} ${report.exit}${because}; starting it again in ${report.restartInMs} ms`,
    { ...fields, reason: report.reason },
  );
}

const count = (nodes: number): string => nodes === 1 ? "1 node" : `${nodes} nodes`;

/** Where people go: the balancer, or a frontend where there is none. */
function frontDoor(nodes: readonly NodeEntry[]): string | null {
  const door = nodes.find((node) => node.role === "balancer") ??
    nodes.find((node) => node.role === "frontend");
  if (door === undefined) return null;
  return `http://${door.host === "0.0.0.0" ? "127.0.0.1" : door.host}:${door.port}`;
}

function nothingToStart({ loaded, only, hosts }: UpOptions): string {
  const placed = [...new Set(loaded.config.node.map((node) => node.host))].join(", ");
  const what = only.length > 0 ? ` with role ${only.join(" or ")}` : "";
  return `No node${what} is placed on this host (${hosts.join(", ") || "its own addresses"}): ` +
    `${loaded.source} places nodes on ${placed}; say which of them this is with --host`;
}

/** SIGINT, SIGTERM and SIGHUP, as something to wait for. */
class StopSignal {
  readonly asked: Promise<void>;
  readonly askedTwice: Promise<void>;
  #count = 0;
  readonly #waiters = new Set<() => void>();
  readonly #listener: () => void;

  constructor() {
    const first = Promise.withResolvers<void>(), second = Promise.withResolvers<void>();
    this.asked = first.promise;
    this.askedTwice = second.promise;
    this.#listener = () => {
      (++this.#count === 1 ? first : second).resolve();
      for (const wake of this.#waiters) wake();
    };
    for (const signal of STOP_SIGNALS) Deno.addSignalListener(signal, this.#listener);
  }

  get wasAsked(): boolean {
    return this.#count > 0;
  }

  /** Waits for `ms`, or less when the signal comes. True when it has come. */
  async within(ms: number): Promise<boolean> {
    if (this.wasAsked) return true;
    // Waiters of their own: what is hung on a promise that stays open for weeks stays with it.
    const passed = Promise.withResolvers<void>();
    const timer = setTimeout(passed.resolve, ms);
    this.#waiters.add(passed.resolve);
    await passed.promise;
    clearTimeout(timer);
    this.#waiters.delete(passed.resolve);
    return this.wasAsked;
  }

  close(): void {
    for (const signal of STOP_SIGNALS) Deno.removeSignalListener(signal, this.#listener);
  }
}

const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
