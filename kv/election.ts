/**
 * Who becomes primary of a group, and whether it is time to say so: the coordinator's rules for one
 * election, without anything that they change.
 *
 * Those who could lead are asked where they stand. As soon as all who matter have answered, or the wait
 * for them is over, the one with the longest log leads, and all who answered and have everything are in
 * sync with it. A member in sync has every committed entry; one that is eligible had, when too few were
 * left to commit more. Nobody else is ever elected (B2).
 */
import type { GroupPlan } from "../proto/cluster_config.ts";
import { type GroupId, type NodeId, nodeId } from "../proto/ids.ts";
import type { GroupConfig, Member } from "../proto/replication.ts";
import type { CoordinatorTiming } from "./coordinator_types.ts";
import { type KnownNodes, storeIn } from "./known_nodes.ts";
import { mutated } from "./mutant.ts";

export interface Election {
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

/** All that one decision goes by. */
export interface ElectionView {
  readonly gid: GroupId;
  readonly plan: GroupPlan;
  readonly config: GroupConfig;
  readonly election: Election;
  /** Members that say they do not hear the primary. */
  readonly suspects: ReadonlyMap<NodeId, number>;
  readonly nodes: KnownNodes;
  readonly timing: CoordinatorTiming;
  readonly nowMs: number;
}

export type Verdict =
  | { readonly kind: "wait" | "vetoed" }
  | { readonly kind: "elected"; readonly primary: Member; readonly inSync: readonly Member[] };

const WAIT: Verdict = { kind: "wait" };

/** Whoever can be elected at all. */
export const electableIn = (config: GroupConfig | null): Member[] =>
  config === null ? [] : [...config.inSync, ...config.eligible];

/** Decides as soon as nobody who matters is still to be heard; asked whenever that may change. */
export function decide(view: ElectionView): Verdict {
  const { gid, config, election, nodes, timing, nowMs } = view;
  const waitedMs = nowMs - election.sinceMs;
  const oldPrimary = config.primary.node;
  const mayBeVetoed = election.bySilence && !election.deaf && !election.priorReignDead;
  if (mayBeVetoed && isVetoed(view)) return { kind: "vetoed" };
  const mayServe = (member: Member) => {
    if (!nodes.mayCount(gid, member) || !election.answered.has(member.node)) return false;
    if (forgot(view, member.node)) return false;
    // Its members do not hear it, so it could not lead even if we hear it well.
    return !(election.bySilence && !election.priorReignDead && member.node === oldPrimary);
  };
  const inSync = mutated("non-member-elected")
    ? knownMembers(view).filter(mayServe)
    : config.inSync.filter(mayServe);
  const outstanding = config.inSync.filter((member) =>
    nodes.mayCount(gid, member) && !election.answered.has(member.node)
  );
  const enough = inSync.length >= config.minInSync;
  if (outstanding.length > 0 && waitedMs < timing.pollMs) return WAIT;
  const eligible = config.eligible.filter(mayServe);
  if (inSync.length > 0) {
    // Waiting for the longer log is a kindness: fewer requests end with an unknown outcome.
    const allHeard = outstanding.length === 0 && restIsHeard(view, inSync);
    if (!enough && !allHeard && waitedMs < timing.coldStartWaitMs) return WAIT;
    return bestOf(view, agreeing(view, inSync, eligible));
  }
  if (waitedMs < timing.coldStartWaitMs) return WAIT;
  return bestOf(view, agreeing(view, eligible, []));
}

/** The longest log; among equals the wished primary, then the lowest number. */
function bestOf(view: ElectionView, candidates: readonly Member[]): Verdict {
  const { gid, plan, nodes } = view;
  const rank = ({ node }: Member) => {
    const { report: { draining, diskFull } } = nodes.get(node)!;
    const report = nodes.reportOf(gid, node);
    return {
      epoch: report?.lastEpoch ?? 0,
      lsn: report?.lastLsn ?? 0,
      draining: draining || diskFull === true ? 1 : 0,
      wish: plan.members.indexOf(node),
    };
  };
  const [primary] = candidates.toSorted((a, b) => {
    const x = rank(a), y = rank(b);
    return x.draining - y.draining || y.epoch - x.epoch || y.lsn - x.lsn || x.wish - y.wish;
  });
  return primary === undefined ? WAIT : { kind: "elected", primary, inSync: candidates };
}

/**
 * Who may lead, of those who answered. A member whose disk may have lied, and lost the end of its
 * log, does not count alone: somebody else has to be there as well, in sync or eligible, and the
 * longest log of all of them is taken. One that did not lose anything has everything. Who is known
 * to have lost something bears witness too: it would just not have been the longest.
 */
function agreeing(
  { gid, config, election, nodes }: ElectionView,
  members: readonly Member[],
  others: readonly Member[],
): readonly Member[] {
  const isDoubted = ({ node }: Member) => nodes.reportOf(gid, node)?.doubted === true;
  if (!members.some(isDoubted) || mutated("doubt-ignored")) return members;
  const all = [...members, ...others];
  const present = electableIn(config).filter((member) =>
    nodes.mayCount(gid, member) && election.answered.has(member.node)
  );
  return present.length >= 2 || !all.every(isDoubted) ? all : [];
}

/**
 * B7: every member that could be elected has all that was ever committed. One whose log ends before
 * what somebody knows to be committed has lost it, or its report is overtaken by others'; either way
 * it is not elected by this report.
 */
function forgot({ gid, config, nodes }: ElectionView, node: NodeId): boolean {
  // What a forced election gave up is no longer committed, whoever remembers it.
  const committed = nodes.committedLsn(gid, config.forcedEpoch ?? 0);
  return (nodes.reportOf(gid, node)?.lastLsn ?? 0) < committed;
}

/** Whether all members in sync but `present` have ended or been heard, rather than are just silent. */
function restIsHeard(
  { config, election, nodes }: ElectionView,
  present: readonly Member[],
): boolean {
  return config.inSync.every((member) =>
    present.includes(member) || election.answered.has(member.node) ||
    nodes.get(member.node)?.down === true
  );
}

/** Whether a member still hears the primary that others do not hear. */
function isVetoed({ gid, config, election, suspects, nodes, timing }: ElectionView): boolean {
  return config.inSync.some(({ node }) => {
    if (node === config.primary.node || !election.answered.has(node)) return false;
    if (suspects.has(node)) return false;
    const report = nodes.reportOf(gid, node);
    return report !== undefined && report.epoch === config.epoch &&
      report.silentMs < timing.reportTimeoutMs / 2;
  });
}

function knownMembers({ gid, plan, nodes }: ElectionView): Member[] {
  return plan.members.flatMap((id) => {
    const node = nodeId(id), known = nodes.get(node);
    return known === undefined ? [] : [{ node, store: storeIn(known, gid) }];
  });
}

/**
 * A primary that wants its last companion out although we hear it, and enough others, is the one
 * that does not hear: a link that fails in one direction. With the companion out nothing could be
 * written until the link heals; under another primary it can.
 */
export function isDeaf(
  { gid, plan, config, nodes, nowMs }: Omit<ElectionView, "election" | "suspects" | "timing">,
  leaving: Member,
): boolean {
  const { inSync, minInSync, primary } = config;
  if (inSync.length - 1 >= minInSync || leaving.node === primary.node) return false;
  if (!inSync.some(({ node, store }) => node === leaving.node && store === leaving.store)) {
    return false;
  }
  const others = plan.members.map(nodeId).filter((node) => node !== primary.node);
  return nodes.isAlive(leaving.node, nowMs) && nodes.mayCount(gid, leaving) &&
    others.filter((node) => nodes.isAlive(node, nowMs)).length >= minInSync;
}
