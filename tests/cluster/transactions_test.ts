/**
 * Transactions over rows of several groups on real processes: money is neither made nor lost and lists
 * stay in one order while backends are killed, and what a client that died has locked is free again.
 */
import assert from "node:assert/strict";
import { isInternal, LOCK } from "../../kv/internal_columns.ts";
import { put } from "../../kv/kv.ts";
import { LOCK_LIFE_MS } from "../../kv/transaction.ts";
import { kvConversation } from "../../proto/kv_wire.ts";
import { realEnv } from "../../roles/env.ts";
import { openLog } from "../../roles/log.ts";
import { eventually } from "../eventually.ts";
import { TransactionWorkload, type WorkloadClient } from "../kv/transaction_workload.ts";
import { SeededRandom } from "../sim/seeded_random.ts";
import {
  allHealthy,
  backendsOf,
  primaryOf,
  replicasEqual,
  tabletOf,
  withConnection,
} from "./cluster_calls.ts";
import { startCluster, type TestCluster } from "./harness.ts";

const env = realEnv({ node: "test", log: openLog({ node: "test", threshold: "off" }) });

/** What transactions under way have in the rows of all backends, secondaries included. */
async function internalCells(cluster: TestCluster): Promise<string[]> {
  const found: string[] = [];
  for (const name of backendsOf(cluster)) {
    await withConnection(cluster, cluster.node(name), async (connection) => {
      let after: { row: string; column: string } | undefined;
      do {
        const request = { start: "", limit: 500, valueBytes: 0 };
        const { body } = await connection.call(
          kvConversation,
          "rows",
          after === undefined ? request : { ...request, after },
        );
        for (const { row, column } of body.cells) {
          if (isInternal(column)) found.push(`${name} ${row} ${JSON.stringify(column)}`);
        }
        after = body.next ?? undefined;
      } while (after !== undefined);
    });
  }
  return found;
}

async function nothingLocked(cluster: TestCluster): Promise<void> {
  let left: string[] = [];
  await eventually(
    async () => (left = await internalCells(cluster)).length === 0,
    "all locks to be gone",
    { withinMs: 120_000, everyMs: 300 },
  ).catch((error) => {
    throw new Error(`${error.message}: ${left.join(", ")}`);
  });
}

/** Locks a row as a client does that dies right afterwards. */
async function lockAndDie(cluster: TestCluster, row: string, id: string): Promise<void> {
  const { gid } = await groupOf(cluster, row);
  const node = cluster.node(await primaryOf(cluster, row));
  await withConnection(cluster, node, async (connection) => {
    const stamp = { clientId: `dead-${id}`, seq: 1, firstIncomplete: 1, issuedMs: Date.now() };
    const mutations = [{ kind: "delete" as const, column: "c" }];
    const { body } = await connection.call(kvConversation, "prepare", {
      gid,
      hops: 0,
      stamp,
      txn: { id, anchor: row },
      ops: [{ row, conditions: [], mutations }],
      others: [],
      lifeMs: LOCK_LIFE_MS,
    });
    assert.equal(body.kind, "applied");
  });
}

async function groupOf(cluster: TestCluster, row: string) {
  await tabletOf(cluster, row);
  const { routes } = cluster.client.routes;
  return routes.find(({ startKey, endKey }) =>
    row >= startKey && (endKey === null || row < endKey)
  )!;
}

Deno.test("transactions over all groups stay whole while every backend is killed in turn", async () => {
  await using cluster = await startCluster();
  let events = 0;
  const source = { random: new SeededRandom(7), event: () => ++events };
  const workload = new TransactionWorkload(source);
  await workload.open(cluster.kv);
  let running = true;
  const clients = Array.from({ length: 6 }, async (_, index) => {
    const client: WorkloadClient = { name: `c${index}`, kv: cluster.kv, env };
    while (running) await workload.run(client, 1);
  });
  const progress = (count: number) => {
    const goal = workload.committed + count;
    return eventually(() => workload.committed >= goal, `${count} more transactions`, {
      withinMs: 120_000,
      everyMs: 20,
    });
  };
  await progress(60);
  for (const name of backendsOf(cluster)) {
    await cluster.crash(name);
    await progress(60);
    await cluster.waitReady(name);
    await allHealthy(cluster);
  }
  running = false;
  await Promise.all(clients);
  await nothingLocked(cluster);
  await workload.readAll({ name: "reader", kv: cluster.kv, env });
  await workload.check(cluster.kv);
  await replicasEqual(cluster);
});

Deno.test("what a dead client has locked is free again for whoever wants it, and in time for all", async () => {
  await using cluster = await startCluster();
  const { kv } = cluster;
  await put(kv, "a", "c", "before");
  await put(kv, "b", "c", "before");
  await lockAndDie(cluster, "a", "transaction-a");
  await lockAndDie(cluster, "b", "transaction-b");
  assert((await internalCells(cluster)).some((cell) => cell.includes(JSON.stringify(LOCK))));
  // A read does not wait, a write waits for the lock's end at most.
  assert.notEqual(await kv.get("a", "c"), null);
  await put(kv, "a", "c", "after");
  // Nobody wants "b": its primary clears it.
  await nothingLocked(cluster);
  assert.notEqual(await kv.get("b", "c"), null);
});
