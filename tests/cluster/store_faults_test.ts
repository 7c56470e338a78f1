/**
 * The store's promises on real processes, disks and sockets: each kind of node is killed in the
 * middle of writes, and every acknowledged write is found again, once.
 *
 * Each test starts a cluster of its own (cluster.small.toml: three backends, each leading a third
 * of the keys) and waits for conditions, never for time.
 */
import assert from "node:assert/strict";
import { kvConversation } from "../../proto/kv_wire.ts";
import { connectRpc } from "../../roles/net/rpc_client.ts";
import { eventually } from "../eventually.ts";
import { allHealthy, replicasEqual } from "./cluster_calls.ts";
import { startCluster } from "./harness.ts";
import { Workload } from "./workload.ts";

const BACKENDS = ["backend/0", "backend/1", "backend/2"];

Deno.test("killing each backend in the middle of writes loses, doubles and forks nothing", async () => {
  await using cluster = await startCluster();
  const workload = new Workload(cluster.kv);
  await workload.progress(200);
  for (const name of BACKENDS) {
    workload.longestGapMs = 0;
    await cluster.crash(name);
    await workload.progress(300);
    await cluster.waitReady(name);
    await allHealthy(cluster);
    console.log(`${name} killed: longest gap ${Math.round(workload.longestGapMs)} ms`);
  }
  await workload.stop();
  assert.deepEqual(workload.refused, [], "no write was refused");
  await workload.check();
  await replicasEqual(cluster);
});

Deno.test("killing the coordinator costs no writer anything while no other node fails", async () => {
  await using cluster = await startCluster();
  const workload = new Workload(cluster.kv);
  await workload.progress(100);
  workload.longestGapMs = 0;
  await cluster.kill("coordinator/0");
  await workload.progress(500);
  assert.deepEqual(workload.refused, []);
  console.log(`coordinator away: longest gap ${Math.round(workload.longestGapMs)} ms`);
  await cluster.restart("coordinator/0");
  await cluster.waitReady("coordinator/0");
  // And it takes up its duty again where it was.
  await cluster.crash("backend/1");
  await workload.progress(300);
  await workload.stop();
  await workload.check();
});

Deno.test("after kill -9 of every process at once, everything acknowledged is there", async () => {
  const dir = await Deno.makeTempDir({ prefix: "penncloud-" });
  try {
    const first = await startCluster({ dir });
    const workload = new Workload(first.kv, { deadlineMs: 10_000 });
    await workload.progress(500);
    const stopping = workload.stop();
    const pids = (await first.processes()).map((node) => node.pid);
    Deno.kill(first.pid, "SIGKILL");
    for (const pid of pids) if (pid !== null) Deno.kill(pid, "SIGKILL");
    await stopping;
    await first.cleanUp();
    await using second = await startCluster({ dir });
    await workload.check(second.kv);
    await replicasEqual(second);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("staggered crash: the node that died first comes back first, and waits instead of leading", async () => {
  await using cluster = await startCluster();
  const [a, b, c] = BACKENDS as [string, string, string];
  const early = new Workload(cluster.kv, { name: "early" });
  await early.progress(200);
  await cluster.kill(a);
  await early.progress(200);
  await early.stop();
  // B and C took writes that A has never seen; now they die, and A alone returns.
  await cluster.kill(b);
  await cluster.kill(c);
  await cluster.restart(a);
  await eventually(
    async () => {
      const { stdout } = await cluster.penncloud(["admin", "status", "--json"]);
      const node = JSON.parse(stdout).nodes.find((it: { name: string }) => it.name === a);
      return node.state === "joining" || node.state === "live";
    },
    "A to be back",
    { withinMs: 90_000, everyMs: 200 },
  );
  const attempt = await cluster.penncloud(["kv", "get", "barn", "count"]);
  assert.equal(attempt.code, 3, `A must not answer alone, but said ${attempt.stdout}`);
  await cluster.restart(b);
  await cluster.restart(c);
  await allHealthy(cluster);
  await early.check();
  await replicasEqual(cluster);
});

Deno.test("a primary that was paused and comes back does not answer from the past", async () => {
  await using cluster = await startCluster();
  const { kv } = cluster;
  const writer = new Workload(kv, { rows: ["barn"], writers: 2 });
  await writer.progress(50);
  const status = JSON.parse((await cluster.penncloud(["admin", "status", "--json"])).stdout);
  const primary =
    status.tablets.find((tablet: { startKey: string }) => tablet.startKey === "").primary;
  await cluster.signal(`backend/${primary}`, "SIGSTOP");
  await writer.progress(50);
  const { value } = (await kv.get("barn", "count"))!;
  const seen = Number(new TextDecoder().decode(value));
  // The old primary wakes up with everything it knew, and is asked directly.
  await cluster.signal(`backend/${primary}`, "SIGCONT");
  const { host: hostname, port } = cluster.node(`backend/${primary}`);
  const connection = await connectRpc({
    hostname,
    port,
    secret: cluster.secret.toHex(),
    clusterName: cluster.config.cluster.name,
    name: "client/9",
    onError: () => {},
  });
  const gid = status.tablets.find((tablet: { startKey: string }) => tablet.startKey === "").groupId;
  try {
    const body = { gid, hops: 0, row: "barn", column: "count" };
    const answer = await connection.call(kvConversation, "get", body).catch((error) => error);
    if (!(answer instanceof Error)) {
      const count = Number(new TextDecoder().decode(answer.payload));
      assert(count >= seen, `read ${count} after ${seen} had been read`);
    }
  } finally {
    connection.close();
  }
  await writer.stop();
  await writer.check();
  await allHealthy(cluster);
  await replicasEqual(cluster);
});

Deno.test("a node whose disk was replaced is filled again from its peers, by a checkpoint if need be", async () => {
  await using cluster = await startCluster();
  const { kv } = cluster;
  // More than the log keeps for stragglers, so that a log difference cannot do.
  const value = crypto.getRandomValues(new Uint8Array(60_000));
  for (let batch = 0; batch < 75; batch++) {
    await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        kv.apply({
          row: "barn",
          mutations: [{ kind: "put", column: `c${batch % 5}/${i}`, value }],
        })),
    );
  }
  const large = crypto.getRandomValues(new Uint8Array(0x10000));
  const whole = new Uint8Array(3 * 1024 * 1024);
  for (let at = 0; at < whole.length; at += large.length) whole.set(large, at);
  await kv.apply({ row: "barn", mutations: [{ kind: "put", column: "large", value: whole }] });
  await cluster.kill("backend/2");
  await Deno.remove(`${cluster.dir}/backend-2`, { recursive: true });
  await cluster.restart("backend/2");
  await allHealthy(cluster);
  await replicasEqual(cluster);
  // Now the new disk alone must do: the others leave one after the other.
  await cluster.kill("backend/0");
  const patient = { deadlineMs: 60_000 };
  assert.deepEqual((await kv.get("barn", "large", patient))!.value, whole);
  assert.deepEqual((await kv.get("barn", "c4/19", patient))!.value, value);
});

Deno.test("random binary values survive kill -9 and the replay of the log", async () => {
  await using cluster = await startCluster();
  const { kv } = cluster;
  const values = new Map<string, Uint8Array>();
  for (let i = 0; i < 60; i++) {
    const size = [0, 1, 7, 300, 5_000, 65_536, 65_537, 400_000][i % 8]!;
    const value = new Uint8Array(size);
    for (let at = 0; at < size; at += 65_536) {
      crypto.getRandomValues(value.subarray(at, Math.min(size, at + 65_536)));
    }
    const row = `${"bmt"[i % 3]}in\u{1f600}${i}`;
    values.set(row, value);
    await kv.apply({ row, mutations: [{ kind: "put", column: "\uffee é", value }] });
  }
  for (const name of BACKENDS) await cluster.crash(name);
  for (const [row, value] of values) {
    const cell = await kv.get(row, "\uffee é", { deadlineMs: 60_000 });
    assert.deepEqual(cell?.value, value, `row ${row} of ${value.length} bytes`);
  }
});

Deno.test("a drained backend hands its office over first, and no write fails", async () => {
  await using cluster = await startCluster();
  const workload = new Workload(cluster.kv);
  await workload.progress(200);
  workload.longestGapMs = 0;
  await cluster.drain("backend/0");
  await workload.progress(300);
  console.log(`drained: longest gap ${Math.round(workload.longestGapMs)} ms`);
  await workload.stop();
  assert.deepEqual(workload.refused, []);
  await workload.check();
});
