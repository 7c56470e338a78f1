/** Accounts over a store in memory, with a clock that the test moves and cheap hashing. */
import type { Env } from "../../../kv/env.ts";
import { MemoryKv } from "../../../kv/memory_kv.ts";
import { Accounts } from "../../../apps/accounts/accounts.ts";

export const PASSWORD = "a sparrow on the fence";

/** Enough to be Argon2id; the real cost would make these tests slow. */
export const CHEAP = { memoryKib: 64, passes: 1, parallelism: 1 };

export class TestEnv implements Env {
  nowMs = Date.UTC(2026, 2, 12, 14, 5);
  readonly logged: string[] = [];
  monotonicMs = () => this.nowMs;
  wallMs = () => this.nowMs;
  random = () => 0.5;
  secretBytes = (count: number) => crypto.getRandomValues(new Uint8Array(count));
  sleep = () => Promise.resolve();
  timer = () => () => {};
  onBeat = () => () => {};
  log = (_level: string, event: string) => void this.logged.push(event);
  fatal(error: unknown): never {
    throw error;
  }
}

export interface AccountsWorld {
  readonly kv: MemoryKv;
  readonly env: TestEnv;
  readonly accounts: Accounts;
  /** Another process over the same store. */
  frontend(): Accounts;
}

export function makeAccounts(kv: MemoryKv = new MemoryKv()): AccountsWorld {
  const env = new TestEnv();
  const frontend = () =>
    new Accounts({ kv, env, mailDomain: "penncloud.test", sessionDays: 14, hashCost: CHEAP });
  return { kv, env, accounts: frontend(), frontend };
}

export const from = { address: "192.0.2.1", device: "Mozilla/5.0 (X11; Linux) Firefox/140.0" };
