/** Tablets that split and merge in a cluster of real processes. */
import assert from "node:assert/strict";
import { decodeText, type Kv, put, remove, scanSnapshot } from "../../kv/kv.ts";
import { eventually } from "../eventually.ts";
import { verifiedEqual } from "./cluster_calls.ts";
import { startCluster, type TestCluster } from "./harness.ts";
import { Workload } from "./workload.ts";

interface Shown {
  readonly id: string;
  readonly groupId: number;
  readonly generation: number;
  readonly startKey: string;
  readonly endKey: string | null;
  readonly primary: number | null;
  readonly secondaries: readonly number[];
  readonly epoch: number;
  readonly rows: number;
  readonly bytes: number;
}

async function json<T>(cluster: TestCluster, args: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await cluster.penncloud([...args, "--json"]);
  if (code !== 0) throw new Error(`admin ended with ${code}: ${stderr}`);
  return JSON.parse(stdout);
}

const tabletsOf = (cluster: TestCluster) => json<Shown[]>(cluster, ["admin", "tablets"]);

/** A three-backend cluster with small tablets. */
async function startSmall(store: string): Promise<TestCluster & AsyncDisposable> {
  const config = await Deno.makeTempFile({ suffix: ".toml" });
  const text = await Deno.readTextFile(new URL("../../cluster.small.toml", import.meta.url));
  const keys = store.split("\n").map((line) => line.split(" = ")[0]!);
  const others = text.split("\n").filter((line) => !keys.some((key) => line.startsWith(`${key} `)));
  await Deno.writeTextFile(config, others.join("\n").replace("[store]", `[store]\n${store}`));
  return await startCluster({ config });
}

Deno.test("a tablet is split and merged by hand while it is written, and nobody notices", async () => {
  await using cluster = await startCluster();
  const { kv } = cluster;
  const work = new Workload(kv, { rows: ["barn", "bell", "boat", "tree"] });
  await work.progress(200);
  const split = await json<{ id: number; startKey: string }[]>(cluster, ["admin", "split", "bd"]);
  assert.deepEqual(split.map(({ startKey }) => startKey), ["", "bd"]);
  await work.progress(200);
  let tablets: Shown[] = [];
  await eventually(
    async () => {
      tablets = await tabletsOf(cluster);
      return tablets.length === 4 && tablets.every(({ secondaries }) => secondaries.length === 2);
    },
    "the status shows it, with all replicas in sync",
  );
  const [left, right] = tablets;
  assert.deepEqual([left!.id, left!.endKey, right!.id, right!.startKey], [
    `${left!.groupId}.1`,
    "bd",
    `${left!.groupId}.2`,
    "bd",
  ]);
  assert.equal(left!.primary, right!.primary);
  assert.equal(left!.epoch, right!.epoch);
  const again = await cluster.penncloud(["admin", "split", "bd"]);
  assert.equal(again.code, 2);
  assert.match(again.stderr, /a tablet begins there already/);
  const merged = await json<unknown[]>(cluster, ["admin", "merge", "bd"]);
  assert.equal(merged.length, 1);
  await work.progress(200);
  await work.stop();
  assert.deepEqual(work.refused, []);
  await work.check();
  await verifiedEqual(cluster);
});

const KIB = 1024;
const rowName = (i: number) => `b${String(i).padStart(5, "0")}`;

async function fill(kv: Kv, rows: { from: number; to: number }, bytes: number): Promise<void> {
  let next = rows.from;
  const lane = async () => {
    while (next < rows.to) {
      const i = next++;
      await put(kv, rowName(i), "c", new Uint8Array(bytes).fill(i % 251));
    }
  };
  await Promise.all(Array.from({ length: 8 }, lane));
}

/** How long each of a steady trickle of small writes takes while something else goes on. */
async function writeLatencies(kv: Kv, during: Promise<void>): Promise<number[]> {
  const latencies: number[] = [];
  let running = true;
  void during.finally(() => running = false);
  for (let i = 0; running; i++) {
    const startedMs = performance.now();
    await put(kv, `bzz${i % 7}`, "n", String(i));
    latencies.push(performance.now() - startedMs);
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  await during;
  return latencies.sort((a, b) => a - b);
}

const at = (sorted: readonly number[], share: number) =>
  sorted[Math.floor(share * (sorted.length - 1))]!.toFixed(1);

Deno.test("splitting a full tablet of 8 MiB does not hold up writes to it", async () => {
  await using cluster = await startCluster();
  const { kv } = cluster;
  await fill(kv, { from: 0, to: 4096 }, 2 * KIB);
  const calm = await writeLatencies(kv, new Promise((resolve) => setTimeout(resolve, 2_000)));
  const splitting = async () => {
    for (let i = 1; i <= 20; i++) {
      // Not at the boundaries that the counts have already, so each one reads a bucket.
      await cluster.client.reshape({ kind: "split", key: `${rowName(200 * i + 7)}x` })
        // What was not answered in time is asked again, and may have happened.
        .catch((error) => assert.match(error.message, /a tablet begins there already/));
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
  };
  const beside = await writeLatencies(kv, splitting());
  console.log(
    `writes alone: p50 ${at(calm, 0.5)} ms, p99 ${at(calm, 0.99)} ms; beside 20 splits of 8 MiB: ` +
      `p50 ${at(beside, 0.5)} ms, p99 ${at(beside, 0.99)} ms, longest ${at(beside, 1)} ms`,
  );
  await eventually(async () => (await tabletsOf(cluster)).length === 23, "23 tablets");
  await verifiedEqual(cluster);
});

Deno.test("tablets split as they grow, last through restarts, and merge when they have emptied", async () => {
  await using cluster = await startSmall("tablet_max_bytes = 1048576");
  const { kv } = cluster;
  const rowsBefore = (await tabletsOf(cluster)).find(({ groupId }) => groupId === 1)!.rows;
  const before = await writeLatencies(kv, new Promise((resolve) => setTimeout(resolve, 2_000)));
  const filling = fill(kv, { from: 0, to: 640 }, 16 * KIB);
  const during = await writeLatencies(kv, filling);
  const grown = async () => {
    const tablets = (await tabletsOf(cluster)).filter((tablet) => tablet.groupId === 1);
    const rows = tablets.reduce((sum, tablet) => sum + tablet.rows, 0);
    return rows >= rowsBefore + 647 && tablets.every((tablet) => tablet.bytes <= KIB * KIB);
  };
  await eventually(grown, "ten megabytes to lie in tablets of at most one", { withinMs: 90_000 });
  const tablets = await tabletsOf(cluster);
  assert(tablets.length >= 12, `${tablets.length} tablets`);
  console.log(
    `small writes beside nothing: p50 ${at(before, 0.5)} ms, p99 ${at(before, 0.99)} ms; beside ` +
      `10 MiB and ${tablets.length - 3} splits: p50 ${at(during, 0.5)} ms, ` +
      `p99 ${at(during, 0.99)} ms, longest ${at(during, 1)} ms`,
  );
  const group = tablets.filter((tablet) => tablet.groupId === 1);
  for (const [index, tablet] of group.entries()) {
    assert.equal(tablet.endKey, group[index + 1]?.startKey ?? tablets[group.length]!.startKey);
  }
  await verifiedEqual(cluster);

  const backends = ["backend/0", "backend/1", "backend/2"];
  await Promise.all(backends.map((name) => cluster.crash(name)));
  await Promise.all(backends.map((name) => cluster.waitReady(name)));
  const ids = (list: Shown[]) => list.map(({ id, startKey }) => `${id} from ${startKey}`);
  await eventually(
    async () => String(ids(await tabletsOf(cluster))) === String(ids(tablets)),
    "the tablets of before the crash",
  );
  for (const i of [0, 319, 639]) {
    const cell = await kv.get(rowName(i), "c");
    assert.deepEqual(cell?.value, new Uint8Array(16 * KIB).fill(i % 251));
  }
  await verifiedEqual(cluster);

  for (let i = 0; i < 640; i += 16) {
    await Promise.all(
      Array.from({ length: 16 }, (_, k) => remove(kv, rowName(i + k), "c")),
    );
  }
  await eventually(
    async () => (await tabletsOf(cluster)).length === 3,
    "one tablet a group again",
    { withinMs: 240_000, everyMs: 1_000 },
  );
  await verifiedEqual(cluster);
});

Deno.test("a scan sees one state while rows are moved, tablets split and cells evicted", async () => {
  await using cluster = await startSmall("tablet_max_bytes = 1048576\nmemory_bytes = 8388608");
  const { kv } = cluster;
  // What a snapshot has to show: amounts that add up, because every transfer changes two rows at once.
  const accounts = 60, each = 1_000;
  const filler = new Uint8Array(30 * KIB);
  for (let i = 0; i < accounts; i++) {
    await put(kv, rowName(i), "amount", String(each));
    for (let k = 0; k < 3; k++) await put(kv, rowName(i), `filler${k}`, filler);
  }
  let running = true, transfers = 0;
  const transfer = async (from: number, to: number) => {
    const row = rowName(from), other = rowName(to);
    const add = (by: number) => [{ kind: "add" as const, column: "amount", by }];
    const result = await kv.transact([{ row, mutations: add(-7) }, {
      row: other,
      mutations: add(7),
    }]);
    assert(result.applied);
    transfers += 1;
  };
  const writing = Promise.all(Array.from({ length: 3 }, async (_, writer) => {
    for (let i = writer; running; i += 3) {
      const from = i * 17 % accounts;
      await transfer(from, (from + 1 + i % 40) % accounts);
      await put(kv, rowName(i * 5 % accounts), `filler${i % 3}`, filler);
    }
  }));
  let scans = 0, tornSums = 0;
  const range = { prefix: "b", limit: 7 };
  // Until it was seen that the question is a hard one, which a slow machine takes longer for.
  const startMs = performance.now();
  const isShown = () => scans > 2 && transfers > 50 && tornSums > 0;
  const isOver = (ms: number) => ms > 120_000 || ms > 12_000 && isShown();
  while (!isOver(performance.now() - startMs)) {
    const cells = await scanSnapshot(kv, range);
    const sum = (list: typeof cells) =>
      list.filter(({ row, column }) => /^b\d/.test(row) && column === "amount")
        .reduce((total, { value }) => total + Number(decodeText(value!)), 0);
    assert.equal(sum(cells), accounts * each, "a snapshot has lost or made amounts");
    scans += 1;
    // The same range without a snapshot, to show that the question is a hard one.
    const loose: typeof cells[number][] = [];
    for (let after: (typeof cells)[number] | undefined, done = false; !done;) {
      const page = await kv.scan({ ...range, ...(after === undefined ? {} : { after }) });
      loose.push(...page.cells);
      after = page.cells.at(-1);
      done = page.next === null;
    }
    if (sum(loose) !== accounts * each) tornSums += 1;
  }
  running = false;
  await writing;
  const group = (await tabletsOf(cluster)).filter(({ groupId }) => groupId === 1);
  console.log(
    `${scans} snapshots beside ${transfers} transfers, ${group.length} tablets; without a ` +
      `snapshot ${tornSums} of ${scans} scans saw other sums`,
  );
  assert(scans > 2 && transfers > 50);
  assert(group.length >= 3, `${group.length} tablets`);
  assert(tornSums > 0, "the writers were too slow to disturb a scan");
  await verifiedEqual(cluster);
});
