/**
 * `penncloud kv …`: the store itself, one operation per call.
 *
 * `get` writes the value byte for byte, so `kv put r c --file a` and `kv get r c > b` copy a file.
 */
import { encodeText, type Kv, put, VALUE_BYTES_MAX } from "../kv/kv.ts";
import { type ClusterFlags, openCluster } from "./cluster_flags.ts";
import { DONE, NOT_FOUND, UsageError } from "./exit_status.ts";
import { withKv } from "./kv_session.ts";
import { valueForJson, valueForLine, writeBytes, writeJson, writeLine } from "./output.ts";

const SCAN_LIMIT_DEFAULT = 100;

/** A value from the command line, or from a file where `--file` names one. */
export interface ValueSource {
  readonly value?: string | undefined;
  readonly file?: string | undefined;
}

export interface CellName {
  readonly row: string;
  readonly column: string;
}

export async function kvGet(cell: CellName, flags: ClusterFlags): Promise<number> {
  return await withKv(await openCluster(flags), async (kv) => {
    const found = await kv.get(cell.row, cell.column);
    if (found === null) {
      if (flags.json) writeJson({ ...cell, found: false });
      else console.error(`Not found: row "${cell.row}", column "${cell.column}"`);
      return NOT_FOUND;
    }
    const { version, size, value } = found;
    if (flags.json) writeJson({ ...cell, found: true, version, size, ...valueForJson(value) });
    else await writeBytes(value);
    return DONE;
  });
}

export async function kvPut(
  cell: CellName,
  source: ValueSource,
  flags: ClusterFlags,
): Promise<number> {
  const value = await readValue(source);
  return await withKv(await openCluster(flags), async (kv) => {
    const version = await put(kv, cell.row, cell.column, value);
    if (flags.json) writeJson({ ...cell, applied: true, version });
    return DONE;
  });
}

/** `old: null`: only if the cell does not exist. */
export async function kvCput(
  cell: CellName,
  change: { readonly old: string | null; readonly next: ValueSource },
  flags: ClusterFlags,
): Promise<number> {
  const { row, column } = cell;
  const value = await readValue(change.next);
  return await withKv(await openCluster(flags), async (kv) => {
    const result = await kv.apply({
      row,
      conditions: [
        change.old === null
          ? { column, is: "absent" }
          : { column, is: "value", value: encodeText(change.old) },
      ],
      mutations: [{ kind: "put", column, value }],
    });
    if (flags.json) writeJson({ ...cell, applied: result.applied, version: result.version });
    else if (!result.applied) {
      console.error(
        result.version === 0
          ? `Not applied: row "${row}", column "${column}" does not exist`
          : `Not applied: the value is another one now, at version ${result.version}`,
      );
    }
    return result.applied ? DONE : NOT_FOUND;
  });
}

export async function kvDelete(cell: CellName, flags: ClusterFlags): Promise<number> {
  const { row, column } = cell;
  return await withKv(await openCluster(flags), async (kv) => {
    const result = await kv.apply({
      row,
      conditions: [{ column, is: "present" }],
      mutations: [{ kind: "delete", column }],
    });
    if (flags.json) writeJson({ ...cell, applied: result.applied });
    else if (!result.applied) console.error(`Not found: row "${row}", column "${column}"`);
    return result.applied ? DONE : NOT_FOUND;
  });
}

/** Rows that begin with `prefix`, cell by cell: row, column, version, size and value. */
export async function kvScan(
  prefix: string,
  flags: ClusterFlags & { readonly limit?: number | undefined },
): Promise<number> {
  const limit = flags.limit ?? SCAN_LIMIT_DEFAULT;
  return await withKv(await openCluster(flags), async (kv) => {
    const { cells, more } = await scanCells(kv, prefix, limit);
    if (flags.json) {
      writeJson({
        cells: cells.map(({ value, ...cell }) => ({
          ...cell,
          ...(value === undefined ? { large: true } : valueForJson(value)),
        })),
        more,
      });
      return DONE;
    }
    for (const { row, column, version, size, value } of cells) {
      const shown = value === undefined ? `(${size} bytes)` : valueForLine(value);
      writeLine([escape(row), escape(column), version, size, shown].join("\t"));
    }
    if (more) console.error(`More rows follow: --limit takes more than ${limit}`);
    return DONE;
  });
}

async function scanCells(kv: Kv, prefix: string, limit: number) {
  const cells: (Awaited<ReturnType<Kv["scan"]>>["cells"][number])[] = [];
  let after: { row: string; column: string } | null = null;
  do {
    const page: Awaited<ReturnType<Kv["scan"]>> = await kv.scan({
      prefix,
      limit: Math.min(limit - cells.length, 1000),
      ...(after === null ? {} : { after }),
    });
    cells.push(...page.cells);
    after = page.next;
  } while (after !== null && cells.length < limit);
  return { cells, more: after !== null };
}

async function readValue({ value, file }: ValueSource): Promise<Uint8Array> {
  if ((value === undefined) === (file === undefined)) {
    throw new UsageError("Expected either a VALUE or --file FILE");
  }
  if (file === undefined) return encodeText(value!);
  try {
    const { size } = await Deno.stat(file);
    if (size > VALUE_BYTES_MAX) {
      throw new UsageError(
        `--file ${file}: expected at most ${VALUE_BYTES_MAX} bytes, got ${size}`,
      );
    }
    return await Deno.readFile(file);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`--file ${file}: expected a readable file: ${(error as Error).message}`);
  }
}

/** Tabs and line breaks in a key would look like ours. */
const escape = (key: string): string => JSON.stringify(key).slice(1, -1);
