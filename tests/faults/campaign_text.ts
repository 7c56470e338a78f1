/** What a campaign says to people. */
import type { CampaignEvent, CampaignResult } from "./campaign.ts";
import { figureLines } from "./figures.ts";

export function eventLine(event: CampaignEvent): string {
  switch (event.event) {
    case "started":
      return `cluster ready after ${event.seconds.toFixed(1)} s in ${event.dir}`;
    case "strike":
      return `- ${event.what}`;
    case "mended": {
      const gaps = event.gaps.map(({ group, role, ms, atMs }) =>
        `group ${group} ${role === "other" ? "" : `(${role} hit) `}${ms} ms from ${atMs}`
      );
      return `  whole after ${event.wholeMs} ms; longest gaps: ${gaps.join(", ")}`;
    }
    case "checking":
      return "quiet; checking everything";
  }
}

export function resultLines(result: CampaignResult): string[] {
  const { ok, unknown, refused } = result.operations;
  const refusals = Object.entries(refused).map(([code, count]) => `${count} ${code}`);
  const faults = Object.entries(result.faults).map(([name, count]) => `${count} ${name}`);
  return [
    "",
    `seed ${result.seed}: ${result.seconds.toFixed(0)} s, load ${
      result.load.map((load) => load.toFixed(1)).join(" before, ")
    } after`,
    `faults: ${faults.join(", ")}; ${result.kills} processes killed`,
    ...figureLines("gap of writes, ms", result.gaps),
    ...figureLines("gap of linearizable reads, ms", result.readGaps),
    ...(result.times.length > 0 ? figureLines("time of an operation, ms", result.times) : []),
    `operations: ${ok} done, ${refusals.join(", ") || "none"} refused, ${unknown} of unknown end`,
    `checked: ${result.checked.join(", ")}; ${result.violations.length} violations`,
  ];
}

/** What was broken, where everything was kept, and how to run it again. */
export function failureText(result: CampaignResult, again: string): string {
  return [
    ...result.violations,
    `data folders and logs: ${result.keptDir}`,
    `history: ${result.historyFile}`,
    `run it again: ${again}`,
  ].join("\n");
}
