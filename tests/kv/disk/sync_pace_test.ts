import assert from "node:assert/strict";
import { SyncPace } from "../../../kv/disk/sync_pace.ts";

/** Feeds syncs of `ms`, one every 10 ms from `fromMs` on, and says how many were waited for. */
function syncs(pace: SyncPace, ms: number, { fromMs, count }: { fromMs: number; count: number }) {
  let here = 0;
  for (let i = 0; i < count; i++) {
    if (pace.isHere) here += 1;
    pace.note(ms, fromMs + 10 * i);
  }
  return here;
}

Deno.test("a quick disk is waited for on the spot, from its first sync on", () => {
  assert.equal(syncs(new SyncPace(), 0.1, { fromMs: 0, count: 1000 }), 999);
});

Deno.test("a slow disk is never waited for", () => {
  assert.equal(syncs(new SyncPace(), 12, { fromMs: 0, count: 1000 }), 0);
});

Deno.test("a disk of a few milliseconds is tried for some syncs, and less and less often", () => {
  const pace = new SyncPace();
  // Ten minutes.
  const here = syncs(pace, 4, { fromMs: 0, count: 60_000 });
  assert.ok(here >= 5 && here <= 5 * 18, `${here} of 60000 syncs were waited for`);
});

Deno.test("one stall ends the waiting for a second, a second one soon after for longer", () => {
  const pace = new SyncPace();
  syncs(pace, 0.1, { fromMs: 0, count: 100 });
  pace.note(500, 1_500);
  assert.equal(pace.isHere, false);
  assert.equal(syncs(pace, 0.1, { fromMs: 1_500, count: 100 }), 0);
  assert.ok(syncs(pace, 0.1, { fromMs: 2_500, count: 100 }) >= 99);
  pace.note(500, 3_500);
  assert.equal(syncs(pace, 0.1, { fromMs: 3_500, count: 200 }), 0);
  assert.ok(syncs(pace, 0.1, { fromMs: 5_500, count: 100 }) >= 99);
});

Deno.test("a stall after a long good time counts as the first", () => {
  const pace = new SyncPace();
  syncs(pace, 0.1, { fromMs: 0, count: 100 });
  for (const atMs of [1_000, 3_000, 7_000]) {
    pace.note(500, atMs);
    syncs(pace, 0.1, { fromMs: atMs, count: 390 });
  }
  syncs(pace, 0.1, { fromMs: 99_000, count: 100 });
  pace.note(500, 100_000);
  assert.equal(syncs(pace, 0.1, { fromMs: 100_000, count: 100 }), 0);
  assert.ok(syncs(pace, 0.1, { fromMs: 101_000, count: 100 }) >= 99);
});

Deno.test("syncs that are only now and then slower are still waited for", () => {
  const pace = new SyncPace();
  let here = 0;
  for (let i = 0; i < 1000; i++) {
    if (pace.isHere) here += 1;
    pace.note(i % 5 === 0 ? 2 : 0.1, 10 * i);
  }
  assert.equal(here, 999);
});
