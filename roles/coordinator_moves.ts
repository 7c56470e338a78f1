/**
 * The coordinator's part in moves of tablets as a process: a loop around `MoveBoard` (kv/move_board.ts),
 * its durable range map, and those who ask. No rule about moves is decided here.
 */
import type { Env } from "../kv/env.ts";
import { KvError } from "../kv/errors.ts";
import { MoveBoard, type MoveBoardEffect, type MoveBoardInput, NOT_NOW } from "../kv/move_board.ts";
import { firstRangeMap } from "../kv/range_map.ts";
import type { GroupPlan } from "../proto/cluster_config.ts";
import type { TabletStatus } from "../proto/cluster_status.ts";
import type { GroupReport, StoreReport } from "../proto/control.ts";
import { type Epoch, type GroupId, groupId } from "../proto/ids.ts";
import type { MoveProgress, MoveRecord, RangeMap } from "../proto/moves.ts";

/** The durable record, as this asks for it. */
export interface RangeMapRecord {
  rangeMap(): RangeMap | null;
  swapRangeMap(expected: number, map: RangeMap): boolean;
}

export interface CoordinatorMovesOptions {
  readonly env: Env;
  readonly record: RangeMapRecord;
  readonly plans: readonly GroupPlan[];
  /** Whether the record of this group may be believed now. */
  readonly vouchesFor: (gid: GroupId) => boolean;
  /** The map changed: routes do, and those who move tablets should hear of it. */
  readonly onChanged: (map: RangeMap) => void;
}

interface Waiting {
  readonly resolve: (map: RangeMap) => void;
  readonly reject: (error: KvError) => void;
}

export class CoordinatorMoves {
  readonly #options: CoordinatorMovesOptions;
  readonly #board: MoveBoard;
  readonly #waiting = new Map<number, Waiting>();
  readonly #progress = new Map<number, MoveProgress>();
  #lastRequestId = 0;

  constructor(options: CoordinatorMovesOptions) {
    this.#options = options;
    const { env, record, plans, vouchesFor } = options;
    const map = record.rangeMap() ?? firstRangeMap(plans);
    record.swapRangeMap(0, map);
    this.#board = new MoveBoard({
      map,
      nowMs: env.monotonicMs(),
      groups: plans.map(({ id }) => groupId(id)),
      vouchesFor: ({ from, to }) => vouchesFor(from) && vouchesFor(to),
    });
  }

  get map(): RangeMap {
    return this.#board.map;
  }

  /** The record went back in time. */
  get rolledBack(): boolean {
    return this.#board.rolledBack;
  }

  /** See `MoveBoard`. */
  get recoveryWaitsFor(): string | null {
    return this.#board.recoveryWaitsFor;
  }

  /** Makes the map anew, if it is old, from what the groups say from now on. */
  recover(known: readonly RangeMap[]): void {
    this.#feed({ kind: "recover", known });
  }

  /** A tablet as the operator sees it, with the move that it is on. */
  shown(tablet: TabletStatus): TabletStatus {
    const record = this.map.moves.find(({ from, tabletId }) => tablet.id === `${from}.${tabletId}`);
    if (record === undefined) return tablet;
    const { id, to, state } = record, progress = this.#progress.get(id);
    const { bytes = 0, bytesTotal = tablet.bytes + tablet.largeBytes } = progress ?? {};
    const phase = progress === undefined ? {} : { phase: progress.phase };
    return { ...tablet, move: { id, to, state, ...phase, bytes, bytesTotal } };
  }

  tick(): void {
    this.#feed({ kind: "tick" });
  }

  /** @param isCurrent whether the group's record is at this epoch */
  onReport(
    { groups, rangeMapVersion = 0 }: StoreReport,
    isCurrent: (gid: GroupId, epoch: Epoch) => boolean,
  ): void {
    for (const { lastMoveId = 0 } of groups) {
      this.#feed({ kind: "seen", version: rangeMapVersion, moveId: lastMoveId });
    }
    for (const { gid, epoch, serving, tablets } of groups) {
      if (serving && isCurrent(gid, epoch)) this.#feed({ kind: "claims", gid, tablets });
    }
    for (const { move } of groups) {
      if (move === undefined) continue;
      const { id, phase, mark, bytes } = move;
      this.#progress.set(id, move);
      this.#feed({ kind: "progress", id, mark: `${phase} ${mark} ${bytes}` });
    }
  }

  /** @throws {KvError} `invalid_request`, `unavailable` */
  async begin(
    { from, tabletId, to }: { from: GroupId; tabletId: number; to: GroupId },
    reports: readonly GroupReport[],
  ): Promise<number> {
    const known = this.#options.plans.map(({ id }) => id);
    for (const gid of [from, to]) {
      if (known.includes(gid)) continue;
      throw new KvError(
        "invalid_request",
        `Cannot find group ${gid}: there are ${known.join(", ")}`,
      );
    }
    const tablets = reports.find(({ gid }) => gid === from)?.tablets ?? [];
    const tablet = tablets.find(({ id }) => id === tabletId);
    if (tablet === undefined) {
      const there = tablets.map(({ id }) => `${from}.${id}`).join(", ");
      throw new KvError(
        "invalid_request",
        `Cannot find tablet ${from}.${tabletId}: ` +
          (there === "" ? `group ${from} reports none` : `group ${from} has ${there}`),
      );
    }
    const { generation, startKey, endKey } = tablet;
    const map = await this.#ask((requestId) => ({
      kind: "begin",
      requestId,
      wish: { from, to, tabletId, generation, startKey, endKey },
    }));
    const { id } = map.moves.findLast((move) => move.from === from)!;
    this.#options.env.log("info", "a tablet begins to move", { id, from, to, tablet: tabletId });
    return id;
  }

  decide(
    { id, decision, reason }: { id: number; decision: "commit" | "abort"; reason: string },
  ): Promise<RangeMap> {
    return this.#ask((requestId) => ({ kind: "decide", requestId, id, decision, reason }));
  }

  end(id: number): Promise<RangeMap> {
    this.#progress.delete(id);
    return this.#ask((requestId) => ({ kind: "end", requestId, id }));
  }

  #ask(inputOf: (requestId: number) => MoveBoardInput): Promise<RangeMap> {
    const requestId = ++this.#lastRequestId;
    const waiting = Promise.withResolvers<RangeMap>();
    this.#waiting.set(requestId, waiting);
    this.#feed(inputOf(requestId));
    return waiting.promise;
  }

  #feed(first: MoveBoardInput): void {
    const inputs = [first], { env } = this.#options;
    try {
      for (let input; (input = inputs.shift()) !== undefined;) {
        for (const effect of this.#board.step(env.monotonicMs(), input)) {
          this.#perform(effect, inputs);
        }
      }
    } catch (error) {
      env.fatal(error);
    }
  }

  #perform(effect: MoveBoardEffect, inputs: MoveBoardInput[]): void {
    const { record, env, onChanged } = this.#options;
    switch (effect.kind) {
      case "swapMap": {
        const { expected, map } = effect;
        const done = record.swapRangeMap(expected, map);
        inputs.push({ kind: "mapSwapped", done, map: done ? map : record.rangeMap() ?? map });
        return;
      }
      case "answerMove": {
        const { requestId, map, refusal } = effect;
        const waiting = this.#waiting.get(requestId);
        this.#waiting.delete(requestId);
        if (refusal === null) waiting?.resolve(map);
        else {
          const code = refusal === NOT_NOW ? "unavailable" : "invalid_request";
          waiting?.reject(new KvError(code, refusal));
        }
        return;
      }
      case "mapChanged":
        for (const move of effect.map.moves) env.log("info", "move", describe(move));
        onChanged(effect.map);
    }
  }
}

function describe({ id, from, to, tabletId, state, reason }: MoveRecord) {
  return { id, from, to, tablet: tabletId, state, reason };
}
