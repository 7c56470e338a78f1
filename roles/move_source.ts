/**
 * The side of a move that gives a tablet away, as long as one primary is in office: copies it to the
 * primary of the other group, follows its changes, freezes it, asks for the commit, and clears up.
 * The protocol is told in kv/tablet_move.ts.
 *
 * It may stop anywhere: what counts is in the logs of both groups and in the coordinator's record. The
 * next one, here or at another primary, compares what is staged with what is there, and goes on.
 */
import { crc32 } from "node:zlib";
import { CellSum } from "../kv/cell_hash.ts";
import { isBlobRef, type StoredCell } from "../kv/cell_store.ts";
import { ChangeTracker } from "../kv/change_tracker.ts";
import { headOfMove } from "../kv/command.ts";
import type { SavedCompletions } from "../kv/completions.ts";
import { type Env, freshId } from "../kv/env.ts";
import { CorruptionError, KvError } from "../kv/errors.ts";
import { mutated } from "../kv/mutant.ts";
import { type MoveOutcome, type MoveStep, phaseOf, type StageStep } from "../kv/tablet_move.ts";
import { cellsWithin, holdsAny } from "../kv/tablet_moves.ts";
import { coordinatorConversation } from "../proto/control.ts";
import type { CellPlace, MoveStepHead } from "../proto/command.ts";
import { type Epoch, type NodeId, nodeId } from "../proto/ids.ts";
import {
  moveConversation,
  type MoveProgress,
  type MoveRecord,
  type RangeMap,
} from "../proto/moves.ts";
import type { z } from "zod";
import type { GroupShell } from "./backend_group.ts";
import type { BlobIntake } from "./blob_intake.ts";
import { RpcError } from "./net/rpc_error.ts";
import type { PeerLinks } from "./peers.ts";

export interface MoveSourceOptions {
  readonly env: Env;
  readonly group: GroupShell;
  readonly record: MoveRecord;
  readonly peers: PeerLinks;
  readonly intake: BlobIntake;
  /** Backends that should hold the other group. */
  readonly targets: readonly number[];
  readonly bytesPerSecond: number;
  /** At most this many cells in one piece. */
  readonly pieceCells: number;
  /** The newest that is known here. */
  readonly map: () => RangeMap;
  readonly onMap: (map: RangeMap) => void;
  /** A cell cannot be read. True when this replica takes no further part because of it. */
  readonly onDamage: (error: CorruptionError) => boolean;
  /** The process goes on, and so does this replica as the group's. */
  readonly isCurrent: () => boolean;
}

type Place = z.infer<typeof CellPlace>;

/** Of one piece: cells, bytes in rows, and bytes in files, unless a single value has more. */
export const PIECE_CELLS = 500;
const PIECE_BYTES = 128 * 1024;
const PIECE_FILE_BYTES = 1024 * 1024;
const CELL_BYTES = 100;
/** What changes often is sent only a few times before the tablet is frozen. */
const ROUNDS_MAX = 40;
const SMALL_REST = 50;
const COMPARED_CELLS = 4_000;
const RECORDS_AT_ONCE = 200;

const CALL_TIMEOUT_MS = 5_000;
const RETRY_MS_MIN = 10;
const RETRY_MS_MAX = 300;
/** How long it is waited for a moment without locks before transactions are kept out. */
const LOCKS_PATIENCE_MS = 500;
const LOOK_EVERY_MS = 5;
/** Transactions wait for so long at most, then they get another chance. */
const BARRED_MS_MAX = 4_000;
const UNBARRED_MS = 3_000;

/** The primary is not in office any more, or the move's fate was decided elsewhere. */
class Interrupted extends Error {
  override readonly name = "Interrupted";
}

/** The move cannot go on; whoever asked for it is told why. */
class Hopeless extends Error {
  override readonly name = "Hopeless";
}

export class MoveSource {
  readonly #options: MoveSourceOptions;
  readonly #env: Env;
  readonly #group: GroupShell;
  readonly #record: MoveRecord;
  readonly #reign: Epoch;
  #target: NodeId;
  #targetTurn = 0;
  #seq = 0;
  #progress: MoveProgress;
  #frozenMs = Infinity;
  /** What the copy is made for: to ask for the commit, or, when that is done, to complete it. */
  #copyingFor: "copying" | "committed" = "copying";

  constructor(options: MoveSourceOptions) {
    const { env, group, record, targets } = options;
    this.#options = options;
    this.#env = env;
    this.#group = group;
    this.#record = record;
    this.#reign = group.replica.config!.reign;
    this.#target = nodeId(targets[0]!);
    const { id } = record;
    const bytesTotal = this.#sizeOf();
    this.#progress = { id, phase: "copying", bytes: 0, bytesTotal, mark: 0 };
  }

  /** Goes as far as it can; never rejects. */
  async run(): Promise<void> {
    const { id, from, to } = this.#record;
    try {
      if (this.#phase() === "copying") await this.#decideFate();
      if (this.#phase() === "committed") await this.#finish();
      else if (this.#phase() === "over") await this.#withdraw();
    } catch (error) {
      if (error instanceof Interrupted) return;
      const { message } = error as Error;
      this.#env.log("warning", "a move cannot go on here", { id, from, to, message });
    } finally {
      this.#group.moveProgress = null;
      this.#group.replica.state.watcher = null;
    }
  }

  async #decideFate(): Promise<void> {
    try {
      await this.#copyAndFreeze();
      if (!mutated("read-after-commit")) this.#group.setReadable(null);
      if (mutated("drop-before-commit")) await this.#drop();
      await this.#decide("commit", "");
    } catch (error) {
      if (!(error instanceof Hopeless)) throw error;
      await this.#decide("abort", error.message);
    }
  }

  // --------------------------------------------------------------------------- the copy

  async #copyAndFreeze(): Promise<void> {
    const { id: moveId, tabletId, generation, startKey, endKey, to } = this.#record;
    const range = { startKey, endKey };
    this.#note("copying");
    const tablet = { id: tabletId, generation };
    const departed = await this.#log({ kind: "depart", moveId, tablet, to, ...range });
    if (!departed.done) throw new Hopeless(departed.why!);
    const opened = await this.#open();
    this.#seq = opened.seq;
    const tracker = new ChangeTracker(range);
    this.#group.replica.state.watcher = tracker;
    await this.#copy(tracker, opened.cells > 0);
    this.#note("following");
    await this.#follow(tracker);
    this.#note("freezing");
    await this.#freeze(tracker);
    this.#note("sealing");
    while (tracker.changedCount > 0) await this.#sendChanges(tracker);
    await this.#sendRecords();
    await this.#seal(tracker);
    this.#note("committing");
  }

  async #open() {
    const { id: moveId, to: gid, startKey, endKey } = this.#record;
    for (let attempt = 0;; attempt++) {
      const body = { gid, moveId, reign: this.#reign, startKey, endKey, timeMs: this.#timeMs };
      const opened = await this.#ask((peer) =>
        peer.call(moveConversation, "moveOpen", body, undefined, {
          timeoutMs: CALL_TIMEOUT_MS,
        })
      );
      if (opened.done) return opened;
      // Something of an earlier move is still being cleared away there.
      await this.#pause(attempt);
    }
  }

  /** Everything once, in the order of keys; what is there already from an earlier try is left out. */
  async #copy(tracker: ChangeTracker, isThereSome: boolean): Promise<void> {
    const { startKey, endKey } = this.#record;
    let from: Place | null = { row: startKey, column: "" };
    while (from !== null) {
      this.#checkCopying();
      const start: Place = from;
      const { cells, to } = this.#guarded(() => this.#readPiece(start, endKey));
      tracker.read(cells, to);
      const isEqual = isThereSome && await this.#isStaged({ from, to }, cells);
      if (!isEqual) await this.#stage({ clear: { from, to }, cells, gone: [], records: null });
      let bytes = 0;
      for (const cell of cells) bytes += CELL_BYTES + cell.size;
      this.#note("copying", bytes);
      if (!isEqual) await this.#env.sleep(bytes / this.#options.bytesPerSecond * 1000);
      from = to;
    }
  }

  /** In one turn. `to`: where the next piece begins; null when this is the last. */
  #readPiece(from: Place, endKey: string | null): { cells: StoredCell[]; to: Place | null } {
    const cells: StoredCell[] = [];
    let bytes = 0, fileBytes = 0;
    for (const cell of cellsWithin(this.#group.store, { from, to: null }, endKey)) {
      if (isBlobRef(cell.value)) fileBytes += cell.size;
      else bytes += CELL_BYTES + cell.size;
      const isFull = cells.length >= this.#options.pieceCells || bytes > PIECE_BYTES ||
        fileBytes > PIECE_FILE_BYTES;
      if (isFull && cells.length > 0) return { cells, to: { row: cell.row, column: cell.column } };
      cells.push(cell);
    }
    return { cells, to: null };
  }

  async #isStaged(piece: { from: Place; to: Place | null }, cells: StoredCell[]): Promise<boolean> {
    const { id: moveId, to: gid } = this.#record;
    const body = { gid, moveId, ...piece, cellsMax: COMPARED_CELLS };
    const found = await this.#ask((peer) =>
      peer.call(moveConversation, "moveCompare", body, undefined, { timeoutMs: CALL_TIMEOUT_MS })
    );
    if (found.cells > COMPARED_CELLS) {
      throw new Hopeless("too much was deleted since the copy began; it has to begin anew");
    }
    const sum = new CellSum();
    for (const cell of cells) sum.add(cell, 1);
    return sum.cells === found.cells && sum.text === found.hash;
  }

  /** Sends what changed since, until little is left, or it is clear that there will always be more. */
  async #follow(tracker: ChangeTracker): Promise<void> {
    for (let round = 0; round < ROUNDS_MAX && tracker.changedCount > SMALL_REST; round++) {
      for (let left = tracker.changedCount; left > 0; left -= this.#options.pieceCells) {
        await this.#sendChanges(tracker);
      }
    }
  }

  async #sendChanges(tracker: ChangeTracker): Promise<void> {
    this.#checkCopying();
    const { store } = this.#group;
    const cells: StoredCell[] = [], gone: Place[] = [];
    let bytes = 0;
    while (cells.length + gone.length < this.#options.pieceCells && bytes < PIECE_BYTES) {
      const [place] = tracker.take(1);
      if (place === undefined) break;
      const cell = this.#guarded(() => store.get(place.row, place.column));
      if (cell === undefined) gone.push({ row: place.row, column: place.column });
      else cells.push(cell);
      const size = cell?.size ?? 0;
      bytes += CELL_BYTES + (size > PIECE_BYTES ? PIECE_BYTES : size);
    }
    if (cells.length + gone.length === 0) return;
    await this.#stage({ clear: null, cells, gone, records: null });
    this.#note(this.#progress.phase);
  }

  // ---------------------------------------------------------------------- freeze and seal

  /** From here on until the move is over nobody writes to the tablet. */
  async #freeze(tracker: ChangeTracker): Promise<void> {
    const { id: moveId, startKey, endKey } = this.#record;
    const { state } = this.#group.replica;
    const stage = state.tablets.departing(moveId)?.departure?.stage;
    // A tablet that was frozen before may be another group's by now, for all that we know.
    if (stage === "frozen") return;
    if (this.#copyingFor === "copying") this.#group.setReadable(moveId);
    for (;;) {
      this.#checkCopying();
      await this.#untilUnlocked(tracker, LOCKS_PATIENCE_MS);
      const barredMs = this.#env.monotonicMs();
      this.#frozenMs = barredMs;
      for (;;) {
        this.#checkCopying();
        const { done, why } = await this.#log({ kind: "freeze", moveId, startKey, endKey });
        if (done) return;
        if (state.tablets.departing(moveId) === undefined) throw new Hopeless(why!);
        if (this.#env.monotonicMs() - barredMs > BARRED_MS_MAX) break;
        await this.#untilUnlocked(tracker, BARRED_MS_MAX);
      }
      await this.#log({ kind: "thaw", moveId, isOver: false });
      await this.#env.sleep(UNBARRED_MS);
    }
  }

  async #untilUnlocked(tracker: ChangeTracker, patienceMs: number): Promise<void> {
    const { state } = this.#group.replica;
    const untilMs = this.#env.monotonicMs() + patienceMs;
    while (holdsAny(state.locks, this.#record) && this.#env.monotonicMs() < untilMs) {
      this.#checkCopying();
      if (tracker.changedCount > SMALL_REST) await this.#sendChanges(tracker);
      await this.#env.sleep(LOOK_EVERY_MS);
    }
  }

  async #sendRecords(): Promise<void> {
    const { forgottenMs, clients } = this.#group.replica.state.completions.save();
    for (let i = 0; i === 0 || i < clients.length; i += RECORDS_AT_ONCE) {
      const records: SavedCompletions = {
        forgottenMs,
        clients: clients.slice(i, i + RECORDS_AT_ONCE),
      };
      await this.#stage({ clear: null, cells: [], gone: [], records });
    }
  }

  async #seal({ hash, cells }: ChangeTracker): Promise<void> {
    if (mutated("commit-without-seal")) return;
    const { id: moveId } = this.#record, { position } = this.#group.replica.state;
    const step = {
      kind: "seal" as const,
      moveId,
      reign: this.#reign,
      seq: ++this.#seq,
      hash,
      cells,
      position,
    };
    const { done, why } = await this.#step(step);
    if (done) return;
    this.#env.log("error", "a moved tablet differs", { id: moveId, why });
    throw new Hopeless(why!);
  }

  // ----------------------------------------------------------------------------- the end

  /** The first decision counts, whoever asked for it; it is in the map that comes back. */
  async #decide(decision: "commit" | "abort", reason: string): Promise<void> {
    const { id } = this.#record;
    for (let attempt = 0; this.#phase() === "copying"; attempt++) {
      this.#checkOffice();
      try {
        const { body } = await this.#options.peers.coordinator.call(
          coordinatorConversation,
          "decideMove",
          { id, decision, reason: reason.slice(0, 300) },
          undefined,
          { timeoutMs: 2_000 },
        );
        this.#options.onMap(body.rangeMap);
      } catch (error) {
        if (!isPassing(error)) throw error;
        // Whether it was done is not known: it stays frozen, and the question is asked again.
        await this.#pause(attempt);
      }
    }
  }

  async #finish(): Promise<void> {
    const { id: moveId, from, to } = this.#record;
    this.#note("finishing");
    for (let attempt = 0;; attempt++) {
      const { done, why } = await this.#step({ kind: "activate", moveId });
      if (done) break;
      this.#env.log("warning", "a moved tablet cannot be activated yet", { id: moveId, why });
      if (!mutated("half-copy-left")) await this.#completeCopy();
      await this.#pause(attempt);
    }
    const nowMs = this.#env.monotonicMs();
    const frozenMs = this.#frozenMs === Infinity ? null : Math.round(nowMs - this.#frozenMs);
    if (this.#group.replica.state.tablets.departing(moveId) !== undefined) await this.#drop();
    const { bytes } = this.#progress;
    this.#env.log("info", "a tablet has moved", { id: moveId, from, to, bytes, frozenMs });
    await this.#end();
  }

  /**
   * Between the commit and now there was a primary, be it this one, that had not heard of the commit. It
   * began to copy anew, which takes the seal away, and was interrupted by the news. What is frozen here is what
   * was committed, so the copy can still be completed.
   */
  async #completeCopy(): Promise<void> {
    const { id: moveId } = this.#record;
    if (this.#group.replica.state.tablets.departing(moveId) === undefined) return;
    this.#copyingFor = "committed";
    try {
      await this.#copyAndFreeze();
    } catch (error) {
      if (!(error instanceof Hopeless)) throw error;
      this.#env.log("error", "a moved tablet cannot be completed", {
        id: moveId,
        why: error.message,
      });
    }
    this.#note("finishing");
  }

  async #drop(): Promise<void> {
    const { id: moveId, startKey, endKey } = this.#record;
    const { done, why } = await this.#log({ kind: "drop", moveId, startKey, endKey });
    if (!done) throw new Error(why!);
  }

  /** It came to nothing: first this group serves all of it again, then the other one clears up. */
  async #withdraw(): Promise<void> {
    const { id: moveId } = this.#record;
    this.#note("finishing");
    if (this.#group.replica.state.tablets.departing(moveId) !== undefined) {
      await this.#log({ kind: "thaw", moveId, isOver: true });
    }
    await this.#step({ kind: "cancel", moveId });
    await this.#end();
  }

  async #end(): Promise<void> {
    const { id } = this.#record;
    const isKnown = () => this.#options.map().moves.some((move) => move.id === id);
    for (let attempt = 0; isKnown(); attempt++) {
      this.#checkOffice();
      try {
        const { body } = await this.#options.peers.coordinator
          .call(coordinatorConversation, "endMove", { id }, undefined, { timeoutMs: 2_000 });
        this.#options.onMap(body.rangeMap);
      } catch (error) {
        if (!isPassing(error)) throw error;
        await this.#pause(attempt);
      }
    }
  }

  // ----------------------------------------------------------------------------- helpers

  async #stage(piece: Pick<StageStep, "clear" | "cells" | "gone" | "records">): Promise<void> {
    const { id: moveId, to: gid } = this.#record;
    const files: Uint8Array[] = [], cells: StoredCell[] = [];
    for (const cell of piece.cells) {
      const bytes = isBlobRef(cell.value) ? await this.#fileOf(cell, cell.value.blob) : null;
      // It was overwritten meanwhile, which is among the changes that are sent later.
      if (bytes === undefined) continue;
      if (bytes === null) cells.push(cell);
      else {
        files.push(bytes);
        // Both groups may lie on one node, and each removes its files when it does not need them.
        cells.push({ ...cell, value: { blob: freshId(this.#env) } });
      }
    }
    const step: StageStep = {
      kind: "stage",
      moveId,
      reign: this.#reign,
      seq: ++this.#seq,
      ...piece,
      cells,
    };
    const inline: Uint8Array[] = [];
    const head = headOfMove(step, inline);
    const body = { gid, step: head, timeMs: this.#timeMs };
    const { done, why } = await this.#ask(
      (peer) =>
        peer.call(moveConversation, "moveStage", body, [...inline, ...files], {
          timeoutMs: CALL_TIMEOUT_MS,
        }),
      "bulk",
    );
    if (!done) throw new Hopeless(why!);
  }

  /** Undefined when the cell is another one by now. */
  async #fileOf(cell: StoredCell, blob: string): Promise<Uint8Array | undefined> {
    try {
      // Never let go of: it may be sent more than once, and nobody says when the last time was.
      const { bytes } = await this.#options.intake.lendWhole(this.#group.gid, blob);
      if (crc32(bytes) === cell.crc) return bytes;
      throw new CorruptionError("The file of a value is another value's", blob, 0);
    } catch (error) {
      const now = this.#group.store.get(cell.row, cell.column);
      if (now?.version !== cell.version) return undefined;
      if (!(error instanceof CorruptionError)) throw error;
      if (this.#options.onDamage(error)) throw new Interrupted();
      throw new Hopeless(`a value of row "${cell.row}" cannot be read: ${error.message}`);
    }
  }

  /** Has the other group log a step. */
  async #step(step: Exclude<MoveStepHead, { kind: "stage" }>): Promise<MoveOutcome> {
    const body = { gid: this.#record.to, step, timeMs: this.#timeMs };
    const reply = await this.#ask((peer) =>
      peer.call(moveConversation, "moveStep", body, undefined, { timeoutMs: CALL_TIMEOUT_MS })
    );
    return { kind: "move", ...reply };
  }

  /** Logs a step here; only an end of this primary's office keeps it from being done. */
  async #log(step: MoveStep): Promise<MoveOutcome> {
    for (let attempt = 0;; attempt++) {
      this.#checkOffice();
      try {
        const outcome = await this.#group.move(step);
        this.#note(this.#progress.phase);
        return outcome;
      } catch (error) {
        if (!isPassing(error)) throw error;
        await this.#pause(attempt);
      }
    }
  }

  /** Asks the primary of the other group, whoever that is, until it answers. */
  async #ask<T>(
    call: (peer: ReturnType<PeerLinks["of"]>) => Promise<{ body: T }>,
    lane: "control" | "bulk" = "control",
  ): Promise<T> {
    const phase = this.#phase();
    for (let attempt = 0;; attempt++) {
      this.#checkOffice();
      if (this.#phase() !== phase) throw new Interrupted();
      try {
        const { body } = await call(this.#options.peers.of("backend", this.#target, lane));
        return body;
      } catch (error) {
        if (!isPassing(error)) throw error;
        this.#lookElsewhere(error);
        await this.#pause(attempt);
      }
    }
  }

  #lookElsewhere(error: unknown): void {
    if (error instanceof KvError && error.code === "busy") return;
    const { details } = error as { details?: { hint?: NodeId | null } };
    const { targets } = this.#options;
    if (details?.hint != null && details.hint !== this.#target) this.#target = details.hint;
    else this.#target = nodeId(targets[++this.#targetTurn % targets.length]!);
  }

  #guarded<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      // The next primary has a whole copy.
      if (this.#options.onDamage(error)) throw new Interrupted();
      throw new Hopeless(`it cannot be read: ${error.message}`);
    }
  }

  #phase(): ReturnType<typeof phaseOf> {
    return phaseOf(this.#options.map(), this.#record.id);
  }

  #checkOffice(): void {
    const { replica } = this.#group;
    const isInOffice = this.#options.isCurrent() && replica.canServe() &&
      replica.config?.reign === this.#reign;
    if (!isInOffice) throw new Interrupted();
  }

  #checkCopying(): void {
    this.#checkOffice();
    if (this.#phase() !== this.#copyingFor) throw new Interrupted();
  }

  async #pause(attempt: number): Promise<void> {
    const ms = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(attempt, 10));
    await this.#env.sleep(ms * (0.5 + this.#env.random() / 2));
  }

  /** The other group's time never lags behind this one's, so that records live as long there. */
  get #timeMs(): number {
    return this.#group.replica.state.timeMs;
  }

  #sizeOf(): number {
    const { tablets } = this.#group.replica.state;
    const counts = tablets.at(this.#record.startKey)?.counts;
    return (counts?.bytes ?? 0) + (counts?.largeBytes ?? 0);
  }

  #note(phase: MoveProgress["phase"], bytes = 0): void {
    const { id, bytesTotal, mark } = this.#progress;
    bytes += this.#progress.bytes;
    this.#progress = { id, phase, bytes, bytesTotal, mark: mark + 1 };
    this.#group.moveProgress = this.#progress;
  }
}

/** Whether the same may succeed in a moment. */
function isPassing(error: unknown): boolean {
  if (error instanceof RpcError) return error.code !== "too_large" && error.code !== "internal";
  return error instanceof KvError &&
    ["not_primary", "busy", "unavailable"].includes(error.code);
}
