/**
 * Faults of the network between hosts. Clients reach every node all the while, so that whatever a
 * node would say that has been cut off, somebody hears.
 */
import type { SeededRandom } from "../sim/seeded_random.ts";
import { type FaultCluster, type FaultHost, nameOf } from "./fault_cluster.ts";
import type { LinkOrder } from "./link_net.ts";
import { drawMs, drawPrimary, type Fault, type Nemesis } from "./nemesis.ts";

/** A direction in which words get lost: what `from` says to `to`. */
type Loss = readonly [from: FaultHost, to: FaultHost];

interface Shape {
  readonly name: string;
  /** Of the figure for tablets whose primary is at the centre. */
  readonly gap: string;
  readonly losses: (primary: FaultHost, cluster: FaultCluster, random: SeededRandom) => Loss[];
}

const SHAPES: readonly Shape[] = [
  {
    name: "a pair",
    gap: "primary cut from one secondary",
    losses: (primary, cluster, random) => both([primary], [random.pick(peersOf(primary, cluster))]),
  },
  {
    name: "from its secondaries",
    gap: "primary cut from its secondaries",
    losses: (primary, cluster) => both([primary], peersOf(primary, cluster)),
  },
  {
    name: "from the coordinator",
    gap: "primary cut from the coordinator",
    losses: (primary, cluster) => both([primary], [coordinatorHost(cluster)]),
  },
  {
    name: "from everybody",
    gap: "primary cut from everybody",
    losses: (primary, cluster) =>
      both([primary], [...peersOf(primary, cluster), coordinatorHost(cluster)]),
  },
  {
    name: "with the coordinator from its secondaries",
    gap: "primary and coordinator cut from secondaries",
    losses: (primary, cluster) =>
      both([primary, coordinatorHost(cluster)], peersOf(primary, cluster)),
  },
  {
    name: "in one direction, from its secondaries",
    gap: "primary not heard by its secondaries",
    losses: (primary, cluster) => peersOf(primary, cluster).map((peer) => [primary, peer]),
  },
  {
    name: "in the other direction, from its secondaries",
    gap: "primary hears no secondary",
    losses: (primary, cluster) => peersOf(primary, cluster).map((peer) => [peer, primary]),
  },
  {
    name: "into a ring",
    gap: "hosts hear their neighbours only",
    losses: (_, cluster) => {
      const [a, b, c, d] = cluster.hosts as [FaultHost, FaultHost, FaultHost, FaultHost];
      return [...both([a], [c]), ...both([b], [d])];
    },
  },
];

export const cut: Nemesis = {
  name: "cut",
  about: "the network parts in one of eight shapes for 1 to 10 s, closing connections or silently",
  combines: true,
  needsLinks: true,
  plan: async (cluster, random) => {
    const victim = await drawPrimary(cluster, random), shape = random.pick(SHAPES);
    const losses = shape.losses(cluster.hostOf(victim), cluster, random);
    const oneWay = losses.some(([a, b]) => !losses.some(([c, d]) => c === b && d === a));
    const silent = oneWay || random.chance(0.5);
    const holdMs = drawMs(random, 1_000, 10_000);
    return partition(cluster, {
      what: `${victim} cut ${silent ? "silently " : ""}${shape.name} for ${holdMs} ms`,
      victims: [victim],
      gaps: { primary: shape.gap },
      holdMs,
    }, ordersFor(losses, silent));
  },
};

export const slowLinks: Nemesis = {
  name: "slow-links",
  about: "everything between a primary's host and the others takes 20 to 200 ms longer",
  combines: true,
  needsLinks: true,
  plan: async (cluster, random) => {
    const victim = await drawPrimary(cluster, random), host = cluster.hostOf(victim);
    const delayMs = drawMs(random, 20, 200), holdMs = drawMs(random, 2_000, 8_000);
    const names = both([host], cluster.hosts.filter((other) => other !== host))
      .flatMap(([from, to]) => linksOf(from, to));
    return partition(cluster, {
      what: `${victim} behind links ${delayMs} ms slower for ${holdMs} ms`,
      victims: [victim],
      gaps: { primary: "primary behind slow links" },
      holdMs,
    }, [{ names, order: { kind: "slow", delayMs } }]);
  },
};

interface Orders {
  readonly names: readonly string[];
  readonly order: LinkOrder;
}

function partition(
  cluster: FaultCluster,
  fault: Omit<Fault, "begin" | "end">,
  orders: readonly Orders[],
): Fault {
  const net = cluster.net!;
  return {
    ...fault,
    begin: async () => {
      await Promise.all(orders.map(({ names, order }) => net.order(names, order)));
    },
    end: () => net.healAll(),
  };
}

/** Words of a host travel on connections that it opened, and back on those that the other opened. */
function ordersFor(losses: readonly Loss[], silent: boolean): Orders[] {
  if (!silent) {
    const names = losses.flatMap(([from, to]) => linksOf(from, to));
    return [{ names, order: { kind: "cut" } }];
  }
  return losses.flatMap(([from, to]): Orders[] => [
    { names: linksOf(from, to), order: { kind: "stall", directions: ["there"] } },
    { names: linksOf(to, from), order: { kind: "stall", directions: ["back"] } },
  ]);
}

const both = (some: readonly FaultHost[], others: readonly FaultHost[]): Loss[] =>
  some.flatMap((a) => others.flatMap((b): Loss[] => [[a, b], [b, a]]));

const coordinatorHost = (cluster: FaultCluster): FaultHost => cluster.hostOf("coordinator/0");

const peersOf = (primary: FaultHost, cluster: FaultCluster): FaultHost[] =>
  cluster.hosts.filter((host) => host !== primary && host !== coordinatorHost(cluster));

const linksOf = (from: FaultHost, to: FaultHost): string[] =>
  to.nodes.map((node) => from.linkTo(nameOf(node)));
