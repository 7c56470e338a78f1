/** Every fault that a campaign knows, by name. */
import type { Nemesis } from "./nemesis.ts";
import { cut, slowLinks } from "./network_faults.ts";
import { coordinator, everything, host, kill, killBoth, pause, stop } from "./process_faults.ts";

export const NEMESES: readonly Nemesis[] = [
  kill,
  stop,
  host,
  pause,
  killBoth,
  coordinator,
  everything({ oneByOne: false }),
  everything({ oneByOne: true }),
  cut,
  slowLinks,
];
