/**
 * Reads `cluster.toml` and tells people what is wrong with it.
 *
 * The schema is proto/cluster_config.ts; this file adds what a schema cannot know: where in the file a
 * setting stands, what a mistyped key was meant to be, and which ports collide. Every problem is one
 * sentence that names file, key and expectation:
 *
 *     cluster.toml: store.lease_ms: expected at least 100, got 5 (line 40)
 *
 * With no `--config` and no cluster.toml in the working folder, the nine-backend cluster that is part
 * of the program is used, so the compiled file runs from anywhere.
 */
import { basename, dirname, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import { z } from "zod";
import builtInText from "../cluster.toml" with { type: "text" };
import { ClusterConfig, opsPort, withPortOffset } from "../proto/cluster_config.ts";
import { nearestWord } from "./nearest_word.ts";

/** `--config built-in` asks for the configuration inside the program by name. */
export const BUILT_IN_CONFIG = "built-in";

/** At most this many problems are listed; mending the first ones often mends the rest. */
const PROBLEMS_MAX = 10;

export interface LoadedConfig {
  /** With the port offset added. */
  readonly config: ClusterConfig;
  /** Absolute path of the file, or BUILT_IN_CONFIG. */
  readonly source: string;
  /** Absolute path of the cluster's folder on this host. */
  readonly clusterDir: string;
}

export interface ConfigRequest {
  /** `--config`. Default: cluster.toml in the working folder, else the built-in one. */
  readonly path?: string | undefined;
  /** `--data`; relative to the working folder, not to the file. */
  readonly dataDir?: string | undefined;
  readonly portOffset?: number | undefined;
}

/** What is wrong with a configuration, or with the flags that choose it. Exit status 2. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  constructor(readonly problems: readonly string[]) {
    super(problems.join("\n"));
  }
}

/** @throws {ConfigError} the file is missing, is not TOML, or does not describe a cluster */
export async function loadConfig(request: ConfigRequest): Promise<LoadedConfig> {
  const { source, text } = await readSource(request.path);
  const file = source === BUILT_IN_CONFIG ? "built-in cluster.toml" : basename(source);
  const parsed = parseConfig(text, file);
  const portOffset = request.portOffset ?? 0;
  const config = withPortOffset(parsed, portOffset);
  const problems = portProblems(config, file, portOffset);
  if (problems.length > 0) throw new ConfigError(problems);
  const base = source === BUILT_IN_CONFIG ? Deno.cwd() : dirname(source);
  const inFolder = (path: string) => path === "" ? "" : resolve(base, path);
  return {
    config: {
      ...config,
      mail: {
        ...config.mail,
        tls_cert: inFolder(config.mail.tls_cert),
        tls_key: inFolder(config.mail.tls_key),
      },
    },
    source,
    clusterDir: request.dataDir === undefined
      ? resolve(base, config.cluster.data)
      : resolve(request.dataDir),
  };
}

/** The pure part of `loadConfig`: TOML text to a checked configuration. */
export function parseConfig(text: string, file: string): ClusterConfig {
  let data: unknown;
  try {
    data = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const reason = error.message.replace(/^Invalid TOML document: /, "").split("\n")[0]!;
    throw new ConfigError([
      `${file}:${error.line}:${error.column}: not valid TOML: ${reason}: ${
        quoteLine(text, error.line)
      }`,
    ]);
  }
  const result = ClusterConfig.safeParse(data);
  if (result.success) return result.data;
  const problems = result.error.issues.flatMap((issue) => describeIssue(issue, data))
    .map(({ path, sentence }) => {
      const line = lineOf(text, path);
      return `${file}: ${pathText(path)}${sentence}${line === null ? "" : ` (line ${line})`}`;
    });
  if (problems.length > PROBLEMS_MAX) {
    const more = problems.length - PROBLEMS_MAX;
    problems.splice(PROBLEMS_MAX, more, `${file}: and ${more} more`);
  }
  throw new ConfigError(problems);
}

async function readSource(path: string | undefined): Promise<{ source: string; text: string }> {
  if (path === BUILT_IN_CONFIG) return { source: BUILT_IN_CONFIG, text: builtInText };
  const source = resolve(path ?? "cluster.toml");
  try {
    return { source, text: await Deno.readTextFile(source) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound && path === undefined) {
      return { source: BUILT_IN_CONFIG, text: builtInText };
    }
    const reason = error instanceof Deno.errors.NotFound
      ? "there is no such file"
      : (error as Error).message;
    throw new ConfigError([`--config ${path ?? source}: expected a readable file: ${reason}`]);
  }
}

type Path = readonly PropertyKey[];
interface Problem {
  readonly path: Path;
  readonly sentence: string;
}

function describeIssue(issue: z.core.$ZodIssue, data: unknown): Problem[] {
  const { path } = issue;
  if (issue.code === "unrecognized_keys") {
    const known = keysAt(path);
    return issue.keys.map((key) => {
      const near = nearestWord(key, known);
      const hint = near === null
        ? `expected one of ${known.join(", ")}`
        : `did you mean "${near}"?`;
      return { path: [...path, key], sentence: `unknown key, ${hint}` };
    });
  }
  return [{ path, sentence: `expected ${expectation(issue)}, got ${shown(valueAt(data, path))}` }];
}

const TYPE_NAMES: Record<string, string> = {
  int: "a whole number",
  number: "a number",
  string: "text in quotes",
  boolean: "true or false",
  array: "a list",
  object: "a table",
};

function expectation(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return TYPE_NAMES[issue.expected] ?? issue.expected;
    case "too_small":
      if (issue.origin === "string") return "text that is not empty";
      if (issue.origin === "array") return `at least ${issue.minimum} of them`;
      return `at least ${issue.minimum}`;
    case "too_big":
      if (issue.origin === "string") return `at most ${issue.maximum} characters`;
      return `at most ${issue.maximum}`;
    case "invalid_value":
      return issue.values.map((value) => JSON.stringify(value)).join(" or ");
    default:
      return issue.message; // the schema's own messages are phrased as what is expected
  }
}

function valueAt(data: unknown, path: Path): unknown {
  let value = data;
  for (const key of path) value = (value as Record<PropertyKey, unknown> | undefined)?.[key];
  return value;
}

function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return `${value.length} of them`;
  if (typeof value === "object" && value !== null) return "a table";
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

function pathText(path: Path): string {
  const text = path.map((key) => typeof key === "number" ? `[${key}]` : `.${String(key)}`).join("");
  return text === "" ? "" : `${text.slice(1)}: `;
}

/** The keys that the schema knows at `path`, looking through defaults and lists. */
function keysAt(path: Path): string[] {
  let schema: z.core.$ZodType | undefined = ClusterConfig;
  for (const key of [...path, null]) {
    while (schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault) {
      schema = schema.def.innerType;
    }
    if (key === null) break;
    if (schema instanceof z.ZodObject) schema = schema.shape[String(key)];
    else if (schema instanceof z.ZodArray) schema = schema.element;
  }
  return schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
}

/** Where a setting stands, for files written in the plain way: `[table]`, `[[node]]`, `key = value`. */
function lineOf(text: string, path: Path): number | null {
  const [table, second] = path;
  const wantedCount = typeof second === "number" ? second + 1 : 1;
  const key = path.at(-1);
  let count = 0, headerLine: number | null = null;
  for (const [index, line] of text.split("\n").entries()) {
    const header = line.match(/^\s*\[\[?\s*([\w-]+)\s*\]\]?/);
    if (header !== null) {
      if (count === wantedCount) break;
      if (header[1] === table && ++count === wantedCount) headerLine = index + 1;
    } else if (count === wantedCount && typeof key === "string") {
      if (line.match(/^\s*([\w-]+)\s*=/)?.[1] === key) return index + 1;
    }
  }
  return headerLine;
}

const quoteLine = (text: string, line: number): string =>
  JSON.stringify((text.split("\n")[line - 1] ?? "").trim().slice(0, 80));

/** Ports that the schema cannot see: those made by the offset, and the ops ports beside the others. */
function portProblems(config: ClusterConfig, file: string, portOffset: number): string[] {
  const problems: string[] = [];
  const taken = new Map<string, string>();
  let highestPort = 0;
  const claim = (host: string, port: number, what: string) => {
    highestPort = Math.max(highestPort, port);
    const other = taken.get(`${host}:${port}`);
    if (other !== undefined && other !== what) {
      problems.push(
        `${file}: ${what}: expected a port that nothing else uses, got ${port}, also used by ${other}`,
      );
    }
    taken.set(`${host}:${port}`, what);
  };
  for (const node of config.node) {
    const name = `${node.role}/${node.id}`;
    claim(node.host, node.port, name);
    if (opsPort(node) !== node.port) claim(node.host, opsPort(node), `the ops port of ${name}`);
    if (node.role !== "mail") continue;
    if (node.port !== config.mail.smtp_port) {
      problems.push(
        `${file}: ${name}: expected its port to be mail.smtp_port (${config.mail.smtp_port}), got ${node.port}`,
      );
    }
    claim(node.host, config.mail.submission_port, "mail.submission_port");
    claim(node.host, config.mail.submissions_port, "mail.submissions_port");
  }
  for (const host of new Set(config.node.map((node) => node.host))) {
    const { supervisor_port: port } = config.cluster;
    claim(host, port, "cluster.supervisor_port");
    claim(host, port + 1000, "the ops port of the supervisor");
  }
  if (highestPort > 65_535) {
    const highest = 65_535 - (highestPort - portOffset);
    problems.unshift(
      portOffset === 0
        ? `${file}: expected ports of at most 65535, ops ports included, got ${highestPort}`
        : `--port-offset: expected at most ${highest}, got ${portOffset}`,
    );
  }
  return problems.slice(0, PROBLEMS_MAX);
}
