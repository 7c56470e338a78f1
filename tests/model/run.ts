/**
 * `deno task model [--runs N] [--start S] [--mutant NAME | --mutants] [--threads N] [--json]`: the core
 * model over many seeds. Prints what happened in them and what broke; exits 1 on a violation, with
 * the seed that replays it.
 *
 * `--mutant` makes one rule wrong and ends at the first violation: then finding one is success.
 * `--mutants` does so for all of them, `--list-mutants` names them.
 */
import { commandLine, fail } from "../command_line.ts";
import { type CampaignResult, runCampaign } from "./campaign.ts";
import { isMutant, type MutantName, MUTANTS } from "./mutants.ts";

const HELP = `deno task model: the core of the replication protocol in random runs

  --runs N          how many (10000)
  --start S         the first seed (1)
  --threads N       how many at once
  --mutant NAME     with one wrong rule, which should be found
  --mutants         finds every one of them
  --list-mutants    what there is
  --json            one document for programs`;

const values = commandLine({
  help: HELP,
  options: {
    runs: { type: "string", default: "10000" },
    start: { type: "string", default: "1" },
    threads: { type: "string", default: String(Math.min(2, navigator.hardwareConcurrency)) },
    mutant: { type: "string" },
    mutants: { type: "boolean", default: false },
    "list-mutants": { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});

function wholeNumber(name: "runs" | "start" | "threads"): number {
  const number = Number(values[name]);
  if (Number.isSafeInteger(number) && number >= 1) return number;
  fail(`--${name} takes a whole number from 1 on, not "${values[name]}"`);
}

const shape = {
  runs: wholeNumber("runs"),
  start: wholeNumber("start"),
  threads: wholeNumber("threads"),
};
const names = Object.keys(MUTANTS) as MutantName[];
if (values["list-mutants"]) {
  for (const name of names) console.log(`${name.padEnd(28)} ${MUTANTS[name]}`);
  Deno.exit(0);
}
if (values.mutant !== undefined && !isMutant(values.mutant)) {
  console.error(`There is no mutant "${values.mutant}": see --list-mutants`);
  Deno.exit(2);
}
const wanted = values.mutants ? names : values.mutant === undefined ? [] : [values.mutant];
if (wanted.length === 0) {
  const result = await runCampaign(shape);
  report(result);
  Deno.exit(result.violations.length === 0 ? 0 : 1);
}
let missed = 0;
for (const mutant of wanted) if (!await hunt(mutant)) missed += 1;
if (!values.json) console.log(`${wanted.length - missed} of ${wanted.length} mutants found`);
Deno.exit(missed === 0 ? 0 : 1);

async function hunt(mutant: MutantName): Promise<boolean> {
  const { runs, violations } = await runCampaign({ ...shape, mutant, stopAtFirst: true });
  const [first] = violations;
  if (values.json) console.log(JSON.stringify({ mutant, runs, first: first ?? null }));
  else {
    const found = first === undefined
      ? `NOT FOUND in ${runs} runs`
      : `seed ${first.seed}, step ${first.step}: ${first.message}`;
    console.log(`${mutant.padEnd(28)} ${found}`);
  }
  return first !== undefined;
}

function report(result: CampaignResult): void {
  const { runs, steps, seconds, stats, violations } = result;
  if (values.json) {
    console.log(JSON.stringify({ ...shape, ...result }));
    return;
  }
  for (const { seed, step, message } of violations) {
    console.log(`seed ${seed}, step ${step}: ${message}`);
    console.log(`  replay: deno task model --start ${seed} --runs 1`);
  }
  console.log(`${runs} runs from ${shape.start}, ${violations.length} violations`);
  for (const [name, count] of Object.entries(stats)) console.log(`  ${name.padEnd(12)} ${count}`);
  const perSecond = (steps / seconds / 1e6).toFixed(1);
  console.log(`${seconds.toFixed(1)} s: ${perSecond} million steps a second`);
}
