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
 * Not here: who wins an election (election.ts), what a proposal changes (config_change.ts), what nodes
 * say (known_nodes.ts), where records are kept (disk/metadata.ts), how messages travel (roles/coordinator.ts).
 */
import type { GroupPlan } from "../proto/cluster_config.ts";
import type { StoreReport } from "../proto/control.ts";
import {
  type Epoch,
  epoch as toEpoch,
  type GroupId,
  groupId,
  isCopyOf,
  type NodeId,
  nodeId,
} from "../proto/ids.ts";
import type { GroupConfig, Member } from "../proto/replication.ts";
import { changedConfig, enough } from "./config_change.ts";
import type {
  CoordinatorEffect,
  CoordinatorInput,
  CoordinatorTiming,
  Proposal,
} from "./coordinator_types.ts";
import { decide, electableIn, type Election, isDeaf } from "./election.ts";
import { invariant } from "./invariant.ts";
import { isSuspect, type KnownNode, KnownNodes, storeIn } from "./known_nodes.ts";
import { mutated } from "./mutant.ts";

export type {
  CoordinatorEffect,
  CoordinatorInput,
  CoordinatorTiming,
} from "./coordinator_types.ts";
export { DEFAULT_TIMING } from "./coordinator_types.ts";

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
/** The one reason for which an epoch may rise by more than one (B1). */
const RECOVERED = "recovered from the nodes";
const LEARNERS_EVERY_MS = 3_000;
const HAND_OVER_EVERY_MS = 2_000;

export class Coordinator {
  readonly #groups = new Map<GroupId, Group>();
  readonly #nodes = new KnownNodes();
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

  /** Whether every group is led and nothing is being changed: then a tick now and then is enough. */
  get isCalm(): boolean {
    for (const { config, election, swapping } of this.#groups.values()) {
      if (config === null || election !== null || swapping !== null) return false;
      // An office may be on its way, or have to be moved back.
      if (this.#nodes.get(config.primary.node)?.down !== false) return false;
    }
    return true;
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
    const known = this.#nodes.onReport(node, { spawnId, report, nowMs: this.#nowMs });
    if (known === null) return;
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
    for (const [node, known] of this.#nodes.onExited(spawnId)) {
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

  #maybeDecide(gid: GroupId, group: Group): void {
    const { election, config, plan, suspects } = group;
    if (election === null || config === null || group.swapping !== null) return;
    if (this.#isListening(group)) return;
    const nodes = this.#nodes, timing = this.#timing, nowMs = this.#nowMs;
    const verdict = decide({ gid, plan, config, election, suspects, nodes, timing, nowMs });
    if (verdict.kind === "vetoed") group.election = null;
    else if (verdict.kind === "elected") {
      this.#install(gid, group, verdict.primary, verdict.inSync);
    }
  }

  /**
   * After a start the record may be an old copy that somebody put back. So before anything is changed
   * by it, all members have a while to say that they are past it (B6).
   */
  #isListening(group: Group): boolean {
    if (this.#nowMs - this.#startedMs >= LISTEN_MS) return false;
    const isUnheard = (node: NodeId) => this.#nodes.get(node) === undefined;
    return group.plan.members.some((id) => isUnheard(nodeId(id))) ||
      this.#electable(group).some((member) => isUnheard(member.node));
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
      eligible: enough(inSync, config) ? [] : left,
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
    const view = { gid, plan: group.plan, config, nodes: this.#nodes, nowMs: this.#nowMs };
    if (change.kind === "remove" && isDeaf(view, change.member)) {
      refuse();
      return this.#elect(gid, group, { reason: "it is deaf", bySilence: true, deaf: true });
    }
    const next = changedConfig(config, change, this.#nodes);
    if (next !== null) {
      this.#swap(proposal.gid, group, requestId, { ...next, changeId: proposal.changeId });
    } else if (change.kind === "remove") {
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
      return member.node !== primary.node && this.#nodes.mayCount(gid, member) &&
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

  #electable(group: Group): Member[] {
    return electableIn(group.config);
  }

  #isElectable(group: Group, node: NodeId): boolean {
    return this.#electable(group).some((member) => member.node === node);
  }
}
