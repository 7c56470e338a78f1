/**
 * A bank: transfers between accounts in different groups, and statements of all accounts at once.
 * Money is neither made nor lost, so every statement shows the same total, and no account falls below
 * zero.
 */
import { decodeText, encodeText, type Kv, type RowOp } from "../../kv/kv.ts";
import type { Version } from "../../proto/ids.ts";
import { checkBank, type Snapshot, type Transfer } from "../checkers/bank.ts";
import { inLanes, prefixOf, type Workload, type WorkloadContext } from "./workload.ts";

const LANES_PER_GROUP = 1;
const BREATH_MS = 150;
const ACCOUNTS_PER_GROUP = 2;
const INITIAL = 100;
const AMOUNT_MAX = 30;
const STATEMENT_SHARE = 0.2;
const COLUMN = "balance";
const OPENING_DEADLINE_MS = 60_000;

interface Balance {
  readonly amount: number;
  readonly version: Version;
}

export class Bank implements Workload {
  readonly name = "bank";
  readonly #context: WorkloadContext;
  readonly #accounts: readonly string[];
  readonly #transfers: Transfer[] = [];
  readonly #snapshots: Snapshot[] = [];
  #events = 0;

  constructor(context: WorkloadContext) {
    this.#context = context;
    this.#accounts = context.groups.flatMap((group) =>
      Array.from({ length: ACCOUNTS_PER_GROUP }, (_, i) => `${prefixOf(group)}-account-${i}`)
    );
  }

  async prepare(): Promise<void> {
    const [kv] = this.#context.clients as [Kv];
    for (const row of this.#accounts) {
      await kv.apply({ row, mutations: [put(INITIAL)] }, { deadlineMs: OPENING_DEADLINE_MS });
    }
  }

  async run(stop: AbortSignal): Promise<void> {
    const options = { perGroup: LANES_PER_GROUP, breathMs: BREATH_MS, stop };
    await inLanes(this.#context, options, async ({ kv }) => {
      if (this.#context.random.chance(STATEMENT_SHARE)) await this.#statement(kv);
      else await this.#transfer(kv);
    });
  }

  async check(kv: Kv): Promise<string[]> {
    const before = this.#snapshots.length;
    // A statement may have to wait for a transaction that its runner left behind.
    for (let attempt = 0; this.#snapshots.length === before && attempt < 20; attempt++) {
      await this.#statement(kv);
    }
    if (this.#snapshots.length === before) return ["no statement can be had in the end"];
    const initial = Object.fromEntries(this.#accounts.map((account) => [account, INITIAL]));
    const history = { initial, transfers: this.#transfers, snapshots: this.#snapshots };
    return [...checkBank(history).problems];
  }

  describe(): string {
    return `${this.#transfers.length} transfers, ${this.#snapshots.length} statements`;
  }

  async #transfer(kv: Kv): Promise<void> {
    const { random, tally } = this.#context;
    const from = random.pick(this.#accounts);
    const to = random.pick(this.#accounts.filter((account) => account !== from));
    const amount = 1 + random.integer(AMOUNT_MAX), callIndex = this.#events++;
    const reading = await tally.settle(Promise.all([read(kv, from), read(kv, to)]));
    if (reading.outcome !== "ok") return;
    const [source, target] = reading.result;
    if (source.amount < amount) return;
    const ended = await tally.settle(kv.transact([
      move(from, source, -amount),
      move(to, target, amount),
    ]));
    const returnIndex = ended.outcome === "unknown" ? Infinity : this.#events++;
    const outcome = ended.outcome !== "ok" ? ended.outcome : ended.result.applied ? "ok" : "fail";
    if (outcome !== "fail") {
      this.#transfers.push({ from, to, amount, outcome, callIndex, returnIndex });
    }
  }

  /** Reads all balances one by one, then makes sure that none has changed since it was read. */
  async #statement(kv: Kv): Promise<void> {
    const { tally } = this.#context, callIndex = this.#events++;
    const reading = await tally.settle(Promise.all(this.#accounts.map((row) => read(kv, row))));
    if (reading.outcome !== "ok") return;
    const held = await tally.settle(kv.transact(
      this.#accounts.map((row, i) => move(row, reading.result[i]!, 0)),
    ));
    if (held.outcome !== "ok" || !held.result.applied) return;
    const balances = Object.fromEntries(
      this.#accounts.map((account, i) => [account, reading.result[i]!.amount]),
    );
    this.#snapshots.push({ balances, callIndex, returnIndex: this.#events++ });
  }
}

const put = (amount: number) =>
  ({ kind: "put", column: COLUMN, value: encodeText(String(amount)) }) as const;

async function read(kv: Kv, row: string): Promise<Balance> {
  const cell = await kv.get(row, COLUMN);
  if (cell === null) return { amount: 0, version: 0 as Version };
  return { amount: Number(decodeText(cell.value)), version: cell.version };
}

/** Adds `by` to a balance that still is what it was; by 0 only asks whether it is. */
function move(row: string, { amount, version }: Balance, by: number): RowOp {
  return {
    row,
    conditions: [{ column: COLUMN, is: "version", version }],
    mutations: by === 0 ? [] : [put(amount + by)],
  };
}
