/**
 * One reign of a primary, from its election until somebody else's: it replicates its log, decides what
 * is committed, and answers writes and reads.
 *
 * It begins by appending `epochStart`; what it finds before that in its log commits together with it.
 * An entry is committed once it is on the disk of every member in sync and of the member that is being
 * added, with at least `minInSync` of them, and after the promises that we gave to earlier primaries
 * have run out (A5). A new reign starts from nothing, also for who was primary a moment ago.
 *
 * Its parts: writes (write_queue.ts), who belongs to the group (membership.ts), reads (read_gate.ts),
 * and what each peer has (peer_progress.ts).
 */
import { epoch as toEpoch, type Incarnation, incarnation, type Lsn } from "../proto/ids.ts";
import { lsn as toLsn, type NodeId } from "../proto/ids.ts";
import type {
  Append,
  AppendAck,
  AppendNack,
  Behind,
  ConfigChange,
  GroupConfig,
  HeartbeatAck,
  Member,
} from "../proto/replication.ts";
import { rowOpsOf } from "./command.ts";
import { invariant } from "./invariant.ts";
import { Membership } from "./membership.ts";
import { mutated } from "./mutant.ts";
import { PeerProgress } from "./peer_progress.ts";
import { ReadGate, type RowSpan, rowWithin, spansOverlap, type WaitingRead } from "./read_gate.ts";
import type { ReplicaCore } from "./replica_core.ts";
import { commonPosition, type LogEntry } from "./replica_log.ts";
import { idleHeartbeatMs, type Input, oddSilenceMs, type RefusalCode } from "./replica_types.ts";
import type { TabletChange, TabletLimits } from "./tablet_policy.ts";
import { WriteQueue } from "./write_queue.ts";

const WAITING_READS_MAX = 4096;
const WAITING_READ_MS = 3_000;
/** Leases come back within milliseconds, unless somebody electable is gone. */
const RECORD_CHECK_AFTER_MS = 50;
const RECORD_CHECK_PATIENCE_MS = 1_000;
/** For so long after the record has answered a read, the next ones ask it at once. */
const RECORD_HELPS_MS = 2_000;
/** Of one append on the wire. */
const APPEND_ENTRIES_MAX = 512;
/** So much is not kept waiting for the answer to the append before. */
const GATHERED_ENTRIES_MAX = 64;
const GATHERED_BYTES_MAX = 64 * 1024;
/** An offer that led to nothing is made again; a learner that is still fetching ignores it. */
const SNAPSHOT_PATIENCE_MS = 5_000;
const IDLE_AFTER_MS = 5_000;

export interface PrimaryOptions {
  readonly core: ReplicaCore;
  readonly tabletLimits: TabletLimits | null;
  readonly makeId: () => string;
}

export class Primary {
  readonly #core: ReplicaCore;
  readonly #epochStartLsn: Lsn;
  readonly #peers = new Map<NodeId, PeerProgress>();
  readonly #writes: WriteQueue;
  readonly #reads = new ReadGate();
  readonly #membership: Membership;
  #learners: readonly Member[] = [];
  /** The last heartbeat that was sent. */
  #beat = 0;
  #heartbeatMs = -Infinity;
  /** When something was last committed, or a read had to wait. */
  #usedMs: number;
  #recordHelpedMs = -Infinity;

  /** Takes office: `core.config` has just named us. */
  constructor({ core, tabletLimits, makeId }: PrimaryOptions) {
    this.#core = core;
    this.#usedMs = core.nowMs;
    const { reign } = core.config!, { timeMs } = core.state;
    this.#epochStartLsn = core.appendOwn({ kind: "epochStart", reign, timeMs }).lsn;
    this.#writes = new WriteQueue(core, tabletLimits);
    this.#membership = new Membership({
      core,
      peers: this.#peers,
      epochStartLsn: this.#epochStartLsn,
      makeId,
      onLoosened: () => this.advanceCommit(),
    });
    for (const member of this.#wantedPeers().values()) this.#addPeer(member);
    this.#heartbeat();
  }

  /** Reconciled with the members, and not about to leave. */
  canServe(): boolean {
    return (!this.#membership.hasRelinquished || mutated("relinquished-serves")) &&
      (this.#core.state.appliedLsn >= this.#epochStartLsn || mutated("epoch-start-not-awaited"));
  }

  /** See `Replica.isCalm`. */
  get isCalm(): boolean {
    const { commitLsn, log, nowMs, timing } = this.#core;
    if (!this.canServe() || this.#membership.isUnsettled || this.#reads.size > 0) return false;
    if (commitLsn < log.lastLsn) return false;
    const heardMs = nowMs - oddSilenceMs(timing);
    for (const peer of this.#peers.values()) {
      const isUpToDate = peer.matchLsn >= log.lastLsn && peer.toldCommitLsn >= commitLsn;
      if (!isUpToDate || peer.heardMs < heardMs) return false;
    }
    return true;
  }

  /** Everybody electable has promised to stay a follower for now. */
  holdsLeasesAt(nowMs: number): boolean {
    const core = this.#core;
    if (!this.canServe() || nowMs < core.promisedUntilMs(core.config!)) return false;
    if (mutated("stale-read-after-pause")) nowMs = core.nowMs;
    for (const node of this.#membership.electable()) {
      if ((this.#peers.get(node)?.leaseUntilMs ?? -Infinity) <= nowMs) return false;
    }
    return true;
  }

  /** Whether a linearizable read may be answered from the applied state right now (A6). */
  canReadAt(nowMs: number): boolean {
    return this.#core.timing.readMode !== "confirm" && this.holdsLeasesAt(nowMs);
  }

  get progress() {
    return {
      pendingAdd: this.#membership.pendingAdd?.node ?? null,
      proposal: this.#membership.proposed?.kind ?? null as ConfigChange["kind"] | null,
      peers: Array.from(this.#peers.values(), (peer) => ({
        node: peer.member.node,
        inc: peer.inc,
        matchLsn: peer.matchLsn,
        nextLsn: peer.nextLsn,
        waiting: peer.readingLog || peer.snapshotOffered,
        forgot: peer.forgot,
        leaseMs: Math.max(0, peer.leaseUntilMs - this.#core.nowMs),
      })),
    };
  }

  // ------------------------------------------------------------------------- the office

  onTick(): void {
    const core = this.#core, membership = this.#membership;
    if (core.nowMs - this.#heartbeatMs >= this.#heartbeatEveryMs()) this.#heartbeat();
    else this.#tellCommits();
    this.#watchPeers();
    membership.maybeStay();
    membership.repeatProposal();
    membership.maybeProposeAdd();
    for (const peer of this.#peers.values()) membership.maybeAdd(peer);
    if (this.canServe() && !membership.isHandingOver) this.#writes.maybeReshape();
    this.advanceCommit();
    this.#maybeCheckRecord();
  }

  /** A newer configuration that leaves us in office. */
  continueReign(config: GroupConfig): void {
    const wanted = this.#wantedPeers();
    this.#forgetOthers(wanted);
    for (const peer of this.#peers.values()) {
      peer.hasConfig = false;
      if (peer.threwAway) this.#restart(peer);
      peer.threwAway = false;
    }
    for (const member of wanted.values()) this.#addPeer(member);
    this.#membership.onAdopted(config);
    this.#heartbeat();
    this.advanceCommit();
  }

  stepDown(): void {
    this.#writes.close();
    this.#failReads(this.#reads.takeAll(), "not_primary", "has a new primary");
  }

  setLearners(learners: readonly Member[]): void {
    this.#learners = learners;
    const wanted = this.#wantedPeers();
    this.#forgetOthers(wanted);
    for (const member of wanted.values()) this.#addPeer(member);
  }

  onProposed(changeId: string, result: "done" | "refused"): void {
    this.#membership.onProposed(changeId, result);
  }

  onMemberDown(node: NodeId, inc: Incarnation): void {
    const peer = this.#peers.get(node);
    if (peer === undefined || (peer.inc !== 0 && peer.inc > inc)) return;
    peer.heardMs = -Infinity;
    this.#watchPeers();
  }

  onHandOver(to: NodeId | null): void {
    this.#membership.onHandOver(to);
  }

  stepAside(): void {
    this.#membership.stepAside();
  }

  doubtClock(): void {
    for (const peer of this.#peers.values()) peer.leaseUntilMs = -Infinity;
  }

  // ------------------------------------------------------------------------------- writes

  onRequest(input: Input & { kind: "request" }): void {
    if (this.#membership.isHandingOver) {
      const message = `The primary of group ${this.#core.gid} is handing over`;
      return this.#core.refuse(input.requestId, "not_primary", message);
    }
    this.#writes.onRequest(input);
  }

  onReshape(requestId: number, change: TabletChange): void {
    if (!this.canServe() || this.#membership.isHandingOver) {
      const message = `This node is not the serving primary of group ${this.#core.gid}`;
      return this.#core.refuse(requestId, "not_primary", message);
    }
    this.#writes.onReshape(requestId, change);
  }

  onMove(input: Input & { kind: "move" }): void {
    if (!this.canServe() || this.#membership.isHandingOver) {
      const message = `This node is not the serving primary of group ${this.#core.gid}`;
      return this.#core.refuse(input.requestId, "not_primary", message);
    }
    this.#writes.onMove(input);
  }

  /** Commits what is on the disks of all who count, and applies and answers it. */
  advanceCommit(): void {
    const core = this.#core, { inSync, minInSync } = core.config!;
    if (!this.#membership.hasRelinquished || mutated("relinquished-serves")) {
      const enough = inSync.length >= minInSync || mutated("commit-below-minimum");
      if (enough && core.nowMs >= core.promisedUntilMs(core.config!)) this.#commit();
      this.#membership.maybeRelinquish();
    }
    this.#releaseReads();
  }

  #commit(): void {
    const core = this.#core;
    // Entries of former reigns may be on our disk long before this one is: a crash would have us follow
    // the former primary again, who may cut them off.
    const isKnown = core.durableEpoch >= core.config!.reign || mutated("own-reign-not-durable");
    if (!isKnown) return;
    let commitLsn = mutated("own-fsync-not-counted") ? core.log.lastLsn : core.durableLsn;
    for (const { node } of this.#membership.neededForCommit()) {
      const matchLsn = this.#peers.get(node)?.matchLsn ?? toLsn(0);
      if (matchLsn < commitLsn) commitLsn = matchLsn;
    }
    if (commitLsn <= core.commitLsn) return;
    this.#usedMs = core.nowMs;
    core.commitTo(commitLsn, (entry, outcome) => this.#writes.onApplied(entry, outcome));
    let neededLsn: number = core.state.appliedLsn;
    for (const peer of this.#peers.values()) {
      if (this.#membership.isMember(peer)) neededLsn = Math.min(neededLsn, peer.matchLsn);
    }
    core.trimLog(neededLsn);
    // Applying makes room, and nothing else is sent there that would tell.
    this.#tellCommits((peer) => peer.isFull);
  }

  // -------------------------------------------------------------------------------- reads

  onRead(readId: number, span: RowSpan): void {
    const core = this.#core;
    if (this.#membership.hasRelinquished) {
      core.refuseRead(readId, "not_primary", `The primary of group ${core.gid} is handing over`);
    } else if (this.canReadAt(core.nowMs)) {
      core.effects.push({ kind: "readable", readId });
    } else if (this.#reads.size >= WAITING_READS_MAX) {
      core.refuseRead(readId, "busy", `Group ${core.gid} has ${WAITING_READS_MAX} reads waiting`);
    } else {
      this.#usedMs = core.nowMs;
      this.#reads.add({ readId, span, beat: this.#beat, sinceMs: core.nowMs });
      this.#releaseReads();
      this.#maybeCheckRecord();
    }
  }

  #releaseReads(): void {
    if (this.#reads.size === 0) return;
    const { nowMs } = this.#core;
    if (this.canReadAt(nowMs)) return this.#answerReads(this.#reads.takeAll());
    const confirmed = this.#confirmedBeat() + (mutated("round-before-read") ? 1 : 0);
    this.#answerReads(this.#reads.take((read) => read.beat < confirmed));
    const expired = this.#reads.take((read) => read.sinceMs <= nowMs - WAITING_READ_MS);
    this.#failReads(expired, "unavailable", "cannot tell whether it still has only one primary");
  }

  /** The last heartbeat that everybody electable has answered; 0 while nothing may be read anyway. */
  #confirmedBeat(): number {
    if (!this.canServe()) return 0;
    let beat = Infinity;
    for (const node of this.#membership.electable()) {
      beat = Math.min(beat, this.#peers.get(node)?.answeredBeat ?? 0);
    }
    return beat;
  }

  /** Somebody whose word is needed is out of reach: ask whether the record still names this epoch. */
  #maybeCheckRecord(): void {
    const core = this.#core;
    if (this.#membership.hasRelinquished || this.#reads.size === 0) return;
    const stillNeeded = core.nowMs - this.#recordHelpedMs < RECORD_HELPS_MS;
    if (!stillNeeded && core.nowMs - this.#reads.oldestMs < RECORD_CHECK_AFTER_MS) return;
    const check = { checkId: core.nextId(), askedMs: core.nowMs };
    if (!this.#reads.beginCheck(check, RECORD_CHECK_PATIENCE_MS)) return;
    core.effects.push({ kind: "checkRecord", checkId: check.checkId });
  }

  onRecordChecked(checkId: number, config: GroupConfig | null): void {
    const asked = this.#reads.endCheck(checkId);
    if (this.#membership.hasRelinquished) return;
    if (config?.epoch !== this.#core.epoch && !mutated("record-not-asked")) return;
    // Whatever is committed is in our log, and nobody else commits while the record names us. Only
    // entries behind the known commit may or may not be among it.
    const decided = this.canServe() || mutated("limbo-ignored");
    const limbo = decided ? [] : this.#undecidedRows();
    const moving = decided || mutated("limbo-ignores-moves") ? [] : this.#undecidedMoves();
    const answered = this.#reads.take((read) =>
      asked.has(read.readId) && rowWithin(read.span, limbo) === null &&
      !moving.some((range) => spansOverlap(read.span, range))
    );
    if (answered.length > 0) this.#recordHelpedMs = this.#core.nowMs;
    this.#answerReads(answered);
  }

  #undecidedRows(): Set<string> {
    const { log, commitLsn } = this.#core, rows = new Set<string>();
    for (let at = commitLsn + 1; at <= log.lastLsn; at++) {
      const entry = log.at(toLsn(at));
      invariant(entry !== undefined, "A6", () => `undecided entry ${at} left memory`);
      const { command } = entry;
      for (const { row } of rowOpsOf(command)) rows.add(row);
      if (command.kind !== "settle") continue;
      rows.add(command.txn.anchor);
      for (const row of this.#core.state.locks.rowsOf(command.txn.id)) rows.add(row);
    }
    return rows;
  }

  /** Rows that may be frozen or another group's by now. */
  #undecidedMoves(): RowSpan[] {
    const { log, commitLsn } = this.#core, spans: RowSpan[] = [];
    for (let at = commitLsn + 1; at <= log.lastLsn; at++) {
      const command = log.at(toLsn(at))?.command;
      if (command?.kind !== "move") continue;
      const { step } = command;
      if (step.kind !== "freeze" && step.kind !== "drop") continue;
      spans.push({ from: step.startKey, until: step.endKey });
    }
    return spans;
  }

  #answerReads(reads: readonly WaitingRead[]): void {
    for (const { readId } of reads) this.#core.effects.push({ kind: "readable", readId });
  }

  #failReads(reads: readonly WaitingRead[], code: RefusalCode, why: string): void {
    const message = `Cannot read: group ${this.#core.gid} ${why}`;
    for (const { readId } of reads) this.#core.refuseRead(readId, code, message);
  }

  // -------------------------------------------------------------------------- replication

  /** Sends what has gathered, and hands it to our own log once somebody else was sent it. */
  flush(): void {
    for (const peer of this.#peers.values()) this.#replicate(peer);
    if (!this.#isGathering()) this.#core.flush();
    // One round at a time serves all reads that came in before it was sent, and renews the leases.
    if (!this.#reads.wantsBeat(this.#beat)) return;
    if (this.#confirmedBeat() >= this.#beat) this.#heartbeat();
  }

  /**
   * While a member has an append to answer, a few more entries wait for its answer and go together: each
   * append costs every replica a message, a write and a sync, whatever it holds. What they wait for
   * would have to come before their own answer anyway.
   */
  #mayWait(peer: PeerProgress): boolean {
    const { log } = this.#core;
    return peer.hasInFlight && log.lastLsn - peer.nextLsn + 1 < GATHERED_ENTRIES_MAX &&
      log.bytesFrom(peer.nextLsn) < GATHERED_BYTES_MAX;
  }

  /** Nobody was sent the last entry yet, so that it cannot be committed sooner if we write it now. */
  #isGathering(): boolean {
    const { lastLsn } = this.#core.log;
    let isGathering = false;
    for (const peer of this.#peers.values()) {
      if (!this.#membership.isMember(peer)) continue;
      // Who is full may not ask for more for a while: what is on our own disk by then has not to wait.
      if (peer.nextLsn > lastLsn || !peer.hasInFlight || peer.isFull) return false;
      isGathering = true;
    }
    return isGathering && this.#core.writesMayWait;
  }

  #replicate(peer: PeerProgress): void {
    const { log, nowMs, effects } = this.#core;
    while (peer.canSend) {
      const empty = peer.nextLsn > log.lastLsn;
      if (empty && (peer.hasInFlight || peer.isMatched)) {
        if (!peer.hasInFlight) peer.progressMs = nowMs;
        return;
      }
      if (this.#mayWait(peer)) return;
      const entries = log.from(peer.nextLsn, {
        entriesMax: APPEND_ENTRIES_MAX,
        bytesMax: this.#core.memory.appendBytes,
      });
      if (entries === null) {
        peer.readingLog = true;
        effects.push({ kind: "readLog", node: peer.member.node, fromLsn: peer.nextLsn });
        return;
      }
      this.#sendAppend(peer, entries);
      if (entries.length === 0) return;
    }
  }

  #sendAppend(peer: PeerProgress, entries: readonly LogEntry[]): void {
    const core = this.#core;
    const prevLsn = toLsn(peer.nextLsn - 1);
    const sizes: number[] = [], epochs: Append["epochs"] = [];
    let bytes = 0;
    for (const entry of entries) {
      bytes += entry.bytes;
      sizes.push(entry.payload.length);
      const last = epochs.at(-1);
      if (last?.epoch === entry.epoch) last.count += 1;
      else epochs.push({ epoch: entry.epoch, count: 1 });
    }
    core.send(peer.member.node, {
      kind: "append",
      ...core.head(peer.inc),
      ...(peer.hasConfig ? {} : { config: core.config! }),
      round: peer.round,
      prevEpoch: core.log.epochAt(prevLsn) ?? toEpoch(0),
      prevLsn,
      sizes,
      epochs,
      commitLsn: core.commitLsn,
    }, entries);
    peer.toldCommitLsn = core.commitLsn;
    peer.sent(toLsn(prevLsn + entries.length), bytes);
  }

  onLogRead(node: NodeId, fromLsn: Lsn, entries: readonly LogEntry[] | null): void {
    const peer = this.#peers.get(node);
    if (peer === undefined || !peer.readingLog) return;
    peer.readingLog = false;
    if (peer.nextLsn !== fromLsn) return this.#replicate(peer);
    if (entries === null || entries.length === 0) return this.#offerSnapshot(peer);
    // The read may have seen a tail that was cut off since; the log in memory knows better.
    const { log } = this.#core;
    const sound = entries.every((entry) => log.epochAt(entry.lsn) === entry.epoch);
    if (sound) this.#sendAppend(peer, entries);
  }

  #offerSnapshot(peer: PeerProgress): void {
    const core = this.#core, { round } = peer;
    peer.snapshotOffered = true;
    peer.progressMs = core.nowMs;
    core.send(peer.member.node, { kind: "snapshotOffer", ...core.head(peer.inc), round });
  }

  onSnapshotSent(node: NodeId): void {
    const peer = this.#peers.get(node);
    if (peer !== undefined) peer.progressMs = this.#core.nowMs;
  }

  /** A group that nobody uses keeps its leases with fewer heartbeats. */
  #heartbeatEveryMs(): number {
    const { nowMs, timing } = this.#core;
    if (nowMs - this.#usedMs <= IDLE_AFTER_MS) return timing.heartbeatMs;
    // Ticks come now a little sooner and now a little later; one that came soon is not to be missed.
    return Math.max(timing.heartbeatMs, idleHeartbeatMs(timing) * 0.8);
  }

  #heartbeat(): void {
    this.#heartbeatMs = this.#core.nowMs;
    this.#beat += 1;
    for (const peer of this.#peers.values()) this.#sendHeartbeat(peer);
  }

  /** What a follower does not know to be committed, nobody can read there should we be gone. */
  #tellCommits(isMeant: (peer: PeerProgress) => boolean = () => true): void {
    const { commitLsn } = this.#core;
    for (const peer of this.#peers.values()) {
      if (!isMeant(peer) || peer.toldCommitLsn >= commitLsn || peer.matchLsn < commitLsn) continue;
      this.#sendHeartbeat(peer);
    }
  }

  #sendHeartbeat(peer: PeerProgress): void {
    const core = this.#core;
    peer.toldCommitLsn = core.commitLsn;
    const certain = this.holdsLeasesAt(core.nowMs) || mutated("echo-without-lease");
    core.send(peer.member.node, {
      kind: "heartbeat",
      ...core.head(peer.inc),
      ...(peer.hasConfig ? {} : { config: core.config! }),
      sentMs: core.nowMs,
      beat: this.#beat,
      commitLsn: core.commitLsn,
      echoMs: certain ? peer.stampMs : null,
      check: core.lastCheck,
    });
  }

  // ------------------------------------------------------------------------------ answers

  onAnswer(message: AppendAck | AppendNack | HeartbeatAck): void {
    const core = this.#core, peer = this.#peers.get(message.from);
    if (peer === undefined) return;
    if (!mutated("store-not-checked")) {
      if (peer.member.store !== message.store || peer.inc !== message.inc) return;
    }
    // An answer sent before we were elected says nothing about this reign.
    if (message.reign !== core.config!.reign && !mutated("reign-not-checked")) return;
    peer.heardMs = core.nowMs;
    if (message.epoch === core.epoch) peer.hasConfig = true;
    switch (message.kind) {
      case "heartbeatAck": {
        const fromMs = mutated("lease-from-receipt") ? core.nowMs : message.sentMs;
        const untilMs = fromMs + core.timing.leaseMs;
        if (untilMs > peer.leaseUntilMs) peer.leaseUntilMs = untilMs;
        peer.answeredBeat = Math.max(peer.answeredBeat, message.beat);
        peer.stampMs = Math.max(peer.stampMs ?? -Infinity, message.stampMs);
        if (message.hanging === true) this.#membership.onHanging(peer);
        this.#replicate(peer);
        // Ticks of a calm group come when its members have been silent for a while: too late to look.
        this.#membership.maybeAdd(peer);
        return this.#releaseReads();
      }
      case "appendAck":
        peer.raiseMatch(message.matchLsn, core.nowMs);
        peer.setFull(message.full === peer.round);
        this.#replicate(peer);
        this.#membership.maybeAdd(peer);
        return this.advanceCommit();
      case "appendNack":
        return this.#onNack(peer, message);
    }
  }

  #onNack(peer: PeerProgress, message: AppendNack): void {
    // One gap makes the follower refuse all that was under way; starting over once is enough.
    if (message.round !== peer.round) return;
    const { baseLsn, lastLsn, history } = this.#core.log;
    const common = commonPosition({ baseLsn, lastLsn, history }, message);
    const isMember = this.#membership.isMember(peer);
    if (common !== null && common < peer.matchLsn) {
      // Either an old answer that was overtaken, or a disk that lost what it had acknowledged. To
      // count on less is safe in both cases; a member that really forgot has to go.
      peer.forgot = isMember && message.lastLsn < peer.matchLsn;
      peer.lowerMatch(common);
    }
    // Below its checkpoint a replica cannot be cut back; it has to start from a new one.
    if (common === null || (common < message.baseLsn && !isMember)) {
      return this.#offerSnapshot(peer);
    }
    peer.snapshotOffered = false;
    peer.resendFrom(toLsn(common + 1));
    this.#replicate(peer);
  }

  onBehind(message: Behind): void {
    const core = this.#core, peer = this.#peers.get(message.from);
    if (peer === undefined || peer.member.store !== message.store) return;
    if (message.epoch > core.epoch) {
      // It heard of a change of ours before we did, and threw away what we sent.
      peer.threwAway = true;
      return;
    }
    peer.heardMs = core.nowMs;
    peer.hasConfig = peer.hasConfig && message.epoch === core.epoch;
    if (peer.inc !== message.inc) this.#meetIncarnation(peer, message.inc);
    // It threw away what it was sent in another epoch than its own, be it that we have caught up
    // with it since or that it still has to follow.
    else if (message.round === peer.round) this.#restart(peer);
    else if (message.epoch < core.epoch) this.#sendHeartbeat(peer);
    this.#replicate(peer);
  }

  // -------------------------------------------------------------------------------- peers

  /**
   * Whom to send to, by node. A node's new store must not be taken for the one that is in sync: that
   * one has to leave first. Who is merely eligible makes room at once, for it may never come back.
   */
  #wantedPeers(): Map<NodeId, Member> {
    const { eligible, inSync } = this.#core.config!;
    const members = [...eligible, ...this.#learners, ...inSync];
    return new Map(members.map((member) => [member.node, member]));
  }

  #forgetOthers(wanted: ReadonlyMap<NodeId, Member>): void {
    for (const [node, peer] of this.#peers) {
      if (wanted.get(node)?.store !== peer.member.store) this.#peers.delete(node);
    }
  }

  #addPeer(member: Member): void {
    const core = this.#core;
    if (member.node === core.self.node) return;
    if (this.#peers.get(member.node)?.member.store === member.store) return;
    const peer = new PeerProgress(member, { nextLsn: this.#firstGuess(), nowMs: core.nowMs });
    this.#peers.set(member.node, peer);
    this.#sendHeartbeat(peer);
  }

  #meetIncarnation(peer: PeerProgress, inc: Incarnation): void {
    const first = peer.inc === 0;
    peer.inc = inc;
    peer.stampMs = null;
    peer.isMatched = false;
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

  /**
   * A replica in good order lacks just what this reign added. Once that has left memory, an append
   * without entries makes it say where it stands, before the log is read or a checkpoint offered.
   */
  #firstGuess(): Lsn {
    const { log } = this.#core;
    const guess = toLsn(Math.max(1, Math.min(this.#epochStartLsn, log.lastLsn)));
    return log.at(guess) !== undefined ? guess : toLsn(log.lastLsn + 1);
  }

  #watchPeers(): void {
    const { nowMs, timing: { ackTimeoutMs } } = this.#core;
    for (const peer of this.#peers.values()) {
      const silentMs = nowMs - peer.heardMs, stalledMs = nowMs - peer.progressMs;
      if (peer.snapshotOffered && stalledMs > SNAPSHOT_PATIENCE_MS) peer.snapshotOffered = false;
      const unansweredMs = nowMs - Math.max(peer.progressMs, peer.restartedMs);
      if (peer.hasInFlight && (silentMs > ackTimeoutMs || unansweredMs > ackTimeoutMs)) {
        // What was sent may be lost with a connection; start over.
        if (silentMs > ackTimeoutMs) peer.inc = incarnation(0);
        peer.hasConfig = false;
        peer.restartedMs = nowMs;
        if (mutated("lost-append-not-resent")) continue;
        this.#restart(peer);
        this.#replicate(peer);
      }
      this.#membership.noteLag(peer);
      this.#membership.maybeRemove(peer);
    }
  }
}
