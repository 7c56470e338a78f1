/**
 * Several rows in one log entry: all or none, once, on every replica alike. The same rules answer in
 * `MemoryKv` and at a backend, because both are `GroupState`.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { GroupState, SavedGroupState } from "../../kv/group_state.ts";
import type { Command } from "../../kv/command.ts";
import { decodeText, encodeText, type RowOp } from "../../kv/kv.ts";
import { KvError } from "../../kv/errors.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { lsn, version } from "../../proto/ids.ts";

const put = (column: string, value: string) =>
  ({ kind: "put", column, value: encodeText(value) }) as const;
const codeOf = (promise: Promise<unknown>) =>
  promise.then(() => "done", (error) => error instanceof KvError ? error.code : String(error));

async function textOf(kv: MemoryKv, row: string, column = "c"): Promise<string | null> {
  const cell = await kv.get(row, column);
  return cell === null ? null : decodeText(cell.value);
}

Deno.test("transact() writes all rows, or none, and names the row and condition that failed", async () => {
  const kv = new MemoryKv();
  const done = await kv.transact([
    { row: "a", mutations: [put("c", "1"), { kind: "add", column: "n", by: 5 }] },
    { row: "b", conditions: [{ column: "c", is: "absent" }], mutations: [put("c", "2")] },
    {
      row: "d",
      mutations: [{ kind: "append", counter: "k", prefix: "m/", value: encodeText("x") }],
    },
  ]);
  assert(done.applied);
  assert.deepEqual(done.results.map(({ numbers }) => numbers), [[5], [], [1]]);
  const cell = await kv.get("b", "c");
  assert.equal(cell!.version, done.results[1]!.version);

  const refused = await kv.transact([
    { row: "a", mutations: [put("c", "9")] },
    {
      row: "b",
      conditions: [{ column: "x", is: "absent" }, {
        column: "c",
        is: "version",
        version: version(0),
      }],
      mutations: [put("c", "9")],
    },
  ]);
  assert.deepEqual(refused, {
    applied: false,
    opIndex: 1,
    row: "b",
    conditionIndex: 1,
    version: cell!.version,
  });
  assert.deepEqual([await textOf(kv, "a"), await textOf(kv, "b")], ["1", "2"]);
});

Deno.test("transact() can only check a row, and says so when the row does not hold", async () => {
  const kv = new MemoryKv();
  const ops: RowOp[] = [
    { row: "guard", conditions: [{ column: "c", is: "present" }], mutations: [] },
    { row: "r", mutations: [put("c", "1")] },
  ];
  assert.equal((await kv.transact(ops)).applied, false);
  assert.equal(await textOf(kv, "r"), null);
  await kv.apply({ row: "guard", mutations: [put("c", "here")] });
  assert.equal((await kv.transact(ops)).applied, true);
  assert.equal(await textOf(kv, "r"), "1");
});

Deno.test("transact() looks at every condition before a mutation may fail", async () => {
  const kv = new MemoryKv();
  await kv.apply({ row: "a", mutations: [put("word", "no number")] });
  const add: RowOp = { row: "a", mutations: [{ kind: "add", column: "word", by: 1 }] };
  const guard: RowOp = { row: "b", conditions: [{ column: "c", is: "present" }], mutations: [] };
  const refused = await kv.transact([add, guard]);
  assert(!refused.applied);
  assert.equal(refused.row, "b");
  assert.equal(
    await codeOf(kv.transact([{ row: "z", mutations: [put("c", "1")] }, add])),
    "invalid_request",
  );
  assert.equal(await textOf(kv, "z"), null, "a mutation that fails takes the others with it");
});

Deno.test("transact() holds each row to its own limit and leaves all as they were", async () => {
  const kv = new MemoryKv({ rowBytesMax: 1000 });
  const big = { kind: "put", column: "c", value: new Uint8Array(600) } as const;
  const fits = await kv.transact([{ row: "a", mutations: [big] }, { row: "b", mutations: [big] }]);
  assert(fits.applied, "the limit is a row's, not the transaction's");
  const more = { ...big, column: "d" };
  const code = await codeOf(
    kv.transact([{ row: "x", mutations: [big] }, { row: "b", mutations: [more] }]),
  );
  assert.equal(code, "row_too_large");
  assert.equal(await kv.get("x", "c"), null);
});

Deno.test("transact() refuses what breaks a limit", async () => {
  const kv = new MemoryKv();
  const rows = (count: number): RowOp[] =>
    Array.from({ length: count }, (_, i) => ({ row: `r${i}`, mutations: [put("c", "v")] }));
  const half = { kind: "put", column: "c", value: new Uint8Array(3 * 1024 * 1024) } as const;
  const bad: RowOp[][] = [
    [],
    rows(65),
    [...rows(2), ...rows(1)],
    [{ row: "r", mutations: [] }],
    [{ row: "r\0", mutations: [put("c", "v")] }],
    [{ row: "a", mutations: [half] }, { row: "b", mutations: [half] }],
    rows(10).map(({ row }) => ({ row, mutations: Array(110).fill(put("c", "v")) })),
    rows(60).map(({ row }, i) => ({
      row,
      mutations: [1, 2, 3].map((n) => put(`${i}-${n}-${"x".repeat(1000)}`, "v")),
    })),
  ];
  for (const [index, ops] of bad.entries()) {
    assert.equal(await codeOf(kv.transact(ops)), "invalid_request", `case ${index}`);
  }
  assert.deepEqual((await kv.scan({})).cells, []);
  assert((await kv.transact(rows(64))).applied);
});

Deno.test("a repeated multi-row request gets its first answer, also after a checkpoint", () => {
  const store = new MemoryCellStore();
  const state = new GroupState(store, { rowBytesMax: 1 << 20 });
  const stamp = { clientId: "a-client", seq: 1, firstIncomplete: 1, issuedMs: 0 };
  const op = (row: string) => toLogRowOp({ row, mutations: [{ kind: "add", column: "n", by: 1 }] });
  const command: Command = { kind: "multiRow", stamp, timeMs: 0, ops: [op("a"), op("b")] };
  const first = state.apply(command, lsn(1));
  assert.deepEqual(state.apply(command, lsn(2)), first);
  const saved = SavedGroupState.parse(JSON.parse(JSON.stringify(state.save())));
  const restored = new GroupState(store, { rowBytesMax: 1 << 20, saved });
  assert.deepEqual(restored.apply(command, lsn(3)), first);
  assert.equal(decodeText(store.get("b", "n")!.value as Uint8Array), "1");
});

Deno.test("one entry for several rows leaves the state that one entry for each would", () => {
  const rowOps = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d"), { minLength: 1 }).chain((
    rows,
  ) =>
    fc.tuple(...rows.map((row) =>
      fc.record({
        row: fc.constant(row),
        conditions: fc.constant([]),
        mutations: fc.array(
          fc.oneof(
            fc.record({
              kind: fc.constant("put" as const),
              column: fc.constantFrom("x", "y", "z/1", "z/2"),
              value: fc.uint8Array({ maxLength: 40 }),
            }),
            fc.record({ kind: fc.constant("delete" as const), column: fc.constantFrom("x", "y") }),
            fc.record({
              kind: fc.constant("deletePrefix" as const),
              prefix: fc.constantFrom("", "z/"),
            }),
            fc.record({
              kind: fc.constant("add" as const),
              column: fc.constant("n"),
              by: fc.integer(),
            }),
          ),
          { minLength: 1, maxLength: 5 },
        ),
      })
    ))
  );
  fc.assert(fc.property(fc.array(rowOps, { maxLength: 12 }), (batches) => {
    const together = new GroupState(new MemoryCellStore(), { rowBytesMax: 1 << 20 });
    const apart = new GroupState(new MemoryCellStore(), { rowBytesMax: 1 << 20 });
    let seq = 0;
    const stamp = () => ({ clientId: "a-client", seq: ++seq, firstIncomplete: seq, issuedMs: 0 });
    for (const ops of batches) {
      const logged = ops.map((op) => toLogRowOp(op));
      const at = () => ({ stamp: stamp(), timeMs: 0 });
      together.apply({ kind: "multiRow", ops: logged, ...at() }, lsn(together.appliedLsn + 1));
      for (const op of logged) {
        apart.apply({ kind: "rowOp", op, ...at() }, lsn(apart.appliedLsn + 1));
      }
    }
    const cells = (state: GroupState) =>
      Array.from(state.store.range({}), ({ row, column, value }) => [row, column, value]);
    assert.deepEqual(cells(together), cells(apart));
    assert.deepEqual(together.counts, apart.counts);
    const fresh = recount(together);
    assert.deepEqual(together.counts, fresh);
  }));
});

/** Counts from the cells themselves. */
function recount(state: GroupState) {
  const rows = new Set<string>();
  let cells = 0, bytes = 0;
  for (const { row, column, size } of state.store.range({})) {
    rows.add(row);
    cells += 1;
    bytes += 64 + column.length + size;
  }
  return { rows: rows.size, cells, bytes, largeBytes: 0 };
}

Deno.test("the file of a large value goes if its request is refused, is a repeated one, or meets a lock", () => {
  const state = new GroupState(new MemoryCellStore(), { rowBytesMax: 1 << 20 });
  const large = new Uint8Array(70_000);
  const apply = (seq: number, blob: string, conditions: RowOp["conditions"] = []) => {
    const op: RowOp = {
      row: "r",
      conditions,
      mutations: [{ kind: "put", column: "c", value: large }],
    };
    const stamp = { clientId: "a-client", seq, firstIncomplete: 1, issuedMs: 0 };
    const command: Command = {
      kind: "multiRow",
      stamp,
      timeMs: 0,
      ops: [toLogRowOp(op, () => blob)],
    };
    return state.apply(command, lsn(state.appliedLsn + 1))?.kind;
  };
  assert.equal(apply(1, "kept"), "applied");
  assert.deepEqual(state.takeFreedBlobs(), []);
  assert.equal(apply(2, "refused", [{ column: "c", is: "absent" }]), "refused");
  assert.deepEqual(state.takeFreedBlobs(), ["refused"]);
  assert.equal(apply(1, "repeated"), "applied", "the answer of the first time");
  assert.deepEqual(state.takeFreedBlobs(), ["repeated"]);
  const [txn, row] = [{ id: "transaction", anchor: "r" }, toLogRowOp({ row: "r", mutations: [] })];
  const stamp = { clientId: "a-client", seq: 3, firstIncomplete: 1, issuedMs: 0 };
  const prepare = { kind: "prepare" as const, txn, ops: [row], others: ["z"], lifeMs: 1_000 };
  state.apply({ ...prepare, stamp, timeMs: 0 }, lsn(state.appliedLsn + 1));
  assert.equal(apply(4, "locked out"), "locked");
  assert.deepEqual(state.takeFreedBlobs(), ["locked out"]);
  assert.deepEqual(state.store.get("r", "c")!.value, { blob: "kept" });
});
