/** The web application over a store in memory, with a logged-in user, for the drive's web tests. */
import type { KvError } from "../../kv/errors.ts";
import type { Kv } from "../../kv/kv.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import type { ClusterConfig } from "../../proto/cluster_config.ts";
import { realEnv } from "../../roles/env.ts";
import { createApp } from "../../web/app.ts";
import { type FullContext, makeContext } from "../../web/context.ts";
import { CHUNK, makeDrive } from "../apps/drive/drive_fixture.ts";

// deno-lint-ignore no-explicit-any -- the shapes are what these tests look at
export type Json = any;

export interface DriveSite {
  readonly app: ReturnType<typeof createApp>;
  readonly context: FullContext;
  readonly cookie: string;
  readonly store: { failWith: KvError | null };
  /** `path` is below `/api/v1/drive`. */
  fetch(path: string, init?: RequestInit): Promise<Response>;
  json(
    path: string,
    init?: RequestInit & { json?: unknown },
  ): Promise<{ status: number; json: Json }>;
  put(name: string, bytes: Uint8Array, query?: string): Promise<Json>;
  stop(): Promise<void>;
}

export async function makeDriveSite(
  options: { kv?: Kv; drive?: Partial<ClusterConfig["drive"]> } = {},
): Promise<DriveSite> {
  const store: { failWith: KvError | null } = { failWith: null };
  const kv = options.kv ?? new MemoryKv({
    beforeCall: () => {
      if (store.failWith !== null) throw store.failWith;
    },
  });
  const { config } = makeDrive({ kv, drive: { chunk_bytes: CHUNK, ...options.drive } });
  const env = { ...realEnv({ node: "test/0" }), log: () => {} };
  const context = makeContext({ kv, env, config, admin: null as never });
  const account = await context.accounts.create({ username: "ann", password: "correct horse x" });
  const { token } = await context.accounts.startSession(account, { device: "", address: "" });
  const app = createApp(context);
  const cookie = `penncloud_session=${token}`;
  const fetch: DriveSite["fetch"] = async (path, init = {}) => {
    const headers = new Headers(init.headers);
    headers.set("cookie", cookie);
    return await app.request(`/api/v1/drive${path}`, { ...init, headers });
  };
  const json: DriveSite["json"] = async (path, init = {}) => {
    const { json, ...rest } = init;
    const response = await fetch(path, {
      ...rest,
      ...(json === undefined
        ? {}
        : { body: JSON.stringify(json), headers: { "content-type": "application/json" } }),
    });
    const text = await response.text();
    return { status: response.status, json: text === "" ? null : JSON.parse(text) };
  };
  return {
    app,
    context,
    cookie,
    store,
    fetch,
    json,
    async put(name, bytes, query = "") {
      const path = `/files?parent=root&name=${encodeURIComponent(name)}${query}`;
      const body = bytes as Uint8Array<ArrayBuffer>;
      return (await json(path, { method: "PUT", body })).json;
    },
    stop: () => context.mail.worker.stop(),
  };
}
