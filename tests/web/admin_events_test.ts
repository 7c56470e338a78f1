/** The console's stream of events: what it tells, to how many, and how it ends. */
import assert from "node:assert/strict";
import type { ClusterStatus } from "../../proto/cluster_status.ts";
import { EventReader, makeAdminWorld, settle } from "./admin_world.ts";

const EVENTS = "/api/v1/admin/events";

Deno.test("a listener gets the status every second and changes as they happen", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const response = await root.request(EVENTS);
  assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  const reader = new EventReader(response);
  await world.env.advance(2_500);
  const calm = reader.take();
  assert.deepEqual(calm.map((it) => it.event), ["cluster", "cluster", "cluster"]);
  assert.equal((JSON.parse(calm[0]!.data) as ClusterStatus).nodes.length, 15);

  await root.send("POST", "/api/v1/admin/nodes/10003/kill");
  await world.env.advance(1_000);
  const events = reader.take();
  const texts = events.filter((it) => it.event === "change").map((it) => JSON.parse(it.data).text);
  assert.deepEqual(texts, [
    "backend/3 (port 10003) was stopped on purpose",
    "Tablet 4.1 moved its primary from backend/3 to backend/4 (epoch 4)",
    "Tablet 4.1 goes on without backend/3: 2 of 3 replicas in sync",
    "Tablet 5.1 goes on without backend/3: 2 of 3 replicas in sync",
    "Tablet 6.1 goes on without backend/3: 2 of 3 replicas in sync",
  ]);
  assert.ok(events.filter((it) => it.event === "change").every((it) => it.id !== ""));
  await reader.cancel();
});

Deno.test("a split is told once, and what happens to a group not once for each of its tablets", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const reader = new EventReader(await root.request(EVENTS));
  await world.env.advance(1_500);
  for (const key of ["kitten", "lamp"]) {
    await root.send("POST", "/api/v1/admin/tablets/split", { key });
  }
  await world.env.advance(1_000);
  await root.send("POST", "/api/v1/admin/nodes/10003/kill");
  await world.env.advance(1_000);
  const texts = reader.take().filter((it) => it.event === "change")
    .map((it) => JSON.parse(it.data).text as string);
  assert.deepEqual(texts.slice(0, 4), [
    'Tablet 4.2 begins at "kitten" after a split',
    'Tablet 4.3 begins at "lamp" after a split',
    "backend/3 (port 10003) was stopped on purpose",
    "Tablet 4.1 (with 2 more of its group) moved its primary from backend/3 to backend/4 (epoch 4)",
  ]);
  assert.equal(texts.filter((text) => text.includes("moved its primary")).length, 1);
  await root.send("POST", "/api/v1/admin/tablets/merge", { key: "lamp" });
  await world.env.advance(1_000);
  const [merged] = reader.take().filter((it) => it.event === "change");
  assert.equal(JSON.parse(merged!.data).text, "Tablet 4.3 was merged into its neighbour");
  await reader.cancel();
});

Deno.test("the status is asked for once a second, however many listen, and by nobody for nobody", async () => {
  const world = await makeAdminWorld();
  let looks = 0;
  const status = world.cluster.status.bind(world.cluster);
  world.cluster.status = () => {
    looks++;
    return status();
  };
  const root = await world.client("root");
  const readers = [];
  for (let i = 0; i < 10; i++) readers.push(new EventReader(await root.request(EVENTS)));
  await world.env.advance(5_000);
  assert.equal(looks, 6);
  for (const reader of readers) assert.ok(reader.take().length >= 5);
  for (const reader of readers) await reader.cancel();
  const before = looks;
  await world.env.advance(60_000);
  assert.equal(looks, before);
  assert.equal(world.env.timerCount, 0);
});

Deno.test("a listener that comes back gets what it missed, and nothing twice", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const first = new EventReader(await root.request(EVENTS));
  await settle();
  world.cluster.set(8001, "down");
  await world.env.advance(1_000);
  const last = first.take().filter((it) => it.event === "change").at(-1)!;
  await first.cancel();
  world.cluster.set(8001, "live");
  await world.env.advance(5_000);
  const second = new EventReader(
    await root.request(EVENTS, { headers: { "last-event-id": last.id } }),
  );
  await settle();
  const missed = second.take().filter((it) => it.event === "change");
  assert.deepEqual(missed.map((it) => JSON.parse(it.data).text), [
    "frontend/1 (port 8001) is live again",
  ]);
  await second.cancel();
  const stranger = new EventReader(
    await root.request(EVENTS, { headers: { "last-event-id": "of-another-frontend.7" } }),
  );
  await settle();
  assert.equal(stranger.take().filter((it) => it.event === "change").length, 2);
  await stranger.cancel();
});

Deno.test("a reader that does not read costs one status, not all of them", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const response = await root.request(EVENTS);
  await world.env.advance(120_000);
  const reader = new EventReader(response);
  await settle();
  assert.equal(reader.take().filter((it) => it.event === "cluster").length, 1);
  await reader.cancel();
});

Deno.test("a quiet stream has heartbeats, and ends when the server stops", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  world.cluster.status = () => Promise.reject(new Error("no status today"));
  const reader = new EventReader(await root.request(EVENTS));
  await world.env.advance(35_000);
  assert.equal(reader.comments, 3);
  assert.equal(reader.ended, false);
  world.stopping.abort();
  await settle();
  assert.equal(reader.ended, true);
  assert.equal(world.env.timerCount, 0);
});

Deno.test("a stream ends after ten minutes, so that its reader proves anew who it is", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const status = await world.cluster.status();
  world.cluster.status = () => Promise.resolve({ ...status, nodes: [], tablets: [] });
  const reader = new EventReader(await root.request(EVENTS));
  await world.env.advance(9 * 60_000);
  assert.equal(reader.ended, false);
  await world.env.advance(61_000);
  assert.equal(reader.ended, true);
});

Deno.test("more consoles than a frontend can serve are told to come back later", async () => {
  const world = await makeAdminWorld();
  const root = await world.client("root");
  const readers = [];
  for (let i = 0; i < 64; i++) readers.push(new EventReader(await root.request(EVENTS)));
  const refused = await root.request(EVENTS);
  assert.equal(refused.status, 503);
  assert.equal(refused.headers.get("retry-after"), "10");
  await refused.body?.cancel();
  await readers.pop()!.cancel();
  const late = await root.request(EVENTS);
  assert.equal(late.status, 200);
  readers.push(new EventReader(late));
  for (const reader of readers) await reader.cancel();
});
