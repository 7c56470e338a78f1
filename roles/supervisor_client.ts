/**
 * Giving orders to the supervisor of a node's host: for `penncloud admin`, the admin console and
 * tests. Each order is one short connection; they are rare.
 */
import type { ClusterConfig, NodeEntry } from "../proto/cluster_config.ts";
import { type SupervisedProcess, supervisionConversation } from "../proto/supervision.ts";
import { connectRpc } from "./net/rpc_client.ts";
import type { RpcConnection } from "./net/rpc_connection.ts";
import { RpcError } from "./net/rpc_error.ts";

/** Restarting waits until the old process has stopped. */
const ORDER_TIMEOUT_MS = 15_000;

/** No supervisor answers for this node. The message says what to do. */
export class NoSupervisorError extends Error {
  override readonly name = "NoSupervisorError";
}

export interface SupervisorClient {
  list(): Promise<readonly SupervisedProcess[]>;
  /** Resolves when the process is gone; it stays down. */
  kill(): Promise<SupervisedProcess>;
  /** Resolves when the new process has been started. */
  restart(): Promise<SupervisedProcess>;
  /** Resolves when the process has been told. */
  drain(): Promise<SupervisedProcess>;
}

/** The supervisor of the host on which `node` lives. Every method throws NoSupervisorError. */
export function supervisorOf(
  cluster: { readonly config: ClusterConfig; readonly secret: Uint8Array },
  node: Pick<NodeEntry, "role" | "id" | "host">,
): SupervisorClient {
  const name = { role: node.role, id: node.id };
  const ask = async <T>(question: (supervisor: RpcConnection) => Promise<{ body: T }>) => {
    const connection = await connect(cluster, node);
    try {
      return (await question(connection)).body;
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      throw new NoSupervisorError(error.message, { cause: error });
    } finally {
      connection.close();
    }
  };
  const timeout = { timeoutMs: ORDER_TIMEOUT_MS };
  return {
    list: async () => (await ask((it) => it.call(supervisionConversation, "list", {}))).nodes,
    kill: () => ask((it) => it.call(supervisionConversation, "kill", name, undefined, timeout)),
    restart: () =>
      ask((it) => it.call(supervisionConversation, "restart", name, undefined, timeout)),
    drain: () => ask((it) => it.call(supervisionConversation, "drain", name, undefined, timeout)),
  };
}

async function connect(
  { config, secret }: { readonly config: ClusterConfig; readonly secret: Uint8Array },
  { role, id, host }: Pick<NodeEntry, "role" | "id" | "host">,
): Promise<RpcConnection> {
  const port = config.cluster.supervisor_port;
  try {
    return await connectRpc({
      hostname: host,
      port,
      secret: secret.toHex(),
      clusterName: config.cluster.name,
      name: "client",
      expectedPeer: "supervisor",
      onError: () => {},
    });
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    throw new NoSupervisorError(
      `No supervisor answers at ${host}:${port}, so ${role}/${id} cannot be reached: run ` +
        `\`penncloud up\` on that host, or end and start the process there by hand (${error.message})`,
      { cause: error },
    );
  }
}
