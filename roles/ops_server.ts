/**
 * What every process answers about itself over HTTP: `/livez` (it runs), `/readyz` (it can serve) and
 * `/metrics`. Roles whose own port is HTTP use {@link answerOps} there; the others start a server on
 * the port {@link opsPort}.
 */
import { METRICS_CONTENT_TYPE } from "./metrics.ts";

export interface Readiness {
  readonly ready: boolean;
  /** Why not. */
  readonly reason?: string;
  /** Anything else that belongs into the answer, such as `active`. */
  readonly [extra: string]: unknown;
}

export interface OpsAnswers {
  readonly ready: () => Readiness;
  /** See `Metrics.text`. */
  readonly metrics: () => string | Promise<string>;
}

export interface OpsServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Where a node whose own port is not HTTP answers. */
export function opsPort(port: number): number {
  return port + 1000;
}

/** @throws {Deno.errors.AddrInUse} and whatever else keeps a process from listening */
export function startOpsServer(
  options: OpsAnswers & { readonly hostname: string; readonly port: number },
): OpsServer {
  const { hostname, port } = options;
  const abort = new AbortController();
  const server = Deno.serve(
    { hostname, port, signal: abort.signal, onListen: () => {} },
    async (request) => {
      return await answerOps(request, options) ??
        json(404, { error: { code: "not_found", message: "Only /livez, /readyz and /metrics" } });
    },
  );
  return {
    port: server.addr.port,
    async close() {
      abort.abort();
      await server.finished;
    },
  };
}

/**
 * The answer to one of the three paths, or null for any other. A request whose Host header makes no
 * URL is refused with 400 here, so that whatever comes after can rely on `request.url`.
 */
export function answerOps(request: Request, answers: OpsAnswers): Promise<Response> | null {
  const url = URL.parse(request.url);
  if (url === null) {
    const error = { code: "bad_request", message: "The Host header is no host name" };
    return Promise.resolve(json(400, { error }));
  }
  const { pathname } = url;
  const answer = pathname === "/livez"
    ? () => json(200, { live: true })
    : pathname === "/readyz"
    ? () => readyz(answers)
    : pathname === "/metrics"
    ? () => metrics(answers)
    : null;
  if (answer === null) return null;
  return guarded(request, answer);
}

async function guarded(
  request: Request,
  answer: () => Response | Promise<Response>,
): Promise<Response> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    const response = json(405, { error: { code: "method_not_allowed", message: "Only GET" } });
    response.headers.set("allow", "GET, HEAD");
    return response;
  }
  try {
    return await answer();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return json(500, { error: { code: "internal", message } });
  }
}

function readyz(answers: OpsAnswers): Response {
  const readiness = answers.ready();
  return json(readiness.ready ? 200 : 503, readiness);
}

async function metrics(answers: OpsAnswers): Promise<Response> {
  return new Response(await answers.metrics(), {
    headers: { "content-type": METRICS_CONTENT_TYPE, "cache-control": "no-store" },
  });
}

function json(status: number, body: unknown): Response {
  return Response.json(body, { status, headers: { "cache-control": "no-store" } });
}
