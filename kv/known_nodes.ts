/**
 * What backends last said of themselves, as the coordinator heard it: which life of which data folder each
 * is, whether that life is known to have ended, and where its replicas stand.
 *
 * It decides nothing; coordinator.ts, election.ts and config_change.ts ask it.
 */
import type { GroupReport, StoreReport } from "../proto/control.ts";
import { type GroupId, type Incarnation, type Lsn, lsn as toLsn } from "../proto/ids.ts";
import type { NodeId, StoreId } from "../proto/ids.ts";
import type { Member } from "../proto/replication.ts";

export interface KnownNode {
  store: StoreId;
  inc: Incarnation;
  spawnId: string | null;
  reportedMs: number;
  /** This incarnation is known to have ended. */
  down: boolean;
  report: StoreReport;
}

/** Who reported within this time is there; nodes report twice a second. */
const ALIVE_MS = 1_200;
const EXITED_MAX = 10_000;

export class KnownNodes {
  readonly #nodes = new Map<NodeId, KnownNode>();
  readonly #exited = new Set<string>();

  get(node: NodeId): KnownNode | undefined {
    return this.#nodes.get(node);
  }

  /** Null for a late message of an earlier life of the same store: it says nothing about today. */
  onReport(
    node: NodeId,
    { spawnId, report, nowMs }: { spawnId: string | null; report: StoreReport; nowMs: number },
  ): KnownNode | null {
    const before = this.#nodes.get(node);
    if (before !== undefined && before.store === report.store && report.inc < before.inc) {
      return null;
    }
    const { store, inc } = report;
    const samelife = before?.store === store && before.inc === inc;
    const known: KnownNode = {
      store,
      inc,
      spawnId: spawnId ?? (samelife ? before.spawnId : null),
      reportedMs: nowMs,
      down: samelife && before.down,
      report,
    };
    if (known.spawnId !== null && this.#exited.has(known.spawnId)) known.down = true;
    this.#nodes.set(node, known);
    return known;
  }

  /** A process ended: those whose life it was. */
  *onExited(spawnId: string): Iterable<[NodeId, KnownNode]> {
    this.#exited.add(spawnId);
    if (this.#exited.size > EXITED_MAX) this.#exited.delete(this.#exited.values().next().value!);
    for (const [node, known] of this.#nodes) {
      if (known.spawnId !== spawnId || known.down) continue;
      known.down = true;
      yield [node, known];
    }
  }

  isAlive(node: NodeId, nowMs: number): boolean {
    const known = this.#nodes.get(node);
    return known !== undefined && !known.down && nowMs - known.reportedMs < ALIVE_MS;
  }

  /** Whether a node that is not known to be gone has this very copy, and finds it sound. */
  mayCount(gid: GroupId, member: Member): boolean {
    const known = this.#nodes.get(member.node);
    return known !== undefined && !known.down && storeIn(known, gid) === member.store &&
      !isSuspect(known, gid);
  }

  reportOf(gid: GroupId, node: NodeId): GroupReport | undefined {
    const known = this.#nodes.get(node);
    return known === undefined ? undefined : groupReport(known, gid);
  }

  /** Up to where somebody who is at `sinceEpoch` or later knows the group's log to be committed. */
  committedLsn(gid: GroupId, sinceEpoch: number): Lsn {
    let committed: Lsn = toLsn(0);
    for (const known of this.#nodes.values()) {
      const report = groupReport(known, gid);
      if (report === undefined || report.epoch < sinceEpoch) continue;
      if (report.commitLsn > committed) committed = report.commitLsn;
    }
    return committed;
  }
}

export const groupReport = (known: KnownNode, gid: GroupId): GroupReport | undefined =>
  known.report.groups.find((item) => item.gid === gid);

/** What the node's replica of this group goes by. */
export const storeIn = (known: KnownNode, gid: GroupId): StoreId =>
  groupReport(known, gid)?.store ?? known.store;

export const isSuspect = (known: KnownNode, gid: GroupId): boolean =>
  groupReport(known, gid)?.suspect === true;
