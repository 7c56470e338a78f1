/**
 * Tablets against the plainest model there is: a flat list of cells, counted anew for each question,
 * and two replicas that cut their buckets at different places.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Command } from "../../kv/command.ts";
import { decodeCommand, encodeCommand } from "../../kv/command.ts";
import { type Counts, NO_COUNTS, sum } from "../../kv/key_buckets.ts";
import { CorruptionError } from "../../kv/errors.ts";
import { GroupState } from "../../kv/group_state.ts";
import { compareKeys, inRange } from "../../kv/key_order.ts";
import type { RowOp } from "../../kv/kv.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import { cellBytes, largeBytes } from "../../kv/row_op.ts";
import { nextChange, orderFor, TABLETS_MAX } from "../../kv/tablet_policy.ts";
import type { Tablet } from "../../kv/tablets.ts";
import { lsn } from "../../proto/ids.ts";

const RANGE = { startKey: "b", endKey: "y" };

/** One replica's state, fed like a log feeds it. */
class Replayed {
  readonly store = new MemoryCellStore();
  state: GroupState;
  #seq = 0;

  constructor(readonly buckets = { bytesMax: 1000, largeBytesMax: 1 << 20 }) {
    this.state = this.#open();
  }

  #open(saved?: ReturnType<GroupState["save"]>): GroupState {
    const options = { rowBytesMax: 1 << 20, range: RANGE, buckets: this.buckets };
    return new GroupState(this.store, saved === undefined ? options : { ...options, saved });
  }

  /** Through a checkpoint and its JSON, as at a restart. */
  restart(): void {
    this.state = this.#open(JSON.parse(JSON.stringify(this.state.save())));
  }

  apply(command: Command): void {
    this.state.apply(decodeCommand(encodeCommand(command)), lsn(this.state.appliedLsn + 1));
  }

  op(op: RowOp): void {
    const seq = ++this.#seq;
    const stamp = { clientId: "client-1", seq, firstIncomplete: seq, issuedMs: 0 };
    this.apply({ kind: "rowOp", stamp, timeMs: 0, op: toLogRowOp(op) });
  }

  put(row: string, column: string, bytes: number): void {
    const value = new Uint8Array(bytes);
    this.op({ row, mutations: [{ kind: "put", column, value }] });
  }

  split(key: string): string | null {
    return this.#order({ kind: "split", key });
  }

  merge(key: string): string | null {
    return this.#order({ kind: "merge", key });
  }

  #order(change: { kind: "split" | "merge"; key: string }): string | null {
    const order = orderFor(this.state.tablets, change);
    if (typeof order === "string") return order;
    this.apply({ ...order, timeMs: 0 });
    return null;
  }

  /** What a tablet holds, counted cell by cell. */
  countFlat({ startKey, endKey }: Pick<Tablet, "startKey" | "endKey">): Counts {
    let counts = NO_COUNTS, last: string | null = null;
    for (const cell of this.store.range({})) {
      if (!inRange(cell.row, startKey, endKey)) continue;
      counts = sum(counts, {
        rows: cell.row === last ? 0 : 1,
        cells: 1,
        bytes: cellBytes(cell.column, cell),
        largeBytes: largeBytes(cell),
      });
      last = cell.row;
    }
    return counts;
  }

  get ranges(): string[] {
    return this.state.tablets.list().map(({ startKey, endKey }) => `${startKey}-${endKey ?? ""}`);
  }

  check(): void {
    const tablets = this.state.tablets.list();
    assert.equal(tablets[0]!.startKey, RANGE.startKey);
    assert.equal(tablets.at(-1)!.endKey, RANGE.endKey);
    for (const [index, tablet] of tablets.entries()) {
      assert.equal(tablet.endKey, tablets[index + 1]?.startKey ?? RANGE.endKey);
      assert(compareKeys(tablet.startKey, tablet.endKey!) < 0);
      assert.deepEqual(tablet.counts, this.countFlat(tablet));
      this.state.audit();
    }
    assert.equal(new Set(tablets.map((tablet) => tablet.id)).size, tablets.length);
  }
}

const row = fc.tuple(fc.constantFrom(..."bcdefghijklmnopqrstuvwx"), fc.nat(30))
  .map(([letter, n]) => letter + n);

Deno.test("random writes, splits, merges and restarts keep tablets equal to a flat count", () => {
  const operation = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        kind: fc.constant("put" as const),
        row,
        column: fc.constantFrom("a", "b", "c"),
        bytes: fc.oneof(fc.nat(400), fc.constantFrom(2_000, 70_000)),
      }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("empty" as const), row }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("split" as const), key: row }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("merge" as const), at: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("policy" as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("restart" as const) }) },
  );
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 200, size: "max" }), (operations) => {
      const one = new Replayed(), other = new Replayed({ bytesMax: 5_000, largeBytesMax: 1e6 });
      for (const op of operations) {
        if (op.kind === "put") {
          for (const replica of [one, other]) replica.put(op.row, op.column, op.bytes);
        } else if (op.kind === "empty") {
          const mutations = [{ kind: "deletePrefix" as const, prefix: "" }];
          for (const replica of [one, other]) replica.op({ row: op.row, mutations });
        } else if (op.kind === "split") {
          assert.equal(one.split(op.key), other.split(op.key));
        } else if (op.kind === "merge") {
          const starts = one.state.tablets.list().slice(1).map((tablet) => tablet.startKey);
          const key = starts[op.at % starts.length] ?? RANGE.startKey;
          assert.equal(one.merge(key), other.merge(key));
        } else if (op.kind === "policy") {
          // What one replica proposes as primary all of them apply.
          const limits = { bytesMax: 4_000, largeBytesMax: 200_000 };
          const order = nextChange(one.state.tablets, limits, true);
          if (order === null) continue;
          for (const replica of [one, other]) replica.apply({ ...order, timeMs: 0 });
        } else other.restart();
        assert.equal(one.state.hash, other.state.hash);
      }
      for (const replica of [one, other]) replica.check();
      assert.deepEqual(one.state.tablets.list(), other.state.tablets.list());
    }),
    { numRuns: 60 },
  );
});

Deno.test("a split gives the right half a new id and both a new generation", () => {
  const replica = new Replayed();
  for (const key of ["c", "m", "t"]) replica.put(key, "x", 10);
  assert.equal(replica.split("m"), null);
  const [left, right] = replica.state.tablets.list();
  assert.deepEqual([left!.id, left!.generation, left!.counts.rows], [1, 2, 1]);
  assert.deepEqual([right!.id, right!.generation, right!.counts.rows], [2, 2, 2]);
  assert.equal(right!.byHand, true);
  assert.equal(replica.state.tablets.at("lz")?.id, 1);
  assert.equal(replica.state.tablets.at("m")?.id, 2);
});

Deno.test("a merge keeps the left id and never gives an id out again", () => {
  const replica = new Replayed();
  replica.split("m");
  replica.merge("m");
  assert.deepEqual(replica.ranges, ["b-y"]);
  assert.deepEqual(replica.state.tablets.list().map(({ id, generation }) => [id, generation]), [
    [1, 3],
  ]);
  replica.split("k");
  assert.deepEqual(replica.state.tablets.list().map(({ id }) => id), [1, 3]);
});

Deno.test("an order for an earlier shape of a tablet has no effect", () => {
  const replica = new Replayed();
  const stale = orderFor(replica.state.tablets, { kind: "split", key: "m" });
  assert(typeof stale !== "string");
  replica.split("k");
  const { hash } = replica.state;
  replica.apply({ ...stale, timeMs: 0 });
  assert.equal(replica.state.hash, hash);
  assert.deepEqual(replica.ranges, ["b-k", "k-y"]);
  const merge = orderFor(replica.state.tablets, { kind: "merge", key: "k" });
  assert(typeof merge !== "string");
  replica.split("p");
  replica.apply({ ...merge, timeMs: 0 });
  assert.deepEqual(replica.ranges, ["b-k", "k-p", "p-y"]);
});

Deno.test("orders that make no sense are refused in words", () => {
  const replica = new Replayed();
  assert.match(replica.split("a")!, /"a": it is not in the group's range/);
  assert.match(replica.split("y")!, /"y": it is not in the group's range/);
  assert.match(replica.split("b")!, /a tablet begins there already/);
  assert.match(replica.merge("m")!, /no tablet begins there/);
  assert.match(replica.merge("b")!, /belongs to another group/);
});

Deno.test("the state hash covers the shape of the tablets", () => {
  const one = new Replayed(), other = new Replayed();
  for (const replica of [one, other]) replica.put("c", "x", 10);
  one.split("m");
  other.split("n");
  assert.notEqual(one.state.hash, other.state.hash);
});

Deno.test("completion records outlive a split: a retry gets the first answer", () => {
  const replica = new Replayed();
  const stamp = { clientId: "client-9", seq: 1, firstIncomplete: 1, issuedMs: 0 };
  const op = toLogRowOp({ row: "t", mutations: [{ kind: "add", column: "n", by: 1 }] });
  const command = { kind: "rowOp" as const, stamp, timeMs: 0, op };
  const first = replica.state.apply(command, lsn(1));
  replica.split("m");
  replica.restart();
  assert.deepEqual(replica.state.apply(command, lsn(3)), first);
  assert.equal(new TextDecoder().decode(replica.store.get("t", "n")!.value as Uint8Array), "1");
});

Deno.test("saved tablets of another range are refused with the reason", () => {
  const replica = new Replayed();
  const saved = replica.state.save();
  assert.throws(
    () => new GroupState(new MemoryCellStore(), { rowBytesMax: 1, saved }),
    /tablets cover \["b", "y"\), the configuration says \["", \)/,
  );
});

Deno.test("a full tablet is split near the middle of its bytes, until all are below the limit", () => {
  const replica = new Replayed();
  for (let i = 0; i < 200; i++) replica.put(`k${String(i).padStart(3, "0")}`, "x", 200);
  const limits = { bytesMax: 10_000, largeBytesMax: 1 << 30 };
  let count = 0;
  for (;;) {
    const order = nextChange(replica.state.tablets, limits, true);
    if (order === null) break;
    assert.equal(order.kind, "split");
    replica.apply({ ...order, timeMs: 0 });
    assert(++count < 20, "splits and merges chase each other");
  }
  replica.check();
  for (const { counts } of replica.state.tablets.list()) {
    assert(counts.bytes <= limits.bytesMax);
    assert(counts.bytes >= limits.bytesMax / 4);
  }
});

Deno.test("large values alone make a tablet due for a split", () => {
  const replica = new Replayed({ bytesMax: 100_000, largeBytesMax: 300_000 });
  const size = 100_000;
  for (let i = 0; i < 20; i++) {
    const seq = i + 1;
    const value = { size, crc: 1, value: { blob: `blob-${i}` } };
    const op = { row: `k${i}`, conditions: [], mutations: [{ kind: "put", column: "c", value }] };
    const stamp = { clientId: "client-2", seq, firstIncomplete: seq, issuedMs: 0 };
    replica.apply({ kind: "rowOp", stamp, timeMs: 0, op } as Command);
  }
  assert.equal(replica.state.counts.largeBytes, 20 * size);
  const limits = { bytesMax: 1 << 30, largeBytesMax: 1_500_000 };
  const order = nextChange(replica.state.tablets, limits, false);
  assert.equal(order?.kind, "split");
  replica.apply({ ...order!, timeMs: 0 });
  replica.check();
  for (const { counts } of replica.state.tablets.list()) {
    assert(counts.largeBytes >= 700_000 && counts.largeBytes <= 1_300_000);
  }
});

Deno.test("one huge row is not cut, and no crumbs are split off beside it", () => {
  const replica = new Replayed();
  for (let i = 0; i < 100; i++) replica.put("m", `c${i}`, 500);
  for (let i = 0; i < 10; i++) replica.put(`m${i}`, "x", 10);
  const limits = { bytesMax: 20_000, largeBytesMax: 1 << 30 };
  assert.equal(nextChange(replica.state.tablets, limits, true), null);
  for (let i = 0; i < 10; i++) replica.put(`n${i}`, "x", 400);
  const order = nextChange(replica.state.tablets, limits, true);
  assert(order?.kind === "split" && order.key > "m" && order.key <= "n0");
});

Deno.test("neighbours are merged once both are small, and not before a quarter of the limit", () => {
  const replica = new Replayed();
  const limits = { bytesMax: 10_000, largeBytesMax: 1 << 30 };
  for (let i = 0; i < 60; i++) replica.put(`k${String(i).padStart(2, "0")}`, "x", 200);
  const split = nextChange(replica.state.tablets, limits, false)!;
  replica.apply({ ...split, timeMs: 0 });
  const mutations = [{ kind: "deletePrefix" as const, prefix: "" }];
  for (let i = 0; i < 60; i++) {
    const { bytes } = replica.state.counts;
    const order = nextChange(replica.state.tablets, limits, true);
    assert.equal(order?.kind, bytes < 2_500 ? "merge" : undefined, `at ${bytes} bytes`);
    replica.op({ row: `k${String(i).padStart(2, "0")}`, mutations });
  }
  assert.equal(nextChange(replica.state.tablets, limits, false), null);
  const merge = nextChange(replica.state.tablets, limits, true)!;
  replica.apply({ ...merge, timeMs: 0 });
  assert.deepEqual(replica.ranges, ["b-y"]);
});

Deno.test("a boundary that a person made is not merged away by itself", () => {
  const replica = new Replayed();
  replica.split("m");
  const limits = { bytesMax: 10_000, largeBytesMax: 10_000 };
  assert.equal(nextChange(replica.state.tablets, limits, true), null);
  assert.equal(replica.merge("m"), null);
});

Deno.test("a group has a limited number of tablets", () => {
  const replica = new Replayed();
  for (let i = 1; i < TABLETS_MAX; i++) {
    assert.equal(replica.split(`k${String(i).padStart(4, "0")}`), null);
  }
  assert.match(replica.split("p")!, /has 256 tablets, which is the limit/);
  for (let i = 0; i < 100; i++) replica.put(`p${i}`, "x", 200);
  const limits = { bytesMax: 2_000, largeBytesMax: 1 << 30 };
  assert.equal(nextChange(replica.state.tablets, limits, false), null);
});

Deno.test("counting a full bucket skips the columns of large rows", () => {
  const replica = new Replayed();
  for (let i = 0; i < 700; i++) replica.put("m", `c${i}`, 500);
  let read = 0;
  const range = replica.store.range.bind(replica.store);
  replica.store.range = function* (wanted) {
    for (const cell of range(wanted)) {
      read += 1;
      yield cell;
    }
  };
  replica.put("ma", "x", 10);
  assert(read < 20, `${read} cells read`);
  replica.check();
});

Deno.test("a write that leaves a row as large as it was, or makes it smaller, counts no cells", () => {
  let rangeCount = 0;
  class CountingStore extends MemoryCellStore {
    override range(range: Parameters<MemoryCellStore["range"]>[0]) {
      rangeCount += 1;
      return super.range(range);
    }
  }
  // As after a restart, or when there are more rows than sizes can be remembered.
  const options = { rowBytesMax: 1 << 20, range: RANGE, rowSizesMax: 0 };
  const state = new GroupState(new CountingStore(), options);
  let seq = 0;
  const put = (bytes: number) => {
    seq += 1;
    const stamp = { clientId: "client-1", seq, firstIncomplete: seq, issuedMs: 0 };
    const mutation = { kind: "put" as const, column: "c", value: new Uint8Array(bytes) };
    const op = toLogRowOp({ row: "row", mutations: [mutation] });
    state.apply({ kind: "rowOp", stamp, timeMs: 0, op }, lsn(state.appliedLsn + 1));
  };
  put(100);
  rangeCount = 0;
  put(100);
  put(40);
  assert.equal(rangeCount, 0);
  put(90);
  assert.equal(state.counts.rows, 1);
  assert.equal(state.counts.bytes, cellBytes("c", { size: 90, value: new Uint8Array(90) }));
  assert.ok(rangeCount > 0);
});

Deno.test("a full bucket with a damaged neighbour takes writes and is counted right", () => {
  const replica = new Replayed();
  for (let i = 0; i < 4; i++) replica.put(`k${i}`, "x", 200);
  const range = replica.store.range.bind(replica.store);
  replica.store.range = (wanted) => {
    if (wanted.from?.row === "b") throw new CorruptionError("cell fails its checksum", "db", 0);
    return range(wanted);
  };
  for (let i = 4; i < 10; i++) replica.put(`k${i}`, "x", 200);
  replica.store.range = range;
  replica.check();
});

Deno.test("rows are read in one go as far as tablets follow each other and may be read", () => {
  const replica = new Replayed(), { tablets } = replica.state;
  for (const key of ["f", "m", "s"]) assert.equal(replica.split(key), null);
  const all = () => true;
  assert.deepEqual(tablets.runAt("g", all), RANGE);
  assert.equal(tablets.runAt("g", () => false), null);
  assert.equal(tablets.runAt("z", all), null);
  // Once one of them is on its way, it is for whoever asks to say which may be read.
  const { id, generation } = tablets.at("m")!;
  const move = { moveId: 1, tablet: { id, generation }, to: 2, startKey: "m", endKey: "s" };
  assert.equal(tablets.depart(move), null);
  const staying = ({ departure }: { departure?: unknown }) => departure === undefined;
  assert.deepEqual(tablets.runAt("g", all), RANGE);
  assert.deepEqual(tablets.runAt("g", staying), { startKey: "b", endKey: "m" });
  assert.equal(tablets.runAt("m", staying), null);
  assert.deepEqual(tablets.runAt("t", staying), { startKey: "s", endKey: "y" });
  // And where it went, nobody reads on.
  assert.ok(tablets.letGo(1));
  assert.deepEqual(tablets.runAt("g", all), { startKey: "b", endKey: "m" });
  assert.equal(tablets.runAt("p", all), null);
});

Deno.test("text that is not ASCII is split in the order of the store", () => {
  const replica = new Replayed();
  for (const key of ["é", "\ue000", "\u{1f600}", "\uffff"]) {
    assert.match(replica.split(key)!, /not in the group's range/);
    replica.put(`c${key}`, "x", 10);
  }
  assert.equal(replica.split("c\uffff"), null);
  const [left, right] = replica.state.tablets.list();
  assert.deepEqual([left!.counts.rows, right!.counts.rows], [2, 2]);
  replica.check();
});
