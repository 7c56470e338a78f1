/**
 * What the steps of a tablet's move (tablet_move.ts) do to the state of a group: deterministic, and
 * applied in log order on every replica like everything else.
 *
 * Cells that are staged lie at their own rows and count in an *arriving* tablet, which is no part of
 * what the group serves: so to activate it is to change one word, however large it is. In the same way
 * a tablet that is given away becomes a *leaving* one at once and is emptied later.
 */
import type { CellPlace } from "../proto/command.ts";
import type { Lsn } from "../proto/ids.ts";
import type { z } from "zod";
import { hashText } from "./cell_hash.ts";
import type { CellStore, StoredCell } from "./cell_store.ts";
import { type Command, type LogRequest, rowOpsOf } from "./command.ts";
import type { Completions } from "./completions.ts";
import { invariant } from "./invariant.ts";
import { compareKeys, inRange } from "./key_order.ts";
import { mutated } from "./mutant.ts";
import { changesOf, type RowChanges } from "./row_op.ts";
import type { RowLocks } from "./row_locks.ts";
import { comparePositions } from "./sorted_cells.ts";
import {
  type AwayOutcome,
  DONE,
  type MoveOutcome,
  type MoveStep,
  notDone,
  type StageStep,
} from "./tablet_move.ts";
import type { Arrival, KeyRange, Tablets } from "./tablets.ts";

export interface TabletMovesOptions {
  readonly store: CellStore;
  readonly tablets: Tablets;
  readonly position: () => number;
  /** Has the group count on above all that was given elsewhere. */
  readonly raisePosition: (above: number) => void;
  /** Of the whole state. */
  readonly hash: () => readonly [number, number];
  readonly completions: () => Completions;
  /** The entry that is being applied, and its time. */
  readonly at: () => { readonly lsn: Lsn; readonly timeMs: number };
  readonly locks: () => RowLocks;
  readonly change: (row: string, changes: RowChanges) => void;
}

/** Why a request cannot be executed here now because of moves; null when nothing stands against it. */
export function awayFrom(tablets: Tablets, request: Command | LogRequest): AwayOutcome | null {
  if (tablets.isPlain) return null;
  for (const { row } of rowOpsOf(request)) {
    const access = tablets.accessTo(row);
    if (access === "open" || access === "barred" && request.kind !== "prepare") continue;
    if (access === "none") return { kind: "away", code: "wrong_tablet", row };
    if (access === "frozen" && mutated("freeze-ignored")) continue;
    return { kind: "away", code: "frozen", row };
  }
  return null;
}

export class TabletMoves {
  readonly #options: TabletMovesOptions;

  constructor(options: TabletMovesOptions) {
    this.#options = options;
  }

  apply(step: MoveStep): MoveOutcome {
    const { tablets } = this.#options;
    switch (step.kind) {
      case "depart":
        return outcomeOf(tablets.depart(step));
      case "freeze":
        return this.#freeze(step.moveId);
      case "thaw":
        return this.#thaw(step.moveId, step.isOver);
      case "drop":
        return this.#drop(step.moveId);
      case "purge":
        return this.#purge(step.tabletId, step.cells);
      case "arrive":
        return outcomeOf(tablets.arrive(step));
      case "stage":
        return this.#stage(step);
      case "seal":
        return this.#seal(step);
      case "activate":
        return this.#activate(step.moveId);
      case "cancel":
        return outcomeOf(tablets.letGo(step.moveId) ? null : `move ${step.moveId} is over here`);
    }
  }

  // ----------------------------------------------------------------- the group that gives

  /** What transactions hold stays until they are through; meanwhile they may not take more. */
  #freeze(moveId: number): MoveOutcome {
    const { tablets, locks } = this.#options;
    const tablet = tablets.departing(moveId);
    if (tablet === undefined) return notDone(`move ${moveId} is over here`);
    if (tablet.departure!.stage === "frozen") return DONE;
    const isHeld = holdsAny(locks(), tablet) && !mutated("locked-rows-frozen");
    tablets.setStage(moveId, isHeld ? "barred" : "frozen");
    return isHeld ? notDone("transactions hold rows of it") : DONE;
  }

  #thaw(moveId: number, isOver: boolean): MoveOutcome {
    const { tablets } = this.#options;
    const stage = tablets.departing(moveId)?.departure?.stage;
    // Once it is frozen only the end of the move may change that.
    if (stage === "frozen" && !isOver) return notDone("it is frozen for good");
    return outcomeOf(
      tablets.setStage(moveId, isOver ? null : "copying") ? null : `move ${moveId} is over here`,
    );
  }

  #drop(moveId: number): MoveOutcome {
    const { tablets, locks } = this.#options;
    const tablet = tablets.departing(moveId);
    if (tablet === undefined) return notDone(`move ${moveId} is over here`);
    if (tablet.departure!.stage !== "frozen") return notDone("it is not frozen");
    invariant(
      !holdsAny(locks(), tablet) || mutated("locked-rows-frozen"),
      "T1",
      () => `rows of tablet ${tablet.id} are given away while transactions hold them`,
    );
    tablets.letGo(moveId);
    return DONE;
  }

  // ------------------------------------------------------------------ the group that takes

  #stage(step: StageStep): MoveOutcome {
    const { tablets, completions, hash, change, at } = this.#options;
    const tablet = tablets.arriving(step.moveId), arrival = tablet?.arrival;
    if (tablet === undefined || arrival === undefined) {
      return notDone(`move ${step.moveId} is over here`);
    }
    const order = orderOf(step, arrival);
    if (order !== null) return order;
    const places = [...step.cells, ...step.gone, ...(step.clear === null ? [] : [step.clear.from])];
    const outside = places.find(({ row }) => !inRange(row, tablet.startKey, tablet.endKey));
    if (outside !== undefined) return notDone(`row "${outside.row}" is not part of the move`);
    const before = hash();
    for (const [row, cells] of this.#staged(step, tablet)) {
      const changes = changesOf(this.#options.store, row, cells);
      if (changes.cells.length > 0) change(row, changes);
    }
    if (step.records !== null && !mutated("moved-without-completions")) {
      completions().absorb(step.records, at());
    }
    const after = hash();
    const sum = (lane: 0 | 1) => (arrival.hash[lane] + after[lane] - before[lane]) | 0;
    tablets.setArrival({ ...arrival, seq: step.seq, hash: [sum(0), sum(1)], sealedAt: null });
    return DONE;
  }

  /** By row: what its columns hold afterwards. */
  #staged(step: StageStep, { endKey }: KeyRange): Map<string, Map<string, StoredCell | null>> {
    const rows = new Map<string, Map<string, StoredCell | null>>();
    const put = (row: string, column: string, cell: StoredCell | null) => {
      let cells = rows.get(row);
      if (cells === undefined) rows.set(row, cells = new Map());
      cells.set(column, cell);
    };
    if (step.clear !== null) {
      for (const { row, column } of cellsWithin(this.#options.store, step.clear, endKey)) {
        put(row, column, null);
      }
    }
    for (const { row, column } of step.gone) put(row, column, null);
    for (const cell of step.cells) put(cell.row, cell.column, cell);
    return rows;
  }

  #seal(step: MoveStep & { kind: "seal" }): MoveOutcome {
    const { tablets } = this.#options;
    const tablet = tablets.arriving(step.moveId), arrival = tablet?.arrival;
    if (tablet === undefined || arrival === undefined) {
      return notDone(`move ${step.moveId} is over here`);
    }
    const order = orderOf(step, arrival);
    if (order !== null) return order;
    const { counts: { cells } } = tablet, hash = hashText(arrival.hash);
    const isEqual = hash === step.hash && cells === step.cells;
    const sealedAt = isEqual ? step.position : null;
    tablets.setArrival({ ...arrival, seq: step.seq, sealedAt });
    if (isEqual) return DONE;
    return notDone(
      `what was staged is ${cells} cells of hash ${hash}, not ${step.cells} of hash ${step.hash}`,
    );
  }

  #activate(moveId: number): MoveOutcome {
    const { tablets, raisePosition, position } = this.#options;
    const arrival = tablets.arriving(moveId)?.arrival;
    if (arrival === undefined) {
      return moveId <= tablets.lastMoveId ? DONE : notDone(`move ${moveId} never came here`);
    }
    if (arrival.sealedAt === null && !mutated("commit-without-seal")) {
      return notDone("it is not sealed");
    }
    if (!mutated("position-not-raised")) raisePosition(arrival.sealedAt ?? 0);
    tablets.activate(moveId, position());
    return DONE;
  }

  // --------------------------------------------------------------------------------- both

  /** Removes the first `count` cells that are left, and the tablet when these were the last. */
  #purge(id: number, count: number): MoveOutcome {
    const { tablets, store, change } = this.#options;
    const tablet = tablets.all().find((item) => item.id === id);
    if (tablet?.state !== "leaving") return notDone(`tablet ${id} is not leaving`);
    const rows = new Map<string, Map<string, null>>();
    let found = 0;
    const from = { row: tablet.startKey, column: "" };
    for (const { row, column } of cellsWithin(store, { from, to: null }, tablet.endKey)) {
      if (found === count) break;
      found += 1;
      const cells = rows.get(row);
      if (cells === undefined) rows.set(row, new Map([[column, null]]));
      else cells.set(column, null);
    }
    for (const [row, cells] of rows) change(row, changesOf(store, row, cells));
    if (found < count) tablets.remove(id);
    return DONE;
  }
}

/** Where a cell lies in the order of rows and columns. */
type Place = z.infer<typeof CellPlace>;

/** Cells from a place on, up to another one or the end of the tablet. */
export function* cellsWithin(
  store: CellStore,
  { from, to }: { from: Place; to: Place | null },
  endKey: string | null,
): Iterable<StoredCell> {
  for (const cell of store.range({ from })) {
    if (endKey !== null && compareKeys(cell.row, endKey) >= 0) return;
    if (to !== null && comparePositions(cell, to) >= 0) return;
    yield cell;
  }
}

/** Whether a transaction holds a row of the range, or was decided at one and is not forgotten. */
export function holdsAny(locks: RowLocks, { startKey, endKey }: KeyRange): boolean {
  for (const { row } of locks.locks) if (inRange(row, startKey, endKey)) return true;
  for (const { anchor } of locks.decisions) if (inRange(anchor, startKey, endKey)) return true;
  return false;
}

/** What to answer to a piece that is not the next one; null when it is. */
function orderOf(
  { reign, seq }: { readonly reign: number; readonly seq: number },
  arrival: Arrival,
): MoveOutcome | null {
  if (reign !== arrival.reign) return notDone("it is of another primary of the other group");
  if (seq <= arrival.seq) return DONE;
  return seq === arrival.seq + 1 ? null : notDone(`piece ${seq} came after piece ${arrival.seq}`);
}

const outcomeOf = (why: string | null): MoveOutcome => why === null ? DONE : notDone(why);
