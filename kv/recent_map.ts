/**
 * A map that can tell an entry that was not asked for lately: the clock algorithm, or "second chance",
 * an approximation of least recently used (Corbató 1968). To ask for an entry only marks it. Whoever
 * needs room takes entries in the order in which they came; one that was asked for since goes back
 * to the end instead, once.
 */

interface Slot<V> {
  value: V;
  wasUsed: boolean;
}

/** For one entry that is taken: so many may go back at most, so that nobody waits for a whole round. */
const SECOND_CHANCES_MAX = 64;

export class RecentMap<V> {
  readonly #slots = new Map<string, Slot<V>>();
  /**
   * Stays where it is from one call to the next. A map keeps the places of entries that are gone for
   * as long as it does not grow, and an iterator that begins anew would pass over all of them again:
   * 45 µs an entry where there are a hundred thousand.
   */
  #hand = this.#slots.entries();

  get size(): number {
    return this.#slots.size;
  }

  get(key: string): V | undefined {
    const slot = this.#slots.get(key);
    if (slot === undefined) return undefined;
    slot.wasUsed = true;
    return slot.value;
  }

  /** A new entry comes last; one that is there stays in its place. */
  set(key: string, value: V): void {
    const slot = this.#slots.get(key);
    if (slot === undefined) this.#slots.set(key, { value, wasUsed: false });
    else slot.value = value;
  }

  /** Returns what was there. */
  delete(key: string): V | undefined {
    const slot = this.#slots.get(key);
    if (slot !== undefined) this.#slots.delete(key);
    return slot?.value;
  }

  keys(): Iterable<string> {
    return this.#slots.keys();
  }

  /** Takes out the entry whose turn it is; undefined when there is none. */
  takeOldest(): V | undefined {
    for (let chances = SECOND_CHANCES_MAX;; chances--) {
      const next = this.#next();
      if (next === undefined) return undefined;
      const [key, slot] = next;
      this.#slots.delete(key);
      if (!slot.wasUsed || chances === 0) return slot.value;
      slot.wasUsed = false;
      this.#slots.set(key, slot);
    }
  }

  #next(): [string, Slot<V>] | undefined {
    let next = this.#hand.next();
    if (next.done) {
      // What came to its end stays there, whatever is added later.
      this.#hand = this.#slots.entries();
      next = this.#hand.next();
    }
    return next.value;
  }
}
