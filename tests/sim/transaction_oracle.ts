/**
 * Transactions over several groups, by what the groups committed: each happens in all of its groups or
 * in none, and in none before its anchor's group has decided.
 *
 * It is told of every step that had an effect, in the order in which the groups committed them. An
 * answer leaves a group only once its step is committed, so a step that follows from another one is
 * told of later than that one.
 */
import type { Command } from "../../kv/command.ts";
import type { RequestOutcome } from "../../kv/outcome.ts";
import { SimViolation } from "./violation.ts";

type Fate = "open" | "forward" | "back";

interface Seen {
  /** What became of its rows, by group that locked them. */
  readonly groups: Map<number, Fate>;
  committed: boolean;
}

export class TransactionOracle {
  readonly #seen = new Map<string, Seen>();
  readonly #rowsMove: () => boolean;

  /** @param rowsMove whether any tablet changed its group so far */
  constructor(rowsMove: () => boolean) {
    this.#rowsMove = rowsMove;
  }

  /** An entry of the group was executed, for the first time. */
  applied(gid: number, command: Command, outcome: RequestOutcome): void {
    if (command.kind === "prepare" && outcome.kind === "applied") {
      const seen = this.#of(command.txn.id), before = seen.groups.get(gid);
      // Rows of two groups may have come together in one since. A request that was meant for the other
      // group may even come when the transaction was given up here; it goes back once more, then.
      const wasForOther = !command.stamp.clientId.endsWith(`-${gid}`);
      const mayFollow = before === undefined ||
        this.#rowsMove() && (before === "open" || before === "back" && wasForOther);
      if (!mayFollow) this.#fail(command.txn.id, `is prepared again in group ${gid}`);
      seen.groups.set(gid, "open");
      return;
    }
    if (command.kind !== "settle" || outcome.kind !== "settled" || outcome.version === 0) return;
    const { txn: { id }, step } = command;
    switch (step) {
      case "commit":
        return this.#commit(id, gid);
      case "forward":
        return this.#roll(id, gid, "forward");
      case "back":
      case "abort":
      case "expire":
        return this.#roll(id, gid, "back");
      case "extend":
      case "forget":
        return;
    }
  }

  /** At the end: nobody is left between. */
  checkEnd(): void {
    for (const [id, { groups, committed }] of this.#seen) {
      for (const [gid, fate] of groups) {
        if (fate === (committed ? "forward" : "back")) continue;
        this.#fail(id, `${committed ? "committed" : "aborted"}, but is ${fate} in group ${gid}`);
      }
    }
  }

  get committedCount(): number {
    return Array.from(this.#seen.values()).filter(({ committed }) => committed).length;
  }

  get abortedCount(): number {
    return this.#seen.size - this.committedCount;
  }

  #commit(id: string, gid: number): void {
    const seen = this.#of(id);
    for (const [other, fate] of seen.groups) {
      if (fate === "back") this.#fail(id, `commits, but went back in group ${other}`);
    }
    if (seen.committed) this.#fail(id, "commits twice");
    seen.committed = true;
    seen.groups.set(gid, "forward");
  }

  #roll(id: string, gid: number, way: "forward" | "back"): void {
    const seen = this.#of(id), before = seen.groups.get(gid);
    if (before !== "open") this.#fail(id, `goes ${way} in group ${gid}, where it was ${before}`);
    if (seen.committed !== (way === "forward")) {
      const state = seen.committed ? "committed" : "not committed";
      this.#fail(id, `goes ${way} in group ${gid}, but is ${state}`);
    }
    seen.groups.set(gid, way);
  }

  #of(id: string): Seen {
    let seen = this.#seen.get(id);
    if (seen === undefined) this.#seen.set(id, seen = { groups: new Map(), committed: false });
    return seen;
  }

  #fail(id: string, what: string): never {
    throw new SimViolation(`T2: transaction ${id} ${what}`);
  }
}
