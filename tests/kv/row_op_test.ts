import assert from "node:assert/strict";
import { encodeText, type RowOp } from "../../kv/kv.ts";
import { decodeText } from "../../kv/kv.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { KvError } from "../../kv/errors.ts";

const text = encodeText;
const put = (column: string, value: string) =>
  ({ kind: "put", column, value: text(value) }) as const;

Deno.test("a row operation applies all of its mutations or none", async () => {
  const kv = new MemoryKv();
  await kv.apply({ row: "r", mutations: [put("a", "1"), put("b", "x")] });
  const refused = await kv.apply({
    row: "r",
    conditions: [{ column: "a", is: "present" }, { column: "b", is: "absent" }],
    mutations: [put("a", "2")],
  });
  assert.equal(refused.applied, false);
  assert.equal(refused.conditionIndex, 1);
  const failing: RowOp = {
    row: "r",
    mutations: [put("a", "3"), { kind: "add", column: "b", by: 1 }],
  };
  await assert.rejects(
    kv.apply(failing),
    (error) => error instanceof KvError && error.code === "invalid_request",
  );
  assert.equal(decodeText((await kv.get("r", "a"))!.value), "1");
});

Deno.test("append gives out ascending numbers and never one twice, even after deletes", async () => {
  const kv = new MemoryKv();
  const append: RowOp = {
    row: "box",
    mutations: [{ kind: "append", counter: "next", prefix: "m/", value: text("mail") }],
  };
  const numbers: number[] = [];
  for (let i = 0; i < 5; i++) {
    const result = await kv.apply(append);
    assert(result.applied);
    numbers.push(result.numbers[0]!);
    await kv.apply({ row: "box", mutations: [{ kind: "deletePrefix", prefix: "m/" }] });
  }
  assert.deepEqual(numbers, [1, 2, 3, 4, 5]);
});

Deno.test("pages of a row follow each other in both directions without gaps", async () => {
  const kv = new MemoryKv();
  const mutations = Array.from(
    { length: 25 },
    (_, i) => put(`m/${String(i).padStart(2, "0")}`, "v"),
  );
  await kv.apply({ row: "r", mutations: [...mutations, put("a", "x"), put("z", "y")] });
  await kv.apply({ row: "s", mutations });
  for (const reverse of [false, true]) {
    const seen: string[] = [];
    let after: string | undefined;
    for (;;) {
      const options = {
        prefix: "m/",
        limit: 4,
        reverse,
        ...(after === undefined ? {} : { after }),
      };
      const page = await kv.getRow("r", options);
      seen.push(...page.cells.map((cell) => cell.column));
      if (page.next === null) break;
      after = page.next;
    }
    const expected = mutations.map((mutation) => mutation.column);
    assert.deepEqual(seen, reverse ? expected.toReversed() : expected);
  }
});

Deno.test("a scan pages through rows and columns in byte order", async () => {
  const kv = new MemoryKv();
  const rows = ["a", "b", "b/1", "b/2", "c", "\u{10000}", "\uffee"];
  for (const row of rows) await kv.apply({ row, mutations: [put("x", "1"), put("y", "2")] });
  const seen: string[] = [];
  let after: { row: string; column: string } | undefined;
  for (;;) {
    const page = await kv.scan({ limit: 3, ...(after === undefined ? {} : { after }) });
    seen.push(...page.cells.map((cell) => cell.row + ":" + cell.column));
    if (page.next === null) break;
    after = page.next;
  }
  const order = ["a", "b", "b/1", "b/2", "c", "\uffee", "\u{10000}"];
  assert.deepEqual(seen, order.flatMap((row) => [`${row}:x`, `${row}:y`]));
  const prefixed = await kv.scan({ prefix: "b/" });
  assert.deepEqual(prefixed.cells.map((cell) => cell.row), ["b/1", "b/1", "b/2", "b/2"]);
});
