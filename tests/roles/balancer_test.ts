/** The real balancer in front of real HTTP servers on this host that die and come back. */
import assert from "node:assert/strict";
import { ClusterConfig, type Role } from "../../proto/cluster_config.ts";
import { hostName, redirect, runBalancer } from "../../roles/balancer.ts";
import { loadConfig } from "../../roles/config_file.ts";
import { realEnv } from "../../roles/env.ts";
import type { RunningRole } from "../../roles/role_context.ts";
import { freeOffset, releaseOffset } from "../cluster/test_ports.ts";

const CONFIG = new URL("../../cluster.toml", import.meta.url).pathname;

Deno.test("the balancer sends requests to the frontends in turn, with path and query", async () => {
  await using cluster = await startCluster();
  const targets = [];
  for (let i = 0; i < 6; i++) targets.push(await cluster.location("/mail/inbox?q=a%20b&x=%2F"));
  const ports = targets.map((target) => new URL(target).port);
  assert.deepEqual(ports.slice(0, 3), ports.slice(3));
  assert.equal(new Set(ports).size, 3);
  for (const [i, target] of targets.entries()) {
    assert.equal(target, `http://127.0.0.1:${ports[i]}/mail/inbox?q=a%20b&x=%2F`);
  }
});

Deno.test("the balancer keeps the method: 307 for POST and HEAD, no body, never cached", async () => {
  await using cluster = await startCluster();
  for (const method of ["POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"]) {
    const response = await cluster.ask("/api/v1/session", { method });
    assert.equal(response.status, 307);
    assert.equal(response.headers.get("cache-control"), "no-store");
    assert.equal(await response.text(), "");
  }
  // A browser that follows arrives with method and body.
  const response = await fetch(`${cluster.url}/echo`, { method: "POST", body: "form data" });
  assert.equal(await response.text(), "POST /echo form data");
});

Deno.test("the balancer passes over a frontend that died a moment ago, without one failed request", async () => {
  await using cluster = await startCluster({ health_interval_ms: 60_000 });
  await cluster.frontends[1]!.stop();
  // No check has run since. Every target must be alive all the same.
  for (let i = 0; i < 9; i++) {
    const { port } = new URL(await cluster.location("/"));
    assert.notEqual(Number(port), cluster.frontends[1]!.port);
  }
});

Deno.test("the balancer finds a frontend again that came back", async () => {
  await using cluster = await startCluster();
  await cluster.frontends[0]!.stop();
  await cluster.until(({ frontends }) => !frontends[0]!.live);
  cluster.frontends[0]!.start();
  await cluster.until(({ frontends }) => frontends[0]!.live);
  const ports = new Set();
  for (let i = 0; i < 3; i++) ports.add(new URL(await cluster.location("/")).port);
  assert.equal(ports.size, 3);
});

Deno.test("the balancer leaves out a frontend that says it is not ready, or hangs", async () => {
  await using cluster = await startCluster();
  cluster.frontends[0]!.readiness = { status: 503, body: { ready: false, reason: "draining" } };
  await cluster.until(({ frontends }) => frontends[0]!.problem === "draining");
  cluster.frontends[1]!.readiness = { status: 200, body: "some other web server" };
  await cluster.until(({ frontends }) => !frontends[1]!.live);
  cluster.frontends[2]!.readiness = "hang";
  await cluster.until(({ ready }) => !ready);
  assert.equal((await cluster.ask("/")).status, 503);
});

Deno.test("with no live frontend people get a page that tries again, programs get JSON", async () => {
  await using cluster = await startCluster();
  for (const frontend of cluster.frontends) await frontend.stop();
  const page = await cluster.ask("/drive");
  assert.equal(page.status, 503);
  assert.equal(page.headers.get("retry-after"), "2");
  assert.match(page.headers.get("content-type")!, /^text\/html/);
  assert.match(page.headers.get("content-security-policy")!, /default-src 'none'/);
  const html = await page.text();
  assert.match(html, /<meta http-equiv="refresh" content="2">/);
  assert.doesNotMatch(html, /<script/);
  const program = await cluster.ask("/api/v1/session");
  assert.equal(program.status, 503);
  assert.equal((await program.json()).error.code, "unavailable");
  const head = await cluster.ask("/", { method: "HEAD" });
  assert.equal(head.status, 503);
});

Deno.test("the page's style is the one that its policy allows", async () => {
  await using cluster = await startCluster();
  for (const frontend of cluster.frontends) await frontend.stop();
  const page = await cluster.ask("/");
  const style = /<style>([\s\S]*)<\/style>/.exec(await page.text())![1]!;
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(style));
  const policy = page.headers.get("content-security-policy")!;
  assert.ok(policy.includes(`'sha256-${new Uint8Array(hash).toBase64()}'`));
});

Deno.test("least-connections sends to the frontend with the fewest requests under way", async () => {
  await using cluster = await startCluster({ policy: "least-connections" });
  const [busy, idle, middling] = cluster.frontends;
  busy!.active = 50;
  idle!.active = 0;
  middling!.active = 5;
  await cluster.until(({ frontends }) => frontends[0]!.load >= 50 && frontends[2]!.load >= 5);
  const counts = new Map<number, number>();
  for (let i = 0; i < 4; i++) {
    const port = Number(new URL(await cluster.location("/")).port);
    counts.set(port, (counts.get(port) ?? 0) + 1);
  }
  assert.equal(counts.get(idle!.port), 4);
});

Deno.test("between two checks, least-connections counts whom it sent where", async () => {
  await using cluster = await startCluster({
    policy: "least-connections",
    health_interval_ms: 60_000,
  });
  const counts = new Map<string, number>();
  for (let i = 0; i < 30; i++) {
    const { port } = new URL(await cluster.location("/"));
    counts.set(port, (counts.get(port) ?? 0) + 1);
  }
  assert.deepEqual([...counts.values()], [10, 10, 10]);
});

Deno.test("the balancer answers for itself on /livez, /readyz and /metrics", async () => {
  await using cluster = await startCluster();
  assert.equal((await cluster.ask("/livez")).status, 200);
  assert.equal((await cluster.ask("/readyz")).status, 200);
  await cluster.location("/");
  const metrics = await (await cluster.ask("/metrics")).text();
  assert.match(metrics, /^penncloud_frontend_up\{frontend="frontend\/0"\} 1$/m);
  assert.match(metrics, /^penncloud_redirects_total\{frontend="frontend\/[012]"\} 1$/m);
  for (const frontend of cluster.frontends) await frontend.stop();
  await cluster.until(({ ready }) => !ready);
  assert.equal((await cluster.ask("/livez")).status, 200);
  assert.equal((await cluster.ask("/readyz")).status, 503);
});

Deno.test("the redirect uses the host name by which the user came", () => {
  assert.equal(redirected({ host: "cloud.lan:9000" }), "http://cloud.lan:8000/a?b");
  assert.equal(redirected({ host: "localhost:9000" }), "http://localhost:8000/a?b");
  assert.equal(redirected({ host: "[::1]:9000" }), "http://[::1]:8000/a?b");
  assert.equal(redirected({ host: "192.168.1.5" }), "http://192.168.1.5:8000/a?b");
  const everywhere = { host: "box:9000", frontendHost: "0.0.0.0" };
  assert.equal(redirected(everywhere), "http://box:8000/a?b");
});

Deno.test("a frontend on another host is named by its own host, a public name beats both", () => {
  const elsewhere = { host: "cloud.lan:9000", frontendHost: "10.0.0.7" };
  assert.equal(redirected(elsewhere), "http://10.0.0.7:8000/a?b");
  assert.equal(redirected({ ...elsewhere, frontendHost: "fd00::7" }), "http://[fd00::7]:8000/a?b");
  const publicly = { ...elsewhere, web: { https: true, public_host: "cloud.example" } };
  assert.equal(redirected(publicly), "https://cloud.example:8000/a?b");
});

Deno.test("a forged Host header does not reach the redirect", () => {
  const forged = [
    "evil.example/path",
    "user@evil.example",
    "evil.example:80:90",
    "evil.example#",
    "evil.example?",
    "a b",
    "evil.example\\",
    "-x",
    "",
    "[evil]",
    "x".repeat(300),
  ];
  for (const host of forged) assert.equal(hostName(host), null, host);
  assert.equal(redirected({ host: "evil.example/path?" }), "http://127.0.0.1:8000/a?b");
});

Deno.test("raw requests with bad or missing Host headers end in a redirect home or a refusal", async () => {
  await using cluster = await startCluster();
  for (
    const head of [
      "GET /a HTTP/1.0\r\n\r\n",
      "GET //evil.example/a HTTP/1.1\r\nHost: x y\r\nConnection: close\r\n\r\n",
      "GET //evil.example/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
      "GET http://evil.example/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
      "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
      "nonsense\r\n\r\n",
    ]
  ) {
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: cluster.port });
    await conn.write(new TextEncoder().encode(head));
    const answer = await new Response(conn.readable).text();
    const location = /^location: (.*)\r$/im.exec(answer)?.[1];
    if (location === undefined) assert.match(answer, /^HTTP\/1\.[01] 400|^$/);
    else assert.ok(/^(127\.0\.0\.1|localhost)$/.test(new URL(location).hostname), location);
  }
  assert.equal((await cluster.ask("/")).status, 307);
});

interface Status {
  readonly ready: boolean;
  readonly frontends: { live: boolean; problem: string | null; load: number }[];
}

class FrontendStub {
  active = 0;
  readiness: "hang" | { status: number; body: unknown } | null = null;
  #server: Deno.HttpServer<Deno.NetAddr> | null = null;
  #abort = new AbortController();

  constructor(readonly port: number) {}

  start(): void {
    this.#abort = new AbortController();
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: this.port, signal: this.#abort.signal, onListen: () => {} },
      (request) => this.#answer(request),
    );
  }

  /** As abruptly as a process that is killed. */
  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#server?.finished;
    this.#server = null;
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname !== "/readyz") {
      return new Response(`${request.method} ${pathname} ${await request.text()}`);
    }
    if (this.readiness === "hang") return await new Promise<never>(() => {});
    const { status, body } = this.readiness ??
      { status: 200, body: { ready: true, active: this.active } };
    return Response.json(body, { status });
  }
}

class Cluster implements AsyncDisposable {
  readonly url: string;
  constructor(
    readonly offset: number,
    readonly port: number,
    readonly frontends: readonly FrontendStub[],
    readonly balancer: RunningRole,
  ) {
    this.url = `http://127.0.0.1:${port}`;
  }

  async ask(path: string, init: RequestInit = {}): Promise<Response> {
    return await fetch(this.url + path, { redirect: "manual", ...init });
  }

  async location(path: string): Promise<string> {
    const response = await this.ask(path);
    await response.body?.cancel();
    assert.equal(response.status, 307);
    return response.headers.get("location")!;
  }

  async until(condition: (status: Status) => boolean): Promise<void> {
    const endMs = performance.now() + 60_000;
    for (;;) {
      const status = await (await this.ask("/readyz")).json();
      if (condition(status)) return;
      assert.ok(performance.now() < endMs, JSON.stringify(status));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.balancer.stop("shutdown");
    for (const frontend of this.frontends) await frontend.stop();
    await releaseOffset(this.offset);
  }
}

async function startCluster(
  balancerSettings: Partial<ClusterConfig["balancer"]> = {},
): Promise<Cluster> {
  // Nobody else gets the port of a frontend that is stopped.
  const offset = await freeOffset(CONFIG);
  const { config: { node } } = await loadConfig({ path: CONFIG, portOffset: offset });
  const portsOf = (role: Role) => node.filter((each) => each.role === role).map(({ port }) => port);
  const frontends = portsOf("frontend").map((port) => new FrontendStub(port));
  for (const frontend of frontends) frontend.start();
  const port = portsOf("balancer")[0]!;
  const config = ClusterConfig.parse({
    balancer: { health_interval_ms: 100, ...balancerSettings },
    store: { replicas: 1, min_in_sync: 1 },
    node: [
      { role: "coordinator", id: 0, port: portsOf("coordinator")[0]! },
      { role: "backend", id: 0, port: portsOf("backend")[0]! },
      { role: "balancer", id: 0, port },
      ...frontends.map((frontend, id) => ({ role: "frontend", id, port: frontend.port })),
    ],
  });
  const balancer = await runBalancer({
    config,
    node: config.node[2]!,
    dataDir: "/nowhere",
    clusterDir: "/nowhere",
    secret: new Uint8Array(32),
    clusterId: "test",
    spawnId: "test",
    env: realEnv({ node: "balancer/0", log: () => {} }),
  });
  await balancer.ready;
  const cluster = new Cluster(offset, port, frontends, balancer);
  await cluster.until(({ frontends }) => frontends.every(({ live }) => live));
  return cluster;
}

function redirected(
  { host, frontendHost = "127.0.0.1", web = { https: false, public_host: "" } }: {
    host: string;
    frontendHost?: string;
    web?: { https: boolean; public_host: string };
  },
): string {
  const request = new Request("http://balancer/a?b", { headers: { host } });
  const node = { role: "frontend", id: 0, host: frontendHost, port: 8000, zone: "" } as const;
  return redirect(request, { frontend: { node }, web }).headers.get("location")!;
}
