/**
 * The client against a scripted cluster: what it sends again, under which stamp, and what it tells
 * its caller when nobody knows what happened.
 */
import assert from "node:assert/strict";
import { KvClient, type KvMethod, type KvTransport, NotAnsweredError } from "../../kv/client.ts";
import type { Env } from "../../kv/env.ts";
import { KvError, type KvErrorCode } from "../../kv/errors.ts";
import { encodeText, KvSession, type RowOp } from "../../kv/kv.ts";
import { epoch, groupId, nodeId } from "../../proto/ids.ts";

class Refused extends KvError {
  constructor(code: KvErrorCode, readonly details: Record<string, unknown> = {}) {
    super(code, `refused: ${code}`);
  }
}

interface Call {
  readonly node: number;
  readonly method: KvMethod;
  readonly body: { stamp?: { seq: number; firstIncomplete: number; issuedMs: number } };
}

type Script = (call: Call, count: number) => unknown;

function clientOf(script: Script, primaries: number[] = [0]) {
  let nowMs = 0, version = 0;
  const calls: Call[] = [];
  const env = {
    monotonicMs: () => nowMs,
    wallMs: () => nowMs,
    random: () => 0.5,
    secretBytes: (count: number) => new Uint8Array(count).fill(7),
    // Waiting costs only virtual time.
    sleep: (ms: number) => {
      nowMs += ms + 1;
      return Promise.resolve();
    },
  } as unknown as Env;
  const transport: KvTransport = {
    // deno-lint-ignore require-await -- the script throws or answers
    async call(node, method, body) {
      const call = { node, method, body: body as Call["body"] };
      calls.push(call);
      return { body: script(call, calls.length), payload: new Uint8Array() };
    },
    async fetchRoutes(_preferred, offer): Promise<void> {
      await Promise.resolve();
      const primary = primaries[Math.min(version, primaries.length - 1)]!;
      version += 1;
      const members = [nodeId(0), nodeId(1), nodeId(2)];
      offer({
        version,
        ranges: 0,
        routes: [{
          gid: groupId(1),
          startKey: "",
          endKey: null,
          epoch: epoch(version),
          primary: nodeId(primary),
          members,
        }],
      });
    },
  };
  return { client: new KvClient({ env, transport }), calls };
}

const PUT: RowOp = {
  row: "r",
  mutations: [{ kind: "put", column: "c", value: encodeText("v") }],
};
const DONE = { kind: "applied", version: 5, numbers: [] };

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "done";
  } catch (error) {
    return error instanceof KvError ? error.code : String(error);
  }
}

Deno.test("KvClient repeats a write under one stamp until the new primary answers", async () => {
  const { client, calls } = clientOf((call, count) => {
    if (count === 1) throw new NotAnsweredError("connection lost", true);
    if (count === 2) throw new Refused("not_primary", { hint: null });
    assert.equal(call.node, 2);
    return DONE;
  }, [0, 1, 2]);
  assert.equal((await client.apply(PUT)).applied, true);
  const stamps = new Set(calls.map((call) => JSON.stringify(call.body.stamp)));
  assert.equal(stamps.size, 1, "every attempt must carry the same stamp");
});

Deno.test("KvClient follows a hint without asking for the map", async () => {
  const { client, calls } = clientOf((call) => {
    if (call.node === 0) throw new Refused("not_primary", { hint: 1 });
    return DONE;
  });
  await client.apply(PUT);
  assert.deepEqual(calls.map((call) => call.node), [0, 1]);
});

Deno.test("KvClient says `unavailable` only when the write certainly did not happen", async () => {
  const never = clientOf(() => {
    throw new NotAnsweredError("connection refused", false);
  });
  assert.equal(await codeOf(never.client.apply(PUT)), "unavailable");

  const perhaps = clientOf((_call, count) => {
    // Once it was sent and not answered; after that nobody can be reached.
    throw new NotAnsweredError("gone", count === 1);
  });
  assert.equal(await codeOf(perhaps.client.apply(PUT)), "outcome_unknown");

  const deposed = clientOf((_call, count) => {
    throw new Refused("not_primary", { hint: null, maybeApplied: count === 1 });
  });
  assert.equal(await codeOf(deposed.client.apply(PUT)), "outcome_unknown");
});

Deno.test("KvClient hands a full disk and a bad request to its caller at once", async () => {
  for (const code of ["disk_full", "invalid_request", "row_too_large", "corrupted"] as const) {
    const { client, calls } = clientOf(() => {
      throw new Refused(code);
    });
    assert.equal(await codeOf(client.apply(PUT)), code);
    assert.equal(calls.length, 1);
  }
});

Deno.test("KvClient stamps with the group's time where its own clock is too far from it", async () => {
  const groupTimeMs = 3_600_000;
  const stale = (call: Call) => Math.abs(call.body.stamp!.issuedMs - groupTimeMs) > 60_000;
  const { client, calls } = clientOf((call) => {
    if (stale(call)) throw new Refused("session_too_old", { maybeApplied: false, groupTimeMs });
    return DONE;
  });
  assert.equal(await codeOf(client.apply(PUT)), "done");
  assert.equal(await codeOf(client.apply(PUT)), "done");
  assert.deepEqual(calls.map(stale), [true, false, false], "what it learned lasts");
  assert.deepEqual(calls.map(({ body }) => body.stamp!.seq), [1, 1, 2]);
});

Deno.test("KvClient never stamps anew what may have been executed", async () => {
  const { client, calls } = clientOf((_call, count) => {
    if (count === 1) throw new NotAnsweredError("connection lost", true);
    throw new Refused("session_too_old", { maybeApplied: false, groupTimeMs: 3_600_000 });
  });
  assert.equal(await codeOf(client.apply(PUT)), "session_too_old");
  assert.equal(calls.length, 2);
  assert.deepEqual(calls[0]!.body.stamp, calls[1]!.body.stamp);
});

Deno.test("KvClient waits out a busy or unavailable primary", async () => {
  const { client } = clientOf((_call, count) => {
    if (count < 4) throw new Refused(count % 2 === 0 ? "busy" : "unavailable");
    return DONE;
  });
  assert.equal(await codeOf(client.apply(PUT)), "done");
});

Deno.test("KvClient tells the servers which answers it still waits for", async () => {
  const { client, calls } = clientOf((call) => {
    if (call.body.stamp!.seq !== 1) return DONE;
    throw new Refused("busy");
  });
  const first = client.apply(PUT, { deadlineMs: 50 }).catch(() => {});
  await client.apply(PUT);
  await first;
  await client.apply(PUT);
  const seen = calls.filter((call) => call.body.stamp!.seq > 1).map((call) => call.body.stamp);
  assert.deepEqual(seen.map((stamp) => stamp!.firstIncomplete), [1, 3]);
});

Deno.test("KvClient refuses what breaks a limit before anything is sent", async () => {
  const { client, calls } = clientOf(() => DONE);
  const value = new Uint8Array(1);
  const bad: RowOp[] = [
    { row: "", mutations: PUT.mutations },
    { row: "r\0", mutations: PUT.mutations },
    { row: "\ud800", mutations: PUT.mutations },
    { row: "x".repeat(1025), mutations: PUT.mutations },
    { row: "r", mutations: [] },
    {
      row: "r",
      mutations: [{ kind: "put", column: "c", value: new Uint8Array(4 * 1024 * 1024 + 1) }],
    },
    { row: "r", mutations: Array(257).fill({ kind: "put", column: "c", value }) },
    { row: "r", mutations: [{ kind: "add", column: "c", by: 0.5 }] },
  ];
  for (const op of bad) assert.equal(await codeOf(client.apply(op)), "invalid_request");
  assert.equal(calls.length, 0);
});

Deno.test("KvClient repeats a write of several rows under one stamp, and says when nobody knows", async () => {
  const ops: RowOp[] = [PUT, { ...PUT, row: "s" }];
  const { client, calls } = clientOf((call, count) => {
    assert.equal(call.method, "multiRow");
    if (count === 1) throw new NotAnsweredError("connection lost", true);
    return { kind: "refused", opIndex: 1, conditionIndex: 0, version: 7 };
  }, [0, 1]);
  const result = await client.transact(ops);
  assert.deepEqual(result, { applied: false, opIndex: 1, row: "s", conditionIndex: 0, version: 7 });
  assert.equal(new Set(calls.map((call) => JSON.stringify(call.body.stamp))).size, 1);
  const silent = clientOf(() => {
    throw new NotAnsweredError("silence", true);
  });
  assert.equal(await codeOf(silent.client.transact(ops, { deadlineMs: 50 })), "outcome_unknown");
});

Deno.test("a read with a session may go to any replica, and asks for what the session has seen", async () => {
  const bounds: unknown[] = [];
  const { client, calls } = clientOf(({ method, body }) => {
    if (method === "apply") return { kind: "applied", version: 41, numbers: [] };
    bounds.push((body as { bound?: unknown }).bound);
    return { lsn: 57, cell: null };
  });
  const session = new KvSession();
  const op: RowOp = { row: "r", mutations: [{ kind: "delete", column: "c" }] };
  await client.apply(op, { session });
  await client.get("r", "c", { session });
  await client.get("r", "c", { session, maxStaleMs: 500 });
  await client.get("r", "c", { maxStaleMs: 500 });
  await client.get("r", "c");
  assert.deepEqual(bounds, [
    { minLsn: 41 },
    { maxStaleMs: 500, minLsn: 57 },
    { maxStaleMs: 500 },
    undefined,
  ]);
  assert.deepEqual(
    calls.map(({ node }) => node),
    [0, 1, 1, 1, 0],
    "only the newest needs the primary",
  );
});

const LOCKED = { kind: "locked", row: "r", txn: { id: "transaction-1", anchor: "z" } };
const SETTLED = { kind: "settled", state: "gone", version: 9 };

Deno.test("KvClient settles a lock in its way and sends the same write again", async () => {
  for (const state of ["gone", "committed"]) {
    let locked = true;
    const { client, calls } = clientOf(({ method, body }) => {
      if (method === "txnState") return { state, remainingMs: 0 };
      if (method === "settle") {
        assert.equal((body as { step?: string }).step, state === "gone" ? "back" : "forward");
        locked = false;
        return SETTLED;
      }
      return locked ? LOCKED : DONE;
    });
    assert.equal((await client.apply(PUT)).applied, true);
    assert.deepEqual(calls.map(({ method }) => method), ["apply", "txnState", "settle", "apply"]);
    const [first, , , last] = calls;
    assert.deepEqual(first!.body.stamp!.seq, last!.body.stamp!.seq, "under one stamp");
  }
});

Deno.test("KvClient aborts a transaction in its way only once its time is over", async () => {
  let remainingMs = 100;
  const { client, calls } = clientOf(({ method, body }) => {
    if (method === "txnState") return { state: "pending", remainingMs };
    if (method === "settle") {
      assert.deepEqual([(body as { step?: string }).step, remainingMs], ["expire", 0]);
      remainingMs = -1;
      return SETTLED;
    }
    if (remainingMs < 0) return DONE;
    remainingMs = Math.max(0, remainingMs - 20);
    return LOCKED;
  });
  assert.equal((await client.apply(PUT)).applied, true);
  assert.equal(calls.filter(({ method }) => method === "settle").length, 1);
});

Deno.test("KvClient gives up on a locked row at the deadline, and says what it knows", async () => {
  const pending = { state: "pending", remainingMs: 1e6 };
  const waiting = clientOf(({ method }) => method === "txnState" ? pending : LOCKED);
  assert.equal(await codeOf(waiting.client.apply(PUT, { deadlineMs: 500 })), "busy");
  const unsure = clientOf(({ method }, count) => {
    if (count === 1) throw new NotAnsweredError("connection lost", true);
    return method === "txnState" ? pending : LOCKED;
  });
  assert.equal(await codeOf(unsure.client.apply(PUT, { deadlineMs: 500 })), "outcome_unknown");
});

Deno.test("KvClient reads a locked row as it was while the transaction is undecided, else again", async () => {
  const cell = (version: number, locks?: unknown) => ({
    cell: { version, size: 0, crc: 0 },
    lsn: 1,
    ...(locks === undefined ? {} : { locks }),
  });
  const locks = [{ row: "r", id: "transaction-1", anchor: "z" }];
  const undecided = clientOf(({ method }) =>
    method === "txnState" ? { state: "pending", remainingMs: 5 } : cell(1, locks)
  );
  assert.equal((await undecided.client.get("r", "c"))!.version, 1);
  let settled = false;
  const decided = clientOf(({ method }) => {
    if (method === "txnState") return { state: "committed", remainingMs: 0 };
    if (method === "get") return settled ? cell(2) : cell(1, locks);
    settled = true;
    return { ...SETTLED, state: "committed" };
  });
  assert.equal((await decided.client.get("r", "c"))!.version, 2);
  const away = clientOf(({ method }) => {
    if (method === "get") return cell(1, locks);
    throw new NotAnsweredError("silence", true);
  });
  // What it cannot settle it does not guess; and a read is never of unknown outcome.
  assert.equal(await codeOf(away.client.get("r", "c", { deadlineMs: 100 })), "unavailable");
});
