/**
 * `penncloud --role=ROLE --id=N`: reads the flags of a node's process by hand, because it is the one
 * command of which a cluster runs fifteen at once.
 */
import { Role, ROLES } from "../proto/cluster_config.ts";
import { loadConfig } from "../roles/config_file.ts";
import { runNode } from "../roles/node_process.ts";
import { nearestWord } from "../roles/nearest_word.ts";
import { UsageError } from "./exit_status.ts";

const FLAGS = ["role", "id", "config", "data", "port-offset"] as const;
type Flag = typeof FLAGS[number];

/** Runs the node until something ends it. Resolves with the exit status. */
export async function runNodeCommand(args: readonly string[]): Promise<number> {
  const flags = readFlags(args);
  const role = Role.safeParse(flags.get("role"));
  if (!role.success) throw badValue("role", `one of ${ROLES.join(", ")}`, flags.get("role"));
  const loaded = await loadConfig({
    path: flags.get("config"),
    dataDir: flags.get("data"),
    portOffset: flags.has("port-offset") ? wholeNumber(flags, "port-offset") : 0,
  });
  return await runNode(loaded, { role: role.data, id: wholeNumber(flags, "id") });
}

/** Takes `--flag=value` and `--flag value`. */
export function readFlags(args: readonly string[]): Map<Flag, string> {
  const flags = new Map<Flag, string>();
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    const [, name = "", attached] = arg.match(/^--([a-z-]+)(?:=(.*))?$/s) ?? [];
    const flag = FLAGS.find((known) => known === name);
    if (flag === undefined) {
      const near = nearestWord(name, FLAGS);
      const hint = near === null
        ? `expected ${FLAGS.map((known) => `--${known}`).join(", ")}`
        : `did you mean --${near}?`;
      throw new UsageError(`Unknown argument "${arg}" beside --role: ${hint}`);
    }
    const value = attached ?? args[++i];
    if (value === undefined || value === "") throw badValue(flag, "a value", undefined);
    flags.set(flag, value);
  }
  return flags;
}

function wholeNumber(flags: ReadonlyMap<Flag, string>, flag: Flag): number {
  const text = flags.get(flag);
  if (text !== undefined && /^\d{1,5}$/.test(text)) return Number(text);
  throw badValue(flag, "a whole number", text);
}

function badValue(flag: Flag, expected: string, got: string | undefined): UsageError {
  return new UsageError(`--${flag}: expected ${expected}, got ${got ?? "nothing"}`);
}
