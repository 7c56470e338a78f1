/**
 * The bank: transfers between accounts, and snapshots of all of them. Money is neither made nor lost,
 * so every snapshot has the same total; a half of a transfer shows at once. Where the transfers are
 * given, each account is also held to what can have been moved by the time of the snapshot.
 *
 * Start at {@link checkBank}.
 */
import { type Addition, SumBounds } from "./counter.ts";
import { Problems, type Verdict } from "./verdict.ts";

export interface Transfer {
  readonly from: string;
  readonly to: string;
  readonly amount: number;
  /** "fail" also when the account held too little. */
  readonly outcome: "ok" | "fail" | "unknown";
  readonly callIndex: number;
  readonly returnIndex: number;
}

export interface Snapshot {
  readonly balances: Readonly<Record<string, number>>;
  readonly callIndex: number;
  readonly returnIndex: number;
}

export interface BankHistory {
  readonly initial: Readonly<Record<string, number>>;
  readonly transfers?: readonly Transfer[];
  readonly snapshots: readonly Snapshot[];
  /** Whether a balance may fall below zero. Default: no. */
  readonly overdraft?: boolean;
}

export function checkBank(history: BankHistory): Verdict {
  const { initial, snapshots, transfers = null, overdraft = false } = history;
  const problems = new Problems();
  const accounts = Object.keys(initial).sort();
  const total = sum(Object.values(initial));
  const bounds = new Map<string, SumBounds>();
  for (const account of transfers === null ? [] : accounts) {
    bounds.set(account, new SumBounds(movesOf(account, transfers ?? []), initial[account]!));
  }
  for (const { balances, callIndex, returnIndex } of snapshots) {
    const shown = accounts.map((account) => `${account} ${balances[account] ?? "missing"}`);
    const what = `a snapshot shows ${shown.join(", ")}`;
    const unknown = Object.keys(balances).filter((account) => !(account in initial));
    if (unknown.length > 0) problems.add(`${what} and an account that is none: ${unknown[0]}`);
    const seen = sum(accounts.map((account) => balances[account] ?? 0));
    if (seen !== total) problems.add(`${what}: ${seen} in all instead of ${total}`);
    for (const account of accounts) {
      const balance = balances[account];
      if (balance === undefined) continue;
      if (balance < 0 && !overdraft) problems.add(`${what}: ${account} is overdrawn`);
      const range = bounds.get(account)?.during(callIndex, returnIndex);
      if (range !== undefined && (balance < range.low || balance > range.high)) {
        problems.add(`${what}: ${account} must hold from ${range.low} to ${range.high}`);
      }
    }
  }
  return problems.verdict;
}

function movesOf(account: string, transfers: readonly Transfer[]): Addition[] {
  return transfers.flatMap(({ from, to, amount, outcome, callIndex, returnIndex }) => {
    if (outcome === "fail" || (from === account) === (to === account)) return [];
    return [{ by: to === account ? amount : -amount, outcome, callIndex, returnIndex }];
  });
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);
