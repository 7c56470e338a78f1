/** What `penncloud admin status` prints. */
import assert from "node:assert/strict";
import { bytes, duration, nodesTable, statusText, tabletsTable } from "../../cli/status_tables.ts";
import type { ClusterStatus, NodeStatus, TabletStatus } from "../../proto/cluster_status.ts";

const NOW_MS = 1_700_000_100_000;
const backend: NodeStatus = {
  name: "backend/3",
  role: "backend",
  id: 3,
  host: "127.0.0.1",
  port: 10_003,
  zone: "",
  state: "live",
  sinceMs: NOW_MS - 65_000,
  pid: 4321,
  startedMs: NOW_MS - 66_000,
  requestsPerSecond: 12.3,
  cpu: 0.256,
  memoryBytes: 60 * 1024 * 1024,
  logBytes: 1000,
  dataBytes: 2048,
  connections: null,
  primaryOf: [4],
  secondaryOf: [5, 6],
  problem: null,
};
const frontend: NodeStatus = {
  ...backend,
  name: "frontend/0",
  role: "frontend",
  id: 0,
  port: 8000,
  state: "down",
  pid: null,
  dataBytes: null,
  connections: 7,
  primaryOf: [],
  secondaryOf: [],
};
const tablet: TabletStatus = {
  id: "4.1",
  generation: 1,
  groupId: 4,
  startKey: "j",
  endKey: null,
  epoch: 12,
  state: "degraded",
  primary: 3,
  secondaries: [4],
  learners: [5],
  rows: 100,
  cells: 300,
  bytes: 5000,
  largeBytes: 0,
  readsPerSecond: 0,
  writesPerSecond: 1234.5,
};
const status: ClusterStatus = {
  name: "home",
  mailDomain: "penncloud.test",
  generatedMs: NOW_MS,
  problems: ["frontend/0 (port 8000) is down"],
  nodes: [backend, frontend],
  tablets: [tablet],
};

Deno.test("nodesTable() aligns its columns, numbers to the right", () => {
  assert.equal(
    nodesTable([backend, frontend], NOW_MS),
    [
      "NODE        ADDRESS          STATE   SINCE   PID  REQ/S  CPU    MEMORY     DATA  LOAD",
      "backend/3   127.0.0.1:10003  live   1m 05s  4321     12  26%  60.0 MiB  2.0 KiB  4 / 5,6",
      "frontend/0  127.0.0.1:8000   down   1m 05s     -     12  26%  60.0 MiB        -  7 connections",
    ].join("\n"),
  );
});

Deno.test("tabletsTable() shows range, epoch, primary, secondaries and learners", () => {
  assert.match(
    tabletsTable([tablet]),
    /\n4\.1 +\["j", \) +degraded +12 +backend\/3 +4 +5 +100 +4\.9 KiB +0 +1235$/,
  );
});

Deno.test("tabletsTable() shows where a tablet is on its way to, and how far the copy is", () => {
  const move = {
    id: 7,
    to: 2,
    state: "copying",
    phase: "copying",
    bytes: 512,
    bytesTotal: 1024,
  } as const;
  assert.match(tabletsTable([{ ...tablet, move }]), / degraded, to group 2: copying 50% /);
  const committed = { ...move, state: "committed" } as const;
  assert.match(tabletsTable([{ ...tablet, move: committed }]), / degraded, to group 2: committed /);
});

Deno.test("statusText() begins with a sum and what is wrong", () => {
  const lines = statusText(status).split("\n");
  assert.equal(lines[0], "home (penncloud.test): 1 of 2 nodes live, 0 of 1 tablets healthy");
  assert.equal(lines[2], "! frontend/0 (port 8000) is down");
});

Deno.test("bytes() and duration() give two or three digits", () => {
  assert.deepEqual([0, 1023, 1024, 150 * 1024, 3 * 2 ** 30].map(bytes), [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "150 KiB",
    "3.0 GiB",
  ]);
  assert.deepEqual([5_000, 65_000, 3_700_000, 100_000_000].map(duration), [
    "5s",
    "1m 05s",
    "1h 01m",
    "1d 03h",
  ]);
});
