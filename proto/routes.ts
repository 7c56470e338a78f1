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
  /** By start key, without gaps; empty while the cluster is being set up. */
  routes: z.array(Route).max(10_000),
});
export type RouteTable = z.infer<typeof RouteTable>;

export const NO_ROUTES: RouteTable = { version: 0, routes: [] };

/** The table of `routes`. Every change raises one epoch by one, so their sum numbers the tables. */
export function tableOf(routes: readonly Route[]): RouteTable {
  const version = routes.reduce((sum, { epoch }) => sum + epoch, 0);
  return { version, routes: routes.toSorted((a, b) => compareKeys(a.startKey, b.startKey)) };
}

/** `known` itself if `other` has nothing newer; else of each group what is newer. */
export function mergeRoutes(known: RouteTable, other: RouteTable): RouteTable {
  const merged = new Map(known.routes.map((route) => [route.gid, route]));
  let changed = false;
  for (const route of other.routes) {
    if (route.epoch <= (merged.get(route.gid)?.epoch ?? 0)) continue;
    merged.set(route.gid, route);
    changed = true;
  }
  return changed ? tableOf([...merged.values()]) : known;
}

/** Where a group is served as this configuration of it says. */
export function routeOf(
  { id, startKey, endKey }: { id: number; startKey: string; endKey: string | null },
  { epoch, primary, inSync }: Pick<GroupConfig, "epoch" | "primary" | "inSync">,
): Route {
  const members = inSync.map((member) => member.node)
    .sort((a, b) => Number(b === primary.node) - Number(a === primary.node));
  return { gid: GroupId.parse(id), startKey, endKey, epoch, primary: primary.node, members };
}
