/**
 * Links (tests/cluster/link.ts) by name, in a thread of their own: what the clients of a campaign do
 * cannot delay what its nodes say to each other.
 */
import type { Direction } from "../cluster/link.ts";

export interface LinkRequest {
  readonly id: number;
  readonly request:
    | {
      readonly kind: "open";
      readonly name: string;
      readonly hostname: string;
      readonly port: number;
    }
    | LinkOrder & { readonly names: readonly string[] };
}

export type LinkOrder =
  /** Breaks all connections and lets no new one through. */
  | { readonly kind: "cut" }
  /** Lets nothing through in these directions, and closes nothing: a cable that is pulled. */
  | { readonly kind: "stall"; readonly directions: readonly Direction[] }
  | { readonly kind: "slow"; readonly delayMs: number }
  | { readonly kind: "heal" };

export class LinkNet {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (port: number) => void>();
  readonly #names: string[] = [];
  #lastId = 0;

  constructor() {
    this.#worker = new Worker(new URL("./link_worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<{ id: number; port: number }>) => {
      this.#waiting.get(data.id)?.(data.port);
      this.#waiting.delete(data.id);
    };
  }

  /** Opens a way to `hostname:port`; resolves with the port of 127.0.0.1 at which it begins. */
  async open(name: string, target: { hostname: string; port: number }): Promise<number> {
    this.#names.push(name);
    return await this.#ask({ kind: "open", name, ...target });
  }

  async order(names: readonly string[], order: LinkOrder): Promise<void> {
    await this.#ask({ ...order, names });
  }

  healAll(): Promise<void> {
    return this.order(this.#names, { kind: "heal" });
  }

  close(): void {
    this.#worker.terminate();
  }

  #ask(request: LinkRequest["request"]): Promise<number> {
    const id = ++this.#lastId;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#worker.postMessage({ id, request } satisfies LinkRequest);
    });
  }
}
