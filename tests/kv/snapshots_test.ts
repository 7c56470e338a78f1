/**
 * Scans of one snapshot, against a copy of all cells that is taken when the scan begins: over a store
 * in memory, and over SQLite with a cache of next to nothing and checkpoints in between.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { CellStore } from "../../kv/cell_store.ts";
import type { Command } from "../../kv/command.ts";
import { CacheBudget, CheckpointWriter, SqliteCellStore } from "../../kv/disk/sqlite_cell_store.ts";
import { KvError } from "../../kv/errors.ts";
import { GroupState } from "../../kv/group_state.ts";
import { encodeText, type RowOp, type ScanPosition, scanSnapshot } from "../../kv/kv.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { readScanPage } from "../../kv/pages.ts";
import { SNAPSHOT_LIFE_MS, UndoBudget } from "../../kv/snapshots.ts";
import { orderFor } from "../../kv/tablet_policy.ts";
import { groupId, type Lsn, lsn } from "../../proto/ids.ts";

const ALL = { startKey: "", endKey: null };

class Bench {
  readonly state: GroupState;
  readonly undo: UndoBudget;
  #seq = 0;

  constructor(readonly store: CellStore = new MemoryCellStore(), undo = new UndoBudget(1 << 20)) {
    this.undo = undo;
    this.state = new GroupState(store, { rowBytesMax: 1 << 24, undo });
  }

  apply(command: Command): void {
    this.state.apply(command, lsn(this.state.appliedLsn + 1));
  }

  op(op: RowOp): void {
    const seq = ++this.#seq;
    const stamp = { clientId: "client-1", seq, firstIncomplete: seq, issuedMs: 0 };
    this.apply({ kind: "rowOp", stamp, timeMs: 0, op: toLogRowOp(op) });
  }

  put(row: string, column: string, value: string): void {
    this.op({ row, mutations: [{ kind: "put", column, value: encodeText(value) }] });
  }

  empty(row: string): void {
    this.op({ row, mutations: [{ kind: "deletePrefix", prefix: "" }] });
  }

  /** Everything as it is now. */
  now(): string[] {
    return Array.from(this.store.range({}), describe);
  }

  open(nowMs = 0): Scan {
    const at = this.state.appliedLsn;
    this.state.snapshots.open(at, nowMs);
    return new Scan(this, at, this.now());
  }
}

/** One scan, page by page, and what it has to find. */
class Scan {
  readonly found: string[] = [];
  #after: ScanPosition | null = null;
  done = false;

  constructor(readonly bench: Bench, readonly at: Lsn, readonly expected: readonly string[]) {}

  page(limit: number, nowMs = 0): void {
    const { store, snapshots } = this.bench.state;
    snapshots.check(this.at, nowMs);
    const source = {
      range: (range: Parameters<CellStore["range"]>[0]) => snapshots.range(store, this.at, range),
    };
    const options = this.#after === null ? { limit } : { limit, after: this.#after };
    const page = readScanPage(source, options, ALL);
    this.found.push(...page.cells.map(describe));
    this.#after = page.next;
    this.done = page.next === null;
    if (this.done) snapshots.close(this.at);
  }

  finish(): void {
    while (!this.done) this.page(3);
    assert.deepEqual(this.found, this.expected);
  }
}

function describe(
  { row, column, version, value }: {
    row: string;
    column: string;
    version: number;
    value: unknown;
  },
): string {
  return `${row}/${column}@${version}=${
    value instanceof Uint8Array ? new TextDecoder().decode(value) : JSON.stringify(value)
  }`;
}

const row = fc.constantFrom("a", "b", "c", "d", "e", "f", "\ue000", "\u{1f600}");
const column = fc.constantFrom("x", "y", "z");
const operation = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("put" as const),
      row,
      column,
      value: fc.string({ maxLength: 6 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("empty" as const), row }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("open" as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("page" as const),
      scan: fc.nat(10),
      limit: fc.integer({ min: 1, max: 5 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("split" as const), key: row }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("checkpoint" as const) }) },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

async function run(
  bench: Bench,
  operations: readonly Operation[],
  checkpoint: () => void | Promise<void>,
): Promise<void> {
  const scans: Scan[] = [];
  for (const op of operations) {
    if (op.kind === "put") bench.put(op.row, op.column, op.value);
    else if (op.kind === "empty") bench.empty(op.row);
    else if (op.kind === "open") scans.push(bench.open());
    else if (op.kind === "checkpoint") await checkpoint();
    else if (op.kind === "split") {
      const order = orderFor(bench.state.tablets, { kind: "split", key: op.key });
      if (typeof order !== "string") bench.apply({ ...order, timeMs: 0 });
    } else {
      const scan = scans[op.scan % Math.max(1, scans.length)];
      if (scan?.done === false) scan.page(op.limit);
    }
  }
  for (const scan of scans) scan.finish();
  assert.equal(bench.state.snapshots.count, 0);
  assert.equal(bench.undo.bytes, 0, "nothing is kept for nobody");
}

Deno.test("scans see the state at their beginning, whatever is written between their pages", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(operation, { minLength: 10, maxLength: 120, size: "max" }),
      async (operations) => {
        await run(new Bench(), operations, () => {});
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("so do scans of what is evicted, while checkpoints are written", async () => {
  const writer = new CheckpointWriter();
  try {
    await fc.assert(
      fc.asyncProperty(
        fc.array(operation, { minLength: 10, maxLength: 80, size: "max" }),
        async (operations) => {
          const dir = await Deno.makeTempDir();
          const gid = groupId(1), budget = new CacheBudget(1);
          const store = SqliteCellStore.open({ dir, gid, budget, writer });
          const bench = new Bench(store);
          let writing: Promise<void> = Promise.resolve();
          // Not waited for: pages are read while it is under way.
          const checkpoint = async () => {
            await writing;
            writing = store.checkpoint({ lsn: bench.state.appliedLsn, meta: {} });
          };
          try {
            await run(bench, operations, checkpoint);
            await writing;
          } finally {
            await writing;
            store.close();
            await Deno.remove(dir, { recursive: true });
          }
        },
      ),
      { numRuns: 12 },
    );
  } finally {
    await writer.close();
  }
});

const tooOld = (error: unknown) =>
  error instanceof KvError && error.code === "snapshot_too_old" && error.outcome === "not_applied";

Deno.test("a snapshot ends after its time, and a scan that goes on with it is told so", () => {
  const bench = new Bench();
  bench.put("a", "x", "1");
  bench.put("b", "x", "1");
  const scan = bench.open(1_000);
  scan.page(1, 1_000 + SNAPSHOT_LIFE_MS - 1);
  bench.put("a", "x", "2");
  assert(bench.undo.bytes > 0);
  assert.throws(() => scan.page(1, 1_000 + SNAPSHOT_LIFE_MS), tooOld);
  assert.equal(bench.undo.bytes, 0);
});

Deno.test("when old versions use up their memory, the node's oldest snapshot is given up", () => {
  const undo = new UndoBudget(10_000);
  const one = new Bench(new MemoryCellStore(), undo), other = new Bench(undefined, undo);
  for (let i = 0; i < 40; i++) {
    one.put(`r${i}`, "x", "v".repeat(200));
    other.put(`r${i}`, "x", "v".repeat(200));
  }
  const oldest = one.open(), younger = other.open();
  for (let i = 0; i < 40; i++) {
    other.put(`r${i}`, "x", "w");
    assert(undo.bytes <= undo.bytesMax, `${undo.bytes} bytes are kept`);
  }
  assert.throws(() => oldest.page(1), tooOld, "the other group's, because it is older");
  assert.throws(() => younger.page(1), tooOld, "one snapshot alone may not use more either");
  const last = one.open();
  for (let i = 0; i < 10; i++) one.put(`r${i}`, "x", "w");
  last.finish();
});

Deno.test("without a snapshot nothing is kept", () => {
  const bench = new Bench();
  bench.put("a", "x", "1");
  bench.put("a", "x", "2");
  assert.equal(bench.undo.bytes, 0);
  const scan = bench.open();
  bench.put("b", "x", "1");
  bench.put("b", "x", "2");
  assert.equal(bench.undo.bytes, 0, "b came into being after the scan began");
  scan.finish();
});

Deno.test("a group has a limited number of snapshots, beyond which new scans are told to wait", () => {
  const bench = new Bench();
  for (let i = 0; i < 64; i++) {
    bench.put("a", "x", String(i));
    bench.open();
  }
  bench.open();
  bench.put("a", "x", "last");
  assert.throws(() => bench.open(), (error) => error instanceof KvError && error.code === "busy");
  bench.open(SNAPSHOT_LIFE_MS);
});

Deno.test("a page that passes over very many new cells ends without any, and goes on", () => {
  const bench = new Bench();
  bench.put("z", "x", "there");
  const scan = bench.open();
  for (let i = 0; i < 5_000; i++) bench.put(`r${i}`, "x", "new");
  scan.page(10);
  assert.deepEqual(scan.found, []);
  assert.equal(scan.done, false);
  scan.finish();
});

Deno.test("MemoryKv.scan() with snapshot gives the pages of one moment", async () => {
  const kv = new MemoryKv();
  const put = (row: string, value: string) =>
    kv.apply({ row, mutations: [{ kind: "put", column: "c", value: encodeText(value) }] });
  for (const name of ["a", "b", "c"]) await put(name, "old");
  const first = await kv.scan({ limit: 1, snapshot: true });
  await put("b", "new");
  await put("bb", "new");
  await kv.apply({ row: "c", mutations: [{ kind: "deletePrefix", prefix: "" }] });
  const second = await kv.scan({ limit: 5, snapshot: true, after: first.next! });
  const cells = [...first.cells, ...second.cells];
  assert.deepEqual(cells.map(({ row, value }) => `${row}=${new TextDecoder().decode(value)}`), [
    "a=old",
    "b=old",
    "c=old",
  ]);
  assert.equal(second.next, null);
  assert.deepEqual((await kv.scan({})).cells.map(({ row }) => row), ["a", "b", "bb"]);
});

Deno.test("scanSnapshot() starts over when a snapshot is given up, and bounds what it collects", async () => {
  const kv = new MemoryKv();
  for (let i = 0; i < 30; i++) {
    await kv.apply({
      row: `r${i}`,
      mutations: [{ kind: "put", column: "c", value: new Uint8Array(60_000) }],
    });
  }
  let pages = 0;
  const scan = kv.scan.bind(kv);
  kv.scan = async (options) => {
    pages += 1;
    // Before the second page so much is overwritten that the first snapshot cannot be kept.
    if (pages === 2) {
      for (let i = 0; i < 30; i++) {
        await kv.apply({
          row: `r${i}`,
          mutations: [{ kind: "put", column: "c", value: new Uint8Array(60_001) }],
        });
      }
    }
    return await scan(options);
  };
  const cells = await scanSnapshot(kv, {});
  assert.deepEqual(new Set(cells.map(({ size }) => size)), new Set([60_001]));
  assert.equal(cells.length, 30);
  await assert.rejects(
    scanSnapshot(kv, { cellsMax: 10 }),
    (error) => error instanceof KvError && error.code === "invalid_request",
  );
});
