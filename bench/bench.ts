/**
 * `deno task bench NAME [flags]`: how fast PennCloud is, beside others on the same machine.
 *
 * Without a name it prints what there is. Every bench starts PennCloud, and where a peer does the same
 * thing that peer, on fresh data folders on one disk, lets them take turns under the same load, and
 * says what each reached, what it cost, and the ratio. Progress goes to standard error. Exit status 1
 * when a run failed, 2 for wrong use.
 *
 * Read on in compare.ts; systems/ starts the stores, clients/ speak to them, load/ asks them.
 */
import { type Bench, BenchRun } from "./bench_run.ts";
import { KV_WORKLOADS } from "./load/kv_workload.ts";
import { FLAGS_HELP, readOptions, UsageError } from "./options.ts";
import { jsonOf, ratioLines, tableLines } from "./report.ts";
import { budget } from "./workloads/budget.ts";
import { failover } from "./workloads/failover.ts";
import { download, upload } from "./workloads/file_transfer.ts";
import { kvBench } from "./workloads/kv.ts";
import { mailbox } from "./workloads/mailbox.ts";
import { pages } from "./workloads/pages.ts";
import { rpc } from "./workloads/rpc.ts";
import { scalingBackends, scalingData, scalingTablets } from "./workloads/scaling.ts";
import { start } from "./workloads/start.ts";

export const BENCHES: readonly Bench[] = [
  ...KV_WORKLOADS.map(kvBench),
  upload,
  download,
  mailbox,
  pages,
  start,
  failover,
  scalingData,
  scalingTablets,
  scalingBackends,
  budget,
  rpc,
];

function helpText(): string {
  const list = BENCHES.map(({ name, about }) => `  ${name.padEnd(17)}  ${about}`).join("\n");
  return `deno task bench NAME [flags]\n\n${list}\n\nflags:\n${FLAGS_HELP}`;
}

/** @returns the exit status */
async function main(args: readonly string[]): Promise<number> {
  const { name, options } = readOptions(args);
  if (name === null) {
    console.log(helpText());
    return 0;
  }
  const bench = BENCHES.find((each) => each.name === name);
  if (bench === undefined) {
    const names = BENCHES.map((each) => each.name).join(", ");
    throw new UsageError(`There is no bench "${name}"; there are ${names}`);
  }
  await using run = await BenchRun.open(options);
  const result = await bench.run(run);
  const machine = run.machine();
  for (const line of [...tableLines(result.rows), ...ratioLines(result.peers)]) console.log(line);
  if (options.json) console.log(jsonOf(bench.name, machine, result));
  else for (const line of result.notes) console.log(line);
  return 0;
}

if (import.meta.main) {
  let status: number;
  try {
    status = await main(Deno.args);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(error.message);
    status = 2;
  }
  Deno.exit(status);
}
