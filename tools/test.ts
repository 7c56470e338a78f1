/**
 * `deno task test`: every test, in stages, closing with one plain line `N passed, N failed`.
 *
 * Two files run at a time, but for those that start browsers or other programs: they run alone. A
 * stage that fails does not keep the next from running. Arguments name stages:
 * `deno task test cluster browser`.
 *
 * A busy machine can keep a browser or a process from answering in time. So files with real processes
 * that failed run once more, alone and loudly, and the second word counts; unless what failed is a
 * guarantee of the store (`BROKEN_GUARANTEE`): that is never the machine's fault.
 */
import { existing, QUICK_TESTS, runDeno, SOURCE, TESTS_CONFIG } from "./run_step.ts";

interface Stage {
  readonly name: string;
  readonly paths: readonly string[];
  readonly parallel: boolean;
  /** Real processes, which a busy machine can keep waiting. */
  readonly processes: boolean;
}

const STAGES: readonly Stage[] = [
  { name: "quick", paths: QUICK_TESTS, parallel: true, processes: false },
  { name: "model", paths: ["tests/model"], parallel: true, processes: false },
  { name: "sim", paths: ["tests/sim"], parallel: true, processes: false },
  { name: "cluster", paths: ["tests/cluster"], parallel: true, processes: true },
  { name: "interop", paths: ["tests/interop"], parallel: false, processes: true },
  { name: "browser", paths: ["tests/browser"], parallel: false, processes: true },
];

/** What tests say when the store did what it must never do. */
const BROKEN_GUARANTEE = /GUARANTEE BROKEN/;

interface Counts {
  passed: number;
  failed: number;
}

const wanted = Deno.args;
const unknown = wanted.filter((name) =>
  ![...STAGES, { name: "check" }].some((s) => s.name === name)
);
if (unknown.length > 0) {
  console.error(
    `Unknown stage "${unknown[0]}": expected check, ${
      STAGES.map((stage) => stage.name).join(", ")
    }`,
  );
  Deno.exit(2);
}

const total: Counts = { passed: 0, failed: 0 };
const lines: string[] = [];
if (wanted.length === 0 || wanted.includes("check")) await checkTypes();
for (const stage of STAGES) {
  if (wanted.length === 0 || wanted.includes(stage.name)) await runStage(stage);
}
console.log(`\n${lines.join("\n")}\n`);
console.log(`${total.passed} passed, ${total.failed} failed`);
Deno.exit(total.failed === 0 ? 0 : 1);

async function checkTypes(): Promise<void> {
  const source = await runDeno(["check", "--quiet", ...await existing(SOURCE)]);
  const tests = await runDeno(["check", "--quiet", "--config", TESTS_CONFIG, "tests"]);
  const failed = Number(!source.ok) + Number(!tests.ok);
  count("check", { passed: 2 - failed, failed }, source.seconds + tests.seconds);
}

async function runStage({ name, paths, parallel, processes }: Stage): Promise<void> {
  const found = await existing(paths);
  if (found.length === 0) return;
  console.log(`\n== ${name}: ${found.join(" ")}`);
  const first = await runFiles(found, parallel);
  let { counts, seconds } = first;
  const again = processes ? repeatable(first.report) : [];
  if (again.length > 0) {
    console.log(`\n== ${name}: failed, once more: ${again.join(" ")}`);
    const second = await runFiles(again, false);
    counts = {
      passed: counts.passed + counts.failed - second.counts.failed,
      failed: second.counts.failed,
    };
    seconds += second.seconds;
    if (second.counts.failed === 0) {
      lines.push(`UNSTEADY: failed at first, then passed: ${again.join(" ")}`);
    }
  }
  count(name, counts, seconds);
}

interface StageRun {
  readonly counts: Counts;
  readonly seconds: number;
  /** JUnit's. */
  readonly report: string;
}

async function runFiles(files: readonly string[], parallel: boolean): Promise<StageRun> {
  const path = await Deno.makeTempFile({ suffix: ".xml" });
  try {
    const { ok, seconds } = await runDeno(
      [
        "test",
        "-A",
        "--no-check",
        ...(parallel ? ["--parallel"] : []),
        `--junit-path=${path}`,
        "--config",
        TESTS_CONFIG,
        ...files,
      ],
      { NO_COLOR: "1", DENO_JOBS: "2" },
    );
    const report = await Deno.readTextFile(path);
    const counts = readCounts(report);
    // A file that cannot even be loaded leaves no failed test behind, and is one all the same.
    if (!ok && counts.failed === 0) counts.failed = 1;
    return { counts, seconds, report };
  } finally {
    await Deno.remove(path);
  }
}

/** The files with failures, if running them again may tell anything; none when a guarantee broke. */
function repeatable(report: string): string[] {
  const failures = [
    ...report.matchAll(/<testcase [^>]*classname="([^"]*)"[^>]*>\s*<failure[\s\S]*?<\/failure>/g),
  ];
  if (failures.some(([text]) => BROKEN_GUARANTEE.test(text))) return [];
  return [...new Set(failures.map(([, file]) => file!))];
}

function count(name: string, counts: Counts, seconds: number): void {
  total.passed += counts.passed;
  total.failed += counts.failed;
  const figures = `${counts.passed} passed, ${counts.failed} failed`;
  lines.push(`${name.padEnd(8)} ${figures.padEnd(24)} ${seconds.toFixed(0).padStart(4)} s`);
}

/** From the attributes of JUnit's outermost element. */
function readCounts(report: string): Counts {
  const attributes = report.match(/<testsuites[^>]*>/)?.[0] ?? "";
  const number = (name: string) =>
    Number(attributes.match(new RegExp(` ${name}="(\\d+)"`))?.[1] ?? 0);
  const failed = number("failures") + number("errors");
  const skipped = (report.match(/<skipped/g) ?? []).length;
  return { passed: number("tests") - failed - skipped, failed };
}
