/**
 * What a backend does about moves of tablets: where it leads a group that gives a tablet away it drives
 * the move (move_source.ts), and where it leads one that a move is over for, it logs what is left to do.
 *
 * It goes by the coordinator's range map as it last heard it, and by what its logs say. Both only ever
 * go forward, so an old map makes it wait, or ask for what is refused, and nothing worse.
 */
import type { Env } from "../kv/env.ts";
import { type CorruptionError, KvError } from "../kv/errors.ts";
import { cleanUpStep } from "../kv/tablet_move.ts";
import type { GroupPlan } from "../proto/cluster_config.ts";
import type { GroupId } from "../proto/ids.ts";
import type { RangeMap } from "../proto/moves.ts";
import type { GroupShell } from "./backend_group.ts";
import type { BlobIntake } from "./blob_intake.ts";
import { MoveSource, PIECE_CELLS } from "./move_source.ts";
import type { PeerLinks } from "./peers.ts";

export interface TabletMoverOptions {
  readonly groups: ReadonlyMap<GroupId, GroupShell>;
  readonly plans: readonly GroupPlan[];
  readonly env: Env;
  readonly peers: PeerLinks;
  readonly intake: BlobIntake;
  readonly bytesPerSecond: number;
  /** See `BackendServiceOptions.onDamage`. */
  readonly onDamage: (group: GroupShell, error: CorruptionError) => boolean;
  /** Default: that of move_source.ts. */
  readonly pieceCells?: number;
}

/** One that cannot go on may find better circumstances. */
const AGAIN_AFTER_MS = 200;

export class TabletMover {
  readonly #options: TabletMoverOptions;
  #map: RangeMap | null = null;
  readonly #moving = new Set<GroupId>();
  readonly #clearing = new Set<GroupId>();
  #stopped = false;

  constructor(options: TabletMoverOptions) {
    this.#options = options;
  }

  /** As it was heard last; null: not at all. */
  get map(): RangeMap | null {
    return this.#map;
  }

  /** 0: none was heard of yet. */
  get mapVersion(): number {
    return this.#map?.version ?? 0;
  }

  onMap(map: RangeMap): void {
    if (map.version > this.mapVersion) this.#map = map;
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Called with every tick. */
  tick(): void {
    if (this.#stopped) return;
    for (const [gid, group] of this.#options.groups) {
      if (!group.replica.canServe()) continue;
      this.#maybeMove(gid, group);
      this.#maybeClear(gid, group);
    }
  }

  #maybeMove(gid: GroupId, group: GroupShell): void {
    const map = this.#map, record = map?.moves.find((move) => move.from === gid);
    if (map === null || record === undefined || this.#moving.has(gid)) return;
    const { groups, plans, env, peers, intake, bytesPerSecond, pieceCells } = this.#options;
    this.#moving.add(gid);
    const source = new MoveSource({
      env,
      group,
      record,
      peers,
      intake,
      bytesPerSecond,
      pieceCells: pieceCells ?? PIECE_CELLS,
      targets: plans.find(({ id }) => id === record.to)!.members,
      map: () => this.#map!,
      onMap: (next) => this.onMap(next),
      onDamage: (error) => this.#options.onDamage(group, error),
      isCurrent: () => !this.#stopped && groups.get(gid) === group,
    });
    void source.run().finally(() => {
      env.timer(AGAIN_AFTER_MS, () => this.#moving.delete(gid));
    });
  }

  #maybeClear(gid: GroupId, group: GroupShell): void {
    const { tablets } = group.replica.state;
    if (tablets.isPlain || this.#clearing.has(gid)) return;
    const step = cleanUpStep(tablets.all(), this.#map);
    if (step === null) return;
    this.#clearing.add(gid);
    group.move(step).catch((error) => {
      // The next primary does it, or this one when it can write again.
      if (!(error instanceof KvError)) this.#options.env.fatal(error);
    }).finally(() => this.#clearing.delete(gid));
  }
}
