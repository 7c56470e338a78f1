/** Tablets on their way from one group to another: the coordinator's record, and what backends say. */
import { z } from "zod";
import { CellPlace, MoveStepHead } from "./command.ts";
import { Epoch, GroupId } from "./ids.ts";
import { method } from "./rpc.ts";

export const OwnedRange = z.object({
  startKey: z.string(),
  endKey: z.string().nullable(),
  gid: GroupId,
});
export type OwnedRange = z.infer<typeof OwnedRange>;

export const MoveRecord = z.object({
  id: z.int().positive(),
  startKey: z.string(),
  endKey: z.string().nullable(),
  /** In the group that gives it away. */
  tabletId: z.int().positive(),
  generation: z.int().positive(),
  from: GroupId,
  to: GroupId,
  state: z.enum(["copying", "committed", "aborted"]),
  /** Why it was aborted. */
  reason: z.string().max(300),
});
export type MoveRecord = z.infer<typeof MoveRecord>;

/** A move that is over, for whoever asked for it. */
export const EndedMove = z.object({
  id: z.int().positive(),
  outcome: z.enum(["committed", "aborted"]),
  reason: z.string().max(300),
});
export type EndedMove = z.infer<typeof EndedMove>;

/** Who owns which rows: kv/range_map.ts. */
export const RangeMap = z.object({
  /** Raised by one with every change. */
  version: z.int().positive(),
  nextMoveId: z.int().positive(),
  /** By start key. */
  ranges: z.array(OwnedRange).max(10_000),
  moves: z.array(MoveRecord).max(1000),
  /** The last ones, oldest first. */
  ended: z.array(EndedMove).max(100),
});
export type RangeMap = z.infer<typeof RangeMap>;

/** How far the primary that gives a tablet away has come. */
export const MoveProgress = z.object({
  id: z.int().positive(),
  phase: z.enum(["copying", "following", "freezing", "sealing", "committing", "finishing"]),
  bytes: z.number(),
  bytesTotal: z.number(),
  /** Rises with everything that succeeded. */
  mark: z.int().nonnegative(),
});
export type MoveProgress = z.infer<typeof MoveProgress>;

const StepReply = z.object({ done: z.boolean(), why: z.string().nullable() });
const move = { gid: GroupId, moveId: z.int().positive() };

/** The primary that gives a tablet away → the one that takes it, which `gid` names. */
export const moveConversation = {
  /** Makes place; `seq` is the number of the last piece that this reign sent. */
  moveOpen: method(
    z.object({
      ...move,
      reign: Epoch,
      startKey: z.string().max(1024),
      endKey: z.string().max(1024).nullable(),
      timeMs: z.number(),
    }),
    StepReply.extend({ seq: z.int().nonnegative(), cells: z.int().nonnegative() }),
  ),
  /** What is staged from one place up to another; `cells` beyond `cellsMax` are not looked at. */
  moveCompare: method(
    z.object({
      ...move,
      from: CellPlace,
      to: CellPlace.nullable(),
      cellsMax: z.int().positive().max(10_000),
    }),
    z.object({ hash: z.string(), cells: z.int().nonnegative() }),
  ),
  /** A piece: inline values follow in the order of mention, behind them those that go into files. */
  moveStage: method(z.object({ gid: GroupId, step: MoveStepHead, timeMs: z.number() }), StepReply),
  /** `seal`, `activate` and `cancel`. */
  moveStep: method(z.object({ gid: GroupId, step: MoveStepHead, timeMs: z.number() }), StepReply),
};
