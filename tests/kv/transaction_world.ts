/**
 * Clients of one store of several groups, run through each other step by step by a seeded scheduler.
 *
 * The store's rules and the clients are the real ones (GroupState, TransactionRunner); a scheduler
 * decides before and after every single request whose turn it is, so requests of different clients
 * interleave in every order, time jumps, answers get lost and clients die at any point, also between
 * the execution of a request and its answer. A run is a function of its seed.
 */
import type { Env } from "../../kv/env.ts";
import { KvError } from "../../kv/errors.ts";
import { isInternal } from "../../kv/internal_columns.ts";
import { LockSweeper, SWEEP_AFTER_MS } from "../../kv/lock_sweeper.ts";
import { type MemoryCall, MemoryKv } from "../../kv/memory_kv.ts";
import { SeededRandom } from "../sim/seeded_random.ts";

export interface WorldOptions {
  readonly seed: number;
  readonly splitAt: readonly string[];
  /** Probability, at each request, that it or its answer is lost. */
  readonly loss?: number;
  /** Probability, at each turn, that time jumps by up to 8 s, more than a lock's life. */
  readonly pause?: number;
}

export class WorldClient {
  readonly kv: MemoryKv;
  readonly env: Env;
  readonly #death = Promise.withResolvers<void>();
  readonly died = this.#death.promise;
  dead = false;

  constructor(
    readonly name: string,
    readonly world: TransactionWorld,
    /** After so many turns it dies. */
    readonly turnsMax: number,
  ) {
    this.env = world.envOf(this);
    this.kv = new MemoryKv({
      sharing: world.store,
      env: this.env,
      beforeCall: (call) => world.before(this, call),
      afterCall: (call) => world.after(this, call),
    });
  }

  /** From now on nothing of it goes on. */
  die(): void {
    if (this.dead) return;
    this.dead = true;
    this.world.trace.push(`${this.name} dies`);
    this.#death.resolve();
  }
}

const WRITES: ReadonlySet<MemoryCall> = new Set(["apply", "transact", "prepare", "settle"]);
const DRAIN_TICKS = 40;

export class TransactionWorld {
  readonly random: SeededRandom;
  readonly store: MemoryKv;
  readonly #options: Required<WorldOptions>;
  readonly #turns: { client: WorldClient; resume: () => void }[] = [];
  #sleepers: { client: WorldClient | null; atMs: number; order: number; wake: () => void }[] = [];
  readonly #taken = new Map<WorldClient, number>();
  #nowMs = 1_000_000;
  #order = 0;
  #events = 0;
  faults = true;
  steps = 0;
  /** What happened, for a failing seed. */
  readonly trace: string[] = [];

  constructor(options: WorldOptions) {
    this.#options = { loss: 0.02, pause: 0.01, ...options };
    this.random = new SeededRandom(options.seed);
    this.store = new MemoryKv({ splitAt: options.splitAt, env: this.envOf(null) });
  }

  /** A place in the order of all calls and returns. */
  event(): number {
    return ++this.#events;
  }

  client(name: string, turnsMax = Infinity): WorldClient {
    return new WorldClient(name, this, turnsMax);
  }

  envOf(client: WorldClient | null): Env {
    return {
      monotonicMs: () => this.#nowMs,
      wallMs: () => this.#nowMs,
      random: () => this.random.next(),
      secretBytes: (count) => Uint8Array.from({ length: count }, () => this.random.integer(256)),
      sleep: (ms, signal) =>
        new Promise((resolve, reject) => {
          if (signal?.aborted) return reject(signal.reason);
          const sleeper = { client, atMs: this.#nowMs + ms, order: ++this.#order, wake: resolve };
          this.#sleepers.push(sleeper);
          signal?.addEventListener("abort", () => {
            this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
            reject(signal.reason);
          });
        }),
      timer: () => () => {},
      onBeat: () => () => {},
      log: () => {},
      fatal(error) {
        throw error;
      },
    };
  }

  async before(client: WorldClient, call: MemoryCall): Promise<void> {
    await this.#turn(client);
    if (!this.faults || !this.random.chance(this.#options.loss)) return;
    this.trace.push(`${client.name} ${call} lost`);
    throw new KvError("unavailable", "the request was lost");
  }

  async after(client: WorldClient, call: MemoryCall): Promise<void> {
    await this.#turn(client);
    this.trace.push(`${client.name} ${call}`);
    if (!this.faults || !this.random.chance(this.#options.loss)) return;
    this.trace.push(`${client.name} ${call}: answer lost`);
    const code = WRITES.has(call) ? "outcome_unknown" : "unavailable";
    throw new KvError(code, "the answer was lost");
  }

  /** Lets everybody run until `work` is done; clients that die leave theirs for ever. */
  async run(work: Promise<unknown>): Promise<void> {
    let done = false, failure: unknown;
    work.catch((error) => failure = error).finally(() => done = true);
    for (;;) {
      await drain(DRAIN_TICKS);
      if (failure !== undefined) throw failure;
      if (done) return;
      this.steps += 1;
      if (this.faults && this.random.chance(this.#options.pause)) {
        this.#passTime(this.random.next() * 8_000);
      } else if (this.#turns.length > 0) {
        const [turn] = this.#turns.splice(this.random.integer(this.#turns.length), 1);
        if (!turn!.client.dead) turn!.resume();
      } else if (this.#sleepers.length > 0) {
        const nextMs = Math.min(...this.#sleepers.map(({ atMs }) => atMs));
        this.#passTime(Math.max(0, nextMs - this.#nowMs));
      } else {
        await drain(2_000);
        if (!done && this.#turns.length === 0 && this.#sleepers.length === 0) {
          throw new Error("everybody waits for ever");
        }
      }
    }
  }

  /** What the primaries do in time: afterwards no lock and no decision is left. */
  async clearLocks(): Promise<void> {
    this.faults = false;
    const client = this.client("primaries");
    const sweepers = this.store.states.map((state) => {
      const options = { env: client.env, transactions: client.kv.transactions };
      return { state, sweeper: new LockSweeper(options) };
    });
    for (let round = 0; round < 4; round++) {
      await this.run(Promise.all(sweepers.map(({ state, sweeper }) => sweeper.sweep(state.locks))));
      this.#passTime(SWEEP_AFTER_MS);
    }
  }

  /** Cells that only transactions under way have. */
  internalCells(): string[] {
    return this.store.states.flatMap((state) =>
      Array.from(state.store.range({}))
        .filter(({ column }) => isInternal(column))
        .map(({ row, column }) => JSON.stringify([row, column]))
    );
  }

  async #turn(client: WorldClient): Promise<void> {
    const taken = (this.#taken.get(client) ?? 0) + 1;
    this.#taken.set(client, taken);
    if (taken > client.turnsMax) client.die();
    await new Promise<void>((resume) => {
      if (!client.dead) this.#turns.push({ client, resume });
    });
  }

  #passTime(ms: number): void {
    this.#nowMs += ms;
    const due = this.#sleepers.filter(({ atMs }) => atMs <= this.#nowMs);
    this.#sleepers = this.#sleepers.filter(({ atMs }) => atMs > this.#nowMs);
    due.sort((a, b) => a.atMs - b.atMs || a.order - b.order);
    for (const { client, wake } of due) if (client?.dead !== true) wake();
  }
}

async function drain(ticks: number): Promise<void> {
  for (let i = 0; i < ticks; i++) await undefined;
}
