/**
 * The whole web application over a store in memory, with sample data: for looking at pages while
 * changing them, for the screens and for browser tests that need no cluster.
 *
 *     deno run -A --config tests/deno.json tests/dev_server.ts --port 8123
 *
 * Log in as alice (or admin, for the console) with "correct horse battery". Everything is forgotten
 * at the end.
 */
import { parseArgs } from "node:util";
import type { Env } from "../kv/env.ts";
import { MemoryKv } from "../kv/memory_kv.ts";
import { realEnv } from "../roles/env.ts";
import { createApp } from "../web/app.ts";
import { Assets, assetsFolder } from "../web/assets.ts";
import { ensureBuilt } from "../web/build.ts";
import { type FullContext, makeContext } from "../web/context.ts";
import { SampleAdmin, sampleConfig } from "./sample_cluster.ts";
import { makeSampleData, SAMPLE_PASSWORD } from "./sample_data.ts";

export interface DevServerOptions {
  /** 0, the default, takes any free port. */
  readonly port?: number;
  /** Without it the store is empty. Default: with. */
  readonly samples?: boolean;
  readonly config?: Record<string, unknown>;
  /** Called before each call to the store; what it throws comes out of the call. */
  readonly beforeStoreCall?: () => void | Promise<void>;
}

export interface DevServer {
  readonly origin: string;
  readonly context: FullContext;
  stop(): Promise<void>;
}

export async function startDevServer(options: DevServerOptions = {}): Promise<DevServer> {
  await ensureBuilt();
  const config = sampleConfig(options.config);
  const clock = { behindMs: 0 };
  const real = realEnv({ node: "dev/0" });
  const env: Env = { ...real, wallMs: () => real.wallMs() - clock.behindMs };
  let prepared = false;
  const beforeCall = async () => {
    if (prepared) await options.beforeStoreCall?.();
  };
  const kv = new MemoryKv({ beforeCall });
  const context = makeContext({ kv, env, config, admin: new SampleAdmin(config, kv) });
  if (options.samples ?? true) await makeSampleData(context, clock);
  prepared = true;
  context.mail.worker.start();

  const app = createApp(context, { assets: await Assets.load(assetsFolder()), styleguide: true });
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: options.port ?? 0, onListen: () => {} },
    async (request, info) => {
      const { pathname } = new URL(request.url);
      if (pathname === "/livez") return Response.json({ live: true });
      if (pathname === "/readyz") {
        const ready = await kv.get("=users", "admin").then(() => true, () => false);
        return Response.json({ ready }, { status: ready ? 200 : 503 });
      }
      return await app.fetch(request, { clientAddress: info.remoteAddr.hostname });
    },
  );
  return {
    origin: `http://127.0.0.1:${server.addr.port}`,
    context,
    async stop() {
      await Promise.all([server.shutdown(), context.mail.worker.stop()]);
    },
  };
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { port: { type: "string", default: "8123" } } });
  const server = await startDevServer({ port: Number(values.port) });
  console.log(`${server.origin}/  alice or admin, password "${SAMPLE_PASSWORD}"`);
}
