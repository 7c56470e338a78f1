/** Which group carries which key range, and where its primary is: what a client routes by. */
import { z } from "zod";
import { compareKeys } from "../kv/key_order.ts";
import { Epoch, GroupId, NodeId } from "./ids.ts";
import type { GroupConfig } from "./replication.ts";

export const Route = z.object({
  gid: GroupId,
  startKey: z.string(),
  /** Half-open: the first key that is no longer in the range; null for no end. */
  endKey: z.string().nullable(),
  epoch: Epoch,
  primary: NodeId,
  /** Backends that hold the data, the primary first. */
  members: z.array(NodeId),
});
export type Route = z.infer<typeof Route>;

export const RouteTable = z.object({
  /** Raised by every change; a larger one is newer. */
  version: z.int().nonnegative(),
  /** Version of the coordinator's range map that says who owns what; 0: by the configuration. */
  ranges: z.int().nonnegative(),
  /** By start key, without gaps; empty while the cluster is being set up. A group may have several. */
  routes: z.array(Route).max(10_000),
});
export type RouteTable = z.infer<typeof RouteTable>;

export const NO_ROUTES: RouteTable = { version: 0, ranges: 0, routes: [] };

/** More than all epochs of a cluster together will ever be. */
const EPOCHS = 2 ** 32;

/** The table of `routes`. Every change raises one epoch by one, or the version of the ranges. */
export function tableOf(routes: readonly Route[], ranges = 0): RouteTable {
  const epochs = new Map(routes.map(({ gid, epoch }) => [gid, epoch]));
  const version = ranges * EPOCHS + [...epochs.values()].reduce((sum, epoch) => sum + epoch, 0);
  return {
    version,
    ranges,
    routes: routes.toSorted((a, b) => compareKeys(a.startKey, b.startKey)),
  };
}

/**
 * `known` itself if `other` has nothing newer; else who owns what as the newer of the two says, and of
 * each group where it is as the newer of the two says.
 */
export function mergeRoutes(known: RouteTable, other: RouteTable): RouteTable {
  const places = new Map(known.routes.map((route) => [route.gid, route]));
  const owners = other.ranges > known.ranges ? [...other.routes] : [...known.routes];
  let changed = other.ranges > known.ranges;
  for (const route of other.routes) {
    const place = places.get(route.gid);
    if (route.epoch <= (place?.epoch ?? 0)) continue;
    if (place === undefined && other.ranges === known.ranges) {
      owners.push(...other.routes.filter(({ gid }) => gid === route.gid));
    }
    places.set(route.gid, route);
    changed = true;
  }
  if (!changed) return known;
  const merged = owners.map(({ startKey, endKey, gid }) => ({
    ...places.get(gid)!,
    startKey,
    endKey,
  }));
  return tableOf(merged, Math.max(known.ranges, other.ranges));
}

/** Where a group is served as this configuration of it says. */
export function routeOf(
  { gid, startKey, endKey }: { gid: GroupId; startKey: string; endKey: string | null },
  { epoch, primary, inSync }: Pick<GroupConfig, "epoch" | "primary" | "inSync">,
): Route {
  const members = inSync.map((member) => member.node)
    .sort((a, b) => Number(b === primary.node) - Number(a === primary.node));
  return { gid, startKey, endKey, epoch, primary: primary.node, members };
}
