/**
 * `deno task compile`: the whole program as one file, `dist/penncloud`.
 *
 * With `deno compile` where its base binary can be downloaded. Elsewhere it says so and makes a shell
 * script that carries Deno, the bundled program and the pages, and unpacks itself at its first start
 * (single_file.ts). Both are run once before this reports success.
 *
 *     deno task compile [--single-file]     --single-file: do not even try `deno compile`
 */
import { existing } from "./run_step.ts";
import { buildSingleFile } from "./single_file.ts";
import { findHiddenModules } from "./find_modules.ts";

const OUTPUT = "dist/penncloud";
const COMPILE_TIMEOUT_MS = 180_000;

await Deno.mkdir("dist", { recursive: true });
const { ensureBuilt } = await import("../web/build.ts");
await ensureBuilt();
const compiled = !Deno.args.includes("--single-file") && await compile();
if (!compiled) await buildSingleFile(OUTPUT);
const { size } = await Deno.stat(OUTPUT);
console.log(`${OUTPUT}: ${await versionOf(OUTPUT)}, ${(size / 2 ** 20).toFixed(1)} MiB`);

/** False, with the reason printed, when the base binary is not to be had. */
async function compile(): Promise<boolean> {
  const { workers, later } = await findHiddenModules();
  const includes = await existing(["web/dist", ...workers, ...later]);
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "compile",
      "--allow-all",
      "--no-check",
      "--v8-flags=--max-semi-space-size=2,--single-threaded-gc",
      ...includes.flatMap((path) => ["--include", path]),
      "--output",
      OUTPUT,
      "main.ts",
    ],
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "inherit",
    stderr: "piped",
    signal: AbortSignal.timeout(COMPILE_TIMEOUT_MS),
  }).output();
  if (success) return true;
  const reason = new TextDecoder().decode(stderr).split("\n").filter((line) =>
    /error|:/.test(line)
  );
  console.error(`deno compile does not work here (its base binary could not be downloaded?):`);
  for (const line of reason.slice(0, 6)) console.error(`    ${line.trim()}`);
  console.error("Making the self-extracting file instead.");
  return false;
}

async function versionOf(program: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args: ["--version"] })
    .output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  if (!success) throw new Error(`${program} --version failed: ${text(stderr)}`);
  return text(stdout);
}
