/**
 * A backend as a process: one data folder with its log, checkpoints and large values, the replicas of
 * its groups, and the connections to clients, other backends and the coordinator.
 *
 * At the start it locks its folder, reads its log, and takes part as what its last configuration
 * said; what it may do then is for the coordinator and the other members to say. Any failed write or
 * sync of the log ends the process: the kernel may have dropped what it could not write, so the next
 * process begins the store anew (backend_start.ts). Damage to one group's data ends only that replica
 * (backend_groups.ts).
 */
import type { Ballast } from "../kv/disk/ballast.ts";
import { BlobStore } from "../kv/disk/blob_store.ts";
import { DiskFailedError } from "../kv/disk/disk.ts";
import { markSuspect, openDataFolder } from "../kv/disk/identity.ts";
import { NodeMemory } from "../kv/node_memory.ts";
import { repeat } from "../kv/repeat.ts";
import { UndoBudget } from "../kv/snapshots.ts";
import type { QuarantineContent } from "../kv/disk/quarantine.ts";
import type { Wal } from "../kv/disk/wal.ts";
import { KvClient } from "../kv/client.ts";
import { BEAT_MS, type Env } from "../kv/env.ts";
import { CorruptionError } from "../kv/errors.ts";
import { invariant, InvariantViolation } from "../kv/invariant.ts";
import { LockSweeper } from "../kv/lock_sweeper.ts";
import { planGroups } from "../proto/cluster_config.ts";
import { backendConversation, type StoreReport } from "../proto/control.ts";
import type { DiskReport } from "../proto/disk_report.ts";
import { type GroupId, groupId, type Lsn, type NodeId, nodeId } from "../proto/ids.ts";
import { kvConversation } from "../proto/kv_wire.ts";
import { moveConversation } from "../proto/moves.ts";
import { replicaConversation } from "../proto/replication.ts";
import { mergeRoutes, NO_ROUTES, routeOf, type RouteTable, tableOf } from "../proto/routes.ts";
import { transferConversation } from "../proto/transfer.ts";
import { idleHeartbeatMs, type Self } from "../kv/replica.ts";
import { GroupShell } from "./backend_group.ts";
import { BackendGroups } from "./backend_groups.ts";
import { type BackendParts, realParts } from "./backend_parts.ts";
import { BackendService } from "./backend_service.ts";
import {
  type FoundStore,
  openOrRenew,
  readStoreWithSpace,
  untilExpendable,
} from "./backend_start.ts";
import { BlobIntake } from "./blob_intake.ts";
import { BlobSweeper } from "./blob_sweeper.ts";
import { CopySafety } from "./copy_safety.ts";
import { ClockWatch } from "./clock_watch.ts";
import { askHashes, judge } from "./hash_vote.ts";
import { RpcTransport } from "./kv_connection.ts";
import { giveBackMemory } from "./memory_return.ts";
import type { Metrics } from "./metrics.ts";
import { serveRpc } from "./net/rpc_server.ts";
import { service, services } from "./net/rpc_service.ts";
import { MoveTarget } from "./move_target.ts";
import { NodeReporter } from "./node_reporter.ts";
import { type OpsAnswers, opsPort, startOpsServer } from "./ops_server.ts";
import { Pacer } from "./pacer.ts";
import { type PeerLinks, Peers, secretText } from "./peers.ts";
import { TabletMover } from "./tablet_mover.ts";
import type { RoleContext, RunningRole, StopReason } from "./role_context.ts";
import { Scrubber } from "./scrubber.ts";
import { fetchBlobFrom, SnapshotSource } from "./snapshot_transfer.ts";

/** While something goes on. Otherwise beats are enough: nine backends should not keep a laptop warm. */
const TICK_MS = 50;
const IDLE_AFTER_MS = 5_000;
const HOUSEKEEPING_MS = 1_000;
/** How often the free space is looked at while nothing is written. */
const IDLE_DISK_CHECK_MS = 5_000;
const DRAIN_MS = 20_000;
/** Below this much free space no new writes are taken, so that what is under way can end. */
const DISK_RESERVE_BYTES = 64 * 1024 * 1024;
/** A disk too small for that keeps twice its ballast. */
const reserveBytes = (ballast: Ballast | undefined) =>
  ballast === undefined ? DISK_RESERVE_BYTES : Math.min(DISK_RESERVE_BYTES, 4 * ballast.bytes);
/** A log that takes this long over one write or sync is no place for a primary. */
const DISK_STALL_MS = 1_500;
const QUARANTINE_EVERY_MS = 30_000;

export async function runBackend(context: RoleContext): Promise<RunningRole> {
  const stopping = new AbortController();
  const waiting = Promise.withResolvers<void>();
  const guarded = { ...context, env: distrustful(context) };
  const starting = startBackend(guarded, {
    mayRenew: async (damage) => {
      waiting.resolve();
      const peers = new Peers(guarded);
      const { host: hostname, port } = guarded.node;
      const startOps = (answers: OpsAnswers) =>
        startOpsServer({ hostname, port: opsPort(port), ...answers });
      try {
        await untilExpendable(guarded, damage, stopping.signal, { peers, startOps });
      } finally {
        peers.close();
      }
    },
  });
  // A damaged store may have to wait for others, and must be able to stop meanwhile.
  await Promise.race([starting, waiting.promise]);
  return {
    ready: starting.then((backend) => backend.ready),
    stop: async (reason: StopReason) => {
      stopping.abort();
      await (await starting.catch(() => null))?.stop(reason);
    },
  };
}

/** Leaves word for the next process when the disk failed: what was read back may not be on it. */
function distrustful({ env, dataDir }: RoleContext): Env {
  return {
    ...env,
    fatal(error) {
      if (error instanceof DiskFailedError) markSuspect(dataDir, error.message);
      return env.fatal(error);
    },
  };
}

async function startBackend(
  context: RoleContext,
  { mayRenew }: { mayRenew: (damage: CorruptionError) => Promise<void> },
): Promise<RunningRole> {
  const { node, config, env, dataDir: dir, clusterId } = context;
  const folder = await openDataFolder({ dir, clusterId, mayRenew });
  const backend = await openOrRenew({
    open: () => {
      const { storeId: store, bootCount: inc } = folder.identity;
      const self = { node: nodeId(node.id), store, inc };
      return Backend.open(context, self, realParts(context, folder));
    },
    mayRenew,
    renew: (damage) => folder.renew(damage),
  });
  // What loading the program and reading the log took goes back now, while nobody waits for us.
  giveBackMemory();
  const server = serveRpc({
    hostname: node.host,
    port: node.port,
    secret: secretText(context),
    clusterName: config.cluster.name,
    name: `backend/${node.id}`,
    services: backend.services,
    onError: (error, { peer, method }) =>
      env.log("warning", "a request failed", { peer, method, message: String(error) }),
  });
  const ops = startOpsServer({
    hostname: node.host,
    port: opsPort(node.port),
    ready: () => backend.readiness(),
    metrics: () => backend.metrics.text(),
  });
  backend.start();
  return {
    ready: backend.ready,
    stop: async (reason: StopReason) => {
      await backend.stop(reason);
      await Promise.all([server.close(), ops.close()]);
      await backend.close();
      await folder.close();
    },
  };
}

export class Backend {
  readonly #context: RoleContext;
  readonly #parts: BackendParts;
  readonly #self: Self;
  readonly #wal: Wal;
  readonly #intake: BlobIntake;
  readonly #replicas: BackendGroups;
  /** Those that take part. */
  readonly #groups: ReadonlyMap<GroupId, GroupShell>;
  readonly #memory: NodeMemory;
  readonly #peers: PeerLinks;
  /** To other groups, for what transactions left behind. */
  readonly #client: KvClient;
  readonly #lockSweepers = new Map<GroupId, LockSweeper>();
  readonly #service: BackendService;
  readonly #source: SnapshotSource;
  readonly #scrubber: Scrubber;
  readonly #blobSweeper: BlobSweeper;
  readonly #mover: TabletMover;
  readonly #moveTarget: MoveTarget;
  #quarantine: QuarantineContent = { count: 0, bytes: 0 };
  #quarantineAtMs = -Infinity;
  /** Groups whose states are being compared. */
  readonly #settling = new Set<GroupId>();
  #reporter: NodeReporter | null = null;
  readonly metrics: Metrics;
  readonly ready: Promise<void>;
  #markReady!: () => void;
  #isReady = false;
  #routes: RouteTable = NO_ROUTES;
  #draining = false;
  /** Groups whose log may end too early: the machine was restarted, and its disk is not trusted. */
  readonly #doubted = new Set<GroupId>();
  /** The coordinator took note of this life, so the folder is no older copy of itself. */
  #lifeIsKnown = false;
  #diskFull = false;
  #isHanging = false;
  #diskCheckedMs = -Infinity;
  /** Of checkpoints, from other nodes. */
  #fetchesUnderWay = 0;
  #blobBytes = 0;
  readonly #clock: ClockWatch;
  readonly #cancels: (() => void)[] = [];
  /** Set while a tick is due by itself, so many milliseconds after it was planned. */
  #nextTick: { readonly ms: number; readonly cancel: () => void } | null = null;
  #lastWork = { batchCount: 0, nowMs: 0 };
  /** How often an idle node has to tick for its leases to last. */
  readonly #restMs: number;
  #stopped = false;

  /** @throws {CorruptionError} what all groups share is damaged; nothing was changed */
  static async open(context: RoleContext, self: Self, parts: BackendParts): Promise<Backend> {
    const found = await readStoreWithSpace(context, self, parts);
    const blobs = await BlobStore.open({ disk: parts.disk, dir: context.dataDir });
    return new Backend({ context, parts, self, blobs, found });
  }

  private constructor({ context, parts, self, blobs, found }: {
    context: RoleContext;
    parts: BackendParts;
    self: Self;
    blobs: BlobStore;
    found: FoundStore;
  }) {
    const { env, config, dataDir } = context;
    const { wal } = found;
    this.#context = context;
    this.#parts = parts;
    this.#clock = new ClockWatch(parts.uptimeMs ?? (() => null), () => context.env.monotonicMs());
    this.#self = self;
    this.#wal = wal;
    const { heartbeat_ms: heartbeatMs, lease_ms: leaseMs } = config.store;
    this.#restMs = idleHeartbeatMs({ heartbeatMs, leaseMs });
    this.#peers = parts.peers;
    this.metrics = parts.metrics;
    this.ready = new Promise((resolve) => this.#markReady = resolve);
    const ranges = new Map(planGroups(config).map((plan) => [groupId(plan.id), plan]));
    const onDiskFull = () => this.#onDiskFull();
    const fetch = fetchBlobFrom({ peers: this.#peers, config, self: self.node });
    this.#intake = new BlobIntake({ store: blobs, env, onDiskFull, fetch });
    this.#memory = new NodeMemory({
      bytesMax: config.store.memory_bytes,
      groupCount: planGroups(config).filter((plan) => plan.members.includes(self.node)).length,
      users: () => this.#groups.values(),
      ...(parts.cache === undefined ? {} : { cache: parts.cache }),
    });
    const bytesPerSecond = config.store.transfer_mib_per_s * 1024 * 1024;
    const fetching = new Pacer({ env, bytesPerSecond });
    const undo = new UndoBudget(this.#memory.shares.undo);
    this.#replicas = new BackendGroups({
      folder: parts.folder ?? null,
      self,
      wal,
      env,
      openStore: parts.openStore,
      safety: new CopySafety(context, this.#peers),
      onMismatch: (shell, lsn) => void this.#settle(shell, lsn),
      onChanged: () => this.#reporter?.reportNow(),
      makeShell: ({ gid, copy, store, recovered, onDamage, onMismatch }) =>
        new GroupShell({
          context,
          gid,
          range: ranges.get(gid)!,
          self: { ...self, store: copy },
          folder: self.store,
          store,
          recovered,
          wal,
          blobs,
          intake: this.#intake,
          peers: this.#peers,
          memory: this.#memory,
          undo,
          onDamage,
          onMismatch,
          isLifeKnown: () => this.#lifeIsKnown,
          onRoleChanged: () => this.#reporter?.reportNow(),
          onStirred: () => this.#tickWithin(TICK_MS),
          onDiskFull,
          onFilesLeft: () => this.#blobSweeper.soon(),
          keepDiverged: parts.keepDiverged,
          fetchSnapshot: (group: GroupShell, from: NodeId) => {
            this.#fetchesUnderWay += 1;
            const openStore = () => parts.openStore(gid);
            const peers = this.#peers;
            const options = { group, from, peers, blobs, dataDir, openStore, env, pacer: fetching };
            return parts.fetchSnapshot(options)
              .finally(() => this.#fetchesUnderWay -= 1);
          },
        }),
    });
    this.#groups = this.#replicas.shells;
    for (const group of found.groups) this.#replicas.open(group);
    const { folder } = parts;
    if (!config.store.trust_fsync && folder !== undefined) {
      for (const { gid } of found.groups) if (!folder.isConfirmed(gid)) this.#doubted.add(gid);
    }
    const onDamage = (group: GroupShell, error: CorruptionError) => {
      env.log("error", "damaged data", { gid: group.gid, message: error.message });
      return this.#replicas.unreadable(group, error);
    };
    this.#service = new BackendService({
      groups: this.#groups,
      isSuspect: (gid) => this.#replicas.isSuspect(gid),
      self: self.node,
      peers: this.#peers,
      intake: this.#intake,
      env,
      ioBufferBytes: config.store.io_buffer_bytes,
      routes: () => this.#newestRoutes(),
      onDamage,
    });
    this.#mover = new TabletMover({
      groups: this.#groups,
      plans: planGroups(config),
      env,
      peers: this.#peers,
      intake: this.#intake,
      bytesPerSecond: config.store.move_bytes_per_second,
      onDamage,
      ...(parts.moveCells === undefined ? {} : { pieceCells: parts.moveCells }),
    });
    this.#moveTarget = new MoveTarget({
      groups: this.#groups,
      intake: this.#intake,
      completionBytes: this.#memory.shares.completions,
      onFilesLeft: () => this.#blobSweeper.soon(),
    });
    this.#scrubber = new Scrubber({
      groups: this.#groups,
      blobs,
      intake: this.#intake,
      wal,
      env,
      intervalMs: config.store.scrub_hours * 3_600_000,
      bytesPerSecond: config.store.scrub_bytes_per_second,
      lastMs: parts.notes?.scrubbedMs ?? null,
      noteFinished: (wallMs) => parts.notes?.noteScrubbed(wallMs),
      onDamage: (shell, error) => void this.#replicas.unreadable(shell, error),
    });
    this.#blobSweeper = new BlobSweeper({
      groups: () => this.#groups.values(),
      blobs,
      intake: this.#intake,
      env,
      isUncertain: () => this.#replicas.problem !== null || this.#fetchesUnderWay > 0,
    });
    this.#client = new KvClient({ env, transport: new RpcTransport(context, this.#peers) });
    const pacer = new Pacer({ env, bytesPerSecond });
    this.#source = new SnapshotSource({ groups: this.#groups, blobs, env, pacer });
    this.#reporter = new NodeReporter({
      context,
      coordinator: this.#peers.coordinator,
      ready: () => this.#isReady,
      requestCount: () => this.#service.requestCount,
      problem: () => this.#currentProblem(),
      store: () => this.#report(),
      routesVersion: () => this.#routes.version,
      onRoutes: (routes) => this.#routes = mergeRoutes(this.#routes, routes),
      onRangeMap: (map) => this.#mover.onMap(map),
      onKnown: () => {
        if (this.#lifeIsKnown) return;
        this.#lifeIsKnown = true;
        for (const group of this.#groups.values()) group.lifeIsKnown();
      },
      onWentBack: () => {
        const message = `Cannot go on with data folder "${dataDir}": it is an older copy of itself`;
        env.fatal(new DiskFailedError(message));
      },
    });
    this.#defineMetrics();
  }

  get groups(): ReadonlyMap<GroupId, GroupShell> {
    return this.#groups;
  }

  get services() {
    return services(
      service(kvConversation, this.#service.handlers),
      service(transferConversation, this.#source.handlers),
      service(moveConversation, this.#moveTarget.handlers),
      service(replicaConversation, {
        replica: (message, payload) => this.#groups.get(message.gid)?.receive(message, payload),
      }),
      service(backendConversation, {
        config: ({ config, learners }) =>
          this.#groups.get(config.gid)?.feed({ kind: "config", config, learners }),
        poll: () => ({ spawnId: this.#context.spawnId, report: this.#report() }),
        configs: () => ({ configs: this.#replicas.configs(), rangeMap: this.#mover.map }),
        rangeMap: (map) => this.#mover.onMap(map),
        memberDown: ({ gid, node, inc }) =>
          this.#groups.get(gid)?.feed({ kind: "memberDown", node, inc }),
        handOver: ({ gid, to }) => this.#groups.get(gid)?.feed({ kind: "handOver", to }),
        scrub: ({ start }) => {
          if (start) void this.#scrubber.runNow();
          return this.#diskReport();
        },
        differs: async ({ gid, lsn }) => {
          const shell = this.#groups.get(gid);
          const isRight = shell !== undefined && await this.#isRight(shell, lsn);
          return { verdict: isRight ? "sound" as const : "damaged" as const };
        },
      }),
    );
  }

  start(): void {
    const { env } = this.#context;
    this.#tickWithin(TICK_MS);
    this.#cancels.push(
      env.onBeat(() => this.#onBeat()),
      repeat(env, HOUSEKEEPING_MS, () => this.#keepHouse()),
    );
    this.#blobSweeper.start();
    this.#scrubber.start();
    this.#reporter?.start();
  }

  readiness() {
    return this.#isReady
      ? { ready: true }
      : { ready: false, reason: this.#replicas.problem ?? "its groups have no primary yet" };
  }

  async stop(reason: StopReason): Promise<void> {
    this.#draining = true;
    this.#reporter?.reportNow();
    if (reason === "drain") await this.#handOverAll();
    this.#stopped = true;
    this.#mover.stop();
    this.#scrubber.stop();
    this.#blobSweeper.stop();
    this.#reporter?.stop();
    for (const cancel of this.#cancels) cancel();
    this.#nextTick?.cancel();
  }

  /** After the last message: what is applied goes into checkpoints, so that the start is quick. */
  async close(): Promise<void> {
    this.#peers.close();
    await this.#source.removeAll();
    await this.#replicas.close();
    for (const group of this.#groups.values()) {
      await group.checkpoint();
      // Whatever still comes in finds nobody, and nothing is written once the log is closed.
      await group.retire();
    }
    await this.#wal.close();
    await this.#parts.closeStores();
  }

  #onBeat(): void {
    // Otherwise a tick of its own is due.
    if (this.#nextTick === null) this.#tick();
    this.#planTick();
  }

  /** While nothing goes on, ticks come with the beats, or just often enough for the leases. */
  #planTick(): void {
    if (!this.#isIdle()) this.#tickWithin(TICK_MS);
    else if (this.#restMs < BEAT_MS) this.#tickWithin(this.#restMs);
  }

  #tickWithin(ms: number): void {
    if (this.#stopped || this.#nextTick !== null && this.#nextTick.ms <= ms) return;
    this.#nextTick?.cancel();
    const cancel = this.#context.env.timer(ms, () => {
      this.#nextTick = null;
      this.#tick();
      this.#planTick();
    });
    this.#nextTick = { ms, cancel };
  }

  /** Nothing was logged for a while, and no replica waits for anything. */
  #isIdle(): boolean {
    const nowMs = this.#context.env.monotonicMs();
    const { batchCount } = this.#wal.stats;
    const isLogging = batchCount !== this.#lastWork.batchCount || this.#wal.isBusy;
    if (isLogging || !this.#isReady) {
      this.#lastWork = { batchCount, nowMs };
    }
    if (nowMs - this.#lastWork.nowMs <= IDLE_AFTER_MS) return false;
    for (const { replica } of this.#groups.values()) if (!replica.isCalm) return false;
    return true;
  }

  #tick(): void {
    const isHanging = this.#wal.hangingMs > DISK_STALL_MS;
    if (isHanging !== this.#isHanging) {
      this.#isHanging = isHanging;
      const event = isHanging ? "the disk hangs" : "the disk answers again";
      this.#context.env.log(isHanging ? "error" : "info", event);
    }
    if (isHanging) {
      for (const group of this.#groups.values()) group.feed({ kind: "stepAside" });
    }
    for (const group of this.#groups.values()) group.feed({ kind: "tick" });
    this.#mover.tick();
    if (this.#isReady) return;
    if (this.#replicas.problem !== null) return;
    for (const group of this.#groups.values()) {
      const { role, config } = group.replica;
      const serves = role === "primary" ? group.replica.canServe() : role !== "idle";
      if (config === null || !serves) return;
    }
    this.#isReady = true;
    this.#markReady();
    this.#reporter?.reportNow();
  }

  #keepHouse(): void {
    const sleptMs = this.#clock.sleptMs();
    if (sleptMs > 0) {
      this.#context.env.log("warning", "the machine slept", { ms: Math.round(sleptMs) });
      for (const group of this.#groups.values()) group.feed({ kind: "clockDoubted" });
    }
    for (const group of this.#groups.values()) {
      group.maybeCheckpoint();
      group.maybeAudit();
      if (group.replica.canServe()) this.#sweepLocks(group);
    }
    this.#settleDoubts();
    void this.#checkDisk();
    void this.#measureQuarantine();
    void this.#source.removeOld();
  }

  /** A log that others have compared with theirs is whole, whatever the disk did before. */
  #settleDoubts(): void {
    const { folder } = this.#parts, { env } = this.#context;
    for (const gid of this.#doubted) {
      if (this.#groups.get(gid)?.replica.isConfirmed !== true) continue;
      this.#doubted.delete(gid);
      env.log("info", "log confirmed after a restart of the machine", { gid });
      // Should this get lost, the group is doubted once more after the next start.
      folder?.confirm(gid).catch((error) => env.fatal(error));
    }
  }

  #sweepLocks({ gid, replica }: GroupShell): void {
    let sweeper = this.#lockSweepers.get(gid);
    if (sweeper === undefined) {
      const { transactions } = this.#client;
      sweeper = new LockSweeper({ env: this.#context.env, transactions });
      this.#lockSweepers.set(gid, sweeper);
    }
    void sweeper.sweep(replica.state.locks);
  }

  async #checkDisk(): Promise<void> {
    const nowMs = this.#context.env.monotonicMs();
    if (this.#isIdle() && nowMs - this.#diskCheckedMs < IDLE_DISK_CHECK_MS) return;
    this.#diskCheckedMs = nowMs;
    try {
      const free = await this.#parts.disk.freeBytes(this.#context.dataDir);
      if (free === null) return;
      const ballast = await this.#parts.ballast?.();
      // The space that the ballast gave back is not for new writes.
      const owed = ballast === undefined || ballast.isThere ? 0 : ballast.bytes;
      const reserve = reserveBytes(ballast);
      this.#noticeDisk(free - owed < reserve);
      if (!this.#diskFull) await ballast?.restore(free, reserve);
    } catch (error) {
      this.#context.env.log("warning", "free space unknown", { message: String(error) });
    }
  }

  /** A write found no space at all: gives back what was kept for this, so that it can end. */
  #onDiskFull(): void {
    this.#noticeDisk(true);
    this.#parts.ballast?.().then((ballast) => ballast.release()).catch((error) => {
      this.#context.env.log("warning", "ballast not released", { message: String(error) });
    });
  }

  #noticeDisk(full: boolean): void {
    if (full === this.#diskFull) return;
    this.#diskFull = full;
    this.#context.env.log(full ? "error" : "info", full ? "disk full" : "disk has space again");
    for (const group of this.#groups.values()) group.feed({ kind: "disk", full });
    // A primary that takes no writes should not be one while others have space.
    this.#reporter?.reportNow();
  }

  async #handOverAll(): Promise<void> {
    const { env } = this.#context;
    const deadlineMs = env.monotonicMs() + DRAIN_MS;
    for (;;) {
      const led = [...this.#groups.values()].filter((group) => group.replica.role === "primary");
      if (led.length === 0 || env.monotonicMs() > deadlineMs) return;
      for (const group of led) group.feed({ kind: "handOver", to: null });
      await env.sleep(50);
    }
  }

  #currentProblem(): string | null {
    if (this.#diskFull) return "its disk is full: reads go on, writes are refused";
    if (this.#isHanging) return "its disk hangs: a write has been under way for seconds";
    const { problem } = this.#replicas;
    if (problem !== null) return problem.slice(0, 300);
    for (const group of this.#groups.values()) if (group.problem !== null) return group.problem;
    if (this.#doubted.size > 0) {
      return `its machine was restarted and trust_fsync is false: its copies of groups ` +
        `${[...this.#doubted].join(", ")} do not count before another member is there`;
    }
    const { finding, damaged, mended } = this.#scrubber.report;
    return finding !== null && damaged > mended ? `scrubbing found damage: ${finding}` : null;
  }

  #report(): StoreReport {
    return {
      store: this.#self.store,
      inc: this.#self.inc,
      draining: this.#draining,
      logBytes: this.#wal.sizeBytes,
      dataBytes: this.#dataBytes(),
      disk: this.#diskReport(),
      diskFull: this.#diskFull,
      groups: this.#replicas.reports().map((report) =>
        this.#doubted.has(report.gid) ? { ...report, doubted: true } : report
      ),
      rangeMapVersion: this.#mover.mapVersion,
    };
  }

  #diskReport(): DiskReport {
    return {
      scrub: this.#scrubber.report,
      rebuilt: this.#replicas.rebuildCount,
      mended: this.#intake.repairCount,
      quarantine: this.#quarantine,
    };
  }

  async #measureQuarantine(): Promise<void> {
    const { env } = this.#context, nowMs = env.monotonicMs();
    if (nowMs - this.#quarantineAtMs < QUARANTINE_EVERY_MS) return;
    this.#quarantineAtMs = nowMs;
    try {
      this.#quarantine = await this.#parts.notes?.quarantine() ?? this.#quarantine;
    } catch (error) {
      env.log("warning", "quarantine not measured", { message: String(error) });
    }
  }

  /** Our state differs from the primary's as of `lsn`: whoever is wrong begins anew. */
  async #settle(shell: GroupShell, lsn: Lsn): Promise<void> {
    const { gid } = shell;
    const primary = shell.replica.config?.primary.node;
    if (this.#settling.has(gid) || primary === undefined) return;
    this.#settling.add(gid);
    try {
      if (!await this.#isRight(shell, lsn)) return;
      const { body } = await this.#peers.of("backend", primary)
        .call(backendConversation, "differs", { gid, lsn }, undefined, { timeoutMs: 120_000 });
      if (body.verdict === "damaged" || this.#groups.get(gid) !== shell) return;
      invariant(
        false,
        "A7",
        () =>
          `group ${gid}: at entry ${lsn} the state differs from that of primary backend/${primary}, ` +
          `no majority of the replicas says who is wrong, and both disks are sound`,
      );
    } catch (error) {
      if (error instanceof InvariantViolation) this.#context.env.fatal(error);
      // Asked again with the next entry at which states are compared.
      this.#context.env.log("warning", "states not compared", { gid, message: String(error) });
    } finally {
      this.#settling.delete(gid);
    }
  }

  /** False when our state as of `lsn` is the odd one or our disk is damaged; then it begins anew. */
  async #isRight(shell: GroupShell, lsn: Lsn): Promise<boolean> {
    const { gid } = shell, self = this.#self.node;
    const mine = shell.replica.checks.find((check) => check.lsn === lsn)?.hash;
    const inSync = shell.replica.config?.inSync ?? [];
    const members = inSync.map(({ node }) => node).filter((node) => node !== self);
    const hashes = await askHashes({ gid, lsn, members, peers: this.#peers });
    if (mine !== undefined) hashes.set(self, mine);
    const verdict = mine === undefined ? "undecided" : judge(hashes, self);
    if (verdict === "other") return true;
    if (verdict === "me") {
      const message = `The state of group ${gid} as of entry ${lsn} is another than the majority's`;
      this.#replicas.damaged(shell, new CorruptionError(message, `groups/${gid}.db`, 0));
      return false;
    }
    const damagedBefore = this.#scrubber.report.damaged;
    await this.#scrubber.runNow();
    return this.#groups.get(gid) === shell && this.#scrubber.report.damaged === damagedBefore;
  }

  /** What the coordinator said, and of our own groups what we know ourselves. */
  #newestRoutes(): RouteTable {
    const own = planGroups(this.#context.config).flatMap((plan) => {
      const config = this.#groups.get(groupId(plan.id))?.replica.config ?? null;
      return config === null ? [] : [routeOf({ ...plan, gid: groupId(plan.id) }, config)];
    });
    return mergeRoutes(this.#routes, tableOf(own));
  }

  #dataBytes(): number {
    let bytes = this.#blobBytes;
    for (const group of this.#groups.values()) bytes += group.replica.state.counts.bytes;
    return bytes;
  }

  #defineMetrics(): void {
    const groups = () => [...this.#groups.values()];
    const perGroup = (value: (group: GroupShell) => number) => () =>
      groups().map((group) => ({ labels: { group: group.gid }, value: value(group) }));
    this.metrics.read("penncloud_log_fsyncs_total", {
      help: "Syncs of the log",
      type: "counter",
      value: () => this.#wal.stats.fsyncCount,
    });
    this.metrics.read("penncloud_log_written_bytes_total", {
      help: "Bytes written to the log",
      type: "counter",
      value: () => this.#wal.stats.bytesWritten,
    });
    this.metrics.read("penncloud_log_bytes", {
      help: "Size of the log on disk",
      value: () => this.#wal.sizeBytes,
    });
    this.metrics.read("penncloud_memory_bytes", {
      help: "Data in memory, by what it is for",
      value: () =>
        Object.entries(this.#memory.use()).map(([kind, value]) => ({ labels: { kind }, value })),
    });
    this.metrics.read("penncloud_memory_peak_bytes", {
      help: "The most data in memory so far",
      value: () => this.#memory.peakBytes,
    });
    this.metrics.read("penncloud_memory_limit_bytes", {
      help: "Ceiling of the data in memory",
      value: () => this.#memory.bytesMax,
    });
    this.metrics.read("penncloud_memory_refusals_total", {
      help: "Requests and entries turned away because memory was in use",
      type: "counter",
      value: () => this.#memory.refusedCount,
    });
    this.metrics.read("penncloud_requests_total", {
      help: "Requests of clients",
      type: "counter",
      value: () => this.#service.requestCount,
    });
    this.metrics.read("penncloud_group_primary", {
      help: "1 where this node is the primary of the group",
      value: perGroup((group) => group.replica.role === "primary" ? 1 : 0),
    });
    this.metrics.read("penncloud_group_epoch", {
      help: "The configuration that this replica adopted",
      value: perGroup((group) => group.replica.epoch),
    });
    this.metrics.read("penncloud_group_applied_lsn", {
      help: "The last log entry that is visible to reads",
      value: perGroup((group) => group.replica.progress.appliedLsn),
    });
    this.metrics.read("penncloud_group_checkpoint_lsn", {
      help: "The last log entry that is in the checkpoint",
      value: perGroup((group) => group.store.checkpointLsn),
    });
    this.metrics.read("penncloud_scrub_rounds_total", {
      help: "Times that everything stored was read again",
      type: "counter",
      value: () => this.#scrubber.report.rounds,
    });
    this.metrics.read("penncloud_scrub_finished_seconds", {
      help: "When the last round of scrubbing ended, in seconds since 1970; 0 for never",
      value: () => Math.round((this.#scrubber.report.finishedMs ?? 0) / 1000),
    });
    this.metrics.read("penncloud_scrub_bytes", {
      help: "Bytes read by the round of scrubbing under way, or the last one",
      value: () => this.#scrubber.report.bytes,
    });
    this.metrics.read("penncloud_scrub_damaged", {
      help: "Damage found by the round of scrubbing under way, or the last one",
      value: () => this.#scrubber.report.damaged,
    });
    this.metrics.read("penncloud_values_mended_total", {
      help: "Files of large values that were fetched anew from another member",
      type: "counter",
      value: () => this.#intake.repairCount,
    });
    this.metrics.read("penncloud_quarantine_bytes", {
      help: "Damaged files that were moved aside",
      value: () => this.#quarantine.bytes,
    });
    this.metrics.read("penncloud_replica_rebuilds_total", {
      help: "Damaged replicas that were begun anew",
      type: "counter",
      value: () => this.#replicas.rebuildCount,
    });
    this.metrics.read("penncloud_group_lag_entries", {
      help: "Entries in the log that are not applied yet",
      value: perGroup((group) =>
        group.replica.progress.lastLsn - group.replica.progress.appliedLsn
      ),
    });
    this.metrics.read("penncloud_group_reads_total", {
      help: "Reads of the group on this node",
      type: "counter",
      value: perGroup((group) => group.readCount),
    });
    this.metrics.read("penncloud_group_bounded_reads_total", {
      help: "Reads that allow an older state, answered by this node whether primary or not",
      type: "counter",
      value: perGroup((group) => group.boundedReadCount),
    });
    this.metrics.read("penncloud_group_writes_total", {
      help: "Writes of the group on this node",
      type: "counter",
      value: perGroup((group) => group.writeCount),
    });
  }
}
