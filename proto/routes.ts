/** Which group carries which key range, and where its primary is: what a client routes by. */
import { z } from "zod";
import { Epoch, GroupId, NodeId } from "./ids.ts";

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
