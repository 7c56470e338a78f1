/**
 * The cluster as the admin console sees it, over the connections of a frontend: status from the
 * coordinator, rows from the backends themselves, orders through the supervisors of their hosts.
 *
 * `status()` always answers. While the coordinator is away it gives the coordinator's last word,
 * marked `stale`, with what the supervisors know of the processes; they also tell a node that was
 * ended on purpose from one that fell over. Nothing here decides anything.
 */
import type { ClusterConfig, NodeEntry } from "../proto/cluster_config.ts";
import type { ClusterStatus, NodeStatus } from "../proto/cluster_status.ts";
import { KvError } from "../kv/errors.ts";
import { coordinatorConversation } from "../proto/control.ts";
import type { NodeId } from "../proto/ids.ts";
import { kvConversation } from "../proto/kv_wire.ts";
import type { SupervisedProcess } from "../proto/supervision.ts";
import type { AdminSource, RawRowsOptions, RawRowsPage } from "../web/context.ts";
import { ApiError } from "../web/errors.ts";
import { RpcError } from "./net/rpc_error.ts";
import type { RpcPeer } from "./net/rpc_peer.ts";
import type { KvConnection } from "./kv_connection.ts";
import type { Peers } from "./peers.ts";
import type { RoleContext } from "./role_context.ts";
import { NoSupervisorError, type SupervisorClient, supervisorOf } from "./supervisor_client.ts";

const STATUS_TIMEOUT_MS = 1_500;
const ROWS_TIMEOUT_MS = 3_000;
const RESHAPE_TIMEOUT_MS = 5_000;
/** A large value comes from a disk that may be busy. */
const VALUE_TIMEOUT_MS = 15_000;
const SUPERVISORS_TIMEOUT_MS = 1_000;
/** Of each value on a page of rows: enough for most that are not mail or files. */
const VALUE_HEAD_BYTES = 1_024;
/** Refusals come at once; an order that takes longer has been accepted. */
const ORDER_ANSWER_MS = 1_500;
/** An order to this very process waits until its answer has left. */
const OWN_ORDER_DELAY_MS = 250;

type Order = (supervisor: SupervisorClient) => Promise<unknown>;

export function adminSource(
  context: RoleContext,
  connection: Pick<KvConnection, "kv" | "peers">,
): AdminSource {
  return new ClusterAdmin(context, connection);
}

class ClusterAdmin implements AdminSource {
  readonly #context: RoleContext;
  readonly #kv: KvConnection["kv"];
  readonly #peers: Peers;
  #last: ClusterStatus | null = null;
  #awaySinceMs: number | null = null;

  constructor(context: RoleContext, { kv, peers }: Pick<KvConnection, "kv" | "peers">) {
    this.#context = context;
    this.#kv = kv;
    this.#peers = peers;
  }

  async status(): Promise<ClusterStatus> {
    const status = await this.#fromCoordinator();
    const calm = status.nodes.every((node) => node.state === "live");
    return calm ? status : mergeProcesses(status, await this.#processes());
  }

  kill(port: number): Promise<void> {
    return this.#order("kill", port, (supervisor) => supervisor.kill());
  }

  restart(port: number): Promise<void> {
    return this.#order("restart", port, (supervisor) => supervisor.restart());
  }

  drain(port: number): Promise<void> {
    return this.#order("drain", port, (supervisor) => supervisor.drain());
  }

  async reshape(kind: "split" | "merge", key: string): Promise<void> {
    try {
      await this.#kv.reshape({ kind, key }, { deadlineMs: RESHAPE_TIMEOUT_MS });
    } catch (cause) {
      if (!(cause instanceof KvError) || cause.code !== "invalid_request") throw cause;
      throw new ApiError(422, "cannot_reshape", `${cause.message}.`, { cause });
    }
  }

  rows(port: number, { start = "", after, limit }: RawRowsOptions): Promise<RawRowsPage> {
    return answered(async () => {
      const { body } = await this.#backend(port).call(
        kvConversation,
        "rows",
        { start, limit, valueBytes: VALUE_HEAD_BYTES, ...(after === undefined ? {} : { after }) },
        undefined,
        { timeoutMs: ROWS_TIMEOUT_MS },
      );
      const cells = body.cells.map((cell) => ({ ...cell, head: Uint8Array.fromBase64(cell.head) }));
      return { cells, next: body.next };
    });
  }

  rowValue(port: number, place: { row: string; column: string }): Promise<Uint8Array | null> {
    return answered(async () => {
      const { body, payload } = await this.#backend(port)
        .call(kvConversation, "rowValue", place, undefined, { timeoutMs: VALUE_TIMEOUT_MS });
      return body.cell === null ? null : payload;
    });
  }

  async #fromCoordinator(): Promise<ClusterStatus> {
    const options = { timeoutMs: STATUS_TIMEOUT_MS };
    try {
      const { body } = await this.#peers.coordinator
        .call(coordinatorConversation, "status", {}, undefined, options);
      this.#last = body;
      this.#awaySinceMs = null;
      return body;
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      this.#awaySinceMs ??= this.#context.env.wallMs();
      return withoutCoordinator(this.#context.config, this.#last, this.#awaySinceMs);
    }
  }

  /** What runs, by node name, as far as supervisors answer. */
  async #processes(): Promise<Map<string, SupervisedProcess>> {
    const { config, env } = this.#context;
    const onePerHost = new Map(config.node.map((node) => [node.host, node])).values();
    const late = new AbortController();
    const deadline = env.sleep(SUPERVISORS_TIMEOUT_MS, late.signal).catch(() => {});
    const lists = await Promise.all(
      Array.from(
        onePerHost,
        (node) =>
          Promise.race([
            supervisorOf(this.#context, node).list().catch(() => []),
            deadline.then((): readonly SupervisedProcess[] => []),
          ]),
      ),
    );
    late.abort();
    return new Map(lists.flat().map((process) => [`${process.role}/${process.id}`, process]));
  }

  #order(name: string, port: number, give: Order): Promise<void> {
    const { config, env, node: self } = this.#context;
    return answered(async () => {
      const node = nodeOn(config, port);
      const supervisor = supervisorOf(this.#context, node);
      const log = (error: unknown) =>
        env.log("warning", "an order to a node failed", { order: name, port, error: `${error}` });
      if (node.role === self.role && node.id === self.id) {
        await supervisor.list(); // Refuses where none runs; the order itself ends this process.
        env.timer(OWN_ORDER_DELAY_MS, () => void give(supervisor).catch(log));
        return;
      }
      const waiting = new AbortController();
      let answeredAlready = false;
      const done = give(supervisor).catch((error) => {
        if (!answeredAlready) throw error;
        log(error);
      });
      const patience = env.sleep(ORDER_ANSWER_MS, waiting.signal).catch(() => {});
      await Promise.race([done, patience]).finally(() => {
        answeredAlready = true;
        waiting.abort();
      });
    });
  }

  #backend(port: number): RpcPeer {
    const { config } = this.#context;
    const node = nodeOn(config, port);
    if (node.role !== "backend") {
      const backends = config.node.filter((entry) => entry.role === "backend");
      throw new ApiError(
        422,
        "not_a_backend",
        `${node.role}/${node.id} holds no rows. Backends do, on ${portList(backends)}.`,
      );
    }
    return this.#peers.of("backend", node.id as NodeId, "bulk");
  }
}

/**
 * The coordinator's last word while it is away. Without one, only what the configuration says.
 */
export function withoutCoordinator(
  config: ClusterConfig,
  last: ClusterStatus | null,
  awaySinceMs: number,
): ClusterStatus {
  const coordinator = config.node.find((node) => node.role === "coordinator")!;
  const seen = last === null
    ? "How the nodes are is not known until then"
    : "What is shown of nodes and tablets is what it said last";
  const problem = `coordinator/${coordinator.id} (port ${coordinator.port}) does not answer. ` +
    `Reads and writes go on, but no new primary is chosen until it is back. ${seen}`;
  const base = last ?? {
    name: config.cluster.name,
    mailDomain: config.cluster.mail_domain,
    generatedMs: awaySinceMs,
    problems: [],
    nodes: config.node.map((node) => unknownNode(node, awaySinceMs)),
    tablets: [],
  };
  return {
    ...base,
    stale: true,
    problems: [problem, ...base.problems],
    nodes: base.nodes.map((node) =>
      node.role === "coordinator"
        ? { ...node, state: "down", sinceMs: awaySinceMs, problem: null }
        : node
    ),
  };
}

/** What supervisors know, where the coordinator can only see that a node is silent. */
export function mergeProcesses(
  status: ClusterStatus,
  processes: ReadonlyMap<string, SupervisedProcess>,
): ClusterStatus {
  let problems = status.problems;
  const nodes = status.nodes.map((node): NodeStatus => {
    const process = processes.get(node.name);
    if (process === undefined || node.state === "live" && !status.stale) return node;
    const merged = mergeProcess(node, process);
    if (merged.state === "stopped" && node.state !== "stopped") {
      const silent = `${node.name} (port ${node.port}) is down`;
      const stopped = `${node.name} (port ${node.port}) was stopped on purpose`;
      problems = problems.map((sentence) => sentence === silent ? stopped : sentence);
    }
    return merged;
  });
  return { ...status, nodes, problems };
}

function mergeProcess(node: NodeStatus, process: SupervisedProcess): NodeStatus {
  const { sinceMs, pid } = process;
  const ended = process.lastExit === null ? "" : ` (${process.lastExit})`;
  switch (process.state) {
    case "stopped":
      return {
        ...node,
        ...silent,
        state: "stopped",
        sinceMs,
        problem: "It was stopped on purpose and stays down until it is started",
      };
    case "waiting":
      return {
        ...node,
        ...silent,
        state: "down",
        sinceMs,
        problem: `It ended by itself${ended} and is started again in a moment`,
      };
    case "starting":
      return { ...node, pid, state: "joining", sinceMs };
    case "draining":
      return { ...node, pid, state: "draining", sinceMs };
    case "running":
      // Without a last word from the coordinator, a process that runs is all we know.
      return node.pid === null && node.role !== "coordinator"
        ? { ...node, pid, state: "live", sinceMs }
        : { ...node, pid };
  }
}

/** A process that does not run uses nothing. */
const silent = { pid: null, startedMs: null, requestsPerSecond: 0, cpu: 0, memoryBytes: 0 };

function unknownNode(node: NodeEntry, sinceMs: number): NodeStatus {
  const { role, id, host, port, zone } = node;
  return {
    name: `${role}/${id}`,
    role,
    id,
    host,
    port,
    zone,
    state: "suspect",
    sinceMs,
    ...silent,
    logBytes: null,
    dataBytes: null,
    connections: null,
    primaryOf: [],
    secondaryOf: [],
    problem: null,
  };
}

function nodeOn(config: ClusterConfig, port: number): NodeEntry {
  const node = config.node.find((entry) => entry.port === port);
  if (node !== undefined) return node;
  const message = `No node has port ${port}. The nodes are on ${portList(config.node)}.`;
  throw new ApiError(404, "no_such_node", message);
}

/** `8000 (frontend/0), 8001 (frontend/1)` */
function portList(nodes: readonly NodeEntry[]): string {
  return nodes.map(({ port, role, id }) => `${port} (${role}/${id})`).join(", ");
}

async function answered<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (cause) {
    if (cause instanceof NoSupervisorError) {
      throw new ApiError(409, "no_supervisor", `${cause.message}.`, { cause });
    }
    if (cause instanceof RpcError) {
      const headers = { "Retry-After": "1" };
      throw new ApiError(503, "node_unreachable", `${cause.message}.`, { headers, cause });
    }
    throw cause;
  }
}
