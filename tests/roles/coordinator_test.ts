/** The coordinator's process around its rules: what it makes of nodes whose folder went back in time. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Metadata } from "../../kv/disk/metadata.ts";
import type { NodeReport, StoreReport } from "../../proto/control.ts";
import { epoch, groupId, incarnation, lsn, storeId } from "../../proto/ids.ts";
import { CoordinatorShell } from "../../roles/coordinator.ts";
import { realEnv } from "../../roles/env.ts";
import { openLog } from "../../roles/log.ts";
import type { PeerLink } from "../../roles/peers.ts";
import type { RoleContext } from "../../roles/role_context.ts";
import type { RpcConnection } from "../../roles/net/rpc_connection.ts";
import { loadConfig } from "../../roles/config_file.ts";
import { eventually } from "../eventually.ts";
import { REPOSITORY } from "../cluster/harness.ts";

const GIDS = [1, 2, 3];

interface Life {
  readonly inc: number;
  readonly spawnId: string;
  readonly lastLsn?: number;
}

/** A coordinator with real records, and backends that answer polls as the test says. */
class Bench {
  readonly polls = new Map<number, Life>();
  readonly pollCounts = new Map<number, number>();
  readonly #dir: string;
  readonly #metadata: Metadata;
  readonly shell: CoordinatorShell;

  private constructor(dir: string, context: RoleContext) {
    this.#dir = dir;
    this.#metadata = new Metadata({ path: `${dir}/metadata.sqlite`, clusterId: "cluster" });
    this.shell = new CoordinatorShell(context, {
      metadata: this.#metadata,
      peers: { coordinator: this.#link(-1), of: (_, id) => this.#link(id), close: () => {} },
    });
  }

  static async open(): Promise<Bench> {
    const dir = await Deno.makeTempDir({ prefix: "penncloud-coordinator-" });
    const { config } = await loadConfig({
      path: join(REPOSITORY, "tests/cluster/busy_disks.toml"),
    });
    config.store.cold_start_wait_ms = 0;
    const node = config.node.find(({ role }) => role === "coordinator")!;
    const env = realEnv({ node: "test", log: openLog({ node: "test", threshold: "off" }) });
    const bench = new Bench(dir, { config, node, env, spawnId: "c" } as unknown as RoleContext);
    bench.shell.start();
    return bench;
  }

  /** As a backend's own reports are. */
  async report(node: number, life: Life): Promise<{ wentBack?: boolean | undefined }> {
    const body: NodeReport = {
      role: "backend",
      id: node,
      spawnId: life.spawnId,
      pid: 1,
      startedMs: 0,
      ready: true,
      requestsPerSecond: 0,
      cpu: 0,
      memoryBytes: 0,
      connections: null,
      problem: null,
      routesVersion: 0,
      store: storeReport(node, life),
    };
    return await this.#ask("report", body) as { wentBack?: boolean };
  }

  async exited(node: number, spawn: string): Promise<void> {
    await this.#ask("exited", { node: `backend/${node}`, spawn });
  }

  async #ask(method: string, body: unknown): Promise<unknown> {
    const { handle } = this.shell.services.get(method)!;
    return await handle(body, new Uint8Array(0), null as unknown as RpcConnection);
  }

  primaryOf(gid: number): number | undefined {
    return this.#metadata.get(groupId(gid))?.primary.node;
  }

  async close(): Promise<void> {
    this.shell.stop();
    this.#metadata.close();
    await Deno.remove(this.#dir, { recursive: true });
  }

  #link(node: number): PeerLink {
    const call = (_: unknown, method: string) => {
      const life = this.polls.get(node);
      if (method !== "poll" || life === undefined) return Promise.reject(new Error("not there"));
      this.pollCounts.set(node, (this.pollCounts.get(node) ?? 0) + 1);
      const body = { spawnId: life.spawnId, report: storeReport(node, life) };
      return Promise.resolve({ body, payload: new Uint8Array(0) });
    };
    return { call, send: () => {} } as unknown as PeerLink;
  }
}

function storeReport(node: number, { inc, lastLsn = 0 }: Life): StoreReport {
  return {
    store: storeId(`store-${node}`),
    inc: incarnation(inc),
    draining: false,
    logBytes: 0,
    dataBytes: 0,
    groups: GIDS.map((gid) => ({
      gid: groupId(gid),
      epoch: epoch(0),
      role: "secondary" as const,
      lastEpoch: epoch(1),
      lastLsn: lsn(lastLsn),
      commitLsn: lsn(0),
      serving: false,
      silentMs: 10_000,
      tablets: [],
    })),
  };
}

Deno.test("an older copy of a folder is told so, and is not elected by what it answers to a poll", async () => {
  const bench = await Bench.open();
  try {
    for (const node of [0, 1, 2]) await bench.report(node, { inc: 1, spawnId: `${node}-first` });
    assert.deepEqual(GIDS.map((gid) => bench.primaryOf(gid)), [0, 1, 2]);
    await bench.report(0, { inc: 2, spawnId: "0-second" });
    // The folder as it was before that start was put back and started: its second life as well.
    bench.polls.set(0, { inc: 2, spawnId: "0-copy", lastLsn: 99 });
    for (const node of [1, 2]) await bench.exited(node, `${node}-first`);
    await eventually(() => (bench.pollCounts.get(0) ?? 0) >= 4, "the copy to be polled");
    assert.deepEqual([bench.primaryOf(2), bench.primaryOf(3)], [1, 2], "nobody can lead");
    assert.equal((await bench.report(0, { inc: 2, spawnId: "0-copy" })).wentBack, true);
    assert.notEqual((await bench.report(0, { inc: 2, spawnId: "0-second" })).wentBack, true);
    await eventually(() => bench.primaryOf(2) === 0, "the real one to be elected");
  } finally {
    await bench.close();
  }
});
