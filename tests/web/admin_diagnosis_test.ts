/** What the console says first, and what it says before an order: words that have to be right. */
import assert from "node:assert/strict";
import type { ClusterStatus, NodeStatus } from "../../proto/cluster_status.ts";
import { clusterChanges } from "../../web/admin/cluster_changes.ts";
import { diagnose } from "../../web/browser/admin/diagnosis.ts";
import {
  groupNodes,
  questionFor,
  rangeOf,
  withoutNode,
} from "../../web/browser/admin/node_facts.ts";
import { formatSpan, listed } from "../../web/browser/admin/spans.ts";
import { SampleAdmin, sampleConfig } from "../sample_cluster.ts";

async function clusterWith(states: Record<number, NodeStatus["state"]>): Promise<ClusterStatus> {
  const sample = new SampleAdmin(sampleConfig());
  for (const [port, state] of Object.entries(states)) sample.set(Number(port), state);
  return await sample.status();
}

const at = (status: ClusterStatus, port: number) =>
  status.nodes.find((node) => node.port === port)!;

Deno.test("diagnose() says that everything is fine when it is", async () => {
  const found = diagnose(await clusterWith({}));
  assert.equal(found.title, "Everything is fine");
  assert.equal(found.text, "All 15 nodes are live, and each of the 9 tablets is on 3 disks.");
  assert.deepEqual(found.findings, []);
});

Deno.test("diagnose() names a stopped backend once, with what it means and how to start it", async () => {
  const status = await clusterWith({ 10003: "stopped" });
  const found = diagnose(status);
  assert.equal(found.tone, "warning");
  assert.equal(found.title, "Everything works, with less in reserve");
  assert.deepEqual(found.findings.map((finding) => finding.title), [
    "backend/3 (port 10003) is stopped",
  ]);
  assert.match(found.findings[0]!.text, /3 tablets have a copy less; users notice nothing/);
  assert.deepEqual(found.findings[0]!.start.map((node) => node.port), [10003]);
});

Deno.test("diagnose() puts tablets that do not serve before those that take no writes", async () => {
  const status = await clusterWith({
    10003: "down",
    10004: "down",
    10006: "down",
    10007: "stopped",
    10008: "down",
  });
  const found = diagnose(status);
  assert.equal(found.title, "Part of the data cannot be reached");
  assert.deepEqual(found.findings.map((finding) => finding.title), [
    "Tablets 7.1, 8.1 and 9.1 do not serve",
    "Tablets 4.1, 5.1 and 6.1 take no writes",
  ]);
  assert.deepEqual(found.findings.map((finding) => finding.start.map((node) => node.port)), [
    [10006, 10007, 10008],
    [10003, 10004],
  ]);
});

Deno.test("diagnose() tells a failover under way from one that cannot be", async () => {
  const status = await clusterWith({ 10003: "down" });
  const moving: ClusterStatus = {
    ...status,
    tablets: status.tablets.map((tablet) =>
      tablet.id === "4.1" ? { ...tablet, state: "unavailable" } : tablet
    ),
  };
  assert.equal(diagnose(moving).title, "Part of the data is changing over");
  assert.equal(diagnose(moving).findings[0]!.title, "Tablet 4.1 gets a new primary");
  const late = diagnose({ ...moving, generatedMs: moving.generatedMs + 60_000 });
  assert.equal(late.title, "Part of the data cannot be reached");
  assert.match(late.findings[0]!.text, /should have been chosen by now/);
  assert.match(
    diagnose({ ...moving, stale: true }).findings[0]!.text,
    /as soon as the coordinator is back/,
  );
});

Deno.test("diagnose() says what a missing coordinator does and does not mean", async () => {
  const sample = new SampleAdmin(sampleConfig());
  await sample.kill(9999);
  const found = diagnose(await sample.status());
  assert.equal(found.title, "The coordinator is away, the rest goes on");
  assert.match(found.findings[0]!.text, /no new primary can be chosen/);
});

Deno.test("diagnose() repeats what the coordinator says and nothing else shows", async () => {
  const status = await clusterWith({});
  const problem = "Tablet 2.1: nodes know a newer configuration than the coordinator. Its " +
    "metadata went back in time; restore the coordinator's folder before anything else";
  const found = diagnose({ ...status, problems: [problem] });
  assert.equal(found.tone, "danger");
  assert.equal(found.findings[0]!.title, problem);
});

Deno.test("diagnose() calls it by its name when no page can be opened", async () => {
  const found = diagnose(await clusterWith({ 8000: "down", 8001: "down", 8002: "down" }));
  assert.equal(found.tone, "danger");
  assert.match(found.findings[0]!.text, /No page opens until a frontend is back/);
});

Deno.test("withoutNode() knows when nobody notices and when somebody does", async () => {
  const calm = await clusterWith({});
  assert.deepEqual(withoutNode(calm, at(calm, 10003)), {
    text: "1 group will change primary; nobody should notice more than a short pause. " +
      "3 tablets have one copy less until it is back.",
    weight: "less",
  });
  assert.equal(withoutNode(calm, at(calm, 8000)).weight, "none");
  assert.equal(withoutNode({ ...calm, stale: true }, at(calm, 10003)).weight, "harm");

  const thin = await clusterWith({ 10004: "down" });
  const frozen = withoutNode(thin, at(thin, 10003));
  assert.equal(frozen.weight, "harm");
  assert.match(frozen.text, /4\.1, 5\.1 and 6\.1.*too few copies to take writes/);

  const last = await clusterWith({ 10004: "down", 10005: "down" });
  const lost = withoutNode(last, at(last, 10003));
  assert.equal(lost.weight, "harm");
  assert.match(lost.text, /the only copy in sync of 3 tablets/);

  const alone = await clusterWith({ 8001: "stopped", 8002: "stopped" });
  assert.equal(withoutNode(alone, at(alone, 8000)).weight, "harm");
});

Deno.test("the question before an order says what will happen", async () => {
  const status = await clusterWith({});
  const { title, text, danger } = questionFor("kill", at(status, 10003), status);
  assert.equal(title, "Kill backend/3?");
  assert.match(text, /stays down until you start it.*1 group will change primary/);
  assert.equal(danger, true);
  assert.equal(questionFor("restart", at(status, 10003), status).danger, false);
});

Deno.test("groupNodes() puts backends together that keep the same tablets", async () => {
  const status = await clusterWith({ 10004: "down" });
  assert.deepEqual(groupNodes(status).map((group) => [group.title, group.nodes.length]), [
    ["Doors and coordinator", 6],
    ["Backends 0 to 2", 3],
    ["Backends 3 to 5", 3],
    ["Backends 6 to 8", 3],
  ]);
  assert.equal(rangeOf(status.tablets), "all");
});

Deno.test("clusterChanges() tells a failover and the return from it in order", async () => {
  const sample = new SampleAdmin(sampleConfig());
  const before = await sample.status();
  sample.set(10003, "down");
  const during = await sample.status();
  sample.set(10003, "live");
  const after = await sample.status();
  assert.deepEqual(clusterChanges(before, before), []);
  const texts = (a: ClusterStatus, b: ClusterStatus) =>
    clusterChanges(a, b).map((change) => change.text);
  assert.deepEqual(texts(before, during).slice(0, 3), [
    "backend/3 (port 10003) is down",
    "Tablet 4.1 moved its primary from backend/3 to backend/4 (epoch 4)",
    "Tablet 4.1 goes on without backend/3: 2 of 3 replicas in sync",
  ]);
  assert.deepEqual(texts(during, after).slice(0, 3), [
    "backend/3 (port 10003) is live again",
    "Tablet 4.1 moved its primary from backend/4 to backend/3 (epoch 3)",
    "Tablet 4.1 is healthy again, with backend/3: 3 of 3 replicas in sync",
  ]);
});

Deno.test("clusterChanges() sees a process that was replaced between two looks", async () => {
  const before = await clusterWith({});
  const after = {
    ...before,
    nodes: before.nodes.map((node) => node.port === 8001 ? { ...node, pid: 99 } : node),
  };
  assert.deepEqual(clusterChanges(before, after).map((change) => change.text), [
    "frontend/1 (port 8001) was started anew as process 99",
  ]);
});

Deno.test("spans and lists read as people say them", () => {
  assert.deepEqual(
    [900, 59_000, 61_000, 5_400_000, 40 * 3_600_000, 80 * 3_600_000].map(formatSpan),
    ["0 s", "59 s", "1 min", "1 h 30 min", "40 h", "3 days"],
  );
  assert.equal(listed(["a"]), "a");
  assert.equal(listed(["a", "b", "c"]), "a, b and c");
  assert.equal(listed(["a", "b", "c", "d", "e"], 3), "a, b and 3 more");
});
