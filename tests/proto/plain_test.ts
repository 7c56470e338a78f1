/** What is recognised by hand is exactly what the schemas would give back as it is. */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { z } from "zod";
import { CommandHead, isPlainRowOp } from "../../proto/command.ts";
import {
  ApplyReply,
  ApplyRequest,
  GetReply,
  GetRequest,
  isPlainApplied,
  isPlainApply,
  isPlainGet,
  isPlainGot,
} from "../../proto/kv_wire.ts";
import { isPlainReplicaMessage, ReplicaMessage } from "../../proto/replication.ts";

const key = fc.string({ minLength: 1, maxLength: 12 });
const count = fc.nat();
const value = fc.record({ size: count, crc: count });
const condition = fc.oneof(
  fc.record({ is: fc.constantFrom("absent", "present"), column: key }),
  fc.record({ is: fc.constant("version"), column: key, version: count }),
  fc.record({ is: fc.constant("value"), column: key, value }),
);
const mutation = fc.oneof(
  fc.record({ kind: fc.constant("put"), column: key, value }),
  fc.record({ kind: fc.constant("delete"), column: key }),
  fc.record({ kind: fc.constant("add"), column: key, by: fc.integer() }),
);
const op = fc.record({
  row: key,
  conditions: fc.array(condition, { maxLength: 3 }),
  mutations: fc.array(mutation, { minLength: 1, maxLength: 3 }),
});
const stamp = fc.record({
  clientId: fc.string({ minLength: 8, maxLength: 64 }),
  seq: fc.integer({ min: 1 }),
  firstIncomplete: fc.integer({ min: 1 }),
  issuedMs: fc.integer(),
});
const command = fc.record({ kind: fc.constant("rowOp"), stamp, timeMs: fc.integer(), op });
const target = { gid: fc.integer({ min: 1 }), hops: fc.nat(3) };
const request = fc.record({ ...target, stamp, op });
const applied = fc.record({
  kind: fc.constant("applied"),
  version: count,
  numbers: fc.array(fc.integer(), { maxLength: 3 }),
});
const get = fc.record({ ...target, row: key, column: key });
const cell = fc.record({ version: count, size: count, crc: count });
const got = fc.record({ lsn: count, cell: fc.option(cell) });

const head = {
  gid: fc.integer({ min: 1 }),
  from: count,
  store: fc.string({ minLength: 1, maxLength: 64 }),
  inc: count,
  toInc: count,
  epoch: count,
  reign: count,
};
const clockMs = fc.double({ noNaN: true, noDefaultInfinity: true });
const message = fc.oneof(
  fc.record({
    kind: fc.constant("heartbeat"),
    ...head,
    sentMs: clockMs,
    beat: count,
    commitLsn: count,
    echoMs: fc.option(clockMs),
    check: fc.option(fc.record({ lsn: count, hash: fc.string() })),
  }),
  fc.record({
    kind: fc.constant("heartbeatAck"),
    ...head,
    sentMs: clockMs,
    beat: count,
    stampMs: clockMs,
  }),
  fc.record({ kind: fc.constant("appendAck"), ...head, matchLsn: count }),
);

const junk = fc.oneof(
  fc.constantFrom(null, -1, 0.5, 2 ** 53, "", "x".repeat(1025), [], {}, true, "put", 257),
  fc.array(fc.constant({ kind: "delete", column: "c" }), { minLength: 257, maxLength: 257 }),
  fc.string(),
);

/** A copy in which the `at`-th place is something else, is gone, or has a neighbour. */
function spoiled(whole: unknown, at: number, by: unknown, way: "set" | "drop" | "add"): unknown {
  const copy = structuredClone(whole), places: { of: Record<string, unknown>; name: string }[] = [];
  const walk = (of: unknown): void => {
    if (typeof of !== "object" || of === null) return;
    for (const name of Object.keys(of)) {
      places.push({ of: of as Record<string, unknown>, name });
      walk((of as Record<string, unknown>)[name]);
    }
  };
  walk(copy);
  const { of, name } = places[at % places.length]!;
  if (way === "set") of[name] = by;
  else if (way === "add") of[`${name}2`] = by;
  else if (Array.isArray(of)) of.splice(Number(name), 1);
  else delete of[name];
  return JSON.parse(JSON.stringify(copy));
}

function agree<T>(
  whole: fc.Arbitrary<T>,
  isPlain: (value: unknown) => boolean,
  schema: z.ZodType,
): void {
  fc.assert(fc.property(asJson(whole), (sound) => {
    assert.ok(isPlain(sound));
    assert.deepEqual(schema.parse(sound), sound);
  }));
  const way = fc.constantFrom("set" as const, "drop" as const, "add" as const);
  let refused = 0;
  fc.assert(
    fc.property(asJson(whole), fc.nat(200), junk, way, (sound, at, by, way) => {
      const value = spoiled(sound, at, by, way);
      if (!isPlain(value)) return void (refused += 1);
      const parsed = schema.safeParse(value);
      assert.ok(parsed.success, "what is taken by hand is sound");
      assert.deepEqual(parsed.data, value);
    }),
    { numRuns: 3000 },
  );
  assert.ok(refused > 1000, `only ${refused} were refused`);
}

Deno.test("isPlainRowOp() takes only commands that their schema would take as they are", () => {
  agree(command, isPlainRowOp, CommandHead);
});

Deno.test("isPlainApply() takes only requests that their schema would take as they are", () => {
  agree(request, isPlainApply, ApplyRequest);
});

Deno.test("isPlainApplied() takes only answers that their schema would take as they are", () => {
  agree(applied, isPlainApplied, ApplyReply);
});

Deno.test("isPlainGet() takes only requests that their schema would take as they are", () => {
  agree(get, isPlainGet, GetRequest);
});

Deno.test("isPlainGot() takes only answers that their schema would take as they are", () => {
  agree(got, isPlainGot, GetReply);
});

Deno.test("isPlainReplicaMessage() takes only messages that their schema would take as they are", () => {
  agree(message, isPlainReplicaMessage, ReplicaMessage);
});

/** As it comes off a connection. */
function asJson<T>(whole: fc.Arbitrary<T>): fc.Arbitrary<T> {
  return whole.map((value) => JSON.parse(JSON.stringify(value)));
}
