/// <reference lib="deno.worker" />
/** One thread of a campaign: is given chunks of seeds, answers with what they came to. */
import type { Chunk, ChunkResult, FoundViolation } from "./campaign.ts";
import type { Stats } from "./core_model.ts";
import { runModel } from "./explore.ts";

declare const self: DedicatedWorkerGlobalScope;

self.onmessage = ({ data: chunk }: MessageEvent<Chunk>) => self.postMessage(runChunk(chunk));

function runChunk(chunk: Chunk): ChunkResult {
  const { start, runs, mutant } = chunk;
  const stats: Record<string, number> = {}, violations: FoundViolation[] = [];
  let steps = 0;
  for (let seed = start; seed < start + runs; seed++) {
    const result = runModel({ seed, mutant });
    steps += result.steps;
    for (const [name, count] of Object.entries(result.stats)) {
      stats[name] = (stats[name] ?? 0) + count;
    }
    if (result.violation === null) continue;
    violations.push({ seed, step: result.steps, message: result.violation });
  }
  return { chunk, steps, stats: stats as unknown as Stats, violations };
}
