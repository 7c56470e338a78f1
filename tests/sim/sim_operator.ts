/**
 * The operator of a simulated cluster: asks for splits, merges and moves of tablets, as `penncloud admin` does,
 * at keys where something is and at keys where nothing is, and holds the answers against the oracle.
 */
import type { KvClient } from "../../kv/client.ts";
import { KvError } from "../../kv/errors.ts";
import type { TabletChange } from "../../kv/tablet_policy.ts";
import { coordinatorConversation } from "../../proto/control.ts";
import { groupId } from "../../proto/ids.ts";
import { RpcError } from "../../roles/net/rpc_error.ts";
import type { PeerLink } from "../../roles/peers.ts";
import type { GroupOracle } from "./oracle.ts";
import type { SeededRandom } from "./seeded_random.ts";
import type { SimRow } from "./sim_clients.ts";

export interface SimOperatorOptions {
  readonly kv: KvClient;
  readonly groups: readonly number[];
  readonly rows: () => readonly SimRow[];
  readonly oracle: (gid: number) => GroupOracle;
  readonly onDone: (what: "reshaped" | "reshapeFailed" | "movesBegun" | "movesRefused") => void;
  readonly coordinator: PeerLink;
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

  /** Gives some tablet of some group to another; does not wait for it. */
  move(random: SeededRandom): void {
    const { groups, oracle, coordinator, onDone, onViolation } = this.#options;
    const from = random.pick(groups), tablets = oracle(from).tablets;
    const tabletId = random.chance(0.05) || tablets.length === 0 ? 77 : random.pick(tablets).id;
    const others = groups.filter((gid) => gid !== from);
    const to = others.length === 0 || random.chance(0.05) ? from : random.pick(others);
    const wish = { from: groupId(from), tabletId, to: groupId(to) };
    coordinator.call(coordinatorConversation, "beginMove", wish, undefined, { timeoutMs: 2_000 })
      .then(() => onDone("movesBegun"), (error) => {
        if (error instanceof KvError || error instanceof RpcError) onDone("movesRefused");
        else onViolation(error);
      });
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
    const { kv, groups, oracle, onDone } = this.#options;
    const calledAt = new Map(groups.map((id) => [id, oracle(id).length]));
    try {
      const tablets = await kv.reshape(change, { deadlineMs: DEADLINE_MS });
      // The rows may belong to another group by now.
      const other = groups.find((id) => oracle(id).hasReshaped(change, calledAt.get(id)!));
      const by = other ?? gid;
      oracle(by).reshaped(change, tablets, calledAt.get(by)!);
      onDone("reshaped");
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      onDone("reshapeFailed");
    }
  }
}
