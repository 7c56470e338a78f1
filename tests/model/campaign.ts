/**
 * Many runs of the core model on several threads. The seeds are dealt out in chunks, so that the
 * result is the same however many threads there are.
 */
import type { Stats } from "./core_model.ts";
import type { MutantName } from "./mutants.ts";

export interface CampaignOptions {
  readonly runs: number;
  readonly start?: number;
  readonly mutant?: MutantName | null;
  readonly threads?: number;
  /** End at the first violation. */
  readonly stopAtFirst?: boolean;
}

export interface FoundViolation {
  readonly seed: number;
  readonly step: number;
  readonly message: string;
}

export interface CampaignResult {
  readonly runs: number;
  readonly steps: number;
  readonly seconds: number;
  readonly stats: Stats;
  /** By seed. */
  readonly violations: readonly FoundViolation[];
}

export interface Chunk {
  readonly start: number;
  readonly runs: number;
  readonly mutant: MutantName | null;
}

export interface ChunkResult {
  readonly chunk: Chunk;
  readonly steps: number;
  readonly stats: Stats;
  readonly violations: readonly FoundViolation[];
}

const CHUNK_RUNS = 500;
const VIOLATIONS_KEPT = 20;

export async function runCampaign(options: CampaignOptions): Promise<CampaignResult> {
  const { runs, start = 1, mutant = null, stopAtFirst = false } = options;
  const threads = options.threads ?? Math.min(2, navigator.hardwareConcurrency);
  const startedMs = performance.now(), end = start + runs;
  const results: ChunkResult[] = [];
  let next = start, found = false;
  const nextChunk = (): Chunk | null => {
    if (next >= end || (found && stopAtFirst)) return null;
    const chunk = { start: next, runs: Math.min(CHUNK_RUNS, end - next), mutant };
    next += chunk.runs;
    return chunk;
  };
  const onResult = (result: ChunkResult) => {
    results.push(result);
    found ||= result.violations.length > 0;
  };
  await Promise.all(
    Array.from({ length: threads }, () => workThrough(nextChunk, onResult)),
  );
  return { ...sumUp(results), seconds: (performance.now() - startedMs) / 1000 };
}

/** One thread: asks for chunks until there are no more. */
function workThrough(
  nextChunk: () => Chunk | null,
  onResult: (result: ChunkResult) => void,
): Promise<void> {
  const worker = new Worker(new URL("./campaign_worker.ts", import.meta.url), { type: "module" });
  return new Promise<void>((resolve, reject) => {
    const give = () => {
      const chunk = nextChunk();
      if (chunk === null) resolve();
      else worker.postMessage(chunk);
    };
    worker.onmessage = ({ data }: MessageEvent<ChunkResult>) => {
      onResult(data);
      give();
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
    give();
  }).finally(() => worker.terminate());
}

function sumUp(results: readonly ChunkResult[]): Omit<CampaignResult, "seconds"> {
  const stats: Record<string, number> = {};
  let runs = 0, steps = 0;
  for (const result of results) {
    runs += result.chunk.runs;
    steps += result.steps;
    for (const [name, count] of Object.entries(result.stats)) {
      stats[name] = (stats[name] ?? 0) + count;
    }
  }
  const violations = results.flatMap((result) => result.violations)
    .sort((a, b) => a.seed - b.seed).slice(0, VIOLATIONS_KEPT);
  return { runs, steps, stats: stats as unknown as Stats, violations };
}
