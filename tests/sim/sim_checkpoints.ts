/**
 * The checkpoints of one simulated node: cells in memory, made durable all at once.
 *
 * SQLite is not simulated. What the store relies on, that a checkpoint is one transaction, is what
 * this models: a crash while one is written leaves the old state or the new, never a mixture. Single
 * cells of what is saved can be damaged. Whoever reads one is told, until it is written anew.
 */
import {
  type CellRange,
  type CheckpointedStore,
  isBlobRef,
  type StoredCell,
  type VerifiedCell,
} from "../../kv/cell_store.ts";
import { diskFull } from "../../kv/disk/disk.ts";
import { CorruptionError } from "../../kv/errors.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import { type GroupId, type Lsn, lsn as toLsn } from "../../proto/ids.ts";
import type { SeededRandom } from "./seeded_random.ts";

interface Checkpoint {
  readonly lsn: Lsn;
  /** JSON, as it would lie in the file. */
  readonly meta: string;
  readonly cells: readonly StoredCell[];
  /** Cells that fail their checksums, as `keyOf` has them. */
  readonly damaged?: ReadonlySet<string>;
}

const keyOf = (row: string, column: string) => `${row}\0${column}`;

export class SimCheckpoints {
  readonly #saved = new Map<GroupId, Checkpoint>();
  /** Being written right now. */
  readonly #pending = new Map<GroupId, Checkpoint>();
  readonly #copies = new Map<string, Checkpoint>();
  readonly #opened = new Map<GroupId, SimCellStore>();
  #copyCount = 0;
  /** Writes fail while it is set. */
  isFull = false;

  /** `takeTime` belongs to the process that opens: it never settles once that has ended. */
  open(gid: GroupId, takeTime: () => Promise<void>): CheckpointedStore {
    const store = new SimCellStore(this, gid, takeTime);
    this.#opened.set(gid, store);
    return store;
  }

  /** What has changed takes so much more memory until a checkpoint is written. */
  swell(gid: GroupId, bytes: number): void {
    const store = this.#opened.get(gid);
    if (store !== undefined) store.dirtyBytes += bytes;
  }

  /** What has changed, in all groups. */
  get dirtyBytes(): number {
    return Array.from(this.#opened.values(), (store) => store.dirtyBytes)
      .reduce((sum, bytes) => sum + bytes, 0);
  }

  /** The process ended, or the machine did: what was being written may be there or not. */
  crash(random: SeededRandom): void {
    for (const [gid, checkpoint] of this.#pending) {
      if (random.chance(0.5)) this.#saved.set(gid, checkpoint);
    }
    this.#pending.clear();
    this.#copies.clear();
    this.#opened.clear();
  }

  saved(gid: GroupId): Checkpoint | undefined {
    return this.#saved.get(gid);
  }

  /** Damages one cell of what is saved, wherever it is; null when there is none. */
  damageCell(gid: GroupId, random: SeededRandom): StoredCell | null {
    const saved = this.#saved.get(gid);
    if (saved === undefined || saved.cells.length === 0) return null;
    const cell = random.pick(saved.cells);
    const damaged = new Set([...saved.damaged ?? [], keyOf(cell.row, cell.column)]);
    this.#saved.set(gid, { ...saved, damaged });
    return cell;
  }

  isDamaged(gid: GroupId): boolean {
    return (this.#saved.get(gid)?.damaged?.size ?? 0) > 0;
  }

  /** The group's file is moved aside. */
  remove(gid: GroupId): void {
    this.#saved.delete(gid);
    this.#pending.delete(gid);
  }

  /** `rewritten` are the cells that were not in the file as they are now; the others stay as they lie. */
  async save(
    gid: GroupId,
    written: Checkpoint,
    { rewritten, takeTime }: { rewritten: ReadonlySet<string>; takeTime: () => Promise<void> },
  ): Promise<void> {
    const withDamage = () => {
      const damaged = [...this.#saved.get(gid)?.damaged ?? []].filter((key) => !rewritten.has(key));
      return damaged.length === 0 ? written : { ...written, damaged: new Set(damaged) };
    };
    this.#pending.set(gid, withDamage());
    await takeTime();
    this.#pending.delete(gid);
    if (this.isFull) throw diskFull(`groups/${gid}.db`);
    this.#saved.set(gid, withDamage());
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
  /** Changed since the last checkpoint began: these are read from memory. */
  #rewritten = new Set<string>();
  /** What a checkpoint under way writes; until it is there they are read from memory as well. */
  #flushing: ReadonlySet<string> = new Set();
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
    this.#checkSum(row, column);
    return this.#cells.get(row, column);
  }

  *range(range: CellRange): Iterable<StoredCell> {
    this.#assertOpen();
    for (const cell of this.#cells.range(range)) {
      this.#checkSum(cell.row, cell.column);
      yield cell;
    }
  }

  *verify(): Iterable<VerifiedCell> {
    const saved = this.#checkpoints.saved(this.#gid);
    for (const { row, column, size } of saved?.cells ?? []) {
      yield { row, column, damaged: saved!.damaged?.has(keyOf(row, column)) ?? false, bytes: size };
    }
  }

  put(cell: StoredCell): void {
    this.dirtyBytes += 100 + (isBlobRef(cell.value) ? 0 : cell.size);
    this.#rewritten.add(keyOf(cell.row, cell.column));
    this.#cells.put(cell);
  }

  delete(row: string, column: string): void {
    this.dirtyBytes += 100;
    this.#rewritten.add(keyOf(row, column));
    this.#cells.delete(row, column);
  }

  async checkpoint({ lsn, meta }: { lsn: Lsn; meta: Record<string, unknown> }): Promise<void> {
    this.#assertOpen();
    const metaText = JSON.stringify(meta), dirtyBytes = this.dirtyBytes;
    const checkpoint = { lsn, meta: metaText, cells: [...this.#cells.range({})] };
    const rewritten = this.#rewritten, takeTime = this.#takeTime;
    this.#rewritten = new Set();
    this.#flushing = rewritten;
    try {
      await this.#checkpoints.save(this.#gid, checkpoint, { rewritten, takeTime });
    } catch (error) {
      for (const key of rewritten) this.#rewritten.add(key);
      throw error;
    } finally {
      this.#flushing = new Set();
    }
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

  mentionsBlob(blob: string): boolean {
    return Iterator.from(this.blobsReferenced()).some((mentioned) => mentioned === blob);
  }

  close(): void {
    this.#isClosed = true;
  }

  /** What is in memory since it was changed does not come from the file. */
  #checkSum(row: string, column: string): void {
    const damaged = this.#checkpoints.saved(this.#gid)?.damaged;
    if (damaged === undefined) return;
    const key = keyOf(row, column);
    if (!damaged.has(key) || this.#rewritten.has(key) || this.#flushing.has(key)) return;
    const path = `groups/${this.#gid}.db`;
    throw new CorruptionError(`Cell "${row}" "${column}" fails its checksum`, path, 0);
  }

  #assertOpen(): void {
    if (this.#isClosed) throw new Error("the checkpoint is closed");
  }
}
