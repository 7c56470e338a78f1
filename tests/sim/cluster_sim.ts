/**
 * A whole cluster in one process, on a seeded clock, network, disk and metadata store.
 *
 * The code under test is the real one: `Backend` with its replicas, log, recovery and large values
 * (roles/backend.ts), `CoordinatorShell` with `Coordinator` (roles/coordinator.ts), `KvClient` with its
 * retries. Simulated are what they stand on: time (virtual_time.ts), processes and their clocks
 * (sim_process.ts), the network (sim_net.ts), files (kv/disk/sim_disk.ts), checkpoints, which are
 * written at once or not at all (sim_checkpoints.ts; SQLite is not run), and the coordinator's records
 * (sim_metadata.ts). Faults come from nemesis.ts, drawn by swarm.ts.
 *
 * Checked after every step: S1 (who could be elected holds everything committed, on disk), S2 and S4
 * (one sequence of commits), and the assertions within the code; with every answer: S3 and
 * exactly-once (oracle.ts); at the end: S5 (all serve and agree again within their time) and
 * linearizability of every row, by a checker that knows nothing of the store (tests/checkers/).
 *
 * A run is a function of its seed and its options: the same gives the same trace. Start at
 * {@link ClusterSim.run}.
 */
import { crc32 } from "node:zlib";
import { KvClient, type KvTransport } from "../../kv/client.ts";
import type { Command } from "../../kv/command.ts";
import { DiskFailedError } from "../../kv/disk/disk.ts";
import { CorruptionError } from "../../kv/errors.ts";
import { armMutant, type MutantName } from "../../kv/mutant.ts";
import type { RequestOutcome } from "../../kv/outcome.ts";
import { ClusterConfig, type GroupPlan, planGroups } from "../../proto/cluster_config.ts";
import { backendConversation, coordinatorConversation } from "../../proto/control.ts";
import { type GroupId, groupId, incarnation, lsn as toLsn, storeId } from "../../proto/ids.ts";
import type { GroupConfig, Member } from "../../proto/replication.ts";
import type { RangeMap } from "../../proto/moves.ts";
import { transferConversation } from "../../proto/transfer.ts";
import { Backend } from "../../roles/backend.ts";
import type { BackendParts } from "../../roles/backend_parts.ts";
import { openOrRenew, untilExpendable } from "../../roles/backend_start.ts";
import type { GroupShell } from "../../roles/backend_group.ts";
import { CoordinatorShell } from "../../roles/coordinator.ts";
import { Metrics, type ProcessReadings } from "../../roles/metrics.ts";
import { RpcTransport } from "../../roles/kv_connection.ts";
import type { PeerLinks } from "../../roles/peers.ts";
import type { RoleContext } from "../../roles/role_context.ts";
import { compareKeys, inRange } from "../../kv/key_order.ts";
import type { KeyRange } from "../../kv/tablets.ts";
import { ClusterHistory } from "./cluster_history.ts";
import { HistoryRecorder } from "../checkers/history.ts";
import { checkLinearizability } from "../checkers/linearizability.ts";
import { LateCopies } from "./late_copies.ts";
import { Nemesis } from "./nemesis.ts";
import { GroupOracle } from "./oracle.ts";
import { SeededRandom } from "./seeded_random.ts";
import { blobsIn } from "./sim_checkpoints.ts";
import { probe, SimClient, type SimRow } from "./sim_clients.ts";
import { MetadataFault, SimMetadata } from "./sim_metadata.ts";
import { SimNet } from "./sim_net.ts";
import { SimNode } from "./sim_node.ts";
import { SimOperator } from "./sim_operator.ts";
import { SimScanner } from "./sim_scanner.ts";
import { SimTransactions } from "./sim_transactions.ts";
import { TransactionOracle } from "./transaction_oracle.ts";
import { ProcessEnded, SimClock, SimProcess } from "./sim_process.ts";
import {
  AMPLE_MEMORY_BYTES,
  drawSwarm,
  type Fault,
  LARGE_TABLET_BYTES,
  type Swarm,
  type SwarmShape,
} from "./swarm.ts";
import { SimViolation } from "./violation.ts";
import { VirtualTime, withoutRealWorld } from "./virtual_time.ts";

export interface SimOptions {
  readonly seed: number;
  /** Simulated milliseconds under faults; then comes quiet until all is well again. */
  readonly durationMs?: number;
  /** Faults that this run does without. */
  readonly off?: readonly string[];
  readonly shape?: Partial<SwarmShape>;
  readonly mutant?: MutantName | null;
}

export interface SimResult {
  readonly seed: number;
  readonly traceHash: string;
  readonly simulatedMs: number;
  readonly counts: Readonly<Record<string, number>>;
}

export const DURATION_MS = 50_000;
/** S5: so long after the last fault every group takes writes again, and so long all are equal. */
const WRITABLE_WITHIN_MS = 10_000;
const EQUAL_WITHIN_MS = 30_000;
/** So long after that no row is locked any more: what the sweepers take, with clocks that are wrong. */
const SETTLED_WITHIN_MS = 80_000;
/** So long after all is equal every move is over: one that nobody goes on with is given 30 s. */
const MOVED_WITHIN_MS = 60_000;
const SCRUB_ROUNDS = 3;
const GENERATION_MS = 6_000;
/** A clock that is so much too fast or too slow makes a lease longer than the promise behind it. */
const BEYOND_BOUND = 0.4;
const LEASES_ALLOW = 0.01;
const COORDINATOR = "coordinator/0";
const TRACE_LINES = 400;
const CHECKER_STEPS = 300_000;

export class ClusterSim {
  readonly time = new VirtualTime();
  readonly swarm: Swarm;
  readonly net: SimNet;
  readonly metadata: SimMetadata;
  readonly nodes: readonly SimNode[];
  readonly plans: readonly GroupPlan[];
  /** Replicas whose disk is gone for good, or damaged, by group: nothing can be asked of them. */
  readonly #lost = new Set<string>();
  readonly counts: Record<string, number> = {};
  coordinator: SimProcess | null = null;
  /** Those before it that still believe that they are in office. */
  #supplanted = 0;
  /** Null where nobody splits and merges by hand. */
  operator: SimOperator | null = null;
  #coordinatorShell: CoordinatorShell | null = null;
  isQuiet = false;
  readonly #seed: number;
  readonly #durationMs: number;
  readonly #mutant: MutantName | null;
  readonly #config: ClusterConfig;
  readonly #oracles = new Map<number, GroupOracle>();
  readonly #history: ClusterHistory;
  readonly #transactionOracle: TransactionOracle;
  #transactions: SimTransactions | null = null;
  #scanner: SimScanner | null = null;
  #lateCopies: LateCopies | null = null;
  readonly #recorder: HistoryRecorder;
  readonly #supervisor: SimProcess;
  readonly #links: PeerLinks;
  #clients: SimClient[] = [];
  #clientCount = 0;
  #nameCount = 0;
  #processCount = 0;
  #violation: Error | null = null;
  #touched = new Set<SimProcess>();
  readonly #trace: string[] = [];
  #traceHash = 0;
  #nemesis: Nemesis | null = null;
  #epochs = new Map<GroupId, number>();
  #finished = false;

  constructor(options: SimOptions) {
    const { seed, durationMs = DURATION_MS, mutant = null } = options;
    this.#seed = seed;
    this.#durationMs = durationMs;
    this.#mutant = mutant;
    this.swarm = drawSwarm(seed, options);
    const { shape } = this.swarm;
    this.net = new SimNet(this.time, this.random("net"));
    this.#config = clusterConfig(shape);
    this.plans = planGroups(this.#config);
    const history = this.#history = new ClusterHistory(this.plans);
    this.#transactionOracle = new TransactionOracle(() => history.moveCount > 0);
    for (const { id, startKey, endKey } of this.plans) {
      const { row_max_bytes: rowBytesMax } = this.#config.store;
      const range = { startKey, endKey };
      const onExecuted = (command: Command, outcome: RequestOutcome) =>
        this.#transactionOracle.applied(id, command, outcome);
      const onActivated = (moveId: number) => this.#onActivated(moveId);
      const options = { gid: id, history, rowBytesMax, range, mutant, onExecuted, onActivated };
      this.#oracles.set(id, new GroupOracle(options));
    }
    this.#recorder = new HistoryRecorder({ nowNs: () => this.time.nowMs * 1e6 });
    this.metadata = new SimMetadata({
      random: this.random("metadata"),
      onSwap: (config, before) => this.#onSwap(config, before),
      onMap: (map) => this.#onRangeMap(map),
    });
    const clocks = this.random("clocks");
    this.nodes = Array.from({ length: shape.backends }, (_, id) => {
      const clock = new SimClock(this.time, clocks.integer(1_000_000));
      const error = this.#clockError(), drawn = 2 * (clocks.next() - 0.5);
      // The worst there is: the primary of many groups is slow, and those who may replace it are fast.
      clock.rate = 1 + error * (error > LEASES_ALLOW ? (id === 0 ? -1 : 1) : drawn);
      return new SimNode(id, { clock, random: this.random(`disk ${id}`) });
    });
    this.#supervisor = this.startProcess("supervisor/0");
    this.#links = this.net.links(this.#supervisor, COORDINATOR);
  }

  /**
   * How much too fast or too slow clocks may be: 1 %, the bound that leases are made for. Where nobody
   * reads by leases they may be as wrong as they like.
   */
  #clockError(): number {
    const { strength, shape } = this.swarm;
    if (this.#mutant === "clocks-beyond-bound") return BEYOND_BOUND;
    if (shape.readMode === "confirm" && strength["clock-beyond"] > 0) return BEYOND_BOUND;
    return LEASES_ALLOW * strength["clock-rate"];
  }

  /** @throws {SimViolation} a promise was broken; `trace` tells what came before */
  async run(): Promise<SimResult> {
    const onRejection = (event: PromiseRejectionEvent) => {
      event.preventDefault();
      if (!(event.reason instanceof ProcessEnded)) this.violate(event.reason);
    };
    globalThis.addEventListener("unhandledrejection", onRejection);
    armMutant(this.#mutant);
    try {
      await withoutRealWorld(this.time, () => this.#simulate());
      if (this.#violation !== null) throw this.#violation;
      return {
        seed: this.#seed,
        traceHash: this.traceHash,
        simulatedMs: this.time.nowMs,
        counts: { ...this.counts, steps: this.time.steps, messages: this.net.messageCount },
      };
    } finally {
      armMutant(null);
      globalThis.removeEventListener("unhandledrejection", onRejection);
    }
  }

  /** The last lines of what happened. */
  get trace(): readonly string[] {
    return this.#trace;
  }

  get traceHash(): string {
    const all = `${this.#traceHash} ${this.time.steps} ${this.net.messageCount}`;
    return crc32(all).toString(16).padStart(8, "0");
  }

  /** A generator of its own for everything that rolls dice, so that none disturbs another. */
  random(purpose: string): SeededRandom {
    return new SeededRandom(crc32(`${this.#seed} ${purpose}`));
  }

  note(text: string): void {
    const line = `${this.time.nowMs.toFixed(3)} ${text}`;
    this.#traceHash = crc32(line, this.#traceHash);
    // Of many commits in a row the first and the last say enough.
    const [before, last] = this.#trace.slice(-2);
    if ([before, last, line].every((item) => item?.includes(" commits "))) this.#trace.pop();
    this.#trace.push(line);
    if (this.#trace.length > 2 * TRACE_LINES) this.#trace.splice(0, TRACE_LINES);
  }

  count(what: string, by = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + by;
  }

  violate(error: unknown): void {
    if (this.#violation !== null) return;
    this.#violation = error instanceof SimViolation
      ? error
      : new SimViolation(String((error as Error)?.stack ?? error));
    this.note(`VIOLATION ${this.#violation.message}`);
  }

  oracle(gid: number): GroupOracle {
    return this.#oracles.get(gid)!;
  }

  // ----------------------------------------------------------------------------- a run

  async #simulate(): Promise<void> {
    this.startCoordinator();
    for (const node of this.nodes) this.boot(node);
    if (this.swarm.strength["late-copies"] > 0) this.#startLateCopies();
    for (let i = 0; i < this.swarm.shape.clients; i++) this.startClient();
    this.#startProber();
    if (this.swarm.strength.reshape + this.swarm.strength.moves > 0) this.#startOperator();
    if (this.swarm.strength.scans > 0) this.#startScanner();
    if (this.swarm.strength.transactions > 0) this.#startTransactions();
    const nemesis = this.#nemesis = new Nemesis(this);
    nemesis.start();
    await this.#runUntil(this.#durationMs, () => false);
    if (this.#violation !== null) return;
    this.isQuiet = true;
    this.note("quiet");
    nemesis.stop();
    const quietMs = this.time.nowMs;
    this.#proveWritable(quietMs);
    await this.#runUntil(quietMs + EQUAL_WITHIN_MS, () => this.#finished && this.#allEqual());
    if (this.#violation !== null) return;
    await this.#healDamage();
    if (this.#violation !== null) return;
    await this.#settleMoves();
    if (this.#violation !== null) return;
    await this.#settleTransactions();
    if (this.#violation !== null) return;
    await this.#repeatOldRequests();
    if (this.#violation !== null) return;
    try {
      this.#checkEnd();
    } catch (error) {
      this.violate(error);
    }
  }

  async #runUntil(endMs: number, isDone: () => boolean): Promise<void> {
    await this.time.runUntil(endMs, () => {
      try {
        this.#checkStep();
      } catch (error) {
        this.violate(error);
      }
      return this.#violation !== null || isDone();
    });
  }

  /** Every group takes a write in time; then the clients stop, so that the replicas can settle. */
  #proveWritable(quietMs: number): void {
    const proofs = this.plans.map(async ({ id, startKey }) => {
      const client = this.startClient({ sessions: false });
      while (!await client.writeOnce({ row: `${startKey}a-last`, gid: id })) {
        if (this.time.nowMs > quietMs + WRITABLE_WITHIN_MS) {
          this.violate(
            new SimViolation(`S5: group ${id} takes no writes 10 s after the last fault`),
          );
          return;
        }
      }
    });
    void Promise.all(proofs).then(() => {
      for (const client of this.#clients) client.stop();
      this.#transactions?.stop();
      this.#scanner?.stop();
      this.#finished = true;
    });
  }

  /**
   * Whoever still has damage finds it, when told to read everything again, and begins anew. What was
   * rewritten meanwhile is whole by itself.
   */
  async #healDamage(): Promise<void> {
    if (this.swarm.strength["cell-damage"] === 0) return;
    const isWhole = () =>
      this.plans.every(({ id }) =>
        this.nodes.every((node) => !node.checkpoints.isDamaged(groupId(id)))
      );
    for (let round = 0; round < SCRUB_ROUNDS && !isWhole(); round++) {
      for (const { id } of this.nodes) {
        this.#links.of("backend", id).call(backendConversation, "scrub", { start: true })
          .catch(() => {});
      }
      const untilMs = this.time.nowMs + EQUAL_WITHIN_MS / SCRUB_ROUNDS;
      await this.#runUntil(untilMs, () => isWhole() && this.#allEqual());
      if (this.#violation !== null) return;
    }
    if (!isWhole()) this.violate(new SimViolation("S5: damage is not found, or not healed"));
    await this.#runUntil(this.time.nowMs + EQUAL_WITHIN_MS, () => this.#allEqual());
  }

  /** Every move comes to its end, and nothing is left of it in the wrong group. */
  async #settleMoves(): Promise<void> {
    if (this.#isMovesSettled()) return;
    const untilMs = this.time.nowMs + MOVED_WITHIN_MS;
    await this.#runUntil(untilMs, () => this.#isMovesSettled() && this.#allEqual());
    if (this.#violation !== null || this.#isMovesSettled()) return;
    const moves = JSON.stringify(this.metadata.ranges?.moves);
    this.violate(new SimViolation(`S5: a move does not end: ${moves}`));
  }

  #isMovesSettled(): boolean {
    return this.metadata.ranges?.moves.length === 0 &&
      this.plans.every(({ id }) => this.oracle(id).isSettled);
  }

  /** What was not committed by the records is nobody's to serve. */
  #onActivated(moveId: number): void {
    this.count("moved");
    const { ranges, isRolledBack } = this.metadata;
    const record = ranges?.moves.find(({ id }) => id === moveId);
    const ended = ranges?.ended.find(({ id }) => id === moveId);
    if (isRolledBack || record?.state === "committed" || ended?.outcome === "committed") return;
    const state = record?.state ?? ended?.outcome ?? "unknown";
    throw new SimViolation(`M3: a tablet is activated although move ${moveId} is ${state}`);
  }

  /** M4: by the logs each row has the one owner that the records say. */
  #checkOwners(): void {
    const claims = this.plans.flatMap(({ id }) =>
      this.oracle(id).tablets.map(({ startKey, endKey }) => ({ startKey, endKey, gid: id }))
    ).sort((a, b) => compareKeys(a.startKey, b.startKey));
    const wanted = this.metadata.ranges?.ranges ?? [];
    const text = (list: readonly (KeyRange & { gid: number })[]) =>
      list.map(({ startKey, endKey, gid }) => `${startKey}-${endKey ?? ""} ${gid}`).join(", ");
    let at: string | null = "";
    for (const { startKey, endKey, gid } of claims) {
      const owner = wanted.find((range) => inRange(startKey, range.startKey, range.endKey));
      if (at !== startKey || owner?.gid !== gid) {
        throw new SimViolation(
          `M4: the groups serve ${text(claims)}; the records say ${text(wanted)}`,
        );
      }
      at = endKey;
    }
    if (at !== null) throw new SimViolation(`M4: nobody serves what is behind "${at}"`);
  }

  /** No row stays locked, whoever died; then what transactions showed is judged. */
  async #settleTransactions(): Promise<void> {
    if (this.#transactions === null) return;
    let isSettled = false;
    this.#transactions.finish().then(() => isSettled = true, (error) => {
      this.violate(new SimViolation(`R2: ${error.message}`));
    });
    const untilMs = this.time.nowMs + SETTLED_WITHIN_MS;
    await this.#runUntil(untilMs, () => isSettled && this.#allEqual());
    if (isSettled || this.#violation !== null) return;
    const left = this.plans.map(({ id }) => this.oracle(id).remains).join(", ");
    this.violate(new SimViolation(`S5: transactions hold rows for ever: ${left} by group`));
  }

  /**
   * What was asked comes once more when much time has passed: while the records of it must still be
   * there, when they may be gone, and when they are gone. Only the wall clocks jump; log time follows.
   */
  async #repeatOldRequests(): Promise<void> {
    const copies = this.#lateCopies;
    if (copies === null) return;
    copies.stop();
    let isDone = false;
    const repeat = async () => {
      const aheadMs = Math.max(...this.nodes.map((node) => node.clock.wallOffsetMaxMs));
      for (const minutes of [8, 11, 16]) {
        this.note(`${minutes} minutes have passed`);
        const wallOffsetMs = aheadMs + minutes * 60_000;
        for (const node of this.nodes) node.clock.wallOffsetMs = wallOffsetMs;
        const client = this.startClient({ sessions: false, wallOffsetMs });
        for (const { id, startKey } of this.plans) {
          while (!await client.writeOnce({ row: `${startKey}a-later`, gid: id }));
        }
        await copies.repeatAll();
      }
      isDone = true;
    };
    repeat().catch((error) => this.violate(error));
    await this.#runUntil(this.time.nowMs + EQUAL_WITHIN_MS, () => isDone && this.#allEqual());
    if (isDone || this.#violation !== null) return;
    this.violate(new SimViolation("S5: nothing is served any more after wall clocks have jumped"));
  }

  startProcess(name: string, clock = new SimClock(this.time, 0)): SimProcess {
    return new SimProcess({
      name,
      time: this.time,
      clock,
      seed: crc32(`${this.#seed} process ${++this.#processCount}`),
      onTurn: (process) => this.#touched.add(process),
      onLog: (process, level, event, fields) => {
        if (level === "debug") return;
        this.note(`${process.name} ${event} ${JSON.stringify(fields ?? {})}`.slice(0, 300));
        if (event !== "damaged replica") return;
        this.#observeGivenUp(process, (fields as { gid: GroupId }).gid);
      },
      onFatal: (process, error) => this.#onFatal(process, error),
    });
  }

  #onFatal(process: SimProcess, error: unknown): void {
    this.note(`${process.name} ends: ${error}`);
    const node = this.nodes.find((item) => item.process === process);
    if (node === undefined) {
      if (process.name === COORDINATOR && error instanceof MetadataFault) {
        if (process === this.coordinator) this.coordinatorEnded(200);
        return;
      }
      return this.violate(error);
    }
    const isDiskError = error instanceof DiskFailedError ||
      error instanceof Error && "code" in error && error.code === "EIO";
    const expected = isDiskError && node.hasSyncError ||
      error instanceof CorruptionError && node.isDamaged;
    if (!expected) return this.violate(error);
    // What it committed and answered in its last turn counts.
    for (const [gid, group] of node.backend?.groups ?? []) this.#observe(node, gid, group);
    node.hasSyncError = node.disk.willFailSync;
    this.nodeEnded(node, { powerLoss: false, downMs: 300 });
  }

  // --------------------------------------------------------------------------- backends

  boot(node: SimNode): void {
    node.boots += 1;
    node.bootAtMs = Infinity;
    node.isDraining = false;
    node.spawnId = `${node.store}-${node.boots}`;
    node.backend = null;
    const process = this.startProcess(node.name, node.clock);
    node.process = process;
    this.count("starts");
    this.note(`${node.name} starts, ${node.spawnId}`);
    process.enter(() => void this.#open(node, process));
  }

  async #open(node: SimNode, process: SimProcess): Promise<void> {
    const context = this.#contextOf(process, node.spawnId);
    let backend: Backend;
    try {
      backend = await openOrRenew({
        open: () => {
          const store = storeId(node.store), inc = incarnation(node.boots);
          return Backend.open(context, { node: node.id, store, inc }, this.#partsOf(node, process));
        },
        mayRenew: async (damage) => {
          if (!node.isDamaged) throw damage;
          const peers = this.net.links(process, COORDINATOR);
          const startOps = () => ({ close: () => Promise.resolve() });
          const { signal } = new AbortController();
          await untilExpendable(context, damage, signal, { peers, startOps });
        },
        renew: async (damage) => {
          this.note(`${node.name} begins anew: ${damage.message}`);
          this.count("renewed");
          await node.folder.renew();
          // Checkpoints stay, and with them what is damaged there.
          const stillDamaged = this.plans.map(({ id }) => groupId(id))
            .filter((gid) => node.checkpoints.isDamaged(gid));
          this.lose(node, stillDamaged);
        },
      });
    } catch (error) {
      if (error instanceof ProcessEnded) return;
      process.env.fatal(error);
    }
    node.backend = backend;
    // What was flipped mattered to nobody; S1 is looked at anew.
    node.isDamaged = false;
    this.countHealed();
    this.#checkRecovered(node, backend);
    this.net.listen(process, backend.services);
    backend.start();
  }

  #contextOf(process: SimProcess, spawnId: string): RoleContext {
    const [role, id] = process.name.split("/");
    return {
      config: this.#config,
      node: this.#config.node.find((node) => node.role === role && node.id === Number(id))!,
      dataDir: "data",
      clusterDir: "",
      secret: new Uint8Array(32),
      clusterId: "simulated",
      spawnId,
      env: process.env,
    };
  }

  #partsOf(node: SimNode, process: SimProcess): BackendParts {
    const { segmentBytes, keepBytes } = this.swarm.shape;
    const takeTime = () => node.takeCheckpointTime();
    return {
      disk: node.disk,
      ...(this.#mayBeDamaged ? { folder: node.folder } : {}),
      log: { segmentBytes, keepBytes },
      moveCells: this.swarm.shape.moveCells,
      metrics: new Metrics(NO_READINGS),
      peers: this.net.links(process, COORDINATOR),
      openStore: (gid) => node.checkpoints.open(gid, takeTime),
      closeStores: () => Promise.resolve(),
      keepDiverged: (_, lines) => {
        this.count("entriesCut", lines.split("\n").length - 1);
        return Promise.resolve();
      },
      fetchSnapshot: (options) => this.#fetchSnapshot(node, options),
    };
  }

  get #mayBeDamaged(): boolean {
    const { strength } = this.swarm;
    return ["cell-damage", "bit-flip", "lost-segment"].some((fault) =>
      strength[fault as Fault] > 0
    );
  }

  /** As roles/snapshot_transfer.ts, but the copy itself comes over by hand. */
  async #fetchSnapshot(
    node: SimNode,
    { group, from, peers, blobs, openStore, env }: Parameters<BackendParts["fetchSnapshot"]>[0],
  ): Promise<void> {
    const { gid } = group;
    const peer = peers.of("backend", from, "bulk");
    const opened = await peer.call(transferConversation, "open", { gid }, undefined, {
      timeoutMs: 5_000,
    });
    const { lsn, token } = opened.body;
    const copy = this.nodes[from]!.checkpoints.copyOf(gid, toLsn(lsn));
    if (copy === undefined) throw new Error("the checkpoint is no longer kept");
    // As `SqliteCellStore.install`, which checks what it puts in place.
    if (copy.damaged !== undefined) throw new Error("the checkpoint that was fetched is damaged");
    await env.sleep(20 + env.random() * 300);
    peer.call(transferConversation, "close", { token }).catch(() => {});
    for (const blob of blobsIn(copy)) {
      if (await blobs.has(blob)) continue;
      const answer = await peer.call(transferConversation, "blob", { gid, blob });
      if (answer.body.found) await blobs.put(blob, answer.payload);
    }
    await group.install(copy.lsn, () => {
      node.checkpoints.install(gid, copy);
      return Promise.resolve(openStore());
    });
    this.count("snapshots");
  }

  /** What the node holds may be gone, all of it or that of one group. */
  lose(node: SimNode, gids = this.plans.map(({ id }) => groupId(id))): void {
    for (const gid of gids) this.#lost.add(`${gid} ${node.folder.copyOf(gid)}`);
  }

  isLost(gid: GroupId, store: string): boolean {
    return this.#lost.has(`${gid} ${store}`);
  }

  /** A replica that takes part, and was damaged where all has been written anew since, is whole. */
  countHealed(): void {
    for (const node of this.nodes) {
      if (node.isDamaged) continue;
      for (const gid of node.backend?.groups.keys() ?? []) {
        if (!node.checkpoints.isDamaged(gid)) {
          this.#lost.delete(`${gid} ${node.folder.copyOf(gid)}`);
        }
      }
    }
  }

  /** Kills the process, or takes the power of its machine. */
  crash(node: SimNode, options: { powerLoss: boolean; downMs: number }): void {
    if (!node.isUp) return;
    this.note(`${node.name} ${options.powerLoss ? "loses its power" : "is killed"}`);
    this.count(options.powerLoss ? "powerLosses" : "kills");
    node.process!.end();
    this.nodeEnded(node, options);
  }

  nodeEnded(node: SimNode, { powerLoss, downMs }: { powerLoss: boolean; downMs: number }): void {
    const process = node.process!, { spawnId } = node;
    this.net.gone(process);
    node.stopDisk(powerLoss);
    node.process = null;
    node.backend = null;
    // A power loss ends what ailed the disk; otherwise the next process meets it.
    if (powerLoss) node.hasSyncError = false;
    const random = this.random(`end ${spawnId}`);
    // The supervisor sees its child end; nobody sees a machine go.
    if (!powerLoss && random.chance(0.7)) {
      this.time.after(random.next() * 30, () => {
        const body = { node: node.name, spawn: spawnId };
        this.#links.coordinator.call(coordinatorConversation, "exited", body).catch(() => {});
      });
    }
    this.bootIn(node, downMs);
  }

  bootIn(node: SimNode, ms: number): void {
    node.bootAtMs = this.time.nowMs + ms;
    this.time.after(ms, () => {
      if (node.isUp || this.time.nowMs < node.bootAtMs) return;
      this.boot(node);
    });
  }

  /** A planned restart: hands over first, and leaves a clean log behind. */
  drain(node: SimNode): void {
    const { process, backend } = node;
    if (backend === null || process === null) return;
    this.note(`${node.name} drains`);
    node.isDraining = true;
    this.count("drains");
    process.enter(() => {
      void (async () => {
        // In the order of `runBackend`.
        await backend.stop("drain");
        this.net.unlisten(process);
        await backend.close();
        if (!process.alive) return;
        process.end();
        this.nodeEnded(node, { powerLoss: false, downMs: 50 });
      })();
    });
  }

  // ------------------------------------------------------------------------ coordinator

  startCoordinator(): void {
    const process = this.startProcess(COORDINATOR);
    this.coordinator = process;
    this.count("coordinatorStarts");
    process.enter(() => {
      try {
        const shell = new CoordinatorShell(
          this.#contextOf(process, `coordinator-${this.#processCount}`),
          { metadata: this.metadata, peers: this.net.links(process, COORDINATOR) },
        );
        this.#coordinatorShell = shell;
        this.net.listen(process, shell.services);
        shell.start();
      } catch (error) {
        process.env.fatal(error);
      }
    });
  }

  get hasOneCoordinator(): boolean {
    return this.coordinator?.alive === true && this.#supplanted === 0;
  }

  crashCoordinator(downMs: number): void {
    if (this.coordinator?.alive !== true) return;
    this.note("the coordinator is killed");
    this.coordinator.end();
    this.coordinatorEnded(downMs);
  }

  coordinatorEnded(downMs: number): void {
    const ended = this.coordinator!;
    this.net.gone(ended);
    this.time.after(downMs, () => {
      if (this.coordinator === ended) this.startCoordinator();
    });
  }

  /**
   * Another coordinator takes over while the first believes, for so long, that it is still in office.
   * Records that the other one changes look to each as if its own had gone back in time, so whoever
   * is left in the end reads them anew.
   */
  supplantCoordinator(overlapMs: number): void {
    const first = this.coordinator;
    if (first?.alive !== true) return;
    this.note("a second coordinator starts");
    this.startCoordinator();
    this.#supplanted += 1;
    this.time.after(overlapMs, () => {
      this.#supplanted -= 1;
      first.end();
      this.net.gone(first);
      this.crashCoordinator(1);
    });
  }

  #onSwap(config: GroupConfig, before: GroupConfig | undefined): void {
    const highest = this.#epochs.get(config.gid) ?? 0;
    if (config.epoch <= highest) {
      throw new SimViolation(
        `B6: group ${config.gid} gets epoch ${config.epoch} after epoch ${highest}`,
      );
    }
    this.#epochs.set(config.gid, config.epoch);
    this.count("configurations");
    if (before?.reign !== config.reign) this.count("elections");
    const ids = (members: readonly Member[]) => members.map(({ node }) => node).join("");
    this.note(
      `group ${config.gid} epoch ${config.epoch} reign ${config.reign} p${config.primary.node} ` +
        `in sync ${ids(config.inSync)} eligible ${ids(config.eligible)}: ${config.reason}`,
    );
    this.#nemesis?.onSwap(config);
  }

  #onRangeMap({ version, moves }: RangeMap): void {
    for (const { id, from, to, state, startKey, endKey } of moves) {
      this.note(
        `map ${version}: move ${id} of ${startKey}-${endKey} from ${from} to ${to} ${state}`,
      );
    }
  }

  // ---------------------------------------------------------------------------- clients

  startClient({ sessions = true, wallOffsetMs = 0 } = {}): SimClient {
    const id = this.#clientCount++;
    const clock = new SimClock(this.time, 0);
    clock.wallOffsetMs = wallOffsetMs;
    const process = this.startProcess(`client/${id}`, clock);
    const links = this.net.links(process, COORDINATOR);
    const transport = this.#watched(new RpcTransport({ config: this.#config }, links));
    const client = new SimClient({
      process,
      kv: new KvClient({ env: process.env, transport }),
      recorder: this.#recorder,
      random: this.random(`client ${id}`),
      shape: {
        ...this.swarm.shape,
        largeValues: this.swarm.strength["large-values"] > 0,
        mayBeDamaged: this.swarm.strength["cell-damage"] > 0,
        rowsMove: this.swarm.strength.moves > 0,
        mediumValues: this.swarm.shape.memoryBytes < AMPLE_MEMORY_BYTES,
      },
      rows: () => this.#rows(),
      oldRows: () => this.#oldRows(),
      oracle: (gid) => this.oracle(gid),
      nextName: () => `op${++this.#nameCount}`,
      onAnswer: (kind) => this.count(kind),
      onViolation: (error) => this.violate(error),
    });
    if (!sessions) return client;
    this.#clients.push(client);
    client.start();
    return client;
  }

  #startLateCopies(): void {
    const process = this.startProcess("copies/0");
    this.#lateCopies = new LateCopies({
      process,
      links: this.net.links(process, COORDINATOR),
      random: this.random("late copies"),
      nodes: this.nodes.map(({ id }) => id),
      share: 0.1 * this.swarm.strength["late-copies"],
      onCopy: (how) => this.count(how),
      onViolation: (error) => this.violate(error),
    });
  }

  #watched(transport: KvTransport): KvTransport {
    return this.#lateCopies?.watch(transport) ?? transport;
  }

  #startScanner(): void {
    const process = this.startProcess("scanner/0");
    const links = this.net.links(process, COORDINATOR);
    const transport = new RpcTransport({ config: this.#config }, links);
    this.#scanner = new SimScanner({
      process,
      kv: new KvClient({ env: process.env, transport }),
      random: this.random("scanner"),
      history: this.#history,
      rows: () => this.#rows(),
      oracle: (gid) => this.oracle(gid),
      mayBeDamaged: this.swarm.strength["cell-damage"] > 0,
      onScan: (how) => this.count(how),
      onViolation: (error) => this.violate(error),
    });
    this.#scanner.start();
  }

  #startTransactions(): void {
    const { strength, shape: { thinkMs } } = this.swarm, random = this.random("transactions");
    this.#transactions = new SimTransactions({
      random,
      startClient: (name) => {
        const process = this.startProcess(name);
        const links = this.net.links(process, COORDINATOR);
        const transport = this.#watched(new RpcTransport({ config: this.#config }, links));
        return { process, transport };
      },
      remains: () => this.plans.reduce((sum, { id }) => sum + this.oracle(id).remains, 0),
      clients: 2 + random.integer(3),
      thinkMs: thinkMs / 2,
      abandoned: strength.abandon > 0 ? 0.3 + 0.6 * strength.abandon : 0,
      onDeath: (process) => {
        this.note(`${process.name} dies`);
        this.count("abandoned");
        this.net.gone(process);
      },
      onViolation: (error) => this.violate(error),
    });
    this.#transactions.start();
  }

  /** One client goes in the middle of everything, and another comes. */
  get clientProcesses(): SimProcess[] {
    return this.#clients.map(({ process }) => process);
  }

  replaceClient(index: number): void {
    const client = this.#clients[index];
    if (client === undefined) return;
    this.note(`client ${index} is killed`);
    client.kill();
    this.#clients.splice(index, 1);
    this.startClient();
  }

  #startProber(): void {
    const process = this.startProcess("client/prober"), random = this.random("probed group");
    const gids = this.plans.map(({ id }) => id);
    void probe({
      process,
      links: this.net.links(process, COORDINATOR),
      random: this.random("prober"),
      everyMs: this.swarm.shape.probeMs,
      nodes: () => this.nodes.map((node) => node.id),
      rows: () => this.#rows(),
      anyGroup: this.swarm.strength.moves > 0 ? () => random.pick(gids) : null,
      oracle: (gid) => this.oracle(gid),
      onRead: () => this.count("probes"),
      onViolation: (error) => this.violate(error),
    });
  }

  #startOperator(): void {
    const process = this.startProcess("operator/0");
    const links = this.net.links(process, COORDINATOR);
    const transport = new RpcTransport({ config: this.#config }, links);
    this.operator = new SimOperator({
      coordinator: links.coordinator,
      kv: new KvClient({ env: process.env, transport }),
      groups: this.plans.map(({ id }) => id),
      rows: () => this.#rows(),
      oracle: (gid) => this.oracle(gid),
      onDone: (what) => this.count(what),
      onViolation: (error) => this.violate(error),
    });
  }

  /** New rows every few seconds, so that none grows out of what a checker can judge. */
  #rows(): readonly SimRow[] {
    return this.#rowsOf(this.#generation);
  }

  get #generation(): number {
    return Math.floor(this.time.nowMs / GENERATION_MS);
  }

  /** Tablets of which something is deleted again shrink, and are merged. */
  #oldRows(): readonly SimRow[] {
    if (this.swarm.shape.tabletBytes === LARGE_TABLET_BYTES) return [];
    const now = this.#generation;
    return [now - 1, now - 2, now - 3].filter((generation) => generation >= 0)
      .flatMap((generation) => this.#rowsOf(generation));
  }

  #rowsOf(generation: number): readonly SimRow[] {
    return this.plans.flatMap(({ id, startKey }) =>
      Array.from({ length: this.swarm.shape.rowsPerGroup }, (_, i) => ({
        row: `${startKey}a${generation}-${i}`,
        gid: id,
      }))
    );
  }

  // ----------------------------------------------------------------------------- checks

  #checkStep(): void {
    for (const node of this.nodes) {
      if (node.backend === null || !this.#touched.has(node.process!)) continue;
      for (const [gid, group] of node.backend.groups) this.#observe(node, gid, group);
    }
    this.#touched.clear();
    for (const { id } of this.plans) this.#checkS1(groupId(id));
  }

  readonly #seenCommit = new Map<string, { shell: GroupShell; lsn: number; cuts: number }>();

  #observe(node: SimNode, gid: GroupId, group: GroupShell): void {
    const { replica } = group, oracle = this.oracle(gid);
    const key = `${node.name} ${gid}`;
    const { commitLsn, durableLsn } = replica.progress;
    node.durable.set(gid, durableLsn);
    let seen = this.#seenCommit.get(key);
    if (seen?.shell !== group) this.#seenCommit.set(key, seen = { shell: group, lsn: 0, cuts: 0 });
    if (group.cutCount > seen.cuts) this.count("appendsCut", group.cutCount - seen.cuts);
    seen.cuts = group.cutCount;
    for (let lsn = seen.lsn + 1; lsn <= commitLsn; lsn++) {
      const entry = replica.entryAt(toLsn(lsn));
      // Part of a checkpoint by now, so it was seen when it was committed.
      if (entry === undefined) continue;
      if (!oracle.commit(entry, node.name)) continue;
      const { kind } = entry.command;
      this.note(`group ${gid} commits ${lsn} of epoch ${entry.epoch} at ${node.name}, ${kind}`);
      this.count("commits");
      if (kind === "forgetClients") this.count("clientsForgotten");
      if (kind === "prepare" || kind === "settle") this.#nemesis?.onTransactionStep(node);
      if (kind === "move") this.#nemesis?.onMoveStep(node, entry.command.step.kind);
    }
    seen.lsn = commitLsn;
    // Nobody may be there to heal from for a while.
    if (group.problem !== null && !this.isLost(gid, group.copy)) {
      throw new SimViolation(`A7: ${node.name}: ${group.problem}`);
    }
  }

  /** What a replica committed and answered right before it was found damaged counts. */
  #observeGivenUp(process: SimProcess, gid: GroupId): void {
    const node = this.nodes.find((item) => item.process === process);
    const seen = this.#seenCommit.get(`${node?.name} ${gid}`);
    if (node === undefined || seen === undefined) return;
    try {
      this.#observe(node, gid, seen.shell);
    } catch (error) {
      this.violate(error);
    }
  }

  /** Whoever could be elected has everything that was committed, on disk. */
  #checkS1(gid: GroupId): void {
    const config = this.metadata.record(gid);
    if (config === undefined || this.metadata.isRolledBack) return;
    const committed = this.oracle(gid).length;
    for (const members of [config.inSync, config.eligible]) {
      for (const { node: id, store } of members) {
        const node = this.nodes[id]!;
        const durable = node.folder.copyOf(gid) === store ? node.durable.get(gid) ?? 0 : 0;
        if (durable >= committed || this.isLost(gid, store)) continue;
        throw new SimViolation(
          `S1: ${node.name} could be elected in group ${gid} at epoch ${config.epoch}, but has ` +
            `only ${durable} of ${committed} committed entries on disk`,
        );
      }
    }
  }

  /** What a restarted replica has agrees with what was committed, if it may be elected. */
  #checkRecovered(node: SimNode, backend: Backend): void {
    for (const [gid, { replica }] of backend.groups) {
      const { lastLsn, appliedLsn } = replica.progress, oracle = this.oracle(gid);
      oracle.checkTablets(replica.state.tablets, appliedLsn, node.name);
      node.durable.set(gid, replica.progress.durableLsn);
      const config = this.metadata.record(gid);
      const electable = [...config?.inSync ?? [], ...config?.eligible ?? []]
        .some((member) => member.store === node.folder.copyOf(gid));
      if (!electable || this.metadata.isRolledBack) continue;
      const { history } = replica;
      for (const [i, { epoch, firstLsn }] of history.entries()) {
        const end = Math.min((history[i + 1]?.firstLsn ?? lastLsn + 1) - 1, oracle.length);
        for (let lsn: number = firstLsn; lsn <= end; lsn++) {
          if (oracle.epochAt(lsn) === epoch) continue;
          this.violate(
            new SimViolation(
              `S1: ${node.name} starts with an entry of epoch ${epoch} at ${lsn} of group ${gid}, ` +
                `where epoch ${oracle.epochAt(lsn)} was committed`,
            ),
          );
        }
      }
    }
  }

  #allEqual(): boolean {
    // One that is about to end has closed its files.
    if (this.nodes.some((node) => node.isDraining)) return false;
    return this.plans.every(({ id, members }) => {
      const config = this.metadata.record(groupId(id));
      if (config?.inSync.length !== members.length) return false;
      const { length } = this.oracle(id);
      return members.every((member) =>
        this.nodes[member]!.backend?.groups.get(groupId(id))?.replica.state.appliedLsn === length
      );
    });
  }

  #checkEnd(): void {
    if (!this.#allEqual()) {
      throw new SimViolation(`S5: 30 s after the last fault ${this.#lagging()}`);
    }
    for (const { id, members } of this.plans) {
      const oracle = this.oracle(id);
      oracle.checkAnswers();
      for (const member of members) {
        const node = this.nodes[member]!;
        oracle.checkReplica(node.backend!.groups.get(groupId(id))!.replica.state, node.name);
      }
    }
    this.#checkOwners();
    for (const node of this.nodes) {
      this.count("rebuilt", Object.keys(node.folder.identity.rebuilds).length);
    }
    this.#transactionOracle.checkEnd();
    this.count("transactions", this.#transactionOracle.committedCount);
    this.count("transactionsAborted", this.#transactionOracle.abortedCount);
    for (const { id } of this.plans) {
      for (const { kind } of this.oracle(id).shapes) {
        if (kind !== "move") this.count(`${kind}s`);
      }
    }
    const verdict = checkLinearizability(this.#recorder.operations, {
      stepsPerRow: CHECKER_STEPS,
    });
    this.count("rows", verdict.rows);
    this.count("rowsUndecided", verdict.undecidedRows.length);
    if (verdict.valid === false) throw new SimViolation(`R2: ${verdict.problems.join("\n")}`);
  }

  #lagging(): string {
    return this.plans.map(({ id, members }) => {
      const config = this.metadata.record(groupId(id));
      const states = members.map((member) => {
        const replica = this.nodes[member]!.backend?.groups.get(groupId(id))?.replica;
        return `${member}: ${replica === undefined ? "down" : JSON.stringify(replica.progress)}`;
      });
      return `group ${id} of ${this.oracle(id).length} entries has ` +
        `${config?.inSync.length} of ${members.length} in sync\n${states.join("\n")}`;
    }).join("\n");
  }

  /** For the nemesis: the node that leads the group by the records. */
  primaryOf(gid: number): SimNode | null {
    const config = this.metadata.record(groupId(gid));
    return config === undefined ? null : this.nodes[config.primary.node]!;
  }

  recordOf(gid: number): GroupConfig | undefined {
    return this.metadata.record(groupId(gid));
  }

  /** Whether a node that is up has taken over the newest configuration of the group. */
  isAdopted(gid: number): boolean {
    const epoch = this.recordOf(gid)?.epoch;
    return this.nodes.some((node) =>
      node.backend?.groups.get(groupId(gid))?.replica.epoch === epoch
    );
  }

  /** B6: the coordinator says of every group whose record is too old that it will not touch it. */
  checkRollBackNoticed(): void {
    const shell = this.#coordinatorShell;
    if (!this.hasOneCoordinator || shell === null) {
      return this.violate(
        new SimViolation("B6: the coordinator ends over records that are too old"),
      );
    }
    const noticed = new Set<number>();
    for (const { gid, rolledBack } of shell.groups()) if (rolledBack) noticed.add(gid);
    for (const { id } of this.plans) {
      const epoch = this.recordOf(id)?.epoch ?? 0;
      const newest = Math.max(
        ...this.nodes.map((node) => node.backend?.groups.get(groupId(id))?.replica.epoch ?? 0),
      );
      if (newest > epoch && !noticed.has(id)) {
        this.violate(
          new SimViolation(
            `B6: nobody notices that the record of group ${id} is at epoch ${epoch} ` +
              `while a node is at ${newest}`,
          ),
        );
      }
    }
  }

  /** For the nemesis: tells a primary to hand over, as an operator may. */
  handOver(gid: number, to: number | null): void {
    const primary = this.primaryOf(gid);
    if (primary === null || to === null) return;
    this.#links.of("backend", primary.id)
      .send(backendConversation, "handOver", { gid: groupId(gid), to: this.nodes[to]!.id });
  }
}

/** How a process fares on the real machine is not part of the simulation. */
const NO_READINGS: ProcessReadings = {
  startedMs: 0,
  cpuSeconds: () => 0,
  memoryBytes: () => 0,
  cpuShare: () => 0,
  loopDelayMs: () => 0,
  close: () => {},
};

function clusterConfig(shape: SwarmShape): ClusterConfig {
  const backends = Array.from({ length: shape.backends }, (_, id) => ({
    role: "backend" as const,
    id,
    port: 10_000 + id,
  }));
  const config = ClusterConfig.parse({
    node: [{ role: "coordinator", id: 0, port: 9_999 }, ...backends],
    store: { replicas: shape.replicas, min_in_sync: shape.minInSync },
  });
  // Odd settings, beyond what an operator may ask for.
  return {
    ...config,
    store: {
      ...config.store,
      split_keys: Array.from({ length: shape.groups - 1 }, (_, i) => "mt"[i]!),
      read_mode: shape.readMode,
      heartbeat_ms: shape.heartbeatMs,
      lease_ms: shape.leaseMs,
      grace_ms: shape.graceMs,
      ack_timeout_ms: shape.ackTimeoutMs,
      cold_start_wait_ms: shape.coldStartWaitMs,
      checkpoint_dirty_bytes: shape.checkpointBytes,
      checkpoint_log_bytes: shape.checkpointBytes,
      tablet_max_bytes: shape.tabletBytes,
      memory_bytes: shape.memoryBytes,
      move_bytes_per_second: shape.moveBytesPerSecond,
    },
  };
}
