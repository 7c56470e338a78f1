/**
 * Scans that see one state of their group from the first page to the last, while writes go on.
 *
 * A scan that wants it opens a snapshot at the last applied position S. From then on every cell that
 * is overwritten or deleted and was there at S is kept here with the position at which it went. A
 * page as of S reads the store as it is now and takes from here what has changed since: cells newer
 * than S are hidden, those that went after S are put back. That is right wherever a cell lies now, in
 * memory or in a file, whether a checkpoint was written or a tablet split in between.
 *
 * Old versions cost memory, so there is an end to it: a snapshot lives for LIFE_MS, and when the
 * node's {@link UndoBudget} is used up the oldest snapshot of the node is given up. Its scan is told
 * `snapshot_too_old` and may start over. Snapshots are no part of the replicated state: only the
 * node that opened one knows it, and not beyond its own life.
 */
import type { Lsn } from "../proto/ids.ts";
import type { CellPosition, CellRange, CellStore, StoredCell } from "./cell_store.ts";
import { memoryBytes, owned } from "./cell_memory.ts";
import { KvError } from "./errors.ts";
import { mutated } from "./mutant.ts";
import { comparePositions, SortedCells } from "./sorted_cells.ts";

export const SNAPSHOT_LIFE_MS = 30_000;
/** Snapshots of one group at once. */
const OPEN_MAX = 64;

/** A cell that is there but not in the snapshot. */
export interface HiddenCell extends CellPosition {
  readonly hidden: true;
}

/** Memory for old versions, shared by all groups of a node. */
export class UndoBudget {
  bytes = 0;
  /** Of all groups, the oldest first. */
  readonly #open = new Set<OpenSnapshot>();

  constructor(readonly bytesMax: number) {}

  opened(snapshot: OpenSnapshot): void {
    this.#open.add(snapshot);
  }

  closed(snapshot: OpenSnapshot): void {
    this.#open.delete(snapshot);
  }

  /** Gives up the oldest snapshots until what is kept fits. */
  enforce(): void {
    for (const snapshot of this.#open) {
      if (this.bytes <= this.bytesMax) return;
      snapshot.owner.giveUp(snapshot);
    }
  }
}

interface OpenSnapshot {
  readonly owner: Snapshots;
  readonly lsn: Lsn;
  untilMs: number;
  /** Scans that read at this position. */
  scans: number;
}

interface OldVersion {
  readonly cell: StoredCell;
  /** The entry that overwrote or deleted it. */
  readonly goneAt: Lsn;
}

export class Snapshots {
  readonly #budget: UndoBudget;
  /** By position, ascending. */
  #open: OpenSnapshot[] = [];
  /** Per cell, the version that went first at the front. */
  readonly #old = new SortedCells<OldVersion[]>();
  #bytes = 0;

  constructor(budget: UndoBudget) {
    this.#budget = budget;
  }

  /** Memory that old versions of this group take. */
  get bytes(): number {
    return this.#bytes;
  }

  get count(): number {
    return this.#open.length;
  }

  /**
   * A new scan begins at `lsn`, which is the last applied position.
   *
   * @throws {KvError} `busy`
   */
  open(lsn: Lsn, nowMs: number): void {
    this.expire(nowMs);
    const untilMs = nowMs + SNAPSHOT_LIFE_MS;
    const newest = this.#open.at(-1);
    if (newest?.lsn === lsn) {
      newest.scans += 1;
      newest.untilMs = untilMs;
      return;
    }
    if (this.#open.length >= OPEN_MAX) {
      throw new KvError("busy", `${OPEN_MAX} snapshots of this group are being read already`);
    }
    const snapshot: OpenSnapshot = { owner: this, lsn, untilMs, scans: 1 };
    this.#open.push(snapshot);
    this.#budget.opened(snapshot);
  }

  /** @throws {KvError} `snapshot_too_old` unless everything is kept that a scan at `lsn` needs */
  check(lsn: Lsn, nowMs: number): void {
    this.expire(nowMs);
    if (this.#open.some((snapshot) => snapshot.lsn === lsn)) return;
    if (mutated("snapshot-not-checked")) return;
    throw new KvError(
      "snapshot_too_old",
      `Cannot go on with a scan as of position ${lsn}: its snapshot is no longer kept`,
    );
  }

  /** One scan at `lsn` has read its last page. */
  close(lsn: Lsn): void {
    const snapshot = this.#open.find((item) => item.lsn === lsn);
    if (snapshot === undefined) return;
    snapshot.scans -= 1;
    if (snapshot.scans === 0) this.giveUp(snapshot);
  }

  /** The state that they are of is going away. */
  closeAll(): void {
    for (const snapshot of [...this.#open]) this.giveUp(snapshot);
  }

  expire(nowMs: number): void {
    for (const snapshot of [...this.#open]) {
      if (snapshot.untilMs <= nowMs) this.giveUp(snapshot);
    }
  }

  giveUp(snapshot: OpenSnapshot): void {
    const index = this.#open.indexOf(snapshot);
    if (index === -1) return;
    this.#open.splice(index, 1);
    this.#budget.closed(snapshot);
    this.#forgetUnneeded();
  }

  /** The entry at `goneAt` is about to overwrite or delete `cell`. */
  keep(cell: StoredCell, goneAt: Lsn): void {
    const newest = this.#open.at(-1);
    // Written after the last snapshot was taken: no scan has to see it.
    if (newest === undefined || cell.version > newest.lsn) return;
    if (mutated("old-version-not-kept")) return;
    // A view into a larger buffer would keep all of it in memory.
    const old: OldVersion = { cell: owned(cell), goneAt };
    const known = this.#old.get(cell.row, cell.column);
    if (known === undefined) this.#old.set(cell.row, cell.column, [old]);
    else known.push(old);
    this.#charge(memoryBytes(cell));
    this.#budget.enforce();
  }

  /** Cells as of `lsn` in order, and in their places those that are there now but were not then. */
  *range(
    store: CellStore,
    lsn: Lsn,
    range: Omit<CellRange, "reverse">,
  ): Iterable<StoredCell | HiddenCell> {
    const now = store.range(range)[Symbol.iterator]();
    const past = this.#old.range(range)[Symbol.iterator]();
    let present = now.next(), old = past.next();
    while (!present.done || !old.done) {
      const order = present.done ? 1 : old.done ? -1 : comparePositions(present.value, old.value);
      const cell = order <= 0 ? present.value as StoredCell : null;
      const versions = order >= 0 ? old.value!.value as OldVersion[] : [];
      const { row, column } = cell ?? old.value!;
      const isPart = cell !== null && (cell.version <= lsn || mutated("newer-cells-shown"));
      if (isPart) yield cell;
      else {
        const then = versions.find((item) => item.goneAt > lsn && item.cell.version <= lsn);
        yield then?.cell ?? { row, column, hidden: true };
      }
      if (order <= 0) present = now.next();
      if (order >= 0) old = past.next();
    }
  }

  #charge(bytes: number): void {
    this.#bytes += bytes;
    this.#budget.bytes += bytes;
  }

  #forgetUnneeded(): void {
    if (this.#bytes === 0) return;
    const needed = ({ cell, goneAt }: OldVersion) =>
      this.#open.some(({ lsn }) => cell.version <= lsn && lsn < goneAt);
    for (const { row, column, value } of [...this.#old.range({})]) {
      const kept = value.filter(needed);
      if (kept.length === value.length) continue;
      for (const old of value) if (!kept.includes(old)) this.#charge(-memoryBytes(old.cell));
      if (kept.length === 0) this.#old.delete(row, column);
      else this.#old.set(row, column, kept);
    }
  }
}
