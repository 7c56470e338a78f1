/**
 * Requests of the browser code to `/api/v1`.
 *
 * While the store or the frontend is away, requests that may be repeated are: with back-off, for up
 * to half a minute, so that a failover shows as a pause and a banner instead of an error. `POST` is
 * repeated only where the answer says that nothing happened. Everything else fails as `ApiFailure`
 * with the server's code and its sentence for people.
 */
import { signal } from "@preact/signals";

export class ApiFailure extends Error {
  override readonly name = "ApiFailure";
  constructor(
    /** 0 when no answer came at all. */
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** `store_away`: answers come, but the store has no primary. `offline`: no answers come. */
export type Connection = "ok" | "store_away" | "offline";

/** What the banner shows. Uploads and streams of their own may set it too. */
export const connection = signal<Connection>("ok");

export interface ApiOptions {
  readonly method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Sent as JSON. */
  readonly json?: unknown;
  /** Sent as it is; names its own type. */
  readonly body?: BodyInit;
  readonly headers?: Record<string, string>;
  readonly signal?: AbortSignal;
  /** Stop trying after this long. Default 30 s; 0 tries once. */
  readonly retryMs?: number;
  /** Leave a 401 to the caller. Otherwise the login page opens and comes back here. */
  readonly keepUnauthorized?: boolean;
}

const RETRY_MS = 30_000;
const DELAY_FIRST_MS = 250;
const DELAY_MAX_MS = 3000;
/** Codes of 503 answers that say: this was not done. */
const NOT_APPLIED = new Set(["unavailable", "busy"]);

/**
 * @param path below `/api/v1`, such as `/mail/folders`
 * @returns the answer's JSON; undefined for an empty answer
 * @throws {ApiFailure} and, when `signal` aborts, its reason
 */
export async function api<Answer>(path: string, options: ApiOptions = {}): Promise<Answer> {
  const { method = "GET", retryMs = RETRY_MS } = options;
  const startedMs = performance.now();
  for (let delayMs = DELAY_FIRST_MS;; delayMs = Math.min(delayMs * 1.7, DELAY_MAX_MS)) {
    const result = await attempt<Answer>(path, method, options);
    if (!(result instanceof ApiFailure)) return result.answer;
    noteAway(result);
    const mayRepeat = method !== "POST" || NOT_APPLIED.has(result.code);
    const again = (result.status === 0 || result.status === 503) && mayRepeat;
    if (!again || performance.now() - startedMs + delayMs > retryMs) {
      if (result.status === 401 && !options.keepUnauthorized) return await leaveForLogin();
      throw result;
    }
    await pause(delayMs * (0.75 + Math.random() / 2), options.signal);
  }
}

async function attempt<Answer>(
  path: string,
  method: string,
  options: ApiOptions,
): Promise<{ answer: Answer } | ApiFailure> {
  const { json, body, headers = {}, signal: abort } = options;
  let response: Response;
  try {
    response = await fetch(`/api/v1${path}`, {
      method,
      headers: json === undefined ? headers : { "Content-Type": "application/json", ...headers },
      ...(json === undefined
        ? (body === undefined ? {} : { body })
        : { body: JSON.stringify(json) }),
      ...(abort === undefined ? {} : { signal: abort }),
    });
    const text = await response.text();
    if (response.ok) {
      if (connection.value !== "ok" && method !== "GET") connection.value = "ok";
      return { answer: (text === "" ? undefined : JSON.parse(text)) as Answer };
    }
    return failureOf(response.status, text);
  } catch (error) {
    if (abort?.aborted) throw abort.reason;
    if (error instanceof SyntaxError) return new ApiFailure(502, "bad_answer", UNREADABLE);
    return new ApiFailure(0, "offline", UNREACHABLE);
  }
}

const UNREADABLE = "The answer could not be read. Reload the page and try again.";
const UNREACHABLE = "The server does not answer. What you see stays; we keep trying to reach it.";

/** The failure that an answer of this status and text describes. */
export function failureOf(status: number, text: string): ApiFailure {
  try {
    const { error } = JSON.parse(text) as { error?: { code?: string; message?: string } };
    if (error?.code !== undefined) {
      return new ApiFailure(status, error.code, error.message ?? error.code);
    }
  } catch { /* Not one of our answers: a proxy in between may have spoken. */ }
  return new ApiFailure(status, `http_${status}`, `The server answered with status ${status}.`);
}

function leaveForLogin(): Promise<never> {
  location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  return new Promise(() => {}); // The page goes; nobody needs an answer any more.
}

function pause(ms: number, abort: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    abort?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(abort.reason);
    }, { once: true });
  });
}

let watching = false;

/** Puts the banner up when the store is away, and takes it down when it is back. */
function noteAway(failure: ApiFailure): void {
  if (failure.status !== 0 && failure.status !== 503) return;
  connection.value = failure.status === 0 ? "offline" : "store_away";
  if (!watching) void watchUntilBack();
}

/** Whether leaving the page would lose something; set by a compose window or an upload. */
export const unsaved = signal(false);

/** Where another frontend can be had; the shell sets it from the boot data. */
export const elsewhere: { balancer: string | null } = { balancer: null };

const ELSEWHERE_AFTER = 6;

async function watchUntilBack(): Promise<void> {
  watching = true;
  let misses = 0;
  while (connection.value !== "ok") {
    await pause(1000, undefined);
    try {
      const response = await fetch("/readyz", { cache: "no-store" });
      connection.value = response.ok ? "ok" : "store_away";
      misses = 0;
    } catch {
      connection.value = "offline";
      // This frontend is gone for longer than a restart takes. Another one has everything we had.
      if (++misses >= ELSEWHERE_AFTER && !unsaved.value) await tryElsewhere();
    }
  }
  watching = false;
}

async function tryElsewhere(): Promise<void> {
  const { balancer } = elsewhere;
  if (balancer === null || balancer === location.origin) return;
  try {
    await fetch(`${balancer}/livez`, { mode: "no-cors", cache: "no-store" });
  } catch {
    return; // The network is away, not just this frontend.
  }
  location.assign(balancer + location.pathname + location.search + location.hash);
}
