import assert from "node:assert/strict";
import { type CpuProfile, selfTimes } from "../../bench/cpu_profile.ts";

const frame = (functionName: string, url = "", lineNumber = -1) => ({
  callFrame: { functionName, url, lineNumber },
});
const REPOSITORY = "file:///home/somebody/kv/penncloud";
const PROFILE: CpuProfile = {
  startTime: 1_000_000,
  nodes: [
    { id: 1, ...frame("(program)") },
    { id: 2, ...frame("append", `${REPOSITORY}/kv/disk/wal.ts`, 9) },
    { id: 3, ...frame("", `${REPOSITORY}/kv/disk/wal.ts`, 19) },
    { id: 4, ...frame("parse", `${REPOSITORY}/node_modules/.deno/z/node_modules/zod/core.js`, 4) },
    { id: 5, ...frame("(garbage collector)") },
  ],
  samples: [2, 1, 2, 3, 4, 5, 2],
  timeDeltas: [1_000, 5_000, 1_000, 1_000, 1_000, 4_000, 90_000],
};
const UNTIL = { fromUs: 1_000_000, untilUs: 1_020_000 };

Deno.test("self times are summed by function, waiting and what is outside the window left out", () => {
  const times = selfTimes(PROFILE, { ...UNTIL, by: "function" });
  assert.deepEqual(times.map(({ name, ms }) => [name, ms]), [
    ["(garbage collector)", 4],
    ["append kv/disk/wal.ts:10", 2],
    ["(anonymous) kv/disk/wal.ts:20", 1],
    ["parse zod/core.js:5", 1],
  ]);
  assert.equal(times[0]!.share, 0.5);
});

Deno.test("self times by file add up the functions of each", () => {
  const times = selfTimes(PROFILE, { ...UNTIL, by: "file" });
  assert.deepEqual(times.map(({ name, ms }) => [name, ms]), [
    ["(garbage collector)", 4],
    ["kv/disk/wal.ts", 3],
    ["zod/core.js", 1],
  ]);
});
