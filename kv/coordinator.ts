/**
 * The coordinator's rules: who is primary of each group, and which replicas count.
 *
 * The story: it keeps one durable configuration a group and changes it only by compare-and-swap on
 * the epoch. A primary asks to take out a dead member or to add one that has caught up. When a
 * primary is gone, its group's members are asked where they stand, and the one with the longest log
 * among those in sync takes over. It is not in the path of any read or write: while it is down, all
 * goes on, only reconfiguration waits.
 *
 * It does no I/O and reads no clock: `step()` is told what happened and answers with what to do.
 *
 * Invariants (asserted here, attacked in tests/sim/):
 *   B1  every change raises the epoch by exactly one
 *   B2  only a member in sync, or if none answers an eligible one, becomes primary
 *   B3  at least one member is in sync or eligible
 *   B6  a node that is at a newer epoch than the record, or holds data of a group that has none, means
 *       that the metadata went back in time; the group is then left alone
 *   B7  a replica that reports damage, or whose log ends before what another knows to be committed,
 *       is not counted on: its disk has lied; one whose disk may have lied is not counted on alone
 * Together with the rule of replica.ts that an entry needs all members in sync, and at least
 * `minInSync` of them, they keep this true at every instant: every member that could be elected has
 * every committed entry on its disk.
 *
 * Start at {@link Coordinator.step}. Follows PacificA (Lin et al. 2008, §2) and Kafka's KIP-966.
 * Not here: where records are kept (disk/metadata.ts), how messages travel (roles/coordinator.ts).
 */
import type { GroupReport, StoreReport } from "../proto/control.ts";
import type { GroupPlan } from "../proto/cluster_config.ts";
import {
  type Epoch,
  epoch as toEpoch,
  type GroupId,
  groupId,
  type Incarnation,
  isCopyOf,
  type Lsn,
  lsn as toLsn,
  type NodeId,
  nodeId,
  type StoreId,
} from "../proto/ids.ts";
import type { ConfigChange, GroupConfig, Member } from "../proto/replication.ts";
import { invariant } from "./invariant.ts";
import { mutated } from "./mutant.ts";

export interface CoordinatorTiming {
  /** A node that has not reported for this long is not counted on. */
  readonly reportTimeoutMs: number;
  /** How long members may take to answer before an election. */
  readonly pollMs: number;
  /** How long an election waits for more members when too few answered to write. */
  readonly coldStartWaitMs: number;
  /** How long a group must have been quiet before its primary is moved to where it is wished. */
  readonly rebalanceAfterMs: number;
}

export const DEFAULT_TIMING: Omit<CoordinatorTiming, "coldStartWaitMs"> = {
  reportTimeoutMs: 2_500,
  pollMs: 300,
  rebalanceAfterMs: 8_000,
};

export type CoordinatorInput =
  | { kind: "tick" }
  /** A backend says who it is and where its replicas stand, unasked or when polled. */
  | { kind: "report"; node: NodeId; spawnId: string | null; report: StoreReport }
  | { kind: "exited"; spawnId: string }
  | { kind: "suspect"; gid: GroupId; node: NodeId; epoch: Epoch }
  | { kind: "propose"; requestId: number; proposal: Proposal }
  /** A person accepts the loss of what `node` lacks (T6). */
  | { kind: "force"; requestId: number; gid: GroupId; node: NodeId }
  /** All nodes told what they adopted last; `configs` are the newest. */
  | { kind: "recover"; configs: readonly GroupConfig[] }
  /** The answer to `swap`: done, or the record is at another epoch, which is then given. */
  | { kind: "swapped"; gid: GroupId; done: boolean; config: GroupConfig | null };

export interface Proposal {
  readonly gid: GroupId;
  readonly node: NodeId;
  readonly store: StoreId;
  readonly inc: Incarnation;
  readonly epoch: Epoch;
  readonly changeId: string;
  readonly change: ConfigChange;
}

export type CoordinatorEffect =
  /** Replace the durable record if it is still at `expected` (0: if there is none). */
  | { kind: "swap"; gid: GroupId; expected: Epoch; config: GroupConfig }
  | { kind: "answer"; requestId: number; result: "done" | "refused"; config: GroupConfig | null }
  | { kind: "sendConfig"; to: NodeId; config: GroupConfig; learners: readonly Member[] }
  | { kind: "poll"; node: NodeId }
  | { kind: "memberDown"; to: NodeId; gid: GroupId; node: NodeId; inc: Incarnation }
  | { kind: "handOver"; to: NodeId; gid: GroupId; successor: NodeId }
  /** The map changed. */
  | { kind: "routesChanged" }
  | { kind: "log"; event: string; gid: GroupId; epoch: Epoch; reason: string };

interface KnownNode {
  store: StoreId;
  inc: Incarnation;
  spawnId: string | null;
  reportedMs: number;
  /** This incarnation is known to have ended. */
  down: boolean;
  report: StoreReport;
}

interface Election {
  readonly sinceMs: number;
  readonly answered: Set<NodeId>;
  readonly reason: string;
  /** Whether the reign that ends is certainly over. */
  priorReignDead: boolean;
  /** Suspected by silence alone: a member that still hears the primary has a veto. */
  readonly bySilence: boolean;
  /** It hears nobody, though it may be heard: nobody's veto counts. */
  readonly deaf: boolean;
  polledMs: number;
}

interface Group {
  readonly plan: GroupPlan;
  config: GroupConfig | null;
  election: Election | null;
  /** A swap is under way; its requester, if any, waits for the answer. */
  swapping: {
    requestId: number | null;
    config: GroupConfig;
    /** The swap is there to refuse what was asked. */
    refuses: boolean;
  } | null;
  suspects: Map<NodeId, number>;
  changedMs: number;
  learnersSent: string;
  learnersSentMs: number;
  rolledBack: boolean;
  /** When its primary was last asked to leave because its disk is full. */
  relievedMs: number;
}

const POLL_AGAIN_MS = 500;
/** Several reports' time, and that of connecting again. */
const LISTEN_MS = 2_000;
/** Who reported within this time is there; nodes report twice a second. */
const ALIVE_MS = 1_200;
/** The one reason for which an epoch may rise by more than one (B1). */
const RECOVERED = "recovered from the nodes";
const LEARNERS_EVERY_MS = 3_000;
const HAND_OVER_EVERY_MS = 2_000;

export class Coordinator {
  readonly #groups = new Map<GroupId, Group>();
  readonly #nodes = new Map<NodeId, KnownNode>();
  readonly #exited = new Set<string>();
  readonly #timing: CoordinatorTiming;
  readonly #minInSync: number;
  readonly #startedMs: number;
  readonly #makeId: () => string;
  #nowMs: number;
  #handedOverMs = -Infinity;
  #effects: CoordinatorEffect[] = [];

  constructor(options: {
    plans: readonly GroupPlan[];
    configs: readonly GroupConfig[];
    minInSync: number;
    timing: CoordinatorTiming;
    nowMs: number;
    makeId: () => string;
  }) {
    this.#timing = options.timing;
    this.#minInSync = options.minInSync;
    this.#startedMs = options.nowMs;
    this.#nowMs = options.nowMs;
    this.#makeId = options.makeId;
    for (const plan of options.plans) {
      const gid = groupId(plan.id);
      this.#groups.set(gid, {
        plan,
        config: options.configs.find((config) => config.gid === gid) ?? null,
        election: null,
        swapping: null,
        suspects: new Map(),
        changedMs: options.nowMs,
        learnersSent: "",
        learnersSentMs: options.nowMs,
        rolledBack: false,
        relievedMs: -Infinity,
      });
    }
  }

  /** The one door. `nowMs` is monotonic. */
  step(nowMs: number, input: CoordinatorInput): CoordinatorEffect[] {
    this.#nowMs = Math.max(this.#nowMs, nowMs);
    switch (input.kind) {
      case "tick":
        this.#onTick();
        break;
      case "report":
        this.#onReport(input.node, input.spawnId, input.report);
        break;
      case "exited":
        this.#onExited(input.spawnId);
        break;
      case "suspect":
        this.#onSuspect(input.gid, input.node, input.epoch);
        break;
      case "propose":
        this.#onPropose(input.requestId, input.proposal);
        break;
      case "force":
        this.#onForce(input.requestId, input.gid, input.node);
        break;
      case "recover":
        for (const config of input.configs) this.#onRecover(config);
        break;
      case "swapped":
        this.#onSwapped(input);
        break;
    }
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** Read-only, for routes and the operator's view. */
  *groups(): Iterable<{
    gid: GroupId;
    plan: GroupPlan;
    config: GroupConfig | null;
    learners: readonly Member[];
    rolledBack: boolean;
  }> {
    for (const [gid, group] of this.#groups) {
      const { plan, config, rolledBack } = group;
      yield { gid, plan, config, rolledBack, learners: this.#learnersOf(group) };
    }
  }

  /**
   * Whether the group's record may be believed: a primary that cannot reach its members reads by it
   * (read_gate.ts), and an older copy would make one of long ago believe that it still is one.
   */
  vouchesFor(gid: GroupId): boolean {
    const group = this.#groups.get(gid);
    return group !== undefined && !group.rolledBack && !this.#isListening(group);
  }

  // --------------------------------------------------------------------- what nodes tell us

  #onReport(node: NodeId, spawnId: string | null, report: StoreReport): void {
    const before = this.#nodes.get(node);
    // A late message of an earlier life of the same store says nothing about today.
    if (before !== undefined && before.store === report.store && report.inc < before.inc) return;
    const { store, inc } = report;
    const samelife = before?.store === store && before.inc === inc;
    const known: KnownNode = {
      store,
      inc,
      spawnId: spawnId ?? (samelife ? before.spawnId : null),
      reportedMs: this.#nowMs,
      down: samelife && before.down,
      report,
    };
    if (known.spawnId !== null && this.#exited.has(known.spawnId)) known.down = true;
    this.#nodes.set(node, known);
    for (const [gid, group] of this.#groups) {
      if (!group.plan.members.includes(node) && !this.#isElectable(group, node)) continue;
      this.#onGroupReport(gid, group, node, known);
    }
  }

  #onGroupReport(gid: GroupId, group: Group, node: NodeId, known: KnownNode): void {
    const { config } = group;
    const reported = known.report.groups.find((item) => item.gid === gid);
    const epoch = reported?.epoch ?? toEpoch(0);
    if (config === null) {
      // One that begins anew from its checkpoint adopted nothing yet, and has data all the same.
      const holdsData = epoch > 0 || (reported?.lastLsn ?? 0) > 0;
      if (holdsData && !mutated("rollback-not-noticed")) group.rolledBack = true;
      return this.#maybeCreate(gid, group);
    }
    if (epoch > config.epoch && !mutated("rollback-not-noticed")) {
      group.rolledBack = true;
      // Begun while we knew no better, on the word of nodes that are behind as well.
      group.election = null;
      return;
    }
    if (config.primary.node === node) this.#judgePrimary(gid, group, known);
    else if (this.#gaveUp(config, known)) {
      // Its disk is of no use any more, so no commit should wait for it.
      const { inc } = known;
      this.#effects.push({ kind: "memberDown", to: config.primary.node, gid, node, inc });
    }
    if (group.election !== null) {
      group.election.answered.add(node);
      this.#maybeDecide(gid, group);
    }
    if (epoch < group.config!.epoch && group.swapping === null) this.#sendConfig(group, node);
    else this.#maybeSendLearners(group);
  }

  /** A primary's own report may show that its reign is over. */
  #judgePrimary(gid: GroupId, group: Group, known: KnownNode): void {
    const { primary } = group.config!;
    const store = storeIn(known, gid);
    const restarted = primary.inc < known.inc && !mutated("restart-not-noticed");
    if (primary.store === store && restarted) {
      // The same data folder is open in a newer process, which needs its exclusive lock.
      this.#elect(gid, group, { reason: "its process restarted", priorReignDead: true });
    } else if (primary.store === store && isSuspect(known, gid)) {
      this.#elect(gid, group, { reason: "its disk is damaged", priorReignDead: true });
    } else if (primary.store !== store && isCopyOf(known.store, primary.store)) {
      this.#elect(gid, group, { reason: "its copy was given up", priorReignDead: true });
    }
  }

  /** Whether a node says that its copy which is listed as in sync is damaged or was replaced. */
  #gaveUp({ gid, inSync }: GroupConfig, known: KnownNode): boolean {
    return inSync.some((member) =>
      isCopyOf(known.store, member.store) &&
      (isSuspect(known, gid) || storeIn(known, gid) !== member.store)
    );
  }

  #onExited(spawnId: string): void {
    this.#exited.add(spawnId);
    if (this.#exited.size > 10_000) this.#exited.delete(this.#exited.values().next().value!);
    for (const [node, known] of this.#nodes) {
      if (known.spawnId !== spawnId || known.down) continue;
      known.down = true;
      for (const [gid, group] of this.#groups) {
        const { config } = group;
        if (config === null || !this.#isElectable(group, node)) continue;
        const { primary } = config;
        const isPrimary = primary.node === node && isCopyOf(known.store, primary.store) &&
          primary.inc <= known.inc;
        if (isPrimary) {
          this.#elect(gid, group, { reason: "its process ended", priorReignDead: true });
        } else {
          const { inc } = known;
          this.#effects.push({ kind: "memberDown", to: primary.node, gid, node, inc });
          if (group.election !== null) this.#maybeDecide(gid, group);
        }
      }
    }
  }

  #onSuspect(gid: GroupId, node: NodeId, epoch: Epoch): void {
    const group = this.#groups.get(gid);
    if (group?.config == null || group.config.epoch !== epoch || group.election !== null) return;
    group.suspects.set(node, this.#nowMs);
    this.#elect(gid, group, { reason: "its members do not hear it", bySilence: true });
  }

  // ------------------------------------------------------------------------------ elections

  #elect(
    gid: GroupId,
    group: Group,
    options: { reason: string; priorReignDead?: boolean; bySilence?: boolean; deaf?: boolean },
  ): void {
    const { reason, priorReignDead = false, bySilence = false, deaf = false } = options;
    if (group.rolledBack) return;
    if (group.election !== null) {
      // Proof of death may arrive while we still wait because of mere silence.
      if (priorReignDead) group.election.priorReignDead = true;
      return this.#maybeDecide(gid, group);
    }
    group.election = {
      sinceMs: this.#nowMs,
      answered: new Set(),
      reason,
      priorReignDead,
      bySilence,
      deaf,
      polledMs: this.#nowMs,
    };
    this.#pollMembers(group);
    this.#maybeDecide(gid, group);
  }

  #pollMembers(group: Group): void {
    for (const member of this.#electable(group)) {
      const known = this.#nodes.get(member.node);
      if (known !== undefined && !known.down) {
        this.#effects.push({ kind: "poll", node: member.node });
      }
    }
  }

  /** Elects as soon as nobody who matters is still to be heard; called whenever that may change. */
  #maybeDecide(gid: GroupId, group: Group): void {
    const { election, config } = group;
    if (election === null || config === null || group.swapping !== null) return;
    if (this.#isListening(group)) return;
    const waitedMs = this.#nowMs - election.sinceMs;
    const oldPrimary = config.primary.node;
    const mayBeVetoed = election.bySilence && !election.deaf && !election.priorReignDead;
    if (mayBeVetoed && this.#vetoed(gid, group)) {
      group.election = null;
      return;
    }
    const mayServe = (member: Member) => {
      if (!this.#mayCount(gid, member) || !election.answered.has(member.node)) return false;
      if (this.#forgot(gid, group, member.node)) return false;
      // Its members do not hear it, so it could not lead even if we hear it well.
      return !(election.bySilence && !election.priorReignDead && member.node === oldPrimary);
    };
    const inSync = mutated("non-member-elected")
      ? this.#knownMembers(group).filter(mayServe)
      : config.inSync.filter(mayServe);
    const outstanding = config.inSync.filter((member) =>
      this.#mayCount(gid, member) && !election.answered.has(member.node)
    );
    const enough = inSync.length >= config.minInSync;
    if (outstanding.length > 0 && waitedMs < this.#timing.pollMs) return;
    const eligible = config.eligible.filter(mayServe);
    if (inSync.length > 0) {
      // Waiting for the longer log is a kindness: fewer requests end with an unknown outcome.
      const allHeard = outstanding.length === 0 && this.#restIsHeard(group, election, inSync);
      if (!enough && !allHeard && waitedMs < this.#timing.coldStartWaitMs) return;
      return this.#installBest(gid, group, this.#agreeing(gid, inSync, eligible));
    }
    if (waitedMs < this.#timing.coldStartWaitMs) return;
    this.#installBest(gid, group, this.#agreeing(gid, eligible, []));
  }

  #installBest(gid: GroupId, group: Group, candidates: readonly Member[]): void {
    if (candidates.length === 0) return;
    this.#install(gid, group, this.#best(gid, group, candidates), candidates);
  }

  /**
   * Who may lead, of those who answered. A member whose disk may have lied, and lost the end of its
   * log, does not count alone: somebody else has to be there as well, in sync or eligible, and the
   * longest log of all of them is taken. One that did not lose anything has everything. Who is known
   * to have lost something bears witness too: it would just not have been the longest.
   */
  #agreeing(
    gid: GroupId,
    members: readonly Member[],
    others: readonly Member[],
  ): readonly Member[] {
    const group = this.#groups.get(gid)!;
    const isDoubted = ({ node }: Member) =>
      groupReport(this.#nodes.get(node)!, gid)?.doubted === true;
    if (!members.some(isDoubted) || mutated("doubt-ignored")) return members;
    const all = [...members, ...others];
    const present = this.#electable(group).filter((member) =>
      this.#mayCount(gid, member) && group.election!.answered.has(member.node)
    );
    return present.length >= 2 || !all.every(isDoubted) ? all : [];
  }

  /**
   * After a start the record may be an old copy that somebody put back. So before anything is changed
   * by it, all members have a while to say that they are past it (B6).
   */
  #isListening(group: Group): boolean {
    if (this.#nowMs - this.#startedMs >= LISTEN_MS) return false;
    const isUnheard = (node: NodeId) => !this.#nodes.has(node);
    return group.plan.members.some((id) => isUnheard(nodeId(id))) ||
      this.#electable(group).some((member) => isUnheard(member.node));
  }

  /** Whether a node that is not known to be gone has this very copy, and finds it sound. */
  #mayCount(gid: GroupId, member: Member): boolean {
    const known = this.#nodes.get(member.node);
    return known !== undefined && !known.down && storeIn(known, gid) === member.store &&
      !isSuspect(known, gid);
  }

  /**
   * B7: every member that could be elected has all that was ever committed. One whose log ends before
   * what somebody knows to be committed has lost it, or its report is overtaken by others'; either way
   * it is not elected by this report.
   */
  #forgot(gid: GroupId, group: Group, node: NodeId): boolean {
    const since = group.config!.forcedEpoch ?? 0;
    let committed: Lsn = toLsn(0);
    for (const known of this.#nodes.values()) {
      const report = groupReport(known, gid);
      // What a forced election gave up is no longer committed, whoever remembers it.
      if (report === undefined || report.epoch < since) continue;
      if (report.commitLsn > committed) committed = report.commitLsn;
    }
    return (groupReport(this.#nodes.get(node)!, gid)?.lastLsn ?? 0) < committed;
  }

  /** Whether all members in sync but `present` have ended or been heard, rather than are just silent. */
  #restIsHeard(group: Group, election: Election, present: readonly Member[]): boolean {
    return group.config!.inSync.every((member) =>
      present.includes(member) || election.answered.has(member.node) ||
      this.#nodes.get(member.node)?.down === true
    );
  }

  /**
   * A primary that wants its last companion out although we hear it, and enough others, is the one
   * that does not hear: a link that fails in one direction. With the companion out nothing could be
   * written until the link heals; under another primary it can.
   */
  #isDeaf(gid: GroupId, { plan, config }: Group, leaving: Member): boolean {
    const { inSync, minInSync, primary } = config!;
    if (inSync.length - 1 >= minInSync || leaving.node === primary.node) return false;
    if (!inSync.some(({ node, store }) => node === leaving.node && store === leaving.store)) {
      return false;
    }
    const isAlive = (node: NodeId) => {
      const known = this.#nodes.get(node);
      return known !== undefined && !known.down && this.#nowMs - known.reportedMs < ALIVE_MS;
    };
    const others = plan.members.map(nodeId).filter((node) => node !== primary.node);
    return isAlive(leaving.node) && this.#mayCount(gid, leaving) &&
      others.filter(isAlive).length >= minInSync;
  }

  #vetoed(gid: GroupId, group: Group): boolean {
    const { election, config } = group;
    return config!.inSync.some((member) => {
      if (member.node === config!.primary.node || !election!.answered.has(member.node)) {
        return false;
      }
      if (group.suspects.has(member.node)) return false;
      const known = this.#nodes.get(member.node);
      const report = known === undefined ? undefined : groupReport(known, gid);
      return report !== undefined && report.epoch === config!.epoch &&
        report.silentMs < this.#timing.reportTimeoutMs / 2;
    });
  }

  /** The longest log; among equals the wished primary, then the lowest number. */
  #best(gid: GroupId, group: Group, candidates: readonly Member[]): Member {
    const rank = (member: Member) => {
      const known = this.#nodes.get(member.node)!;
      const report = groupReport(known, gid);
      return {
        epoch: report?.lastEpoch ?? 0,
        lsn: report?.lastLsn ?? 0,
        draining: known.report.draining || known.report.diskFull === true ? 1 : 0,
        wish: group.plan.members.indexOf(member.node),
      };
    };
    return candidates.toSorted((a, b) => {
      const x = rank(a), y = rank(b);
      return x.draining - y.draining || y.epoch - x.epoch || y.lsn - x.lsn || x.wish - y.wish;
    })[0]!;
  }

  /** T4 and T5: a new primary, with those who answered. */
  #install(gid: GroupId, group: Group, primary: Member, inSync: readonly Member[]): void {
    const config = group.config!, election = group.election!;
    invariant(
      this.#isElectable(group, primary.node) || mutated("non-member-elected"),
      "B2",
      () => `node ${primary.node} is neither in sync nor eligible in group ${gid}`,
    );
    const left = this.#electable(group).filter((member) => !inSync.includes(member));
    this.#swap(gid, group, null, {
      ...config,
      reign: toEpoch(config.epoch + 1),
      primary: { ...primary, inc: this.#nodes.get(primary.node)!.inc },
      inSync: [...inSync],
      eligible: this.#enough(inSync, config) ? [] : left,
      deadReign: election.priorReignDead || mutated("silence-is-death") ? config.reign : null,
      changeId: this.#makeId(),
      reason: `backend/${primary.node} elected: backend/${config.primary.node}, ${election.reason}`,
    });
  }

  // ------------------------------------------------------------------------------- changes

  #onPropose(requestId: number, proposal: Proposal): void {
    const group = this.#groups.get(proposal.gid);
    const config = group?.config ?? null;
    const refuse = (): void => {
      this.#effects.push({ kind: "answer", requestId, result: "refused", config });
    };
    if (group === undefined || config === null || group.rolledBack) return refuse();
    if (config.changeId === proposal.changeId) {
      this.#effects.push({ kind: "answer", requestId, result: "done", config });
      return;
    }
    const { primary } = config;
    const isPrimary = primary.node === proposal.node && primary.store === proposal.store &&
      primary.inc === proposal.inc;
    const isCurrent = config.epoch === proposal.epoch || mutated("proposal-epoch-not-checked");
    if (!isPrimary || !isCurrent || group.swapping !== null) return refuse();
    // It asks again.
    if (this.#isListening(group)) return refuse();
    const { gid, change } = proposal;
    if (change.kind === "remove" && this.#isDeaf(gid, group, change.member)) {
      refuse();
      return this.#elect(gid, group, { reason: "it is deaf", bySilence: true, deaf: true });
    }
    const next = this.#changed(config, proposal);
    if (next !== null) {
      this.#swap(proposal.gid, group, requestId, { ...next, changeId: proposal.changeId });
    } else if (proposal.change.kind === "remove") {
      refuse();
    } else {
      this.#refuseForGood(requestId, group, proposal);
    }
  }

  /**
   * A primary that was refused an addition stops counting the member, and one that was refused its
   * leave serves again. A copy of the request may still be under way and find better circumstances,
   * so the record moves past the epoch in which it was asked: then no copy can be granted.
   */
  #refuseForGood(requestId: number, group: Group, { gid, change }: Proposal): void {
    const reason = `refused: ${change.kind}`;
    const next = { ...group.config!, changeId: this.#makeId(), reason };
    this.#swap(gid, group, requestId, next, { refuses: true });
  }

  /**
   * T6: whoever a person names leads, whatever it lacks. Copies that adopted nothing since may hold
   * what is given up by this, so they begin anew (`forcedEpoch`).
   */
  #onForce(requestId: number, gid: GroupId, node: NodeId): void {
    const group = this.#groups.get(gid), config = group?.config ?? null;
    const known = this.#nodes.get(node);
    const refused = group === undefined || config === null || group.swapping !== null ||
      group.rolledBack || known === undefined || known.down || isSuspect(known, gid) ||
      !group.plan.members.includes(node);
    if (refused) {
      this.#effects.push({ kind: "answer", requestId, result: "refused", config });
      return;
    }
    const member = { node, store: storeIn(known, gid) };
    const reign = toEpoch(config.epoch + 1);
    this.#swap(gid, group, requestId, {
      ...config,
      reign,
      primary: { ...member, inc: known.inc },
      inSync: [member],
      eligible: [],
      forcedEpoch: reign,
      deadReign: null,
      changeId: this.#makeId(),
      reason: `backend/${node} forced to lead by an operator, who accepted the loss of data`,
    });
  }

  /** The record was lost or old. One epoch is skipped, for what the lost record may have begun. */
  #onRecover(newest: GroupConfig): void {
    const group = this.#groups.get(newest.gid);
    if (group === undefined || (group.config?.epoch ?? 0) >= newest.epoch) return;
    const from = group.config?.epoch ?? toEpoch(0);
    const config = {
      ...newest,
      epoch: toEpoch(newest.epoch + 2),
      changeId: this.#makeId(),
      reason: RECOVERED,
    };
    group.rolledBack = false;
    group.swapping = { requestId: null, config, refuses: false };
    this.#effects.push({ kind: "swap", gid: newest.gid, expected: from, config });
  }

  /** T1 to T3, and T4 when the primary itself asks for it; null when the guard does not hold. */
  #changed(config: GroupConfig, proposal: Proposal): GroupConfig | null {
    const { change } = proposal;
    const same = (a: Member, b: Member) => a.node === b.node && a.store === b.store;
    switch (change.kind) {
      case "remove": {
        const { member } = change;
        const inSync = config.inSync.filter((item) => !same(item, member));
        if (inSync.length === config.inSync.length || member.node === config.primary.node) {
          return null;
        }
        // Below the minimum nothing can be committed, so who leaves now stays complete.
        const eligible = this.#enough(inSync, config) ? [] : [...config.eligible, member];
        const reason = `backend/${member.node} left`;
        return { ...config, inSync, eligible, reason };
      }
      case "add": {
        const { member } = change;
        if (config.inSync.some((item) => item.node === member.node)) return null;
        if (!this.#mayCount(config.gid, member)) return null;
        const inSync = [...config.inSync, member];
        const eligible = this.#enough(inSync, config)
          ? []
          : config.eligible.filter((item) => !same(item, member));
        return { ...config, inSync, eligible, reason: `backend/${member.node} caught up` };
      }
      case "relinquish": {
        const { to } = change;
        if (!config.inSync.some((item) => same(item, to))) return null;
        if (!this.#mayCount(config.gid, to) || to.node === config.primary.node) return null;
        return {
          ...config,
          reign: toEpoch(config.epoch + 1),
          primary: { ...to, inc: this.#nodes.get(to.node)!.inc },
          deadReign: config.reign,
          reason: `backend/${config.primary.node} handed over to backend/${to.node}`,
        };
      }
    }
  }

  /**
   * A group without a record is a new one, or one whose record was lost. Empty members tell nothing:
   * their disks may have been replaced. So all that are planned have to be there, and hold nothing.
   */
  #maybeCreate(gid: GroupId, group: Group): void {
    if (group.rolledBack || group.swapping !== null) return;
    const present: Member[] = [];
    for (const id of group.plan.members) {
      const known = this.#nodes.get(nodeId(id));
      if (known === undefined || known.down || isSuspect(known, gid)) continue;
      present.push({ node: nodeId(id), store: storeIn(known, gid) });
    }
    const all = present.length === group.plan.members.length ||
      mutated("group-created-anew") && present.length >= this.#minInSync;
    const [first] = present;
    if (first === undefined || !all) return;
    this.#swap(gid, group, null, {
      gid,
      epoch: toEpoch(0),
      reign: toEpoch(1),
      primary: { ...first, inc: this.#nodes.get(first.node)!.inc },
      inSync: present,
      eligible: [],
      minInSync: this.#minInSync,
      deadReign: null,
      changeId: this.#makeId(),
      reason: "created",
    });
  }

  #swap(
    gid: GroupId,
    group: Group,
    requestId: number | null,
    next: GroupConfig,
    { refuses = false } = {},
  ): void {
    const expected = group.config?.epoch ?? toEpoch(0);
    const config = { ...next, epoch: toEpoch(expected + 1) };
    invariant(
      config.inSync.length > 0 &&
        config.inSync.some((member) => member.node === config.primary.node),
      "B3",
      () => `group ${gid} would have a primary that is not in sync`,
    );
    group.swapping = { requestId, config, refuses };
    this.#effects.push({ kind: "swap", gid, expected, config });
  }

  #onSwapped(input: CoordinatorInput & { kind: "swapped" }): void {
    const group = this.#groups.get(input.gid);
    if (group?.swapping == null) return;
    const { requestId, config: wanted, refuses } = group.swapping;
    group.swapping = null;
    const config = input.done ? wanted : input.config;
    const epoch = group.config?.epoch ?? 0;
    invariant(
      !input.done || wanted.epoch === epoch + 1 || wanted.reason === RECOVERED,
      "B1",
      () => `epoch ${wanted.epoch} after ${epoch}`,
    );
    group.config = config;
    group.election = null;
    group.suspects.clear();
    group.changedMs = this.#nowMs;
    group.learnersSent = "";
    if (requestId !== null) {
      const result = input.done && !refuses ? "done" : "refused";
      this.#effects.push({ kind: "answer", requestId, result, config });
    }
    if (config === null) return;
    const { gid, reason } = config;
    this.#effects.push({ kind: "log", event: "configuration", gid, epoch: config.epoch, reason });
    this.#effects.push({ kind: "routesChanged" });
    // The primary first: it brings the others along.
    this.#sendConfig(group, config.primary.node);
    for (const id of group.plan.members) {
      if (id !== config.primary.node) this.#sendConfig(group, nodeId(id));
    }
  }

  // --------------------------------------------------------------------------------- time

  #onTick(): void {
    for (const [gid, group] of this.#groups) {
      if (group.config === null) this.#maybeCreate(gid, group);
      else if (group.election !== null) {
        if (this.#nowMs - group.election.polledMs >= POLL_AGAIN_MS) {
          group.election.polledMs = this.#nowMs;
          this.#pollMembers(group);
        }
        this.#maybeDecide(gid, group);
      } else {
        this.#maybeReplaceSilentPrimary(gid, group);
        this.#maybeSendLearners(group);
        this.#maybeRelieve(gid, group);
        this.#maybeRebalance(gid, group);
      }
    }
  }

  /** A whole group restarted at once has no secondary that could have heard, and miss, a primary. */
  #maybeReplaceSilentPrimary(gid: GroupId, group: Group): void {
    const config = group.config!;
    const known = this.#nodes.get(config.primary.node);
    if (known?.down === true && isCopyOf(known.store, config.primary.store)) {
      this.#elect(gid, group, { reason: "its process ended", priorReignDead: true });
    }
  }

  /** A primary whose disk is full takes no writes; a member that has space can. */
  #maybeRelieve(gid: GroupId, group: Group): void {
    const { primary, inSync } = group.config!;
    if (this.#nodes.get(primary.node)?.report.diskFull !== true) return;
    if (this.#nowMs - group.relievedMs < HAND_OVER_EVERY_MS || group.swapping !== null) return;
    const successor = inSync.find((member) => {
      const known = this.#nodes.get(member.node);
      return member.node !== primary.node && this.#mayCount(gid, member) &&
        known!.report.diskFull !== true && !known!.report.draining;
    });
    if (successor === undefined) return;
    group.relievedMs = this.#nowMs;
    this.#effects.push({ kind: "handOver", to: primary.node, gid, successor: successor.node });
  }

  /** Moves an office back to where it is wished, one at a time, once everything is quiet. */
  #maybeRebalance(gid: GroupId, group: Group): void {
    const config = group.config!;
    const wished = nodeId(group.plan.members[0]!);
    if (config.primary.node === wished || group.swapping !== null || group.rolledBack) return;
    if (this.#nowMs - group.changedMs < this.#timing.rebalanceAfterMs) return;
    if (this.#nowMs - this.#handedOverMs < HAND_OVER_EVERY_MS) return;
    const known = this.#nodes.get(wished);
    const member = config.inSync.find((item) => item.node === wished);
    if (member === undefined || known === undefined || known.down || known.report.draining) return;
    if (known.report.diskFull === true) return;
    if (this.#nowMs - known.reportedMs > this.#timing.reportTimeoutMs) return;
    if (config.inSync.length < group.plan.members.length) return;
    this.#handedOverMs = this.#nowMs;
    this.#effects.push({ kind: "handOver", to: config.primary.node, gid, successor: wished });
  }

  #learnersOf(group: Group): Member[] {
    const { config } = group;
    if (config === null) return [];
    const { gid } = config;
    const learners: Member[] = [];
    for (const id of group.plan.members) {
      const node = nodeId(id), known = this.#nodes.get(node);
      if (known === undefined || known.down || known.report.draining) continue;
      if (this.#nowMs - known.reportedMs > this.#timing.reportTimeoutMs) continue;
      if (isSuspect(known, gid)) continue;
      const store = storeIn(known, gid);
      if (config.inSync.some((item) => item.node === node && item.store === store)) continue;
      learners.push({ node, store });
    }
    return learners;
  }

  #maybeSendLearners(group: Group): void {
    if (group.config === null || group.swapping !== null) return;
    const learners = this.#learnersOf(group);
    const signature = learners.map((member) => `${member.node}/${member.store}`).join();
    // Repeated now and then, because the message may be lost or overtaken by an older one.
    const fresh = this.#nowMs - group.learnersSentMs < LEARNERS_EVERY_MS;
    if (signature === group.learnersSent && fresh) return;
    this.#sendConfig(group, group.config.primary.node);
  }

  #sendConfig(group: Group, to: NodeId): void {
    const { config } = group;
    if (config === null) return;
    const learners = this.#learnersOf(group);
    if (to === config.primary.node) {
      group.learnersSentMs = this.#nowMs;
      group.learnersSent = learners.map((member) => `${member.node}/${member.store}`).join();
    }
    this.#effects.push({ kind: "sendConfig", to, config, learners });
  }

  /** Whether these can commit, after which whoever is not among them is no longer complete. */
  #enough(inSync: readonly Member[], config: GroupConfig): boolean {
    return inSync.length >= config.minInSync && !mutated("eligible-not-cleared");
  }

  #knownMembers(group: Group): Member[] {
    return group.plan.members.flatMap((id) => {
      const node = nodeId(id), known = this.#nodes.get(node);
      return known === undefined ? [] : [{ node, store: storeIn(known, group.config!.gid) }];
    });
  }

  #electable(group: Group): Member[] {
    return group.config === null ? [] : [...group.config.inSync, ...group.config.eligible];
  }

  #isElectable(group: Group, node: NodeId): boolean {
    return this.#electable(group).some((member) => member.node === node);
  }
}

const groupReport = (known: KnownNode, gid: GroupId): GroupReport | undefined =>
  known.report.groups.find((item) => item.gid === gid);

/** What the node's replica of this group goes by. */
const storeIn = (known: KnownNode, gid: GroupId): StoreId =>
  groupReport(known, gid)?.store ?? known.store;

const isSuspect = (known: KnownNode, gid: GroupId): boolean =>
  groupReport(known, gid)?.suspect === true;
