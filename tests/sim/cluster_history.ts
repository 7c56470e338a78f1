/**
 * What all groups of a simulated cluster did, in the order in which they committed it: one count of
 * positions for all of them, so that a row which moves from one group to another has one history.
 *
 * A group's own copy of a row counts only while the row is its own: what is staged for a move is no
 * change, nor is the removal of what was left behind. At the moment at which a tablet is activated it has
 * to hold exactly what the rows' history says, and from then on only its new group may change them.
 */
import type { CellPosition, StoredCell } from "../../kv/cell_store.ts";
import { isInternal } from "../../kv/internal_columns.ts";
import { compareKeys, inRange } from "../../kv/key_order.ts";
import type { RequestOutcome } from "../../kv/outcome.ts";
import type { KeyRange } from "../../kv/tablets.ts";
import type { WriteAnswer } from "./oracle.ts";
import { SimViolation } from "./violation.ts";

export interface CellChange {
  readonly at: number;
  /** Null: absent from here on. */
  readonly cell: { readonly version: number; readonly crc: number; readonly size: number } | null;
}

export interface Execution {
  readonly at: number;
  readonly outcome: RequestOutcome;
}

export class ClusterHistory {
  /** Entries that any group committed so far. */
  now = 0;
  /** When a tablet last changed its group. */
  movedAt = 0;
  moveCount = 0;
  readonly #arrivals: (KeyRange & { readonly gid: number; readonly since: number })[] = [];
  /** By row and column, oldest first. */
  readonly changes = new Map<string, CellChange[]>();
  readonly #columns = new Map<string, string[]>();
  readonly executions = new Map<string, Execution[]>();
  readonly answers = new Map<string, WriteAnswer>();
  /** Where each request was executed. */
  readonly stamps = new Map<string, string>();
  #owners: (KeyRange & { readonly gid: number })[];

  constructor(plans: readonly (KeyRange & { readonly id: number })[]) {
    this.#owners = plans.map(({ id, startKey, endKey }) => ({ gid: id, startKey, endKey }));
  }

  /** Ranges in order, neighbours of one group apart where tablets moved. */
  get owners(): readonly (KeyRange & { readonly gid: number })[] {
    return this.#owners;
  }

  /** Whether the row came to the group with a tablet behind this position of the group. */
  cameBehind(gid: number, row: string, position: number): boolean {
    return this.#arrivals.some((arrival) =>
      arrival.gid === gid && arrival.since > position &&
      inRange(row, arrival.startKey, arrival.endKey)
    );
  }

  ownerOf(row: string): number {
    return this.#owners.find(({ startKey, endKey }) => inRange(row, startKey, endKey))!.gid;
  }

  note({ row, column }: CellPosition, cell: CellChange["cell"]): void {
    // The store's own columns are shown to nobody.
    if (isInternal(column)) return;
    const key = `${row}\0${column}`, change = { at: this.now, cell };
    const changes = this.changes.get(key);
    if (changes !== undefined) {
      changes.push(change);
      return;
    }
    this.changes.set(key, [change]);
    const columns = this.#columns.get(row);
    if (columns === undefined) this.#columns.set(row, [key]);
    else columns.push(key);
  }

  at(key: string, position: number): CellChange["cell"] {
    return this.changes.get(key)!.findLast(({ at }) => at <= position)?.cell ?? null;
  }

  columnsOf(rows: readonly string[]): string[] {
    return rows.flatMap((row) => this.#columns.get(row) ?? []);
  }

  /** Rows that ever held something. */
  rowsWithin({ startKey, endKey }: KeyRange): string[] {
    return [...this.#columns.keys()].filter((row) => inRange(row, startKey, endKey));
  }

  /** All that were ever there from a row on, up to a cell or to the end, within a range. */
  keysWithin(startRow: string, end: CellPosition | null, range: KeyRange): string[] {
    const keys: string[] = [];
    for (const [row, own] of this.#columns) {
      if (compareKeys(row, startRow) < 0 || !inRange(row, range.startKey, range.endKey)) continue;
      const order = end === null ? -1 : compareKeys(row, end.row);
      if (order < 0) keys.push(...own);
      else if (order === 0) {
        const length = row.length + 1;
        keys.push(...own.filter((key) => compareKeys(key.slice(length), end!.column) <= 0));
      }
    }
    return keys;
  }

  /** A group serves a tablet from here on that was another's. */
  activated(
    gid: number,
    moved: KeyRange & { readonly since: number },
    cells: Iterable<StoredCell>,
  ): void {
    const found = new Map<string, StoredCell>();
    for (const cell of cells) {
      if (inRange(cell.row, moved.startKey, moved.endKey) && !isInternal(cell.column)) {
        found.set(`${cell.row}\0${cell.column}`, cell);
      }
    }
    for (const key of this.keysWithin(moved.startKey, null, moved)) {
      const then = this.at(key, this.now), now = found.get(key);
      found.delete(key);
      const same = then === null
        ? now === undefined
        : now?.version === then.version && now.crc === then.crc && now.size === then.size;
      if (same) continue;
      throw new SimViolation(
        `M1: group ${gid} activates a tablet with ${JSON.stringify(key)} ${describe(now)} ` +
          `instead of ${describe(then)}`,
      );
    }
    for (const key of found.keys()) {
      throw new SimViolation(
        `M1: group ${gid} activates a tablet with ${JSON.stringify(key)}, which nobody wrote`,
      );
    }
    this.movedAt = this.now;
    this.#arrivals.push({ gid, ...moved });
    this.moveCount += 1;
    this.#owners = this.#owners.flatMap((range) => withoutPart(range, moved))
      .concat({ startKey: moved.startKey, endKey: moved.endKey, gid }).sort((a, b) =>
        compareKeys(a.startKey, b.startKey)
      );
  }
}

function withoutPart<T extends KeyRange>(range: T, { startKey, endKey }: KeyRange): T[] {
  const parts: T[] = [];
  const isBefore = (key: string | null, other: string | null) =>
    key !== null && (other === null || compareKeys(key, other) < 0);
  if (endKey !== null && compareKeys(endKey, range.startKey) <= 0) return [range];
  if (range.endKey !== null && compareKeys(range.endKey, startKey) <= 0) return [range];
  if (isBefore(range.startKey, startKey)) parts.push({ ...range, endKey: startKey });
  if (isBefore(endKey, range.endKey)) parts.push({ ...range, startKey: endKey! });
  return parts;
}

const describe = (cell: { version: number; size: number } | null | undefined) =>
  cell == null ? "absent" : `at version ${cell.version}, ${cell.size} bytes`;
