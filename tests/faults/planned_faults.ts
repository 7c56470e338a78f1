/** What an operator does on purpose while everybody works: nobody's operation may fail because of it. */
import { KvError } from "../../kv/errors.ts";
import { eventually } from "../eventually.ts";
import { prefixOf } from "./workload.ts";
import { drawPrimary, hit, type Nemesis } from "./nemesis.ts";

const SPLIT_COUNT = 4;
const DRAINED_WITHIN_MS = 60_000;

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
