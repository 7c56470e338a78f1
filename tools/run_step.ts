/** Running one step of a task: a deno subcommand in a child process, timed. */

export interface StepResult {
  readonly ok: boolean;
  readonly seconds: number;
}

/** Runs `deno <args>` in the repository; what it prints goes where ours does. */
export async function runDeno(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<StepResult> {
  const startedMs = performance.now();
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: [...args],
    env: { DENO_NO_UPDATE_CHECK: "1", ...env },
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn().status;
  return { ok: success, seconds: (performance.now() - startedMs) / 1000 };
}

/** Those of `paths` that exist. */
export async function existing(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    paths.map((path) => Deno.stat(path).then((stat) => stat.isFile || !isEmpty(path), () => false)),
  );
  return paths.filter((_, index) => found[index]);
}

function isEmpty(dir: string): boolean {
  for (const _ of Deno.readDirSync(dir)) return false;
  return true;
}

/** Where the source lies, and where its tests do. */
export const SOURCE = ["main.ts", "proto", "kv", "apps", "web", "roles", "cli", "tools", "bench"];
/** Tests that need no processes, browser or other programs: seconds, not minutes. */
export const QUICK_TESTS = [
  "proto",
  "kv",
  "apps",
  "web",
  "roles",
  "cli",
  "tools",
  "checkers",
  "faults",
  "bench",
]
  .map((name) => `tests/${name}`);
export const TESTS_CONFIG = "tests/deno.json";
