/**
 * `deno task faults [--seed N] [--duration 2m] [--only kill,pause,…] [--hold 10m] [--backends N]
 * [--history FILE] [--json]`: a campaign from the command line. Prints what struck, what it cost and what was checked. Exit status 1
 * when a guarantee was broken or the cluster did not mend itself, with where everything was kept and
 * how to run it again; 2 for wrong use.
 */
import type { MutantName } from "../../kv/mutant.ts";
import { commandLine, fail } from "../command_line.ts";
import { runCampaign } from "./campaign.ts";
import { eventLine, failureText, resultLines } from "./campaign_text.ts";
import { NEMESES, possibleNemeses } from "./nemeses.ts";
import type { Nemesis } from "./nemesis.ts";
import { WORKLOADS } from "./workloads.ts";

const UNITS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000 };

const HELP = `deno task faults: real processes under real faults, and a check of everything

  --seed N          which faults strike whom (default: random, and printed)
  --duration TIME   for how long, as in 90s, 2m or 1h (default 2m)
  --seconds N       the same in seconds
  --only A,B        only these faults
  --hold TIME       how long each fault holds, instead of what the seed draws
  --backends N      a multiple of three (default 3)
  --history FILE    keeps what clients did and were told, as JSON lines
  --mutant NAME     with a deliberate bug of kv/mutant.ts, which should be found
  --json            one JSON object a line; the last one is the result

faults:
${NEMESES.map(({ name, about }) => `  ${name.padEnd(16)}${about}`).join("\n")}`;

interface Request {
  readonly seed: number;
  readonly durationMs: number;
  readonly backends: number;
  readonly nemeses: readonly Nemesis[];
  readonly json: boolean;
  readonly historyFile?: string;
  readonly mutant?: MutantName;
  readonly holdMs?: number;
}

if (import.meta.main) {
  const request = readRequest(Deno.args);
  const nemeses = await possible(request);
  const again = `deno task faults ${
    Deno.args.some((arg) => arg.startsWith("--seed")) ? "" : `--seed ${request.seed} `
  }${Deno.args.join(" ")}`.trim();
  const say = (line: string) => request.json || console.log(line);
  say(`seed ${request.seed}, ${nemeses.map(({ name }) => name).join(", ")}`);
  const result = await runCampaign({
    ...request,
    nemeses,
    workloads: WORKLOADS,
    onEvent: (event) => request.json ? console.log(JSON.stringify(event)) : say(eventLine(event)),
  });
  if (request.json) console.log(JSON.stringify({ event: "result", again, ...result }));
  else for (const line of resultLines(result)) console.log(line);
  if (result.violations.length > 0) {
    console.error(`\n${failureText(result, again)}`);
    Deno.exit(1);
  }
}

function readRequest(args: readonly string[]): Request {
  const values = commandLine({
    help: HELP,
    args,
    options: {
      seed: { type: "string" },
      duration: { type: "string" },
      seconds: { type: "string" },
      only: { type: "string" },
      hold: { type: "string" },
      backends: { type: "string" },
      history: { type: "string" },
      mutant: { type: "string" },
      json: { type: "boolean" },
    },
  });
  const backends = wholeNumber("backends", values.backends ?? "3");
  if (backends % 3 !== 0) fail(`--backends takes a multiple of three, not ${backends}`);
  const seed = values.seed ?? String(1 + Math.floor(Math.random() * 1_000_000));
  return {
    seed: wholeNumber("seed", seed),
    durationMs: values.seconds === undefined
      ? duration("duration", values.duration ?? "2m")
      : wholeNumber("seconds", values.seconds) * 1_000,
    backends,
    nemeses: chosen(values.only),
    json: values.json ?? false,
    ...(values.hold === undefined ? {} : { holdMs: duration("hold", values.hold) }),
    ...(values.mutant === undefined ? {} : { mutant: knownMutant(values.mutant) }),
    ...(values.history === undefined ? {} : { historyFile: values.history }),
  };
}

function chosen(only: string | undefined): readonly Nemesis[] {
  if (only === undefined) return NEMESES;
  return only.split(",").map((name) => {
    const found = NEMESES.find((nemesis) => nemesis.name === name.trim());
    const names = NEMESES.map((nemesis) => nemesis.name).join(", ");
    return found ?? fail(`There is no fault "${name}"; there are ${names}`);
  });
}

async function possible(request: Request): Promise<readonly Nemesis[]> {
  const { nemeses, leftOut } = await possibleNemeses(request.nemeses);
  for (const line of leftOut) console.error(line);
  return nemeses.length > 0 ? nemeses : fail("None of these faults can be made here");
}

/** A name that nobody asks for would switch nothing on, and a campaign with it would prove nothing. */
function knownMutant(name: string): MutantName {
  const source = Deno.readTextFileSync(new URL("../../kv/mutant.ts", import.meta.url));
  const names = [...source.matchAll(/^ {2}\| "([a-z-]+)"/gm)].map(([, found]) => found!);
  return names.includes(name)
    ? name as MutantName
    : fail(`There is no deliberate bug "${name}"; there are ${names.join(", ")}`);
}

function wholeNumber(name: string, text: string): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number >= 1) return number;
  fail(`--${name} takes a whole number from 1 on, not "${text}"`);
}

function duration(name: string, text: string): number {
  const [, count, unit] = text.match(/^(\d+)([smh])$/) ??
    fail(`--${name} takes a time such as 90s, 2m or 1h, not "${text}"`);
  return Number(count) * UNITS[unit!]!;
}
