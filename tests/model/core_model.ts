/**
 * The replication protocol of one group without everything else: no bytes, no requests, no
 * milliseconds. Small enough to be read beside ARCHITECTURE.md, fast enough to be run through billions of
 * steps, most of which no simulated network of real replicas would reach in a lifetime.
 *
 * What kv/replica.ts and kv/coordinator.ts do is here under the same names: reigns, promises and
 * leases, pending additions, proof of death, handing over, eligible members, configurations that are
 * adopted before they are durable, and the three ways to answer a read (by lease, by a round of
 * heartbeats, by asking for the record, then except for rows that undecided entries touch).
 *
 * A log entry is one number, `epoch * 4096 + id`. Sets of replicas are bit masks. Time is a counter of
 * ticks, the same for all: leases last LEASE, promises GRACE, and the difference stands for clocks
 * that differ. Disks keep a prefix of what was written; a crash loses the rest. The network loses,
 * doubles and reorders everything, also what is said to the coordinator.
 *
 * Each public method is one thing that can happen, and does nothing where it cannot. explore.ts draws
 * them at random; directed_test.ts plays chosen ones. After each, `check()` asserts:
 *
 *   S1  every member that could be elected has every committed entry on its disk
 *   S2  all replicas commit one sequence (and A1, A4: nobody cuts off what he knows committed)
 *   S3  no read misses what was committed before it began
 *   S4  once a reign has committed, no earlier reign commits
 *
 * `mutant` makes one rule wrong. A mutant that no run finds would mean that the rule is superfluous, or
 * that the model is blind.
 *
 * Left out: checkpoints and snapshots (a log reaches back to its beginning), completion records, disks
 * that lie, replaced disks, differing clock rates.
 */
import type { MutantName } from "./mutants.ts";

export interface ModelOptions {
  /** 3 to 5; the first three are in sync at the start. */
  readonly replicas?: number;
  readonly minInSync?: number;
  readonly mutant?: MutantName | null;
  /** In [0, 1): for what a step leaves open. */
  readonly random: () => number;
}

/** A durable record of the coordinator. */
export interface Config {
  /** Counts configurations: an id that is unique even when an epoch is not. */
  readonly serial: number;
  readonly epoch: number;
  readonly reign: number;
  readonly primary: number;
  readonly primaryInc: number;
  readonly inSync: number;
  readonly eligible: number;
  /** A reign that is certainly over; 0 for none. */
  readonly deadReign: number;
  readonly changeId: number;
}

type ChangeKind = "add" | "remove" | "relinquish";

interface Proposal {
  readonly changeId: number;
  readonly kind: ChangeKind;
  readonly member: number;
  readonly from: number;
  readonly fromInc: number;
  readonly epoch: number;
}

interface Answer {
  readonly to: number;
  readonly toInc: number;
  readonly changeId: number;
  readonly refused: boolean;
  readonly config: Config;
}

interface Message {
  readonly kind: "append" | "ack" | "nack" | "heartbeat" | "promise";
  readonly from: number;
  readonly fromInc: number;
  readonly to: number;
  readonly toInc: number;
  readonly config: Config;
  /** append: entries before these. ack, nack: entries in common. heartbeat, promise: when sent. */
  readonly position: number;
  /** append: epoch of the entry before. heartbeat, promise: number of the round. */
  readonly detail: number;
  readonly commit: number;
  readonly entries: readonly number[];
}

interface WaitingRead {
  readonly mode: "confirm" | "record";
  readonly row: number;
  /** Committed when it began. */
  readonly floor: number;
  /** The last round sent before it came in. */
  readonly beat: number;
  /** What the record was when it was looked up, after the read began. */
  epoch: number | null;
}

export interface Replica {
  readonly id: number;
  up: boolean;
  inc: number;
  /** On disk, and what is still on its way there: entries, cuts as `-1 - length`, config serials. */
  diskLog: number[];
  diskConfig: Config;
  diskCommit: number;
  queue: number[];
  /** How much of `diskLog` is known to equal the committed sequence. */
  safe: number;

  log: number[];
  config: Config;
  durable: number;
  commit: number;
  primary: boolean;
  promises: { reign: number; until: number }[];
  bootPromise: number;
  verified: number;
  primaryCommit: number;
  ackDue: boolean;
  heldPromise: Message | null;

  match: number[];
  lease: number[];
  answeredBeat: number[];
  peerInc: number[];
  next: number[];
  beat: number;
  start: number;
  pendingAdd: number;
  proposal: Proposal | null;
  handOverTo: number;
  relinquished: boolean;
  reads: WaitingRead[];
}

export interface Stats {
  commits: number;
  reads: number;
  confirmed: number;
  degraded: number;
  elections: number;
  additions: number;
  removals: number;
  handovers: number;
  crashes: number;
  cuts: number;
}

/** A promise that was broken. */
export class Violation extends Error {
  override readonly name = "Violation";
}

export const LEASE = 4;
export const GRACE = 6;
const IDS = 4096;
const ROWS = 4;
const LOG_MAX = 60;
const NETWORK_MAX = 40;
const FIRST_REIGN = 1;

export const epochOf = (entry: number) => Math.floor(entry / IDS);
const rowOf = (entry: number) => entry % IDS === 0 ? -1 : entry % ROWS;
const bit = (id: number) => 1 << id;
export const has = (mask: number, id: number) => (mask & (1 << id)) !== 0;

export function countOf(mask: number): number {
  let count = 0;
  for (; mask !== 0; mask &= mask - 1) count += 1;
  return count;
}

export class CoreModel {
  readonly replicas: Replica[];
  readonly minInSync: number;
  readonly mutant: MutantName | null;
  readonly #random: () => number;
  now = 0;
  /** Everything that was ever committed, in order: what a client may have been told. */
  readonly committed: number[] = [];
  #committedReign = 0;
  readonly configs: Config[] = [];
  readonly network: Message[] = [];
  readonly proposals: Proposal[] = [];
  readonly answers: Answer[] = [];
  /** The coordinator: its record, a change on its way into the store, and whom it knows as what. */
  record: Config;
  swapping: { config: Config; asked: Proposal | null } | null = null;
  readonly knownInc: number[];
  #lastId = 0;
  #dirty = true;
  readonly stats: Stats = {
    commits: 0,
    reads: 0,
    confirmed: 0,
    degraded: 0,
    elections: 0,
    additions: 0,
    removals: 0,
    handovers: 0,
    crashes: 0,
    cuts: 0,
  };

  constructor(options: ModelOptions) {
    const { replicas = 4, minInSync = 2, mutant = null, random } = options;
    this.minInSync = minInSync;
    this.mutant = mutant;
    this.#random = random;
    this.record = this.#config({
      epoch: 1,
      reign: FIRST_REIGN,
      primary: 0,
      primaryInc: 1,
      inSync: 0b111,
      eligible: 0,
      deadReign: 0,
      changeId: 0,
    });
    const none = this.#config({ ...this.record, epoch: 0, reign: 0, primary: -1 });
    this.replicas = Array.from({ length: replicas }, (_, id) => newReplica(id, none, replicas));
    this.knownInc = this.replicas.map(() => 1);
    this.fetchConfig(this.replicas[0]!);
  }

  // ---------------------------------------------------------------------- time and disks

  tick(): void {
    this.now += 1;
    for (const replica of this.replicas) if (replica.primary) this.#advanceCommit(replica);
  }

  /** Some of what was written reaches the disk, in order. */
  sync(replica: Replica, count: number): void {
    if (!replica.up || replica.queue.length === 0) return;
    this.#flushQueue(replica, count);
    replica.diskCommit = Math.min(replica.commit, replica.diskLog.length);
    let { length: durable } = replica.diskLog;
    for (const item of replica.queue) if (item < 0) durable = Math.min(durable, -1 - item);
    replica.durable = Math.max(replica.durable, durable);
    if (replica.primary) return this.#advanceCommit(replica);
    this.#answerPrimary(replica);
    this.#applyCommitted(replica);
  }

  #flushQueue(replica: Replica, count: number): void {
    const { queue, diskLog } = replica;
    for (const item of queue.splice(0, count)) {
      if (item >= IDS) diskLog.push(item);
      else if (item >= 0) replica.diskConfig = this.configs[item]!;
      else {
        diskLog.length = Math.min(diskLog.length, -1 - item);
        replica.safe = Math.min(replica.safe, diskLog.length);
      }
    }
    this.#dirty = true;
  }

  crash(replica: Replica, kept: number): void {
    if (!replica.up) return;
    this.stats.crashes += 1;
    this.#flushQueue(replica, kept);
    this.#stepDown(replica);
    replica.up = false;
    replica.queue.length = 0;
    replica.log = replica.diskLog.slice();
    replica.durable = replica.log.length;
    replica.config = replica.diskConfig;
    replica.commit = Math.min(replica.diskCommit, replica.log.length);
    replica.promises = [];
    replica.heldPromise = null;
    replica.ackDue = false;
    replica.verified = 0;
    replica.primaryCommit = 0;
    this.#dirty = true;
  }

  restart(replica: Replica): void {
    if (replica.up) return;
    replica.up = true;
    replica.inc += 1;
    replica.bootPromise = this.mutant === "no-boot-wait" ? 0 : this.now + GRACE;
    if (this.mutant === "epoch-reused-after-restart" && this.record.primary === replica.id) {
      this.record = this.#config({ ...this.record, primaryInc: replica.inc });
      this.#enqueueConfig(replica, this.record);
      this.#takeOffice(replica);
    }
  }

  // ------------------------------------------------------------------------- the primary

  request(primary: Replica): void {
    const { config, log } = primary;
    if (!primary.up || !primary.primary || primary.handOverTo >= 0 || primary.relinquished) return;
    if (this.#belowMinimum(config) && this.mutant !== "commit-below-minimum") return;
    if (log.length < LOG_MAX) this.#append(primary, config.epoch * IDS + ++this.#lastId);
  }

  #append(replica: Replica, entry: number): void {
    replica.log.push(entry);
    replica.queue.push(entry);
  }

  #belowMinimum(config: Config): boolean {
    return countOf(config.inSync) < this.minInSync;
  }

  /** Sends a few entries behind the first `from`. */
  sendAppend(primary: Replica, to: Replica, from: number, count: number): void {
    if (!primary.up || !primary.primary || primary === to) return;
    const { log } = primary, position = Math.max(0, Math.min(from, log.length));
    const detail = position === 0 ? 0 : epochOf(log[position - 1]!);
    const entries = log.slice(position, position + count);
    this.#send(primary, "append", { to, position, detail, entries });
  }

  sendHeartbeat(primary: Replica, to: Replica): void {
    if (!primary.up || !primary.primary || primary === to) return;
    this.#send(primary, "heartbeat", { to, position: this.now, detail: primary.beat, entries: [] });
  }

  /** What is sent from here on is the next round. */
  nextBeat(primary: Replica): void {
    if (primary.up && primary.primary) primary.beat += 1;
  }

  /** As the primary learns it from being told that it addressed a process that is gone. */
  meet(primary: Replica, peer: Replica): void {
    primary.peerInc[peer.id] = peer.inc;
  }

  #send(
    from: Replica,
    kind: Message["kind"],
    body: { to: Replica; position: number; detail: number; entries: readonly number[] },
  ): void {
    const { to, ...rest } = body;
    const toPeer = kind === "append" || kind === "heartbeat";
    this.network.push({
      kind,
      from: from.id,
      fromInc: from.inc,
      to: to.id,
      toInc: toPeer ? from.peerInc[to.id]! : from.config.primaryInc,
      config: from.config,
      commit: from.commit,
      ...rest,
    });
    if (this.network.length > NETWORK_MAX) {
      this.network.splice(Math.floor(this.#random() * this.network.length), 1);
    }
  }

  #promiseUntil(replica: Replica): number {
    const { config, promises, bootPromise } = replica;
    if (this.mutant === "promises-ignored") return 0;
    let until = config.reign === FIRST_REIGN ? 0 : bootPromise;
    const voidsAll = this.mutant === "death-voids-all-promises" && config.deadReign !== 0;
    for (const promise of promises) {
      if (promise.reign === config.deadReign || promise.reign === config.reign || voidsAll) {
        continue;
      }
      if (promise.until > until) until = promise.until;
    }
    return until;
  }

  #mayCommit(primary: Replica): boolean {
    if (primary.relinquished && this.mutant !== "relinquished-serves") return false;
    if (this.#belowMinimum(primary.config) && this.mutant !== "commit-below-minimum") return false;
    // Else a crash would have it follow the former primary again.
    const isKnown = primary.diskConfig.epoch >= primary.config.reign;
    if (!isKnown && this.mutant !== "own-reign-not-durable") return false;
    return this.now >= this.#promiseUntil(primary);
  }

  #advanceCommit(primary: Replica): void {
    if (!primary.up || !primary.primary) return;
    if (this.#mayCommit(primary)) {
      let count = this.mutant === "own-fsync-not-counted" ? primary.log.length : primary.durable;
      let needed = primary.config.inSync;
      if (primary.pendingAdd >= 0 && this.mutant !== "add-not-counted") {
        needed |= bit(primary.pendingAdd);
      }
      for (let id = 0; id < this.replicas.length; id++) {
        if (id !== primary.id && has(needed, id)) count = Math.min(count, primary.match[id]!);
      }
      for (; primary.commit < count; primary.commit++) this.#commitOne(primary);
    }
    this.#maybeRelinquish(primary);
  }

  /** The moment at which a client may be told. */
  #commitOne(primary: Replica): void {
    const at = primary.commit, entry = primary.log[at]!, { reign } = primary.config;
    if (at < this.committed.length) {
      if (this.committed[at] !== entry) {
        this.#fail(
          `S2: replica ${primary.id} commits ${entry} at ` +
            `${at}, where ${this.committed[at]} was committed before`,
        );
      }
      return;
    }
    if (reign < this.#committedReign) {
      this.#fail(`S4: reign ${reign} commits after reign ${this.#committedReign} has`);
    }
    this.#committedReign = reign;
    this.committed.push(entry);
    this.stats.commits += 1;
    this.#dirty = true;
  }

  // ------------------------------------------------------------------------------- reads

  /** Reconciled with the members, and not about to leave. */
  #canServe(primary: Replica): boolean {
    if (!primary.up || !primary.primary) return false;
    if (primary.relinquished && this.mutant !== "relinquished-serves") return false;
    return primary.commit > primary.start || this.mutant === "epoch-start-not-awaited";
  }

  /** Everybody whom the coordinator could elect in its place. */
  #leaseSet(primary: Replica): number {
    const { config, pendingAdd } = primary;
    let set = config.inSync;
    if (this.mutant !== "lease-without-eligible") set |= config.eligible;
    if (pendingAdd >= 0 && this.mutant !== "lease-without-pending-add") set |= bit(pendingAdd);
    return set & ~bit(primary.id);
  }

  /** Answers at once if everybody electable has promised; returns whether it did. */
  readByLease(primary: Replica): boolean {
    if (!this.#canServe(primary) || this.now < this.#promiseUntil(primary)) return false;
    const set = this.mutant === "no-lease" ? 0 : this.#leaseSet(primary);
    for (let id = 0; id < this.replicas.length; id++) {
      if (has(set, id) && primary.lease[id]! <= this.now) return false;
    }
    this.stats.reads += 1;
    this.#checkRead(primary, this.committed.length, "by lease");
    return true;
  }

  /** A read comes in that leases do not answer. */
  beginRead(primary: Replica, mode: WaitingRead["mode"], row: number): void {
    if (!primary.up || !primary.primary || primary.reads.length >= 4) return;
    const { beat } = primary, floor = this.committed.length;
    // The wrong rule takes an answer to an earlier question.
    const epoch = mode === "record" && this.mutant === "record-looked-up-before"
      ? primary.config.epoch
      : null;
    primary.reads.push({ mode, row, floor, beat, epoch });
  }

  /** Answers what a whole round of heartbeats, begun after it came in, has confirmed. */
  confirmReads(primary: Replica): void {
    if (primary.reads.length === 0 || !this.#canServe(primary)) return;
    const set = this.#leaseSet(primary);
    let confirmed = Infinity;
    for (let id = 0; id < this.replicas.length; id++) {
      if (has(set, id)) confirmed = Math.min(confirmed, primary.answeredBeat[id]!);
    }
    const late = this.mutant === "round-begun-before" ? 1 : 0;
    primary.reads = primary.reads.filter((read) => {
      if (read.mode !== "confirm" || read.beat >= confirmed + late) return true;
      this.stats.confirmed += 1;
      this.#checkRead(primary, read.floor, "by a round");
      return false;
    });
  }

  /** The store of records answers the primary's question; the answer may take long to arrive. */
  lookUpRecord(primary: Replica): void {
    for (const read of primary.reads) if (read.mode === "record") read.epoch ??= this.record.epoch;
  }

  /** The answer arrives. */
  answerByRecord(primary: Replica): void {
    if (!primary.up || !primary.primary || primary.relinquished) return;
    primary.reads = primary.reads.filter((read) => {
      if (read.mode !== "record" || read.epoch === null) return true;
      if (read.epoch !== primary.config.epoch) return false;
      if (this.#canServe(primary)) this.#checkRead(primary, read.floor, "by the record");
      else if (this.#inLimbo(primary, read.row)) return false;
      else this.#checkRowRead(primary, read);
      this.stats.degraded += 1;
      return false;
    });
  }

  /** Whether an entry that may or may not be committed touches the row. */
  #inLimbo(primary: Replica, row: number): boolean {
    if (this.mutant === "limbo-ignored") return false;
    for (let at = primary.commit; at < primary.log.length; at++) {
      if (rowOf(primary.log[at]!) === row) return true;
    }
    return false;
  }

  #checkRead(primary: Replica, floor: number, how: string): void {
    if (primary.commit >= floor) return;
    this.#fail(
      `S3: replica ${primary.id} in epoch ${primary.config.epoch} answers a read ${how} ` +
        `at ${primary.commit}, but ${floor} were committed before it began`,
    );
  }

  #checkRowRead(primary: Replica, { row, floor }: WaitingRead): void {
    for (let at = primary.commit; at < floor; at++) {
      if (rowOf(this.committed[at]!) !== row) continue;
      this.#fail(
        `S3: replica ${primary.id} in epoch ${primary.config.epoch} reads row ${row} beside ` +
          `its undecided entries and misses entry ${at}, committed before`,
      );
    }
  }

  // --------------------------------------------------------------------------- messages

  /** Delivers the message; it stays in the network if it is to arrive twice. */
  deliver(index: number, again: boolean): void {
    const message = this.network[index];
    if (message === undefined) return;
    if (!again) this.network.splice(index, 1);
    const replica = this.replicas[message.to]!;
    if (!replica.up || replica.inc !== message.toInc) return;
    switch (message.kind) {
      case "append":
        return this.#onAppend(replica, message);
      case "heartbeat":
        return this.#onHeartbeat(replica, message);
      default:
        return this.#onAnswer(replica, message);
    }
  }

  #follow(replica: Replica, { config, from, fromInc }: Message): boolean {
    if (config.epoch > replica.config.epoch) this.#adopt(replica, config);
    if (this.mutant === "older-epochs-accepted" && config.epoch < replica.config.epoch) {
      return !replica.primary;
    }
    if (config.epoch !== replica.config.epoch || replica.primary) return false;
    return replica.config.primary === from && replica.config.primaryInc === fromInc;
  }

  #onAppend(replica: Replica, message: Message): void {
    if (!this.#follow(replica, message)) return;
    const { position, detail, entries, commit } = message, { log } = replica;
    const fits = position <= log.length &&
      (position === 0 || this.mutant === "match-without-epoch" ||
        epochOf(log[position - 1]!) === detail);
    if (!fits) {
      const common = Math.max(0, Math.min(position - 1, log.length));
      const to = this.replicas[message.from]!;
      return this.#send(replica, "nack", { to, position: common, detail: 0, entries: [] });
    }
    for (let i = 0; i < entries.length; i++) {
      const at = position + i, entry = entries[i]!, mine = log[at];
      if (mine !== undefined && epochOf(mine) === epochOf(entry)) {
        if (mine !== entry) {
          this.#fail(`S2: one epoch has two entries at ${at}: ${mine} and ${entry}`);
        }
        continue;
      }
      if (mine !== undefined) this.#cut(replica, at);
      this.#append(replica, entry);
    }
    replica.verified = Math.max(replica.verified, position + entries.length);
    replica.primaryCommit = Math.max(replica.primaryCommit, commit);
    replica.ackDue = true;
    this.#applyCommitted(replica);
    if (replica.durable >= replica.verified || this.mutant === "ack-before-fsync") {
      this.#answerPrimary(replica);
    }
  }

  #cut(replica: Replica, length: number): void {
    this.stats.cuts += 1;
    if (length < replica.commit) {
      this.#fail(
        `A4: replica ${replica.id} cuts its log at ${length}, below its commit ` +
          `${replica.commit}`,
      );
    }
    replica.log.length = length;
    replica.queue.push(-1 - length);
    replica.durable = Math.min(replica.durable, length);
    replica.verified = Math.min(replica.verified, length);
  }

  #onHeartbeat(replica: Replica, message: Message): void {
    if (!this.#follow(replica, message)) return;
    const { reign } = message.config;
    const until = this.now + (this.mutant === "short-grace" ? 1 : GRACE);
    const given = replica.promises.find((promise) => promise.reign === reign);
    if (given === undefined) {
      replica.promises = replica.promises.filter((promise) => promise.until >= this.now);
      replica.promises.push({ reign, until });
    } else given.until = Math.max(given.until, until);
    replica.primaryCommit = Math.max(replica.primaryCommit, message.commit);
    this.#applyCommitted(replica);
    replica.heldPromise = message;
    if (this.#epochIsDurable(replica)) this.#releasePromise(replica);
  }

  #epochIsDurable(replica: Replica): boolean {
    return replica.diskConfig.epoch >= replica.config.epoch;
  }

  #releasePromise(replica: Replica): void {
    const asked = replica.heldPromise;
    replica.heldPromise = null;
    if (asked === null) return;
    const to = this.replicas[asked.from]!, { position, detail } = asked;
    this.#send(replica, "promise", { to, position, detail, entries: [] });
  }

  #answerPrimary(replica: Replica): void {
    if (!this.#epochIsDurable(replica)) return;
    this.#releasePromise(replica);
    if (!replica.ackDue) return;
    const to = this.replicas[replica.config.primary]!;
    const safe = this.mutant === "ack-before-fsync" ? replica.log.length : replica.durable;
    const position = Math.min(replica.verified, safe);
    replica.ackDue = position < replica.verified;
    this.#send(replica, "ack", { to, position, detail: 0, entries: [] });
  }

  #applyCommitted(replica: Replica): void {
    const verified = this.mutant === "unverified-log-applied"
      ? replica.log.length
      : replica.verified;
    const count = Math.min(replica.primaryCommit, verified, replica.durable);
    for (; replica.commit < count; replica.commit++) {
      const at = replica.commit;
      if (replica.log[at] !== this.committed[at]) {
        this.#fail(
          `S2: replica ${replica.id} applies ${replica.log[at]} at ${at}, where ` +
            `${this.committed[at]} was committed`,
        );
      }
    }
  }

  #onAnswer(replica: Replica, message: Message): void {
    const { from, fromInc, config, position, detail } = message;
    if (!replica.primary || replica.peerInc[from] !== fromInc) return;
    if (config.reign !== replica.config.reign && this.mutant !== "reign-not-checked") return;
    switch (message.kind) {
      case "ack":
        if (position > replica.match[from]!) replica.match[from] = position;
        return this.#advanceCommit(replica);
      case "nack":
        // Counting on less is safe, whether the answer was overtaken or not.
        replica.match[from] = Math.min(replica.match[from]!, position);
        replica.next[from] = position;
        return;
      case "promise": {
        const sent = this.mutant === "lease-from-receipt" ? this.now : position;
        replica.lease[from] = Math.max(replica.lease[from]!, sent + LEASE);
        replica.answeredBeat[from] = Math.max(replica.answeredBeat[from]!, detail);
      }
    }
  }

  // --------------------------------------------------------------------- configurations

  /** The replica hears of the current record. */
  fetchConfig(replica: Replica): void {
    if (replica.up && this.record.epoch > replica.config.epoch) this.#adopt(replica, this.record);
  }

  #enqueueConfig(replica: Replica, config: Config): void {
    replica.config = config;
    replica.queue.push(config.serial);
  }

  #adopt(replica: Replica, config: Config): void {
    const before = replica.config;
    this.#enqueueConfig(replica, config);
    replica.heldPromise = null;
    if (before.reign !== config.reign) replica.ackDue = false;
    const isPrimary = config.primary === replica.id && config.primaryInc === replica.inc;
    const sameReign = before.reign === config.reign || this.mutant === "reign-not-restarted";
    if (isPrimary && replica.primary && sameReign) return this.#continueReign(replica);
    if (replica.primary) this.#stepDown(replica);
    if (before.reign !== config.reign && this.mutant !== "unverified-log-applied") {
      replica.verified = 0;
      replica.primaryCommit = 0;
    }
    if (isPrimary) this.#takeOffice(replica);
  }

  #takeOffice(replica: Replica): void {
    this.#stepDown(replica);
    replica.primary = true;
    replica.start = replica.log.length;
    for (const peer of this.replicas) replica.peerInc[peer.id] = peer.inc;
    // The id 0 is an entry that only marks the beginning of a reign.
    const { epoch } = replica.config;
    this.#append(
      replica,
      this.mutant === "epoch-reused-after-restart" ? epoch * IDS + ++this.#lastId : epoch * IDS,
    );
  }

  #stepDown(replica: Replica): void {
    replica.primary = false;
    replica.match.fill(0);
    replica.lease.fill(-1);
    replica.answeredBeat.fill(-1);
    replica.next.fill(-1);
    replica.beat = 0;
    replica.pendingAdd = -1;
    replica.proposal = null;
    replica.handOverTo = -1;
    replica.relinquished = false;
    replica.reads = [];
  }

  #continueReign(replica: Replica): void {
    const { config, proposal } = replica;
    if (proposal !== null && proposal.epoch < config.epoch) replica.proposal = null;
    // A change of ours that lost against this configuration can no longer happen.
    if (replica.proposal === null) {
      replica.pendingAdd = -1;
      replica.relinquished = false;
      replica.handOverTo = -1;
    }
    this.#advanceCommit(replica);
  }

  // ------------------------------------------------------------------- changes, by a primary

  #propose(primary: Replica, kind: ChangeKind, member: number): void {
    primary.proposal = {
      changeId: ++this.#lastId,
      kind,
      member,
      from: primary.id,
      fromInc: primary.inc,
      epoch: primary.config.epoch,
    };
    this.repeatProposal(primary);
  }

  repeatProposal(primary: Replica): void {
    if (!primary.up || primary.proposal === null) return;
    this.proposals.push(primary.proposal);
    if (this.proposals.length > 12) this.proposals.shift();
  }

  proposeRemove(primary: Replica, member: number): void {
    if (!primary.up || !primary.primary || primary.proposal !== null) return;
    if (member !== primary.id && has(primary.config.inSync, member)) {
      this.#propose(primary, "remove", member);
    }
  }

  proposeAdd(primary: Replica, member: number): void {
    const { config, match, start } = primary;
    if (!primary.up || !primary.primary || primary.proposal !== null) return;
    if (has(config.inSync, member) || primary.handOverTo >= 0) return;
    if (primary.pendingAdd >= 0 && primary.pendingAdd !== member) return;
    if (this.now < this.#promiseUntil(primary)) return;
    const startDone = this.#belowMinimum(config) || primary.commit > start;
    if (!startDone || match[member]! <= start) return;
    primary.pendingAdd = member;
    if (match[member]! >= primary.commit) this.#propose(primary, "add", member);
  }

  /** The member to be is gone before it was proposed. */
  giveUpAdd(primary: Replica): void {
    const sure = primary.proposal === null || this.mutant === "unknown-change-is-refused";
    if (!primary.up || !primary.primary || !sure) return;
    primary.pendingAdd = -1;
    primary.proposal = null;
    this.#advanceCommit(primary);
  }

  handOver(primary: Replica, member: number): void {
    if (!primary.up || !primary.primary || primary.proposal !== null) return;
    if (member === primary.id || !has(primary.config.inSync, member)) return;
    primary.handOverTo = member;
    this.#maybeRelinquish(primary);
  }

  /** The successor is too slow. */
  stay(primary: Replica): void {
    if (!primary.relinquished) primary.handOverTo = -1;
  }

  #maybeRelinquish(primary: Replica): void {
    const target = primary.handOverTo;
    if (target < 0 || primary.relinquished || primary.proposal !== null) return;
    const { length } = primary.log;
    if (primary.commit < length || primary.match[target]! < length) return;
    primary.relinquished = true;
    this.#propose(primary, "relinquish", target);
  }

  /** An answer of the coordinator arrives. */
  deliverAnswer(index: number, again: boolean): void {
    const answer = this.answers[index];
    if (answer === undefined) return;
    if (!again) this.answers.splice(index, 1);
    const primary = this.replicas[answer.to]!;
    if (!primary.up || primary.inc !== answer.toInc) return;
    if (answer.config.epoch > primary.config.epoch) this.#adopt(primary, answer.config);
    if (!primary.primary || primary.proposal?.changeId !== answer.changeId) return;
    if (!answer.refused) {
      primary.proposal = null;
      return;
    }
    // A copy of the proposal may still be under way, and find the record as it was.
    const certain = primary.config.epoch > primary.proposal.epoch ||
      this.mutant === "refusal-without-fence";
    if (!certain) return;
    primary.proposal = null;
    primary.pendingAdd = -1;
    primary.relinquished = false;
    primary.handOverTo = -1;
    this.#advanceCommit(primary);
  }

  // --------------------------------------------------------------------- the coordinator

  /** It hears of a process. */
  report(replica: Replica): void {
    if (replica.up) this.knownInc[replica.id] = replica.inc;
  }

  /** A proposal arrives; `knowsMember`: a coordinator that just started knows nobody. */
  receiveProposal(index: number, options: { again: boolean; knowsMember: boolean }): void {
    const proposal = this.proposals[index];
    if (proposal === undefined) return;
    if (!options.again) this.proposals.splice(index, 1);
    const { record } = this;
    if (record.changeId === proposal.changeId) return this.#answer(proposal, false);
    const isPrimary = record.primary === proposal.from && record.primaryInc === proposal.fromInc;
    const isCurrent = record.epoch === proposal.epoch ||
      this.mutant === "proposal-epoch-not-checked";
    if (!isPrimary || !isCurrent) return this.#answer(proposal, true);
    // Even if this very change is what is on its way into the store.
    if (this.swapping !== null) return this.#answer(proposal, true);
    const next = options.knowsMember ? this.#changed(proposal) : null;
    if (next !== null) return this.#swap({ ...next, changeId: proposal.changeId }, proposal);
    return this.#answer(proposal, true);
  }

  #answer(proposal: Proposal, refused: boolean): void {
    const { from: to, fromInc: toInc, changeId } = proposal;
    this.answers.push({ to, toInc, changeId, refused, config: this.record });
    if (this.answers.length > 12) this.answers.shift();
  }

  /** T1 to T3, and T4 when the primary itself asks for it. */
  #changed({ kind, member, from }: Proposal): Config | null {
    const { record } = this, inSync = record.inSync, one = bit(member);
    const isIn = has(inSync, member), isPrimary = member === from;
    switch (kind) {
      case "remove": {
        if (!isIn || isPrimary) return null;
        const left = inSync & ~one;
        const eligible = this.#eligibleFor(left, record.eligible | one);
        return { ...record, inSync: left, eligible };
      }
      case "add": {
        if (isIn) return null;
        const more = inSync | one;
        const eligible = this.#eligibleFor(more, record.eligible & ~one);
        return { ...record, inSync: more, eligible };
      }
      case "relinquish": {
        if (!isIn || isPrimary) return null;
        return {
          ...record,
          reign: record.epoch + 1,
          primary: member,
          primaryInc: this.knownInc[member]!,
          deadReign: record.reign,
        };
      }
    }
  }

  /** Below the minimum nothing can be committed, so who leaves then stays complete. */
  #eligibleFor(inSync: number, candidates: number): number {
    if (countOf(inSync) < this.minInSync) return candidates & ~inSync;
    return this.mutant === "eligible-not-cleared" ? candidates & ~inSync : 0;
  }

  /**
   * T4 and T5: one of those who answered becomes primary, with the others that did.
   *
   * @param answered who is believed to be there; it need not be true
   * @param deathProved somebody saw the old primary's process end; ignored where it has not
   */
  elect(candidate: number, answered: number, deathProved: boolean): void {
    if (this.swapping !== null) return;
    const { record } = this, electable = record.inSync | record.eligible;
    const present = answered & record.inSync;
    const inSync = present !== 0 ? present : answered & record.eligible;
    const anybody = this.mutant === "non-member-elected";
    if (!has(inSync, candidate) && !anybody) return;
    const members = has(inSync, candidate) ? inSync : bit(candidate);
    const old = this.replicas[record.primary]!;
    const dead = !old.up || old.inc !== record.primaryInc || this.mutant === "silence-is-death";
    this.stats.elections += 1;
    this.#swap({
      ...record,
      reign: record.epoch + 1,
      primary: candidate,
      primaryInc: this.knownInc[candidate]!,
      inSync: members,
      eligible: this.#eligibleFor(members, electable),
      deadReign: deathProved && dead ? record.reign : 0,
      changeId: ++this.#lastId,
    }, null);
  }

  /** What is refused for good must not happen later: the record moves past the refused epoch. */
  fence(proposal: Proposal): void {
    if (this.swapping !== null || this.record.epoch !== proposal.epoch) return;
    this.#swap({ ...this.record, changeId: ++this.#lastId }, null);
  }

  #swap(next: Config, asked: Proposal | null): void {
    this.swapping = { config: this.#config({ ...next, epoch: this.record.epoch + 1 }), asked };
  }

  /** The store has written the record. The coordinator, not the store, may be told late. */
  completeSwap(): void {
    if (this.swapping === null) return;
    const { config, asked } = this.swapping;
    this.swapping = null;
    this.record = config;
    this.#dirty = true;
    if (asked === null) return;
    this.#answer(asked, false);
    if (asked.kind === "add") this.stats.additions += 1;
    if (asked.kind === "remove") this.stats.removals += 1;
    if (asked.kind === "relinquish") this.stats.handovers += 1;
  }

  #config(config: Omit<Config, "serial">): Config {
    const made = { ...config, serial: this.configs.length };
    this.configs.push(made);
    return made;
  }

  // ------------------------------------------------------------------------------ checks

  /** S1. The others are asserted where they could break. */
  check(): void {
    if (!this.#dirty) return;
    this.#dirty = false;
    const electable = this.record.inSync | this.record.eligible, { committed } = this;
    for (const replica of this.replicas) {
      if (!has(electable, replica.id)) continue;
      const { diskLog } = replica;
      while (replica.safe < committed.length && diskLog[replica.safe] === committed[replica.safe]) {
        replica.safe += 1;
      }
      if (replica.safe === committed.length) continue;
      this.#fail(
        `S1: replica ${replica.id} could be elected in epoch ${this.record.epoch} but ` +
          `lacks committed entry ${replica.safe} of ${committed.length} on its disk`,
      );
    }
  }

  #fail(message: string): never {
    throw new Violation(message);
  }
}

function newReplica(id: number, config: Config, count: number): Replica {
  const perPeer = (value: number) => new Array<number>(count).fill(value);
  return {
    id,
    up: true,
    inc: 1,
    diskLog: [],
    diskConfig: config,
    diskCommit: 0,
    queue: [],
    safe: 0,
    log: [],
    config,
    durable: 0,
    commit: 0,
    primary: false,
    promises: [],
    bootPromise: GRACE,
    verified: 0,
    primaryCommit: 0,
    ackDue: false,
    heldPromise: null,
    match: perPeer(0),
    lease: perPeer(-1),
    answeredBeat: perPeer(-1),
    peerInc: perPeer(1),
    next: perPeer(-1),
    beat: 0,
    start: 0,
    pendingAdd: -1,
    proposal: null,
    handOverTo: -1,
    relinquished: false,
    reads: [],
  };
}
