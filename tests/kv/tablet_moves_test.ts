/** What the steps of a tablet's move do to the states of the two groups, one step after the other. */
import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import { CellSum } from "../../kv/cell_hash.ts";
import type { StoredCell } from "../../kv/cell_store.ts";
import { type Command, decodeCommand, encodeCommand, type LogRequest } from "../../kv/command.ts";
import type { SavedCompletions } from "../../kv/completions.ts";
import { type AppliedOutcome, GroupState } from "../../kv/group_state.ts";
import { encodeText } from "../../kv/kv.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import { cleanUpStep, type MoveStep, type StageStep } from "../../kv/tablet_move.ts";
import { cellsWithin } from "../../kv/tablet_moves.ts";
import { epoch, groupId, lsn } from "../../proto/ids.ts";
import { firstRangeMap } from "../../kv/range_map.ts";

/** A replica's state, fed like a log feeds it, and once more after each entry through a checkpoint. */
class Replayed {
  readonly store = new MemoryCellStore();
  state: GroupState;

  constructor(readonly range: { startKey: string; endKey: string | null }) {
    this.state = new GroupState(this.store, { rowBytesMax: 1 << 20, range });
  }

  apply(command: Command): AppliedOutcome | null {
    const outcome = this.state.apply(
      decodeCommand(encodeCommand(command)),
      lsn(this.state.appliedLsn + 1),
    );
    const saved = JSON.parse(JSON.stringify(this.state.save()));
    const { hash } = this.state;
    this.state = new GroupState(this.store, { rowBytesMax: 1 << 20, range: this.range, saved });
    assert.equal(this.state.hash, hash, "a checkpoint keeps all of the state");
    return outcome;
  }

  request(request: LogRequest, clientId: string, seq: number): AppliedOutcome | null {
    const stamp = { clientId, seq, firstIncomplete: 1, issuedMs: 1_000 };
    return this.apply({ ...request, stamp, timeMs: 1_000 });
  }

  put(
    row: string,
    value: string,
    { seq = this.state.appliedLsn + 1, clientId = `client of "${this.range.startKey}"` } = {},
  ) {
    const mutations = [{ kind: "put" as const, column: "c", value: encodeText(value) }];
    return this.request({ kind: "rowOp", op: toLogRowOp({ row, mutations }) }, clientId, seq);
  }

  step(step: MoveStep): { done: boolean; why: string | null } {
    const outcome = this.apply({ kind: "move", timeMs: 2_000, step });
    assert(outcome?.kind === "move");
    return outcome;
  }

  cells(): StoredCell[] {
    return [...this.store.range({})];
  }

  get shape(): string[] {
    return this.state.tablets.all().map(({ startKey, endKey, state, departure }) =>
      `${startKey}-${endKey ?? ""} ${departure?.stage ?? state}`
    );
  }
}

const RANGE = { startKey: "c", endKey: "e" };
const REIGN = epoch(4);

/** Group 1 with rows a to f and a boundary at c and e; group 2 with one row. */
function twoGroups() {
  const one = new Replayed({ startKey: "", endKey: "m" });
  const two = new Replayed({ startKey: "m", endKey: null });
  for (const row of "aabbccddeeff") one.put(row, `${row} in one`);
  two.put("n", "n in two");
  for (const key of ["c", "e"]) {
    const { id, generation } = one.state.tablets.at(key)!;
    const rightId = one.state.tablets.nextId;
    const tablet = { id, generation };
    one.apply({ kind: "split", tablet, key, leftId: id, rightId, byHand: true, timeMs: 1_000 });
  }
  return { one, two };
}

function depart(one: Replayed): void {
  const { id, generation } = one.state.tablets.at("c")!;
  const tablet = { id, generation };
  assert(one.step({ kind: "depart", moveId: 1, tablet, to: groupId(2), ...RANGE }).done);
}

const freeze = (one: Replayed) => one.step({ kind: "freeze", moveId: 1, ...RANGE });
const arrive = (two: Replayed, reign = REIGN) =>
  two.step({ kind: "arrive", moveId: 1, reign, ...RANGE });

function piece(seq: number, change: Partial<StageStep> = {}): StageStep {
  const step = { kind: "stage" as const, moveId: 1, reign: REIGN, seq };
  return { ...step, clear: null, cells: [], gone: [], records: null, ...change };
}

function movedCells(one: Replayed): StoredCell[] {
  const from = { row: RANGE.startKey, column: "" };
  return [...cellsWithin(one.store, { from, to: null }, RANGE.endKey)];
}

function stageAll(one: Replayed, two: Replayed, seq = 1, records: SavedCompletions | null = null) {
  const clear = { from: { row: RANGE.startKey, column: "" }, to: null };
  return two.step(piece(seq, { clear, cells: movedCells(one), records }));
}

function seal(one: Replayed, two: Replayed, seq: number) {
  const sum = new CellSum();
  for (const cell of movedCells(one)) sum.add(cell, 1);
  const { position } = one.state;
  const step = { kind: "seal" as const, moveId: 1, reign: REIGN, seq };
  return two.step({ ...step, hash: sum.text, cells: sum.cells, position });
}

/** Everything up to the commit point. */
function sealed() {
  const { one, two } = twoGroups();
  depart(one);
  arrive(two);
  assert(freeze(one).done);
  assert(stageAll(one, two, 1, one.state.completions.save()).done);
  assert(seal(one, two, 2).done);
  return { one, two };
}

Deno.test("what is staged is nobody's to read until it is activated, and then all of it at once", () => {
  const { one, two } = sealed();
  assert.deepEqual(two.shape, ["c-e arriving", "m- serving"]);
  assert.equal(two.state.tablets.accessTo("c"), "none");
  assert.deepEqual(two.put("c", "too early"), { kind: "away", code: "wrong_tablet", row: "c" });
  assert(two.step({ kind: "activate", moveId: 1 }).done);
  assert.deepEqual(two.shape, ["c-e serving", "m- serving"]);
  const cell = (row: string) => [one, two].map(({ store }) => store.get(row, "c")?.version);
  assert.deepEqual(cell("c")[0], cell("c")[1]);
  assert(one.step({ kind: "drop", moveId: 1, ...RANGE }).done);
  assert.deepEqual(one.shape, ["-c serving", "c-e leaving", "e-m serving"]);
  assert.equal(one.state.tablets.accessTo("c"), "none");
});

Deno.test("a frozen tablet takes no write, and answers those that it executed before", () => {
  const { one } = twoGroups();
  const first = one.put("c", "once", { seq: 99 });
  depart(one);
  assert.equal((one.put("c", "while it is copied") as { kind: string }).kind, "applied");
  assert(freeze(one).done);
  assert.deepEqual(one.put("c", "late"), { kind: "away", code: "frozen", row: "c" });
  assert.deepEqual(one.put("c", "once", { seq: 99 }), first);
  assert.equal((one.put("b", "beside it") as { kind: string }).kind, "applied");
  assert(!one.step({ kind: "thaw", moveId: 1, isOver: false }).done, "it is frozen for good");
  assert(one.step({ kind: "thaw", moveId: 1, isOver: true }).done);
  assert.equal((one.put("c", "again") as { kind: string }).kind, "applied");
});

Deno.test("rows that a transaction holds bar the tablet to others, until it is through", () => {
  const { one } = twoGroups();
  depart(one);
  const txn = { id: "transaction-1", anchor: "c" };
  const ops = (row: string) => {
    const mutations = [{ kind: "put" as const, column: "c", value: encodeText("t") }];
    return [{ ...toLogRowOp({ row, mutations }) }];
  };
  one.request({ kind: "prepare", txn, ops: ops("c"), others: ["x"], lifeMs: 5_000 }, "client-2", 1);
  assert(!freeze(one).done);
  assert.deepEqual(one.shape[1], "c-e barred");
  const other = { id: "transaction-2", anchor: "d" };
  assert.deepEqual(
    one.request(
      { kind: "prepare", txn: other, ops: ops("d"), others: [], lifeMs: 5_000 },
      "client-3",
      1,
    ),
    { kind: "away", code: "frozen", row: "d" },
  );
  assert.equal((one.put("d", "a plain write") as { kind: string }).kind, "applied");
  one.request({ kind: "settle", txn, step: "commit", lifeMs: 5_000 }, "client-2", 2);
  assert(!freeze(one).done, "what it decided has to reach the other groups first");
  one.request({ kind: "settle", txn, step: "forget", lifeMs: 5_000 }, "client-2", 3);
  assert(freeze(one).done);
});

Deno.test("a request that was executed before the move gets its answer from the new group", () => {
  const { one, two } = twoGroups();
  depart(one);
  arrive(two);
  const answer = one.put("c", "once", { clientId: "client-of-one", seq: 7 });
  freeze(one);
  stageAll(one, two, 1, one.state.completions.save());
  seal(one, two, 2);
  two.step({ kind: "activate", moveId: 1 });
  assert.deepEqual(two.put("c", "once", { clientId: "client-of-one", seq: 7 }), answer);
  assert.equal(
    (two.put("c", "next", { clientId: "client-of-one", seq: 8 }) as { kind: string }).kind,
    "applied",
  );
});

Deno.test("no version that a row ever had is given to it again by its new group", () => {
  const { one, two } = sealed();
  const before = Math.max(...movedCells(one).map(({ version }) => version));
  assert(two.state.position < before);
  two.step({ kind: "activate", moveId: 1 });
  const outcome = two.put("c", "new") as { kind: "applied"; version: number };
  assert(outcome.version > before && outcome.version > one.state.position);
  assert.equal(two.store.get("c", "c")!.version, outcome.version);
});

Deno.test("a seal holds only if all that is there was staged, as it is now", () => {
  const { one, two } = twoGroups();
  depart(one);
  arrive(two);
  stageAll(one, two);
  one.put("c", "changed since");
  freeze(one);
  assert.match(seal(one, two, 2).why!, /what was staged is 2 cells of hash \w+, not 2 of hash/);
  assert(!two.step({ kind: "activate", moveId: 1 }).done);
  two.step(piece(3, { cells: [one.store.get("c", "c")!] }));
  assert(seal(one, two, 4).done);
  // Whatever is staged after it breaks the seal.
  two.step(piece(5, { gone: [{ row: "d", column: "c" }] }));
  assert.match(two.step({ kind: "activate", moveId: 1 }).why!, /not sealed/);
});

Deno.test("pieces count once and in order, and those of an earlier primary not at all", () => {
  const { one, two } = twoGroups();
  arrive(two);
  const cells = movedCells(one);
  assert(two.step(piece(1, { cells: cells.slice(0, 1) })).done);
  assert.match(two.step(piece(3)).why!, /piece 3 came after piece 1/);
  // A repeated one is done already; what it says now does not matter.
  assert(two.step(piece(1, { gone: [cells[0]!] })).done);
  assert.notEqual(two.store.get("c", "c"), undefined);
  assert(arrive(two, epoch(5)).done);
  assert.match(two.step(piece(2)).why!, /another primary/);
  assert(!arrive(two, REIGN).done);
  assert.match(
    two.step({ ...piece(1), reign: epoch(5), cells: [{ ...cells[0]!, row: "x" }] }).why!,
    /row "x"/,
  );
});

Deno.test("what is left of a tablet is cleared away bit by bit, and the range is free again then", () => {
  const { one, two } = sealed();
  assert(two.step({ kind: "cancel", moveId: 1 }).done);
  assert.deepEqual(two.shape, ["c-e leaving", "m- serving"]);
  assert.match(
    two.step({ kind: "arrive", moveId: 2, reign: REIGN, ...RANGE }).why!,
    /still being cleared away/,
  );
  const map = firstRangeMap([{ id: 1, startKey: "", endKey: null, members: [0] }]);
  for (let i = 0; i < 3; i++) {
    const step = cleanUpStep(two.state.tablets.all(), map);
    assert(step?.kind === "purge");
    assert(two.step({ ...step, cells: 1 }).done);
  }
  assert.equal(cleanUpStep(two.state.tablets.all(), map), null);
  assert.deepEqual(two.cells().map(({ row }) => row), ["n"]);
  assert(two.step({ kind: "arrive", moveId: 2, reign: REIGN, ...RANGE }).done);
  assert.match(arrive(two).why!, /move 1 is over/);
  one.step({ kind: "thaw", moveId: 1, isOver: true });
  assert.deepEqual(one.shape, ["-c serving", "c-e serving", "e-m serving"]);
});

Deno.test("a tablet that moves keeps its shape", () => {
  const { one } = twoGroups();
  depart(one);
  const { id, generation } = one.state.tablets.at("c")!;
  const rightId = one.state.tablets.nextId;
  one.apply({
    kind: "split",
    tablet: { id, generation },
    key: "d",
    leftId: id,
    rightId,
    byHand: true,
    timeMs: 0,
  });
  const left = one.state.tablets.at("a")!;
  one.apply({
    kind: "merge",
    left: { id: left.id, generation: left.generation },
    right: { id, generation },
    timeMs: 0,
  });
  assert.deepEqual(one.shape, ["-c serving", "c-e copying", "e-m serving"]);
});

Deno.test("a group that gave everything away goes on empty, and takes rows again", () => {
  const one = new Replayed({ startKey: "", endKey: "m" });
  one.put("c", "x");
  const tablet = { id: 1, generation: 1 }, all = { startKey: "", endKey: "m" };
  assert(one.step({ kind: "depart", moveId: 1, tablet, to: groupId(2), ...all }).done);
  assert(one.step({ kind: "freeze", moveId: 1, ...all }).done);
  assert(one.step({ kind: "drop", moveId: 1, ...all }).done);
  assert(one.step({ kind: "purge", tabletId: 1, cells: 10 }).done);
  assert.deepEqual(one.shape, []);
  assert.equal(one.state.tablets.count, 0);
  assert.deepEqual(one.put("c", "nobody's"), { kind: "away", code: "wrong_tablet", row: "c" });
  assert(one.step({ kind: "arrive", moveId: 2, reign: REIGN, startKey: "p", endKey: null }).done);
  const value = encodeText("p");
  const cell = {
    row: "p",
    column: "c",
    version: one.state.position,
    size: 1,
    crc: crc32(value),
    value,
  };
  const step = piece(1, { moveId: 2, cells: [{ ...cell, version: cell.version as never }] });
  assert(one.step(step).done);
});
