/**
 * One replica of one group: replication between a primary and its secondaries as a state machine.
 *
 * The story: the coordinator names a primary and the members in sync. The primary appends each
 * command to its log and sends it to all; an entry is committed once it is on the disk of every
 * member in sync, and only then applied and answered. Members promise the primary in heartbeats not
 * to take over for a while, which lets it answer reads alone. A new primary appends an `epochStart`
 * entry, brings the others' logs in line with its own, and commits whatever it finds.
 *
 * It does no I/O and reads no clock. `step()` is told what happened and answers with what to do, so
 * a test can run several of these through any order of delays, losses and crashes.
 *
 * Invariants (asserted here, attacked in tests/sim/):
 *   A1  applied <= committed <= durable <= last; entries dense, epochs never fall along the log
 *   A2  the adopted epoch never falls; nothing is done for an older one
 *   A3  an ack for an entry leaves only after a write that covers it is on disk
 *   A4  truncation never goes below what this replica knows to be committed
 *   A5  a primary commits only with enough members in sync, past its promises, in a reign that its own
 *       disk knows of
 *   A6  a read is answered only with `epochStart` applied (or beside the rows that undecided entries
 *       touch) and proof that nobody else was primary when it came in; read_gate.ts lists the proofs
 *   A7  equal log positions have equal state hashes on all replicas
 *
 * Start at {@link Replica.step}. What every replica has is in replica_core.ts, following in follower.ts,
 * and a reign as the primary in primary.ts with its parts. ARCHITECTURE.md, "Life of a put", is the
 * same story as a picture.
 * Follows PacificA (Lin et al. 2008) with log matching as in Raft (Ongaro and Ousterhout 2014) and
 * eligible members as in Kafka's KIP-966. Not here: choosing a primary (coordinator.ts), what an
 * entry does (group_state.ts), bytes on disk (disk/wal.ts).
 */
import type { Epoch, Lsn } from "../proto/ids.ts";
import type {
  Append,
  EpochHistory,
  GroupConfig,
  Heartbeat,
  ReplicaMessage,
  SnapshotOffer,
} from "../proto/replication.ts";
import { Follower } from "./follower.ts";
import type { GroupState } from "./group_state.ts";
import { mutated } from "./mutant.ts";
import { Primary } from "./primary.ts";
import { type HashCheck, ReplicaCore } from "./replica_core.ts";
import type { LogEntry } from "./replica_log.ts";
import type { Effect, Input, ReplicaOptions, ReplicaRole, Self } from "./replica_types.ts";

export * from "./replica_types.ts";

export class Replica {
  readonly #core: ReplicaCore;
  readonly #options: ReplicaOptions;
  readonly #follower: Follower;
  /** Our own reign, while it lasts. */
  #primary: Primary | null = null;

  constructor(options: ReplicaOptions) {
    this.#options = options;
    this.#core = new ReplicaCore(options);
    this.#follower = new Follower(this.#core);
    const { config } = options;
    if (config !== null) this.#core.role = this.#followerRole(config);
    if (mutated("epoch-reused-after-restart") && config?.primary.node === this.self.node) {
      this.#takeOffice();
    }
    this.#follower.applyCommitted();
  }

  /** The one door. `nowMs` is monotonic. Never awaits: what held on its first line still holds. */
  step(nowMs: number, input: Input): Effect[] {
    const core = this.#core;
    core.nowMs = Math.max(core.nowMs, nowMs);
    this.#take(input);
    core.assertPositions();
    const { effects } = core;
    core.effects = [];
    return effects;
  }

  #take(input: Input): void {
    const core = this.#core, primary = this.#primary;
    switch (input.kind) {
      case "tick":
        return this.#onTick();
      case "flush":
        return this.#flush();
      case "written":
        core.written(input.writeId);
        return primary !== null ? primary.advanceCommit() : this.#follower.onWritten();
      case "message":
        return this.#onMessage(input.message, input.entries);
      case "room":
        return primary === null ? this.#follower.onRoom() : undefined;
      case "request":
        if (primary !== null) return primary.onRequest(input);
        return core.refuse(input.requestId, "not_primary", this.#notPrimary());
      case "reshape":
        if (primary !== null) return primary.onReshape(input.requestId, input.change);
        return core.refuse(input.requestId, "not_primary", this.#notPrimary());
      case "move":
        if (primary !== null) return primary.onMove(input);
        return core.refuse(input.requestId, "not_primary", this.#notPrimary());
      case "read":
        if (primary !== null) return primary.onRead(input.readId, input.span);
        return core.refuseRead(input.readId, "not_primary", this.#notPrimary());
      case "recordChecked":
        this.#maybeAdopt(input.config);
        return this.#primary?.onRecordChecked(input.checkId, input.config);
      case "config":
        this.#maybeAdopt(input.config);
        if (input.learners !== null && input.config.epoch === core.epoch) {
          this.#primary?.setLearners(input.learners);
        }
        return;
      case "proposed":
        this.#maybeAdopt(input.config);
        return this.#primary?.onProposed(input.changeId, input.result);
      case "memberDown":
        return primary?.onMemberDown(input.node, input.inc);
      case "handOver":
        return primary?.onHandOver(input.to);
      case "stepAside":
        return primary !== null ? primary.stepAside() : this.#follower.diskHangs();
      case "clockDoubted":
        return primary?.doubtClock();
      case "logRead":
        return primary?.onLogRead(input.node, input.fromLsn, input.entries);
      case "snapshotSent":
        return primary?.onSnapshotSent(input.node);
      case "snapshotInstalled":
        return this.#follower.onSnapshotInstalled(input.state, input.history);
      case "snapshotFailed":
        return this.#follower.forgetSnapshot();
      case "disk":
        core.diskFull = input.full;
        return;
    }
  }

  // ------------------------------------------------------------------------------ to look at

  get gid() {
    return this.#core.gid;
  }

  get self(): Self {
    return this.#core.self;
  }

  get role(): ReplicaRole {
    return this.#core.role;
  }

  get config(): GroupConfig | null {
    return this.#core.config;
  }

  get epoch(): Epoch {
    return this.#core.epoch;
  }

  get state(): GroupState {
    return this.#core.state;
  }

  /** Hashes of the state as of earlier entries, ascending; every replica keeps those of the same. */
  get checks(): readonly HashCheck[] {
    return this.#core.checks;
  }

  get lastLsn(): Lsn {
    return this.#core.log.lastLsn;
  }

  get commitLsn(): Lsn {
    return this.#core.commitLsn;
  }

  get history(): EpochHistory {
    return this.#core.log.history;
  }

  /** For reports: positions, and as the primary what each peer has. */
  get progress() {
    const { log, durableLsn, commitLsn, state } = this.#core;
    return {
      lastEpoch: log.lastEpoch,
      lastLsn: log.lastLsn,
      durableLsn,
      commitLsn,
      appliedLsn: state.appliedLsn,
      serving: this.canServe(),
      /** As a follower: how long ago the primary was heard. */
      silentMs: this.#primary !== null ? 0 : this.#follower.silentMs,
      ...(this.#primary?.progress ?? { pendingAdd: null, proposal: null, peers: [] }),
    };
  }

  /** Bytes that log entries take in memory. */
  get logMemory(): { bytes: number; unappliedBytes: number } {
    return this.#core.log.memory;
  }

  /** The entry at `lsn` if it is still in memory: for audits and the simulator. */
  entryAt(lsn: Lsn): LogEntry | undefined {
    return this.#core.log.at(lsn);
  }

  /** Whether a fetched checkpoint as of `lsn` may be put in place of what is here. */
  mayInstall(lsn: Lsn): boolean {
    return this.#follower.mayInstall(lsn);
  }

  /** Whether a linearizable read may be answered from the applied state right now (A6). */
  canReadAt(nowMs: number): boolean {
    return this.#primary?.canReadAt(nowMs) ?? false;
  }

  /**
   * How old the applied state may be: whatever was acknowledged longer ago is in it. Milliseconds;
   * Infinity when not known.
   */
  stalenessAt(nowMs: number): number {
    return this.#primary?.holdsLeasesAt(nowMs) ? 0 : this.#follower.stalenessAt(nowMs);
  }

  /** Whether in this life our log was compared with another member's, and nothing is missing in it. */
  get isConfirmed(): boolean {
    return this.#primary !== null ? this.#primary.canServe() : this.#follower.isConfirmed;
  }

  /**
   * Whether nothing is under way that the next tick could take further, and nobody is missed: then a
   * tick now and then is enough. Any step may end it.
   */
  get isCalm(): boolean {
    return this.#primary !== null ? this.#primary.isCalm : this.#follower.isCalm;
  }

  /** Primary, reconciled with the members, and not about to leave. */
  canServe(): boolean {
    return this.#primary?.canServe() ?? false;
  }

  // ------------------------------------------------------------------------------ time

  #onTick(): void {
    if (this.#primary !== null) this.#primary.onTick();
    else this.#follower.maybeSuspect();
    this.#core.forgetOldPromises();
    this.#core.noteApplied();
    this.#flush();
  }

  #flush(): void {
    if (this.#primary === null) this.#core.flush();
    else this.#primary.flush();
  }

  // ------------------------------------------------------------------------------ messages

  #onMessage(message: ReplicaMessage, entries: readonly LogEntry[]): void {
    const core = this.#core;
    if (message.kind === "behind") {
      if (message.epoch > core.epoch) core.effects.push({ kind: "askConfig" });
      return this.#primary?.onBehind(message);
    }
    // What was meant for the process before a restart is not for us, but its sender should know us.
    if (message.toInc !== this.self.inc && !mutated("incarnation-not-checked")) {
      return core.sendBehind(message);
    }
    switch (message.kind) {
      case "append":
        if (this.#follows(message)) this.#follower.onAppend(message, entries);
        return;
      case "heartbeat":
        if (this.#follows(message)) this.#follower.onHeartbeat(message);
        return;
      case "snapshotOffer":
        if (this.#follows(message)) this.#follower.onSnapshotOffer(message);
        return;
      case "appendAck":
      case "appendNack":
      case "heartbeatAck":
        return this.#primary?.onAnswer(message);
    }
  }

  /** Brings us to the sender's epoch if it is newer; false when the message must be ignored. */
  #follows(message: Append | Heartbeat | SnapshotOffer): boolean {
    const core = this.#core;
    const config = "config" in message ? message.config : undefined;
    if (config !== undefined && config.epoch === message.epoch) this.#maybeAdopt(config);
    if (mutated("older-epochs-accepted") && message.epoch < core.epoch) {
      return this.#primary === null;
    }
    if (message.epoch !== core.epoch) {
      core.sendBehind(message);
      return false;
    }
    const { primary } = core.config!;
    // A2: one epoch has one primary. A stranger that claims it is not worth our own life.
    if (this.#primary !== null) return false;
    if (primary.node !== message.from || primary.inc !== message.inc) return false;
    this.#follower.heardPrimary();
    return true;
  }

  // ------------------------------------------------------------------------------ configurations

  #maybeAdopt(config: GroupConfig | null): void {
    const core = this.#core;
    if (config === null || config.epoch <= core.epoch) return;
    const sameReign = core.config?.reign === config.reign;
    core.adopt(config);
    this.#follower.onAdopted({ sameReign });
    const { primary } = config, { self } = core;
    const isPrimary = primary.node === self.node && primary.store === self.store &&
      (primary.inc === self.inc || mutated("incarnation-not-checked"));
    if (isPrimary && this.#primary !== null && (sameReign || mutated("reign-not-restarted"))) {
      return this.#primary.continueReign(config);
    }
    this.#primary?.stepDown();
    this.#primary = null;
    if (isPrimary) this.#takeOffice();
    else core.setRole(this.#followerRole(config));
  }

  #takeOffice(): void {
    const core = this.#core;
    this.#follower.forgetSnapshot();
    if (mutated("completion-lost-on-failover")) core.state.completions.forgetBefore(Infinity);
    core.setRole("primary");
    const { tablets = null, makeId } = this.#options;
    this.#primary = new Primary({ core, tabletLimits: tablets, makeId });
  }

  #followerRole({ inSync, eligible }: GroupConfig): ReplicaRole {
    const isMember = this.#core.isAmong(inSync) || this.#core.isAmong(eligible);
    return isMember ? "secondary" : "learner";
  }

  #notPrimary(): string {
    return `This node is not the primary of group ${this.#core.gid}`;
  }
}
