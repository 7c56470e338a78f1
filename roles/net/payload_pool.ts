/**
 * Buffers for large payloads, used again once nobody looks at what is in them.
 *
 * A fresh array of 4 MiB for every value costs the collector more than everything else that happens to
 * the value: V8 counts such memory and marks its whole heap every dozen of them. A buffer from here
 * comes back only when the one who was given it has claimed it and all who hold it have let go.
 * Whoever does not know about that keeps the bytes as long as he likes: a buffer that is not claimed,
 * or not let go of, is collected like any other. So a mistake can only be made by letting go too early,
 * and those who let go are few: blob_intake.ts, and the answers that it gives.
 */

export const POOLED_BYTES_MIN = 512 * 1024;
/** A value and the log entry beside it fit in the same buffers as the value alone. */
const ROUNDED_TO_BYTES = 256 * 1024;
const SLACK_BYTES = 16 * 1024;
const SPARE_BYTES_MAX = 18 * 1024 * 1024;
/** What a buffer may be larger than needed. */
const EXCESS_BYTES_MAX = 2 * ROUNDED_TO_BYTES;
/** Spare buffers that nobody has wanted for so many seconds go back to the system. */
const IDLE_TICKS = 5;

export class PayloadPool {
  readonly #spare: ArrayBuffer[] = [];
  #spareBytes = 0;
  /** Handed out and not claimed yet. */
  readonly #unclaimed = new WeakSet<ArrayBufferLike>();
  #idleTicks = 0;

  /** `bytes` bytes of any content. Small ones are fresh arrays of their own. */
  take(bytes: number): Uint8Array {
    if (bytes < POOLED_BYTES_MIN) return new Uint8Array(bytes);
    this.#idleTicks = 0;
    const fits = ({ byteLength }: ArrayBuffer) =>
      byteLength >= bytes && byteLength - bytes <= EXCESS_BYTES_MAX;
    const at = this.#spare.findLastIndex(fits);
    const buffer = at === -1 ? freshBuffer(bytes) : this.#spare.splice(at, 1)[0]!;
    if (at !== -1) this.#spareBytes -= buffer.byteLength;
    this.#unclaimed.add(buffer);
    return new Uint8Array(buffer, 0, bytes);
  }

  /**
   * Takes over the buffer behind `bytes`, which nobody else may be looking at: the claimer is its first
   * holder. Null where it is none of this pool's, or claimed already.
   */
  claim(bytes: Uint8Array): HeldBuffer | null {
    const { buffer } = bytes;
    if (!(buffer instanceof ArrayBuffer) || !this.#unclaimed.delete(buffer)) return null;
    return new HeldBuffer(() => this.#give(buffer));
  }

  get spareBytes(): number {
    return this.#spareBytes;
  }

  /** To be called about once a second. */
  tick(): void {
    if (this.#idleTicks++ < IDLE_TICKS) return;
    this.#spare.length = 0;
    this.#spareBytes = 0;
  }

  #give(buffer: ArrayBuffer): void {
    if (this.#spareBytes + buffer.byteLength > SPARE_BYTES_MAX) return;
    this.#spare.push(buffer);
    this.#spareBytes += buffer.byteLength;
  }
}

/** One buffer of the pool and how many hold it. */
export class HeldBuffer {
  #holders = 1;
  readonly #free: () => void;

  constructor(free: () => void) {
    this.#free = free;
  }

  /** One more holder. Who never lets go keeps the buffer from being used again, for good. */
  hold(): void {
    this.#holders++;
  }

  letGo(): void {
    this.#holders--;
    if (this.#holders === 0) this.#free();
    else if (this.#holders < 0) throw new Error("A buffer was let go of more often than held");
  }
}

/** Of this process: all its connections share it. */
export const payloadPool = new PayloadPool();

const freshBuffer = (bytes: number): ArrayBuffer =>
  new ArrayBuffer(Math.ceil((bytes + SLACK_BYTES) / ROUNDED_TO_BYTES) * ROUNDED_TO_BYTES);
