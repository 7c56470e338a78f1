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

Deno.test("a disk of a few milliseconds is tried for some syncs, every eight seconds in the end", () => {
  const pace = new SyncPace();
  // Ten minutes.
  const here = syncs(pace, 4, { fromMs: 0, count: 60_000 });
  assert.ok(here >= 60 * 5 && here <= 80 * 5, `${here} of 60000 syncs were waited for`);
});

Deno.test("a disk that was quick and is busy for a moment is waited for again a second later", () => {
  const pace = new SyncPace();
  for (const fromMs of [0, 20_000, 40_000]) {
    syncs(pace, 0.1, { fromMs, count: 400 });
    assert.equal(pace.isHere, true);
    assert.equal(syncs(pace, 4, { fromMs: fromMs + 4_000, count: 90 }), 5);
    assert.ok(syncs(pace, 0.1, { fromMs: fromMs + 5_100, count: 100 }) >= 99);
  }
});

Deno.test("a stall ends the waiting for a hundred times as long as it took", () => {
  const pace = new SyncPace();
  syncs(pace, 0.1, { fromMs: 0, count: 100 });
  pace.note(50, 1_500);
  assert.equal(pace.isHere, false);
  assert.equal(syncs(pace, 0.1, { fromMs: 1_500, count: 500 }), 0);
  assert.ok(syncs(pace, 0.1, { fromMs: 6_500, count: 100 }) >= 99);
  pace.note(10, 8_000);
  assert.equal(syncs(pace, 0.1, { fromMs: 8_000, count: 100 }), 0);
  assert.ok(syncs(pace, 0.1, { fromMs: 9_000, count: 100 }) >= 99);
});

Deno.test("a disk that hangs for long is left alone for a minute", () => {
  const pace = new SyncPace();
  syncs(pace, 0.1, { fromMs: 0, count: 100 });
  pace.note(20_000, 21_000);
  assert.equal(syncs(pace, 0.1, { fromMs: 21_000, count: 6_000 }), 0);
  assert.ok(syncs(pace, 0.1, { fromMs: 81_000, count: 100 }) >= 99);
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
