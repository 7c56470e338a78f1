/**
 * Room for new clients where completion records take all that they may: clients that ended give up
 * their places within seconds, and nothing that was forgotten is executed again.
 */
import assert from "node:assert/strict";
import {
  Completions,
  IDLE_MS,
  RECORD_LIFE_MS,
  REMEMBERED_AGE_MS,
  SavedCompletions,
} from "../../kv/completions.ts";
import { GroupState } from "../../kv/group_state.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import type { RequestStamp } from "../../proto/command.ts";
import { epoch, lsn, version } from "../../proto/ids.ts";
import { type Bench, primary } from "./replica_bench.ts";

const CLIENTS = 16;

const stampOf = (client: number, issuedMs: number, seq = 1) => (
  { clientId: `client-${client}`, seq, firstIncomplete: seq, issuedMs }
);

/** Clients 1 to 16, heard one after the other, a millisecond apart by their own clocks. */
function fullOf(clients: number): Completions {
  const completions = new Completions();
  for (let client = 1; client <= clients; client++) {
    const outcome = { kind: "applied" as const, version: version(client), numbers: [] };
    completions.record(stampOf(client, client), outcome, { timeMs: client, lsn: lsn(client) });
  }
  return completions;
}

Deno.test("the clients that were silent for longest make room, an eighth of it at a time", () => {
  const completions = fullOf(CLIENTS), { bytes } = completions;
  const idle = { heardThrough: lsn(10), issuedBeforeMs: 1_000 };
  const order = completions.idleToForget(idle, bytes)!;
  assert.deepEqual(order, { heardThrough: 2, issuedBeforeMs: 1_000 });
  completions.forgetIdle(order);
  assert.equal(completions.clientCount, CLIENTS - 2);
  assert.equal(completions.bytes, bytes * (CLIENTS - 2) / CLIENTS);
  assert(completions.hasRoom(stampOf(99, 1_000), 1_000, bytes));
  assert.deepEqual(completions.find(stampOf(3, 3)), {
    kind: "applied",
    version: 3,
    numbers: [],
  });
});

Deno.test("nobody who was heard lately is forgotten, nor one whose clock is ahead of the newcomer's", () => {
  const completions = fullOf(CLIENTS), { bytes } = completions;
  assert.equal(completions.idleToForget({ heardThrough: lsn(0), issuedBeforeMs: 99 }, bytes), null);
  assert.equal(completions.idleToForget({ heardThrough: lsn(9), issuedBeforeMs: 1 }, bytes), null);
  completions.forgetIdle({ heardThrough: lsn(9), issuedBeforeMs: 3 });
  assert.equal(completions.clientCount, CLIENTS - 2);
});

Deno.test("a request that may be a forgotten one is not executed, also after a checkpoint", () => {
  const before = fullOf(CLIENTS);
  before.forgetIdle({ heardThrough: lsn(4), issuedBeforeMs: 1_000 });
  const saved = SavedCompletions.parse(JSON.parse(JSON.stringify(before.save())));
  for (const completions of [before, Completions.load(saved)]) {
    assert.equal(completions.find(stampOf(4, 4)), "forgotten");
    assert.equal(completions.find(stampOf(1, 1)), "forgotten");
    assert.equal(completions.find(stampOf(99, 4)), "forgotten", "it could be anybody's");
    assert.equal(completions.find(stampOf(99, 5)), undefined, "issued since, so it is new");
    assert.equal(completions.find(stampOf(4, 5, 2)), undefined, "and this is as well");
    assert.equal(completions.bytes, before.bytes);
  }
});

/** A primary with room for so many clients, of which all places are taken at once. */
class CrowdedGroup {
  readonly bench: Bench;
  #lastLsn = 1;
  #lastRequest = 1_000;

  constructor(clients: number) {
    const completionBytes = fullOf(clients).bytes;
    this.bench = primary(undefined, undefined, {
      memory: {
        recentLogBytes: 0,
        appendBytes: 1 << 20,
        lagBytes: Infinity,
        completionBytes,
        lockBytes: Infinity,
      },
    });
    for (let client = 1; client <= clients; client++) {
      assert.equal(this.ask(client, client), "applied");
    }
  }

  /** Puts the client's number, and has it committed if it was taken. */
  ask(client: number, issuedMs: number, seq = 1): string {
    const { bench } = this, requestId = ++this.#lastRequest;
    const mutations = [{ kind: "add" as const, column: "n", by: 1 }];
    const request = { kind: "rowOp" as const, op: toLogRowOp({ row: `r${client}`, mutations }) };
    const stamp = stampOf(client, issuedMs, seq);
    bench.step({ kind: "request", requestId, stamp, request, wallMs: 0 });
    this.settle();
    const answer = bench.answerTo(requestId);
    if (answer?.kind === "reply") return answer.outcome.kind;
    assert(answer?.kind === "refuse");
    return answer.code;
  }

  settle(): void {
    const { bench } = this;
    bench.sync();
    const { lastLsn } = bench.replica;
    if (lastLsn === this.#lastLsn) return;
    this.#lastLsn = lastLsn;
    for (const peer of [1, 2]) bench.ack(peer, lastLsn);
  }

  /** Time passes; nobody but the peers is heard. */
  pass(ms: number): void {
    const untilMs = this.bench.nowMs + ms;
    while (this.bench.nowMs < untilMs) {
      this.bench.nowMs += 200;
      this.bench.step({ kind: "tick" });
      for (const peer of [1, 2]) this.bench.promise(peer);
      this.settle();
    }
  }

  times(client: number): number {
    const cell = this.bench.replica.state.store.get(`r${client}`, "n");
    return cell === undefined ? 0 : Number(new TextDecoder().decode(cell.value as Uint8Array));
  }
}

Deno.test("a new client that finds no room gets in as soon as others have been silent for a few seconds", () => {
  const group = new CrowdedGroup(CLIENTS);
  assert.equal(group.ask(50, 100), "busy");
  assert.equal(group.ask(50, 100), "busy", "everybody was heard just now");
  group.pass(IDLE_MS + 2_000);
  assert.equal(group.ask(CLIENTS, 200, 2), "applied", "who is known is never turned away");
  assert.equal(group.ask(50, 100), "busy", "room is being made");
  assert.equal(group.ask(50, 100), "applied");
  assert.equal(group.ask(51, 101), "applied", "and there is some for the next one");
});

Deno.test("a retry that comes after its record was given up is refused, not executed again", () => {
  const group = new CrowdedGroup(CLIENTS);
  group.pass(IDLE_MS + 2_000);
  while (group.ask(50, 100) === "busy");
  assert.equal(group.times(1), 1);
  assert.equal(group.ask(1, 1), "session_too_old");
  assert.equal(group.times(1), 1);
  assert.equal(group.ask(1, 102, 2), "applied", "what is new is executed");
  assert.equal(group.times(1), 2);
});

Deno.test("a copy that was let in before the group's time leapt is not executed again behind the leap", () => {
  const state = new GroupState(new MemoryCellStore(), { rowBytesMax: 1 << 20 });
  let last = 0;
  const add = (stamp: RequestStamp, timeMs: number) => {
    const op = toLogRowOp({ row: "r", mutations: [{ kind: "add", column: "n", by: 1 }] });
    return state.apply({ kind: "rowOp", op, stamp, timeMs }, lsn(++last));
  };
  const stamp = stampOf(1, 1_000), leapMs = 1_000 + 2 * RECORD_LIFE_MS;
  assert.equal(add(stamp, 1_000)?.kind, "applied");
  // A new primary's clock, or another group's whose tablet arrives, is far ahead.
  state.apply({ kind: "epochStart", reign: epoch(2), timeMs: leapMs }, lsn(++last));
  assert.equal(add(stamp, 1_050), null, "nobody can tell whether it was executed");
  const next = add(stampOf(1, leapMs, 2), leapMs);
  assert.deepEqual(next, { kind: "applied", version: version(4), numbers: [2] });
});

Deno.test("within the life of records a request is executed however long it lay in the log", () => {
  const state = new GroupState(new MemoryCellStore(), { rowBytesMax: 1 << 20 });
  const timeMs = 1_000 + REMEMBERED_AGE_MS;
  state.apply({ kind: "epochStart", reign: epoch(1), timeMs }, lsn(1));
  const op = toLogRowOp({ row: "r", mutations: [{ kind: "add", column: "n", by: 1 }] });
  const outcome = state.apply(
    { kind: "rowOp", op, stamp: stampOf(1, 1_000), timeMs: 1_000 },
    lsn(2),
  );
  assert.equal(outcome?.kind, "applied");
});

Deno.test("just the outcomes that a client has its answers to are dropped, however far it goes on at once", () => {
  const completions = new Completions(), kept = new Set<number>();
  let bytesOfClient = 0, bytesOfOutcome = 0;
  // In the order in which the requests are applied, which is not the one in which they were made.
  for (
    const [seq, confirmed] of [[3, 1], [1, 1], [2, 2], [7, 4], [5, 5], [900, 6], [901, 899], [
      950,
      950,
    ]]
  ) {
    const outcome = { kind: "applied" as const, version: version(seq!), numbers: [] };
    const stamp = { clientId: "client", seq: seq!, firstIncomplete: confirmed!, issuedMs: 1 };
    const before = completions.bytes;
    completions.record(stamp, outcome, { timeMs: 1, lsn: lsn(seq!) });
    const added = completions.bytes - before;
    if (seq === 1) bytesOfOutcome = added;
    if (kept.size === 0) bytesOfClient = added;
    kept.add(seq!);
    for (const each of kept) if (each < confirmed!) kept.delete(each);
    const { outcomes } = completions.save().clients[0]!;
    assert.deepEqual(new Set(outcomes.map(([each]) => each)), kept);
  }
  assert.equal(completions.bytes, bytesOfClient + bytesOfOutcome * (kept.size - 1));
  assert.equal(
    completions.find({ clientId: "client", seq: 7, firstIncomplete: 1, issuedMs: 1 }),
    "forgotten",
  );
});
