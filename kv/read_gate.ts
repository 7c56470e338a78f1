/**
 * Reads that a primary may not answer yet, and what each of them waits for.
 *
 * A primary that holds a lease answers at once and nothing comes here. Otherwise a read waits until
 * one of these says that nobody else was primary when it arrived, or later:
 *
 *   lease     everybody electable has promised to stay a follower for now
 *   round     everybody electable has answered a heartbeat that was sent after the read came in
 *   record    the coordinator's record, read after the read came in, still names this epoch; for when
 *             somebody electable is out of reach
 *
 * With the last one a new primary may answer before its log is decided: but not rows that undecided
 * entries touch ("limbo": LeaseGuard, Demirbas and Davis 2025). Nothing here reads a clock.
 */
import { compareKeys } from "./key_order.ts";

/** Rows from `from`, up to but without `until`; null for no end. */
export interface RowSpan {
  readonly from: string;
  readonly until: string | null;
}

export const spanOfRow = (row: string): RowSpan => ({ from: row, until: row + "\0" });

/** The first row that lies in the span, if any. */
export function rowWithin(span: RowSpan, rows: Iterable<string>): string | null {
  for (const row of rows) {
    if (compareKeys(row, span.from) < 0) continue;
    if (span.until === null || compareKeys(row, span.until) < 0) return row;
  }
  return null;
}

export function spansOverlap(a: RowSpan, b: RowSpan): boolean {
  const before = (until: string | null, from: string) =>
    until !== null && compareKeys(until, from) <= 0;
  return !before(a.until, b.from) && !before(b.until, a.from);
}

export interface WaitingRead {
  readonly readId: number;
  readonly span: RowSpan;
  /** The last heartbeat that had been sent when the read came in. */
  readonly beat: number;
  readonly sinceMs: number;
}

export interface RecordCheck {
  readonly checkId: number;
  readonly askedMs: number;
}

export class ReadGate {
  #reads: WaitingRead[] = [];
  #check: (RecordCheck & { readonly reads: ReadonlySet<number> }) | null = null;

  get size(): number {
    return this.#reads.length;
  }

  /** When the read that has waited longest came in. */
  get oldestMs(): number {
    return this.#reads[0]?.sinceMs ?? Infinity;
  }

  /** Whether a read waits that no heartbeat has been sent for. */
  wantsBeat(lastBeat: number): boolean {
    return this.#reads.at(-1)?.beat === lastBeat;
  }

  add(read: WaitingRead): void {
    this.#reads.push(read);
  }

  /** Takes out those that `may` be answered. */
  take(may: (read: WaitingRead) => boolean): WaitingRead[] {
    const taken = this.#reads.filter(may);
    if (taken.length > 0) this.#reads = this.#reads.filter((read) => !taken.includes(read));
    return taken;
  }

  takeAll(): WaitingRead[] {
    this.#check = null;
    const taken = this.#reads;
    this.#reads = [];
    return taken;
  }

  /** Begins a look at the coordinator's record for all that wait now; false while another is on. */
  beginCheck(check: RecordCheck, patienceMs: number): boolean {
    if (this.#check !== null && check.askedMs - this.#check.askedMs < patienceMs) return false;
    this.#check = { ...check, reads: new Set(this.#reads.map((read) => read.readId)) };
    return true;
  }

  /** The reads that a finished look was for; none when it was given up meanwhile. */
  endCheck(checkId: number): ReadonlySet<number> {
    if (this.#check?.checkId !== checkId) return new Set();
    const { reads } = this.#check;
    this.#check = null;
    return reads;
  }
}
