/** What the console is told while the coordinator is away, and what supervisors add to it. */
import assert from "node:assert/strict";
import type { SupervisedProcess } from "../../proto/supervision.ts";
import { adminSource, mergeProcesses, withoutCoordinator } from "../../roles/admin_source.ts";
import { realEnv } from "../../roles/env.ts";
import { openLog } from "../../roles/log.ts";
import { connectKv } from "../../roles/kv_connection.ts";
import type { RoleContext } from "../../roles/role_context.ts";
import { ApiError } from "../../web/errors.ts";
import { SampleAdmin, sampleConfig } from "../sample_cluster.ts";

const config = sampleConfig();

function process(
  name: string,
  state: SupervisedProcess["state"],
  more: Partial<SupervisedProcess> = {},
): [string, SupervisedProcess] {
  const [role, id] = name.split("/");
  return [name, {
    role: role as SupervisedProcess["role"],
    id: Number(id),
    port: 1,
    state,
    sinceMs: 77,
    pid: 4711,
    spawn: "s",
    restarts: 0,
    lastExit: null,
    ...more,
  }];
}

Deno.test("withoutCoordinator() keeps the last word, says so, and says what it means", async () => {
  const last = await new SampleAdmin(config).status();
  const status = withoutCoordinator(config, last, 1234);
  assert.equal(status.stale, true);
  assert.equal(status.generatedMs, last.generatedMs);
  assert.deepEqual(status.tablets, last.tablets);
  assert.match(status.problems[0]!, /coordinator\/0 \(port 9999\) does not answer/);
  assert.match(status.problems[0]!, /Reads and writes go on/);
  const coordinator = status.nodes.find((node) => node.role === "coordinator")!;
  assert.deepEqual([coordinator.state, coordinator.sinceMs], ["down", 1234]);
});

Deno.test("withoutCoordinator() knows the configured nodes when it never heard anything", () => {
  const status = withoutCoordinator(config, null, 1234);
  assert.equal(status.nodes.length, config.node.length);
  assert.deepEqual(status.tablets, []);
  assert.ok(status.nodes.every((node) => node.state === "suspect" || node.role === "coordinator"));
  const merged = mergeProcesses(status, new Map([process("backend/2", "running")]));
  const node = merged.nodes.find((it) => it.name === "backend/2")!;
  assert.deepEqual([node.state, node.pid], ["live", 4711]);
});

Deno.test("mergeProcesses() tells a node that was stopped from one that fell over", async () => {
  const sample = new SampleAdmin(config);
  sample.set(10003, "down");
  sample.set(10004, "down");
  const processes = new Map([
    process("backend/3", "stopped", { pid: null }),
    process("backend/4", "waiting", { pid: null, lastExit: "signal SIGSEGV" }),
    process("backend/5", "waiting"),
  ]);
  const status = mergeProcesses(await sample.status(), processes);
  const node = (name: string) => status.nodes.find((it) => it.name === name)!;
  assert.equal(node("backend/3").state, "stopped");
  assert.equal(node("backend/3").sinceMs, 77);
  assert.ok(status.problems.includes("backend/3 (port 10003) was stopped on purpose"));
  assert.ok(!status.problems.includes("backend/3 (port 10003) is down"));
  assert.equal(node("backend/4").state, "down");
  assert.match(node("backend/4").problem!, /SIGSEGV/);
  // The coordinator hears it, so it lives, whatever a list of a moment ago says.
  assert.equal(node("backend/5").state, "live");
});

/** A source whose cluster does not run at all: nothing listens on any of its ports. */
async function withNothingRunning(
  run: (source: ReturnType<typeof adminSource>) => Promise<void>,
): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  const nowhere = sampleConfig({ cluster: { supervisor_port: port } });
  const context: RoleContext = {
    config: nowhere,
    node: nowhere.node.find((node) => node.role === "frontend")!,
    dataDir: "",
    clusterDir: "",
    secret: new Uint8Array(32),
    clusterId: "test",
    spawnId: "test",
    env: realEnv({ node: "test", log: openLog({ node: "test", threshold: "off" }) }),
  };
  const connection = connectKv(context);
  try {
    await run(adminSource(context, connection));
  } finally {
    connection.close();
  }
}

async function refusal(promise: Promise<unknown>): Promise<ApiError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof ApiError, String(error));
    return error;
  }
  throw new Error("Nothing was refused");
}

Deno.test("an order where no supervisor runs is refused with what to do", async () => {
  await withNothingRunning(async (source) => {
    // Another node's order and the frontend's own, which is given only after its answer has left.
    for (const port of [10003, 8000]) {
      const error = await refusal(source.kill(port));
      assert.deepEqual([error.status, error.code], [409, "no_supervisor"]);
      assert.match(error.message, /run `penncloud up` on that host/);
    }
  });
});

Deno.test("orders and rows for ports that have none are refused with the ports that have", async () => {
  await withNothingRunning(async (source) => {
    const unknown = await refusal(source.restart(4));
    assert.deepEqual([unknown.status, unknown.code], [404, "no_such_node"]);
    assert.match(unknown.message, /8000 \(frontend\/0\)/);
    const rowless = await refusal(source.rows(8000, { limit: 1 }));
    assert.deepEqual([rowless.status, rowless.code], [422, "not_a_backend"]);
    assert.match(rowless.message, /10000 \(backend\/0\)/);
  });
});
