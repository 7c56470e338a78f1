/**
 * The checkpoints of one simulated node: cells in memory, made durable all at once.
 *
 * SQLite is not simulated. What the store relies on, that a checkpoint is one transaction, is what
 * this models: a crash while one is written leaves the old state or the new, never a mixture.
 */
import {
  type CellRange,
  type CheckpointedStore,
  isBlobRef,
  type StoredCell,
} from "../../kv/cell_store.ts";
import { diskFull } from "../../kv/disk/disk.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import { type GroupId, type Lsn, lsn as toLsn } from "../../proto/ids.ts";
import type { SeededRandom } from "./seeded_random.ts";

interface Checkpoint {
  readonly lsn: Lsn;
  /** JSON, as it would lie in the file. */
  readonly meta: string;
  readonly cells: readonly StoredCell[];
}

export class SimCheckpoints {
  readonly #saved = new Map<GroupId, Checkpoint>();
  /** Being written right now. */
  readonly #pending = new Map<GroupId, Checkpoint>();
  readonly #copies = new Map<string, Checkpoint>();
  #copyCount = 0;
  /** Writes fail while it is set. */
  isFull = false;

  /** `takeTime` belongs to the process that opens: it never settles once that has ended. */
  open(gid: GroupId, takeTime: () => Promise<void>): CheckpointedStore {
    return new SimCellStore(this, gid, takeTime);
  }

  /** The process ended, or the machine did: what was being written may be there or not. */
  crash(random: SeededRandom): void {
    for (const [gid, checkpoint] of this.#pending) {
      if (random.chance(0.5)) this.#saved.set(gid, checkpoint);
    }
    this.#pending.clear();
    this.#copies.clear();
  }

  saved(gid: GroupId): Checkpoint | undefined {
    return this.#saved.get(gid);
  }

  async save(gid: GroupId, checkpoint: Checkpoint, takeTime: () => Promise<void>): Promise<void> {
    this.#pending.set(gid, checkpoint);
    await takeTime();
    this.#pending.delete(gid);
    if (this.isFull) throw diskFull(`groups/${gid}.db`);
    this.#saved.set(gid, checkpoint);
  }

  copy(gid: GroupId): { lsn: Lsn; path: string } {
    const checkpoint = this.#saved.get(gid) ?? { lsn: toLsn(0), meta: "{}", cells: [] };
    const path = `copy-${++this.#copyCount}-${gid}`;
    this.#copies.set(path, checkpoint);
    return { lsn: checkpoint.lsn, path };
  }

  removeCopy(path: string): void {
    this.#copies.delete(path);
  }

  /** What another node fetched; undefined when it is no longer kept. */
  copyOf(gid: GroupId, lsn: Lsn): Checkpoint | undefined {
    for (const [path, copy] of this.#copies) {
      if (path.endsWith(`-${gid}`) && copy.lsn === lsn) return copy;
    }
    return undefined;
  }

  install(gid: GroupId, checkpoint: Checkpoint): void {
    this.#saved.set(gid, checkpoint);
  }
}

export function blobsIn(checkpoint: Checkpoint): string[] {
  return checkpoint.cells.flatMap(({ value }) => isBlobRef(value) ? [value.blob] : []);
}

class SimCellStore implements CheckpointedStore {
  readonly #cells = new MemoryCellStore();
  readonly #checkpoints: SimCheckpoints;
  readonly #gid: GroupId;
  readonly #takeTime: () => Promise<void>;
  checkpointLsn: Lsn;
  meta: Record<string, unknown>;
  dirtyBytes = 0;
  #isClosed = false;

  constructor(checkpoints: SimCheckpoints, gid: GroupId, takeTime: () => Promise<void>) {
    this.#checkpoints = checkpoints;
    this.#gid = gid;
    this.#takeTime = takeTime;
    const saved = checkpoints.saved(gid);
    this.checkpointLsn = saved?.lsn ?? toLsn(0);
    this.meta = saved === undefined ? {} : JSON.parse(saved.meta);
    for (const cell of saved?.cells ?? []) this.#cells.put(cell);
  }

  get(row: string, column: string): StoredCell | undefined {
    this.#assertOpen();
    return this.#cells.get(row, column);
  }

  range(range: CellRange): Iterable<StoredCell> {
    this.#assertOpen();
    return this.#cells.range(range);
  }

  put(cell: StoredCell): void {
    this.dirtyBytes += 100 + (isBlobRef(cell.value) ? 0 : cell.size);
    this.#cells.put(cell);
  }

  delete(row: string, column: string): void {
    this.dirtyBytes += 100;
    this.#cells.delete(row, column);
  }

  async checkpoint({ lsn, meta }: { lsn: Lsn; meta: Record<string, unknown> }): Promise<void> {
    this.#assertOpen();
    const metaText = JSON.stringify(meta), dirtyBytes = this.dirtyBytes;
    const checkpoint = { lsn, meta: metaText, cells: [...this.#cells.range({})] };
    await this.#checkpoints.save(this.#gid, checkpoint, this.#takeTime);
    this.checkpointLsn = lsn;
    this.meta = JSON.parse(metaText);
    this.dirtyBytes -= dirtyBytes;
  }

  async exportSnapshot() {
    await this.#takeTime();
    const { lsn, path } = this.#checkpoints.copy(this.#gid);
    const remove = () => {
      this.#checkpoints.removeCopy(path);
      return Promise.resolve();
    };
    return { lsn, path, bytes: 1, remove };
  }

  *blobsReferenced(): Iterable<string> {
    const saved = this.#checkpoints.saved(this.#gid);
    for (const cells of [saved?.cells ?? [], this.#cells.range({})]) {
      for (const { value } of cells) if (isBlobRef(value)) yield value.blob;
    }
  }

  close(): void {
    this.#isClosed = true;
  }

  #assertOpen(): void {
    if (this.#isClosed) throw new Error("the checkpoint is closed");
  }
}
