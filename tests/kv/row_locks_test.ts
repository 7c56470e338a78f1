/** The server's half of transactions, step by step on the state of one group. */
import assert from "node:assert/strict";
import type { LogRequest } from "../../kv/command.ts";
import { GroupState, SavedGroupState } from "../../kv/group_state.ts";
import { encodeText, type RowOp } from "../../kv/kv.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import { spanOfRow } from "../../kv/read_gate.ts";
import { LOCKS_MAX } from "../../kv/row_locks.ts";
import { lsn } from "../../proto/ids.ts";

const TXN = { id: "transaction-1", anchor: "a" };
const LIMITS = { rowBytesMax: 100_000 };

class Group {
  state: GroupState;
  #seq = 0;
  timeMs = 0;
  constructor(readonly store = new MemoryCellStore()) {
    this.state = new GroupState(store, LIMITS);
  }

  request(request: LogRequest) {
    const stamp = {
      clientId: "a-client",
      seq: ++this.#seq,
      firstIncomplete: this.#seq,
      issuedMs: 0,
    };
    const command = { ...request, stamp, timeMs: this.timeMs };
    return this.state.apply(command, lsn(this.state.appliedLsn + 1))!;
  }

  apply(op: RowOp) {
    return this.request({ kind: "rowOp", op: toLogRowOp(op) });
  }

  prepare(
    ops: readonly RowOp[],
    options: { others?: string[]; blob?: string; txn?: typeof TXN } = {},
  ) {
    const { others = [], blob = "", txn = TXN } = options;
    const logged = ops.map((op) => toLogRowOp(op, () => blob));
    return this.request({ kind: "prepare", txn, ops: logged, others, lifeMs: 1_000 });
  }

  settle(step: (LogRequest & { kind: "settle" })["step"]) {
    return this.request({ kind: "settle", txn: TXN, step, lifeMs: 1_000 });
  }

  /** As a process does that starts from a checkpoint. */
  restart(): void {
    const saved = SavedGroupState.parse(JSON.parse(JSON.stringify(this.state.save())));
    this.state = new GroupState(this.store, { ...LIMITS, saved });
  }
}

const put = (column: string, value: string) =>
  ({ kind: "put", column, value: encodeText(value) }) as const;
const WRITE: RowOp = { row: "a", mutations: [put("c", "new"), { kind: "delete", column: "old" }] };
const columns = (group: Group) =>
  Array.from(group.store.range({}), ({ row, column }) => `${row} ${column}`);

Deno.test("a locked row keeps its cells until the commit, and what was intended survives a restart", () => {
  for (const step of ["commit", "abort"] as const) {
    const group = new Group(), steady = new Group();
    for (const each of [group, steady]) {
      each.apply({ row: "a", mutations: [put("old", "x"), put("c", "x")] });
      assert.equal(each.prepare([WRITE], { others: ["z"] }).kind, "applied");
    }
    const locked = group.apply({ row: "a", mutations: [put("d", "1")] });
    assert.deepEqual(locked, { kind: "locked", row: "a", txn: TXN });
    steady.apply({ row: "a", mutations: [put("d", "1")] });
    assert.deepEqual(columns(group).slice(-2), ["a c", "a old"]);
    group.restart();
    assert.equal(group.state.locks.stateOf(TXN.id), "pending");
    const settled = group.settle(step);
    steady.settle(step);
    assert.equal(
      settled.kind === "settled" && settled.state,
      step === "commit" ? "committed" : "gone",
    );
    const left = step === "commit" ? ["a \u0001done:transaction-1", "a c"] : ["a c", "a old"];
    assert.deepEqual(columns(group), left);
    assert.equal(group.state.hash, steady.state.hash);
    assert.deepEqual(group.state.counts, steady.state.counts);
    group.restart();
    group.settle("forget");
    assert.deepEqual(group.state.locks.save(), { locks: [], decisions: [] });
    assert.equal(columns(group).some((column) => column.includes("\u0001")), false);
  }
});

Deno.test("a commit counts only while the anchor is locked, and an abort only before it", () => {
  const aborted = new Group();
  aborted.prepare([WRITE], { others: ["z"] });
  aborted.settle("abort");
  const late = aborted.settle("commit");
  assert(late.kind === "settled" && late.state === "gone" && late.version === 0);
  assert.deepEqual(columns(aborted), []);

  const committed = new Group();
  committed.prepare([WRITE], { others: ["z"] });
  committed.settle("commit");
  for (const step of ["abort", "expire", "back"] as const) {
    const answer = committed.settle(step);
    assert.equal(answer.kind === "settled" && answer.state, "committed");
  }
  assert.deepEqual(columns(committed), ["a \u0001done:transaction-1", "a c"]);
});

Deno.test("a transaction expires in the group's own time, and not before", () => {
  const group = new Group();
  group.prepare([WRITE]);
  group.timeMs = 900;
  group.settle("expire");
  group.settle("extend");
  group.timeMs = 1_800;
  group.settle("expire");
  assert.equal(group.state.locks.stateOf(TXN.id), "pending", "the extension counts from 900 on");
  assert.equal(group.state.locks.remainingMs(TXN.id, 1_800), 100);
  group.timeMs = 1_900;
  group.settle("expire");
  assert.equal(group.state.locks.stateOf(TXN.id), "gone");
  assert.deepEqual(columns(group), []);
});

Deno.test("rows of another group's transaction go its way all at once, and only where it has locks", () => {
  const group = new Group();
  const rows = ["x", "y"].map((row) => ({ ...WRITE, row }));
  group.prepare(rows);
  assert.deepEqual(group.state.locks.decidedElsewhere(spanOfRow("y")).map(({ row }) => row), ["y"]);
  assert.deepEqual(group.state.locks.decidedElsewhere({ from: "a", until: null }).length, 2);
  const answer = group.settle("forward");
  assert(answer.kind === "settled" && answer.version > 0);
  assert.deepEqual(columns(group), ["x c", "y c"]);
  const again = group.settle("back");
  assert(again.kind === "settled" && again.version === 0);
  assert.deepEqual(columns(group), ["x c", "y c"]);
});

Deno.test("the file of a large value moves with the intent, and is freed when it is rolled back", () => {
  const large: RowOp = {
    row: "a",
    mutations: [{ kind: "put", column: "c", value: new Uint8Array(70_000) }],
  };
  const group = new Group();
  group.prepare([large], { blob: "first" });
  group.settle("commit");
  assert.deepEqual(group.state.takeFreedBlobs(), []);
  assert.deepEqual(group.store.get("a", "c")!.value, { blob: "first" });
  group.prepare([large], { blob: "second" });
  group.settle("abort");
  assert.deepEqual(group.state.takeFreedBlobs(), ["second"]);
  group.prepare([large], { blob: "third" });
  group.settle("commit");
  assert.deepEqual(group.state.takeFreedBlobs(), ["first"]);
});

Deno.test("what does not fit into a row is refused before it is locked", () => {
  const group = new Group();
  const value = new Uint8Array(60_000);
  group.apply({ row: "a", mutations: [{ kind: "put", column: "c", value }] });
  const outcome = group.prepare([{ row: "a", mutations: [{ kind: "put", column: "d", value }] }]);
  assert.equal(outcome.kind === "failed" && outcome.code, "row_too_large");
  assert.deepEqual(group.state.locks.save().locks, []);
  // The intents lie beside the old values for a while; that does not count against the row.
  const replaced = group.prepare([{ row: "a", mutations: [{ kind: "put", column: "c", value }] }]);
  assert.equal(replaced.kind, "applied");
});

Deno.test("a transaction that began here cannot begin again, undecided or committed", () => {
  const group = new Group();
  assert.equal(group.prepare([WRITE], { others: ["z"] }).kind, "applied");
  const other = { id: TXN.id, anchor: "b" };
  const codeOf = (outcome: ReturnType<Group["prepare"]>) =>
    outcome.kind === "failed" ? outcome.code : outcome.kind;
  assert.equal(codeOf(group.prepare([{ ...WRITE, row: "b" }], { txn: other })), "invalid_request");
  assert.equal(codeOf(group.prepare([WRITE])), "locked");
  group.settle("commit");
  for (const row of ["a", "c"]) {
    assert.equal(codeOf(group.prepare([{ ...WRITE, row }])), "invalid_request");
  }
  assert.deepEqual(columns(group), ["a \u0001done:transaction-1", "a c"]);
});

Deno.test("a group holds a limited number of locks", () => {
  const group = new Group();
  for (let i = 0; i < LOCKS_MAX; i += 64) {
    const ops = Array.from({ length: 64 }, (_, n) => ({ ...WRITE, row: `r${i + n}` }));
    const txn = { id: `transaction-${i}`, anchor: "elsewhere" };
    assert.equal(group.prepare(ops, { txn }).kind, "applied");
  }
  const outcome = group.prepare([{ ...WRITE, row: "one more" }]);
  assert.equal(outcome.kind === "failed" && outcome.code, "busy");
});

Deno.test("deleting all columns of a row leaves the store's own alone", () => {
  const group = new Group();
  group.prepare([WRITE], { others: ["z"] });
  group.settle("commit");
  group.apply({ row: "a", mutations: [{ kind: "deletePrefix", prefix: "" }] });
  assert.deepEqual(columns(group), ["a \u0001done:transaction-1"]);
});

Deno.test("the memory of locks and decisions is counted, and is none once all is settled and forgotten", () => {
  const group = new Group();
  const seen: number[] = [];
  const note = () => seen.push(group.state.locks.bytes);
  group.prepare([WRITE, { ...WRITE, row: "b" }], { others: ["z".repeat(1000)] });
  note();
  const whole = group.state.locks.bytes;
  group.restart();
  assert.equal(group.state.locks.bytes, whole, "a restart counts the same");
  group.settle("extend");
  assert.equal(group.state.locks.bytes, whole);
  group.settle("commit");
  note();
  group.restart();
  note();
  group.settle("forget");
  note();
  assert.ok(seen[0]! > 3_000 && seen[1]! > 2_000 && seen[1]! < seen[0]!, `${seen}`);
  assert.deepEqual(seen.slice(2), [seen[1], 0]);
  group.prepare([WRITE], { txn: { id: "transaction-2", anchor: "elsewhere" } });
  group.request({
    kind: "settle",
    txn: { id: "transaction-2", anchor: "elsewhere" },
    step: "back",
    lifeMs: 1_000,
  });
  assert.equal(group.state.locks.bytes, 0);
});
