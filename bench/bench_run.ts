/** What every bench is handed: its options, a folder of its own, and a way to say how it goes. */
import { join } from "node:path";
import type { BenchOptions } from "./options.ts";
import type { BenchResult } from "./report.ts";
import { waitForIdleMachine } from "./measure.ts";

export class BenchRun {
  readonly options: BenchOptions;
  /** Empty, on the disk that is measured; it is removed at the end. */
  readonly dir: string;
  /** For the report: see `BenchResult.notes`. */
  readonly notes: string[] = [];
  #idleShares: number[] = [];
  #folders = 0;

  private constructor(options: BenchOptions, dir: string) {
    this.options = options;
    this.dir = dir;
  }

  static async open(options: BenchOptions): Promise<BenchRun> {
    const dir = await Deno.makeTempDir({
      prefix: "penncloud-bench-",
      ...(options.dir === null ? {} : { dir: options.dir }),
    });
    return new BenchRun(options, dir);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.dir, { recursive: true });
  }

  /** Progress, on standard error, so that standard output is the result alone. */
  say(line: string): void {
    console.error(line);
  }

  note(line: string): void {
    this.notes.push(line);
    this.say(line);
  }

  async folder(): Promise<string> {
    const dir = join(this.dir, String(++this.#folders));
    await Deno.mkdir(dir);
    return dir;
  }

  /** Before each measured run; does nothing unless it was asked for. */
  async untilIdle(): Promise<void> {
    const { idleWaitMs } = this.options;
    if (idleWaitMs === 0) return;
    const idleShare = await waitForIdleMachine(idleWaitMs);
    this.#idleShares.push(idleShare);
    if (idleShare < 0.75) this.say(`the machine is only ${Math.round(idleShare * 100)} % idle`);
  }

  /** The machine while it ran, for the report. */
  machine(): Record<string, unknown> {
    return {
      cores: navigator.hardwareConcurrency,
      memoryBytes: Deno.systemMemoryInfo().total,
      load: Deno.loadavg(),
      deno: Deno.version.deno,
      kernel: Deno.osRelease(),
      idleBeforeRuns: this.#idleShares,
    };
  }
}

export interface Bench {
  readonly name: string;
  /** One line for the list. */
  readonly about: string;
  run(run: BenchRun): Promise<BenchResult>;
}
