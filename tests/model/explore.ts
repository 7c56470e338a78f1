/**
 * Random runs of the core model. Each seed draws how often everything happens, over a factor of 144
 * (swarm testing, Groce et al. 2012): a run in which nothing crashes but elections are frequent
 * reaches states that an even mixture never does. Run `seed` is always the same run.
 */
import {
  CoreModel,
  countOf,
  epochOf,
  has,
  type Replica,
  type Stats,
  Violation,
} from "./core_model.ts";
import type { MutantName } from "./mutants.ts";

export interface RunOptions {
  readonly seed: number;
  readonly steps?: number;
  readonly mutant?: MutantName | null;
}

export interface RunResult {
  readonly stats: Stats;
  readonly steps: number;
  readonly violation: string | null;
}

export const STEPS_PER_RUN = 1_500;

/** How often each happens before the seed's own factor, and what it does. */
const ACTIONS: readonly (readonly [weight: number, act: (run: Run) => void])[] = [
  [0.05, (run) => run.model.tick()],
  [0.06, (run) => run.model.request(run.primary())],
  [0.16, (run) => run.sync()],
  [0.18, (run) => run.append()],
  [0.05, (run) => run.heartbeat()],
  [0.32, (run) => run.deliver()],
  [0.05, (run) => run.readByLease()],
  [0.03, (run) => run.beginRead()],
  [0.03, (run) => run.answerReads()],
  [0.05, (run) => run.model.fetchConfig(run.anybody())],
  [0.012, (run) => run.model.proposeRemove(run.primary(), run.id())],
  [0.05, (run) => run.add()],
  [0.01, (run) => run.model.repeatProposal(run.primary())],
  [0.03, (run) => run.proposal()],
  [0.03, (run) => run.answer()],
  [0.04, (run) => run.model.completeSwap()],
  [0.02, (run) => run.model.report(run.anybody())],
  [0.006, (run) => run.elect()],
  [0.004, (run) => run.crash()],
  [0.012, (run) => run.model.restart(run.anybody())],
  [0.004, (run) => run.model.handOver(run.primary(), run.id())],
  [0.004, (run) => run.giveUp()],
  // Things that go well, several steps at once: without them most runs stay in shallow water.
  [0.08, (run) => run.catchUp(run.primary(), run.anybody())],
  [0.03, (run) => run.commitAtOnce(run.primary())],
  [0.03, (run) => run.renewLeases(run.primary())],
  [0.015, (run) => run.removeAtOnce(run.primary())],
  [0.015, (run) => run.handOverAtOnce(run.primary())],
  [0.02, (run) => run.newestProposalAtOnce()],
  [0.01, (run) => run.electAtOnce()],
];

export function runModel(options: RunOptions): RunResult {
  return new Run(options).go();
}

class Run {
  readonly model: CoreModel;
  readonly #steps: number;
  readonly #thresholds: Float64Array;
  #state: number;

  constructor({ seed, steps = STEPS_PER_RUN, mutant = null }: RunOptions) {
    this.#state = seed >>> 0;
    this.#steps = steps;
    const replicas = 3 + this.#below(3), minInSync = this.#random() < 0.3 ? 1 : 2;
    this.model = new CoreModel({ replicas, minInSync, mutant, random: () => this.#random() });
    const weights = ACTIONS.map(([weight]) => weight * Math.pow(12, 2 * this.#random() - 1));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    let sum = 0;
    this.#thresholds = Float64Array.from(weights, (weight) => sum += weight / total);
  }

  go(): RunResult {
    const { model } = this;
    for (let step = 0; step < this.#steps; step++) {
      const draw = this.#random();
      let action = 0;
      while (action < ACTIONS.length - 1 && this.#thresholds[action]! <= draw) action += 1;
      try {
        ACTIONS[action]![1](this);
        model.check();
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        return { stats: model.stats, steps: step + 1, violation: error.message };
      }
    }
    return { stats: model.stats, steps: this.#steps, violation: null };
  }

  /** mulberry32: small, fast, and its whole state is one number. */
  #random(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  #below(count: number): number {
    return Math.floor(this.#random() * count);
  }

  id(): number {
    return this.#below(this.model.replicas.length);
  }

  anybody(): Replica {
    return this.model.replicas[this.id()]!;
  }

  /** One of those who believe to be primary, if there is any. */
  primary(): Replica {
    const { replicas } = this.model, first = this.id();
    for (let i = 0; i < replicas.length; i++) {
      const replica = replicas[(first + i) % replicas.length]!;
      if (replica.primary) return replica;
    }
    return replicas[first]!;
  }

  sync(): void {
    const replica = this.anybody(), { length } = replica.queue;
    this.model.sync(replica, this.#random() < 0.7 ? length : 1 + this.#below(length));
  }

  append(): void {
    const primary = this.primary(), to = this.anybody();
    if (!primary.primary || primary === to) return;
    if (this.#random() < 0.7) this.model.meet(primary, to);
    const hint = primary.next[to.id]!, { length } = primary.log;
    const from = hint >= 0
      ? hint
      : this.#random() < 0.7
      ? primary.match[to.id]! || primary.start
      : length - this.#below(4);
    primary.next[to.id] = -1;
    this.model.sendAppend(primary, to, from, 1 + this.#below(8));
  }

  heartbeat(): void {
    const primary = this.primary();
    if (!primary.primary) return;
    this.model.nextBeat(primary);
    for (const to of this.model.replicas) {
      if (this.#random() < 0.8) this.model.sendHeartbeat(primary, to);
    }
  }

  deliver(): void {
    const { length } = this.model.network;
    if (length === 0) return;
    const index = this.#below(length);
    if (this.#random() < 0.03) this.model.network.splice(index, 1);
    else this.model.deliver(index, this.#random() < 0.07);
  }

  readByLease(): void {
    for (const replica of this.model.replicas) if (replica.primary) this.model.readByLease(replica);
  }

  beginRead(): void {
    const mode = this.#random() < 0.5 ? "confirm" : "record";
    this.model.beginRead(this.primary(), mode, this.#below(4));
  }

  answerReads(): void {
    const primary = this.primary(), draw = this.#random();
    if (draw < 0.35) this.model.lookUpRecord(primary);
    else if (draw < 0.7) this.model.answerByRecord(primary);
    else this.model.confirmReads(primary);
  }

  add(): void {
    const primary = this.primary();
    this.model.proposeAdd(primary, primary.pendingAdd >= 0 ? primary.pendingAdd : this.id());
  }

  proposal(): void {
    const { length } = this.model.proposals;
    if (length === 0) return;
    const index = this.#below(length), proposal = this.model.proposals[index]!;
    const draw = this.#random();
    if (draw < 0.05) this.model.proposals.splice(index, 1);
    else if (draw < 0.08) this.model.fence(proposal);
    else {
      const again = this.#random() < 0.2, knowsMember = this.#random() < 0.9;
      this.model.receiveProposal(index, { again, knowsMember });
    }
  }

  answer(): void {
    const { length } = this.model.answers;
    if (length === 0) return;
    const index = this.#below(length);
    if (this.#random() < 0.05) this.model.answers.splice(index, 1);
    else this.model.deliverAnswer(index, this.#random() < 0.1);
  }

  /** Whom the coordinator believes to be there need not be. */
  elect(): void {
    const { replicas, mutant } = this.model;
    let answered = 0;
    for (const replica of replicas) {
      if (replica.up ? this.#random() < 0.7 : this.#random() < 0.1) answered |= 1 << replica.id;
    }
    if (mutant !== "non-member-elected" && countOf(answered) === 0) return;
    this.model.elect(this.#candidate(answered), answered, this.#random() < 0.5);
  }

  /** Often the one with the longest log, as the coordinator prefers; never only that one. */
  #candidate(answered: number): number {
    const { replicas, record } = this.model;
    const present = answered & record.inSync;
    const pool = replicas.filter(({ id }) =>
      ((present !== 0 ? present : answered & record.eligible) & (1 << id)) !== 0
    );
    if (pool.length === 0 || this.model.mutant === "non-member-elected") return this.id();
    if (this.#random() < 0.5) return pool[this.#below(pool.length)]!.id;
    const rank = ({ log }: Replica) =>
      log.length === 0 ? 0 : epochOf(log.at(-1)!) * 100 + log.length;
    return pool.reduce((best, replica) => rank(replica) > rank(best) ? replica : best).id;
  }

  crash(): void {
    const all = this.#random() < 0.15;
    for (const replica of all ? this.model.replicas : [this.anybody()]) {
      this.model.crash(replica, this.#below(replica.queue.length + 1));
    }
  }

  /** A replica receives what it lacks, writes it and says so. */
  catchUp(primary: Replica, peer: Replica): void {
    const { model } = this;
    if (!primary.primary || primary === peer) return;
    model.meet(primary, peer);
    const hint = primary.next[peer.id]!;
    const from = hint >= 0 ? hint : primary.match[peer.id]! || primary.start;
    primary.next[peer.id] = -1;
    model.sendAppend(primary, peer, from, primary.log.length);
    model.deliver(model.network.length - 1, false);
    model.sync(peer, peer.queue.length);
    model.deliver(model.network.length - 1, false);
    if (this.#random() < 0.8) model.sync(primary, primary.queue.length);
  }

  /** A request, to all members but now and then one. */
  commitAtOnce(primary: Replica): void {
    const { model } = this;
    if (!primary.primary) return;
    model.request(primary);
    model.sync(primary, primary.queue.length);
    for (const peer of model.replicas) {
      if (has(primary.config.inSync, peer.id) && this.#random() < 0.9) this.catchUp(primary, peer);
    }
  }

  /** Of all but now and then one. */
  renewLeases(primary: Replica): void {
    const { model } = this;
    if (!primary.primary) return;
    model.nextBeat(primary);
    for (const peer of model.replicas) {
      if (primary === peer || this.#random() < 0.1) continue;
      model.meet(primary, peer);
      model.sendHeartbeat(primary, peer);
      model.deliver(model.network.length - 1, false);
      model.sync(peer, peer.queue.length);
      model.deliver(model.network.length - 1, false);
    }
  }

  removeAtOnce(primary: Replica): void {
    this.model.proposeRemove(primary, this.id());
    if (primary.proposal !== null) this.newestProposalAtOnce();
  }

  handOverAtOnce(primary: Replica): void {
    const { model } = this, successor = this.anybody();
    model.handOver(primary, successor.id);
    if (primary.handOverTo !== successor.id) return;
    this.catchUp(primary, successor);
    if (!primary.relinquished) return;
    this.newestProposalAtOnce();
    model.fetchConfig(successor);
  }

  /** The answer may still get lost. */
  newestProposalAtOnce(): void {
    const { model } = this;
    const index = model.proposals.length - 1, again = this.#random() < 0.3;
    model.receiveProposal(index, { again, knowsMember: true });
    model.completeSwap();
    if (this.#random() < 0.5) model.deliverAnswer(model.answers.length - 1, false);
  }

  electAtOnce(): void {
    this.elect();
    this.model.completeSwap();
    this.model.fetchConfig(this.model.replicas[this.model.record.primary]!);
  }

  giveUp(): void {
    const primary = this.primary();
    if (this.#random() < 0.5) this.model.giveUpAdd(primary);
    else this.model.stay(primary);
  }
}
