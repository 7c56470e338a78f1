/** What clients do during a campaign, all at once. */
import { Appends } from "./appends.ts";
import { Bank } from "./bank.ts";
import { Counters } from "./counters.ts";
import { Lists } from "./lists.ts";
import { People } from "./people.ts";
import { LARGE_VALUES, Registers, SMALL_VALUES } from "./registers.ts";
import type { Workload, WorkloadContext } from "./workload.ts";

export const WORKLOADS: readonly ((context: WorkloadContext) => Workload)[] = [
  (context) => new Registers(context, SMALL_VALUES),
  (context) => new Registers(context, LARGE_VALUES),
  (context) => new Appends(context),
  (context) => new Counters(context),
  (context) => new Lists(context),
  (context) => new Bank(context),
  (context) => new People(context),
];
