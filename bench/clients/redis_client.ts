/**
 * Redis with as much durability as it has: every write is followed by `WAIT 2`, which answers when
 * both replicas have it.
 *
 * `WAIT` holds up its whole connection. So writes that come while one is under way share the next
 * round, `SET … SET WAIT`, on one of a few connections: fewer packets for both sides than a
 * connection for each request, and the most that Redis gave in trials. Reads need no `WAIT`.
 */
import { type RespAnswer, RespConnection } from "./resp_connection.ts";
import type { StoreClient } from "./store_client.ts";

const WRITE_CONNECTIONS = 8;
const WAIT_MS = 5_000;
/** Sets KEYS[1] to ARGV[2] if it is ARGV[1], or absent where ARGV[1] is empty. */
const COMPARE_AND_SET = `local old = redis.call('GET', KEYS[1]) or ''
if old ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2]) return 1`;

type Command = readonly (string | Uint8Array)[];

export async function connectRedis(port: number): Promise<StoreClient> {
  const reader = await RespConnection.connect(port);
  const writers: WaitingWriter[] = [];
  for (let i = 0; i < WRITE_CONNECTIONS; i++) {
    writers.push(new WaitingWriter(await RespConnection.connect(port)));
  }
  const write = (command: Command) => {
    const writer = writers.reduce((best, other) => other.queued < best.queued ? other : best);
    return writer.write(command);
  };
  const last = new Map<string, Uint8Array>();
  return {
    async put(key, value) {
      await write(["SET", key, value]);
      last.set(key, value);
    },
    async get(key) {
      return await reader.call(["GET", key]) as number | null;
    },
    async compareAndPut(key, value) {
      const expected = last.get(key) ?? new Uint8Array(0);
      const done = await write(["EVAL", COMPARE_AND_SET, "1", key, expected, value]);
      if (done !== 1) throw new Error(`Somebody else wrote "${key}"`);
      last.set(key, value);
    },
    scan: () => Promise.reject(new Error("Redis keeps its keys in no order")),
    close() {
      reader.close();
      for (const writer of writers) writer.close();
    },
  };
}

/** One connection for writes: those that come during a round make up the next. */
class WaitingWriter {
  readonly #connection: RespConnection;
  #queue: { command: Command; waiting: PromiseWithResolvers<RespAnswer> }[] = [];
  #running = false;
  /** Writes that wait for an answer. */
  queued = 0;

  constructor(connection: RespConnection) {
    this.#connection = connection;
  }

  write(command: Command): Promise<RespAnswer> {
    const waiting = Promise.withResolvers<RespAnswer>();
    this.#queue.push({ command, waiting });
    this.queued += 1;
    if (!this.#running) {
      this.#running = true;
      // A microtask later, so that the writes of one turn share a round from the first on.
      queueMicrotask(() => void this.#runAll());
    }
    return waiting.promise;
  }

  close(): void {
    this.#connection.close();
  }

  async #runAll(): Promise<void> {
    while (this.#queue.length > 0) {
      const round = this.#queue.splice(0);
      const answers = round.map(({ command }) => this.#connection.call(command));
      const replicas = this.#connection.call(["WAIT", "2", String(WAIT_MS)]);
      const [count, ...results] = await Promise.allSettled([replicas, ...answers]);
      this.queued -= round.length;
      round.forEach(({ waiting }, at) => {
        const result = results[at]!;
        if (result.status === "rejected") return waiting.reject(result.reason);
        if (count.status === "rejected") return waiting.reject(count.reason);
        if (count.value === 2) return waiting.resolve(result.value);
        waiting.reject(new Error(`A write reached ${count.value} of two replicas of Redis`));
      });
    }
    this.#running = false;
  }
}
