/** What clients do during a campaign, all at once. */
import { Appends } from "./appends.ts";
import { Counters } from "./counters.ts";
import type { Workload, WorkloadContext } from "./workload.ts";

export const WORKLOADS: readonly ((context: WorkloadContext) => Workload)[] = [
  (context) => new Appends(context),
  (context) => new Counters(context),
];
