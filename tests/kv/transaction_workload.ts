/**
 * Clients that run transactions over rows of several groups, and what they saw: appends to lists and
 * reads of them, transfers between accounts, snapshots of all accounts, and plain writes to the same
 * rows. tests/checkers/ judges it. The rows spread over the alphabet, so they lie in several groups of
 * every cluster and of a MemoryKv that is split at "g" and "p".
 */
import assert from "node:assert/strict";
import type { Env } from "../../kv/env.ts";
import { KvError } from "../../kv/errors.ts";
import { transaction } from "../../kv/interactive.ts";
import { decodeText, encodeText, type Kv } from "../../kv/kv.ts";
import { checkBank, type Snapshot, type Transfer } from "../checkers/bank.ts";
import { checkListAppend, type ListStep, type ListTransaction } from "../checkers/list_append.ts";
import { assertValid } from "../checkers/verdict.ts";

export const LISTS = ["a1", "a2", "h1", "h2", "q1", "t2"];
export const ACCOUNTS = ["b1", "b2", "k1", "r1", "u2"];
export const BALANCE = 100;
/** Transfers and plain writes count in the same column, so neither may miss the other. */
const VISIT = { kind: "add", column: "visits", by: 1 } as const;

export interface WorkloadClient {
  readonly name: string;
  readonly kv: Kv;
  readonly env: Env;
}

/** What decides what is done, and numbers the calls and returns. */
export interface WorkloadSource {
  readonly random: {
    next(): number;
    integer(below: number): number;
    chance(p: number): boolean;
    pick<T>(items: readonly T[]): T;
  };
  event(): number;
}

interface Recorded {
  readonly lists: ListTransaction[];
  readonly transfers: Transfer[];
  readonly snapshots: Snapshot[];
  readonly visits: { acked: number; unknown: number };
}

export class TransactionWorkload {
  readonly recorded: Recorded = {
    lists: [],
    transfers: [],
    snapshots: [],
    visits: { acked: 0, unknown: 0 },
  };
  #count = 0;

  constructor(readonly source: WorkloadSource) {}

  async run(client: WorkloadClient, operations: number): Promise<void> {
    const { random } = this.source;
    for (let i = 0; i < operations; i++) {
      const kind = random.next();
      if (kind < 0.45) await this.#list(client);
      else if (kind < 0.7) await this.#transfer(client);
      else if (kind < 0.85) await this.#snapshot(client);
      else await this.#visit(client);
    }
  }

  /** Everything that a client which dies was doing is of unknown outcome: it is recorded first. */
  async #attempt(
    run: () => Promise<void>,
    settle: (outcome: "ok" | "fail" | "unknown") => void,
  ): Promise<void> {
    try {
      await run();
      settle("ok");
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      settle(error.outcome === "unknown" ? "unknown" : "fail");
    }
  }

  #record<T>(list: T[], item: T): (changes: Partial<T>) => void {
    const index = list.push(item) - 1;
    return (changes) => void (list[index] = { ...list[index]!, ...changes });
  }

  async #list(client: WorkloadClient): Promise<void> {
    const { random } = this.source;
    const name = `T${++this.#count} of ${client.name}`;
    const plan = Array.from({ length: 1 + random.integer(4) }, () => ({
      key: random.pick(LISTS),
      append: random.chance(0.5),
      element: `e${++this.#count}`,
    }));
    const appends = plan.filter(({ append }) => append)
      .map(({ key, element }): ListStep => ({ kind: "append", key, element }));
    const update = this.#record<ListTransaction>(this.recorded.lists, {
      name,
      outcome: "unknown",
      steps: appends,
      callIndex: this.source.event(),
      returnIndex: Infinity,
    });
    await this.#attempt(async () => {
      const steps = await transaction(client, async (tx) => {
        const steps: ListStep[] = [];
        for (const { key, append, element } of plan) {
          const list: string[] = JSON.parse(await tx.text(key, "list") ?? "[]");
          if (append) {
            tx.put(key, "list", encodeText(JSON.stringify([...list, element])));
            steps.push({ kind: "append", key, element });
          } else steps.push({ kind: "read", key, list });
        }
        return steps;
      });
      update({ steps, returnIndex: this.source.event() });
    }, (outcome) => update({ outcome }));
  }

  async #transfer(client: WorkloadClient): Promise<void> {
    const { random } = this.source;
    const from = random.pick(ACCOUNTS), to = random.pick(ACCOUNTS.filter((row) => row !== from));
    const amount = 1 + random.integer(30);
    const callIndex = this.source.event();
    this.recorded.visits.unknown += 2;
    const update = this.#record<Transfer>(
      this.recorded.transfers,
      { from, to, amount, outcome: "unknown", callIndex, returnIndex: Infinity },
    );
    await this.#attempt(async () => {
      const cell = await client.kv.get(from, "balance");
      const enough = Number(decodeText(cell!.value)) >= amount;
      const { version } = cell!;
      const result = enough && await client.kv.transact([
        {
          row: from,
          conditions: [{ column: "balance", is: "version", version }],
          mutations: [{ kind: "add", column: "balance", by: -amount }, VISIT],
        },
        { row: to, mutations: [{ kind: "add", column: "balance", by: amount }, VISIT] },
      ]);
      if (!result || !result.applied) throw new KvError("busy", "not done");
      update({ returnIndex: this.source.event() });
    }, (outcome) => {
      update({ outcome });
      this.#countVisits(2, outcome);
    });
  }

  async #snapshot(client: WorkloadClient): Promise<void> {
    const callIndex = this.source.event();
    await this.#attempt(async () => {
      const balances = await transaction(client, async (tx) => {
        const found: Record<string, number> = {};
        for (const row of ACCOUNTS) found[row] = Number(await tx.text(row, "balance"));
        return found;
      });
      this.recorded.snapshots.push({ balances, callIndex, returnIndex: this.source.event() });
    }, () => {});
  }

  /** A plain write to a row that transactions lock. */
  async #visit(client: WorkloadClient): Promise<void> {
    this.recorded.visits.unknown += 1;
    await this.#attempt(async () => {
      await client.kv.apply({ row: this.source.random.pick(ACCOUNTS), mutations: [VISIT] });
    }, (outcome) => this.#countVisits(1, outcome));
  }

  #countVisits(count: number, outcome: "ok" | "fail" | "unknown"): void {
    const { visits } = this.recorded;
    if (outcome !== "unknown") visits.unknown -= count;
    if (outcome === "ok") visits.acked += count;
  }

  /** Before anything else; tries until every account has its first balance. */
  async open(kv: Kv): Promise<void> {
    for (const row of ACCOUNTS) {
      for (let isOpen = false; !isOpen;) isOpen = await this.#openAccount(kv, row);
    }
  }

  async #openAccount(kv: Kv, row: string): Promise<boolean> {
    try {
      await kv.apply({
        row,
        conditions: [{ column: "balance", is: "absent" }],
        mutations: [{ kind: "add", column: "balance", by: BALANCE }],
      });
      return true;
    } catch (error) {
      if (error instanceof KvError) return false;
      throw error;
    }
  }

  /** Afterwards: reads everything in one transaction, so that the checkers see how it ended. */
  async readAll(client: WorkloadClient): Promise<void> {
    const callIndex = this.source.event();
    const read = await transaction(client, async (tx) => {
      const steps: ListStep[] = [], balances: Record<string, number> = {};
      for (const key of LISTS) {
        steps.push({ kind: "read", key, list: JSON.parse(await tx.text(key, "list") ?? "[]") });
      }
      for (const row of ACCOUNTS) balances[row] = Number(await tx.text(row, "balance"));
      return { steps, balances };
    });
    const times = { callIndex, returnIndex: this.source.event() };
    this.recorded.lists.push({ name: "the last", outcome: "ok", steps: read.steps, ...times });
    this.recorded.snapshots.push({ balances: read.balances, ...times });
  }

  /** @throws {Error} "GUARANTEE BROKEN: …" */
  async check(kv: Kv): Promise<void> {
    const { lists, transfers, snapshots, visits } = this.recorded;
    assertValid(checkListAppend(lists), "list-append");
    const initial = Object.fromEntries(ACCOUNTS.map((row) => [row, BALANCE]));
    assertValid(checkBank({ initial, transfers, snapshots }), "bank");
    let total = 0;
    for (const row of ACCOUNTS) {
      const cell = await kv.get(row, "visits");
      total += cell === null ? 0 : Number(decodeText(cell.value));
    }
    const { acked, unknown } = visits;
    assert(
      total >= acked && total <= acked + unknown,
      `GUARANTEE BROKEN: ${acked} to ${acked + unknown} additions, not ${total}`,
    );
  }

  get committed(): number {
    return this.recorded.lists.filter(({ outcome }) => outcome === "ok").length;
  }
}
