/**
 * Many seeds in several processes at once. A process takes every nth seed and prints one line of JSON
 * for each; this side puts the lines together in the order of seeds.
 */
import type { SimResult } from "./cluster_sim.ts";

export interface SeedReport {
  readonly seed: number;
  /** Null when a promise was broken. */
  readonly result: SimResult | null;
  readonly message: string | null;
}

const RUN = new URL("./run.ts", import.meta.url).pathname;
const CONFIG = new URL("../deno.json", import.meta.url).pathname;

/** Calls `onSeed` as seeds end, in no order. `args` go to each process as they are. */
export async function runSeeds(options: {
  readonly start: number;
  readonly seeds: number;
  readonly processes: number;
  readonly args: readonly string[];
  readonly onSeed: (report: SeedReport) => void;
}): Promise<void> {
  const { start, seeds, processes, args, onSeed } = options;
  const workers = Array.from({ length: Math.min(processes, seeds) }, async (_, index) => {
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        "--no-check",
        "--config",
        CONFIG,
        RUN,
        "--worker",
        "--start",
        String(start + index),
        "--step",
        String(processes),
        "--seeds",
        String(Math.ceil((seeds - index) / processes)),
        ...args,
      ],
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    let rest = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) onSeed(JSON.parse(line));
    }
    const { success } = await child.status;
    if (!success) throw new Error("a process of the campaign failed");
  });
  await Promise.all(workers);
}
