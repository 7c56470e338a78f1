/**
 * A drive over `MemoryKv` with a clock of its own, for the tests of apps/drive/, and the check that
 * a drive's rows are sound: one place per item, no orphan, no ring, counters that agree, and every
 * chunk row owned by exactly one file, upload or garbage record.
 */
import assert from "node:assert/strict";
import { chunkCount, chunkRow } from "../../../apps/drive/chunks.ts";
import { Drive } from "../../../apps/drive/drive.ts";
import { decodeItem, ROOT, TRASH } from "../../../apps/drive/items.ts";
import { rowOf } from "../../../apps/drive/tree.ts";
import type { Env } from "../../../kv/env.ts";
import { decodeJson, decodeText, type Kv, type ScanPage } from "../../../kv/kv.ts";
import { MemoryKv, type MemoryKvOptions } from "../../../kv/memory_kv.ts";
import { ClusterConfig } from "../../../proto/cluster_config.ts";

export const CHUNK = 64 * 1024;
export const USER = "alice";

/** A seeded world: time moves only when told, sleeping lets other work go first. */
export class TestEnv implements Env {
  nowMs = Date.UTC(2030, 0, 1);
  #seed: number;
  constructor(seed = 1) {
    this.#seed = seed;
  }
  monotonicMs = () => this.nowMs;
  wallMs = () => this.nowMs;
  random(): number {
    this.#seed = (Math.imul(this.#seed, 1664525) + 1013904223) >>> 0;
    return this.#seed / 2 ** 32;
  }
  secretBytes = (count: number) =>
    Uint8Array.from({ length: count }, () => Math.floor(this.random() * 256));
  sleep = (_ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      setTimeout(resolve, 0);
    });
  timer = () => () => {};
  onBeat = () => () => {};
  log = () => {};
  fatal(error: unknown): never {
    throw error;
  }
}

export interface Fixture {
  readonly kv: Kv;
  readonly env: TestEnv;
  readonly config: ClusterConfig;
  readonly drive: Drive;
}

export function makeDrive(
  options: MemoryKvOptions & {
    readonly kv?: Kv;
    readonly seed?: number;
    readonly drive?: Partial<ClusterConfig["drive"]>;
  } = {},
): Fixture {
  const { seed = 1 } = options;
  const env = new TestEnv(seed);
  const { kv = new MemoryKv({ env, ...options }) } = options;
  const parsed = ClusterConfig.parse({
    node: [
      { role: "coordinator", id: 0, port: 9999 },
      { role: "backend", id: 0, port: 10000 },
      { role: "backend", id: 1, port: 10001 },
      { role: "backend", id: 2, port: 10002 },
    ],
  });
  const config = { ...parsed, drive: { ...parsed.drive, chunk_bytes: CHUNK, ...options.drive } };
  return { kv, env, config, drive: new Drive({ kv, env, config }) };
}

export function pseudoRandomBytes(length: number, seed = 7): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed | 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

/** A body in pieces of a size that fits no chunk. */
export async function* bodyOf(bytes: Uint8Array, pieceBytes = 7919): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

export async function readAll(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  return new Uint8Array(
    await new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>).arrayBuffer(),
  );
}

export async function readFile(drive: Drive, id: string): Promise<Uint8Array> {
  const file = await drive.openFile(USER, id);
  return await readAll(file.read(0, file.item.size));
}

export async function putFile(
  drive: Drive,
  file: {
    parent?: string;
    name: string;
    bytes: Uint8Array;
    conflict?: "fail" | "replace" | "rename";
  },
) {
  const { parent = ROOT, name, bytes, conflict = "fail" } = file;
  const body = { size: bytes.length, body: bodyOf(bytes) };
  return await drive.upload(USER, { parent, name, conflict }, body);
}

/** All cells of a drive by column, which is unique in it; each must lie in the row that is its. */
async function columnsOf(kv: Kv, user: string): Promise<Map<string, Uint8Array>> {
  const columns = new Map<string, Uint8Array>();
  let after: ScanPage["next"] = null;
  do {
    const from: { after?: NonNullable<ScanPage["next"]> } = after === null ? {} : { after };
    const page: ScanPage = await kv.scan({ prefix: `${user}/drive/`, limit: 1000, ...from });
    for (const { row, column, value } of page.cells) {
      assert.equal(row, rowOf(user, column), `${column} lies in the wrong row`);
      columns.set(column, value!);
    }
    after = page.next;
  } while (after !== null);
  return columns;
}

export interface Census {
  readonly items: number;
  readonly files: number;
  readonly uploads: number;
  readonly garbage: number;
  readonly chunkRows: number;
}

/** Fails unless the drive is sound; see the top of this file. */
export async function checkSound(kv: Kv, user = USER): Promise<Census> {
  const columns = await columnsOf(kv, user);
  const parents = new Map<string, string>();
  const counts = new Map<string, number>();
  const owned = new Set<string>();
  let used = 0, files = 0, uploads = 0, garbage = 0;
  const own = (upload: string, chunks: number, must: boolean) => {
    for (let index = 0; index < chunks; index++) {
      const row = chunkRow(upload, index);
      assert(!owned.has(row), `${row} has two owners`);
      owned.add(must ? row : `${row}?`);
    }
  };
  for (const [column, value] of columns) {
    const kind = column.slice(0, 2);
    if (kind === "c/" || kind === "t/" || kind === "p/") {
      const item = decodeItem(value);
      assert(!parents.has(item.id), `${item.name} has two places`);
      const parent = kind === "c/" ? column.split("/")[1]! : kind === "t/" ? TRASH : "purging";
      parents.set(item.id, parent);
      counts.set(parent, (counts.get(parent) ?? 0) + 1);
      const pointer = columns.get(`n/${item.id}`);
      assert(pointer && decodeText(pointer) === column, `${item.name}: its pointer is wrong`);
      if (kind === "c/") assert.equal(column.slice(column.indexOf("\u0001") + 1), item.name);
      if (item.content) {
        files++;
        used += item.content.size;
        own(item.content.upload, chunkCount(item.content.size, item.content.chunkBytes), true);
      }
    } else if (kind === "u/") {
      uploads++;
      const record = decodeJson(value) as { chunksMax: number; tail?: { upload: string } };
      own(column.slice(2), record.chunksMax, false);
      if (record.tail) own(record.tail.upload, 1, false);
    } else if (kind === "g/") {
      garbage++;
      own(column.slice(2), (decodeJson(value) as { chunks: number }).chunks, false);
    }
  }
  for (const column of columns.keys()) {
    if (column.startsWith("n/")) assert(parents.has(column.slice(2)), `${column} points nowhere`);
  }
  for (const id of parents.keys()) {
    const seen = new Set<string>();
    for (let at = id; at !== ROOT && at !== TRASH && at !== "purging"; at = parents.get(at)!) {
      assert(parents.has(at), `${id} hangs in the air below ${at}`);
      assert(!seen.has(at), `${id} lies on a ring`);
      seen.add(at);
    }
  }
  for (const [column, value] of columns) {
    if (!column.startsWith("k/")) continue;
    const folder = column.slice(2);
    assert.equal(Number(decodeText(value)), counts.get(folder) ?? 0, `children of ${folder}`);
  }
  for (const [parent, count] of counts) {
    if (parent !== "purging") assert(columns.has(`k/${parent}`), `${parent} counts its ${count}`);
  }
  assert.equal(Number(decodeText(columns.get("used") ?? new TextEncoder().encode("0"))), used);

  let chunkRows = 0;
  const present = new Set<string>();
  let after: { row: string; column: string } | null = null;
  do {
    const from: { after?: { row: string; column: string } } = after === null ? {} : { after };
    const page = await kv.scan({ limit: 1000, keysOnly: true, ...from });
    for (const { row } of page.cells) {
      if (!/^[a-z]{3}~[a-z][a-z2-7]{25}\//.test(row)) continue;
      chunkRows++;
      present.add(row);
      assert(owned.has(row) || owned.has(`${row}?`), `${row} belongs to nobody`);
    }
    after = page.next;
  } while (after !== null);
  for (const row of owned) if (!row.endsWith("?")) assert(present.has(row), `${row} is missing`);
  return { items: parents.size, files, uploads, garbage, chunkRows };
}
