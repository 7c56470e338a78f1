/**
 * PennCloud: webmail, a file drive and accounts on a distributed store of its own, in one program.
 *
 * This file looks at the command line and hands over: to one node (roles/node_process.ts), or to a
 * command, of which `penncloud up` (roles/supervisor.ts) is the first. Each is loaded only when it is
 * asked for, because a cluster is sixteen of these processes on one machine.
 */
import { exitFor } from "./cli/exit_status.ts";
import { importLater } from "./roles/import_later.ts";

const loadNode = () =>
  importLater<typeof import("./cli/node_flags.ts")>("./cli/node_flags.ts", import.meta.url);
const loadCommands = () =>
  importLater<typeof import("./cli/command_line.ts")>("./cli/command_line.ts", import.meta.url);

/** Runs one command line. Resolves with the exit status. */
export async function main(args: readonly string[]): Promise<number> {
  const startsNode = args.some((arg) => arg === "--role" || arg.startsWith("--role="));
  try {
    if (startsNode && !args.includes("--help")) {
      return await (await loadNode()).runNodeCommand(args);
    }
    return await (await loadCommands()).runCommand(args);
  } catch (error) {
    const known = exitFor(error);
    if (known === null) throw error; // a bug of ours: with its stack, and status 1
    for (const line of known.message.split("\n")) console.error(`penncloud: ${line}`);
    return known.status;
  }
}

if (import.meta.main) {
  // A compiled program brings its pages; the frontends must not try to bundle them from sources.
  if (Deno.build.standalone) {
    Deno.env.set("PENNCLOUD_ASSETS", new URL("./web/dist", import.meta.url).pathname);
  }
  Deno.exit(await main(Deno.args));
}
