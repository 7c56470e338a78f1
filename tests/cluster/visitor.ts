/**
 * A user of a running cluster who holds one session and speaks the API through any door: the
 * balancer, or a frontend of the test's choice.
 *
 * What changes nothing is asked again while the store changes over, as a browser does it: for how long
 * that takes is not what most tests are about.
 *
 * Every answer is read whole and checked for what holds of all of them: an API error is
 * `{"error":{"code","message"}}`, a 503 says when to come back, and nothing takes longer than
 * `ANSWER_MS`, so that a hang fails the test that meets it.
 */
import assert from "node:assert/strict";
import type { TestCluster } from "./harness.ts";

const ANSWER_MS = 60_000;
const AGAIN_MS = 200;
export const PASSWORD = "brass lantern 42";

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Uint8Array;
  /** The body as JSON; undefined where it is none. */
  // deno-lint-ignore no-explicit-any -- tests look into answers of many shapes
  readonly json: any;
  readonly text: string;
}

export interface Listed {
  readonly id: string;
  readonly uid: number;
  readonly subject: string;
}

export type Send = Omit<RequestInit, "body"> & {
  readonly body?: BodyInit | null;
  /** Sent as JSON, with its type. */
  readonly json?: unknown;
  readonly withinMs?: number;
};

export class Visitor {
  cookie = "";

  constructor(public door: string, readonly username: string) {}

  /** The same session at another door. */
  at(door: string): Visitor {
    const other = new Visitor(door, this.username);
    other.cookie = this.cookie;
    return other;
  }

  async request(path: string, send: Send = {}): Promise<Answer> {
    const { json, withinMs = ANSWER_MS, ...init } = send;
    const headers = new Headers(init.headers);
    if (this.cookie !== "") headers.set("cookie", this.cookie);
    if (json !== undefined) headers.set("content-type", "application/json");
    const response = await fetch(this.door + path, {
      ...init,
      ...(json === undefined ? {} : { body: JSON.stringify(json) }),
      headers,
      signal: AbortSignal.timeout(withinMs),
    });
    const given = response.headers.get("set-cookie")?.split(";")[0];
    if (given?.startsWith("penncloud_session=")) this.cookie = given;
    const answer = await readAnswer(response);
    if (path.startsWith("/api/")) checkApiAnswer(answer, path);
    return answer;
  }

  async signUp(): Promise<void> {
    await this.#enter("/api/v1/accounts", 201);
  }

  async logIn(): Promise<void> {
    await this.#enter("/api/v1/session", 200);
  }

  async #enter(path: string, status: number): Promise<void> {
    const body = { username: this.username, password: PASSWORD };
    const answer = await this.request(path, { method: "POST", json: body });
    assert.equal(answer.status, status, `${path} for ${this.username}: ${answer.text}`);
  }

  async #read(path: string): Promise<Answer> {
    const untilMs = performance.now() + ANSWER_MS;
    for (;;) {
      const answer = await this.request(path);
      if (answer.status === 200) return answer;
      const isAway = answer.status === 503 && performance.now() < untilMs;
      assert(isAway, `${path} for ${this.username}: ${answer.status} ${answer.text}`);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  send(to: readonly string[], subject: string, text = "See you at the harbour."): Promise<Answer> {
    const addresses = to.map((name) => `${name}@penncloud.test`);
    return this.request("/api/v1/mail/messages", {
      method: "POST",
      json: { to: addresses, subject, text },
    });
  }

  /** Every message of a folder, over all pages. */
  async messages(folder = "INBOX"): Promise<Listed[]> {
    const all: Listed[] = [];
    for (let cursor: string | null = ""; cursor !== null;) {
      const query = `folder=${folder}&limit=100${cursor === "" ? "" : `&cursor=${cursor}`}`;
      const { json } = await this.#read(`/api/v1/mail/messages?${query}`);
      all.push(...json.messages);
      cursor = json.next;
    }
    return all;
  }

  upload(name: string, body: BodyInit, send: Send = {}): Promise<Answer> {
    const query = `parent=root&name=${encodeURIComponent(name)}`;
    return this.request(`/api/v1/drive/files?${query}`, { ...send, method: "PUT", body });
  }

  /** Names and ids of the files in the root folder. */
  async files(): Promise<{ id: string; name: string; size: number }[]> {
    return (await this.#read("/api/v1/drive/items/root?limit=500")).json.children;
  }

  async content(id: string): Promise<Uint8Array> {
    return (await this.#read(`/api/v1/drive/items/${id}/content`)).bytes;
  }
}

/** A new account, signed up at `door`. */
export async function newcomer(door: string, username: string): Promise<Visitor> {
  const visitor = new Visitor(door, username);
  await visitor.signUp();
  return visitor;
}

/** The URLs of all frontends. */
export function frontendDoors(cluster: TestCluster): string[] {
  return cluster.config.node.filter((node) => node.role === "frontend")
    .map((node) => `http://${node.host}:${node.port}`);
}

export function randomBytes(size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(size, at + 65_536)));
  }
  return bytes;
}

async function readAnswer(response: Response): Promise<Answer> {
  const bytes = await response.bytes();
  const isText = /json|text/.test(response.headers.get("content-type") ?? "");
  const text = isText ? new TextDecoder().decode(bytes) : "";
  let json: unknown;
  if (/json/.test(response.headers.get("content-type") ?? "")) json = JSON.parse(text);
  return { status: response.status, headers: response.headers, bytes, json, text };
}

/** What every answer of the API owes its caller, whatever went wrong. */
export function checkApiAnswer({ status, headers, json, text }: Answer, path: string): void {
  // 304 and 416 to a download have no body; a redirect is the balancer's.
  if (status < 400 || status === 416) return;
  assert.equal(typeof json?.error?.code, "string", `${path}: ${status} without a code: ${text}`);
  assert.equal(typeof json.error.message, "string", `${path}: ${status} without a message`);
  assert.doesNotMatch(json.error.message, /\n\s+at |\.ts:\d/, `${path}: a stack trace got out`);
  if (status === 503) assert.ok(headers.get("retry-after"), `${path}: 503 without Retry-After`);
}
