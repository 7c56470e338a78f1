/**
 * One replica of one group as part of a process: a loop around `Replica` (kv/replica.ts), its log,
 * its checkpoints and its messages. There is no `if` about replication here.
 *
 * Inputs go through `feed()`; effects are carried out in order: messages by group_sender.ts, questions to
 * the coordinator by group_petitions.ts. Writes of the group go to the
 * node's log one batch after the other, so that a batch that had to wait (for the file of a large
 * value, or for space on the disk) is never overtaken.
 */
import type { BlobStore } from "../kv/disk/blob_store.ts";
import { explainSqlite } from "../kv/disk/checkpoint_file.ts";
import { DiskFailedError, isDiskFull } from "../kv/disk/disk.ts";
import type { Wal, WalRecord } from "../kv/disk/wal.ts";
import type { CheckpointedStore } from "../kv/cell_store.ts";
import { type LogRequest, rowOpsOf } from "../kv/command.ts";
import { type Env, freshId } from "../kv/env.ts";
import { CorruptionError, KvError } from "../kv/errors.ts";
import { GroupState } from "../kv/group_state.ts";
import { mutated } from "../kv/mutant.ts";
import { type Effect, type Input, type LogRecord, Replica, type Self } from "../kv/replica.ts";
import type { GroupMemory, NodeMemory } from "../kv/node_memory.ts";
import type { ScanSource } from "../kv/pages.ts";
import type { RowSpan } from "../kv/read_gate.ts";
import { LogEntry } from "../kv/replica_log.ts";
import type { RequestOutcome } from "../kv/outcome.ts";
import type { UndoBudget } from "../kv/snapshots.ts";
import type { TabletChange } from "../kv/tablet_policy.ts";
import type { MoveOutcome, MoveStep } from "../kv/tablet_move.ts";
import type { KeyRange, TabletStanding } from "../kv/tablets.ts";
import type { RequestStamp } from "../proto/command.ts";
import type { GroupReport } from "../proto/control.ts";
import {
  type Epoch,
  GroupId,
  type Lsn,
  lsn as toLsn,
  type NodeId,
  type StoreId,
} from "../proto/ids.ts";
import type { MoveProgress } from "../proto/moves.ts";
import type { GroupConfig, ReplicaMessage } from "../proto/replication.ts";
import type { ReadBound } from "../proto/kv_wire.ts";
import type { BlobIntake } from "./blob_intake.ts";
import type { RecoveredGroup } from "./backend_recovery.ts";
import { refusal } from "./backend_refusal.ts";
import { savedMeta, savedState } from "./checkpoint_meta.ts";
import { FreedFiles } from "./freed_files.ts";
import { GroupPetitions } from "./group_petitions.ts";
import { GroupSender } from "./group_sender.ts";
import { payloadPool } from "./net/payload_pool.ts";
import type { PeerLinks } from "./peers.ts";
import type { RoleContext } from "./role_context.ts";
import { bucketLimits, tabletLimits } from "./tablet_limits.ts";
import { TabletTraffic } from "./tablet_traffic.ts";

export interface GroupShellOptions {
  readonly context: Pick<RoleContext, "env" | "config">;
  readonly gid: GroupId;
  /** The rows that the group carries. */
  readonly range: KeyRange;
  readonly self: Self;
  readonly store: CheckpointedStore;
  readonly recovered: RecoveredGroup;
  readonly wal: Wal;
  /** The id of the data folder, which the log carries. */
  readonly folder: StoreId;
  readonly blobs: BlobStore;
  readonly intake: BlobIntake;
  readonly peers: PeerLinks;
  readonly memory: NodeMemory;
  /** For what open scans of the node's groups still have to see. */
  readonly undo: UndoBudget;
  /** The group cannot go on by its log: fetch a checkpoint from there and call `install`. */
  readonly fetchSnapshot: (group: GroupShell, from: NodeId) => Promise<void>;
  /**
   * Whether the coordinator took note of this life. An older copy of the folder has a count of starts
   * that was used before: a configuration may name that former life primary, and until the coordinator
   * was asked, nobody can tell the two apart.
   */
  readonly isLifeKnown: () => boolean;
  readonly onRoleChanged: () => void;
  /** Something goes on now: a tick is wanted before long. */
  readonly onStirred: () => void;
  readonly onDiskFull: () => void;
  /** There may be files of values now that nothing mentions. */
  readonly onFilesLeft: () => void;
  /** Puts lines about entries that lost against the primary's aside, for audit. */
  readonly keepDiverged: (gid: GroupId, lines: string) => Promise<void>;
  /** What this replica has on disk is damaged: it must not go on as the member that it is. */
  readonly onDamage: (error: CorruptionError) => void;
  /** As of this entry our state is another than the primary's. */
  readonly onMismatch: (lsn: Lsn) => void;
}

interface PendingWrite {
  readonly writeId: number;
  readonly records: readonly LogRecord[];
}

const RETRY_MS = 500;
/** Who was heard this lately is taken to be there. */
const COMPANY_MS = 3_000;
/** Of the node's log: beyond it, nothing is kept for replicas that are being filled. */
const LOG_KEPT_BYTES_MAX = 256 * 1024 * 1024;
const DIVERGED_BYTES_MAX = 16 * 1024 * 1024;
const HISTORY_MAX = 1_000;
const AUDIT_EVERY_MS = 10_000;
/** What comes again when it is not heard. */
const REPEATED_INPUTS: ReadonlySet<Input["kind"]> = new Set(
  ["message", "tick", "config", "proposed", "recordChecked"] as const,
);

export class GroupShell {
  readonly gid: GroupId;
  readonly #options: GroupShellOptions;
  readonly #env: Env;
  readonly #replica: Replica;
  #store: CheckpointedStore;
  #flushScheduled = false;
  readonly #writes: PendingWrite[] = [];
  #writing = false;
  /** A fetched checkpoint takes the place of the store: nothing may be read from it or applied to it. */
  #installing = false;
  #hintedCommitLsn: Lsn = toLsn(0);
  readonly #requests = new Map<number, PromiseWithResolvers<RequestOutcome>>();
  readonly #reshapes = new Map<number, PromiseWithResolvers<void>>();
  readonly #moveSteps = new Map<number, PromiseWithResolvers<MoveOutcome>>();
  /** The move whose tablet this primary goes on reading although it is frozen. */
  #readable: { readonly moveId: number; readonly reign: Epoch } | null = null;
  /** How far the move is by which this primary gives a tablet away. */
  moveProgress: MoveProgress | null = null;
  readonly #reads = new Map<number, { run: () => void; reject: (error: unknown) => void }>();
  #lastId = 0;
  readonly #sender: GroupSender;
  readonly #petitions: GroupPetitions;
  #checkpointing: Promise<void> | null = null;
  #checkpointedMs: number;
  #logBytesSinceCheckpoint = 0;
  /** Of the cells that a checkpoint under way writes. */
  #flushingBytes = 0;
  #auditedMs: number;
  readonly #freed: FreedFiles;
  #divergedBytes = 0;
  #diskFull = false;
  /** Checkpoints that are being fetched from here, and until when the log behind each is kept. */
  readonly #keptLog = new Map<Lsn, number>();
  /** It names this life primary, and has to wait. */
  #heldOffice: GroupConfig | null = null;
  #retired = false;
  /** Appends of which only the beginning was taken, for want of memory. */
  cutCount = 0;
  readCount = 0;
  boundedReadCount = 0;
  writeCount = 0;
  readonly #traffic = new TabletTraffic();
  /** One sentence when this replica is not what it should be. */
  problem: string | null = null;

  constructor(options: GroupShellOptions) {
    const { context, gid, self, store, recovered } = options;
    this.gid = gid;
    this.#options = options;
    this.#env = context.env;
    this.#store = store;
    this.#auditedMs = this.#env.monotonicMs();
    const start = this.#headStart();
    this.#checkpointedMs = this.#auditedMs - start.ageMs;
    this.#logBytesSinceCheckpoint = start.logBytes;
    const { peers, intake, blobs } = options, env = this.#env;
    this.#freed = new FreedFiles(env, blobs);
    this.#sender = new GroupSender({ env, gid, peers, intake });
    this.#petitions = new GroupPetitions({ gid, self, peers, feed: (input) => this.feed(input) });
    const { heartbeat_ms, lease_ms, grace_ms, ack_timeout_ms, read_mode } = context.config.store;
    this.#replica = new Replica({
      gid,
      self,
      timing: {
        heartbeatMs: heartbeat_ms,
        leaseMs: lease_ms,
        graceMs: grace_ms,
        ackTimeoutMs: ack_timeout_ms,
        readMode: read_mode,
      },
      state: this.#loadState(store),
      log: recovered.log(),
      config: recovered.config,
      commitLsn: recovered.commitLsn,
      nowMs: this.#env.monotonicMs(),
      makeId: () => freshId(this.#env),
      tablets: tabletLimits(context.config),
      memory: {
        recentLogBytes: options.memory.shares.recentLog,
        completionBytes: options.memory.shares.completions,
        lockBytes: options.memory.shares.locks,
        appendBytes: options.memory.shares.append,
        lagBytes: Math.floor(options.memory.shares.window / 2),
      },
    });
  }

  get replica(): Replica {
    return this.#replica;
  }

  /** @throws {KvError} `unavailable` while another checkpoint is put in its place */
  get store(): CheckpointedStore {
    if (!this.#installing) return this.#store;
    throw new KvError("unavailable", `The copy of group ${this.gid} is being replaced`);
  }

  /** Whether somebody else in sync is there at this moment, who could go on without us. */
  get hasCompany(): boolean {
    const { role, config, progress } = this.#replica;
    if (config === null) return false;
    if (role !== "primary") return progress.silentMs < COMPANY_MS;
    return progress.peers.some(({ node, leaseMs }) =>
      leaseMs > 0 && config.inSync.some((member) => member.node === node)
    );
  }

  /** What this replica goes by as a member. */
  get copy(): StoreId {
    return this.#options.self.store;
  }

  /**
   * Takes no part from this very turn on: asks nobody, answers nobody, acknowledges nothing. Whoever
   * waits is told to ask the next primary. Resolves when nothing of it is under way any more.
   */
  async retire(): Promise<void> {
    this.#retired = true;
    this.#replica.state.snapshots.closeAll();
    const error = this.#gone();
    for (const waiting of [this.#requests, this.#reshapes, this.#moveSteps, this.#reads]) {
      for (const { reject } of waiting.values()) reject(error);
    }
    this.#requests.clear();
    this.#reshapes.clear();
    this.#moveSteps.clear();
    this.#reads.clear();
    await this.#checkpointing;
    while (this.#writing) await this.#env.sleep(5);
    this.#store.close();
  }

  #gone(): Error {
    const message = `Node backend/${this.#options.self.node} gave up its copy of group ${this.gid}`;
    return refusal("not_primary", message, { hint: null, maybeApplied: true });
  }

  // ------------------------------------------------------------------------------ requests

  /** Resolves once the operation is committed; rejects as proto/kv_wire.ts says. */
  apply(stamp: RequestStamp, request: LogRequest): Promise<RequestOutcome> {
    if (this.#retired) return Promise.reject(this.#gone());
    const requestId = ++this.#lastId;
    const waiting = Promise.withResolvers<RequestOutcome>();
    this.#requests.set(requestId, waiting);
    this.writeCount += 1;
    for (const { row } of rowOpsOf(request)) {
      this.#traffic.wrote(this.#replica.state.tablets.idAt(row));
    }
    this.feed({ kind: "request", requestId, stamp, request, wallMs: this.#env.wallMs() });
    return waiting.promise;
  }

  /** Whether the request that was just handed to `apply` got into the log. */
  isLogged(stamp: RequestStamp): boolean {
    const command = this.#replica.entryAt(this.#replica.lastLsn)?.command;
    return command !== undefined && "stamp" in command && command.stamp === stamp;
  }

  /** Splits or merges tablets; resolves once that is committed. */
  reshape(change: TabletChange): Promise<void> {
    const requestId = ++this.#lastId;
    const waiting = Promise.withResolvers<void>();
    this.#reshapes.set(requestId, waiting);
    this.feed({ kind: "reshape", requestId, change });
    return waiting.promise;
  }

  /** Logs a step of a tablet's move; resolves with what became of it once it is committed. */
  move(step: MoveStep, timeMs = 0): Promise<MoveOutcome> {
    if (this.#retired) return Promise.reject(this.#gone());
    const requestId = ++this.#lastId;
    const waiting = Promise.withResolvers<MoveOutcome>();
    this.#moveSteps.set(requestId, waiting);
    this.feed({ kind: "move", requestId, step, timeMs });
    return waiting.promise;
  }

  /**
   * Whether a frozen tablet may be read here: only by the primary that froze it, in the same reign, and
   * until it asks for the commit. Everybody else has to take it for another group's.
   */
  setReadable(moveId: number | null): void {
    const reign = this.#replica.config?.reign;
    this.#readable = moveId === null || reign === undefined ? null : { moveId, reign };
  }

  /** Whether a tablet may be read from the state as it is now, besides all rules about who is primary. */
  mayRead({ state, departure }: TabletStanding): boolean {
    if (state !== "serving") return false;
    if (departure?.stage !== "frozen" || mutated("frozen-read-by-successor")) return true;
    const { role, config } = this.#replica;
    return role === "primary" && this.#readable?.moveId === departure.moveId &&
      this.#readable.reign === config?.reign;
  }

  isReadable(row: string): boolean {
    const { tablets } = this.#replica.state;
    if (tablets.isPlain) return tablets.idAt(row) !== 0;
    const tablet = tablets.at(row);
    return tablet !== undefined && this.mayRead(tablet);
  }

  /** @throws {KvError} `wrong_tablet` or `frozen`: the row may not be read here now */
  checkReadable(row: string): void {
    if (this.isReadable(row)) return;
    const isFrozen = this.#replica.state.tablets.at(row)?.state === "serving";
    throw refusal(
      isFrozen ? "frozen" : "wrong_tablet",
      `Row "${row}" ${isFrozen ? "is about to leave" : "is not in"} group ${this.gid}`,
      {},
    );
  }

  /** Runs `read` on the applied state in a turn in which the newest state may be read from it. */
  read<T>(span: RowSpan, read: () => T | Promise<T>): T | Promise<T> {
    this.#countRead(span.from);
    if (this.#retired) return Promise.reject(this.#gone());
    if (this.#replica.canReadAt(this.#env.monotonicMs())) return read();
    const readId = ++this.#lastId;
    return new Promise<T>((resolve, reject) => {
      const run = () => {
        try {
          resolve(read());
        } catch (error) {
          reject(error);
        }
      };
      this.#reads.set(readId, { run, reject });
      this.feed({ kind: "read", readId, span });
    });
  }

  #countRead(row: string): void {
    this.readCount += 1;
    this.#traffic.read(this.#replica.state.tablets.idAt(row));
  }

  /**
   * The state as of `lsn`, or for a new scan as it is now (null), to be read in this very turn.
   *
   * @throws {KvError} `snapshot_too_old`, `busy`
   */
  snapshot(lsn: Lsn | null): { lsn: Lsn; source: ScanSource; close: () => void } {
    const { store, snapshots, position } = this.#replica.state;
    const at = lsn ?? position, nowMs = this.#env.monotonicMs();
    if (lsn === null) snapshots.open(at, nowMs);
    else snapshots.check(at, nowMs);
    return {
      lsn: at,
      source: { range: (range) => snapshots.range(store, at, range) },
      close: () => snapshots.close(at),
    };
  }

  /** Whether this replica, primary or not, is as new as the reader wishes. */
  satisfies({ maxStaleMs, minLsn }: ReadBound): boolean {
    const { state } = this.#replica;
    if (this.#retired || this.#installing) return false;
    if (minLsn !== undefined && state.position < minLsn) return false;
    const nowMs = this.#env.monotonicMs();
    if (maxStaleMs !== undefined && this.#replica.stalenessAt(nowMs) > maxStaleMs) return false;
    this.boundedReadCount += 1;
    return true;
  }

  // ------------------------------------------------------------------------ inputs, effects

  feed(input: Input): void {
    if (input.kind === "disk") this.#diskFull = input.full;
    this.#run(input);
    // A tick flushes by itself.
    if (this.#flushScheduled || input.kind === "tick") return;
    this.#flushScheduled = true;
    // Everything that arrives in this turn shares one write and one message a peer.
    queueMicrotask(() => {
      this.#flushScheduled = false;
      this.#run({ kind: "flush" });
    });
  }

  #run(input: Input): void {
    if (this.#retired) return;
    // As if the network stood still; whoever sent it sends it again.
    if (this.#installing && REPEATED_INPUTS.has(input.kind)) return;
    if (this.#namesUnknownLife(input)) {
      this.#heldOffice = configIn(input);
      return;
    }
    const forced = this.#givenUpBy(input);
    if (forced !== null) return this.#options.onDamage(forced);
    let isQuiet = true;
    try {
      for (const effect of this.#replica.step(this.#env.monotonicMs(), input)) {
        isQuiet = false;
        this.#perform(effect);
      }
    } catch (error) {
      if (!(error instanceof CorruptionError)) this.#env.fatal(error);
      // A cell that an entry is about cannot be read. The replica stopped in the middle of a step, but
      // none of its effects left it.
      this.#options.onDamage(error);
      return;
    }
    if (!this.#replica.isCalm) this.#options.onStirred();
    // A request only adds to the log in memory; the flush at the end of its turn settles for all of them.
    if (input.kind === "request" || isQuiet && input.kind === "tick") return;
    this.#settleMemory();
    const freed = this.#replica.state.takeFreedBlobs();
    if (freed.length > 0) this.#freed.add(freed, this.#replica.state.appliedLsn);
  }

  // -------------------------------------------------------------------------------- memory

  memory(): GroupMemory {
    const { state, logMemory } = this.#replica;
    return {
      dirty: Math.max(0, this.#store.dirtyBytes - this.#flushingBytes),
      flushing: 2 * this.#flushingBytes,
      log: logMemory.bytes,
      unapplied: logMemory.unappliedBytes,
      completions: state.completions.bytes,
      undo: state.snapshots.bytes,
      index: state.indexBytes,
      locks: state.locks.bytes,
    };
  }

  relieve(): void {
    void this.checkpoint();
  }

  resume(): void {
    this.feed({ kind: "room" });
  }

  #settleMemory(): void {
    try {
      this.#options.memory.settle();
    } catch (error) {
      this.#env.fatal(error);
    }
  }

  /**
   * Looks whether a request fits into memory, before anything of it is kept.
   *
   * @throws {KvError} `busy`, `invalid_request`
   */
  admit(bytes: number): void {
    const { memory } = this.#options;
    const refused = memory.refusal(this, bytes);
    if (refused === "too_large") {
      throw new KvError(
        "invalid_request",
        `An operation of ${bytes} bytes in rows is too large: with store.memory_bytes = ` +
          `${memory.bytesMax} here it is at most ${memory.shares.window}`,
      );
    }
    if (refused === "busy") throw new KvError("busy", "The memory of the primary is in use");
  }

  /**
   * Whether a configuration says that data was given up which this copy may hold: it was made by force,
   * and this copy, which has entries, adopted none since then.
   */
  #givenUpBy(input: Input): CorruptionError | null {
    const config = configIn(input), { self } = this.#options;
    if (config?.forcedEpoch === undefined) return null;
    if (this.#replica.epoch >= config.forcedEpoch) return null;
    if (config.primary.node === self.node && config.primary.store === self.store) return null;
    if (this.#replica.lastLsn === 0) return null;
    const message =
      `An operator forced backend/${config.primary.node} to lead group ${this.gid} in ` +
      `epoch ${config.forcedEpoch}: what this copy has may have been given up`;
    return new CorruptionError(message, `groups/${this.gid}.db`, 0);
  }

  /** See `isLifeKnown`. */
  #namesUnknownLife(input: Input): boolean {
    const { self, isLifeKnown } = this.#options, primary = configIn(input)?.primary;
    return primary !== undefined && primary.node === self.node && primary.store === self.store &&
      primary.inc === self.inc && !isLifeKnown();
  }

  /** The coordinator took note of this life: what it was named in the meantime it may be. */
  lifeIsKnown(): void {
    const config = this.#heldOffice;
    this.#heldOffice = null;
    if (config !== null) this.feed({ kind: "config", config, learners: null });
  }

  #perform(effect: Effect): void {
    switch (effect.kind) {
      case "write":
        this.#writes.push(effect);
        if (!this.#writing) void this.#writeAll();
        return;
      case "send":
        this.#sender.send(effect.to, effect.message, effect.entries);
        return;
      case "reply":
        this.#requests.get(effect.requestId)?.resolve(effect.outcome);
        this.#requests.delete(effect.requestId);
        return;
      case "refuse": {
        const { kind: _, requestId, code, message, ...details } = effect;
        const error = refusal(code, message, { hint: this.#primaryHint(), ...details });
        for (const all of [this.#requests, this.#reshapes, this.#moveSteps]) {
          all.get(requestId)?.reject(error);
          all.delete(requestId);
        }
        return;
      }
      case "moved":
        this.#moveSteps.get(effect.requestId)?.resolve(effect.outcome);
        this.#moveSteps.delete(effect.requestId);
        return;
      case "reshaped":
        this.#reshapes.get(effect.requestId)?.resolve();
        this.#reshapes.delete(effect.requestId);
        return;
      case "readable":
        this.#reads.get(effect.readId)?.run();
        this.#reads.delete(effect.readId);
        return;
      case "unreadable": {
        const { code, message } = effect;
        const error = refusal(code, message, { hint: this.#primaryHint() });
        this.#reads.get(effect.readId)?.reject(error);
        this.#reads.delete(effect.readId);
        return;
      }
      case "propose":
        return this.#petitions.propose(effect);
      case "suspect":
        return this.#petitions.suspect(effect);
      case "checkRecord":
        return this.#petitions.checkRecord(effect.checkId);
      case "askConfig":
        return this.#petitions.askConfig();
      case "readLog":
        return this.#readLog(effect.node, effect.fromLsn);
      case "fetchSnapshot":
        this.#options.fetchSnapshot(this, effect.from).catch((error) => {
          this.#log("warning", "could not fetch a checkpoint", { message: String(error) });
          this.feed({ kind: "snapshotFailed" });
        });
        return;
      case "diverged":
        return this.#keepDiverged(effect.entries, effect.reason);
      case "hashMismatch":
        this.#log("error", "replicas differ", { lsn: effect.lsn, mine: effect.mine });
        this.#options.onMismatch(effect.lsn);
        return;
      case "roleChanged":
        this.#log("info", "role", { role: effect.role, epoch: effect.epoch });
        this.#options.onRoleChanged();
    }
  }

  /** Who should be asked instead, when we know. */
  #primaryHint(): NodeId | null {
    const primary = this.#replica.config?.primary.node ?? null;
    return primary === this.#options.self.node ? null : primary;
  }

  // --------------------------------------------------------------------------------- log

  async #writeAll(): Promise<void> {
    this.#writing = true;
    while (this.#writes.length > 0) {
      const writes = this.#writes.splice(0);
      const records = writes.length === 1
        ? writes[0]!.records
        : writes.flatMap((write) => write.records);
      if (!this.#retired) await this.#writeDurably(records);
      this.feed({ kind: "written", writeId: writes.at(-1)!.writeId });
    }
    this.#writing = false;
  }

  async #writeDurably(records: readonly LogRecord[]): Promise<void> {
    const { wal, intake } = this.#options;
    const blobs: string[] = [];
    for (const record of records) {
      if (record.type !== "entry") continue;
      for (const { blob } of record.entry.blobs) blobs.push(blob);
    }
    const walRecords = records.map((record) => this.#toWal(record));
    const { lastLsn } = this.#replica;
    const commitLsn = mutated("commit-hint-too-high") ? lastLsn : this.#replica.commitLsn;
    if (commitLsn > this.#hintedCommitLsn) {
      walRecords.push({ type: "commit", gid: this.gid, lsn: commitLsn });
      this.#hintedCommitLsn = commitLsn;
    }
    for (;;) {
      try {
        const waits = blobs.length > 0 && !mutated("large-value-not-awaited");
        if (waits) await intake.durable(blobs);
        await wal.append(walRecords);
        for (const record of walRecords) {
          if (record.type === "entry") this.#logBytesSinceCheckpoint += record.payload.length + 48;
        }
        // A restart takes all of it into memory.
        if (this.#logBytesSinceCheckpoint > this.#options.memory.shares.logToReplay) this.relieve();
        return;
      } catch (error) {
        if (!isDiskFull(error)) this.#env.fatal(error);
        // Nothing was acknowledged. The batch waits for space; reads and other groups go on.
        this.#options.onDiskFull();
        if (this.#retired) return;
        await this.#env.sleep(RETRY_MS);
      }
    }
  }

  #toWal(record: LogRecord): WalRecord {
    const { gid } = this;
    switch (record.type) {
      case "entry": {
        const { epoch, lsn, payload } = record.entry;
        return { type: "entry", gid, epoch, lsn, payload };
      }
      case "truncate":
        return { type: "truncate", gid, epoch: record.epoch, lsn: record.lsn };
      case "config": {
        const payload = encoder.encode(JSON.stringify(record.config));
        return { type: "config", gid, epoch: record.epoch, payload };
      }
      case "commit":
        return { type: "commit", gid, lsn: record.lsn };
    }
  }

  #readLog(node: NodeId, fromLsn: Lsn): void {
    const { append } = this.#options.memory.shares;
    const limits = { maxBytes: Math.min(2 * 1024 * 1024, append), maxEntries: 512 };
    this.#options.wal.readEntries(this.gid, fromLsn, limits).then(
      (found) => {
        const entries =
          found?.map(({ epoch, lsn, payload }) => new LogEntry(epoch, lsn, payload)) ?? null;
        this.feed({ kind: "logRead", node, fromLsn, entries });
      },
      (error) => {
        this.#log("warning", "could not read the log", { message: String(error) });
        this.feed({ kind: "logRead", node, fromLsn, entries: null });
      },
    );
  }

  // ---------------------------------------------------------------------------- messages

  receive(message: ReplicaMessage, payload: Uint8Array): void {
    const entries: LogEntry[] = [];
    if (message.kind === "append") {
      const { sizes, epochs, files = [] } = message;
      // An append of fewer entries is sound as well. The replica asks for the rest when there is room.
      const count = this.#options.memory.admitEntries(this, sizes);
      if (count < sizes.length) this.cutCount += 1;
      // Entries of one frame come and go together. Values that go into files of their own do not: the
      // entries beside them are copied, so that they do not keep all of that in memory.
      const isWhole = count === sizes.length && files.length === 0;
      const buffer = isWhole ? null : payloadPool.claim(payload);
      let offset = 0, file = 0, stretch = 0, ofStretch = 0;
      for (let at = 0; at < count; at++) {
        const end = offset + sizes[at]!;
        const bytes = isWhole ? payload.subarray(offset, end) : payload.slice(offset, end);
        offset = end;
        entries.push(new LogEntry(epochs[stretch]!.epoch, toLsn(message.prevLsn + at + 1), bytes));
        if (++ofStretch === epochs[stretch]!.count) {
          stretch += 1;
          ofStretch = 0;
        }
        for (; files[file]?.at === at; file++) {
          const { blob, size, gone } = files[file]!;
          if (gone === true) continue;
          this.#options.intake.add(blob, payload.subarray(offset, offset + size), buffer);
          offset += size;
        }
      }
      buffer?.letGo();
    }
    this.feed({ kind: "message", message, entries });
  }

  /** Entries that lost against the primary's are kept for audit, up to a limit. */
  #keepDiverged(entries: readonly LogEntry[], reason: string): void {
    if (entries.some(({ blobs }) => blobs.length > 0)) this.#options.onFilesLeft();
    this.#log("warning", "entries cut off", { count: entries.length, reason });
    const lines = entries.map((entry) =>
      JSON.stringify({
        gid: this.gid,
        epoch: entry.epoch,
        lsn: entry.lsn,
        reason,
        payload: entry.payload.toBase64(),
      }) + "\n"
    ).join("");
    if (lines === "" || this.#divergedBytes + lines.length > DIVERGED_BYTES_MAX) return;
    this.#divergedBytes += lines.length;
    this.#options.keepDiverged(this.gid, lines).catch((error) =>
      this.#log("warning", "cut-off entries not kept", { message: String(error) })
    );
  }

  // -------------------------------------------------------------------------- checkpoints

  #loadState(store: CheckpointedStore): GroupState {
    const { context: { config }, range } = this.#options;
    const rowBytesMax = config.store.row_max_bytes;
    const { undo, memory } = this.#options;
    const buckets = bucketLimits(tabletLimits(config)), rowSizesMax = memory.shares.rowSizes;
    const options = { rowBytesMax, range, buckets, undo, rowSizesMax };
    const saved = savedState(this.gid, store);
    return new GroupState(store, saved === null ? options : { ...options, saved });
  }

  /** Called about once a second. */
  maybeCheckpoint(): void {
    if (this.#checkpointing !== null || this.#installing) return;
    const { checkpoint_dirty_bytes, checkpoint_interval_ms } = this.#options.context.config.store;
    const ageMs = this.#env.monotonicMs() - this.#checkpointedMs;
    const behind = this.#replica.state.appliedLsn > this.#store.checkpointLsn;
    const due = this.#store.dirtyBytes > checkpoint_dirty_bytes ||
      this.#logBytesSinceCheckpoint > this.#logBytesMax || ageMs > checkpoint_interval_ms;
    if (behind && due) void this.checkpoint();
    else if (!behind) this.#freed.remove(this.#store.checkpointLsn);
  }

  /** So much log calls for a checkpoint. */
  get #logBytesMax(): number {
    const { context: { config }, memory } = this.#options;
    return Math.min(config.store.checkpoint_log_bytes, memory.shares.logToReplay);
  }

  /**
   * Replicas log the same bytes, so they would all write their checkpoints at the same moment, and on
   * machines that they share be slow together. So each begins its count elsewhere. Where little is written
   * all groups of a node have their turn together, so that its worker is needed once.
   */
  #headStart(): { readonly logBytes: number; readonly ageMs: number } {
    const { gid, self: { node }, context: { config } } = this.#options;
    const { replicas, checkpoint_interval_ms } = config.store;
    return {
      logBytes: Math.floor(this.#logBytesMax * ((gid + node) % replicas) / replicas),
      ageMs: checkpoint_interval_ms * (node % replicas) / replicas,
    };
  }

  /** Now and then compares a sample of the tablets' counts with the cells that they count. */
  maybeAudit(): void {
    const nowMs = this.#env.monotonicMs();
    if (nowMs - this.#auditedMs < AUDIT_EVERY_MS || this.#installing) return;
    this.#auditedMs = nowMs;
    this.#replica.state.snapshots.expire(nowMs);
    try {
      this.#replica.state.audit();
    } catch (error) {
      // What is damaged on the disk cannot be counted; whoever reads it reports it.
      if (!(error instanceof CorruptionError)) this.#env.fatal(error);
    }
  }

  /** Never rejects: a checkpoint that fails leaves the log as it is, and is tried again later. */
  checkpoint(): Promise<void> {
    if (this.#retired || this.#installing) return Promise.resolve();
    this.#checkpointing ??= this.#checkpoint().finally(() => this.#checkpointing = null);
    return this.#checkpointing;
  }

  async #checkpoint(): Promise<void> {
    const { state } = this.#replica, store = this.#store;
    const lsn = mutated("checkpoint-claims-too-much")
      ? this.#replica.progress.durableLsn
      : state.appliedLsn;
    const history = this.#replica.history.filter((item) => item.firstLsn <= lsn)
      .slice(-HISTORY_MAX);
    this.#checkpointedMs = this.#env.monotonicMs();
    this.#logBytesSinceCheckpoint = 0;
    if (mutated("log-released-before-checkpoint")) this.#options.wal.release(this.gid, lsn);
    this.#flushingBytes = store.dirtyBytes;
    try {
      // Whatever of the log came before is durable now; a log that ends earlier later has shrunk.
      const log = { store: this.#options.folder, batch: this.#options.wal.lastBatch };
      const meta = { gid: this.gid, state: state.save(), history, log };
      const writing = store.checkpoint({ lsn, meta });
      // The copy that is written from takes memory as well.
      this.#settleMemory();
      await writing.finally(() => this.#flushingBytes = 0);
      // Who waits for memory hears of it now, not with whatever happens next.
      this.#settleMemory();
      if (store === this.#store) this.#options.wal.release(this.gid, this.#releasable(lsn));
      this.#freed.remove(this.#store.checkpointLsn);
    } catch (error) {
      this.#log("error", "checkpoint failed", { lsn, message: String(error) });
      if (isDiskFull(error)) return this.#options.onDiskFull();
      const explained = explainSqlite(error, `groups/${this.gid}.db`);
      if (explained instanceof CorruptionError) this.#options.onDamage(explained);
      else if (explained instanceof DiskFailedError) this.#env.fatal(explained);
    }
  }

  /** Somebody who fetches a checkpoint as of `lsn` will want the log behind it, within so much time. */
  keepLogBehind(lsn: Lsn, ms: number): void {
    const untilMs = this.#env.monotonicMs() + ms;
    this.#keptLog.set(lsn, Math.max(this.#keptLog.get(lsn) ?? 0, untilMs));
  }

  /**
   * Up to where the log may go, of what a checkpoint as of `lsn` covers. Replicas that are being filled
   * would have to begin anew with another checkpoint if it went on ahead of them; but there is an end
   * to what is kept for them.
   */
  #releasable(lsn: Lsn): Lsn {
    const nowMs = this.#env.monotonicMs();
    for (const [kept, untilMs] of this.#keptLog) if (untilMs < nowMs) this.#keptLog.delete(kept);
    if (this.#diskFull || this.#options.wal.sizeBytes > LOG_KEPT_BYTES_MAX) return lsn;
    const { config, progress: { peers } } = this.#replica;
    const learning = peers.filter(({ node, matchLsn, leaseMs }) =>
      matchLsn > 0 && leaseMs > 0 && !config!.inSync.some((member) => member.node === node)
    );
    const needed = [...this.#keptLog.keys(), ...learning.map(({ matchLsn }) => matchLsn)];
    return toLsn(Math.min(lsn, ...needed));
  }

  /** Whether a cell or entry mentions the file of a value, or did so shortly before. */
  needsFile(blob: string): boolean {
    if (this.store.mentionsBlob(blob) || this.#freed.has(blob)) return true;
    const { appliedLsn, lastLsn } = this.#replica.progress;
    for (let at = appliedLsn + 1; at <= lastLsn; at++) {
      const entry = this.#replica.entryAt(toLsn(at));
      if (entry?.blobs.some((file) => file.blob === blob)) return true;
    }
    return false;
  }

  /** Makes sure that a checkpoint has what is applied now, if the disk lets it. */
  async checkpointAll(): Promise<void> {
    const { appliedLsn } = this.#replica.state;
    await this.checkpoint();
    // One that was under way may have begun before.
    if (this.#store.checkpointLsn < appliedLsn) await this.checkpoint();
  }

  /**
   * Replaces the state by a fetched checkpoint as of `lsn`. `replace` puts the file in place and opens
   * it; the log is told before the replica goes on.
   *
   * @throws when the replica has no use for it any more; nothing has changed then
   */
  async install(lsn: Lsn, replace: () => Promise<CheckpointedStore>): Promise<void> {
    // Neither may write beside us: a checkpoint of the old state would end up in the new file.
    while (this.#writing || this.#checkpointing !== null) {
      await (this.#checkpointing ?? this.#env.sleep(5));
    }
    if (this.#retired) throw this.#gone();
    if (!this.#replica.mayInstall(lsn)) {
      throw new Error(`the checkpoint as of ${lsn} is not needed any more`);
    }
    this.#writing = true;
    this.#installing = true;
    let closed = false;
    try {
      this.#store.close();
      closed = true;
      const store = await this.#whenSpace(replace);
      const meta = savedMeta(this.gid, store);
      if (store.checkpointLsn !== lsn) throw new Error(`it is as of ${store.checkpointLsn}`);
      const epoch = meta.history.findLast((item) => item.firstLsn <= lsn)?.epoch;
      if (epoch === undefined) throw new Error("the checkpoint has no history");
      const reset = { type: "reset" as const, gid: this.gid, epoch, lsn };
      await this.#whenSpace(() => this.#options.wal.append([reset]));
      this.#store = store;
      closed = false;
      this.#freed.forget();
      this.#options.onFilesLeft();
      this.#replica.state.snapshots.closeAll();
      const state = this.#loadState(store);
      this.#installing = false;
      if (mutated("snapshot-without-completions")) state.completions.forgetBefore(Infinity);
      this.#run({ kind: "snapshotInstalled", state, history: meta.history });
    } catch (error) {
      if (error instanceof DiskFailedError) this.#env.fatal(error);
      // Without a store this replica is nothing; it begins anew.
      if (closed && !this.#retired) {
        this.#options.onDamage(asDamage(error, `groups/${this.gid}.db`));
      }
      throw error;
    } finally {
      this.#installing = false;
      this.#writing = false;
      if (this.#writes.length > 0) void this.#writeAll();
    }
  }

  /** A full disk is no damage: tries until there is space, or this replica is given up. */
  async #whenSpace<T>(run: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await run();
      } catch (error) {
        if (!isDiskFull(error)) throw error;
        this.#options.onDiskFull();
        await this.#env.sleep(RETRY_MS);
        if (this.#retired) throw this.#gone();
      }
    }
  }

  // ------------------------------------------------------------------------------ reports

  report(): GroupReport {
    const { progress, epoch, role, state } = this.#replica;
    this.#traffic.tick(this.#env.monotonicMs());
    const tablets = !progress.serving ? [] : state.tablets.list().map((tablet) => {
      const { id, generation, startKey, endKey, counts, departure } = tablet;
      const leaves = departure === undefined
        ? {}
        : { departure: { moveId: departure.moveId, to: GroupId.parse(departure.to) } };
      const rates = this.#traffic.rateOf(id);
      return { id, generation, startKey, endKey, ...counts, ...rates, ...leaves };
    });
    return {
      gid: this.gid,
      store: this.copy,
      epoch,
      role,
      lastEpoch: progress.lastEpoch,
      lastLsn: progress.lastLsn,
      commitLsn: progress.commitLsn,
      serving: progress.serving,
      silentMs: progress.silentMs,
      tablets,
      lastMoveId: state.tablets.knownMoveId,
      ...(this.moveProgress === null ? {} : { move: this.moveProgress }),
    };
  }

  #log(
    level: "info" | "warning" | "error",
    event: string,
    fields: Record<string, string | number | boolean | null | undefined>,
  ): void {
    this.#env.log(level, event, { gid: this.gid, ...fields });
  }
}

function configIn(input: Input): GroupConfig | null {
  if (input.kind === "config" || input.kind === "proposed") return input.config;
  if (input.kind !== "message" || !("config" in input.message)) return null;
  return input.message.config ?? null;
}

const asDamage = (error: unknown, path: string): CorruptionError =>
  error instanceof CorruptionError
    ? error
    : new CorruptionError(`A checkpoint could not be put in place: ${error}`, path, 0);

const encoder = new TextEncoder();
