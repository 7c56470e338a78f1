/**
 * The cluster as the admin console sees it, over the connections of a frontend: status from the
 * coordinator, rows from the backends themselves, orders through the supervisors of their hosts.
 */
import type { ClusterConfig, NodeEntry } from "../proto/cluster_config.ts";
import { coordinatorConversation } from "../proto/control.ts";
import { kvConversation } from "../proto/kv_wire.ts";
import type { NodeId } from "../proto/ids.ts";
import type { AdminSource } from "../web/context.ts";
import { ApiError } from "../web/errors.ts";
import { RpcError } from "./net/rpc_error.ts";
import type { RpcPeer } from "./net/rpc_peer.ts";
import type { Peers } from "./peers.ts";
import type { RoleContext } from "./role_context.ts";
import { NoSupervisorError, type SupervisorClient, supervisorOf } from "./supervisor_client.ts";

const TIMEOUT_MS = 3_000;
/** Of each value on a page of rows. */
const VALUE_HEAD_BYTES = 512;

export function adminSource(context: RoleContext, peers: Peers): AdminSource {
  const { config } = context;
  const options = { timeoutMs: TIMEOUT_MS };
  const order = (give: (supervisor: SupervisorClient) => Promise<unknown>) => (port: number) =>
    answered(async () => {
      await give(supervisorOf(context, nodeOn(config, port)));
    });
  return {
    status: () =>
      answered(async () =>
        (await peers.coordinator.call(coordinatorConversation, "status", {}, undefined, options))
          .body
      ),
    kill: order((supervisor) => supervisor.kill()),
    restart: order((supervisor) => supervisor.restart()),
    drain: order((supervisor) => supervisor.drain()),
    rows: (port, { start = "", after, limit }) =>
      answered(async () => {
        const { body } = await backendOn(config, peers, port).call(
          kvConversation,
          "rows",
          {
            start,
            limit,
            valueBytes: VALUE_HEAD_BYTES,
            ...(after === undefined ? {} : { after }),
          },
          undefined,
          options,
        );
        const cells = body.cells.map((cell) => ({
          ...cell,
          head: Uint8Array.fromBase64(cell.head),
        }));
        return { cells, next: body.next };
      }),
    rowValue: (port, place) =>
      answered(async () => {
        const { body, payload } = await backendOn(config, peers, port)
          .call(kvConversation, "rowValue", place, undefined, options);
        return body.cell === null ? null : payload;
      }),
  };
}

function nodeOn(config: ClusterConfig, port: number): NodeEntry {
  const node = config.node.find((entry) => entry.port === port);
  if (node === undefined) throw new ApiError(404, "no_such_node", `No node has port ${port}.`);
  return node;
}

function backendOn(config: ClusterConfig, peers: Peers, port: number): RpcPeer {
  const node = nodeOn(config, port);
  if (node.role !== "backend") {
    throw new ApiError(422, "not_a_backend", `${node.role}/${node.id} holds no rows.`);
  }
  return peers.of("backend", node.id as NodeId, "bulk");
}

async function answered<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (cause) {
    const retry = { headers: { "Retry-After": "1" }, cause };
    if (cause instanceof NoSupervisorError) {
      throw new ApiError(503, "no_supervisor", `${cause.message}.`, retry);
    }
    if (cause instanceof RpcError) {
      throw new ApiError(503, "node_unreachable", `${cause.message}.`, retry);
    }
    throw cause;
  }
}
