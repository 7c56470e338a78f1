/** Faults of processes and hosts: killed, stopped, paused, and everything at once. */
import type { SeededRandom } from "../sim/seeded_random.ts";
import { type FaultCluster, nameOf, sendSignal } from "./fault_cluster.ts";
import { drawMs, drawPrimary, type Fault, hit, type Nemesis, ordersOf } from "./nemesis.ts";

const COORDINATOR = "coordinator/0";
const FRONTEND = "frontend/0";

/** Proof of death reaches the coordinator through the supervisor, which starts it again at once. */
export const kill: Nemesis = {
  name: "kill",
  about: "kill -9 of a primary; its supervisor starts it again at once",
  combines: true,
  plan: async (cluster, random) => await killOf(cluster, await drawPrimary(cluster, random)),
};

async function killOf(cluster: FaultCluster, victim: string): Promise<Fault> {
  const pid = await cluster.pidOf(victim);
  return {
    what: `kill -9 ${victim}`,
    victims: victim === COORDINATOR ? [] : [victim],
    gaps: hit("killed, host alive"),
    holdMs: 0,
    begin: () => Promise.resolve(cluster.sigkill(pid)),
    // Somebody else may have taken the whole host away meanwhile.
    end: () => cluster.waitGone(victim, pid).catch(() => {}),
  };
}

export const stop: Nemesis = {
  name: "stop",
  about: "kill -9 of a primary that stays down for 2 to 12 s",
  combines: true,
  plan: async (cluster, random) => {
    const victim = await drawPrimary(cluster, random);
    const holdMs = drawMs(random, 2_000, 12_000);
    return {
      what: `${victim} down for ${holdMs} ms`,
      victims: [victim],
      gaps: hit("killed, stays down"),
      holdMs,
      begin: () => cluster.killNode(victim),
      end: () => cluster.startNode(victim),
    };
  },
};

/** Nobody is left who could tell the coordinator: it has to conclude it from silence. */
export const host: Nemesis = {
  name: "host",
  about: "a host with its supervisor and all its backends gone for 3 to 10 s",
  combines: false,
  plan: async (cluster, random) => {
    const gone = cluster.hostOf(await drawPrimary(cluster, random));
    const holdMs = drawMs(random, 3_000, 10_000);
    return {
      what: `host ${gone.address} gone for ${holdMs} ms`,
      victims: gone.nodes.map(nameOf),
      gaps: hit("lost with its host"),
      holdMs,
      begin: () => gone.crash(),
      end: () => Promise.resolve(gone.start()),
    };
  },
};

export const pause: Nemesis = {
  name: "pause",
  about: "SIGSTOP of a primary for 1 to 20 s; it wakes up with everything it knew",
  combines: true,
  plan: async (cluster, random) => {
    const victim = await drawPrimary(cluster, random);
    const pid = await cluster.pidOf(victim);
    const holdMs = drawMs(random, 1_000, random.chance(0.5) ? 4_000 : 20_000);
    return {
      what: `${victim} paused for ${holdMs} ms`,
      victims: [victim],
      gaps: hit("paused"),
      holdMs,
      begin: () => Promise.resolve(sendSignal(pid, "SIGSTOP")),
      end: () => Promise.resolve(sendSignal(pid, "SIGCONT")),
    };
  },
};

/** With the coordinator just killed, a primary's death has to wait for its return. */
export const killBoth: Nemesis = {
  name: "kill-both",
  about: "kill -9 of the coordinator and of a primary in the same moment",
  combines: false,
  plan: async (cluster, random) => {
    const victim = await drawPrimary(cluster, random);
    const faults = [await killOf(cluster, COORDINATOR), await killOf(cluster, victim)];
    return {
      what: `kill -9 ${COORDINATOR} and ${victim}`,
      victims: [victim],
      gaps: hit("killed together with the coordinator"),
      holdMs: 0,
      begin: async () => void await Promise.all(faults.map((fault) => fault.begin())),
      end: async () => void await Promise.all(faults.map((fault) => fault.end())),
    };
  },
};

/** Requests of people end in the middle; what they had been promised stays. */
export const frontend: Nemesis = {
  name: "frontend",
  about: "kill -9 of the frontend in the middle of people's requests",
  combines: true,
  plan: async (cluster) => ({ ...await killOf(cluster, FRONTEND), victims: [], gaps: {} }),
};

/** Data goes on being served: only a change of configuration would need it. */
export const coordinator: Nemesis = {
  name: "coordinator",
  about: "the coordinator down for 5 to 30 s, which nobody may notice",
  combines: false,
  plan: (cluster, random) => {
    const holdMs = drawMs(random, 5_000, 30_000);
    return Promise.resolve({
      what: `${COORDINATOR} down for ${holdMs} ms`,
      victims: [],
      gaps: { other: "coordinator away" },
      harmless: true,
      holdMs,
      begin: () => cluster.killNode(COORDINATOR),
      end: () => cluster.startNode(COORDINATOR),
    });
  },
};

/** Every process dies; the hosts come back in every order in turn. */
export function everything(options: { readonly oneByOne: boolean }): Nemesis {
  const { oneByOne } = options;
  let orders: number[][] = [];
  return {
    name: oneByOne ? "staggered" : "everything",
    about: oneByOne
      ? "the hosts die one after the other and come back in every order"
      : "kill -9 of every process at once; the hosts come back in every order",
    combines: false,
    plan: (cluster, random) => {
      const hosts = cluster.hosts.filter(({ nodes }) => nodes[0]!.role === "backend");
      if (orders.length === 0) orders = shuffled(ordersOf(hosts.map((_, i) => i)), random);
      const order = orders.pop()!, apartMs = drawMs(random, 0, oneByOne ? 4_000 : 2_500);
      const deaths = shuffled(hosts, random);
      const withCoordinator = !oneByOne || random.chance(0.5);
      const [coordinatorHost] = cluster.hosts as [typeof cluster.hosts[number]];
      return Promise.resolve({
        what: `${oneByOne ? "hosts die one by one" : "everything dies"}, back in the order ` +
          `${order.map((i) => hosts[i]!.address.slice(-1)).join("")}, ${apartMs} ms apart`,
        victims: cluster.backends,
        gaps: {
          primary: oneByOne
            ? "one by one: time to writable"
            : "everything killed: time to writable",
          sinceEnd: true,
        },
        holdMs: drawMs(random, 0, 1_000),
        begin: async () => {
          if (!oneByOne) {
            await Promise.all(cluster.hosts.map((host) => host.crash()));
            return;
          }
          for (const host of deaths) {
            await host.crash();
            await sleep(apartMs);
          }
          if (withCoordinator) await coordinatorHost.crash();
        },
        end: async () => {
          coordinatorHost.start();
          for (const [n, i] of order.entries()) {
            if (n > 0) await sleep(apartMs);
            hosts[i]!.start();
          }
        },
      });
    },
  };
}

function shuffled<T>(items: readonly T[], random: SeededRandom): T[] {
  return items.map((item) => ({ item, at: random.next() })).sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
