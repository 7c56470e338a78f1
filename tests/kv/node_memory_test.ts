import assert from "node:assert/strict";
import { Completions, RECORD_LIFE_MS } from "../../kv/completions.ts";
import { GroupState } from "../../kv/group_state.ts";
import { encodeText, type RowOp } from "../../kv/kv.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import {
  type CleanCells,
  type GroupMemory,
  MEMORY_BYTES_MIN,
  memoryShares,
  NodeMemory,
} from "../../kv/node_memory.ts";
import { InvariantViolation } from "../../kv/invariant.ts";
import { lsn, version } from "../../proto/ids.ts";

const MIB = 1024 * 1024;
const NOTHING: GroupMemory = {
  dirty: 0,
  flushing: 0,
  log: 0,
  unapplied: 0,
  completions: 0,
  undo: 0,
  index: 0,
  locks: 0,
};

class FakeGroup {
  now = NOTHING;
  relieved = 0;
  resumed = 0;
  memory = () => this.now;
  resume = () => {
    this.resumed += 1;
  };
  relieve = () => {
    this.relieved += 1;
  };
}

class FakeCache implements CleanCells {
  constructor(public bytes: number) {}
  resize(bytesMax: number): void {
    this.bytes = Math.min(this.bytes, bytesMax);
  }
}

function node(bytesMax: number, cacheBytes = 0) {
  const cache = new FakeCache(cacheBytes);
  const groups = [new FakeGroup(), new FakeGroup()] as const;
  const memory = new NodeMemory({ bytesMax, groupCount: 2, cache, users: () => groups });
  memory.settle();
  return { memory, cache, groups };
}

Deno.test("the cache gets what is left, and gives it back when others need it", () => {
  const { memory, cache, groups } = node(10 * MIB, 20 * MIB);
  assert.equal(cache.bytes, 10 * MIB);
  groups[0].now = { ...NOTHING, dirty: MIB, log: MIB, undo: 5 };
  groups[1].now = { ...NOTHING, completions: 100, index: 7, flushing: MIB };
  memory.settle();
  assert.equal(cache.bytes, 7 * MIB - 112);
  const use = memory.use();
  assert.equal(Object.values(use).reduce((sum, bytes) => sum + bytes, 0), 10 * MIB);
  assert.equal(memory.peakBytes, 10 * MIB);
});

Deno.test("the group with most to write begins a checkpoint long before the ceiling", () => {
  const { memory, groups } = node(10 * MIB);
  groups[0].now = { ...NOTHING, dirty: 0.7 * MIB };
  groups[1].now = { ...NOTHING, dirty: 0.75 * MIB };
  memory.settle();
  assert.deepEqual([groups[0].relieved, groups[1].relieved], [0, 0]);
  groups[1].now = { ...NOTHING, dirty: 0.9 * MIB };
  memory.settle();
  assert.deepEqual([groups[0].relieved, groups[1].relieved], [0, 1]);
  groups[1].now = { ...NOTHING, dirty: 2 * MIB, flushing: MIB };
  memory.settle();
  assert.deepEqual([groups[0].relieved, groups[1].relieved], [1, 1], "the other one is at it");
});

Deno.test("where other things leave little room, checkpoints begin sooner, and one after the other", () => {
  const { memory, groups: [group, other] } = node(10 * MIB);
  const large = { ...NOTHING, index: 4 * MIB };
  group.now = { ...large, dirty: 0.3 * MIB };
  memory.settle();
  assert.equal(group.relieved, 0);
  group.now = { ...large, dirty: 0.42 * MIB };
  memory.settle();
  assert.equal(group.relieved, 1, "in good time before there is room for no more");
  group.now = { ...large, flushing: 0.84 * MIB };
  other.now = { ...NOTHING, dirty: 0.42 * MIB };
  memory.settle();
  assert.equal(memory.admitEntries(other, [0.1 * MIB]), 0);
  assert.equal(other.relieved, 0, "its copy would only wait, and take what others need");
  group.now = large;
  memory.settle();
  assert.equal(other.relieved, 1);
});

Deno.test("what could pin too much is turned away, a primary's own requests first", () => {
  const { memory, groups: [group, other] } = node(10 * MIB);
  assert.equal(memory.refusal(group, 64 * 1024), null);
  assert.equal(memory.refusal(group, 3 * MIB), "too_large", "that could never fit");
  other.now = { ...NOTHING, dirty: 2 * MIB, flushing: 2.2 * MIB };
  memory.settle();
  assert.equal(memory.refusal(group, 0.5 * MIB), "busy");
  assert.deepEqual(memory.admitEntries(group, [0.2 * MIB, 0.7 * MIB, 1]), 1);
  assert.equal(other.relieved, 0, "it is at it");
  group.now = { ...NOTHING, dirty: 10 };
  assert.deepEqual(memory.admitEntries(group, [MIB]), 0);
  assert.equal(group.relieved, 1, "a checkpoint begins, so that it fits soon");
  assert.equal(memory.refusedCount, 3);
  other.now = { ...NOTHING, dirty: 2 * MIB };
  memory.settle();
  assert.equal(memory.refusal(group, 0.5 * MIB), null);
});

Deno.test("who had to leave out entries hears as soon as there is room, the longest waiting first", () => {
  const { memory, groups: [group, other] } = node(10 * MIB);
  const full = { ...NOTHING, flushing: 4.9 * MIB };
  other.now = full;
  memory.settle();
  assert.equal(memory.admitEntries(other, [1000, 0.3 * MIB, 1000]), 1);
  assert.equal(memory.admitEntries(group, [0.3 * MIB, 1000]), 0);
  memory.settle();
  assert.deepEqual([other.resumed, group.resumed], [0, 0], "there is no more than there was");
  // Room for one of them, and then for both.
  other.now = { ...full, flushing: 4.6 * MIB };
  memory.settle();
  assert.deepEqual([other.resumed, group.resumed], [1, 0]);
  memory.settle();
  assert.deepEqual([other.resumed, group.resumed], [1, 1], "the first one's turn is over");
  other.now = NOTHING;
  memory.settle();
  assert.deepEqual([other.resumed, group.resumed], [1, 1], "once is enough");
  // Other entries that fit say nothing about those that did not.
  other.now = full;
  memory.settle();
  assert.equal(memory.admitEntries(group, [0.5 * MIB]), 0);
  assert.equal(memory.admitEntries(group, [1000]), 1);
  other.now = NOTHING;
  memory.settle();
  assert.equal(group.resumed, 2);
});

Deno.test("every group has a window of its own, and all of them fit at once", () => {
  const { memory, groups: [group, other] } = node(10 * MIB);
  const { window } = memory.shares;
  other.now = { ...NOTHING, log: 2 * window, unapplied: 2 * window };
  memory.settle();
  assert.equal(memory.refusal(other, 1), "busy");
  assert.equal(memory.admitEntries(other, [1]), 0);
  assert.equal(memory.refusal(group, window), null, "another group's window is another matter");
  group.now = { ...NOTHING, log: 2 * window, unapplied: 2 * window };
  // Applied all at once, entries become dirty cells while other memory is in use as far as it may be.
  const rest = 10 * MIB * 0.6 - MIB;
  other.now = { ...NOTHING, dirty: 2 * window + rest };
  group.now = { ...NOTHING, dirty: 2 * window };
  memory.settle();
});

Deno.test("more than the ceiling is a broken invariant, unless it was so from the start", () => {
  const { memory, groups } = node(10 * MIB);
  groups[0].now = { ...NOTHING, dirty: 10 * MIB + 1 };
  assert.throws(() => memory.settle(), InvariantViolation);

  const group = new FakeGroup();
  const lowered = new NodeMemory({ bytesMax: 10 * MIB, groupCount: 1, users: () => [group] });
  group.now = { ...NOTHING, log: 11 * MIB };
  lowered.settle();
  assert.equal(lowered.refusal(group, 1000), "busy");
  group.now = NOTHING;
  lowered.settle();
  group.now = { ...NOTHING, log: 11 * MIB };
  assert.throws(() => lowered.settle(), InvariantViolation);
});

Deno.test("the shares of all kinds leave room within any ceiling", () => {
  for (const bytesMax of [MEMORY_BYTES_MIN, 10 * MIB, 64 * MIB, 1024 * MIB]) {
    for (const groupCount of [1, 3, 9]) {
      const shares = memoryShares(bytesMax, groupCount);
      const perGroup = shares.completions + shares.recentLog + shares.rowSizes * 200;
      assert(shares.undo + perGroup * groupCount < bytesMax / 2);
      assert(shares.undo > 0 && shares.recentLog > 10_000 && shares.rowSizes > 20);
    }
  }
});

Deno.test("completion records are counted exactly and forgotten in time", () => {
  const completions = new Completions();
  const outcome = { kind: "applied" as const, version: version(1), numbers: [1, 2] };
  for (let client = 0; client < 100; client++) {
    for (let seq = 1; seq <= 5; seq++) {
      const stamp = {
        clientId: `client-${client}`,
        seq,
        firstIncomplete: seq - 1 || 1,
        issuedMs: 0,
      };
      completions.record(stamp, outcome, { timeMs: client, lsn: lsn(1) });
    }
  }
  const saved = completions.save();
  assert.equal(Completions.load(saved).bytes, completions.bytes);
  assert.equal(saved.clients.reduce((sum, { outcomes }) => sum + outcomes.length, 0), 200);
  // The one heard last goes last.
  const stamp = { clientId: "client-0", seq: 6, firstIncomplete: 6, issuedMs: 0 };
  completions.record(stamp, outcome, { timeMs: 200, lsn: lsn(2) });
  completions.forgetBefore(150);
  assert.equal(completions.clientCount, 1);
  completions.forgetBefore(201);
  assert.equal(completions.bytes, 0);
});

Deno.test("new clients wait while too many are remembered, until the oldest is forgotten", () => {
  const completions = new Completions();
  const outcome = { kind: "applied" as const, version: version(1), numbers: [] };
  const stamp = (client: number) => (
    { clientId: `client-${client}`, seq: 1, firstIncomplete: 1, issuedMs: 0 }
  );
  const at = { timeMs: 1000, lsn: lsn(1) };
  for (let client = 0; client < 10; client++) completions.record(stamp(client), outcome, at);
  const { bytes } = completions;
  assert.equal(completions.hasRoom(stamp(10), 2000, bytes + 1), true);
  assert.equal(completions.hasRoom(stamp(10), 2000, bytes), false);
  assert.equal(completions.hasRoom(stamp(3), 2000, bytes), true, "it is remembered already");
  assert.equal(completions.hasRoom(stamp(10), 1001 + RECORD_LIFE_MS, bytes), true);
});

Deno.test("one operation cannot delete so many columns that keeping track of them takes megabytes", () => {
  const state = new GroupState(new MemoryCellStore(), { rowBytesMax: 1 << 24 });
  let seq = 0;
  const apply = (op: RowOp) => {
    const stamp = { clientId: "client-1", seq: ++seq, firstIncomplete: seq, issuedMs: 0 };
    const command = { kind: "rowOp" as const, stamp, timeMs: 0, op: toLogRowOp(op) };
    return state.apply(command, lsn(state.appliedLsn + 1));
  };
  for (let i = 0; i < 4_000; i += 200) {
    apply({
      row: "r",
      mutations: Array.from({ length: 200 }, (_, k) => ({
        kind: "put" as const,
        column: `c${String(i + k).padStart(5, "0")}`,
        value: encodeText("x"),
      })),
    });
  }
  const all = apply({ row: "r", mutations: [{ kind: "deletePrefix", prefix: "" }] });
  assert(all?.kind === "failed" && all.code === "invalid_request");
  assert.match(all.message, /delete in pieces/);
  assert.equal(state.counts.cells, 4_000);
  for (const prefix of ["c00", "c01", "c02", "c03"]) {
    assert.equal(
      apply({ row: "r", mutations: [{ kind: "deletePrefix", prefix }] })?.kind,
      "applied",
    );
  }
  assert.equal(state.counts.cells, 0);
});
