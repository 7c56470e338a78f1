/** The supervisor's ear: answers proto/supervision.ts for the nodes of its host. */
import type { ClusterConfig } from "../proto/cluster_config.ts";
import { type NodeName, supervisionConversation } from "../proto/supervision.ts";
import { RpcError } from "./net/rpc_error.ts";
import { type RpcServer, serveRpc } from "./net/rpc_server.ts";
import { service } from "./net/rpc_service.ts";
import type { SupervisedNode } from "./supervised_node.ts";

export function serveSupervision(options: {
  readonly config: ClusterConfig;
  readonly secret: Uint8Array;
  readonly children: readonly SupervisedNode[];
}): RpcServer {
  const { config, secret, children } = options;
  const find = ({ role, id }: NodeName): SupervisedNode => {
    const child = children.find(({ node }) => node.role === role && node.id === id);
    if (child !== undefined) return child;
    const message = `Cannot find ${role}/${id}: the supervisor of this host does not run it`;
    throw new RpcError("no_such_node", message, { sent: true });
  };
  return serveRpc({
    hostname: children[0]!.node.host,
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
}
