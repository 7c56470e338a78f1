/**
 * A seed that broke a promise, made smaller: faults are taken away one by one as long as it still
 * breaks one, then the shape of the cluster is made as plain as it can be.
 */
import { ClusterSim, type SimOptions } from "./cluster_sim.ts";
import { drawSwarm, FAULTS, type SwarmShape } from "./swarm.ts";

export interface Failure {
  readonly options: SimOptions;
  readonly message: string;
  /** When it broke, in simulated milliseconds. */
  readonly atMs: number;
  readonly trace: readonly string[];
}

/** Null when nothing breaks. */
export async function failureOf(options: SimOptions): Promise<Failure | null> {
  const sim = new ClusterSim(options);
  try {
    await sim.run();
    return null;
  } catch (error) {
    const { message } = error as Error;
    return { options, message, atMs: sim.time.nowMs, trace: [...sim.trace] };
  }
}

const PLAIN_SHAPES: readonly Partial<SwarmShape>[] = [
  { groups: 1 },
  { clients: 1, depth: 1 },
  { rowsPerGroup: 1 },
  { backends: 3, replicas: 3 },
];

/** Keeps what still fails and fails sooner or with less; a few dozen runs. */
export async function minimise(failure: Failure): Promise<Failure> {
  let best = failure;
  const attempt = async (options: SimOptions): Promise<boolean> => {
    // Nothing that happens after the first breach matters.
    const smaller = await failureOf({ ...options, durationMs: Math.ceil(best.atMs) + 1 });
    if (smaller === null) return false;
    best = smaller;
    return true;
  };
  const present = FAULTS.filter((fault) =>
    drawSwarm(failure.options.seed, failure.options).strength[fault] > 0
  );
  for (const fault of present) {
    await attempt({ ...best.options, off: [...best.options.off ?? [], fault] });
  }
  for (const shape of PLAIN_SHAPES) {
    await attempt({ ...best.options, shape: { ...best.options.shape, ...shape } });
  }
  return best;
}

/** The command line that runs it again. */
export function replayCommand({ seed, off = [], shape = {}, mutant, durationMs }: SimOptions) {
  const parts = ["deno task sim --seeds 1", `--start ${seed}`];
  if (off.length > 0) parts.push(`--off ${off.join(",")}`);
  if (Object.keys(shape).length > 0) parts.push(`--shape '${JSON.stringify(shape)}'`);
  if (mutant != null) parts.push(`--mutant ${mutant}`);
  if (durationMs !== undefined) parts.push(`--duration ${durationMs}`);
  return parts.join(" ");
}

/** What a person needs to look into it. */
export function describeFailure(failure: Failure, lines = 60): string {
  const { options, message, atMs, trace } = failure;
  const { strength, shape } = drawSwarm(options.seed, options);
  const faults = FAULTS.filter((fault) => strength[fault] > 0)
    .map((fault) => `${fault} ${strength[fault].toFixed(2)}`).join(", ");
  return [
    `seed ${options.seed} broke a promise at ${(atMs / 1000).toFixed(3)} simulated seconds`,
    `faults: ${faults || "none"}`,
    `shape: ${JSON.stringify(shape)}`,
    ...trace.slice(-lines),
    `GUARANTEE BROKEN: ${message}`,
    `replay: ${replayCommand(options)}`,
  ].join("\n");
}
