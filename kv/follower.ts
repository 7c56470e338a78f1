/**
 * A replica that follows: takes entries over from the primary, acknowledges what is on its disk,
 * promises not to act, and says when the primary has fallen silent.
 *
 * An ack or a promise leaves only once the epoch that it is given in, and the entries that it covers,
 * are on disk (A3). Entries are taken only where they fit to what is there (log matching); what does
 * not fit any more is cut off, never below what is known to be committed (A4).
 *
 * Who has too little memory is given only the beginning of an append. Its ack says so, for the primary to
 * wait; as soon as there is room it asks for the rest, and nobody has to find out by waiting.
 */
import { type Incarnation, type Lsn, lsn as toLsn, type NodeId } from "../proto/ids.ts";
import type {
  Append,
  EpochHistory,
  GroupConfig,
  Heartbeat,
  HeartbeatAck,
  SnapshotOffer,
} from "../proto/replication.ts";
import type { GroupState } from "./group_state.ts";
import { invariant } from "./invariant.ts";
import { mutated } from "./mutant.ts";
import type { HashCheck, ReplicaCore } from "./replica_core.ts";
import type { LogEntry } from "./replica_log.ts";
import { oddSilenceMs } from "./replica_types.ts";

const SUSPECT_EVERY_MS = 500;
const FRESHNESS_KEPT = 16;
/** Whoever watches our disk says several times within this that it still hangs. */
const HANGING_FOR_MS = 700;

export class Follower {
  readonly #core: ReplicaCore;
  /** Our log equals the primary's up to here; reset when the reign changes. */
  #verifiedLsn = toLsn(0);
  #primaryCommitLsn = toLsn(0);
  #heardPrimaryMs: number;
  #suspectedMs = -Infinity;
  /** That of the primary's last append or offer. */
  #round = 0;
  /** An append waits for its ack until our disk has it. */
  #ackDue = false;
  /** Of what was sent in this round something was left out for want of memory, and not asked for yet. */
  #isFull = false;
  /** A promise waits until the epoch that it is given in is on our disk. */
  #heldPromise: HeartbeatAck | null = null;
  #fetchingSnapshot = false;
  /** When we were last told that our own disk hangs. */
  #diskHungMs = -Infinity;
  /** Our state, once it reaches `lsn`, has whatever was acknowledged before `atMs` on our clock. */
  #freshness: { lsn: Lsn; atMs: number }[] = [];
  #freshMs = -Infinity;

  constructor(core: ReplicaCore) {
    this.#core = core;
    this.#heardPrimaryMs = core.nowMs;
  }

  /**
   * Whether our log was found, in this life, to be the primary's up to an entry of its own reign, so
   * that nothing that was committed before is missing, and to hold what it has committed since.
   */
  get isConfirmed(): boolean {
    const { config, durableLsn, log } = this.#core;
    const knownLsn = toLsn(Math.min(this.#verifiedLsn, durableLsn));
    return config !== null && knownLsn > 0 && knownLsn >= this.#primaryCommitLsn &&
      (log.epochAt(knownLsn) ?? 0) >= config.reign;
  }

  /** See `Replica.isCalm`. All that a tick makes a follower do is to suspect a silent primary. */
  get isCalm(): boolean {
    return this.#core.role !== "secondary" || this.silentMs < oddSilenceMs(this.#core.timing);
  }

  /** How long ago the primary was heard. */
  get silentMs(): number {
    return this.#core.nowMs - this.#heardPrimaryMs;
  }

  /**
   * How old the applied state may be: whatever was acknowledged longer ago is in it. No clocks are
   * compared: our own stamp travels to the primary and back. Milliseconds; Infinity when not known.
   */
  stalenessAt(nowMs: number): number {
    this.#noteFreshness();
    return nowMs - this.#freshMs;
  }

  /** A newer configuration was adopted, of the same reign or of another. */
  onAdopted({ sameReign }: { sameReign: boolean }): void {
    this.#heldPromise = null;
    this.#heardPrimaryMs = this.#core.nowMs;
    // Within a reign what was appended still waits for its ack; the primary may send nothing more.
    if (sameReign) return;
    this.#ackDue = false;
    this.#isFull = false;
    this.#verifiedLsn = toLsn(0);
    this.#primaryCommitLsn = toLsn(0);
  }

  /** Said again as long as it lasts. */
  diskHangs(): void {
    this.#diskHungMs = this.#core.nowMs;
  }

  heardPrimary(): void {
    this.#heardPrimaryMs = this.#core.nowMs;
  }

  // ---------------------------------------------------------------------------- entries

  onAppend(message: Append, entries: readonly LogEntry[]): void {
    const core = this.#core, { log } = core, { prevLsn } = message;
    this.#round = message.round;
    const fits = mutated("match-without-epoch")
      ? prevLsn <= log.lastLsn
      : log.epochAt(prevLsn) === message.prevEpoch;
    // What follows entries that were left out will be asked for together with them.
    if (this.#isFull && prevLsn > log.lastLsn) return this.#learnCommit(message.commitLsn);
    if (!fits || this.#fetchingSnapshot) return this.#sendNack(message.from, message.inc);
    this.#isFull = entries.length < message.sizes.length;
    for (const entry of entries) {
      const mine = log.epochAt(entry.lsn);
      if (mine === entry.epoch || mine !== null && mutated("match-without-epoch")) continue;
      if (mine !== null) this.#truncateAfter(toLsn(entry.lsn - 1), "the primary has other entries");
      core.append(entry);
    }
    const { length } = mutated("left-out-entries-verified") ? message.sizes : entries;
    const lastLsn = toLsn(prevLsn + length);
    if (lastLsn > this.#verifiedLsn) this.#verifiedLsn = lastLsn;
    this.#learnCommit(message.commitLsn);
    this.#ackDue = true;
    // With nothing to write the answer can go at once; otherwise `onWritten` releases it.
    if (core.durableLsn >= this.#verifiedLsn || mutated("ack-before-fsync")) this.#answer();
  }

  /** Only now do the acks leave that said "on my disk", or "I adopted this epoch" (A3). */
  onWritten(): void {
    this.#answer();
    this.applyCommitted();
  }

  #answer(): void {
    const core = this.#core;
    if (core.config === null) return;
    if (core.durableEpoch < core.epoch && !mutated("epoch-not-durable-before-answer")) return;
    this.#releasePromise();
    if (!this.#ackDue) return;
    const { node, inc } = core.config.primary;
    const safeLsn = mutated("ack-before-fsync") ? core.log.lastLsn : core.durableLsn;
    const matchLsn = toLsn(Math.min(this.#verifiedLsn, safeLsn));
    this.#ackDue = matchLsn < this.#verifiedLsn;
    const full = this.#isFull ? { full: this.#round } : {};
    core.send(node, { kind: "appendAck", ...core.head(inc), matchLsn, ...full });
  }

  /** There is memory for what was left out. */
  onRoom(): void {
    const { config } = this.#core;
    if (!this.#isFull || config === null || mutated("room-not-told")) return;
    this.#isFull = false;
    this.#askForMore(config);
  }

  #truncateAfter(lsn: Lsn, reason: string): void {
    this.#core.truncateAfter(lsn, reason);
    if (this.#verifiedLsn > lsn) this.#verifiedLsn = lsn;
  }

  #sendNack(to: NodeId, toInc: Incarnation): void {
    const core = this.#core, { lastLsn, baseLsn, history } = core.log;
    const positions = { round: this.#round, lastLsn, baseLsn, history };
    core.send(to, { kind: "appendNack", ...core.head(toInc), ...positions });
  }

  #learnCommit(commitLsn: Lsn): void {
    if (commitLsn > this.#primaryCommitLsn) this.#primaryCommitLsn = commitLsn;
    this.applyCommitted();
  }

  /** What the primary committed, as far as our log is known to equal its log. */
  applyCommitted(): void {
    const core = this.#core;
    const ours = mutated("unverified-log-applied") ? core.durableLsn : this.#verifiedLsn;
    core.commitTo(toLsn(Math.min(this.#primaryCommitLsn, ours, core.durableLsn)), () => {});
    core.trimLog(core.state.appliedLsn);
  }

  // -------------------------------------------------------------------------- heartbeats

  onHeartbeat(message: Heartbeat): void {
    const core = this.#core;
    core.promise(message.reign);
    if (message.echoMs !== null) {
      this.#noteFreshness();
      this.#freshness.push({ lsn: message.commitLsn, atMs: message.echoMs });
      if (this.#freshness.length > FRESHNESS_KEPT) this.#freshness.shift();
    }
    this.#learnCommit(message.commitLsn);
    this.#compareHash(message.check);
    const { sentMs, beat } = message, stampMs = core.nowMs;
    const head = core.head(message.inc);
    const isHanging = core.nowMs - this.#diskHungMs < HANGING_FOR_MS;
    const hanging = isHanging ? { hanging: true } : {};
    this.#heldPromise = { kind: "heartbeatAck", ...head, sentMs, beat, stampMs, ...hanging };
    if (core.durableEpoch >= core.epoch) this.#releasePromise();
  }

  #releasePromise(): void {
    const core = this.#core;
    if (this.#heldPromise !== null) core.send(core.config!.primary.node, this.#heldPromise);
    this.#heldPromise = null;
  }

  #noteFreshness(): void {
    const { appliedLsn } = this.#core.state;
    while (this.#freshness.length > 0 && this.#freshness[0]!.lsn <= appliedLsn) {
      this.#freshMs = Math.max(this.#freshMs, this.#freshness.shift()!.atMs);
    }
  }

  #compareHash(check: HashCheck | null): void {
    if (check === null) return;
    const mine = this.#core.checkAt(check.lsn);
    if (mine === undefined || mine.hash === check.hash) return;
    const { lsn, hash: theirs } = check;
    this.#core.effects.push({ kind: "hashMismatch", lsn, mine: mine.hash, theirs });
  }

  /** The primary has been silent for longer than we promised to wait for it. */
  maybeSuspect(): void {
    const core = this.#core, { silentMs } = this;
    if (core.role !== "secondary" || silentMs < core.timing.graceMs) return;
    if (core.nowMs - this.#suspectedMs < SUSPECT_EVERY_MS) return;
    this.#suspectedMs = core.nowMs;
    core.effects.push({ kind: "suspect", epoch: core.epoch, silentMs });
  }

  // --------------------------------------------------------------------------- snapshots

  onSnapshotOffer(message: SnapshotOffer): void {
    this.#round = message.round;
    if (this.#fetchingSnapshot || this.#core.role !== "learner") return;
    this.#fetchingSnapshot = true;
    this.#core.effects.push({ kind: "fetchSnapshot", from: message.from });
  }

  /**
   * Whether a checkpoint as of `lsn` may still take the place of our state and log. While it was on its
   * way we may have become a member, on whose log others count, or have come further by ourselves.
   */
  mayInstall(lsn: Lsn): boolean {
    if (mutated("checkpoint-installed-late")) return true;
    return this.#fetchingSnapshot && this.#core.role === "learner" && lsn > this.#core.commitLsn;
  }

  /** The shell replaced our state and log by a checkpoint; it is on disk. */
  onSnapshotInstalled(state: GroupState, history: EpochHistory): void {
    const core = this.#core;
    invariant(
      this.mayInstall(state.appliedLsn),
      "A1",
      () => `a checkpoint of ${state.appliedLsn} was installed over committed ${core.commitLsn}`,
    );
    this.#fetchingSnapshot = false;
    core.replaceBySnapshot(state, history);
    this.#verifiedLsn = toLsn(0);
    if (core.config !== null) this.#askForMore(core.config);
  }

  #askForMore({ primary }: GroupConfig): void {
    this.#sendNack(primary.node, primary.inc);
  }

  forgetSnapshot(): void {
    this.#fetchingSnapshot = false;
  }
}
