/**
 * The supervisor's ear: answers proto/supervision.ts for the nodes of its host, and `/livez`, `/readyz`
 * (every node that should run is ready) and `/metrics` on the port 1000 above.
 */
import type { ClusterConfig } from "../proto/cluster_config.ts";
import { type NodeName, supervisionConversation } from "../proto/supervision.ts";
import { RpcError } from "./net/rpc_error.ts";
import { serveRpc } from "./net/rpc_server.ts";
import { service } from "./net/rpc_service.ts";
import { Metrics } from "./metrics.ts";
import { opsPort, startOpsServer } from "./ops_server.ts";
import type { SupervisedNode } from "./supervised_node.ts";

export function serveSupervision(options: {
  readonly config: ClusterConfig;
  readonly secret: Uint8Array;
  readonly children: readonly SupervisedNode[];
}): { close(): Promise<void> } {
  const { config, secret, children } = options;
  const find = ({ role, id }: NodeName): SupervisedNode => {
    const child = children.find(({ node }) => node.role === role && node.id === id);
    if (child !== undefined) return child;
    const message = `Cannot find ${role}/${id}: the supervisor of this host does not run it`;
    throw new RpcError("no_such_node", message, { sent: true });
  };
  const hostname = children[0]!.node.host;
  const server = serveRpc({
    hostname,
    port: config.cluster.supervisor_port,
    secret: secret.toHex(),
    clusterName: config.cluster.name,
    name: "supervisor",
    connectionsMax: 100,
    // Strangers and lost connections are the peers' business; our own failures go to them as errors.
    onError: () => {},
    services: service(supervisionConversation, {
      list: () => ({ pid: Deno.pid, nodes: children.map((child) => child.describe()) }),
      kill: async (name) => {
        const child = find(name);
        await child.kill();
        return child.describe();
      },
      restart: async (name) => {
        const child = find(name);
        await child.restart();
        return child.describe();
      },
      drain: (name) => {
        const child = find(name);
        child.drain();
        return child.describe();
      },
    }),
  });
  const metrics = supervisionMetrics(children);
  const ops = startOpsServer({
    hostname,
    port: opsPort(config.cluster.supervisor_port),
    ready: () => {
      const waiting = children.filter((child) =>
        child.state === "starting" || child.state === "waiting"
      );
      const names = waiting.map((child) => child.name).join(", ");
      return waiting.length === 0
        ? { ready: true }
        : { ready: false, reason: `not ready: ${names}` };
    },
    metrics: () => metrics.text(),
  });
  return {
    close: async () => {
      await Promise.all([server.close(), ops.close()]);
      metrics.close();
    },
  };
}

function supervisionMetrics(children: readonly SupervisedNode[]): Metrics {
  const metrics = new Metrics();
  metrics.read("penncloud_node_up", {
    help: "1 while the node runs and is ready",
    value: () =>
      children.map((child) => ({
        labels: { node: child.name },
        value: Number(child.state === "running"),
      })),
  });
  metrics.read("penncloud_node_restarts_total", {
    help: "How often the node was started again after a crash",
    type: "counter",
    value: () =>
      children.map((child) => ({
        labels: { node: child.name },
        value: child.describe().restarts,
      })),
  });
  return metrics;
}
