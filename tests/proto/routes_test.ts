/** Whose word about the place of a group counts. */
import assert from "node:assert/strict";
import { epoch, groupId, nodeId } from "../../proto/ids.ts";
import { mergeRoutes, NO_ROUTES, type Route, tableOf } from "../../proto/routes.ts";

const route = (gid: number, of: number, primary: number): Route => ({
  gid: groupId(gid),
  startKey: gid === 1 ? "" : `k${gid}`,
  endKey: null,
  epoch: epoch(of),
  primary: nodeId(primary),
  members: [nodeId(primary)],
});
const primaries = (table: { routes: readonly Route[] }) => table.routes.map((item) => item.primary);

Deno.test("mergeRoutes() takes of each group what is newer, whichever table is newer as a whole", () => {
  const known = tableOf([route(1, 17, 2), route(2, 5, 0)]);
  const other = tableOf([route(1, 18, 0), route(2, 3, 1)]);
  assert.deepEqual(primaries(mergeRoutes(known, other)), [0, 0]);
  assert.deepEqual(primaries(mergeRoutes(other, known)), [0, 0]);
  assert.equal(mergeRoutes(known, other).version, 23);
});

Deno.test("mergeRoutes() never goes back, and says by identity that nothing is new", () => {
  const known = tableOf([route(1, 18, 0), route(2, 5, 1)]);
  assert.equal(mergeRoutes(known, tableOf([route(1, 17, 2)])), known);
  assert.equal(mergeRoutes(known, NO_ROUTES), known);
});

Deno.test("mergeRoutes() adds groups that were not known, in the order of their keys", () => {
  const merged = mergeRoutes(tableOf([route(3, 1, 0)]), tableOf([route(1, 1, 1), route(2, 1, 2)]));
  assert.deepEqual(merged.routes.map((item) => item.gid), [1, 2, 3]);
});
