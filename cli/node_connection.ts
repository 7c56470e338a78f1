/** A command's conversation with one node: connect, ask, hang up. */
import type { NodeEntry } from "../proto/cluster_config.ts";
import { connectRpc } from "../roles/net/rpc_client.ts";
import type { RpcConnection } from "../roles/net/rpc_connection.ts";
import { RpcError } from "../roles/net/rpc_error.ts";
import type { OpenCluster } from "./cluster_flags.ts";
import { UnavailableError, UsageError } from "./exit_status.ts";

/**
 * Opens a connection to `node`, hands it to `talk`, and closes it.
 *
 * @throws {UnavailableError} the node does not answer
 */
export async function withNode<T>(
  { config, secret }: OpenCluster,
  node: NodeEntry,
  talk: (connection: RpcConnection) => Promise<T>,
): Promise<T> {
  const name = `${node.role}/${node.id}`;
  let connection: RpcConnection | null = null;
  try {
    connection = await connectRpc({
      hostname: node.host,
      port: node.port,
      secret: secret.toHex(),
      clusterName: config.cluster.name,
      name: "client",
      expectedPeer: name,
      onError: () => {},
    });
    return await talk(connection);
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    throw new UnavailableError(
      `${error.message}: is the cluster running? Start it with \`penncloud up\``,
      { cause: error },
    );
  } finally {
    connection?.close();
  }
}

/** The node that a person means by `10003` (its port, offset included) or `backend/3`. */
export function findNode({ config }: OpenCluster, text: string): NodeEntry {
  const port = Number(text);
  const node = config.node.find((entry) =>
    Number.isInteger(port) ? entry.port === port : `${entry.role}/${entry.id}` === text
  );
  if (node !== undefined) return node;
  const known = config.node.map((entry) => `${entry.role}/${entry.id} (${entry.port})`);
  throw new UsageError(
    `Cannot find node "${text}": expected a port or a name, one of ${known.join(", ")}`,
  );
}
