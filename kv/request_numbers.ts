/**
 * The numbers that a client gives its writes to one replica group.
 *
 * A group remembers the outcomes of a client's last OUTSTANDING_MAX numbers. So those under way must
 * lie closer together than that: it is their span that is limited, not their count, because one
 * write that waits for a failover lets any number of quicker ones pass it by. Each group has numbers
 * of its own, so that a group without a primary holds up nobody's writes to the others.
 */
import { OUTSTANDING_MAX } from "./completions.ts";
import { KvError } from "./errors.ts";

const QUEUED_MAX = 10_000;

export interface RequestNumber {
  readonly seq: number;
  /** The lowest number whose answer is still waited for. */
  readonly firstIncomplete: number;
}

export class RequestNumbers {
  #lastSeq = 0;
  /** Ascending, because they are given out in order. */
  readonly #outstanding = new Set<number>();
  readonly #queue = new Set<(number: RequestNumber) => void>();

  /**
   * The next number, once there is room for it. Give it back with `release()`.
   *
   * @throws {KvError} `busy`: too many wait already; `unavailable`: none came free before `timeUp`
   */
  async take(timeUp: (signal: AbortSignal) => Promise<void>): Promise<RequestNumber> {
    if (this.#queue.size === 0 && this.#hasRoom()) return this.#issue();
    if (this.#queue.size >= QUEUED_MAX) {
      throw new KvError("busy", `This process has ${QUEUED_MAX} writes waiting already`);
    }
    const turn = Promise.withResolvers<RequestNumber>();
    this.#queue.add(turn.resolve);
    const waiting = new AbortController();
    timeUp(waiting.signal).then(() => {
      // Whoever was called up in the same moment keeps the number.
      if (!this.#queue.delete(turn.resolve)) return;
      const message = `The ${OUTSTANDING_MAX} writes before this one are not answered yet`;
      turn.reject(new KvError("unavailable", message));
    }, (reason) => {
      if (this.#queue.delete(turn.resolve)) turn.reject(reason);
    });
    try {
      return await turn.promise;
    } finally {
      waiting.abort();
    }
  }

  release(seq: number): void {
    this.#outstanding.delete(seq);
    for (const call of this.#queue) {
      if (!this.#hasRoom()) return;
      this.#queue.delete(call);
      call(this.#issue());
    }
  }

  #hasRoom(): boolean {
    const lowest = this.#outstanding.values().next();
    return lowest.done === true || this.#lastSeq + 1 - lowest.value < OUTSTANDING_MAX;
  }

  #issue(): RequestNumber {
    const seq = ++this.#lastSeq;
    this.#outstanding.add(seq);
    return { seq, firstIncomplete: this.#outstanding.values().next().value! };
  }
}
