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
 *   A5  a primary commits only with enough members in sync, past its promises, in its own reign
 *   A6  a read is answered only with `epochStart` applied (or beside the rows that undecided entries
 *       touch) and proof that nobody else was primary when it came in; read_gate.ts lists the proofs
 *   A7  equal log positions have equal state hashes on all replicas
 *
 * Start at {@link Replica.step}; ARCHITECTURE.md, "Life of a put", is the same story as a picture.
 * Follows PacificA (Lin et al. 2008) with log matching as in Raft (Ongaro and Ousterhout 2014) and
 * eligible members as in Kafka's KIP-966. Not here: choosing a primary (coordinator.ts), what an
 * entry does (group_state.ts), bytes on disk (disk/wal.ts).
 */
import {
  type Epoch,
  epoch as toEpoch,
  type GroupId,
  type Incarnation,
  incarnation,
  type Lsn,
  lsn as toLsn,
  type NodeId,
  type StoreId,
} from "../proto/ids.ts";
import type {
  Append,
  AppendAck,
  AppendNack,
  Behind,
  ConfigChange,
  EpochHistory,
  GroupConfig,
  Heartbeat,
  HeartbeatAck,
  Member,
  ReplicaMessage,
  SnapshotOffer,
} from "../proto/replication.ts";
import type { RequestStamp } from "../proto/command.ts";
import { type Command, encodeCommand, type LogRequest, rowOpsOf } from "./command.ts";
import { OUTSTANDING_MAX, REQUEST_AGE_MAX_MS, REQUEST_EARLY_MAX_MS } from "./completions.ts";
import type { KvErrorCode } from "./errors.ts";
import type { GroupState } from "./group_state.ts";
import { invariant } from "./invariant.ts";
import { mutated } from "./mutant.ts";
import { PeerProgress } from "./peer_progress.ts";
import { ReadGate, type RowSpan, rowWithin, type WaitingRead } from "./read_gate.ts";
import { commonPosition, entryBytes, type LogEntry, type ReplicaLog } from "./replica_log.ts";
import type { RowOutcome } from "./row_op.ts";
import {
  MERGE_AFTER_MERGE_MS,
  MERGE_AFTER_SPLIT_MS,
  nextChange,
  orderFor,
  type TabletChange,
  type TabletLimits,
  type TabletOrder,
} from "./tablet_policy.ts";

export interface ReplicaTiming {
  readonly heartbeatMs: number;
  /** How long a promise lasts for the primary, counted from when it asked. */
  readonly leaseMs: number;
  /** How long it binds the one who gave it, counted from when he was asked. Longer than a lease. */
  readonly graceMs: number;
  /** A member that is silent for this long is taken out. */
  readonly ackTimeoutMs: number;
  /** `confirm`: reads never rely on leases, so on no clock; each waits for a round of heartbeats. */
  readonly readMode?: "lease" | "confirm";
}

export interface Self {
  readonly node: NodeId;
  readonly store: StoreId;
  readonly inc: Incarnation;
}

/** Something that happened to this replica. */
export type Input =
  | { kind: "tick" }
  | {
    kind: "request";
    requestId: number;
    stamp: RequestStamp;
    request: LogRequest;
    wallMs: number;
  }
  | { kind: "read"; readId: number; span: RowSpan }
  /** What the coordinator's record says, looked up for `checkRecord`; null when nobody could tell. */
  | { kind: "recordChecked"; checkId: number; config: GroupConfig | null }
  /** Our clock stood still or jumped: what leases it measured is not to be trusted. */
  | { kind: "clockDoubted" }
  /** Split or merge tablets because a person asks for it. */
  | { kind: "reshape"; requestId: number; change: TabletChange }
  /** Send and write what has gathered; the shell calls it once a turn. */
  | { kind: "flush" }
  | { kind: "written"; writeId: number }
  | { kind: "message"; message: ReplicaMessage; entries: readonly LogEntry[] }
  /** `learners` null: the sender does not know them. */
  | { kind: "config"; config: GroupConfig; learners: readonly Member[] | null }
  | { kind: "proposed"; changeId: string; result: "done" | "refused"; config: GroupConfig | null }
  /** A member's process is known to have ended. */
  | { kind: "memberDown"; node: NodeId; inc: Incarnation }
  | { kind: "logRead"; node: NodeId; fromLsn: Lsn; entries: readonly LogEntry[] | null }
  | { kind: "snapshotInstalled"; state: GroupState; history: EpochHistory }
  | { kind: "snapshotFailed" }
  /** A learner that we offered a checkpoint is still fetching it. */
  | { kind: "snapshotSent"; node: NodeId }
  /** Hand the office over to a member, the named one if it is in sync. */
  | { kind: "handOver"; to: NodeId | null }
  /** The disk is (no longer) too full for new entries. */
  | { kind: "disk"; full: boolean };

/** Something for the shell to do. No effect relies on another in the same list. */
export type Effect =
  /** Answered by `written` once it is on disk; writes are done in the order of their ids. */
  | { kind: "write"; writeId: number; records: readonly LogRecord[] }
  | { kind: "send"; to: NodeId; message: ReplicaMessage; entries: readonly LogEntry[] }
  | { kind: "reply"; requestId: number; outcome: RowOutcome }
  /** The tablets are as they were asked to be. */
  | { kind: "reshaped"; requestId: number }
  /** `maybeApplied`: the command may still be committed, so only the same request may be retried. */
  | { kind: "refuse"; requestId: number; code: RefusalCode; message: string; maybeApplied: boolean }
  /** The applied state may be read in this very turn. */
  | { kind: "readable"; readId: number }
  | { kind: "unreadable"; readId: number; code: RefusalCode; message: string }
  | { kind: "propose"; epoch: Epoch; changeId: string; change: ConfigChange }
  | { kind: "suspect"; epoch: Epoch; silentMs: number }
  /** Look up the group's durable record, now, and say so by `recordChecked`. */
  | { kind: "checkRecord"; checkId: number }
  /** Somebody is at a newer epoch: fetch the configuration from the coordinator. */
  | { kind: "askConfig" }
  | { kind: "readLog"; node: NodeId; fromLsn: Lsn }
  | { kind: "fetchSnapshot"; from: NodeId }
  | { kind: "diverged"; entries: readonly LogEntry[]; reason: string }
  | { kind: "hashMismatch"; lsn: Lsn; mine: string; theirs: string }
  | { kind: "roleChanged"; role: ReplicaRole; epoch: Epoch };

export type LogRecord =
  | { type: "entry"; epoch: Epoch; lsn: Lsn; payload: Uint8Array; command: Command }
  | { type: "truncate"; epoch: Epoch; lsn: Lsn }
  | { type: "config"; epoch: Epoch; config: GroupConfig }
  | { type: "commit"; lsn: Lsn };

export type RefusalCode = KvErrorCode;
export type ReplicaRole = "idle" | "learner" | "secondary" | "primary";

/** Entries and bytes that may wait for their commit before new requests are turned away. */
const UNCOMMITTED_ENTRIES_MAX = 4096;
const UNCOMMITTED_BYTES_MAX = 32 * 1024 * 1024;
const WAITING_READS_MAX = 4096;
const WAITING_READ_MS = 3_000;
/** Leases come back within milliseconds, unless somebody electable is gone. */
const RECORD_CHECK_AFTER_MS = 50;
const RECORD_CHECK_PATIENCE_MS = 1_000;
const FRESHNESS_KEPT = 16;
/** One append on the wire: below the frame limit even with one operation of the largest size. */
const APPEND_LIMITS = { entriesMax: 512, bytesMax: 3 * 1024 * 1024 };
/** Committed entries kept in memory for replicas that are a little behind. */
const RECENT_BYTES = 4 * 1024 * 1024;
/** A learner this close to the end of the log is added. */
const NEARLY_CAUGHT_UP = 64;
const PROPOSE_EVERY_MS = 500;
const SUSPECT_EVERY_MS = 500;
const SNAPSHOT_PATIENCE_MS = 60_000;
/** A member that answers heartbeats but whose disk makes no progress for this many ack timeouts. */
const STALL_FACTOR = 4;
const HAND_OVER_PATIENCE_MS = 2_000;
const TABLETS_LOOK_EVERY_MS = 100;
const FIRST_REIGN = 1;
const CHECK_EVERY_LSN = 256;
const CHECKS_KEPT = 64;

export interface ReplicaOptions {
  readonly gid: GroupId;
  readonly self: Self;
  readonly timing: ReplicaTiming;
  readonly state: GroupState;
  readonly log: ReplicaLog;
  /** The last configuration that this store adopted, or null for a new one. */
  readonly config: GroupConfig | null;
  /** A lower bound of what is committed. */
  readonly commitLsn: Lsn;
  readonly nowMs: number;
  readonly makeId: () => string;
  /** When to split and merge tablets; absent: only when asked. */
  readonly tablets?: TabletLimits;
}

interface Proposal {
  readonly changeId: string;
  readonly change: ConfigChange;
  readonly epoch: Epoch;
  askedMs: number;
}

export class Replica {
  readonly gid: GroupId;
  readonly self: Self;
  readonly #timing: ReplicaTiming;
  readonly #makeId: () => string;
  readonly #tabletLimits: TabletLimits | null;
  #state: GroupState;
  readonly #log: ReplicaLog;
  #config: GroupConfig | null;
  #role: ReplicaRole = "idle";
  #nowMs: number;
  #effects: Effect[] = [];

  #durableLsn: Lsn;
  #commitLsn: Lsn;
  #durableEpoch: Epoch;
  #nextWriteId = 1;
  #writes: { writeId: number; lastLsn: Lsn; epoch: Epoch }[] = [];
  #unwritten: LogRecord[] = [];

  /** Until when we promised not to act, by the reign that we promised it to. */
  readonly #promises = new Map<Epoch, number>();
  /** A process that forgot its promises behaves as if it had just made one. */
  readonly #bootPromiseMs: number;

  // As a follower.
  /** Our log equals the primary's up to here; reset when the reign changes. */
  #verifiedLsn = toLsn(0);
  #primaryCommitLsn = toLsn(0);
  #heardPrimaryMs: number;
  #suspectedMs = -Infinity;
  /** That of the primary's last append or offer. */
  #round = 0;
  /** An append waits for its ack until our disk has it. */
  #ackDue = false;
  /** A promise waits until the epoch that it is given in is on our disk. */
  #heldPromise: HeartbeatAck | null = null;
  #fetchingSnapshot = false;
  /** Our state, once it reaches `lsn`, has whatever was acknowledged before `atMs` on our clock. */
  #freshness: { lsn: Lsn; atMs: number }[] = [];
  #freshMs = -Infinity;

  // As the primary.
  #learners: readonly Member[] = [];
  readonly #peers = new Map<NodeId, PeerProgress>();
  #epochStartLsn = toLsn(0);
  #pendingAdd: Member | null = null;
  #proposal: Proposal | null = null;
  #handOverTo: Member | null = null;
  #handOverUntilMs = -Infinity;
  #relinquished = false;
  #heartbeatMs = -Infinity;
  readonly #waiting = new Map<Lsn, number[]>();
  readonly #inProgress = new Map<string, Lsn>();
  #uncommittedBytes = 0;
  readonly #reads = new ReadGate();
  /** The last heartbeat that was sent. */
  #beat = 0;
  #diskFull = false;
  /** The one split or merge that is under way, and who asked for it. */
  #reshaping: { readonly lsn: Lsn; readonly requestId: number | null } | null = null;
  #tabletsLookedMs = -Infinity;
  /** Merges wait until so long. */
  #mergeFromMs: number;

  readonly #checks: { lsn: Lsn; hash: string }[] = [];

  constructor(options: ReplicaOptions) {
    this.gid = options.gid;
    this.self = options.self;
    this.#timing = options.timing;
    this.#makeId = options.makeId;
    this.#tabletLimits = options.tablets ?? null;
    this.#mergeFromMs = options.nowMs + MERGE_AFTER_SPLIT_MS;
    this.#state = options.state;
    this.#log = options.log;
    this.#config = options.config;
    this.#nowMs = options.nowMs;
    this.#durableLsn = options.log.lastLsn;
    this.#durableEpoch = options.config?.epoch ?? toEpoch(0);
    const bound = Math.min(options.commitLsn, options.log.lastLsn);
    this.#commitLsn = toLsn(Math.max(bound, options.state.appliedLsn));
    this.#bootPromiseMs = mutated("no-boot-wait")
      ? -Infinity
      : options.nowMs + options.timing.graceMs;
    this.#heardPrimaryMs = options.nowMs;
    if (options.config !== null) this.#role = this.#followerRole(options.config);
    if (mutated("epoch-reused-after-restart") && options.config?.primary.node === this.self.node) {
      this.#takeOffice(options.config);
    }
    this.#applyCommitted();
  }

  /** The one door. `nowMs` is monotonic. Never awaits: what held on its first line still holds. */
  step(nowMs: number, input: Input): Effect[] {
    this.#nowMs = Math.max(this.#nowMs, nowMs);
    switch (input.kind) {
      case "tick":
        this.#onTick();
        break;
      case "request":
        this.#onRequest(input);
        break;
      case "read":
        this.#onRead(input.readId, input.span);
        break;
      case "recordChecked":
        this.#onRecordChecked(input.checkId, input.config);
        break;
      case "clockDoubted":
        for (const peer of this.#peers.values()) peer.leaseUntilMs = -Infinity;
        break;
      case "reshape":
        this.#onReshape(input.requestId, input.change);
        break;
      case "flush":
        this.#flush();
        break;
      case "written":
        this.#onWritten(input.writeId);
        break;
      case "message":
        this.#onMessage(input.message, input.entries);
        break;
      case "config":
        this.#onConfig(input.config, input.learners);
        break;
      case "proposed":
        this.#onProposed(input);
        break;
      case "memberDown":
        this.#onMemberDown(input.node, input.inc);
        break;
      case "logRead":
        this.#onLogRead(input.node, input.fromLsn, input.entries);
        break;
      case "snapshotInstalled":
        this.#onSnapshotInstalled(input.state, input.history);
        break;
      case "snapshotFailed":
        this.#fetchingSnapshot = false;
        break;
      case "snapshotSent":
        this.#onSnapshotSent(input.node);
        break;
      case "handOver":
        this.#onHandOver(input.to);
        break;
      case "disk":
        this.#diskFull = input.full;
        break;
    }
    invariant(
      this.#state.appliedLsn <= this.#commitLsn && this.#commitLsn <= this.#durableLsn &&
        this.#durableLsn <= this.#log.lastLsn,
      "A1",
      () =>
        `applied ${this.#state.appliedLsn}, committed ${this.#commitLsn}, ` +
        `durable ${this.#durableLsn}, last ${this.#log.lastLsn}`,
    );
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  get role(): ReplicaRole {
    return this.#role;
  }

  get config(): GroupConfig | null {
    return this.#config;
  }

  get epoch(): Epoch {
    return this.#config?.epoch ?? toEpoch(0);
  }

  get state(): GroupState {
    return this.#state;
  }

  get history(): EpochHistory {
    return this.#log.history;
  }

  /** For reports: positions, and as the primary what each peer has. */
  get progress() {
    return {
      lastEpoch: this.#log.lastEpoch,
      lastLsn: this.#log.lastLsn,
      durableLsn: this.#durableLsn,
      commitLsn: this.#commitLsn,
      appliedLsn: this.#state.appliedLsn,
      serving: this.canServe(),
      /** As a follower: how long ago the primary was heard. */
      silentMs: this.#role === "primary" ? 0 : this.#nowMs - this.#heardPrimaryMs,
      pendingAdd: this.#pendingAdd?.node ?? null,
      proposal: this.#proposal?.change.kind ?? null,
      peers: Array.from(this.#peers.values(), (peer) => ({
        node: peer.member.node,
        inc: peer.inc,
        matchLsn: peer.matchLsn,
        nextLsn: peer.nextLsn,
        waiting: peer.readingLog || peer.snapshotOffered,
        forgot: peer.forgot,
        leaseMs: Math.max(0, peer.leaseUntilMs - this.#nowMs),
      })),
    };
  }

  /** The entry at `lsn` if it is still in memory: for audits and the simulator. */
  entryAt(lsn: Lsn): LogEntry | undefined {
    return this.#log.at(lsn);
  }

  /** Whether a linearizable read may be answered from the applied state right now (A6). */
  canReadAt(nowMs: number): boolean {
    return this.#timing.readMode !== "confirm" && this.#holdsLeasesAt(nowMs);
  }

  /**
   * How old the applied state may be: whatever was acknowledged longer ago is in it. No clocks are
   * compared: our own stamp travels to the primary and back. Milliseconds; Infinity when not known.
   */
  stalenessAt(nowMs: number): number {
    return this.#holdsLeasesAt(nowMs) ? 0 : nowMs - this.#freshMs;
  }

  #holdsLeasesAt(nowMs: number): boolean {
    if (!this.canServe() || nowMs < this.#promiseUntilMs()) return false;
    if (mutated("stale-read-after-pause")) nowMs = this.#nowMs;
    for (const node of this.#leaseSet()) {
      if ((this.#peers.get(node)?.leaseUntilMs ?? -Infinity) <= nowMs) return false;
    }
    return true;
  }

  /** Primary, reconciled with the members, and not about to leave. */
  canServe(): boolean {
    return this.#role === "primary" && (!this.#relinquished || mutated("relinquished-serves")) &&
      (this.#state.appliedLsn >= this.#epochStartLsn || mutated("epoch-start-not-awaited"));
  }

  // ---------------------------------------------------------------------------- requests

  #onRequest(input: Input & { kind: "request" }): void {
    const { requestId, stamp } = input;
    const refuse = (code: RefusalCode, message: string, maybeApplied = false): void => {
      this.#effects.push({ kind: "refuse", requestId, code, message, maybeApplied });
    };
    const config = this.#config;
    if (this.#role !== "primary" || config === null) {
      return refuse("not_primary", `This node is not the primary of group ${this.gid}`);
    }
    if (this.#handOverTo !== null || this.#relinquished) {
      return refuse("not_primary", `The primary of group ${this.gid} is handing over`);
    }
    // Completion records are only complete once everything of former reigns is applied.
    const key = `${stamp.clientId}/${stamp.seq}`;
    const known = mutated("condition-checked-again") &&
        rowOpsOf(input.request).some((op) => op.conditions.length > 0)
      ? undefined
      : this.#state.completions.find(stamp);
    if (known === "forgotten") {
      return refuse("session_too_old", "The answer to this request was already confirmed", true);
    }
    if (known !== undefined) {
      this.#effects.push({ kind: "reply", requestId, outcome: known });
      return;
    }
    const underWay = this.#inProgress.get(key);
    if (underWay !== undefined) {
      this.#waiting.get(underWay)?.push(requestId);
      return;
    }
    if (config.inSync.length < config.minInSync) {
      return refuse(
        "unavailable",
        `Group ${this.gid} takes no writes: ${config.inSync.length} of at least ` +
          `${config.minInSync} replicas are in sync`,
      );
    }
    if (this.#diskFull) return refuse("disk_full", "The disk of the primary is full");
    const timeMs = Math.max(this.#state.timeMs, input.wallMs);
    const ageMs = timeMs - stamp.issuedMs;
    const timely = ageMs <= REQUEST_AGE_MAX_MS && ageMs >= -REQUEST_EARLY_MAX_MS;
    if (!timely && !mutated("request-age-not-checked")) {
      return refuse("session_too_old", `The request was issued ${ageMs} ms ago by our clock`);
    }
    if (
      this.#waiting.size >= UNCOMMITTED_ENTRIES_MAX ||
      this.#uncommittedBytes >= UNCOMMITTED_BYTES_MAX
    ) {
      return refuse("busy", `Group ${this.gid} has ${this.#waiting.size} writes under way`);
    }
    if (stamp.seq - stamp.firstIncomplete >= OUTSTANDING_MAX) {
      return refuse("busy", `A client may have ${OUTSTANDING_MAX} requests under way`);
    }
    const entry = this.#appendOwn({ ...input.request, stamp, timeMs });
    this.#waiting.set(entry.lsn, [requestId]);
    this.#inProgress.set(key, entry.lsn);
    this.#uncommittedBytes += entryBytes(entry);
  }

  #onReshape(requestId: number, change: TabletChange): void {
    const refuse = (code: RefusalCode, message: string): void => {
      this.#effects.push({ kind: "refuse", requestId, code, message, maybeApplied: false });
    };
    if (!this.canServe() || this.#handOverTo !== null) {
      return refuse("not_primary", `This node is not the serving primary of group ${this.gid}`);
    }
    const hindrance = this.#whyNotReshape();
    if (hindrance !== null) return refuse("busy", `Cannot ${change.kind} now: ${hindrance}`);
    const order = orderFor(this.#state.tablets, change);
    if (typeof order === "string") return refuse("invalid_request", order);
    this.#reshape(order, requestId);
  }

  /** One change at a time, so that the applied tablets are those that the order will meet. */
  #whyNotReshape(): string | null {
    if (this.#reshaping !== null) return "another split or merge is under way";
    if (this.#diskFull) return "the disk of the primary is full";
    const { inSync, minInSync } = this.#config!;
    return inSync.length < minInSync ? "too few replicas are in sync" : null;
  }

  #reshape(order: TabletOrder, requestId: number | null): void {
    const entry = this.#appendOwn({ ...order, timeMs: this.#state.timeMs });
    this.#reshaping = { lsn: entry.lsn, requestId };
  }

  /** Splits what has grown too large and merges what has become small. */
  #maybeReshape(): void {
    if (this.#tabletLimits === null) return;
    if (this.#nowMs - this.#tabletsLookedMs < TABLETS_LOOK_EVERY_MS) return;
    this.#tabletsLookedMs = this.#nowMs;
    if (!this.canServe() || this.#handOverTo !== null || this.#whyNotReshape() !== null) return;
    const mayMerge = this.#nowMs >= this.#mergeFromMs;
    const order = nextChange(this.#state.tablets, this.#tabletLimits, mayMerge);
    if (order !== null) this.#reshape(order, null);
  }

  #appendOwn(command: Command): LogEntry {
    const entry: LogEntry = {
      epoch: this.epoch,
      lsn: toLsn(this.#log.lastLsn + 1),
      command,
      payload: encodeCommand(command),
    };
    this.#log.append(entry);
    this.#unwritten.push({ type: "entry", ...entry });
    return entry;
  }

  #onRead(readId: number, span: RowSpan): void {
    if (this.#role !== "primary" || this.#relinquished) {
      const message = `This node is not the primary of group ${this.gid}`;
      this.#effects.push({ kind: "unreadable", readId, code: "not_primary", message });
    } else if (this.canReadAt(this.#nowMs)) {
      this.#effects.push({ kind: "readable", readId });
    } else if (this.#reads.size >= WAITING_READS_MAX) {
      const message = `Group ${this.gid} has ${WAITING_READS_MAX} reads waiting`;
      this.#effects.push({ kind: "unreadable", readId, code: "busy", message });
    } else {
      this.#reads.add({ readId, span, beat: this.#beat, sinceMs: this.#nowMs });
      this.#releaseReads();
    }
  }

  #releaseReads(): void {
    if (this.#reads.size === 0) return;
    if (this.canReadAt(this.#nowMs)) return this.#answerReads(this.#reads.takeAll());
    const confirmed = this.#confirmedBeat();
    const since = mutated("round-before-read") ? 1 : 0;
    this.#answerReads(this.#reads.take((read) => read.beat < confirmed + since));
    const untilMs = this.#nowMs - WAITING_READ_MS;
    const expired = this.#reads.take((read) => read.sinceMs <= untilMs);
    this.#failReads(expired, "unavailable", "cannot tell whether it still has only one primary");
  }

  /** The last heartbeat that everybody electable has answered; 0 while nothing may be read anyway. */
  #confirmedBeat(): number {
    if (!this.canServe()) return 0;
    let beat = Infinity;
    for (const node of this.#leaseSet()) {
      beat = Math.min(beat, this.#peers.get(node)?.answeredBeat ?? 0);
    }
    return beat;
  }

  /** Somebody whose word is needed is out of reach: ask whether the record still names this epoch. */
  #maybeCheckRecord(): void {
    if (this.#relinquished || this.#nowMs - this.#reads.oldestMs < RECORD_CHECK_AFTER_MS) return;
    const checkId = this.#reads.beginCheck(this.#nowMs, RECORD_CHECK_PATIENCE_MS);
    if (checkId !== null) this.#effects.push({ kind: "checkRecord", checkId });
  }

  #onRecordChecked(checkId: number, config: GroupConfig | null): void {
    const asked = this.#reads.endCheck(checkId);
    if (config !== null && config.epoch > this.epoch) this.#adopt(config);
    if (this.#role !== "primary" || this.#relinquished) return;
    if (config?.epoch !== this.epoch && !mutated("record-not-asked")) return;
    // Whatever is committed is in our log, and nobody else commits while the record names us. Only
    // entries behind the known commit may or may not be among it.
    const decided = this.canServe() || mutated("limbo-ignored");
    const limbo = decided ? [] : this.#undecidedRows();
    this.#answerReads(
      this.#reads.take((read) => asked.has(read.readId) && rowWithin(read.span, limbo) === null),
    );
  }

  #undecidedRows(): Set<string> {
    const rows = new Set<string>();
    for (let at = this.#commitLsn + 1; at <= this.#log.lastLsn; at++) {
      const entry = this.#log.at(toLsn(at));
      invariant(entry !== undefined, "A6", () => `undecided entry ${at} left memory`);
      for (const { row } of rowOpsOf(entry.command)) rows.add(row);
    }
    return rows;
  }

  #answerReads(reads: readonly WaitingRead[]): void {
    for (const { readId } of reads) this.#effects.push({ kind: "readable", readId });
  }

  #failReads(reads: readonly WaitingRead[], code: RefusalCode, why: string): void {
    const message = `Cannot read: group ${this.gid} ${why}`;
    for (const { readId } of reads) {
      this.#effects.push({ kind: "unreadable", readId, code, message });
    }
  }

  // ------------------------------------------------------------------- writing and sending

  #flush(): void {
    if (this.#unwritten.length > 0) {
      const writeId = this.#nextWriteId++;
      this.#writes.push({ writeId, lastLsn: this.#log.lastLsn, epoch: this.epoch });
      this.#effects.push({ kind: "write", writeId, records: this.#unwritten });
      this.#unwritten = [];
    }
    if (this.#role !== "primary") return;
    for (const peer of this.#peers.values()) this.#replicate(peer);
    // One round at a time serves all reads that came in before it was sent.
    const confirms = this.#timing.readMode === "confirm" && this.#reads.wantsBeat(this.#beat);
    if (confirms && this.#confirmedBeat() >= this.#beat) this.#heartbeat();
  }

  #onWritten(writeId: number): void {
    while (this.#writes.length > 0 && this.#writes[0]!.writeId <= writeId) {
      const write = this.#writes.shift()!;
      if (write.lastLsn > this.#durableLsn) this.#durableLsn = write.lastLsn;
      if (write.epoch > this.#durableEpoch) this.#durableEpoch = write.epoch;
    }
    if (this.#role === "primary") return this.#advanceCommit();
    // Only now do the acks leave that said "on my disk", or "I adopted this epoch" (A3).
    this.#answerPrimary();
    this.#applyCommitted();
  }

  #releasePromise(): void {
    if (this.#heldPromise !== null) this.#send(this.#config!.primary.node, this.#heldPromise);
    this.#heldPromise = null;
  }

  #answerPrimary(): void {
    if (this.#config === null) return;
    if (this.#durableEpoch < this.epoch && !mutated("epoch-not-durable-before-answer")) return;
    this.#releasePromise();
    if (!this.#ackDue) return;
    const { node, inc } = this.#config.primary;
    const safeLsn = mutated("ack-before-fsync") ? this.#log.lastLsn : this.#durableLsn;
    const matchLsn = toLsn(Math.min(this.#verifiedLsn, safeLsn));
    this.#ackDue = matchLsn < this.#verifiedLsn;
    this.#send(node, { kind: "appendAck", ...this.#head(inc), matchLsn });
  }

  #replicate(peer: PeerProgress): void {
    while (peer.canSend) {
      const empty = peer.nextLsn > this.#log.lastLsn;
      if (empty && (peer.hasInFlight || peer.matchLsn > 0)) {
        if (!peer.hasInFlight) peer.progressMs = this.#nowMs;
        return;
      }
      const entries = this.#log.from(peer.nextLsn, APPEND_LIMITS);
      if (entries === null) {
        peer.readingLog = true;
        this.#effects.push({ kind: "readLog", node: peer.member.node, fromLsn: peer.nextLsn });
        return;
      }
      this.#sendAppend(peer, entries);
      if (entries.length === 0) return;
    }
  }

  #sendAppend(peer: PeerProgress, entries: readonly LogEntry[]): void {
    const prevLsn = toLsn(peer.nextLsn - 1);
    const lastLsn = toLsn(prevLsn + entries.length);
    let bytes = 0;
    const heads: Append["entries"] = entries.map((entry) => {
      bytes += entryBytes(entry);
      return { epoch: entry.epoch, lsn: entry.lsn, size: entry.payload.length };
    });
    this.#send(peer.member.node, {
      kind: "append",
      ...this.#head(peer.inc),
      ...(peer.hasConfig ? {} : { config: this.#config! }),
      round: peer.round,
      prevEpoch: this.#log.epochAt(prevLsn) ?? toEpoch(0),
      prevLsn,
      entries: heads,
      commitLsn: this.#commitLsn,
    }, entries);
    peer.sent(lastLsn, bytes);
  }

  #onLogRead(node: NodeId, fromLsn: Lsn, entries: readonly LogEntry[] | null): void {
    const peer = this.#peers.get(node);
    if (peer === undefined || !peer.readingLog) return;
    peer.readingLog = false;
    if (peer.nextLsn !== fromLsn) return this.#replicate(peer);
    if (entries === null || entries.length === 0) {
      this.#offerSnapshot(peer);
      return;
    }
    // The read may have seen a tail that was cut off since; the log in memory knows better.
    const sound = entries.filter((entry) => this.#log.epochAt(entry.lsn) === entry.epoch);
    if (sound.length === entries.length) this.#sendAppend(peer, entries);
  }

  #offerSnapshot(peer: PeerProgress): void {
    peer.snapshotOffered = true;
    peer.progressMs = this.#nowMs;
    const { round } = peer;
    this.#send(peer.member.node, { kind: "snapshotOffer", ...this.#head(peer.inc), round });
  }

  #onSnapshotSent(node: NodeId): void {
    const peer = this.#peers.get(node);
    if (peer !== undefined) peer.progressMs = this.#nowMs;
  }

  #head(toInc: Incarnation) {
    const { node, store, inc } = this.self;
    const reign = this.#config?.reign ?? toEpoch(0);
    return { gid: this.gid, from: node, store, inc, toInc, epoch: this.epoch, reign };
  }

  #send(to: NodeId, message: ReplicaMessage, entries: readonly LogEntry[] = []): void {
    this.#effects.push({ kind: "send", to, message, entries });
  }

  // ---------------------------------------------------------------------------- messages

  #onMessage(message: ReplicaMessage, entries: readonly LogEntry[]): void {
    // What was meant for the process before a restart is not for us, but its sender should know us.
    if (message.kind === "behind") return this.#onBehind(message);
    if (message.toInc !== this.self.inc && !mutated("incarnation-not-checked")) {
      return this.#sendBehind(message);
    }
    switch (message.kind) {
      case "append":
        return this.#onAppend(message, entries);
      case "heartbeat":
        return this.#onHeartbeat(message);
      case "snapshotOffer":
        return this.#onSnapshotOffer(message);
      case "appendAck":
      case "appendNack":
      case "heartbeatAck":
        return this.#onAnswer(message);
    }
  }

  /** Brings us to the sender's epoch if it is newer; false when the message must be ignored. */
  #follow(message: Append | Heartbeat | SnapshotOffer): boolean {
    const config = "config" in message ? message.config : undefined;
    if (message.epoch > this.epoch && config !== undefined && config.epoch === message.epoch) {
      this.#adopt(config);
    }
    if (mutated("older-epochs-accepted") && message.epoch < this.epoch) {
      return this.#role !== "primary";
    }
    if (message.epoch !== this.epoch) {
      this.#sendBehind(message);
      return false;
    }
    const primary = this.#config!.primary;
    // A2: one epoch has one primary. A stranger that claims it is not worth our own life.
    if (this.#role === "primary" || primary.node !== message.from || primary.inc !== message.inc) {
      return false;
    }
    this.#heardPrimaryMs = this.#nowMs;
    return true;
  }

  #sendBehind(message: ReplicaMessage): void {
    const round = message.kind === "append" ? { round: message.round } : {};
    this.#send(message.from, { kind: "behind", ...this.#head(message.inc), ...round });
  }

  #onAppend(message: Append, entries: readonly LogEntry[]): void {
    if (!this.#follow(message)) return;
    this.#round = message.round;
    const { prevLsn } = message;
    const fits = mutated("match-without-epoch")
      ? prevLsn <= this.#log.lastLsn
      : this.#log.epochAt(prevLsn) === message.prevEpoch;
    if (!fits || this.#fetchingSnapshot) {
      return this.#sendNack(message.from, message.inc);
    }
    for (const entry of entries) {
      const mine = this.#log.epochAt(entry.lsn);
      if (mine === entry.epoch || mine !== null && mutated("match-without-epoch")) continue;
      if (mine !== null) this.#truncateAfter(toLsn(entry.lsn - 1), "the primary has other entries");
      this.#log.append(entry);
      this.#unwritten.push({ type: "entry", ...entry });
    }
    const lastLsn = toLsn(prevLsn + entries.length);
    if (lastLsn > this.#verifiedLsn) this.#verifiedLsn = lastLsn;
    this.#learnCommit(message.commitLsn);
    this.#ackDue = true;
    // With nothing to write the answer can go at once; otherwise `written` releases it.
    if (this.#durableLsn >= this.#verifiedLsn || mutated("ack-before-fsync")) this.#answerPrimary();
  }

  #truncateAfter(lsn: Lsn, reason: string): void {
    if (mutated("truncation-below-commit")) this.#commitLsn = toLsn(Math.min(this.#commitLsn, lsn));
    invariant(
      lsn >= this.#commitLsn,
      "A4",
      () => `group ${this.gid}: truncation to ${lsn} below committed ${this.#commitLsn}`,
    );
    const entries = this.#log.truncateAfter(lsn);
    this.#unwritten.push({ type: "truncate", epoch: this.epoch, lsn });
    if (this.#durableLsn > lsn) this.#durableLsn = lsn;
    for (const write of this.#writes) if (write.lastLsn > lsn) write.lastLsn = lsn;
    if (this.#verifiedLsn > lsn) this.#verifiedLsn = lsn;
    this.#effects.push({ kind: "diverged", entries, reason });
  }

  #onHeartbeat(message: Heartbeat): void {
    if (!this.#follow(message)) return;
    const graceMs = mutated("short-grace") ? this.#timing.leaseMs / 4 : this.#timing.graceMs;
    const untilMs = this.#nowMs + graceMs;
    this.#promises.set(message.reign, Math.max(this.#promises.get(message.reign) ?? 0, untilMs));
    if (message.echoMs !== null) {
      this.#freshness.push({ lsn: message.commitLsn, atMs: message.echoMs });
      if (this.#freshness.length > FRESHNESS_KEPT) this.#freshness.shift();
    }
    this.#learnCommit(message.commitLsn);
    this.#compareHash(message.check);
    const { sentMs, beat } = message, stampMs = this.#nowMs;
    this.#heldPromise = {
      kind: "heartbeatAck",
      ...this.#head(message.inc),
      sentMs,
      beat,
      stampMs,
    };
    if (this.#durableEpoch >= this.epoch) this.#releasePromise();
  }

  #learnCommit(commitLsn: Lsn): void {
    if (commitLsn > this.#primaryCommitLsn) this.#primaryCommitLsn = commitLsn;
    this.#applyCommitted();
  }

  #compareHash(check: { lsn: Lsn; hash: string } | null): void {
    if (check === null) return;
    const mine = this.#checks.find((item) => item.lsn === check.lsn);
    if (mine === undefined || mine.hash === check.hash) return;
    this.#effects.push({
      kind: "hashMismatch",
      lsn: check.lsn,
      mine: mine.hash,
      theirs: check.hash,
    });
  }

  #onSnapshotOffer(message: SnapshotOffer): void {
    if (!this.#follow(message)) return;
    this.#round = message.round;
    if (this.#fetchingSnapshot || this.#role !== "learner") return;
    this.#fetchingSnapshot = true;
    this.#effects.push({ kind: "fetchSnapshot", from: message.from });
  }

  /** The shell replaced our state and log by a checkpoint; it is on disk. */
  #onSnapshotInstalled(state: GroupState, history: EpochHistory): void {
    this.#fetchingSnapshot = false;
    if (state.appliedLsn <= this.#commitLsn) return;
    this.#state = state;
    this.#log.reset(state.appliedLsn, history);
    this.#durableLsn = state.appliedLsn;
    this.#commitLsn = state.appliedLsn;
    this.#verifiedLsn = toLsn(0);
    for (const write of this.#writes) write.lastLsn = toLsn(0);
    this.#unwritten = this.#unwritten.filter((record) => record.type === "config");
    this.#checks.length = 0;
    if (this.#config === null) return;
    const { node, inc } = this.#config.primary;
    this.#sendNack(node, inc);
  }

  #sendNack(to: NodeId, toInc: Incarnation): void {
    this.#send(to, {
      kind: "appendNack",
      ...this.#head(toInc),
      round: this.#round,
      lastLsn: this.#log.lastLsn,
      baseLsn: this.#log.baseLsn,
      history: this.#log.history,
    });
  }

  #onBehind(message: Behind): void {
    if (message.epoch > this.epoch) this.#effects.push({ kind: "askConfig" });
    const peer = this.#peers.get(message.from);
    if (this.#role !== "primary" || peer === undefined) return;
    if (peer.member.store !== message.store) return;
    if (message.epoch > this.epoch) {
      // It heard of a change of ours before we did, and threw away what we sent.
      peer.threwAway = true;
      return;
    }
    peer.heardMs = this.#nowMs;
    peer.hasConfig = peer.hasConfig && message.epoch === this.epoch;
    if (peer.inc !== message.inc) this.#meetIncarnation(peer, message.inc);
    else {
      // It threw away what it was sent in another epoch than its own, be it that we have caught up
      // with it since or that it still has to follow.
      if (message.epoch < this.epoch) peer.hasConfig = false;
      if (message.round === peer.round) this.#restart(peer);
    }
    this.#replicate(peer);
  }

  #meetIncarnation(peer: PeerProgress, inc: Incarnation): void {
    const first = peer.inc === 0;
    peer.inc = inc;
    peer.stampMs = null;
    peer.hasConfig = false;
    peer.readingLog = false;
    peer.snapshotOffered = false;
    if (!first) this.#restart(peer);
    this.#sendHeartbeat(peer);
  }

  /** Sends again what is not acknowledged; with a replica never heard of, asks where it stands. */
  #restart(peer: PeerProgress): void {
    peer.resendFrom(peer.matchLsn > 0 ? toLsn(peer.matchLsn + 1) : this.#firstGuess());
  }

  /** A replica in good order lacks just what this reign added. */
  #firstGuess(): Lsn {
    return toLsn(Math.max(1, Math.min(this.#epochStartLsn, this.#log.lastLsn)));
  }

  // ------------------------------------------------------------------------ as the primary

  #onAnswer(message: AppendAck | AppendNack | HeartbeatAck): void {
    const peer = this.#peers.get(message.from);
    if (this.#role !== "primary" || peer === undefined) return;
    if (!mutated("store-not-checked")) {
      if (peer.member.store !== message.store || peer.inc !== message.inc) return;
    }
    // An answer sent before we were elected says nothing about this reign.
    if (message.reign !== this.#config!.reign && !mutated("reign-not-checked")) return;
    peer.heardMs = this.#nowMs;
    if (message.epoch === this.epoch) peer.hasConfig = true;
    switch (message.kind) {
      case "heartbeatAck": {
        const fromMs = mutated("lease-from-receipt") ? this.#nowMs : message.sentMs;
        const untilMs = fromMs + this.#timing.leaseMs;
        if (untilMs > peer.leaseUntilMs) peer.leaseUntilMs = untilMs;
        peer.answeredBeat = Math.max(peer.answeredBeat, message.beat);
        peer.stampMs = Math.max(peer.stampMs ?? -Infinity, message.stampMs);
        this.#replicate(peer);
        return this.#releaseReads();
      }
      case "appendAck":
        peer.raiseMatch(message.matchLsn, this.#nowMs);
        this.#replicate(peer);
        this.#maybeAdd(peer);
        return this.#advanceCommit();
      case "appendNack":
        return this.#onNack(peer, message);
    }
  }

  #onNack(peer: PeerProgress, message: AppendNack): void {
    // One gap makes the follower refuse all that was under way; starting over once is enough.
    if (message.round !== peer.round) return;
    const common = commonPosition(
      { baseLsn: this.#log.baseLsn, lastLsn: this.#log.lastLsn, history: this.#log.history },
      message,
    );
    if (common !== null && common < peer.matchLsn) {
      // Either an old answer that was overtaken, or a disk that lost what it had acknowledged. To
      // count on less is safe in both cases; a member that really forgot has to go.
      peer.forgot = this.#isMember(peer) && message.lastLsn < peer.matchLsn;
      peer.lowerMatch(common);
    }
    // Below its checkpoint a replica cannot be cut back; it has to start from a new one.
    if (common === null || (common < message.baseLsn && !this.#isMember(peer))) {
      this.#offerSnapshot(peer);
      return;
    }
    peer.snapshotOffered = false;
    peer.resendFrom(toLsn(common + 1));
    this.#replicate(peer);
  }

  #isMember(peer: PeerProgress): boolean {
    return this.#config!.inSync.some((member) => member.node === peer.member.node);
  }

  /** Everybody whom the coordinator could elect in our place, by node. */
  #leaseSet(): Set<NodeId> {
    const config = this.#config!;
    const nodes = new Set<NodeId>();
    if (mutated("no-lease")) return nodes;
    const { eligible } = config;
    for (const member of config.inSync) nodes.add(member.node);
    for (const member of mutated("lease-without-eligible") ? [] : eligible) nodes.add(member.node);
    const added = mutated("lease-without-pending-add") ? null : this.#pendingAdd;
    if (added !== null) nodes.add(added.node);
    nodes.delete(this.self.node);
    return nodes;
  }

  #promiseUntilMs(): number {
    const config = this.#config!;
    let untilMs = this.#bootPromiseMs;
    if (mutated("promises-ignored")) return -Infinity;
    // Nobody can hold a lease from before the very first reign.
    if (config.reign === FIRST_REIGN) untilMs = -Infinity;
    for (const [reign, promisedMs] of this.#promises) {
      if (reign !== config.deadReign && reign !== config.reign) {
        untilMs = Math.max(untilMs, promisedMs);
      }
    }
    return untilMs;
  }

  #advanceCommit(): void {
    const config = this.#config!;
    if (this.#role === "primary" && (!this.#relinquished || mutated("relinquished-serves"))) {
      const enough = config.inSync.length >= config.minInSync || mutated("commit-below-minimum");
      if (enough && this.#nowMs >= this.#promiseUntilMs()) {
        let commitLsn = mutated("own-fsync-not-counted") ? this.#log.lastLsn : this.#durableLsn;
        const needed = this.#pendingAdd === null || mutated("add-not-counted")
          ? config.inSync
          : [...config.inSync, this.#pendingAdd];
        const change = this.#proposal?.change;
        for (const member of needed) {
          if (member.node === this.self.node) continue;
          if (mutated("unknown-change-is-done") && change?.kind === "remove") {
            if (change.member.node === member.node) continue;
          }
          const matchLsn = this.#peers.get(member.node)?.matchLsn ?? toLsn(0);
          if (matchLsn < commitLsn) commitLsn = matchLsn;
        }
        if (commitLsn > this.#commitLsn) {
          this.#commitLsn = commitLsn;
          this.#applyEntries();
        }
      }
      this.#maybeRelinquish();
    }
    this.#releaseReads();
  }

  /** As a follower: what the primary committed, as far as our log is known to equal its log. */
  #applyCommitted(): void {
    const ours = mutated("unverified-log-applied") ? this.#durableLsn : this.#verifiedLsn;
    const upTo = Math.min(this.#primaryCommitLsn, ours, this.#durableLsn);
    if (upTo > this.#commitLsn) this.#commitLsn = toLsn(upTo);
    this.#applyEntries();
  }

  #applyEntries(): void {
    while (this.#state.appliedLsn < this.#commitLsn) {
      const lsn = toLsn(this.#state.appliedLsn + 1);
      const entry = this.#log.at(lsn);
      invariant(entry !== undefined, "A1", () => `entry ${lsn} left memory before it was applied`);
      const outcome = this.#state.apply(entry.command, lsn);
      if (lsn % CHECK_EVERY_LSN === 0) {
        this.#checks.push({ lsn, hash: this.#state.hash });
        if (this.#checks.length > CHECKS_KEPT) this.#checks.shift();
      }
      const { kind } = entry.command;
      if (kind === "split" || kind === "merge") this.#onReshaped(lsn, kind);
      if (this.#role === "primary") this.#answerRequests(entry, outcome);
    }
    const { appliedLsn } = this.#state;
    while (this.#freshness.length > 0 && this.#freshness[0]!.lsn <= appliedLsn) {
      this.#freshMs = Math.max(this.#freshMs, this.#freshness.shift()!.atMs);
    }
    let keepFrom: number = appliedLsn;
    for (const peer of this.#peers.values()) {
      if (this.#role === "primary" && this.#isMember(peer)) {
        keepFrom = Math.min(keepFrom, peer.matchLsn);
      }
    }
    this.#log.trim(toLsn(keepFrom), RECENT_BYTES);
  }

  #onReshaped(lsn: Lsn, kind: "split" | "merge"): void {
    this.#mergeFromMs = this.#nowMs +
      (kind === "split" ? MERGE_AFTER_SPLIT_MS : MERGE_AFTER_MERGE_MS);
    if (this.#reshaping?.lsn !== lsn) return;
    const { requestId } = this.#reshaping;
    this.#reshaping = null;
    if (requestId !== null) this.#effects.push({ kind: "reshaped", requestId });
  }

  #answerRequests(entry: LogEntry, outcome: RowOutcome | null): void {
    const waiting = this.#waiting.get(entry.lsn);
    if ("stamp" in entry.command) {
      const { clientId, seq } = entry.command.stamp;
      this.#inProgress.delete(`${clientId}/${seq}`);
    }
    if (waiting === undefined) return;
    this.#waiting.delete(entry.lsn);
    this.#uncommittedBytes -= entryBytes(entry);
    for (const requestId of waiting) {
      if (outcome !== null) this.#effects.push({ kind: "reply", requestId, outcome });
      else {
        const message = "The answer to this request was already confirmed";
        const code = "session_too_old";
        this.#effects.push({ kind: "refuse", requestId, code, message, maybeApplied: true });
      }
    }
  }

  // ------------------------------------------------------------------------ configurations

  #onConfig(config: GroupConfig, learners: readonly Member[] | null): void {
    if (config.epoch > this.epoch) this.#adopt(config);
    if (learners !== null && config.epoch === this.epoch && this.#role === "primary") {
      this.#setLearners(learners);
    }
  }

  /** Takes over a newer configuration; it is durable before anything says so (see `#answer`). */
  #adopt(config: GroupConfig): void {
    invariant(config.epoch > this.epoch, "A2", () => `epoch ${config.epoch} after ${this.epoch}`);
    const before = this.#config;
    this.#config = config;
    this.#unwritten.push({ type: "config", epoch: config.epoch, config });
    this.#heldPromise = null;
    // Within a reign what was appended still waits for its ack; the primary may send nothing more.
    if (before?.reign !== config.reign) this.#ackDue = false;
    const { primary } = config;
    const isPrimary = primary.node === this.self.node && primary.store === this.self.store &&
      (primary.inc === this.self.inc || mutated("incarnation-not-checked"));
    const sameReign = before?.reign === config.reign || mutated("reign-not-restarted");
    if (isPrimary && this.#role === "primary" && sameReign) {
      this.#continueReign(config);
      return;
    }
    if (this.#role === "primary") this.#stepDown();
    if (before?.reign !== config.reign) {
      this.#verifiedLsn = toLsn(0);
      this.#primaryCommitLsn = toLsn(0);
    }
    this.#heardPrimaryMs = this.#nowMs;
    if (isPrimary) this.#takeOffice(config);
    else this.#setRole(this.#followerRole(config));
  }

  #followerRole(config: GroupConfig): ReplicaRole {
    const { node, store } = this.self;
    const among = (members: readonly Member[]) =>
      members.some((member) => member.node === node && member.store === store);
    return among(config.inSync) || among(config.eligible) ? "secondary" : "learner";
  }

  #setRole(role: ReplicaRole): void {
    this.#role = role;
    this.#effects.push({ kind: "roleChanged", role, epoch: this.epoch });
  }

  /** A new reign starts from nothing, even for the one who was primary a moment ago. */
  #takeOffice(config: GroupConfig): void {
    this.#peers.clear();
    this.#pendingAdd = null;
    this.#proposal = null;
    this.#handOverTo = null;
    this.#relinquished = false;
    this.#learners = [];
    this.#fetchingSnapshot = false;
    if (mutated("completion-lost-on-failover")) this.#state.completions.forgetBefore(Infinity);
    this.#setRole("primary");
    const timeMs = this.#state.timeMs;
    const start = this.#appendOwn({ kind: "epochStart", reign: config.reign, timeMs });
    this.#epochStartLsn = start.lsn;
    for (const member of [...config.inSync, ...config.eligible]) this.#addPeer(member);
    this.#heartbeatMs = -Infinity;
    this.#heartbeat();
  }

  #addPeer(member: Member): void {
    if (member.node === this.self.node) return;
    const known = this.#peers.get(member.node);
    if (known !== undefined && known.member.store === member.store) return;
    const peer = new PeerProgress(member, {
      nextLsn: this.#firstGuess(),
      nowMs: this.#nowMs,
    });
    this.#peers.set(member.node, peer);
    this.#sendHeartbeat(peer);
  }

  #continueReign(config: GroupConfig): void {
    const wanted = this.#wantedPeers(config);
    for (const [node, peer] of this.#peers) {
      const keep = wanted.get(node)?.store === peer.member.store;
      if (!keep) this.#peers.delete(node);
      peer.hasConfig = false;
      if (!this.#isMember(peer)) peer.forgot = false;
      if (peer.threwAway) this.#restart(peer);
      peer.threwAway = false;
    }
    for (const member of wanted.values()) this.#addPeer(member);
    const added = this.#pendingAdd;
    if (added !== null && config.inSync.some((member) => member.node === added.node)) {
      this.#pendingAdd = null;
    }
    if (this.#proposal !== null && this.#proposal.epoch < config.epoch) this.#proposal = null;
    // A change of ours that lost against this configuration can no longer happen.
    if (this.#proposal === null) {
      this.#pendingAdd = null;
      if (this.#relinquished) this.#handOverTo = null;
      this.#relinquished = false;
    }
    this.#maybeStay();
    this.#heartbeatMs = -Infinity;
    this.#heartbeat();
    this.#advanceCommit();
  }

  #stepDown(): void {
    const message = `This node is no longer the primary of group ${this.gid}`;
    for (const waiting of this.#waiting.values()) {
      for (const requestId of waiting) {
        const code = "not_primary";
        this.#effects.push({ kind: "refuse", requestId, code, message, maybeApplied: true });
      }
    }
    const requestId = this.#reshaping?.requestId ?? null;
    if (requestId !== null) {
      const code = "not_primary";
      this.#effects.push({ kind: "refuse", requestId, code, message, maybeApplied: true });
    }
    this.#reshaping = null;
    this.#waiting.clear();
    this.#inProgress.clear();
    this.#uncommittedBytes = 0;
    this.#failReads(this.#reads.takeAll(), "not_primary", "has a new primary");
    this.#peers.clear();
    this.#pendingAdd = null;
    this.#proposal = null;
    this.#handOverTo = null;
    this.#relinquished = false;
  }

  /**
   * Whom to send to, by node. A node's new store must not be taken for the one that is in sync: that
   * one has to leave first. Who is merely eligible makes room at once, for it may never come back.
   */
  #wantedPeers(config: GroupConfig): Map<NodeId, Member> {
    const members = [...config.eligible, ...this.#learners, ...config.inSync];
    return new Map(members.map((member) => [member.node, member]));
  }

  #setLearners(learners: readonly Member[]): void {
    this.#learners = learners;
    const wanted = this.#wantedPeers(this.#config!);
    for (const [node, peer] of this.#peers) {
      if (wanted.get(node)?.store !== peer.member.store) this.#peers.delete(node);
    }
    for (const member of wanted.values()) this.#addPeer(member);
  }

  #propose(change: ConfigChange): void {
    if (this.#proposal !== null) return;
    const changeId = this.#makeId();
    this.#proposal = { changeId, change, epoch: this.epoch, askedMs: this.#nowMs };
    this.#effects.push({ kind: "propose", epoch: this.epoch, changeId, change });
  }

  #onProposed(input: Input & { kind: "proposed" }): void {
    if (input.config !== null && input.config.epoch > this.epoch) this.#adopt(input.config);
    const proposal = this.#proposal;
    if (proposal?.changeId !== input.changeId) return;
    // Another copy of it may still be under way, and be granted as long as the record is at the epoch
    // in which we asked. Once that is over, `#continueReign` counts it as refused. A removal may
    // happen late without harm: nothing was built on its being refused.
    const forgets = mutated("unknown-change-is-refused");
    if (input.result === "refused" && proposal.change.kind !== "remove" && !forgets) return;
    this.#proposal = null;
    if (forgets) this.#pendingAdd = null;
    this.#advanceCommit();
  }

  #maybeAdd(peer: PeerProgress): void {
    const config = this.#config!;
    if (this.#pendingAdd !== null || this.#proposal !== null || this.#isMember(peer)) return;
    if (this.#handOverTo !== null || peer.forgot) return;
    // Who is silent or stuck would be taken out again at once, and put in again, without end.
    const { ackTimeoutMs } = this.#timing;
    if (this.#nowMs - peer.heardMs > ackTimeoutMs) return;
    const behind = peer.matchLsn < this.#log.lastLsn;
    if (behind && this.#nowMs - peer.progressMs > ackTimeoutMs) return;
    if (this.#nowMs < this.#promiseUntilMs()) return;
    const below = config.inSync.length < config.minInSync;
    const startDone = below || this.#commitLsn >= this.#epochStartLsn;
    if (!startDone || peer.matchLsn < this.#epochStartLsn) return;
    if (peer.matchLsn + NEARLY_CAUGHT_UP < this.#log.lastLsn) return;
    // From here on commits wait for it, and its lease is needed: it might become electable.
    this.#pendingAdd = peer.member;
    this.#maybeProposeAdd();
  }

  #maybeProposeAdd(): void {
    const member = this.#pendingAdd;
    if (member === null || this.#proposal !== null) return;
    const peer = this.#peers.get(member.node);
    if (peer === undefined || peer.member.store !== member.store) {
      this.#pendingAdd = null;
      return;
    }
    if (peer.matchLsn >= this.#commitLsn && peer.matchLsn >= this.#epochStartLsn) {
      this.#propose({ kind: "add", member });
    }
  }

  #onMemberDown(node: NodeId, inc: Incarnation): void {
    const peer = this.#peers.get(node);
    if (this.#role !== "primary" || peer === undefined) return;
    if (peer.inc !== 0 && peer.inc > inc) return;
    peer.heardMs = -Infinity;
    this.#watchPeers();
  }

  #onHandOver(to: NodeId | null): void {
    if (this.#role !== "primary" || this.#handOverTo !== null || this.#proposal !== null) return;
    const others = this.#config!.inSync.filter((member) => member.node !== this.self.node);
    const target = others.find((member) => member.node === to) ?? (to === null ? others[0] : null);
    if (target == null) return;
    this.#handOverTo = target;
    this.#handOverUntilMs = this.#nowMs + HAND_OVER_PATIENCE_MS;
    this.#maybeRelinquish();
  }

  /** A successor that falls behind or away must not keep the group from taking requests. */
  #maybeStay(): void {
    const target = this.#handOverTo;
    if (target === null || this.#relinquished) return;
    const ready = this.#config!.inSync.some((member) => member.node === target.node);
    if (!ready || this.#nowMs > this.#handOverUntilMs) this.#handOverTo = null;
  }

  /** Once the successor holds everything, promise to read and commit no more, and say so. */
  #maybeRelinquish(): void {
    const target = this.#handOverTo;
    if (target === null || this.#relinquished || this.#proposal !== null) return;
    const matchLsn = this.#peers.get(target.node)?.matchLsn ?? toLsn(0);
    if (this.#commitLsn < this.#log.lastLsn || matchLsn < this.#log.lastLsn) return;
    this.#relinquished = true;
    this.#propose({ kind: "relinquish", to: target });
  }

  // ---------------------------------------------------------------------------- time

  #onTick(): void {
    if (this.#role === "primary") {
      if (this.#nowMs - this.#heartbeatMs >= this.#timing.heartbeatMs) this.#heartbeat();
      this.#watchPeers();
      this.#maybeStay();
      this.#repeatProposal();
      this.#maybeProposeAdd();
      for (const peer of this.#peers.values()) this.#maybeAdd(peer);
      this.#maybeReshape();
      this.#advanceCommit();
      this.#maybeCheckRecord();
    } else {
      this.#maybeSuspect();
    }
    for (const [reign, untilMs] of this.#promises) {
      if (untilMs < this.#nowMs) this.#promises.delete(reign);
    }
    this.#flush();
  }

  #heartbeat(): void {
    this.#heartbeatMs = this.#nowMs;
    this.#beat += 1;
    for (const peer of this.#peers.values()) this.#sendHeartbeat(peer);
  }

  #sendHeartbeat(peer: PeerProgress): void {
    this.#send(peer.member.node, {
      kind: "heartbeat",
      ...this.#head(peer.inc),
      config: this.#config!,
      sentMs: this.#nowMs,
      beat: this.#beat,
      commitLsn: this.#commitLsn,
      echoMs: this.#holdsLeasesAt(this.#nowMs) || mutated("echo-without-lease")
        ? peer.stampMs
        : null,
      check: this.#checks.at(-1) ?? null,
    });
  }

  #watchPeers(): void {
    const config = this.#config!;
    const { ackTimeoutMs, graceMs } = this.#timing;
    for (const peer of this.#peers.values()) {
      const silentMs = this.#nowMs - peer.heardMs;
      const stalledMs = this.#nowMs - peer.progressMs;
      if (peer.snapshotOffered && stalledMs > SNAPSHOT_PATIENCE_MS) peer.snapshotOffered = false;
      const unansweredMs = this.#nowMs - Math.max(peer.progressMs, peer.restartedMs);
      if (peer.hasInFlight && (silentMs > ackTimeoutMs || unansweredMs > ackTimeoutMs)) {
        // What was sent may be lost with a connection; start over.
        if (silentMs > ackTimeoutMs) peer.inc = incarnation(0);
        peer.hasConfig = false;
        peer.restartedMs = this.#nowMs;
        if (mutated("lost-append-not-resent")) continue;
        this.#restart(peer);
        this.#replicate(peer);
      }
      if (!this.#isMember(peer)) {
        // Commits wait for a member-to-be as well.
        const gone = silentMs > ackTimeoutMs || stalledMs > ackTimeoutMs * STALL_FACTOR;
        if (gone && this.#pendingAdd?.node === peer.member.node && this.#proposal === null) {
          this.#pendingAdd = null;
          this.#advanceCommit();
        }
        continue;
      }
      // A removal that leaves too few to write waits until a majority would have spoken up.
      const patient = config.inSync.length - 1 < config.minInSync && peer.heardMs !== -Infinity;
      const limitMs = patient ? Math.max(ackTimeoutMs, graceMs) : ackTimeoutMs;
      const stalled = peer.hasInFlight && stalledMs > ackTimeoutMs * STALL_FACTOR;
      if (silentMs > limitMs || stalled || peer.forgot) {
        this.#propose({ kind: "remove", member: peer.member });
      }
    }
  }

  #repeatProposal(): void {
    const proposal = this.#proposal;
    if (proposal === null || this.#nowMs - proposal.askedMs < PROPOSE_EVERY_MS) return;
    proposal.askedMs = this.#nowMs;
    const { epoch, changeId, change } = proposal;
    this.#effects.push({ kind: "propose", epoch, changeId, change });
  }

  #maybeSuspect(): void {
    if (this.#role !== "secondary") return;
    const silentMs = this.#nowMs - this.#heardPrimaryMs;
    if (silentMs < this.#timing.graceMs) return;
    if (this.#nowMs - this.#suspectedMs < SUSPECT_EVERY_MS) return;
    this.#suspectedMs = this.#nowMs;
    this.#effects.push({ kind: "suspect", epoch: this.epoch, silentMs });
  }
}
