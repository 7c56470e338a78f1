/** Flags of the tests' own commands: the same manners for all of them. */
import { parseArgs, type ParseArgsOptionsConfig } from "node:util";

/**
 * The values of `options` on the command line. `--help` prints `help` and ends well; what is not known
 * is said, and ends with status 2.
 */
export function commandLine<const Options extends ParseArgsOptionsConfig>(
  { help, options, args = Deno.args }: {
    help: string;
    options: Options;
    args?: readonly string[];
  },
) {
  try {
    const known = { ...options, help: { type: "boolean" } } as const;
    const { values } = parseArgs({ args: [...args], options: known });
    if ((values as { help?: boolean }).help !== true) return values;
  } catch (error) {
    fail(`${(error as Error).message}\n\n${help}`);
  }
  console.log(help);
  Deno.exit(0);
}

export function fail(message: string): never {
  console.error(message);
  Deno.exit(2);
}
