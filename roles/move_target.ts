/**
 * The side of a move that takes a tablet: what the primary of the other group asks of this one's
 * (proto/moves.ts). Each request becomes an entry of the group's log; the state decides what it does.
 */
import { attachMoved } from "../kv/command.ts";
import { KvError } from "../kv/errors.ts";
import { INLINE_BYTES_MAX } from "../kv/kv.ts";
import { CellSum } from "../kv/cell_hash.ts";
import { memoryBytes } from "../kv/cell_memory.ts";
import { isBlobRef } from "../kv/cell_store.ts";
import { notDone, type StageStep } from "../kv/tablet_move.ts";
import { cellsWithin } from "../kv/tablet_moves.ts";
import { crc32 } from "node:zlib";
import type { MoveStepHead } from "../proto/command.ts";
import type { GroupId } from "../proto/ids.ts";
import type { moveConversation } from "../proto/moves.ts";
import type { GroupShell } from "./backend_group.ts";
import { refusal } from "./backend_refusal.ts";
import type { BlobIntake } from "./blob_intake.ts";
import type { Handlers } from "./net/rpc_service.ts";

export interface MoveTargetOptions {
  readonly groups: ReadonlyMap<GroupId, GroupShell>;
  readonly intake: BlobIntake;
  /** What completion records of one group may take. */
  readonly completionBytes: number;
  /** There may be files of values now that nothing mentions. */
  readonly onFilesLeft: () => void;
}

/** Beside its value, what a cell takes in an entry and in memory. */
const STEP_BYTES = 1024;

export class MoveTarget {
  readonly #options: MoveTargetOptions;

  constructor(options: MoveTargetOptions) {
    this.#options = options;
  }

  readonly handlers: Handlers<typeof moveConversation> = {
    moveOpen: async ({ gid, timeMs, ...step }) => {
      const group = this.#primaryOf(gid);
      const { done, why } = await group.move({ kind: "arrive", ...step }, timeMs);
      const tablet = group.replica.state.tablets.arriving(step.moveId);
      return { done, why, seq: tablet?.arrival?.seq ?? 0, cells: tablet?.counts.cells ?? 0 };
    },
    moveCompare: ({ gid, moveId, from, to, cellsMax }) => {
      const { state } = this.#primaryOf(gid).replica;
      const tablet = state.tablets.arriving(moveId);
      if (tablet === undefined) throw new KvError("invalid_request", `Move ${moveId} is over here`);
      const sum = new CellSum();
      for (const cell of cellsWithin(state.store, { from, to }, tablet.endKey)) {
        sum.add(cell, 1);
        if (sum.cells > cellsMax) break;
      }
      return { hash: sum.text, cells: sum.cells };
    },
    moveStage: async ({ gid, step, timeMs }, payload) => {
      const group = this.#primaryOf(gid);
      if (step.kind !== "stage") {
        throw new KvError("invalid_request", "This is no piece of a tablet");
      }
      const { completions } = group.replica.state;
      if (step.records !== null && completions.bytes > this.#options.completionBytes) {
        return notDone("the group remembers the requests of too many clients");
      }
      const staged = attachMoved(step, payload) as StageStep;
      let bytes = STEP_BYTES;
      for (const cell of staged.cells) bytes += memoryBytes({ ...cell });
      group.admit(bytes);
      this.#keepFiles(staged, payload);
      let isStaged = false;
      try {
        const outcome = await group.move(staged, timeMs);
        isStaged = outcome.done;
        return outcome;
      } finally {
        // Only a look at everything can tell whether an earlier copy of the piece uses them.
        if (!isStaged && staged.cells.some(({ value }) => isBlobRef(value))) {
          this.#options.onFilesLeft();
        }
      }
    },
    moveStep: async ({ gid, step, timeMs }) => {
      const group = this.#primaryOf(gid);
      if (step.kind === "stage") throw new KvError("invalid_request", "A piece needs its values");
      return await group.move(step as Exclude<MoveStepHead, { kind: "stage" }>, timeMs);
    },
  };

  #primaryOf(gid: GroupId): GroupShell {
    const group = this.#options.groups.get(gid);
    if (group?.replica.canServe() === true) return group;
    const hint = group?.replica.config?.primary.node ?? null;
    throw refusal("not_primary", `This node is not the serving primary of group ${gid}`, { hint });
  }

  /** Values that lie in files of their own come behind the inline ones. */
  #keepFiles({ cells }: StageStep, payload: Uint8Array): void {
    let offset = 0;
    for (const { size, value } of cells) if (!isBlobRef(value)) offset += size;
    for (const { row, size, crc, value } of cells) {
      if (!isBlobRef(value)) {
        if (size > INLINE_BYTES_MAX || crc32(value) !== crc) {
          throw new KvError("invalid_request", `A value of row "${row}" arrived damaged`);
        }
        continue;
      }
      const bytes = payload.slice(offset, offset += size);
      if (bytes.length !== size || crc32(bytes) !== crc) {
        throw new KvError("invalid_request", `A value of row "${row}" arrived damaged`);
      }
      this.#options.intake.add(value.blob, bytes);
    }
  }
}
