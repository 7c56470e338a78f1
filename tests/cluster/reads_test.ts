/** Which reads go on when replicas are missing, and which may be answered by any replica. */
import assert from "node:assert/strict";
import { KvError } from "../../kv/errors.ts";
import { decodeText, KvSession, put } from "../../kv/kv.ts";
import { eventually } from "../eventually.ts";
import { startCluster, type TestCluster } from "./harness.ts";

const ROWS = ["barn", "lamp", "tree"];

async function readAll(cluster: TestCluster): Promise<string[]> {
  const cells = await Promise.all(ROWS.map((row) => cluster.kv.get(row, "c")));
  return cells.map((cell) => decodeText(cell!.value));
}

Deno.test("with two of three replicas gone the third answers reads, and refuses writes with the reason", async () => {
  await using cluster = await startCluster();
  for (const row of ROWS) await put(cluster.kv, row, "c", `of ${row}`);
  await cluster.penncloud(["admin", "kill", String(cluster.node("backend/1").port)]);
  await cluster.penncloud(["admin", "kill", String(cluster.node("backend/2").port)]);
  await eventually(
    async () => (await readAll(cluster).catch(() => [])).length === ROWS.length,
    "the last replica to answer reads",
    { withinMs: 90_000 },
  );
  assert.deepEqual(await readAll(cluster), ROWS.map((row) => `of ${row}`));
  await eventually(async () => {
    const error = await put(cluster.kv, "barn", "c", "old", { deadlineMs: 1_000 })
      .then(() => null, (error) => error);
    assert(error instanceof KvError, "nothing is written to a single replica");
    return error.outcome !== "unknown" &&
      /1 of at least 2 replicas are in sync/.test(error.message);
  }, "the writes to be refused for certain, with the reason");

  await cluster.penncloud(["admin", "restart", String(cluster.node("backend/1").port)]);
  await eventually(
    () => put(cluster.kv, "barn", "c", "new").then(() => true, () => false),
    "writes to be taken again",
    { withinMs: 90_000 },
  );
  assert.deepEqual(await readAll(cluster), ["new", "of lamp", "of tree"]);
});

Deno.test("reads with a session or a bound on their age are answered by secondaries, as new as asked", async () => {
  await using cluster = await startCluster();
  const session = new KvSession();
  const readsAt = async () => {
    const found: number[] = [];
    for (const id of [0, 1, 2]) {
      const { host, port } = cluster.node(`backend/${id}`);
      const text = await (await fetch(`http://${host}:${port + 1000}/metrics`)).text();
      const counts = [...text.matchAll(/^penncloud_group_bounded_reads_total\{[^}]*\} (\d+)/gm)];
      found.push(counts.reduce((sum, [, count]) => sum + Number(count), 0));
    }
    return found;
  };
  for (let i = 0; i < 60; i++) {
    const row = ROWS[i % ROWS.length]!;
    await put(cluster.kv, row, "c", String(i), { session });
    const cell = await cluster.kv.get(row, "c", { session });
    assert.equal(decodeText(cell!.value), String(i), "one reads what one wrote");
  }
  // Heartbeats carry a secondary's stamp there and back; after that its state has a known age.
  await eventually(async () => {
    for (const row of ROWS) await cluster.kv.get(row, "c", { maxStaleMs: 60_000 });
    return (await readsAt()).every((count) => count > 0);
  }, "every replica to answer reads of known age");
});
