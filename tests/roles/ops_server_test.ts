import assert from "node:assert/strict";
import { Metrics } from "../../roles/metrics.ts";
import { type Readiness, startOpsServer } from "../../roles/ops_server.ts";

Deno.test("/livez says that the process runs, /readyz whether it can serve and why not", async () => {
  let readiness: Readiness = { ready: false, reason: "recovering", recovered: 0.4 };
  await using ops = await start({ ready: () => readiness });
  assert.equal((await ops.ask("/livez")).status, 200);
  const waiting = await ops.ask("/readyz");
  assert.equal(waiting.status, 503);
  assert.deepEqual(await waiting.json(), readiness);
  readiness = { ready: true, active: 3 };
  const ready = await ops.ask("/readyz");
  assert.equal(ready.status, 200);
  assert.deepEqual(await ready.json(), readiness);
});

Deno.test("/metrics is Prometheus text", async () => {
  await using ops = await start({ metrics: () => "penncloud_things 5\n" });
  const response = await ops.ask("/metrics");
  assert.equal(response.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  assert.equal(await response.text(), "penncloud_things 5\n");
});

Deno.test("other paths are 404, other methods 405, and HEAD has no body", async () => {
  await using ops = await start({});
  for (const path of ["/", "/metrics/x", "/livez/", "/../etc/passwd", "/%2e%2e/"]) {
    assert.equal((await ops.ask(path)).status, 404, path);
  }
  const post = await ops.ask("/livez", { method: "POST", body: "x" });
  assert.equal(post.status, 405);
  assert.equal(post.headers.get("allow"), "GET, HEAD");
  const head = await ops.ask("/readyz", { method: "HEAD" });
  assert.equal(head.status, 200);
  assert.equal(await head.text(), "");
});

Deno.test("an answer that fails is a 500, and the server lives on", async () => {
  await using ops = await start({
    metrics: () => {
      throw new Error("no numbers today");
    },
  });
  const response = await ops.ask("/metrics");
  assert.equal(response.status, 500);
  assert.equal((await response.json()).error.code, "internal");
  assert.equal((await ops.ask("/livez")).status, 200);
});

Deno.test("Metrics prints counters, gauges, readings and histograms as Prometheus reads them", () => {
  const metrics = new Metrics();
  const requests = metrics.counter("requests_total", "Requests by status");
  requests.add(1, { status: 200 });
  requests.add(2, { status: 200 });
  requests.add(1, { status: 503, path: 'a"b\\c\nd' });
  metrics.gauge("depth", "Queue depth").set(7);
  metrics.read("up", { help: "By node", value: () => [{ labels: { node: "a" }, value: 1 }] });
  const seconds = metrics.histogram("seconds", "Latency", [0.1, 1]);
  for (const value of [0.05, 0.1, 0.5, 3]) seconds.observe(value, { op: "get" });
  const text = metrics.text();
  metrics.close();
  const expected = [
    "# TYPE requests_total counter",
    'requests_total{status="200"} 3',
    'requests_total{status="503",path="a\\"b\\\\c\\nd"} 1',
    "depth 7",
    'up{node="a"} 1',
    "# TYPE seconds histogram",
    'seconds_bucket{op="get",le="0.1"} 2',
    'seconds_bucket{op="get",le="1"} 3',
    'seconds_bucket{op="get",le="+Inf"} 4',
    'seconds_sum{op="get"} 3.65',
    'seconds_count{op="get"} 4',
  ];
  const lines = text.split("\n");
  for (const line of expected) assert.ok(lines.includes(line), `${line}\n${text}`);
});

Deno.test("Metrics measures the process", () => {
  const metrics = new Metrics();
  const value = (name: string) =>
    Number(new RegExp(`^${name} (.*)$`, "m").exec(metrics.text())![1]);
  assert.ok(value("process_resident_memory_bytes") > 10_000_000);
  assert.ok(value("process_cpu_seconds_total") >= 0);
  assert.ok(Math.abs(value("process_start_time_seconds") * 1000 - Date.now()) < 3_600_000);
  assert.ok(value("penncloud_event_loop_delay_seconds") >= 0);
  metrics.close();
});

Deno.test("a label that users can choose does not fill the memory", () => {
  const metrics = new Metrics();
  const hits = metrics.counter("hits_total", "Hits");
  for (let i = 0; i < 5000; i++) hits.add(1, { path: `/${i}` });
  const lines = metrics.text().split("\n").filter((line) => line.startsWith("hits_total"));
  metrics.close();
  assert.equal(lines.length, 501);
  assert.ok(lines.includes('hits_total{overflow="true"} 4500'));
});

Deno.test("a metric's name is checked, and registered once", () => {
  const metrics = new Metrics();
  assert.throws(() => metrics.counter("Not-a-name", ""), /use a-z/);
  metrics.counter("things_total", "Things");
  assert.throws(() => metrics.gauge("things_total", "Things"), /twice/);
  metrics.close();
});

async function start(
  answers: { ready?: () => Readiness; metrics?: () => string },
): Promise<AsyncDisposable & { ask(path: string, init?: RequestInit): Promise<Response> }> {
  const server = await startOpsServer({
    hostname: "127.0.0.1",
    port: 0,
    ready: () => ({ ready: true }),
    metrics: () => "",
    ...answers,
  });
  return {
    ask: (path, init = {}) => fetch(`http://127.0.0.1:${server.port}${path}`, init),
    [Symbol.asyncDispose]: () => server.close(),
  };
}
