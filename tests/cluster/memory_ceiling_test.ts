/**
 * The founding documents' sizes on real processes: ten megabytes of memory a node, eight a tablet, and
 * ten times as much data as fits.
 */
import assert from "node:assert/strict";
import { KvError } from "../../kv/errors.ts";
import { crc32 } from "node:zlib";
import { eventually } from "../eventually.ts";
import { verifiedEqual } from "./cluster_calls.ts";
import { startCluster, type TestCluster } from "./harness.ts";
import { put } from "../../kv/kv.ts";

const MIB = 1024 * 1024;
const NODE_BYTES = 10 * MIB, TABLET_BYTES = 8 * MIB;
const VALUE_BYTES = 25_000;
const BACKENDS = ["backend/0", "backend/1", "backend/2"];

/** A household's cluster under that ceiling. */
async function startTight(bytesMax = NODE_BYTES): Promise<TestCluster & AsyncDisposable> {
  const text = await Deno.readTextFile(new URL("../../cluster.small.toml", import.meta.url));
  const config = await Deno.makeTempFile({ suffix: ".toml" });
  await Deno.writeTextFile(
    config,
    text.replace(/^memory_bytes = .*$/m, `memory_bytes = ${bytesMax}`)
      .replace(/^tablet_max_bytes = .*$/m, `tablet_max_bytes = ${TABLET_BYTES}`),
  );
  return await startCluster({ config });
}

/** One figure of a node's metrics; several series are added up. */
async function metric(cluster: TestCluster, node: string, name: string): Promise<number> {
  const response = await fetch(`${cluster.opsUrl(node)}/metrics`);
  const values = [
    ...(await response.text()).matchAll(new RegExp(`^${name}(?:{.*})? (\\S+)$`, "gm")),
  ];
  assert(values.length > 0, `${node} has no ${name}`);
  return values.reduce((sum, [, value]) => sum + Number(value), 0);
}

async function assertBelowCeiling(cluster: TestCluster, bytesMax = NODE_BYTES): Promise<string> {
  const peaks: string[] = [];
  for (const node of BACKENDS) {
    assert.equal(await metric(cluster, node, "penncloud_memory_limit_bytes"), bytesMax);
    const peak = await metric(cluster, node, "penncloud_memory_peak_bytes");
    assert(peak <= bytesMax, `${node} held ${peak} bytes`);
    assert(await metric(cluster, node, "penncloud_memory_bytes") <= bytesMax);
    peaks.push((peak / MIB).toFixed(2));
  }
  return peaks.join(", ");
}

/** Other bytes for each row and round, told from nothing but their names. */
function valueOf(row: string, round: number): Uint8Array {
  const value = new Uint8Array(VALUE_BYTES);
  let state = crc32(`${row}/${round}`);
  for (let i = 0; i < VALUE_BYTES; i++) {
    state = Math.imul(state, 1664525) + 1013904223 | 0;
    value[i] = state >>> 24;
  }
  return value;
}

async function inLanes<T>(lanes: number, items: readonly T[], run: (item: T) => Promise<void>) {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await run(items[next++]!);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

Deno.test("ten times as much data as memory: all readable, tablets split, and the ceiling holds", async () => {
  await using cluster = await startTight();
  const { kv } = cluster;
  // A third each to the three groups, so that every node keeps 100 MiB and has memory for 10.
  const count = Math.ceil(100 * MIB / VALUE_BYTES);
  const rows = Array.from(
    { length: count },
    (_, i) => `${"bmt"[i % 3]}${String(i).padStart(6, "0")}`,
  );
  const startedMs = performance.now();
  const rss = () =>
    Promise.all(BACKENDS.map((n) => metric(cluster, n, "process_resident_memory_bytes")));
  await inLanes(24, rows.slice(0, count / 4), (row) => write(row, 1));
  const early = await rss();
  await inLanes(24, rows.slice(count / 4), (row) => write(row, 1));
  async function write(row: string, round: number): Promise<void> {
    await put(kv, row, "c", valueOf(row, round), { deadlineMs: 60_000 });
  }
  const seconds = (performance.now() - startedMs) / 1000;
  const peaks = await assertBelowCeiling(cluster);
  const late = await rss();
  const refusals = await Promise.all(
    BACKENDS.map((node) => metric(cluster, node, "penncloud_memory_refusals_total")),
  );
  const mib = (bytes: number[]) => bytes.map((it) => (it / MIB).toFixed(0)).join(", ");
  console.log(
    `${count} values, 100 MiB, in ${seconds.toFixed(0)} s; tracked at most ${peaks} MiB of ` +
      `${NODE_BYTES / MIB}; ${refusals.join(", ")} requests or appends told to wait; resident ` +
      `${mib(early)} MiB after a quarter, ${mib(late)} MiB at the end`,
  );

  // Overwrites, and reads that evict, at the same time.
  await Promise.all([
    inLanes(8, rows.filter((_, i) => i % 20 === 0), (row) => write(row, 2)),
    inLanes(8, rows.filter((_, i) => i % 20 === 7), (row) => check(row, 1)),
  ]);
  async function check(row: string, round: number): Promise<void> {
    const cell = await kv.get(row, "c", { deadlineMs: 60_000 });
    assert.deepEqual(cell?.value, valueOf(row, round), row);
  }
  await inLanes(16, rows.map((row, i) => [row, i % 20 === 0 ? 2 : 1] as const), ([row, round]) => {
    return check(row, round);
  });
  await assertBelowCeiling(cluster);

  const tablets = async () => {
    const { stdout } = await cluster.penncloud(["admin", "tablets", "--json"]);
    return JSON.parse(stdout) as { bytes: number; groupId: number }[];
  };
  await eventually(
    async () => (await tablets()).every(({ bytes }) => bytes <= TABLET_BYTES),
    "no tablet above its limit",
  );
  const perGroup = Map.groupBy(await tablets(), ({ groupId }) => groupId);
  for (const list of perGroup.values()) assert(list.length >= 5, `${list.length} tablets`);

  // A restart replays no more than fits.
  await Promise.all(BACKENDS.map((node) => cluster.crash(node)));
  await Promise.all(BACKENDS.map((node) => cluster.waitReady(node)));
  await inLanes(
    8,
    rows.filter((_, i) => i % 50 === 0),
    (row) => check(row, rows.indexOf(row) % 20 === 0 ? 2 : 1),
  );
  await assertBelowCeiling(cluster);
  await verifiedEqual(cluster);

  await assert.rejects(
    kv.apply({
      row: "big",
      mutations: Array.from({ length: 60 }, (_, i) => ({
        kind: "put" as const,
        column: `c${i}`,
        value: new Uint8Array(60_000),
      })),
    }),
    (error) =>
      error instanceof KvError && error.code === "invalid_request" &&
      /too large: with store.memory_bytes = 10485760 here it is at most 699050/.test(error.message),
  );
});

Deno.test("writers that ask for more memory than there is are slowed down, and none fails", async () => {
  const bytesMax = 4 * MIB;
  await using cluster = await startTight(bytesMax);
  const { kv } = cluster;
  const rows = Array.from({ length: 240 }, (_, i) => `${"bmt"[i % 3]}${i}`);
  // Up to 48 operations of 150 KB at once, each of which takes three times that for a moment.
  await inLanes(48, rows, async (row) => {
    await kv.apply({
      row,
      mutations: ["a", "b", "c"].map((column) => ({
        kind: "put" as const,
        column,
        value: new Uint8Array(50_000).fill(row.length),
      })),
    }, { deadlineMs: 60_000 });
  });
  const peaks = await assertBelowCeiling(cluster, bytesMax);
  const refusals = await Promise.all(
    BACKENDS.map((node) => metric(cluster, node, "penncloud_memory_refusals_total")),
  );
  console.log(
    `36 MB by 48 writers into ${bytesMax / MIB} MiB: at most ${peaks} MiB, ` +
      `${refusals.join(", ")} requests or appends told to wait`,
  );
  assert(refusals.some((count) => count > 0), "nobody had to wait, so this shows nothing");
  for (const row of rows) {
    const page = await kv.getRow(row, { deadlineMs: 60_000 });
    assert.deepEqual(page.cells.map(({ column, size }) => [column, size]), [
      ["a", 50_000],
      ["b", 50_000],
      ["c", 50_000],
    ]);
  }
});
