/**
 * The coordinator's rules for moves of tablets between groups: which may begin, and how each ends.
 *
 * The durable range map (range_map.ts) is the truth; it changes only by compare-and-swap on its version,
 * so that two coordinators cannot both decide. A primary asks for the fate of its move and may ask again;
 * the first decision stands. A move that makes no progress for PATIENCE_MS is aborted here.
 *
 * B6, for ranges: a node that has seen a newer map, or a move that the map does not know, means that the
 * records went back in time. Nothing is decided then, nor before a coordinator has listened to the nodes,
 * until a person asks for a map made anew from what the groups serve (range_recovery.ts).
 *
 * It does no I/O and reads no clock: `step()` is told what happened and answers with what to do.
 */
import type { TabletClaim } from "../proto/control.ts";
import type { GroupId } from "../proto/ids.ts";
import type { MoveRecord, RangeMap } from "../proto/moves.ts";
import { abortMove, beginMove, commitMove, endMove } from "./range_map.ts";
import { recoveredMap } from "./range_recovery.ts";

/** A move whose source or target cannot go on for this long comes to nothing. */
export const PATIENCE_MS = 30_000;

export type MoveBoardInput =
  | { kind: "tick" }
  | { kind: "begin"; requestId: number; wish: Omit<MoveRecord, "id" | "state" | "reason"> }
  | { kind: "decide"; requestId: number; id: number; decision: "commit" | "abort"; reason: string }
  | { kind: "end"; requestId: number; id: number }
  | { kind: "progress"; id: number; mark: string }
  /** A node has heard of this version, and of moves up to this one. */
  | { kind: "seen"; version: number; moveId: number }
  /** Make the map anew if the records are old; `known`: what every node heard of it. */
  | { kind: "recover"; known: readonly RangeMap[] }
  /** What the group's serving primary has now; asked for only while that is wanted. */
  | { kind: "claims"; gid: GroupId; tablets: readonly TabletClaim[] }
  /** The answer to `swapMap`; `map` is what the records hold now. */
  | { kind: "mapSwapped"; done: boolean; map: RangeMap };

export type MoveBoardEffect =
  /** Replace the durable map if it is still at `expected`; answered by `mapSwapped`. */
  | { kind: "swapMap"; expected: number; map: RangeMap }
  | { kind: "answerMove"; requestId: number; map: RangeMap; refusal: string | null }
  | { kind: "mapChanged"; map: RangeMap };

/** Nobody can tell now what may be done; the same may be asked again. */
export const NOT_NOW =
  "The coordinator's records may be too old to decide about moves; try again in a moment";

export interface MoveBoardOptions {
  readonly map: RangeMap;
  readonly nowMs: number;
  readonly groups: readonly GroupId[];
  /** Whether the records of a group may be believed at this moment. */
  readonly vouchesFor: (move: Pick<MoveRecord, "from" | "to">) => boolean;
}

export class MoveBoard {
  readonly #vouchesFor: MoveBoardOptions["vouchesFor"];
  #map: RangeMap;
  #nowMs: number;
  readonly #groups: readonly GroupId[];
  #rolledBack = false;
  /** The newest that anybody knows of. */
  #seen = { version: 0, moveId: 0 };
  #recovery: {
    readonly known: readonly RangeMap[];
    readonly claims: Map<GroupId, readonly TabletClaim[]>;
    waitsFor: string;
  } | null = null;
  readonly #progress = new Map<number, { mark: string; atMs: number }>();
  /** Who waits for the swap under way. */
  #asking: number | null = null;
  #effects: MoveBoardEffect[] = [];

  constructor({ map, nowMs, groups, vouchesFor }: MoveBoardOptions) {
    this.#groups = groups;
    this.#map = map;
    this.#nowMs = nowMs;
    this.#vouchesFor = vouchesFor;
  }

  get map(): RangeMap {
    return this.#map;
  }

  get rolledBack(): boolean {
    return this.#rolledBack;
  }

  /** What the map that is being made anew still waits for; null: none is. */
  get recoveryWaitsFor(): string | null {
    return this.#recovery?.waitsFor ?? null;
  }

  step(nowMs: number, input: MoveBoardInput): MoveBoardEffect[] {
    this.#nowMs = Math.max(this.#nowMs, nowMs);
    this.#take(input);
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  #take(input: MoveBoardInput): void {
    switch (input.kind) {
      case "tick":
        return this.#abortStalled();
      case "begin":
        if (!this.#mayDecide(input.wish)) return this.#answer(input.requestId, NOT_NOW);
        return this.#change(input.requestId, beginMove(this.#map, input.wish));
      case "decide":
        return this.#decide(input.requestId, input);
      case "end":
        return this.#end(input.requestId, input.id);
      case "progress":
        if (this.#progress.get(input.id)?.mark === input.mark) return;
        this.#progress.set(input.id, { mark: input.mark, atMs: this.#nowMs });
        return;
      case "seen":
        return this.#onSeen(input);
      case "recover":
        for (const { version, nextMoveId } of input.known) {
          this.#onSeen({ version, moveId: nextMoveId - 1 });
        }
        if (!this.#rolledBack) return;
        this.#recovery = { known: input.known, claims: new Map(), waitsFor: "all groups" };
        return;
      case "claims":
        return this.#onClaims(input.gid, input.tablets);
      case "mapSwapped":
        return this.#onSwapped(input.done, input.map);
    }
  }

  #onSeen({ version, moveId }: { version: number; moveId: number }): void {
    this.#seen = {
      version: Math.max(this.#seen.version, version),
      moveId: Math.max(this.#seen.moveId, moveId),
    };
    if (version > this.#map.version || moveId >= this.#map.nextMoveId) this.#rolledBack = true;
  }

  #onClaims(gid: GroupId, tablets: readonly TabletClaim[]): void {
    const recovery = this.#recovery;
    if (recovery === null) return;
    recovery.claims.set(gid, tablets);
    const { version, moveId } = this.#seen;
    const map = recoveredMap({
      groups: this.#groups,
      claims: recovery.claims,
      known: recovery.known,
      version: Math.max(version, this.#map.version),
      moveId: Math.max(moveId, this.#map.nextMoveId - 1),
    });
    if (typeof map === "string") recovery.waitsFor = map;
    else this.#change(null, map);
  }

  #decide(
    requestId: number,
    { id, decision, reason }: { id: number; decision: "commit" | "abort"; reason: string },
  ): void {
    const move = this.#map.moves.find((item) => item.id === id);
    // What became of it is in the map that is given as the answer.
    if (move?.state !== "copying") return this.#answer(requestId, null);
    if (!this.#mayDecide(move)) return this.#answer(requestId, NOT_NOW);
    const next = decision === "commit"
      ? commitMove(this.#map, id)
      : abortMove(this.#map, id, reason);
    this.#change(requestId, next);
  }

  #end(requestId: number, id: number): void {
    const move = this.#map.moves.find((item) => item.id === id);
    if (move === undefined) return this.#answer(requestId, null);
    if (!this.#mayDecide(move)) return this.#answer(requestId, NOT_NOW);
    this.#change(requestId, endMove(this.#map, id));
  }

  /** One at a time: the next tick looks again. */
  #abortStalled(): void {
    for (const move of this.#map.moves) {
      if (move.state !== "copying") continue;
      let known = this.#progress.get(move.id);
      if (known === undefined) {
        known = { mark: "", atMs: this.#nowMs };
        this.#progress.set(move.id, known);
      }
      if (this.#nowMs - known.atMs < PATIENCE_MS || !this.#mayDecide(move)) continue;
      const reason = `it made no progress for ${PATIENCE_MS / 1000} s`;
      return this.#change(null, abortMove(this.#map, move.id, reason));
    }
  }

  #mayDecide(move: Pick<MoveRecord, "from" | "to">): boolean {
    return !this.#rolledBack && this.#vouchesFor(move);
  }

  #change(requestId: number | null, next: RangeMap | string): void {
    if (typeof next === "string") {
      if (requestId !== null) this.#answer(requestId, next);
      return;
    }
    this.#asking = requestId;
    this.#effects.push({ kind: "swapMap", expected: this.#map.version, map: next });
  }

  #onSwapped(done: boolean, map: RangeMap): void {
    this.#map = map;
    if (this.#recovery !== null && map.version > this.#seen.version) {
      this.#recovery = null;
      this.#rolledBack = false;
    }
    for (const id of this.#progress.keys()) {
      if (!map.moves.some((move) => move.id === id)) this.#progress.delete(id);
    }
    const requestId = this.#asking;
    this.#asking = null;
    if (requestId !== null) this.#answer(requestId, done ? null : NOT_NOW);
    this.#effects.push({ kind: "mapChanged", map });
  }

  #answer(requestId: number, refusal: string | null): void {
    this.#effects.push({ kind: "answerMove", requestId, map: this.#map, refusal });
  }
}
