/**
 * The ceiling over the data that a node keeps in memory, for all of its groups together.
 *
 * Counted are: clean cells (a cache), cells that no checkpoint holds yet and the copy that is being
 * written, the log's entries in memory, completion records, old versions for scans, locks of
 * transactions, and the counts of tablets. All but the cache are pinned: only a checkpoint, a commit or time frees them. So
 *
 *   - the cache gets what the pinned leave, and gives it back, what was not used lately first;
 *   - a checkpoint is begun long before the ceiling, of the group with most to write;
 *   - requests, and entries from a primary, are turned away while taking them could pin too much: the
 *     client tries again (`busy`), the replica asks the primary for the rest once there is room;
 *   - each group has a window of its own for entries that are not applied yet, and all windows fit at
 *     once. Otherwise three primaries could each fill their memory with what the others have no room
 *     for, and wait for each other for ever.
 *
 * Invariant A10: after each step the sum is below the ceiling, as soon as it once was (a node may be
 * restarted with a lower one). What one entry can pin beyond its own size is bounded by
 * CHANGED_BYTES_MAX in row_op.ts, and that much is kept in reserve.
 *
 * It is a budget of data by a model of its sizes, not of the process: a runtime takes some 60 MB by
 * itself, large values on their way have `io_buffer_bytes`, and SQLite keeps 2 MB a group.
 */
import { invariant } from "./invariant.ts";
import { CHANGED_BYTES_MAX } from "./row_op.ts";

/** What one group pins, in bytes. */
export interface GroupMemory {
  /** Cells that changed since the last checkpoint began. */
  readonly dirty: number;
  /** Cells that a checkpoint is writing, and the copy that it writes from. */
  readonly flushing: number;
  /** Log entries in memory. */
  readonly log: number;
  /** Of these, entries that are not applied yet: they will become dirty cells. */
  readonly unapplied: number;
  readonly completions: number;
  readonly undo: number;
  /** Counts of tablets and rows. */
  readonly index: number;
  /** Rows that transactions hold, and their decisions. */
  readonly locks: number;
}

export interface MemoryUser {
  memory(): GroupMemory;
  /** Begins a checkpoint unless one is under way. */
  relieve(): void;
  /** There is room for entries that it was told to leave out. */
  resume(): void;
}

/** Cells that can be read again from a checkpoint. */
export interface CleanCells {
  readonly bytes: number;
  resize(bytesMax: number): void;
}

/** How the ceiling is divided. */
export interface MemoryShares {
  readonly undo: number;
  /** Per group. */
  readonly completions: number;
  /** Per group: what transactions may hold before more are told to wait. */
  readonly locks: number;
  /** Per group: entries kept for replicas that are a little behind. */
  readonly recentLog: number;
  /** Per group: entries that are not applied yet; also the largest operation. */
  readonly window: number;
  /** Entries that travel or are read back together: they have to fit where they arrive. */
  readonly append: number;
  /** Per group: log behind the last checkpoint, all of which a restart takes into memory. */
  readonly logToReplay: number;
  /** Per group: rows whose sizes are remembered. */
  readonly rowSizes: number;
}

export const MEMORY_BYTES_MIN = 4 * 1024 * 1024;
const UNDO_BYTES_MAX = 1024 * 1024;
const RECENT_LOG_BYTES_MAX = 1024 * 1024;
/** Below the limit of a frame even with one operation of the largest size behind it. */
export const APPEND_BYTES_MAX = 3 * 1024 * 1024;
/** What remembering one row's size takes. */
export const ROW_SIZE_BYTES = 200;
/** Dirty cells above this share of the ceiling are written. */
const RELIEVE_AT = 0.15;
/**
 * Or above this share of what all else leaves for them, so that others can be taken while some are
 * written: of a large amount of data the counts alone take a third of the smallest memory.
 */
const RELIEVE_AT_OF_REST = 0.4;
/** Of the ceiling, for entries that are not applied yet: in the log, and soon as dirty cells. */
const WINDOWS = 0.4;

export function memoryShares(bytesMax: number, groupCount: number): MemoryShares {
  const perGroup = (share: number) => Math.floor(bytesMax * share / Math.max(1, groupCount));
  return {
    undo: Math.min(UNDO_BYTES_MAX, Math.floor(bytesMax / 10)),
    completions: perGroup(0.15),
    locks: perGroup(0.05),
    recentLog: Math.min(RECENT_LOG_BYTES_MAX, perGroup(0.1)),
    window: perGroup(WINDOWS / 2),
    append: Math.min(APPEND_BYTES_MAX, perGroup(WINDOWS / 2)),
    logToReplay: perGroup(0.15),
    rowSizes: Math.min(20_000, Math.floor(perGroup(0.05) / ROW_SIZE_BYTES)),
  };
}

export class NodeMemory {
  readonly bytesMax: number;
  readonly shares: MemoryShares;
  readonly #cache: CleanCells | null;
  readonly #users: () => Iterable<MemoryUser>;
  readonly #reserve: number;
  /** But for entries that are not applied yet. */
  #pinned = 0;
  #isFlushing = false;
  #peak = 0;
  /** Whether the sum was below the ceiling since the start. */
  #settled = false;
  /** Who had to leave out entries, longest waiting first, and the bytes to wait for. */
  readonly #waiting = new Map<MemoryUser, number>();
  /** Requests and entries that were turned away. */
  refusedCount = 0;

  constructor(options: {
    bytesMax: number;
    /** That the node carries when all is well. */
    groupCount: number;
    /** Those that take part now. */
    users: () => Iterable<MemoryUser>;
    cache?: CleanCells;
  }) {
    this.#users = options.users;
    this.bytesMax = options.bytesMax;
    this.shares = memoryShares(options.bytesMax, options.groupCount);
    this.#cache = options.cache ?? null;
    this.#reserve = Math.max(CHANGED_BYTES_MAX, Math.floor(options.bytesMax / 10));
    this.#cache?.resize(options.bytesMax);
  }

  /** The largest sum so far, since it was first below the ceiling. */
  get peakBytes(): number {
    return this.#peak;
  }

  /** By what it is for; the sum is what the ceiling is about. */
  use(): Record<"clean" | Exclude<keyof GroupMemory, "unapplied">, number> {
    const total = { dirty: 0, flushing: 0, log: 0, completions: 0, undo: 0, index: 0, locks: 0 };
    for (const user of this.#users()) {
      const memory = user.memory();
      for (const kind of Object.keys(total) as (keyof typeof total)[]) total[kind] += memory[kind];
    }
    return { clean: this.#cache?.bytes ?? 0, ...total };
  }

  /** Called when a group's step is done: the cache makes room, and a checkpoint begins if one is due. */
  settle(): void {
    let pinned = 0, dirty = 0, flushing = 0, unapplied = 0, most = 0;
    let heaviest: MemoryUser | null = null;
    for (const user of this.#users()) {
      const memory = user.memory();
      pinned += memory.dirty + memory.flushing + memory.log + memory.completions + memory.undo +
        memory.index + memory.locks;
      dirty += memory.dirty;
      flushing += memory.flushing;
      unapplied += memory.unapplied;
      if (memory.flushing === 0 && memory.dirty > most) {
        most = memory.dirty;
        heaviest = user;
      }
    }
    this.#cache?.resize(Math.max(0, this.bytesMax - pinned));
    const sum = pinned + (this.#cache?.bytes ?? 0);
    invariant(
      sum <= this.bytesMax || !this.#settled,
      "A10",
      () => `${sum} bytes are in memory, ${pinned} of them pinned; the ceiling is ${this.bytesMax}`,
    );
    if (sum <= this.bytesMax) this.#settled = true;
    if (this.#settled && sum > this.#peak) this.#peak = sum;
    this.#pinned = pinned - unapplied;
    this.#isFlushing = flushing > 0;
    const rest = this.#limit - (this.#pinned - dirty - flushing);
    const isDue = dirty > Math.min(this.bytesMax * RELIEVE_AT, rest * RELIEVE_AT_OF_REST);
    if (heaviest !== null && isDue && this.#mayRelieve(most)) heaviest.relieve();
    this.#wake();
  }

  /** Whoever waits for memory hears when there is some, in turn and as far as it goes. */
  #wake(): void {
    let promised = 0;
    for (const [user, bytes] of this.#waiting) {
      if (!this.#takesEntries(user.memory().unapplied, bytes, promised)) continue;
      promised += bytes;
      this.#waiting.delete(user);
      user.resume();
    }
  }

  /** How a request of a group is to be refused that carries so many bytes; null when it fits. */
  refusal(user: MemoryUser, bytes: number): "busy" | "too_large" | null {
    if (bytes > this.shares.window) return "too_large";
    const fits = user.memory().unapplied + bytes <= this.shares.window && this.#hasRoom(bytes, 1.5);
    if (fits) return null;
    this.#turnAway();
    return "busy";
  }

  /**
   * How many of the entries that a primary sent can be taken; the others are as good as lost on the
   * way, and the user hears as soon as they would fit. There is a little more room for them than for own
   * requests, so that primaries are the first to slow down.
   */
  admitEntries(user: MemoryUser, sizes: readonly number[]): number {
    const { unapplied } = user.memory();
    let bytes = 0;
    for (const [index, size] of sizes.entries()) {
      bytes += size;
      if (this.#takesEntries(unapplied, bytes)) continue;
      const rest = sizes.slice(index).reduce((sum, each) => sum + each, 0);
      // Not for each single entry, and not for more than there ever is.
      this.#waiting.set(user, Math.max(size, Math.min(rest, this.shares.append / 8)));
      this.#turnAway();
      return index;
    }
    // Who waits goes on waiting: these may lie behind the entries that were left out.
    return sizes.length;
  }

  #takesEntries(unapplied: number, bytes: number, promised = 0): boolean {
    // A follower learns of commits later than the primary, so what it has not applied is more.
    return unapplied + bytes <= 2 * this.shares.window && this.#hasRoom(promised + bytes);
  }

  /** Besides all windows, and what a single operation may take beyond its own bytes. */
  #hasRoom(bytes: number, reserves = 1): boolean {
    return this.#pinned + bytes <= this.#limit - this.#reserve * (reserves - 1);
  }

  get #limit(): number {
    return this.bytesMax * (1 - WINDOWS) - this.#reserve;
  }

  /**
   * A checkpoint writes from a copy. Checkpoints are written one after the other, so what waits for its
   * turn would only take memory twice; it may where there is enough.
   */
  #mayRelieve(dirty: number): boolean {
    return !this.#isFlushing || this.#hasRoom(dirty);
  }

  #turnAway(): void {
    this.refusedCount += 1;
    for (const user of this.#users()) {
      const { dirty, flushing } = user.memory();
      if (dirty > 0 && flushing === 0 && this.#mayRelieve(dirty)) user.relieve();
    }
  }
}
