/** The console's API over a sample cluster, with a clock and timers that the test moves. */
import type { Env } from "../../kv/env.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { createApp } from "../../web/app.ts";
import { type FullContext, makeContext } from "../../web/context.ts";
import { SampleAdmin, sampleConfig } from "../sample_cluster.ts";
import { PASSWORD, WebClient } from "./web_fixture.ts";

export class SteppedEnv implements Env {
  nowMs = Date.UTC(2026, 2, 12, 14, 5);
  readonly logged: string[] = [];
  #timers: { atMs: number; run: () => void }[] = [];

  monotonicMs = () => this.nowMs;
  wallMs = () => this.nowMs;
  random = () => 0.5;
  secretBytes = (count: number) => crypto.getRandomValues(new Uint8Array(count));
  log = (_level: string, event: string) => void this.logged.push(event);

  fatal(error: unknown): never {
    throw error;
  }

  timer = (ms: number, run: () => void) => {
    const entry = { atMs: this.nowMs + ms, run };
    this.#timers.push(entry);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== entry);
    };
  };

  onBeat = () => () => {};

  sleep = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      const cancel = this.timer(ms, resolve);
      signal?.addEventListener("abort", () => {
        cancel();
        reject(signal.reason);
      });
    });

  get timerCount(): number {
    return this.#timers.length;
  }

  /** Moves the clock, running what comes due, and lets promises settle in between. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    for (;;) {
      await settle();
      const due = this.#timers.filter((entry) => entry.atMs <= untilMs)
        .sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((entry) => entry !== due);
      this.nowMs = Math.max(this.nowMs, due.atMs);
      due.run();
    }
    this.nowMs = untilMs;
    await settle();
  }
}

/** Lets everything run that waits for nothing but its turn. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

export interface AdminWorld {
  readonly env: SteppedEnv;
  readonly kv: MemoryKv;
  readonly cluster: SampleAdmin;
  readonly context: FullContext;
  readonly stopping: AbortController;
  /** What the store's next calls throw. */
  readonly store: { failWith: Error | null };
  /** A browser in which this user is logged in; nobody without a name. */
  client(username?: "root" | "alice"): Promise<WebClient>;
}

export async function makeAdminWorld(): Promise<AdminWorld> {
  const store: { failWith: Error | null } = { failWith: null };
  const kv = new MemoryKv({
    beforeCall: () => {
      if (store.failWith !== null) throw store.failWith;
    },
  });
  const env = new SteppedEnv(), config = sampleConfig(), stopping = new AbortController();
  const cluster = new SampleAdmin(config, kv);
  const context = makeContext({ kv, env, config, admin: cluster, stopping: stopping.signal });
  const app = createApp(context);
  await context.accounts.create({ username: "alice", password: PASSWORD });
  await context.accounts.create({
    username: "root",
    password: PASSWORD,
    admin: true,
    operator: true,
  });
  return {
    env,
    kv,
    cluster,
    context,
    stopping,
    store,
    async client(username) {
      const client = new WebClient(app, {});
      if (username === undefined) return client;
      const response = await client.send("POST", "/api/v1/session", {
        username,
        password: PASSWORD,
      });
      if (response.status !== 200) throw new Error(`Cannot log in: ${await response.text()}`);
      await response.body?.cancel();
      return client;
    },
  };
}

export interface ServerEvent {
  readonly event: string;
  readonly id: string;
  readonly data: string;
}

/** Reads server-sent events one by one. */
export class EventReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #events: ServerEvent[] = [];
  #text = "";
  ended = false;
  /** Comment lines, which keep a connection alive. */
  comments = 0;

  constructor(response: Response) {
    this.#reader = response.body!.getReader();
    void this.#readAll();
  }

  async #readAll(): Promise<void> {
    const decoder = new TextDecoder();
    for (;;) {
      const { value, done } = await this.#reader.read();
      if (done) break;
      const parts = (this.#text + decoder.decode(value, { stream: true })).split("\n\n");
      this.#text = parts.pop()!;
      for (const part of parts) this.#take(part);
    }
    this.ended = true;
  }

  #take(part: string): void {
    const field = (name: string) =>
      part.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? "";
    if (part.startsWith(":")) this.comments++;
    if (field("event") !== "") {
      this.#events.push({ event: field("event"), id: field("id"), data: field("data") });
    }
  }

  /** Everything that has come since the last call. */
  take(): ServerEvent[] {
    return this.#events.splice(0);
  }

  async cancel(): Promise<void> {
    await this.#reader.cancel();
  }
}
