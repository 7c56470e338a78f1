/**
 * Transactions in the simulated cluster: clients that run the workload of tests/kv/ over rows of all
 * groups, and clients that die while they do, before or after any request that they send.
 *
 * What they saw is judged at the end by tests/checkers/ (strict serializability, and the bank); what
 * the groups committed is held against transaction_oracle.ts all along.
 */
import { KvClient, type KvTransport } from "../../kv/client.ts";
import { TransactionWorkload } from "../kv/transaction_workload.ts";
import type { SeededRandom } from "./seeded_random.ts";
import type { SimProcess } from "./sim_process.ts";

export interface SimTransactionsOptions {
  readonly random: SeededRandom;
  /** A new process with its own way to the cluster. */
  readonly startClient: (name: string) => { process: SimProcess; transport: KvTransport };
  /** Locks and decisions that the groups still hold. */
  readonly remains: () => number;
  readonly clients: number;
  readonly thinkMs: number;
  /** Share of the clients that die in the middle of what they do. */
  readonly abandoned: number;
  readonly onDeath: (process: SimProcess) => void;
  readonly onViolation: (error: unknown) => void;
}

/** Requests of a transaction over two groups, reads included; a mortal client dies within a few. */
const STEPS_MAX = 20;
const OPERATIONS = 5;
const LOOK_EVERY_MS = 100;

export class SimTransactions {
  readonly #options: SimTransactionsOptions;
  readonly #workload: TransactionWorkload;
  #events = 0;
  #clientCount = 0;
  #running = 0;
  #stopped = false;

  constructor(options: SimTransactionsOptions) {
    this.#options = options;
    this.#workload = new TransactionWorkload({
      random: options.random,
      event: () => ++this.#events,
    });
  }

  /** Transactions over lists that their clients know to be committed. */
  get committed(): number {
    return this.#workload.committed;
  }

  start(): void {
    this.#running += 1;
    void this.#guarded(async () => {
      const { kv } = this.#client(Infinity);
      await this.#workload.open(kv);
      for (let i = 0; i < this.#options.clients && !this.#stopped; i++) this.#run();
      this.#running -= 1;
    });
  }

  /** Nothing new is begun; what is under way goes on. */
  stop(): void {
    this.#stopped = true;
  }

  /**
   * After `stop`: once nobody is at it and the primaries have cleared what the dead left behind, reads
   * everything and judges it.
   */
  async finish(): Promise<void> {
    const client = this.#client(Infinity);
    while (this.#running > 0 || this.#options.remains() > 0) await client.env.sleep(LOOK_EVERY_MS);
    await this.#workload.readAll(client);
    await client.kv.transactions.idle();
    await this.#workload.check(client.kv);
    while (this.#options.remains() > 0) await client.env.sleep(LOOK_EVERY_MS);
  }

  /** One client after the other, each until it dies or has done its work. */
  #run(): void {
    const { random, abandoned } = this.#options;
    const mortal = random.chance(abandoned);
    const client = this.#client(mortal ? random.integer(STEPS_MAX) : Infinity);
    const { process } = client;
    this.#running += 1;
    client.onDeath(() => {
      this.#running -= 1;
      if (!this.#stopped) this.#run();
    });
    void this.#guarded(async () => {
      for (let i = 0; i < OPERATIONS && !this.#stopped; i++) {
        await process.env.sleep(random.next() * this.#options.thinkMs);
        if (!this.#stopped) await this.#workload.run(client, 1);
      }
      await client.kv.transactions.idle();
      this.#running -= 1;
      if (!this.#stopped) this.#run();
    });
  }

  #client(stepsMax: number) {
    const { startClient, onDeath } = this.#options;
    const name = `transactions/${this.#clientCount++}`;
    const { process, transport } = startClient(name);
    const mortal = new MortalTransport(transport, process, stepsMax);
    mortal.onDeath = () => onDeath(process);
    const { env } = process;
    return {
      name,
      process,
      env,
      kv: new KvClient({ env, transport: mortal }),
      onDeath: (run: () => void) => {
        mortal.onDeath = () => {
          onDeath(process);
          run();
        };
      },
    };
  }

  async #guarded(run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      this.#options.onViolation(error);
    }
  }
}

/** Carries so many requests; with the last one its process ends, before it is sent or after. */
class MortalTransport implements KvTransport {
  readonly #transport: KvTransport;
  readonly #process: SimProcess;
  #stepsLeft: number;
  onDeath: () => void = () => {};

  constructor(transport: KvTransport, process: SimProcess, stepsMax: number) {
    this.#transport = transport;
    this.#process = process;
    this.#stepsLeft = stepsMax;
  }

  call(...args: Parameters<KvTransport["call"]>): ReturnType<KvTransport["call"]> {
    if (!this.#process.alive) return new Promise(() => {});
    if (this.#stepsLeft-- > 0) return this.#transport.call(...args);
    if (this.#process.env.random() < 0.5) this.#transport.call(...args).catch(() => {});
    this.#process.end();
    this.onDeath();
    return new Promise(() => {});
  }

  fetchRoutes(...args: Parameters<KvTransport["fetchRoutes"]>) {
    return this.#transport.fetchRoutes(...args);
  }
}
