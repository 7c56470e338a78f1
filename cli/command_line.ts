/**
 * The command line: every command and flag of `penncloud`, and which module does the work.
 *
 * `--role` is not here but in node_flags.ts: nodes are started by the dozen, and commander would cost
 * each of them some megabytes.
 */
import { Command, CommanderError, InvalidArgumentError } from "@commander-js/extra-typings";
import metadata from "../deno.json" with { type: "json" };
import { type Role, ROLES } from "../proto/cluster_config.ts";
import { PROTOCOL_VERSION } from "../proto/version.ts";
import { importLater } from "../roles/import_later.ts";
import type { NodeOrder } from "./admin.ts";
import type { ClusterFlags } from "./cluster_flags.ts";
import { DONE, WRONG_USE } from "./exit_status.ts";

const STATUS_HELP = `
Exit status: 0 done, 1 not found or compare failed, 2 wrong use, 3 store unavailable.`;

/** Runs one command. Resolves with the exit status; throws what the command throws. */
export async function runCommand(args: readonly string[]): Promise<number> {
  let status = DONE;
  try {
    await commandLine((ended) => status = ended).parseAsync([...args], { from: "user" });
    return status;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Commander has printed its own message; asking for help or the version is no mistake.
    return error.exitCode === 0 ? DONE : WRONG_USE;
  }
}

function commandLine(end: (status: number) => void): Command {
  const program = new Command("penncloud")
    .description("A small cloud for mail and files on your own machines.")
    .version(
      `penncloud ${metadata.version} (protocol ${PROTOCOL_VERSION})`,
      "-V, --version",
      "print the version",
    )
    .helpOption("-h, --help", "explain a command")
    .showHelpAfterError("Try --help.")
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error:/, "penncloud:")) })
    .exitOverride()
    .addHelpText(
      "after",
      `
One node in the foreground:
  penncloud --role=ROLE --id=N   ROLE is ${ROLES.join(", ")}
${STATUS_HELP}`,
    );

  clusterFlags(program.command("up"))
    .description("start every node that the configuration places on this host, and watch them")
    .option(
      "--only <roles>",
      `start just these, separated by commas: ${ROLES.join(", ")}`,
      roleList,
    )
    .option("--host <names>", "take these for this host's names in the configuration", nameList)
    .action(async (flags) => {
      const { loadConfig } = await importLater<typeof import("../roles/config_file.ts")>(
        "../roles/config_file.ts",
        import.meta.url,
      );
      const { up } = await importLater<typeof import("../roles/supervisor.ts")>(
        "../roles/supervisor.ts",
        import.meta.url,
      );
      const { only = [], host: hosts = [], portOffset = 0, json = false } = flags;
      const loaded = await loadConfig({ path: flags.config, dataDir: flags.data, portOffset });
      end(await up({ loaded, portOffset, only, hosts, json }));
    });

  addAdminCommands(program, end);
  addUserCommands(program, end);
  addKvCommands(program, end);
  return program as unknown as Command;
}

const loadAdmin = () => importLater<typeof import("./admin.ts")>("./admin.ts", import.meta.url);
const loadSalvage = () =>
  importLater<typeof import("./wal_salvage.ts")>("./wal_salvage.ts", import.meta.url);
const loadUser = () => importLater<typeof import("./user.ts")>("./user.ts", import.meta.url);
const loadKv = () => importLater<typeof import("./kv.ts")>("./kv.ts", import.meta.url);

function addAdminCommands(program: Command<[]>, end: (status: number) => void): void {
  const admin = program.command("admin").description("look at the cluster and operate it");
  clusterFlags(admin.command("status"))
    .description("nodes and tablets")
    .action(async (flags) => end(await (await loadAdmin()).adminStatus(flags)));
  clusterFlags(admin.command("tablets"))
    .description("tablets: range, epoch, primary, secondaries, size")
    .action(async (flags) => end(await (await loadAdmin()).adminTablets(flags)));
  for (
    const [kind, description] of [
      ["split", "make a boundary between two tablets at a key; it stays until it is merged away"],
      ["merge", "merge the tablet that begins at a key into the one before it"],
    ] as const
  ) {
    clusterFlags(admin.command(kind))
      .description(description)
      .argument("<key>", "a row key")
      .action(async (key, flags) => end(await (await loadAdmin()).adminReshape(kind, key, flags)));
  }
  clusterFlags(admin.command("move"))
    .description(
      "give a tablet to another group while the cluster runs, and wait until it is there",
    )
    .argument("<tablet>", "as in `admin tablets`: 3.1")
    .argument("<group>", "a group's number: 5")
    .action(async (tablet, group, flags) =>
      end(await (await loadAdmin()).adminMove({ tablet, group }, flags))
    );
  const orders: [NodeOrder, string][] = [
    ["kill", "end a node with SIGKILL; it stays down"],
    ["restart", "start a node, ending it in good order first if it runs"],
    ["drain", "let a node hand over its work, then stop it"],
  ];
  for (const [order, description] of orders) {
    clusterFlags(admin.command(order))
      .description(description)
      .argument("<node>", "its port, or its name as in backend/3")
      .action(async (node, flags) => end(await (await loadAdmin()).adminOrder(order, node, flags)));
  }
  clusterFlags(admin.command("rows"))
    .description("the raw rows that a backend holds, page by page")
    .argument("<node>", "its port, or its name as in backend/3")
    .option("--start <key>", "first row wanted")
    .option("--limit <n>", "cells on the page, 1 to 500", numberWithin(1, 500))
    .action(async (node, flags) => end(await (await loadAdmin()).adminRows(node, flags)));
  clusterFlags(admin.command("verify"))
    .description(
      "read all that is stored again and compare all replicas; exit status 1 on damage or difference",
    )
    .action(async (flags) => end(await (await loadAdmin()).adminVerify(flags)));
  clusterFlags(admin.command("recover-meta"))
    .description("make the coordinator's records anew from all backends, which must be running")
    .action(async (flags) => end(await (await loadAdmin()).adminRecoverMeta(flags)));
  clusterFlags(admin.command("force-primary"))
    .description("let a backend lead a group whose complete copies are gone for good")
    .argument("<group>", "its number, as in `admin tablets`: 3 for tablet 3.1")
    .argument("<node>", "its port, or its name as in backend/3")
    .option("--accept-data-loss", "what this backend lacks is given up for ever")
    .action(async (group, target, { acceptDataLoss = false, ...flags }) =>
      end(
        await (await loadAdmin()).adminForcePrimary({ group, target, acceptDataLoss }, flags),
      )
    );
  clusterFlags(admin.command("wal-salvage"))
    .description(
      "what can be saved of a stopped backend's damaged folder, when no other complete copy is left",
    )
    .argument("<node>", "its port, or its name as in backend/3; run it on the node's host")
    .option("--accept-data-loss", "write: keep what can be kept, put the damaged files aside")
    .addHelpText(
      "after",
      `
Without the flag nothing is written; exit status 1 says that there is something to salvage.`,
    )
    .action(async (target, { acceptDataLoss = false, ...flags }) =>
      end(await (await loadSalvage()).walSalvage({ target, acceptDataLoss }, flags))
    );
}

function addUserCommands(program: Command<[]>, end: (status: number) => void): void {
  const user = program.command("user").description("accounts");
  clusterFlags(user.command("add"))
    .description("make an account")
    .argument("<name>")
    .option("--admin", "make it an administrator")
    .option("--password-stdin", "take the password from standard input")
    .action(async (name, flags) => end(await (await loadUser()).userAdd(name, flags)));
  clusterFlags(user.command("passwd"))
    .description("set a new password and end the account's sessions")
    .argument("<name>")
    .option("--password-stdin", "take the password from standard input")
    .action(async (name, flags) => end(await (await loadUser()).userPasswd(name, flags)));
  clusterFlags(user.command("admin"))
    .description("make an account an administrator")
    .argument("<name>")
    .option("--revoke", "take the right away again")
    .action(async (name, flags) => end(await (await loadUser()).userAdmin(name, flags)));
  clusterFlags(user.command("list"))
    .description("all accounts")
    .action(async (flags) => end(await (await loadUser()).userList(flags)));
}

function addKvCommands(program: Command<[]>, end: (status: number) => void): void {
  const kv = program.command("kv").description("the store itself").addHelpText(
    "after",
    STATUS_HELP,
  );
  const file = ["--file <file>", "take the value from a file"] as const;
  clusterFlags(kv.command("get"))
    .description("write the value of a cell to standard output, byte for byte")
    .argument("<row>").argument("<column>")
    .action(async (row, column, flags) =>
      end(await (await loadKv()).kvGet({ row, column }, flags))
    );
  clusterFlags(kv.command("put"))
    .description("write a cell, whatever was there")
    .argument("<row>").argument("<column>").argument("[value]").option(...file)
    .action(async (row, column, value, flags) =>
      end(await (await loadKv()).kvPut({ row, column }, { ...flags, value }, flags))
    );
  clusterFlags(kv.command("cput"))
    .description("write a cell if its value is OLD")
    .argument("<row>").argument("<column>")
    .argument("<old>", "the value that must be there; with --absent, the new value")
    .argument("[new]").option(...file)
    .option("--absent", "only if the cell does not exist: kv cput --absent ROW COLUMN NEW")
    .action(async (row, column, first, second, { absent, ...flags }) => {
      const old = absent ? null : first;
      const value = absent && flags.file === undefined ? first : second;
      const change = { old, next: { file: flags.file, value } };
      end(await (await loadKv()).kvCput({ row, column }, change, flags));
    });
  clusterFlags(kv.command("delete"))
    .description("delete a cell")
    .argument("<row>").argument("<column>")
    .action(async (row, column, flags) =>
      end(await (await loadKv()).kvDelete({ row, column }, flags))
    );
  clusterFlags(kv.command("scan"))
    .description("list the cells of rows that begin with PREFIX")
    .argument("<prefix>").option("--limit <n>", "cells, default 100", numberWithin(1, 1_000_000))
    .action(async (prefix, flags) => end(await (await loadKv()).kvScan(prefix, flags)));
}

/** The flags that every command takes. */
function clusterFlags(command: Command<[]>): Command<[], ClusterFlags> {
  return command
    .option(
      "--config <file>",
      "cluster.toml to use; default: ./cluster.toml, else the built-in one",
    )
    .option("--data <dir>", "folder of the cluster's data; default: as the configuration says")
    .option("--port-offset <n>", "add this to every port", numberWithin(0, 65_535))
    .option("--json", "answer in JSON, for scripts") as unknown as Command<[], ClusterFlags>;
}

function numberWithin(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
  };
}

function roleList(text: string): Role[] {
  return nameList(text).map((name) => {
    const role = ROLES.find((known) => known === name);
    if (role !== undefined) return role;
    throw new InvalidArgumentError(`Expected roles out of ${ROLES.join(", ")}, got "${name}".`);
  });
}

const nameList = (text: string): string[] => text.split(",").map((name) => name.trim());
