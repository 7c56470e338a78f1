/** Questions that tests put to single nodes of a running cluster, and the conditions they wait for. */
import assert from "node:assert/strict";
import type { ClusterStatus } from "../../proto/cluster_status.ts";
import { coordinatorConversation } from "../../proto/control.ts";
import { type ClusterConfig, type NodeEntry, planGroups } from "../../proto/cluster_config.ts";
import { kvConversation } from "../../proto/kv_wire.ts";
import { connectRpc } from "../../roles/net/rpc_client.ts";
import type { RpcConnection } from "../../roles/net/rpc_connection.ts";
import { eventually } from "../eventually.ts";
import type { TestCluster } from "./harness.ts";

/** Any running cluster, however it was started. */
export interface ClusterHandle {
  readonly config: ClusterConfig;
  readonly secret: Uint8Array;
  node(name: string): NodeEntry;
  opsUrl(name: string): string;
}

export function backendsOf(cluster: ClusterHandle): string[] {
  return cluster.config.node.filter((node) => node.role === "backend")
    .map((node) => `backend/${node.id}`);
}

/** Opens a connection to a node, as another node of the cluster would, and closes it afterwards. */
export async function withConnection<T>(
  cluster: ClusterHandle,
  node: Pick<NodeEntry, "host" | "port">,
  talk: (connection: RpcConnection) => Promise<T>,
): Promise<T> {
  const connection = await connectRpc({
    hostname: node.host,
    port: node.port,
    secret: cluster.secret.toHex(),
    clusterName: cluster.config.cluster.name,
    name: "client/9",
    onError: () => {},
  });
  try {
    return await talk(connection);
  } finally {
    connection.close();
  }
}

export async function statusOf(cluster: ClusterHandle): Promise<ClusterStatus> {
  return await withConnection(cluster, cluster.node("coordinator/0"), async (connection) => {
    return (await connection.call(coordinatorConversation, "status", {})).body;
  });
}

/** The tablet that holds `row`, as the coordinator knows it. */
export async function tabletOf(cluster: ClusterHandle, row: string) {
  const { tablets } = await statusOf(cluster);
  return tablets.find(({ startKey, endKey }) =>
    row >= startKey && (endKey === null || row < endKey)
  )!;
}

/** The name of the node that orders the writes to `row`. */
export async function primaryOf(cluster: ClusterHandle, row: string): Promise<string> {
  const { primary } = await tabletOf(cluster, row);
  if (primary === null) throw new Error(`The tablet of "${row}" has no primary`);
  return `backend/${primary}`;
}

export async function allHealthy(cluster: ClusterHandle): Promise<void> {
  await eventually(
    async () => {
      const status = await statusOf(cluster).catch(() => null);
      return status?.tablets.every(({ state }) => state === "healthy") ?? false;
    },
    "every tablet to be healthy",
    { withinMs: 90_000, everyMs: 100 },
  );
}

/** `admin verify`: a replica that is late or away makes a group "busy"; "different" is never right. */
export async function verifiedEqual(cluster: TestCluster): Promise<void> {
  await eventually(
    async () => {
      const { stdout } = await cluster.penncloud(["admin", "verify", "--json"]);
      const { groups } = JSON.parse(stdout) as { groups: { verdict: string }[] };
      const verdicts = groups.map(({ verdict }) => verdict);
      assert(!verdicts.includes("different"), `${verdicts}`);
      return verdicts.every((verdict) => verdict === "equal");
    },
    "all replicas to be equal",
    { withinMs: 90_000, everyMs: 200 },
  );
}

/**
 * Waits until every group is led by the node that it was meant for. Offices that moved with a death go
 * back some seconds after all is well again, which may be between asking who leads and doing something
 * about it.
 */
export async function primariesAtHome(cluster: ClusterHandle): Promise<void> {
  const home = planGroups(cluster.config).map(({ id, members }) => `${id} at ${members[0]}`);
  await eventually(
    async () => {
      const { tablets } = await statusOf(cluster);
      const now = new Set(tablets.map(({ groupId, primary }) => `${groupId} at ${primary}`));
      return home.every((place) => now.has(place)) && now.size === home.length &&
        tablets.every(({ state }) => state === "healthy");
    },
    "every primary to be where it belongs",
    { withinMs: 120_000, everyMs: 100 },
  );
}

/** Waits until all replicas of each group stand at the same place with the same digest. */
export async function replicasEqual(cluster: ClusterHandle): Promise<void> {
  const backends = backendsOf(cluster);
  await eventually(
    async () => {
      const answers = await Promise.all(
        backends.map((name) =>
          withConnection(cluster, cluster.node(name), async (connection) => {
            return (await connection.call(kvConversation, "digest", {})).body.groups;
          }).catch(() => [])
        ),
      );
      const byGroup = Map.groupBy(answers.flat(), ({ gid }) => gid);
      return byGroup.size > 0 &&
        [...byGroup.values()].every((replicas) =>
          replicas.length === cluster.config.store.replicas &&
          new Set(replicas.map(({ appliedLsn, hash }) => `${appliedLsn}:${hash}`)).size === 1
        );
    },
    "all replicas to be equal",
    { withinMs: 90_000, everyMs: 100 },
  );
}

/** The sum of a counter over all its labels, from a node's `/metrics`. */
export async function metricOf(
  cluster: ClusterHandle,
  node: string,
  name: string,
): Promise<number> {
  const text = await (await fetch(`${cluster.opsUrl(node)}/metrics`)).text();
  let sum = 0;
  for (const line of text.split("\n")) {
    if (line.startsWith(`${name} `) || line.startsWith(`${name}{`)) {
      sum += Number(line.slice(line.lastIndexOf(" ") + 1));
    }
  }
  return sum;
}
