/**
 * `deno task ok`: what has to hold before a commit. Format, lint, types of everything, and the quick
 * tests; all steps run, so that one look shows all that is wrong.
 */
import { existing, QUICK_TESTS, runDeno, SOURCE, TESTS_CONFIG } from "./run_step.ts";

const steps: readonly (readonly [name: string, args: readonly string[]])[] = [
  ["format", ["fmt", "--check", "--quiet"]],
  ["lint", ["lint", "--quiet"]],
  ["check", ["check", "--quiet", ...await existing(SOURCE)]],
  ["check tests", ["check", "--quiet", "--config", TESTS_CONFIG, ...await existing(["tests"])]],
  ["quick tests", [
    "test",
    "-A",
    "--no-check",
    "--quiet",
    "--parallel",
    "--reporter=dot",
    "--config",
    TESTS_CONFIG,
    ...await existing(QUICK_TESTS),
  ]],
];

const lines: string[] = [];
let allOk = true;
for (const [name, args] of steps) {
  const { ok, seconds } = await runDeno(args, { DENO_JOBS: "2" });
  allOk &&= ok;
  lines.push(`${ok ? "ok    " : "FAILED"}  ${name.padEnd(12)} ${seconds.toFixed(1).padStart(5)} s`);
}
console.log(`\n${lines.join("\n")}`);
Deno.exit(allOk ? 0 : 1);
