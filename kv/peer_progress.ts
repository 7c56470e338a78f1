/** What a primary knows about one other replica of its group, within its own reign. */
import { type Incarnation, incarnation, type Lsn, lsn as toLsn } from "../proto/ids.ts";
import type { Member } from "../proto/replication.ts";

/** Appends under way to one replica; answers come back in order, so few are enough. */
const APPENDS_IN_FLIGHT_MAX = 4;
const BYTES_IN_FLIGHT_MAX = 8 * 1024 * 1024;

export class PeerProgress {
  readonly member: Member;
  /** The process life that answered last; 0 until the first answer. */
  inc: Incarnation = incarnation(0);
  /** Everything up to here equals our log and is on the peer's disk. */
  matchLsn: Lsn = toLsn(0);
  /** The next entry to send; 0 while we have to ask first where the logs part. */
  nextLsn: Lsn;
  /** It adopted our epoch, so appends need not carry the configuration. */
  hasConfig = false;
  /**
   * In this life it has acknowledged an append, so it knows how far its log equals ours. Until then a
   * follower applies nothing, however much we know that it has.
   */
  isMatched = false;
  /** Until when it promised not to act as primary, on our clock; counted from our sending. */
  leaseUntilMs = -Infinity;
  /** What it was last told to be committed. */
  toldCommitLsn: Lsn = toLsn(0);
  /** The last heartbeat of this reign that it answered. */
  answeredBeat = 0;
  /** Its own clock when it sent its last answer, to be echoed; null after a restart. */
  stampMs: number | null = null;
  heardMs: number;
  /** When `matchLsn` last rose, or when we last had nothing to send. */
  progressMs: number;
  /** Since when it is far behind all others; null while it is not. */
  laggingSinceMs: number | null = null;
  /** When entries were last sent anew. */
  restartedMs = -Infinity;
  /** Its log ended below what it had acknowledged: its disk forgot. */
  forgot = false;
  /** Counts how often sending started over. A refusal of an earlier round's append tells nothing new. */
  round = 0;
  /** It was ahead of our epoch and did not take what we sent. */
  threwAway = false;
  /** A read of old log entries for it is under way. */
  readingLog = false;
  snapshotOffered = false;
  #isFull = false;
  #forgottenLsn: Lsn = toLsn(0);
  #inFlight: { lastLsn: Lsn; bytes: number }[] = [];
  #inFlightBytes = 0;

  constructor(member: Member, options: { nextLsn: Lsn; nowMs: number }) {
    this.member = member;
    this.nextLsn = options.nextLsn;
    this.heardMs = options.nowMs;
    this.progressMs = options.nowMs;
  }

  get canSend(): boolean {
    return this.inc !== 0 && !this.readingLog && !this.snapshotOffered && !this.#isFull &&
      this.#inFlight.length < APPENDS_IN_FLIGHT_MAX && this.#inFlightBytes < BYTES_IN_FLIGHT_MAX;
  }

  get hasInFlight(): boolean {
    return this.#inFlight.length > 0;
  }

  /** It has no memory for more, and will ask for what it did not take of what is under way. */
  get isFull(): boolean {
    return this.#isFull;
  }

  /**
   * What its last answer says of its memory. Without anything under way there is nothing that it could
   * ask for, and nobody would notice that the question got lost: such an answer was overtaken.
   */
  setFull(isFull: boolean): void {
    this.#isFull = isFull && this.hasInFlight;
  }

  sent(lastLsn: Lsn, bytes: number): void {
    this.#inFlight.push({ lastLsn, bytes });
    this.#inFlightBytes += bytes;
    this.nextLsn = toLsn(lastLsn + 1);
  }

  /** An answer says that everything up to `matchLsn` is safe there. Never lowers. */
  raiseMatch(matchLsn: Lsn, nowMs: number): void {
    this.isMatched = true;
    if (matchLsn > this.matchLsn) {
      this.matchLsn = matchLsn;
      this.progressMs = nowMs;
      if (matchLsn >= this.#forgottenLsn) this.forgot = false;
    }
    while (this.#inFlight.length > 0 && this.#inFlight[0]!.lastLsn <= matchLsn) {
      this.#inFlightBytes -= this.#inFlight.shift()!.bytes;
    }
    if (!this.hasInFlight) this.#isFull = false;
    if (this.nextLsn <= matchLsn) this.nextLsn = toLsn(matchLsn + 1);
  }

  /** It cannot be counted on for more than this, whatever it said before. */
  lowerMatch(matchLsn: Lsn): void {
    this.#forgottenLsn = this.matchLsn;
    this.matchLsn = matchLsn;
  }

  /** Starts over behind `lsn`, because what was sent may be lost. */
  resendFrom(lsn: Lsn): void {
    this.round += 1;
    this.#isFull = false;
    this.#inFlight = [];
    this.#inFlightBytes = 0;
    this.nextLsn = lsn;
  }
}
