import assert from "node:assert/strict";
import fc from "fast-check";
import { blobsOf, type Command, decodeCommand, encodeCommand } from "../../kv/command.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import type { Condition, Mutation } from "../../kv/kv.ts";
import { version } from "../../proto/ids.ts";

const column = () => fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 });
const bytes = () => fc.uint8Array({ maxLength: 300 });

const mutation = (): fc.Arbitrary<Mutation> =>
  fc.oneof(
    fc.record({ kind: fc.constant("put" as const), column: column(), value: bytes() }),
    fc.record({ kind: fc.constant("delete" as const), column: column() }),
    fc.record({ kind: fc.constant("deletePrefix" as const), prefix: fc.string() }),
    fc.record({ kind: fc.constant("add" as const), column: column(), by: fc.integer() }),
    fc.record({
      kind: fc.constant("append" as const),
      counter: column(),
      prefix: fc.string(),
      value: bytes(),
    }),
  );

const condition = (): fc.Arbitrary<Condition> =>
  fc.oneof(
    fc.record({ column: column(), is: fc.constant("absent" as const) }),
    fc.record({ column: column(), is: fc.constant("present" as const) }),
    fc.record({
      column: column(),
      is: fc.constant("version" as const),
      version: fc.nat().map(version),
    }),
    fc.record({ column: column(), is: fc.constant("value" as const), value: bytes() }),
  );

Deno.test("decodeCommand() gives back what encodeCommand() was given, every byte of it", () => {
  const ops = fc.record({
    row: column(),
    conditions: fc.array(condition(), { maxLength: 5 }),
    mutations: fc.array(mutation(), { minLength: 1, maxLength: 8 }),
  });
  fc.assert(fc.property(ops, (op) => {
    const stamp = { clientId: "a-client", seq: 7, firstIncomplete: 3, issuedMs: 12 };
    // Values above 100 bytes play the large ones, which are only named.
    let blobs = 0;
    const large = (value: Uint8Array) => `blob-${value.length}-${++blobs}`;
    const log = toLogRowOp(op, large);
    const other = { ...toLogRowOp({ ...op, row: `${op.row}2` }, large), mutations: [] };
    const txn = { id: "a-transaction", anchor: "r" };
    const commands: Command[] = [
      { kind: "rowOp", stamp, timeMs: 99, op: log },
      { kind: "multiRow", stamp, timeMs: 99, ops: [log, other, { ...log, row: "z" }] },
      { kind: "prepare", stamp, timeMs: 99, txn, ops: [log, other], others: ["y"], lifeMs: 5 },
      { kind: "settle", stamp, timeMs: 99, txn, step: "commit", lifeMs: 5 },
    ];
    for (const command of commands) {
      const decoded = decodeCommand(encodeCommand(command));
      assert.deepEqual(structuredClone(decoded), structuredClone(command));
      assert.deepEqual(blobsOf(decoded), blobsOf(command));
    }
  }));
});

Deno.test("decodeCommand() refuses bytes that are cut short", () => {
  const op = toLogRowOp({
    row: "r",
    mutations: [{ kind: "put", column: "c", value: new Uint8Array(50) }],
  });
  const stamp = { clientId: "a-client", seq: 1, firstIncomplete: 1, issuedMs: 0 };
  const payload = encodeCommand({ kind: "rowOp", stamp, timeMs: 0, op });
  for (let length = 0; length < payload.length; length++) {
    assert.throws(() => decodeCommand(payload.subarray(0, length)));
  }
});
