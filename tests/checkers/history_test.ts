/** Recording a history, writing it as lines and reading it back. */
import assert from "node:assert/strict";
import { type Condition, encodeText, type RowOp } from "../../kv/kv.ts";
import { KvError } from "../../kv/errors.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { version } from "../../proto/ids.ts";
import { atomicHistory } from "./atomic_histories.ts";
import {
  callOf,
  describeOperation,
  type HistoryEvent,
  historyLines,
  HistoryRecorder,
  parseHistory,
  valueLabel,
} from "./history.ts";
import { checkLinearizability } from "./linearizability.ts";
import { RecordedKv } from "./recorded_kv.ts";

function recorderWithLines() {
  const lines: string[] = [];
  let now = 0;
  const recorder = new HistoryRecorder({
    nowNs: () => ++now,
    onEvent: (event) => lines.push(JSON.stringify(event)),
  });
  return { recorder, lines };
}

Deno.test("HistoryRecorder writes the lines that interfaces name: invoke, then ok, fail or info", () => {
  const { recorder, lines } = recorderWithLines();
  const put = recorder.invoke("c1", { op: "put", row: "r", column: "x", value: "a" });
  const get = recorder.invoke("c2", { op: "get", row: "r", column: "x" });
  recorder.ok(put, { applied: true, version: 7 });
  recorder.ok(get, { value: "a", version: 7 });
  const swap = { op: "cput", row: "r", column: "x", value: "b", old: "z" } as const;
  recorder.answered(recorder.invoke("c1", swap), { applied: false, version: 7, conditionIndex: 0 });
  recorder.unknown(recorder.invoke("c1", { op: "delete", row: "r", column: "x" }), "timeout");
  const events = lines.map((line) => JSON.parse(line) as HistoryEvent);
  assert.deepEqual(events[0], {
    client: "c1",
    id: 0,
    op: "put",
    row: "r",
    column: "x",
    value: "a",
    type: "invoke",
    time_ns: 1,
  });
  assert.deepEqual(events.map(({ op, type }) => `${op} ${type}`), [
    "put invoke",
    "get invoke",
    "put ok",
    "get ok",
    "cput invoke",
    "cput fail",
    "delete invoke",
    "delete info",
  ]);
  assert.deepEqual(events[3], {
    client: "c2",
    id: 1,
    op: "get",
    row: "r",
    column: "x",
    value: "a",
    type: "ok",
    time_ns: 4,
    result: { value: "a", version: 7 },
  });
});

Deno.test("a history survives being written as lines and read back", async () => {
  const history = await atomicHistory({ seed: 3, rows: 3, lost: 0.1 });
  const again = parseHistory([...historyLines(history)].join("\n"));
  assert.equal(again.length, history.length);
  for (const [i, operation] of history.entries()) {
    assert.equal(describeOperation(again[i]!), describeOperation(operation));
  }
  const overlap = (items: typeof history) =>
    items.map((a) => items.filter((b) => b.returnIndex < a.callIndex).map(({ id }) => id));
  assert.deepEqual(overlap(again), overlap(history));
  assert.equal(checkLinearizability(again).valid, true);
});

Deno.test("parseHistory() takes a call that is never completed as unknown", () => {
  const line =
    `{"client":"c","op":"put","row":"r","column":"x","value":"a","type":"invoke","time_ns":1}`;
  const [operation] = parseHistory(line);
  assert.equal(operation!.outcome, "unknown");
  assert.equal(operation!.returnIndex, Infinity);
});

Deno.test("parseHistory() names the line that is wrong", () => {
  const invoke = `{"client":"c","op":"get","row":"r","column":"x","type":"invoke","time_ns":5}`;
  const ok = `{"client":"c","op":"get","row":"r","column":"x","type":"ok","time_ns":6}`;
  const bad: [text: string, message: RegExp][] = [
    [`${invoke}\nnonsense`, /Line 2 is not JSON/],
    [`{"client":"c","op":"fly","row":"r","type":"invoke","time_ns":1}`, /Line 1: .*op/s],
    [`{"op":"get","row":"r","column":"x","type":"invoke","time_ns":1}`, /Line 1: .*client/s],
    [`{"client":"c","op":"put","row":"r","column":"x","type":"invoke","time_ns":1}`, /value/],
    [`${invoke}\n${invoke}`, /Line 2: client "c" already has this call open/],
    [ok, /Line 1: client "c" completes a call it did not make/],
    [`${invoke}\n${ok.replace("6", "4")}`, /Line 2 goes back in time/],
  ];
  for (const [text, message] of bad) assert.throws(() => parseHistory(text), message);
});

Deno.test("HistoryRecorder refuses to complete a call twice", () => {
  const { recorder } = recorderWithLines();
  const open = recorder.invoke("c", { op: "get", row: "r", column: "x" });
  recorder.ok(open, { value: null, version: 0 });
  assert.throws(() => recorder.ok(open, { value: null, version: 0 }), /completed twice/);
});

Deno.test("callOf() gives each row operation its simplest name", () => {
  const value = encodeText("v"), put = { kind: "put", column: "x", value } as const;
  const names = [
    callOf({ row: "r", mutations: [put] }),
    callOf({ row: "r", mutations: [{ kind: "delete", column: "x" }] }),
    callOf({ row: "r", conditions: [{ column: "x", is: "absent" }], mutations: [put] }),
    callOf({
      row: "r",
      conditions: [{ column: "x", is: "version", version: version(3) }],
      mutations: [put],
    }),
    callOf({ row: "r", conditions: [{ column: "y", is: "absent" }], mutations: [put] }),
    callOf({ row: "r", mutations: [{ kind: "add", column: "n", by: 1 }] }),
  ].map(({ op }) => op);
  assert.deepEqual(names, ["put", "delete", "cput", "cput", "apply", "apply"]);
});

Deno.test("valueLabel() shows short text, and anything else by a digest that tells values apart", () => {
  assert.equal(valueLabel(encodeText("short")), "short");
  const long = new Uint8Array(1_000).fill(65), other = long.slice();
  other[999] = 66;
  assert.match(valueLabel(long), /^1000 bytes [0-9a-f]{32}$/);
  assert.notEqual(valueLabel(long), valueLabel(other));
  assert.match(valueLabel(new Uint8Array([0xff, 0xfe])), /^2 bytes/);
});

Deno.test("RecordedKv writes down what went through, errors included, and passes it on", async () => {
  const { recorder } = recorderWithLines();
  let error: KvError | null = null;
  const kv = new RecordedKv(
    new MemoryKv({
      beforeCall: () => {
        if (error !== null) throw error;
      },
    }),
    { recorder, process: "c" },
  );
  const put = {
    row: "r",
    mutations: [{ kind: "put", column: "x", value: encodeText("a") }],
  } as const;
  assert.equal((await kv.apply(put)).applied, true);
  assert.equal((await kv.get("r", "x"))?.version, 1);
  assert.equal((await kv.getRow("r")).cells.length, 1);
  const conditions = [{ column: "x", is: "absent" }] as const;
  assert.equal((await kv.apply({ ...put, conditions })).applied, false);
  error = new KvError("outcome_unknown", "no answer");
  await assert.rejects(kv.apply(put), /no answer/);
  error = new KvError("busy", "too much");
  await assert.rejects(kv.apply(put), /too much/);
  error = new KvError("outcome_unknown", "no answer");
  await assert.rejects(kv.get("r", "x"), /no answer/);
  assert.deepEqual(
    recorder.operations.map((
      { call, outcome, result, error },
    ) => [call.op, outcome, result, error]),
    [
      ["put", "ok", { applied: true, version: 1, numbers: [] }, null],
      ["get", "ok", { value: "a", version: 1 }, null],
      ["getRow", "ok", { cells: [{ column: "x", value: "a", version: 1 }] }, null],
      ["cput", "fail", { applied: false, version: 1, conditionIndex: 0 }, null],
      ["put", "unknown", null, "outcome_unknown"],
      ["put", "fail", null, "busy"],
      ["get", "fail", null, "outcome_unknown"],
    ],
  );
  assert.equal(checkLinearizability(recorder.operations).valid, true);
});

Deno.test("RecordedKv writes a transaction down as one call for each of its rows", async () => {
  const { recorder } = recorderWithLines();
  const kv = new RecordedKv(new MemoryKv(), { recorder, process: "c" });
  const put = (row: string, conditions: Condition[] = []): RowOp => ({
    row,
    conditions,
    mutations: [{ kind: "put", column: "x", value: encodeText("a") }],
  });
  await kv.transact([put("r"), put("s")]);
  await kv.transact([put("r"), put("s", [{ column: "x", is: "absent" }])]);
  assert.deepEqual(
    recorder.operations.map(({ call, outcome, result }) => [
      call.op === "txn" ? "" : call.row,
      outcome,
      result,
    ]),
    [
      ["r", "ok", { applied: true, version: 1, numbers: [] }],
      ["s", "ok", { applied: true, version: 1, numbers: [] }],
      ["r", "fail", null],
      ["s", "fail", { applied: false, version: 1, conditionIndex: 0 }],
    ],
  );
  assert.equal(checkLinearizability(recorder.operations).valid, true);
});
