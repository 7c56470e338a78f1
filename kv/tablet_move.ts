/**
 * Moving a tablet from one replica group to another: what the logs of both say, and who has to do what
 * next. Pure rules; roles/tablet_mover.ts carries them out.
 *
 * The story, for tablet T on its way from group G1 to group G2:
 *
 *   1. The coordinator writes a move record (range_map.ts), COPYING. G1 logs `depart`: T keeps its shape.
 *   2. G2 logs `arrive`, then `stage` after `stage`: bounded pieces of T at their own rows and with their
 *      own versions, which nobody can read, for T is not G2's. G1 goes on reading and writing T; what
 *      changes meanwhile is staged again.
 *   3. G1 logs `freeze`: writes to T are told to wait. Rows that transactions hold at that entry have to
 *      be settled first, so then T is only *barred*: no new locks, and the next `freeze` may succeed.
 *   4. What is left goes over, with G1's completion records; G2 logs `seal`, which holds only if what is
 *      staged has the hash that G1 counted over its own cells.
 *   5. G1's primary stops reading T and asks for COMMITTED. That change of the record, which makes G2 the
 *      owner of the range, is the one commit point.
 *   6. G2 logs `activate` and serves; G1 logs `drop`. What G1 has left of T is garbage, `purge` removes it
 *      bit by bit; so it does what G2 staged for a move that was ABORTED, after `cancel`. G1 logs `thaw`.
 *
 * A frozen T can only be dropped after COMMITTED or thawed after ABORTED, and no reign after the one that
 * froze it reads it; so it does not matter how often a primary asks, nor who asks after it. Everything
 * else a new primary begins again: it compares what is staged with what is there. That takes the seal
 * away. If the move turns out to be COMMITTED by then, G1's primary completes the copy before 6.
 *
 * Versions stay with their cells. So that no version is ever given twice to a row, a group that
 * activates a tablet goes on counting above all versions that come with it (`position`).
 *
 * Follows the range handovers of Slicer (Adya et al., OSDI 2016) and Spanner's movedir (Corbett et al.,
 * OSDI 2012): bulk first, a short atomic end.
 */
import type { MoveStepHead } from "../proto/command.ts";
import type { RangeMap } from "../proto/moves.ts";
import type { StoredCell } from "./cell_store.ts";
import type { SavedCompletions } from "./completions.ts";
import type { Tablet } from "./tablets.ts";

export type StageStep = Omit<MoveStepHead & { kind: "stage" }, "cells" | "records"> & {
  /** As they are in the group that gives them away; their files have other names in the other. */
  readonly cells: readonly StoredCell[];
  readonly records: SavedCompletions | null;
};
export type MoveStep = Exclude<MoveStepHead, { kind: "stage" }> | StageStep;

/** What became of a step when it was applied; `why` says what was in its way. */
export interface MoveOutcome {
  readonly kind: "move";
  readonly done: boolean;
  readonly why: string | null;
}

export const DONE: MoveOutcome = { kind: "move", done: true, why: null };
export const notDone = (why: string): MoveOutcome => ({ kind: "move", done: false, why });

/** A request for rows that this group has frozen or does not own. Nothing is recorded of it. */
export interface AwayOutcome {
  readonly kind: "away";
  readonly code: "frozen" | "wrong_tablet";
  readonly row: string;
}

/** Removed by one `purge`: well below what one entry may change. */
export const PURGE_CELLS = 500;

/** What a group's serving primary has to log next because of moves that are over; null for nothing. */
export function cleanUpStep(tablets: readonly Tablet[], map: RangeMap | null): MoveStep | null {
  for (const { id, state, arrival, departure } of tablets) {
    if (state === "leaving") return { kind: "purge", tabletId: id, cells: PURGE_CELLS };
    const moveId = arrival?.moveId ?? departure?.moveId;
    if (moveId === undefined || map === null) continue;
    const phase = phaseOf(map, moveId);
    if (arrival !== undefined && phase === "committed") return { kind: "activate", moveId };
    if (arrival !== undefined && phase === "over") return { kind: "cancel", moveId };
    if (departure !== undefined && phase === "over") return { kind: "thaw", moveId, isOver: true };
  }
  return null;
}

/**
 * How far a move is by the records: `over` when it was aborted, or ended without our knowing. `unknown`
 * when the records that we have are older than the move.
 */
export function phaseOf(
  map: RangeMap,
  moveId: number,
): "copying" | "committed" | "over" | "unknown" {
  if (moveId >= map.nextMoveId) return "unknown";
  const record = map.moves.find((move) => move.id === moveId);
  if (record === undefined || record.state === "aborted") return "over";
  return record.state;
}
