/** The command line of `deno task bench`: flags that all benches share, and clear words for wrong ones. */
import { parseArgs } from "node:util";
import type { KeySpread } from "./load/key_choice.ts";

export interface BenchOptions {
  /** Names of peers; those that a bench has no use for are ignored by it. */
  readonly against: readonly string[];
  readonly outstanding: readonly number[];
  readonly valueBytes: readonly number[];
  /** Of each measured run. */
  readonly seconds: number;
  /** Of each system under each load, before anything is measured. */
  readonly warmUpSeconds: number;
  /** How often the systems take turns. */
  readonly rounds: number;
  /** Null: chosen from the size of the values. */
  readonly keyCount: number | null;
  /** Absent: as the bench sees fit. */
  readonly spread?: KeySpread;
  readonly clientProcesses: number;
  /** Whether to show that more client processes give no more. */
  readonly checkClient: boolean;
  /** Of a file that is uploaded. */
  readonly fileBytes: number;
  /** How many things a bench sets up: files of a folder, inboxes, samples. */
  readonly count: number | null;
  /** How long to wait for an idle machine before each run; 0: not at all. */
  readonly idleWaitMs: number;
  /** Where data folders are made. Null: the system's folder for such things. */
  readonly dir: string | null;
  readonly plotsDir: string;
  readonly profile: boolean;
  readonly json: boolean;
}

/** Told to whoever typed it; exit status 2. */
export class UsageError extends Error {}

export const PEERS = ["etcd", "redis", "sketch"] as const;
/** The sketch is a yardstick for who asks for it, not a peer. */
const USUAL_PEERS = ["etcd", "redis"];

export const FLAGS_HELP =
  `  --against A,B      peers to measure beside PennCloud: etcd and redis (default), sketch (a bare
                     write path in Deno, for what the guarantees cost), or none
  --outstanding N,M  requests under way at a time (default 1,64)
  --value N,M        bytes of a value; 1k and 1m are 1024 and 1048576 (default 100)
  --seconds N        length of each measured run (default 3)
  --warm-up N        seconds of each load before the first measured run, for code to be compiled
                     and caches to fill (default 5)
  --rounds N         how often the systems take turns, A B A B (default 3)
  --keys N           different keys (default 10000, fewer for large values)
  --groups all|one   keys spread over all replica groups, or within one
                     (default all; budget: one)
  --clients N        client processes that share the load (default 1)
  --no-check-client  leave out the run that shows that more client processes give no more
  --size BYTES       of an uploaded file, as in 64m or 1g (default 1g)
  --count N          how many: files of the folder, inboxes, kills (default: the bench's own)
  --idle SECONDS     wait so long at most for an idle machine before each run (default 0)
  --dir FOLDER       where data folders are made, so: on which disk (default: the temporary folder)
  --plots FOLDER     where plots are written (default: the current folder)
  --profile          budget: also sample what each process does
  --json             the last line is one JSON object with everything`;

/** @throws {UsageError} */
export function readOptions(
  args: readonly string[],
): { name: string | null; options: BenchOptions } {
  const { values, positionals } = parse(args);
  if (positionals.length > 1) {
    throw new UsageError(`One bench at a time, not ${positionals.join(", ")}`);
  }
  const list = <T>(flag: string, text: string, read: (flag: string, item: string) => T) =>
    text.split(",").map((item) => read(flag, item.trim()));
  return {
    name: positionals[0] ?? null,
    options: {
      against: peers(values.against ?? USUAL_PEERS.join(",")),
      outstanding: list("outstanding", values.outstanding ?? "1,64", wholeNumber),
      valueBytes: list("value", values.value ?? "100", byteCount),
      seconds: positive("seconds", values.seconds ?? "3"),
      warmUpSeconds: positive("warm-up", values["warm-up"] ?? "5"),
      rounds: wholeNumber("rounds", values.rounds ?? "3"),
      keyCount: values.keys === undefined ? null : wholeNumber("keys", values.keys),
      ...(values.groups === undefined ? {} : { spread: groups(values.groups) }),
      clientProcesses: wholeNumber("clients", values.clients ?? "1"),
      checkClient: !values["no-check-client"],
      fileBytes: byteCount("size", values.size ?? "1g"),
      count: values.count === undefined ? null : wholeNumber("count", values.count),
      idleWaitMs: values.idle === undefined ? 0 : positive("idle", values.idle) * 1000,
      dir: values.dir ?? null,
      plotsDir: values.plots ?? ".",
      profile: values.profile ?? false,
      json: values.json ?? false,
    },
  };
}

function parse(args: readonly string[]) {
  const text = { type: "string" } as const, yes = { type: "boolean" } as const;
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        against: text,
        outstanding: text,
        value: text,
        seconds: text,
        "warm-up": text,
        rounds: text,
        keys: text,
        groups: text,
        clients: text,
        "no-check-client": yes,
        size: text,
        count: text,
        idle: text,
        dir: text,
        plots: text,
        profile: yes,
        json: yes,
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function peers(text: string): string[] {
  if (text === "none" || text === "") return [];
  return text.split(",").map((item) => {
    const name = item.trim();
    if ((PEERS as readonly string[]).includes(name)) return name;
    throw new UsageError(`--against takes ${PEERS.join(", ")} or none, not "${name}"`);
  });
}

function groups(text: string): KeySpread {
  if (text === "all" || text === "one") return text;
  throw new UsageError(`--groups takes all or one, not "${text}"`);
}

function wholeNumber(flag: string, text: string): number {
  const number = Number(text);
  if (text !== "" && Number.isSafeInteger(number) && number >= 1) return number;
  throw new UsageError(`--${flag} takes whole numbers from 1 on, not "${text}"`);
}

function positive(flag: string, text: string): number {
  const number = Number(text);
  if (text !== "" && Number.isFinite(number) && number > 0) return number;
  throw new UsageError(`--${flag} takes a number above 0, not "${text}"`);
}

const UNITS: Readonly<Record<string, number>> = { "": 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 };

function byteCount(flag: string, text: string): number {
  const [, digits, unit] = text.toLowerCase().match(/^(\d+)([kmg]?)$/) ?? [];
  const bytes = Number(digits) * UNITS[unit ?? ""]!;
  if (bytes >= 1) return bytes;
  throw new UsageError(`--${flag} takes bytes, as in 100, 64k or 1m, not "${text}"`);
}
