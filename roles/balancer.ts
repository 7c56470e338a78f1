/**
 * The load balancer: whoever comes is sent on, with 307, to a frontend that lives.
 *
 * A 307 keeps method and body, so forms and API calls work through it too; path and query go along.
 * What passes between user and frontend afterwards does not touch this process. Which frontend is
 * frontend_pool.ts; the page for when there is none is balancer_page.ts. `/livez`, `/readyz` and
 * `/metrics` are about the balancer itself and are never sent on.
 */
import type { ClusterConfig } from "../proto/cluster_config.ts";
import { unavailable } from "./balancer_page.ts";
import { FrontendPool, type PooledFrontend, urlHost } from "./frontend_pool.ts";
import { Metrics } from "./metrics.ts";
import { NodeReporter } from "./node_reporter.ts";
import { answerOps, type Readiness } from "./ops_server.ts";
import { Peers } from "./peers.ts";
import type { RoleContext, RunningRole } from "./role_context.ts";

const LOCAL_HOST = /^(localhost|127\.[0-9.]+|0\.0\.0\.0|::1?|\[::1?\])$/i;
/** A name, an IPv4 address or an IPv6 address in brackets, then perhaps a port; and nothing else. */
const HOST_HEADER =
  /^([a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::\d{1,5})?$/i;

export function runBalancer(context: RoleContext): Promise<RunningRole> {
  const { config, env, node } = context;
  const pool = new FrontendPool({
    frontends: config.node.filter(({ role }) => role === "frontend"),
    policy: config.balancer.policy,
    intervalMs: config.balancer.health_interval_ms,
    env,
  });
  let answered = 0, stopping = false;
  const isReady = () => !stopping && pool.frontends.some(({ live }) => live);

  const metrics = new Metrics();
  const redirects = metrics.counter("penncloud_redirects_total", "Requests sent on, by frontend");
  const refusals = metrics.counter("penncloud_refusals_total", "Requests that found no frontend");
  metrics.read("penncloud_frontend_up", {
    help: "1 while the frontend lives",
    value: () =>
      pool.frontends.map(({ name, live }) => ({
        labels: { frontend: name },
        value: live ? 1 : 0,
      })),
  });
  const ops = { ready: () => readiness(pool, stopping), metrics: () => metrics.text() };

  const close = new AbortController();
  const server = Deno.serve(
    { hostname: node.host, port: node.port, signal: close.signal, onListen: () => {} },
    async (request) => {
      const operational = answerOps(request, ops);
      if (operational !== null) return await operational;
      answered++;
      const frontend = await pool.pick();
      if (frontend === null) {
        refusals.add();
        return await unavailable(new URL(request.url).pathname);
      }
      redirects.add(1, { frontend: frontend.name });
      return redirect(request, { frontend, web: config.web });
    },
  );

  const peers = new Peers(context);
  const reporter = new NodeReporter({
    context,
    coordinator: peers.coordinator,
    ready: isReady,
    requestCount: () => answered,
    problem: () => isReady() ? null : "No frontend is alive",
  });
  pool.start();
  reporter.start();
  return Promise.resolve({
    ready: pool.firstLive,
    async stop() {
      stopping = true;
      reporter.stop();
      pool.stop();
      peers.close();
      metrics.close();
      close.abort();
      await server.finished;
    },
  });
}

/** Sends the request on to `frontend`, under the host name by which the user came. */
export function redirect(
  request: Request,
  { frontend, web }: {
    readonly frontend: Pick<PooledFrontend, "node">;
    readonly web: Pick<ClusterConfig["web"], "https" | "public_host">;
  },
): Response {
  const { pathname, search } = new URL(request.url);
  const { host, port } = frontend.node;
  const name = web.public_host !== ""
    ? hostName(web.public_host) ?? urlHost(web.public_host)
    : LOCAL_HOST.test(host)
    // Frontends on this very host: the user's own word for it is the one that works for them. It is
    // only ever answered to whoever said it, and never from a cache.
    ? hostName(request.headers.get("host") ?? "") ?? "127.0.0.1"
    : urlHost(host);
  const location = `${web.https ? "https" : "http"}://${name}:${port}${pathname}${search}`;
  return new Response(null, {
    status: 307,
    headers: { location, "cache-control": "no-store", "referrer-policy": "same-origin" },
  });
}

/** The host of a Host header without its port; null when it is no host at all. */
export function hostName(header: string): string | null {
  return HOST_HEADER.exec(header)?.[1] ?? null;
}

function readiness(pool: FrontendPool, stopping: boolean): Readiness {
  const frontends = pool.frontends.map(({ name, live, problem, load }) => ({
    name,
    live,
    problem,
    load,
  }));
  const ready = !stopping && frontends.some(({ live }) => live);
  const reason = stopping ? "stopping" : ready ? undefined : "no frontend is alive";
  return { ready, ...(reason === undefined ? {} : { reason }), frontends };
}
