/**
 * The operator of a simulated cluster: asks for splits and merges of tablets, as `penncloud admin` does,
 * at keys where something is and at keys where nothing is, and holds the answers against the oracle.
 */
import type { KvClient } from "../../kv/client.ts";
import { KvError } from "../../kv/errors.ts";
import type { TabletChange } from "../../kv/tablet_policy.ts";
import type { GroupOracle } from "./oracle.ts";
import type { SeededRandom } from "./seeded_random.ts";
import type { SimRow } from "./sim_clients.ts";

export interface SimOperatorOptions {
  readonly kv: KvClient;
  readonly groups: readonly number[];
  readonly rows: () => readonly SimRow[];
  readonly oracle: (gid: number) => GroupOracle;
  readonly onDone: (what: "reshaped" | "reshapeFailed") => void;
  readonly onViolation: (error: unknown) => void;
}

const DEADLINE_MS = 3_000;

export class SimOperator {
  readonly #options: SimOperatorOptions;

  constructor(options: SimOperatorOptions) {
    this.#options = options;
  }

  /** Asks for a boundary more or less somewhere, and does not wait for it. */
  reshape(random: SeededRandom): void {
    const gid = random.pick(this.#options.groups);
    void this.#reshape(gid, this.#draw(gid, random)).catch(this.#options.onViolation);
  }

  /** Mostly something that can be done. */
  #draw(gid: number, random: SeededRandom): TabletChange {
    const { oracle, rows } = this.#options;
    const boundaries = oracle(gid).tablets.slice(1).map(({ startKey }) => startKey);
    const kind = random.chance(0.35 + 0.1 * Math.min(boundaries.length, 4)) ? "merge" : "split";
    if (kind === "merge" && boundaries.length > 0 && random.chance(0.9)) {
      return { kind, key: random.pick(boundaries) };
    }
    const own = rows().filter((row) => row.gid === gid);
    // At a row, right behind it, or between two columns' worth of nothing.
    return { kind, key: random.pick(own).row + random.pick(["", "", "!", "~~"]) };
  }

  async #reshape(gid: number, change: TabletChange): Promise<void> {
    const { kv, oracle, onDone } = this.#options;
    const calledAt = oracle(gid).length;
    try {
      const tablets = await kv.reshape(change, { deadlineMs: DEADLINE_MS });
      oracle(gid).reshaped(change, tablets, calledAt);
      onDone("reshaped");
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      onDone("reshapeFailed");
    }
  }
}
