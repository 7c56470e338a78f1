/** The client processes of one store, as seen by the bench: started, told what to do, ended. */
import { join } from "node:path";
import type { StoreTarget } from "../clients/store_client.ts";
import { Histogram } from "./histogram.ts";
import type { KvLoad } from "./kv_workload.ts";
import type { LoadAnswer, LoadOrder, RunAnswer } from "./load_orders.ts";

export interface FleetRun {
  readonly latencies: Histogram;
  readonly operationsPerSecond: number;
}

export class LoadFleet {
  readonly #processes: LoadProcess[];

  private constructor(processes: LoadProcess[]) {
    this.#processes = processes;
  }

  static async start(target: StoreTarget, processCount: number): Promise<LoadFleet> {
    const processes = Array.from({ length: processCount }, () => new LoadProcess());
    const fleet = new LoadFleet(processes);
    try {
      await Promise.all(processes.map((process) => process.tell({ order: "connect", target })));
    } catch (error) {
      await fleet.stop();
      throw error;
    }
    return fleet;
  }

  get pids(): number[] {
    return this.#processes.map(({ pid }) => pid);
  }

  async fill(order: Omit<LoadOrder & { order: "fill" }, "order">): Promise<void> {
    const [first] = this.#processes;
    await first!.tell({ order: "fill", ...order });
  }

  /** All processes at once; `load.outstanding` is shared among them. */
  async run(load: KvLoad, seconds: number): Promise<FleetRun> {
    const shares = shareOut(load.outstanding, this.#processes.length);
    const answers = await Promise.all(this.#processes.flatMap((process, index) => {
      const outstanding = shares[index]!;
      if (outstanding === 0) return [];
      const share = { ...load, outstanding, seed: load.seed * 100 + index };
      return [process.tell({ order: "run", load: share, seconds })];
    }));
    const runs = answers as RunAnswer[];
    const perSecond = runs.map(({ latencies, seconds }) =>
      Histogram.from(latencies).count / seconds
    );
    return {
      latencies: Histogram.merge(runs.map(({ latencies }) => latencies)),
      operationsPerSecond: perSecond.reduce((sum, each) => sum + each, 0),
    };
  }

  async stop(): Promise<void> {
    await Promise.all(this.#processes.map((process) => process.stop()));
  }
}

/** `total` in `count` shares that differ by one at most, larger ones first. */
export function shareOut(total: number, count: number): number[] {
  return Array.from(
    { length: count },
    (_, index) => Math.floor((total + count - 1 - index) / count),
  );
}

class LoadProcess {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #lines: AsyncIterator<string>;

  constructor() {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "--quiet", join(import.meta.dirname!, "load_process.ts")],
      // The young generation as large as it gets: the client's own garbage should not be measured.
      env: { DENO_V8_FLAGS: "--max-semi-space-size=32", NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#lines = linesOf(this.#child.stdout);
  }

  get pid(): number {
    return this.#child.pid;
  }

  async tell(order: LoadOrder): Promise<RunAnswer | null> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify(order) + "\n"));
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("A client process of the bench ended by itself");
    const answer = JSON.parse(value) as LoadAnswer;
    if (!answer.ok) throw new Error(answer.error);
    return answer.run ?? null;
  }

  async stop(): Promise<void> {
    await this.#input.close().catch(() => {});
    await this.#child.status;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}
