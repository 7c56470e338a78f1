/** The web application over a store in memory, asked without sockets. */
import { MemoryKv } from "../../kv/memory_kv.ts";
import { createApp } from "../../web/app.ts";
import { type FullContext, makeContext } from "../../web/context.ts";
import { TestEnv } from "../apps/accounts/accounts_fixture.ts";
import { SampleAdmin, sampleConfig } from "../sample_cluster.ts";

export const PASSWORD = "a sparrow on the fence";

export interface WebWorld {
  readonly kv: MemoryKv;
  readonly env: TestEnv;
  readonly context: FullContext;
  /** A browser or program with cookies of its own. */
  client(options?: { address?: string; headers?: Record<string, string> }): WebClient;
}

export class WebClient {
  cookies = new Map<string, string>();

  constructor(
    readonly app: ReturnType<typeof createApp>,
    readonly options: { address?: string; headers?: Record<string, string> },
  ) {}

  async request(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers({ host: "penncloud.test:8000", ...this.options.headers });
    for (const [name, value] of new Headers(init.headers)) headers.set(name, value);
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    if (cookie !== "") headers.set("cookie", cookie);
    const request = new Request(`http://penncloud.test:8000${path}`, { ...init, headers });
    const clientAddress = this.options.address ?? "192.0.2.1";
    const response = await this.app.fetch(request, { clientAddress });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line)!;
      if (value === "") this.cookies.delete(name!);
      else this.cookies.set(name!, value!);
    }
    return response;
  }

  send(method: string, path: string, json?: unknown): Promise<Response> {
    return this.request(path, {
      method,
      ...(json === undefined ? {} : {
        headers: { "content-type": "application/json" },
        body: JSON.stringify(json),
      }),
    });
  }

  form(path: string, fields: Record<string, string>): Promise<Response> {
    return this.request(path, { method: "POST", body: new URLSearchParams(fields) });
  }
}

/** @param web settings of the `[web]` table */
export function makeWeb(
  options: { kv?: MemoryKv; web?: Record<string, unknown> } = {},
): WebWorld {
  const kv = options.kv ?? new MemoryKv(), env = new TestEnv();
  const config = sampleConfig(options.web === undefined ? {} : { web: options.web });
  const context = makeContext({ kv, env, config, admin: new SampleAdmin(config) });
  const app = createApp(context);
  return { kv, env, context, client: (about = {}) => new WebClient(app, about) };
}

/** The error code of an API answer. */
export async function errorOf(response: Response): Promise<string> {
  return (await response.json() as { error: { code: string } }).error.code;
}
