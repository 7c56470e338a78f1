/**
 * `deno task sim`: the simulator over many seeds, in two processes. Prints what was run and what broke;
 * exits 1 on a broken promise, with the seed made as small as it can be, what happened last and the
 * command that replays it.
 */
import type { MutantName } from "../../kv/mutant.ts";
import { commandLine, fail } from "../command_line.ts";
import { runSeeds, type SeedReport } from "./campaign.ts";
import { ClusterSim, type SimOptions, type SimResult } from "./cluster_sim.ts";
import { describeFailure, failureOf, minimise } from "./failing_seed.ts";
import { findMutant, findMutants, listMutants, MUTANTS } from "./mutants.ts";
import { SimViolation } from "./violation.ts";
import { FAULTS } from "./swarm.ts";

const HELP = `deno task sim: whole clusters in one process, under faults, on a clock of their own

  --seeds N         how many (400)
  --start S         the first one (1)
  --jobs N          processes (2)
  --twice           each seed twice, which must be the same to the last step
  --off A,B         without these faults
  --shape JSON      with this shape of the cluster
  --duration MS     simulated time under faults
  --mutant NAME     with a deliberate bug; one that seeds do not find is shown to be found by its test,
                    unless --start asks for seeds all the same
  --mutants         finds every one of them, and prints the table
  --list-mutants    what there is
  --json            one document for programs`;

const values = commandLine({
  help: HELP,
  options: {
    seeds: { type: "string", default: "400" },
    start: { type: "string" },
    step: { type: "string", default: "1" },
    jobs: { type: "string", default: "2" },
    duration: { type: "string" },
    off: { type: "string", default: "" },
    shape: { type: "string", default: "{}" },
    mutant: { type: "string" },
    mutants: { type: "boolean", default: false },
    "list-mutants": { type: "boolean", default: false },
    twice: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    worker: { type: "boolean", default: false },
  },
});

function wholeNumber(name: "seeds" | "start" | "step" | "jobs" | "duration"): number {
  const number = Number(values[name] ?? 1);
  if (Number.isSafeInteger(number) && number >= 1) return number;
  fail(`--${name} takes a whole number from 1 on, not "${values[name]}"`);
}

function baseOptions(): Omit<SimOptions, "seed"> {
  const off = values.off.split(",").filter((name) => name !== "");
  const unknown = off.find((name) => !(FAULTS as readonly string[]).includes(name));
  if (unknown !== undefined) fail(`No fault "${unknown}"; there are ${FAULTS.join(", ")}`);
  const { mutant } = values;
  if (mutant !== undefined && !Object.hasOwn(MUTANTS, mutant)) {
    fail(`No mutant "${mutant}"; --list-mutants names them`);
  }
  let shape: SimOptions["shape"];
  try {
    shape = JSON.parse(values.shape);
  } catch {
    fail(`--shape takes JSON, not "${values.shape}"`);
  }
  return {
    off,
    mutant: (mutant ?? null) as MutantName | null,
    ...(Object.keys(shape!).length > 0 ? { shape: shape! } : {}),
    ...(values.duration === undefined ? {} : { durationMs: wholeNumber("duration") }),
  };
}

function expectSame(one: SimResult, other: SimResult): void {
  if (one.traceHash === other.traceHash) return;
  throw new SimViolation(`R6: the same seed gave ${one.traceHash}, then ${other.traceHash}`);
}

/**
 * What finds a deliberate bug that random search does not reach; null where seeds do, or are asked for.
 */
function directedMutant(): MutantName | null {
  if (values.mutant === undefined || values.start !== undefined) return null;
  const { mutant } = baseOptions();
  return mutant != null && MUTANTS[mutant].test !== undefined ? mutant : null;
}

/** Exit status: 0 when the test that is there for this bug finds it, 2 when it does not. */
async function showDirected(mutant: MutantName): Promise<number> {
  const { test, breaks } = MUTANTS[mutant], where = `"${test!.name}" in tests/${test!.file}`;
  const found = await findMutant(mutant, 0) !== null;
  console.log(`${mutant}: ${breaks}`);
  console.log(
    found
      ? `Found, not by seeds but by a directed test, which fails with it: ${where}`
      : `NOT FOUND: a directed test is there for it, but passes all the same: ${where}`,
  );
  return found ? 0 : 2;
}

/** One line of JSON for each seed, for the process that started this one. */
async function work(): Promise<void> {
  const options = baseOptions(), start = wholeNumber("start"), step = wholeNumber("step");
  for (let i = 0; i < wholeNumber("seeds"); i++) {
    const seed = start + i * step;
    let report: SeedReport;
    try {
      const result = await new ClusterSim({ ...options, seed }).run();
      if (values.twice) expectSame(result, await new ClusterSim({ ...options, seed }).run());
      report = { seed, result, message: null };
    } catch (error) {
      report = { seed, result: null, message: (error as Error).message };
    }
    console.log(JSON.stringify(report));
  }
}

async function campaign(): Promise<void> {
  const options = baseOptions(), seeds = wholeNumber("seeds"), start = wholeNumber("start");
  const totals: Record<string, number> = {};
  const hashes: Record<number, string> = {};
  const broken: SeedReport[] = [];
  let simulatedMs = 0;
  const startedMs = performance.now();
  const { off, shape, mutant, durationMs } = options;
  await runSeeds({
    start,
    seeds,
    processes: wholeNumber("jobs"),
    args: [
      ...(off!.length > 0 ? ["--off", off!.join(",")] : []),
      ...(shape === undefined ? [] : ["--shape", JSON.stringify(shape)]),
      ...(values.twice ? ["--twice"] : []),
      ...(mutant == null ? [] : ["--mutant", mutant]),
      ...(durationMs === undefined ? [] : ["--duration", String(durationMs)]),
    ],
    onSeed: (report) => {
      const { seed, result, message } = report;
      if (result === null) {
        broken.push(report);
        console.error(`seed ${seed}: ${message}`);
        return;
      }
      hashes[seed] = result.traceHash;
      simulatedMs += result.simulatedMs;
      for (const [name, value] of Object.entries(result.counts)) {
        totals[name] = (totals[name] ?? 0) + value;
      }
    },
  });
  const seconds = (performance.now() - startedMs) / 1000;
  broken.sort((a, b) => a.seed - b.seed);
  const simulatedSeconds = simulatedMs / 1000;
  if (values.json) {
    const violations = broken.map(({ seed, message }) => ({ seed, message }));
    console.log(
      JSON.stringify({ seeds, start, seconds, simulatedSeconds, totals, hashes, violations }),
    );
  } else {
    console.log(`${seeds} seeds from ${start}, ${broken.length} violations`);
    for (const [name, value] of Object.entries(totals).sort()) {
      console.log(`  ${name.padEnd(18)} ${value}`);
    }
    if (seeds === 1 && hashes[start] !== undefined) console.log(`trace hash ${hashes[start]}`);
    console.log(
      `${seconds.toFixed(1)} s: ${(simulatedSeconds / seconds).toFixed(0)} simulated seconds and ` +
        `${Math.round((totals.steps ?? 0) / seconds)} steps a second`,
    );
  }
  const [first] = broken;
  if (first !== undefined) {
    const failure = await failureOf({ ...options, seed: first.seed });
    if (failure === null) {
      console.error(`seed ${first.seed} broke a promise once and not again: not deterministic`);
    } else console.error(describeFailure(seeds === 1 ? failure : await minimise(failure)));
  }
  Deno.exit(broken.length === 0 ? 0 : 1);
}

if (import.meta.main) {
  if (values.worker) await work();
  else if (values["list-mutants"]) console.log(listMutants());
  else if (values.mutants) Deno.exit(await findMutants(wholeNumber("seeds")) ? 0 : 1);
  else {
    const directed = directedMutant();
    if (directed === null) await campaign();
    else Deno.exit(await showDirected(directed));
  }
}
