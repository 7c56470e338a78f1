/** Every fault that a campaign knows, by name. */
import { diskFull, failedSync, flip, slowSync } from "./disk_faults.ts";
import { rollback } from "./metadata_faults.ts";
import { cut, slowLinks } from "./network_faults.ts";
import type { Nemesis } from "./nemesis.ts";
import { drain, move, split } from "./planned_faults.ts";
import {
  coordinator,
  everything,
  frontend,
  host,
  kill,
  killBoth,
  pause,
  stop,
} from "./process_faults.ts";

export const NEMESES: readonly Nemesis[] = [
  kill,
  stop,
  host,
  pause,
  killBoth,
  frontend,
  coordinator,
  everything({ oneByOne: false }),
  everything({ oneByOne: true }),
  cut,
  slowLinks,
  slowSync,
  failedSync,
  diskFull,
  rollback,
  drain,
  split,
  move,
  flip({ running: false }),
  flip({ running: true }),
];

/** Leaves out what this machine cannot do, with a line that says why. */
export async function possibleNemeses(
  wanted: readonly Nemesis[] = NEMESES,
): Promise<{ nemeses: readonly Nemesis[]; leftOut: readonly string[] }> {
  const nemeses: Nemesis[] = [], leftOut: string[] = [];
  for (const nemesis of wanted) {
    const reason = await nemesis.whyNot?.() ?? null;
    if (reason === null) nemeses.push(nemesis);
    else leftOut.push(`left out: ${nemesis.name}, because ${reason}`);
  }
  return { nemeses, leftOut };
}
