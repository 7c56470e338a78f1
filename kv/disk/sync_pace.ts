/**
 * Whether a short sync is waited for on the spot, with the whole thread, or done beside it.
 *
 * A disk with a safe cache of its own syncs in a tenth of a millisecond. Handing that to another thread
 * and being woken by it costs about as much processor time again, and the pause in which nothing else
 * is done gathers the next batch. A slow disk must not stop the thread, which answers reads and
 * heartbeats meanwhile. So the first syncs are done beside it; when they look quick it is tried on the
 * spot; and it is done beside again as soon as some were not quick: for a second, or longer each time
 * if that showed at once, as with a disk that is just not quick. After one that was far from quick it is
 * done beside for a hundred times as long as that took, a minute at most: such moments take one part in a
 * hundred of the time. A disk that hangs out of the blue is thus waited for once, and the others notice
 * the silence as they would a stopped process's.
 */

/** Worth waiting for. */
const QUICK_MS = 1;
/** Of so many that were waited for, so many may have taken longer. */
const LOOKED_AT = 16, SLOWER_MAX = 4;
/** A single one that took this long is one too many. */
const STALL_MS = 10;
const STALL_FACTOR = 100;
const STALL_DISTRUST_MS_MAX = 60_000;
/** Beside the thread a sync seems longer than it is: until the thread gets round to looking. */
const PLAUSIBLE_MS = 8;
const DISTRUST_MS_MIN = 1_000;
const DISTRUST_MS_MAX = 8_000;
/** So many in a row on the spot, and the disk was quick for a while. */
const GOOD_RUN = 256;

export class SyncPace {
  /** Of the last syncs on the spot, a bit for each: 1 where it was slow. */
  #slow = 0;
  #isHere = false;
  /** Syncs on the spot since it is done so. */
  #runLength = 0;
  #distrustMs = DISTRUST_MS_MIN;
  #distrustedUntilMs = -Infinity;

  /** Whether the next sync is waited for on the spot. */
  get isHere(): boolean {
    return this.#isHere;
  }

  /** A sync took `ms` and ended at `nowMs`. */
  note(ms: number, nowMs: number): void {
    if (this.#isHere) {
      this.#runLength += 1;
      this.#slow = ((this.#slow << 1) | Number(ms >= QUICK_MS)) & ((1 << LOOKED_AT) - 1);
      if (ms >= STALL_MS) {
        this.#distrust(nowMs + Math.min(STALL_DISTRUST_MS_MAX, STALL_FACTOR * ms));
      } else if (bitCount(this.#slow) > SLOWER_MAX) {
        const isAtOnce = this.#runLength < GOOD_RUN;
        this.#distrustMs = isAtOnce
          ? Math.min(DISTRUST_MS_MAX, this.#distrustMs * 2)
          : DISTRUST_MS_MIN;
        this.#distrust(nowMs + this.#distrustMs);
      }
    } else if (ms < PLAUSIBLE_MS && nowMs >= this.#distrustedUntilMs) {
      this.#isHere = true;
      this.#slow = 0;
      this.#runLength = 0;
    }
  }

  #distrust(untilMs: number): void {
    this.#distrustedUntilMs = untilMs;
    this.#isHere = false;
  }
}

function bitCount(bits: number): number {
  let count = 0;
  for (let rest = bits; rest !== 0; rest &= rest - 1) count += 1;
  return count;
}
