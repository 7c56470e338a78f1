/**
 * PennCloud: webmail, a file drive and accounts on a distributed store of its own, in one program.
 *
 * This file looks at the command line and hands over: to one node (roles/node_process.ts), or to a
 * command, of which `penncloud up` (roles/supervisor.ts) is the first. Each is loaded only when it is
 * asked for, because a cluster is sixteen of these processes on one machine.
 */
import { exitFor } from "./cli/exit_status.ts";
import { asksForNode, runNodeCommand } from "./cli/node_flags.ts";

/** Runs one command line. Resolves with the exit status. */
export async function main(args: readonly string[]): Promise<number> {
  try {
    if (asksForNode(args) && !args.includes("--help")) {
      return await runNodeCommand(args);
    }
    return await (await import("./cli/command_line.ts")).runCommand(args);
  } catch (error) {
    const known = exitFor(error);
    if (known === null) throw error; // a bug of ours: with its stack, and status 1
    for (const line of known.message.split("\n")) console.error(`penncloud: ${line}`);
    return known.status;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
