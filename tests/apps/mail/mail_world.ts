/**
 * A small world for tests of mail: one store in memory, users, a clock that the test moves, and any
 * number of "processes" that share the store and can die at any call they make to it.
 */
import type { Env } from "../../../kv/env.ts";
import { KvError } from "../../../kv/errors.ts";
import type { Kv } from "../../../kv/kv.ts";
import { MemoryKv } from "../../../kv/memory_kv.ts";
import { ClusterConfig } from "../../../proto/cluster_config.ts";
import { Mail } from "../../../apps/mail/mail.ts";
import type { OutsideTransport } from "../../../apps/mail/outbox_worker.ts";

export const mailConfig = (mail: Record<string, unknown> = {}): ClusterConfig =>
  ClusterConfig.parse({
    node: [
      { role: "coordinator", id: 0, port: 9999 },
      { role: "backend", id: 0, port: 10000 },
    ],
    store: { replicas: 1, min_in_sync: 1 },
    mail,
  });

/** Wall time moves only when the test says so; sleeping takes no time at all. */
export class TestEnv implements Env {
  nowMs = Date.UTC(2025, 5, 1, 12);
  readonly logged: string[] = [];
  monotonicMs = () => this.nowMs;
  wallMs = () => this.nowMs;
  random = () => 0.5;
  secretBytes = (count: number) => crypto.getRandomValues(new Uint8Array(count));
  sleep = async (_ms: number, signal?: AbortSignal) => {
    await Promise.resolve();
    signal?.throwIfAborted();
  };
  timer = () => () => {};
  onBeat = () => () => {};
  log = (_level: string, event: string) => void this.logged.push(event);
  fatal(error: unknown): never {
    throw error;
  }
}

/** A process's way to the store. After `crashAt` calls the process is dead: no call gets through. */
export class MortalKv implements Kv {
  calls = 0;
  constructor(
    readonly kv: Kv,
    readonly crashAt = Infinity,
    /** The fatal call is applied, and only its answer is lost. */
    readonly crashAfterApply = false,
  ) {}
  get: Kv["get"] = (...args) => this.#through(() => this.kv.get(...args));
  getRow: Kv["getRow"] = (...args) => this.#through(() => this.kv.getRow(...args));
  scan: Kv["scan"] = (...args) => this.#through(() => this.kv.scan(...args));
  apply: Kv["apply"] = (...args) => this.#through(() => this.kv.apply(...args));
  transact: Kv["transact"] = (...args) => this.#through(() => this.kv.transact(...args));

  async #through<T>(call: () => Promise<T>): Promise<T> {
    const number = ++this.calls;
    if (number > this.crashAt || (number === this.crashAt && !this.crashAfterApply)) {
      throw new KvError("outcome_unknown", "the process is dead");
    }
    const result = await call();
    if (number === this.crashAt) throw new KvError("outcome_unknown", "the process died just now");
    return result;
  }
}

export interface World {
  readonly kv: MemoryKv;
  readonly env: TestEnv;
  readonly config: ClusterConfig;
  readonly mail: Mail;
  /** Another process over the same store. */
  process(options?: { kv?: Kv; outside?: OutsideTransport }): Mail;
}

export function makeWorld(
  users: readonly string[],
  options: { mail?: Record<string, unknown>; kv?: MemoryKv } = {},
): World {
  const kv = options.kv ?? new MemoryKv();
  const env = new TestEnv(), config = mailConfig(options.mail);
  const directory = {
    find: (name: string) => Promise.resolve(users.includes(name) ? { name } : null),
  };
  const process: World["process"] = (more = {}) =>
    new Mail({
      kv: more.kv ?? kv,
      env,
      config,
      users: directory,
      ...(more.outside === undefined ? {} : { outside: more.outside }),
    });
  return { kv, env, config, mail: process(), process };
}

/** Everything in a folder, newest first. */
export async function folderEntries(mail: Mail, user: string, folder = "INBOX") {
  const all = [];
  let before: string | undefined;
  do {
    const page = await mail.list(user, {
      folder,
      limit: 100,
      ...(before === undefined ? {} : { before }),
    });
    all.push(...page.entries);
    before = page.next ?? undefined;
  } while (before !== undefined);
  return all;
}

export const bytesOf = async (source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>) => {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
};

export const textOf = async (source: AsyncIterable<Uint8Array>) =>
  new TextDecoder().decode(await bytesOf(source));
