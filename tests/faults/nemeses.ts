/** Every fault that a campaign knows, by name. */
import { diskFull, failedSync, flip, slowSync } from "./disk_faults.ts";
import { rollback } from "./metadata_faults.ts";
import { cut, slowLinks } from "./network_faults.ts";
import type { Nemesis } from "./nemesis.ts";
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
  slowSync,
  failedSync,
  diskFull,
  rollback,
  flip({ running: false }),
  flip({ running: true }),
];
