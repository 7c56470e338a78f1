/** What an operator does on purpose while everybody works: nobody's operation may fail because of it. */
import type { KvClient } from "../../kv/client.ts";
import { KvError } from "../../kv/errors.ts";
import { put } from "../../kv/kv.ts";
import type { KeyRange } from "../../kv/tablets.ts";
import type { GroupPlan } from "../../proto/cluster_config.ts";
import { coordinatorConversation } from "../../proto/control.ts";
import { type GroupId, groupId } from "../../proto/ids.ts";
import { RpcError } from "../../roles/net/rpc_error.ts";
import { withConnection } from "../cluster/cluster_calls.ts";
import { eventually } from "../eventually.ts";
import type { FaultCluster } from "./fault_cluster.ts";
import { prefixOf } from "./workload.ts";
import { drawPrimary, hit, type Nemesis } from "./nemesis.ts";

const SPLIT_COUNT = 4;
const DRAINED_WITHIN_MS = 60_000;
/** Of a tablet that moves, beside what the workloads write into it. */
const MOVED_ROWS = 512, MOVED_ROW_BYTES = 16 * 1024;
/** Longer than it takes to give up a move with which nobody goes on. */
const MOVED_WITHIN_MS = 120_000;

export const drain: Nemesis = {
  name: "drain",
  about: "a primary is drained: it hands over, stops, and is started again",
  combines: false,
  plan: async (cluster, random) => {
    const victim = await drawPrimary(cluster, random), pid = await cluster.pidOf(victim);
    return {
      what: `${victim} is drained`,
      victims: [victim],
      gaps: hit("drained"),
      harmless: true,
      holdMs: 500,
      begin: async () => {
        await cluster.supervisorOf(victim).drain();
        const stopped = async () => (await cluster.process(victim)).pid !== pid;
        await eventually(stopped, `${victim} to stop`, { withinMs: DRAINED_WITHIN_MS });
      },
      end: () => cluster.startNode(victim),
    };
  },
};

export const split: Nemesis = {
  name: "split",
  about: "tablets are split at keys that are in use, and merged again",
  combines: true,
  plan: (cluster, random) => {
    const group = random.pick(cluster.groups), kv = cluster.connect();
    // Among rows of all workloads, and in the middle of those of one.
    const keys = Array.from({ length: SPLIT_COUNT }, () => {
      const letter = String.fromCharCode(97 + random.integer(26));
      return `${prefixOf(group)}-${random.pick(["reg", "set", letter])}-${random.integer(10)}`;
    });
    const reshape = async (kind: "split" | "merge") => {
      for (const key of new Set(keys)) {
        try {
          await kv.reshape({ kind, key });
        } catch (error) {
          // Where another fault strikes, it may be refused, or done without our hearing of it.
          if (!(error instanceof KvError)) throw error;
        }
      }
    };
    return Promise.resolve({
      what: `a tablet of group ${group.id} is split ${keys.length} times`,
      victims: [],
      gaps: { other: "tablets split and merged" },
      harmless: true,
      holdMs: random.integer(1_000),
      begin: () => reshape("split"),
      end: () => reshape("merge"),
    });
  },
};

export const move: Nemesis = {
  name: "move",
  about: "a tablet of 8 MB, the probes' rows among it, moves to another group",
  combines: true,
  plan: async (cluster, random) => {
    const plan = random.pick(cluster.groups), name = `the tablet of group ${plan.id}'s probes`;
    const tablet = await ownTablet(cluster.connect(), plan);
    let id: number | null = null, shownId = "";
    const isShown = async () => {
      const { tablets } = await cluster.status();
      const shown = tablets.find(({ startKey }) => startKey === tablet.startKey);
      shownId = shown?.id ?? "";
      return shown?.endKey === tablet.endKey;
    };
    await eventually(isShown, `${name} to be shown`);
    const [from, tabletId] = shownId.split(".").map(Number);
    const others = cluster.groups.filter(({ id }) => id !== from), to = random.pick(others).id;
    return {
      what: `${name} moves from group ${from} to group ${to}`,
      victims: [],
      gaps: {
        moved: "a tablet of 8 MB moves to another group",
        // What the machine was like: nobody has to wait there.
        other: "meanwhile, in tablets that stay",
      },
      moved: plan.id,
      harmless: true,
      // Another fault may strike anywhere in it.
      holdMs: random.integer(1_500),
      begin: async () => {
        const wish = { from: groupId(from!), tabletId: tabletId!, to: groupId(to) };
        id = await beginMove(cluster, wish);
      },
      end: async () => {
        if (id !== null) await isOver(cluster, id);
      },
    };
  },
};

/** The rows around a group's probes as a tablet of its own, filled once. */
async function ownTablet(kv: KvClient, plan: GroupPlan): Promise<KeyRange> {
  const startKey = `${prefixOf(plan)}-p`, endKey = `${prefixOf(plan)}-q`;
  const rowOf = (i: number) => `${startKey}ad-${i}`;
  if (await kv.get(rowOf(MOVED_ROWS - 1), "c") === null) {
    const value = new Uint8Array(MOVED_ROW_BYTES).fill(7);
    for (let i = 0; i < MOVED_ROWS; i++) await put(kv, rowOf(i), "c", value);
  }
  for (const key of [startKey, endKey]) {
    try {
      await kv.reshape({ kind: "split", key });
    } catch (error) {
      // It is there already, or another tablet begins there.
      if (!(error instanceof KvError) || error.code !== "invalid_request") throw error;
    }
  }
  return { startKey, endKey };
}

/** Null where another fault keeps the coordinator from saying that it has begun. */
async function beginMove(
  cluster: FaultCluster,
  wish: { from: GroupId; tabletId: number; to: GroupId },
): Promise<number | null> {
  try {
    return await withConnection(cluster, cluster.node("coordinator/0"), async (connection) => {
      return (await connection.call(coordinatorConversation, "beginMove", wish)).body.id;
    });
  } catch (error) {
    if (error instanceof KvError || error instanceof RpcError) return null;
    throw error;
  }
}

async function isOver(cluster: FaultCluster, id: number): Promise<void> {
  const over = async () => {
    const { body: map } = await withConnection(
      cluster,
      cluster.node("coordinator/0"),
      (connection) => connection.call(coordinatorConversation, "rangeMap", {}),
    );
    return !map.moves.some((item) => item.id === id);
  };
  await eventually(() => over().catch(() => false), `move ${id} to end`, {
    withinMs: MOVED_WITHIN_MS,
  });
}
