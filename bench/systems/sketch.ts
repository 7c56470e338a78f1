/**
 * The sketch of `sketch_node.ts` on three processes: not a rival but a yardstick. The difference to
 * PennCloud in the same run is what the guarantees cost.
 */
import { join } from "node:path";
import type { KvWorkload } from "../load/kv_workload.ts";
import { endProcess, type RunningSystem, type System } from "./system.ts";

const PROGRAM = new URL("./sketch_node.ts", import.meta.url).pathname;
/** As `deno task up` runs its nodes. */
const V8_FLAGS = "--v8-flags=--max-semi-space-size=2,--single-threaded-gc";

export class Sketch implements System {
  readonly name = "sketch";

  whyNot(workload?: KvWorkload): Promise<string | null> {
    const able = workload === "put" || workload === "get" || workload?.startsWith("mixed");
    return Promise.resolve(able ? null : "the sketch knows only put and get");
  }

  async start(dir: string): Promise<RunningSystem> {
    const nodes: SketchNode[] = [];
    const stop = async () => {
      await Promise.all(nodes.map(({ child }) => endProcess(child)));
    };
    try {
      for (const n of [1, 2]) nodes.push(await startNode(join(dir, `sketch-${n}.log`), []));
      const primary = await startNode(join(dir, "sketch-0.log"), nodes.map(({ port }) => port));
      nodes.push(primary);
      return {
        name: this.name,
        about: "a bare sketch, one write and one fsync a batch on three nodes, rows in a Map",
        target: { system: "sketch", port: primary.port },
        pids: () => nodes.map(({ child }) => child.pid),
        counters: () => Promise.resolve({}),
        stop,
      };
    } catch (error) {
      await stop();
      throw error;
    }
  }
}

interface SketchNode {
  readonly child: Deno.ChildProcess;
  readonly port: number;
}

async function startNode(log: string, secondaries: readonly number[]): Promise<SketchNode> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      "--quiet",
      V8_FLAGS,
      PROGRAM,
      log,
      ...secondaries.map(String),
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  return { child, port: Number((await reader.read()).value) };
}
