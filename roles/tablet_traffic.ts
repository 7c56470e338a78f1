/** Reads and writes per second of each tablet of a group, for reports. */

interface Counted {
  reads: number;
  writes: number;
}

export interface TabletRate {
  readonly readsPerSecond: number;
  readonly writesPerSecond: number;
}

/** Shorter spans make the figures jump. */
const SPAN_MS = 900;
const IDLE: TabletRate = { readsPerSecond: 0, writesPerSecond: 0 };

export class TabletTraffic {
  #counted = new Map<number, Counted>();
  #rates = new Map<number, TabletRate>();
  #sinceMs = 0;

  read(tabletId: number): void {
    this.#of(tabletId).reads += 1;
  }

  wrote(tabletId: number): void {
    this.#of(tabletId).writes += 1;
  }

  /** Ends the span when it has lasted long enough. A tablet that is gone is forgotten with it. */
  tick(nowMs: number): void {
    const seconds = (nowMs - this.#sinceMs) / 1000;
    if (seconds * 1000 < SPAN_MS) return;
    this.#rates = new Map(Array.from(this.#counted, ([id, { reads, writes }]) => [id, {
      readsPerSecond: Math.round(reads / seconds),
      writesPerSecond: Math.round(writes / seconds),
    }]));
    this.#counted.clear();
    this.#sinceMs = nowMs;
  }

  rateOf(tabletId: number): TabletRate {
    return this.#rates.get(tabletId) ?? IDLE;
  }

  #of(tabletId: number): Counted {
    let counted = this.#counted.get(tabletId);
    if (counted === undefined) this.#counted.set(tabletId, counted = { reads: 0, writes: 0 });
    return counted;
  }
}
