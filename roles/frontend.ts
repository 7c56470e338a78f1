/**
 * A frontend: the web application over the store, on one HTTP port, with `/livez`, `/readyz` and
 * `/metrics` beside it. It keeps nothing that another frontend would need, so users may be sent from
 * one to the other at any moment.
 *
 * It also does a share of what nobody waits for: it hands mail from the outbox to local mailboxes and
 * frees what uploads and deletions left behind. All frontends do, and the store sorts out who takes
 * what.
 */
import { repeat } from "../kv/repeat.ts";
import { Assets, assetsFolder } from "../web/assets.ts";
import { createApp } from "../web/app.ts";
import { type FullContext, makeContext } from "../web/context.ts";
import { ensureBuilt } from "../web/build.ts";
import { adminSource } from "./admin_source.ts";
import { connectKv, type KvConnection } from "./kv_connection.ts";
import { Metrics } from "./metrics.ts";
import { NodeReporter } from "./node_reporter.ts";
import { answerOps, type Readiness } from "./ops_server.ts";
import type { RoleContext, RunningRole } from "./role_context.ts";

/** How long requests that are under way may take at a stop; uploads can be longer, and resume. */
const STOP_GRACE_MS = 3_000;
const PROBE_EVERY_MS = 1_000;
const PROBE_DEADLINE_MS = 900;
const PROBES_FAILED_MAX = 2;

export async function runFrontend(role: RoleContext): Promise<RunningRole> {
  // Sources are there while developing; a packaged PennCloud brings what was built from them.
  if (Deno.env.get("PENNCLOUD_ASSETS") === undefined) await ensureBuilt();
  const assets = await Assets.load(assetsFolder());
  const connection = connectKv(role);
  const background = new AbortController();
  const context = makeContext({
    kv: connection.kv,
    env: role.env,
    config: role.config,
    admin: adminSource(role, connection),
    stopping: background.signal,
  });
  return new Frontend(role, { connection, context, assets, background });
}

interface FrontendParts {
  readonly connection: KvConnection;
  readonly context: FullContext;
  readonly assets: Assets;
  /** Ends what runs beside the requests, and answers that have no end of their own. */
  readonly background: AbortController;
}

class Frontend implements RunningRole {
  readonly ready: Promise<void>;
  readonly #role: RoleContext;
  readonly #connection: KvConnection;
  readonly #context: FullContext;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #reporter: NodeReporter;
  readonly #metrics = new Metrics();
  readonly #background: AbortController;
  readonly #sweeping: Promise<void>;
  readonly #becomeReady = Promise.withResolvers<void>();
  readonly #endProbes: () => void;
  #storeAnswers = false;
  #probesFailed = 0;
  #draining = false;
  #active = 0;
  #answered = 0;

  constructor(role: RoleContext, parts: FrontendParts) {
    const { connection, context, assets, background } = parts;
    this.#role = role;
    this.#connection = connection;
    this.#context = context;
    this.#background = background;
    this.ready = this.#becomeReady.promise;
    const app = createApp(context, { assets });
    const requests = this.#metrics.counter("penncloud_http_requests_total", "Requests by status");
    const latency = this.#metrics.histogram(
      "penncloud_http_request_seconds",
      "Time until the answer's first byte",
    );
    this.#metrics.read("penncloud_http_active", {
      help: "Requests under way",
      value: () => this.#active,
    });
    const ops = { ready: () => this.#readiness(), metrics: () => this.#metrics.text() };
    const { host: hostname, port } = role.node;
    this.#server = Deno.serve({ hostname, port, onListen: () => {} }, async (request, info) => {
      const operational = answerOps(request, ops);
      if (operational !== null) return await operational;
      const startedMs = performance.now();
      this.#active++;
      // A download is under way until its last byte is gone, or its reader is.
      void info.completed.catch(() => {}).finally(() => {
        this.#active--;
        this.#answered++;
      });
      const response = await app.fetch(request, { clientAddress: info.remoteAddr.hostname });
      requests.add(1, { status: response.status });
      latency.observe((performance.now() - startedMs) / 1000);
      return response;
    });
    context.mail.worker.start();
    this.#sweeping = context.drive.sweeper.run(this.#background.signal).catch((error) => {
      if (!this.#background.signal.aborted) role.env.fatal(error);
    });
    this.#reporter = new NodeReporter({
      context: role,
      coordinator: connection.peers.coordinator,
      ready: () => this.#readiness().ready,
      requestCount: () => this.#answered,
      connections: () => this.#active,
    });
    this.#reporter.start();
    void this.#probe();
    this.#endProbes = repeat(role.env, PROBE_EVERY_MS, () => void this.#probe());
  }

  async stop(): Promise<void> {
    this.#draining = true;
    this.#reporter.stop();
    this.#endProbes();
    this.#background.abort();
    const stopped = this.#server.shutdown();
    await Promise.race([
      Promise.all([stopped, this.#context.mail.worker.stop(), this.#sweeping]),
      this.#role.env.sleep(STOP_GRACE_MS),
    ]);
    this.#metrics.close();
    this.#connection.close();
  }

  #readiness(): Readiness {
    const ready = this.#storeAnswers && !this.#draining;
    const reason = this.#draining ? "stopping" : ready ? undefined : "the store does not answer";
    return { ready, active: this.#active, ...(reason === undefined ? {} : { reason }) };
  }

  /** Asks the store for something small every second, as the pages would. */
  async #probe(): Promise<void> {
    try {
      await this.#context.kv.get("=users", "admin", { deadlineMs: PROBE_DEADLINE_MS });
      this.#probesFailed = 0;
      this.#storeAnswers = true;
      this.#becomeReady.resolve();
    } catch {
      // One miss is a failover, which the client's retries hide from users.
      if (++this.#probesFailed >= PROBES_FAILED_MAX) this.#storeAnswers = false;
    }
  }
}
