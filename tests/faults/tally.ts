/** How the operations of a campaign ended, counted; and the one place that tells ends apart. */
import { KvError, type KvErrorCode } from "../../kv/errors.ts";

export type Ended<T> =
  | { readonly outcome: "ok"; readonly result: T }
  /** Certainly not executed. */
  | { readonly outcome: "fail"; readonly error: KvError }
  /** Nobody can tell. */
  | { readonly outcome: "unknown"; readonly error: KvError };

export class Tally {
  okCount = 0;
  unknownCount = 0;
  readonly refused = new Map<KvErrorCode, number>();

  get refusedCount(): number {
    return [...this.refused.values()].reduce((sum, count) => sum + count, 0);
  }

  get failedCount(): number {
    return this.unknownCount + this.refusedCount;
  }

  /** Waits for an operation's end and counts it. Errors that are not the store's word are passed on. */
  async settle<T>(operation: Promise<T>): Promise<Ended<T>> {
    try {
      const result = await operation;
      this.okCount += 1;
      return { outcome: "ok", result };
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      if (error.outcome === "unknown") {
        this.unknownCount += 1;
        return { outcome: "unknown", error };
      }
      this.refused.set(error.code, (this.refused.get(error.code) ?? 0) + 1);
      return { outcome: "fail", error };
    }
  }
}
