/**
 * A primary's say about who belongs to its group: it asks the coordinator to take out members that are
 * gone, to put in replicas that have caught up, and to hand its own office over.
 *
 * One proposal at a time. While the coordinator's answer is unknown the primary keeps to the stricter
 * of both worlds: commits wait for a member-to-be, and leases are needed from it; and one that offered
 * to leave neither reads nor commits.
 */
import { type Epoch, type Lsn, lsn as toLsn, type NodeId } from "../proto/ids.ts";
import type { ConfigChange, GroupConfig, Member } from "../proto/replication.ts";
import { mutated } from "./mutant.ts";
import type { PeerProgress } from "./peer_progress.ts";
import type { ReplicaCore } from "./replica_core.ts";

/** A learner this close to the end of the log is added. */
const NEARLY_CAUGHT_UP = 64;
const PROPOSE_EVERY_MS = 500;
/** A member that answers heartbeats but whose disk makes no progress for this many ack timeouts. */
const STALL_FACTOR = 4;
/** A disk that hung may hang again; commits should not wait for it each time, nor it come and go. */
const AFTER_HANGING_MS = 10_000;
/** Half of what may be under way in a group: a member that far behind is what writes wait for. */
const LAG_BYTES_MAX = 16 * 1024 * 1024;
const LAG_MS = 5_000;
/** Who lagged is given time to catch up for good. */
const AFTER_LAGGING_MS = 15_000;
const HAND_OVER_PATIENCE_MS = 2_000;

interface Proposal {
  readonly changeId: string;
  readonly change: ConfigChange;
  readonly epoch: Epoch;
  askedMs: number;
}

export interface MembershipOptions {
  readonly core: ReplicaCore;
  readonly peers: ReadonlyMap<NodeId, PeerProgress>;
  readonly epochStartLsn: number;
  readonly makeId: () => string;
  /** Commits no longer wait for somebody. */
  readonly onLoosened: () => void;
}

export class Membership {
  readonly #core: ReplicaCore;
  readonly #peers: ReadonlyMap<NodeId, PeerProgress>;
  readonly #epochStartLsn: number;
  readonly #makeId: () => string;
  readonly #onLoosened: () => void;
  #proposal: Proposal | null = null;
  #pendingAdd: Member | null = null;
  #handOverTo: Member | null = null;
  #handOverUntilMs = -Infinity;
  #relinquished = false;
  /** When a node last said that its disk hangs, member or not. */
  readonly #diskHungMs = new Map<NodeId, number>();
  /** When it was last asked to take a node out because it lags. */
  readonly #laggedMs = new Map<NodeId, number>();

  constructor(options: MembershipOptions) {
    this.#core = options.core;
    this.#peers = options.peers;
    this.#epochStartLsn = options.epochStartLsn;
    this.#makeId = options.makeId;
    this.#onLoosened = options.onLoosened;
  }

  /** Asked for and not known to be refused: it may be a member already. */
  get pendingAdd(): Member | null {
    return this.#pendingAdd;
  }

  get proposed(): ConfigChange | null {
    return this.#proposal?.change ?? null;
  }

  /** On the way out: takes nothing new. */
  get isHandingOver(): boolean {
    return this.#handOverTo !== null || this.#relinquished;
  }

  /** Offered the office to somebody: no reads and no commits any more. */
  get hasRelinquished(): boolean {
    return this.#relinquished;
  }

  /** Something was asked for, or is about to be, and is not settled. */
  get isUnsettled(): boolean {
    return this.#proposal !== null || this.#pendingAdd !== null || this.isHandingOver;
  }

  isMember(peer: PeerProgress): boolean {
    return this.#core.config!.inSync.some((member) => member.node === peer.member.node);
  }

  // ---------------------------------------------------------------------------- proposals

  #propose(change: ConfigChange): void {
    if (this.#proposal !== null) return;
    const { epoch, nowMs } = this.#core, changeId = this.#makeId();
    this.#proposal = { changeId, change, epoch, askedMs: nowMs };
    this.#core.effects.push({ kind: "propose", epoch, changeId, change });
  }

  repeatProposal(): void {
    const proposal = this.#proposal, { nowMs } = this.#core;
    if (proposal === null || nowMs - proposal.askedMs < PROPOSE_EVERY_MS) return;
    proposal.askedMs = nowMs;
    const { epoch, changeId, change } = proposal;
    this.#core.effects.push({ kind: "propose", epoch, changeId, change });
  }

  /**
   * Another copy of a refused proposal may still be under way, and be granted as long as the record
   * is at the epoch in which we asked. Once that is over, `onAdopted` counts it as refused. A removal
   * may happen late without harm: nothing was built on its being refused.
   */
  onProposed(changeId: string, result: "done" | "refused"): void {
    const proposal = this.#proposal;
    if (proposal?.changeId !== changeId) return;
    const forgets = mutated("unknown-change-is-refused");
    if (result === "refused" && proposal.change.kind !== "remove" && !forgets) return;
    this.#proposal = null;
    if (forgets) this.#pendingAdd = null;
    this.#onLoosened();
  }

  /** A newer configuration of our own reign. */
  onAdopted({ inSync, epoch }: GroupConfig): void {
    for (const peer of this.#peers.values()) if (!this.isMember(peer)) peer.forgot = false;
    const added = this.#pendingAdd;
    if (added !== null && inSync.some((member) => member.node === added.node)) {
      this.#pendingAdd = null;
    }
    if (this.#proposal !== null && this.#proposal.epoch < epoch) this.#proposal = null;
    // A change of ours that lost against this configuration can no longer happen.
    if (this.#proposal === null) {
      this.#pendingAdd = null;
      if (this.#relinquished) this.#handOverTo = null;
      this.#relinquished = false;
    }
    this.maybeStay();
  }

  // -------------------------------------------------------------------------- who is gone

  /** It says that its disk hangs. */
  onHanging(peer: PeerProgress): void {
    this.#diskHungMs.set(peer.member.node, this.#core.nowMs);
    this.maybeRemove(peer);
  }

  #hungAgoMs({ member: { node } }: PeerProgress): number {
    return this.#core.nowMs - (this.#diskHungMs.get(node) ?? -Infinity);
  }

  /** Takes out a member that is silent, stuck, or has forgotten what it had acknowledged. */
  maybeRemove(peer: PeerProgress): void {
    const { nowMs, timing: { ackTimeoutMs, graceMs } } = this.#core;
    const { inSync, minInSync } = this.#core.config!;
    const silentMs = nowMs - peer.heardMs, stalledMs = nowMs - peer.progressMs;
    if (!this.isMember(peer)) {
      // Commits wait for a member-to-be as well.
      const gone = silentMs > ackTimeoutMs || stalledMs > ackTimeoutMs * STALL_FACTOR;
      if (gone && this.#pendingAdd?.node === peer.member.node && this.#proposal === null) {
        this.#pendingAdd = null;
        this.#onLoosened();
      }
      return;
    }
    // A removal that leaves too few to write waits until a majority would have spoken up.
    const patient = inSync.length - 1 < minInSync && peer.heardMs !== -Infinity;
    const limitMs = patient ? Math.max(ackTimeoutMs, graceMs) : ackTimeoutMs;
    const stalled = peer.hasInFlight && stalledMs > ackTimeoutMs * STALL_FACTOR;
    // What it says of its own disk is surer than our impatience; but without it nothing could commit.
    const hangs = !patient && peer.hasInFlight && this.#hungAgoMs(peer) < ackTimeoutMs;
    const lags = !patient && nowMs - (peer.laggingSinceMs ?? nowMs) > LAG_MS;
    if (lags) this.#laggedMs.set(peer.member.node, nowMs);
    if (silentMs > limitMs || stalled || hangs || lags || peer.forgot) {
      this.#propose({ kind: "remove", member: peer.member });
    }
  }

  /**
   * Looks whether commits wait for this member alone, and for much. It may make progress all the time
   * and yet hold everybody up; as a learner it gets the same entries, and nobody waits for it.
   */
  noteLag(peer: PeerProgress): void {
    const { log, nowMs, durableLsn, memory: { lagBytes } } = this.#core;
    if (!this.isMember(peer) || peer.matchLsn >= durableLsn) {
      peer.laggingSinceMs = null;
      return;
    }
    const lag = log.sizeFrom(toLsn(peer.matchLsn + 1));
    const share = Math.max(lag.logBytes / lagBytes, lag.bytes / LAG_BYTES_MAX);
    // What comes and goes around the limit is over it, until it is well below.
    const limit = peer.laggingSinceMs === null ? 1 : 0.5;
    const isFar = share > limit && this.#others(peer).every((lsn) => {
      const other = log.sizeFrom(toLsn(lsn + 1));
      return other.logBytes * 2 <= lag.logBytes && other.bytes * 2 <= lag.bytes;
    });
    peer.laggingSinceMs = isFar ? peer.laggingSinceMs ?? nowMs : null;
  }

  /** How far all others' disks are whom commits wait for. */
  #others(peer: PeerProgress): Lsn[] {
    const others = this.neededForCommit().filter(({ node }) => node !== peer.member.node);
    const matches = others.map(({ node }) => this.#peers.get(node)?.matchLsn ?? toLsn(0));
    return [this.#core.durableLsn, ...matches];
  }

  // ------------------------------------------------------------------------- who comes in

  maybeAdd(peer: PeerProgress): void {
    const core = this.#core, config = core.config!;
    if (this.#pendingAdd !== null || this.#proposal !== null || this.isMember(peer)) return;
    if (this.#handOverTo !== null || peer.forgot) return;
    // Who is silent or stuck would be taken out again at once, and put in again, without end.
    const { ackTimeoutMs } = core.timing;
    if (core.nowMs - peer.heardMs > ackTimeoutMs) return;
    const behind = peer.matchLsn < core.log.lastLsn;
    if (behind && core.nowMs - peer.progressMs > ackTimeoutMs) return;
    if (core.nowMs < core.promisedUntilMs(config)) return;
    const below = config.inSync.length < config.minInSync;
    if (!below && this.#hungAgoMs(peer) < AFTER_HANGING_MS) return;
    const laggedMs = this.#laggedMs.get(peer.member.node) ?? -Infinity;
    if (!below && core.nowMs - laggedMs < AFTER_LAGGING_MS) return;
    const startDone = below || core.commitLsn >= this.#epochStartLsn;
    if (!startDone || peer.matchLsn < this.#epochStartLsn) return;
    if (peer.matchLsn + NEARLY_CAUGHT_UP < core.log.lastLsn) return;
    // From here on commits wait for it, and its lease is needed: it might become electable.
    this.#pendingAdd = peer.member;
    this.maybeProposeAdd();
  }

  maybeProposeAdd(): void {
    const member = this.#pendingAdd;
    if (member === null || this.#proposal !== null) return;
    const peer = this.#peers.get(member.node);
    if (peer === undefined || peer.member.store !== member.store) {
      this.#pendingAdd = null;
      return;
    }
    if (peer.matchLsn >= this.#core.commitLsn && peer.matchLsn >= this.#epochStartLsn) {
      this.#propose({ kind: "add", member });
    }
  }

  // ---------------------------------------------------------------------------- handover

  onHandOver(to: NodeId | null): void {
    if (this.#handOverTo !== null || this.#proposal !== null) return;
    const core = this.#core;
    const others = core.config!.inSync.filter((member) => member.node !== core.self.node);
    const target = others.find((member) => member.node === to) ?? (to === null ? others[0] : null);
    if (target == null) return;
    this.#handOverTo = target;
    this.#handOverUntilMs = core.nowMs + HAND_OVER_PATIENCE_MS;
    this.maybeRelinquish();
  }

  /**
   * Our own disk hangs, so nothing can be committed here. Any member in sync may lead, for it has all
   * that was; the one with the longest log leaves the fewest requests in doubt.
   */
  stepAside(): void {
    if (this.#relinquished || this.#proposal !== null) return;
    const core = this.#core, { ackTimeoutMs } = core.timing;
    let best: PeerProgress | null = null;
    for (const peer of this.#peers.values()) {
      if (!this.isMember(peer) || core.nowMs - peer.heardMs > ackTimeoutMs) continue;
      if (best === null || peer.matchLsn > best.matchLsn) best = peer;
    }
    if (best === null) return;
    this.#handOverTo = best.member;
    this.#relinquished = true;
    this.#propose({ kind: "relinquish", to: best.member });
  }

  /** A successor that falls behind or away must not keep the group from taking requests. */
  maybeStay(): void {
    const target = this.#handOverTo;
    if (target === null || this.#relinquished) return;
    const ready = this.#core.config!.inSync.some((member) => member.node === target.node);
    if (!ready || this.#core.nowMs > this.#handOverUntilMs) this.#handOverTo = null;
  }

  /** Once the successor holds everything, promise to read and commit no more, and say so. */
  maybeRelinquish(): void {
    const target = this.#handOverTo, { commitLsn, log } = this.#core;
    if (target === null || this.#relinquished || this.#proposal !== null) return;
    const matchLsn = this.#peers.get(target.node)?.matchLsn ?? 0;
    if (commitLsn < log.lastLsn || matchLsn < log.lastLsn) return;
    this.#relinquished = true;
    this.#propose({ kind: "relinquish", to: target });
  }

  // ------------------------------------------------------------------------------- counts

  /** Everybody whose disk a commit needs, besides our own. */
  neededForCommit(): Member[] {
    const core = this.#core, { inSync } = core.config!;
    const added = this.#pendingAdd;
    const all = added === null || mutated("add-not-counted") ? inSync : [...inSync, added];
    const change = this.#proposal?.change;
    return all.filter(({ node }) =>
      node !== core.self.node &&
      !(mutated("unknown-change-is-done") && change?.kind === "remove" &&
        change.member.node === node)
    );
  }

  /** Everybody whom the coordinator could elect in our place, by node: whose lease a read needs. */
  electable(): Set<NodeId> {
    const { inSync, eligible } = this.#core.config!;
    const nodes = new Set<NodeId>();
    if (mutated("no-lease")) return nodes;
    for (const member of inSync) nodes.add(member.node);
    for (const member of mutated("lease-without-eligible") ? [] : eligible) nodes.add(member.node);
    const added = mutated("lease-without-pending-add") ? null : this.#pendingAdd;
    if (added !== null) nodes.add(added.node);
    nodes.delete(this.#core.self.node);
    return nodes;
  }
}
