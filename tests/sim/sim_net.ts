/**
 * The network between simulated processes: requests, answers and notices that may be lost, doubled,
 * late, or overtake each other, over links that can be cut in one direction.
 *
 * It stands in for roles/net/ at the level of `PeerLink`. Bodies go through JSON and payloads are
 * copied, so nothing is shared between two processes. A call to a process that is not there fails
 * with `unreachable`, one whose process dies with `closed`, and one that nobody answers with
 * `timeout`: as roles/net/rpc_error.ts has it.
 */
import type { RpcConnection } from "../../roles/net/rpc_connection.ts";
import { errorFromWire, errorToWire, RpcError } from "../../roles/net/rpc_error.ts";
import { isAnswerWithPayload, type RpcServices } from "../../roles/net/rpc_service.ts";
import type { PeerLink, PeerLinks } from "../../roles/peers.ts";
import type { WireError } from "../../proto/rpc.ts";
import type { SeededRandom } from "./seeded_random.ts";
import { ProcessEnded, type SimProcess } from "./sim_process.ts";
import type { VirtualTime } from "./virtual_time.ts";

/** How bad the network is; probabilities, each for one message. */
export interface NetFaults {
  loss: number;
  copies: number;
  /** Messages of one link that may overtake each other. */
  reorder: number;
  /** A tail of up to 400 ms. */
  slow: number;
  /** Requests that arrive 1 to 40 s late, when their sender has long tried again. */
  late: number;
}

const CALL_TIMEOUT_MS = 5_000;
const EMPTY = new Uint8Array(0);
/** What may come very late. */
const LATE_METHODS = ["apply", "multiRow", "propose", "replica"];
/**
 * What is never doubled: a connection carries a request once, so a refusal is the last word on it,
 * which clients rely on. They send again by themselves, under the same stamp.
 */
const ONCE_METHODS = ["apply", "multiRow", "reshape"];

interface Packet {
  readonly name: string;
  readonly text: string;
  readonly payload: Uint8Array;
}

type Answer =
  | { readonly ok: true; readonly text: string; readonly payload: Uint8Array }
  | { readonly ok: false; readonly error: WireError }
  | { readonly ok: false; readonly refused: true };

interface Endpoint {
  readonly process: SimProcess;
  readonly services: RpcServices;
}

interface PendingCall {
  readonly to: SimProcess | null;
  readonly from: SimProcess;
  readonly finish: (error: RpcError) => void;
}

export class SimNet {
  readonly #time: VirtualTime;
  readonly #random: SeededRandom;
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #cuts = new Set<string>();
  readonly #lastArrivalMs = new Map<string, number>();
  readonly #pending = new Set<PendingCall>();
  faults: NetFaults = { loss: 0, copies: 0, reorder: 0, slow: 0, late: 0 };
  /** What the simulated trace is made of. */
  messageCount = 0;

  constructor(time: VirtualTime, random: SeededRandom) {
    this.#time = time;
    this.#random = random;
  }

  listen(process: SimProcess, services: RpcServices): void {
    this.#endpoints.set(process.name, { process, services });
  }

  /** The process has ended: who waits for it hears of it, or not. */
  gone(process: SimProcess): void {
    for (const call of this.#pending) {
      if (call.from === process) this.#pending.delete(call);
      if (call.to !== process || this.#random.chance(0.3)) continue;
      this.transmit(
        process.name,
        call.from.name,
        () =>
          call.from.enter(() =>
            call.finish(new RpcError("closed", "the connection ended before the answer"))
          ),
      );
    }
  }

  cut(from: string, to: string): void {
    this.#cuts.add(`${from}>${to}`);
  }

  heal(): void {
    this.#cuts.clear();
  }

  get cuts(): readonly string[] {
    return [...this.#cuts];
  }

  /** The process takes no more requests. */
  unlisten(process: SimProcess): void {
    if (this.#endpoints.get(process.name)?.process === process) {
      this.#endpoints.delete(process.name);
    }
  }

  links(process: SimProcess, coordinator: string): PeerLinks {
    const links = new Map<string, PeerLink>();
    const state = { isClosed: false };
    const to = (name: string) => {
      let link = links.get(name);
      if (link === undefined) links.set(name, link = this.#link(process, name, state));
      return link;
    };
    return {
      coordinator: to(coordinator),
      of: (role, id) => to(`${role}/${id}`),
      close: () => {
        state.isClosed = true;
        for (const call of this.#pending) {
          if (call.from === process) call.finish(new RpcError("closed", "this end was closed"));
        }
      },
    };
  }

  transmit(from: string, to: string, deliver: () => void, mayDouble = true): void {
    const { loss, copies } = this.faults;
    const link = `${from}>${to}`;
    if (this.#cuts.has(link) || this.#random.chance(loss)) return;
    const count = mayDouble && this.#random.chance(copies) ? 2 : 1;
    for (let i = 0; i < count; i++) this.#carry(link, this.#delayMs(), deliver);
  }

  #delayMs(): number {
    const tail = this.#random.chance(this.faults.slow) ? 400 : 3;
    return 0.2 + this.#random.next() ** 2 * tail;
  }

  #carry(link: string, delayMs: number, deliver: () => void): void {
    const { nowMs } = this.#time;
    let atMs = nowMs + delayMs;
    if (!this.#random.chance(this.faults.reorder)) {
      atMs = Math.max(atMs, (this.#lastArrivalMs.get(link) ?? 0) + 0.001);
      this.#lastArrivalMs.set(link, atMs);
    }
    this.#time.after(atMs - nowMs, () => {
      if (this.#cuts.has(link)) return;
      this.messageCount += 1;
      deliver();
    });
  }

  #link(from: SimProcess, to: string, state: { readonly isClosed: boolean }): PeerLink {
    const link = {
      send: (_: unknown, name: string, body: unknown, payload?: Bytes) => {
        if (!state.isClosed) this.#request(from, to, pack(name, body, payload), null);
      },
      call: (
        _: unknown,
        name: string,
        body: unknown,
        payload?: Bytes,
        options: { timeoutMs?: number; signal?: AbortSignal } = {},
      ) =>
        state.isClosed
          ? Promise.reject(new RpcError("closed", "this end was closed", { sent: false }))
          : this.#call(from, to, pack(name, body, payload), options),
    };
    return link as PeerLink;
  }

  #call(
    from: SimProcess,
    to: string,
    packet: Packet,
    { timeoutMs = CALL_TIMEOUT_MS, signal }: { timeoutMs?: number; signal?: AbortSignal },
  ): Promise<{ body: unknown; payload: Uint8Array }> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      let settled = false;
      const finish = (settle: () => void): void => {
        if (settled) return;
        settled = true;
        this.#pending.delete(pending);
        cancel();
        signal?.removeEventListener("abort", onAbort);
        settle();
      };
      const onAbort = () => finish(() => reject(signal!.reason));
      const cancel = from.after(
        timeoutMs,
        () =>
          finish(() =>
            reject(new RpcError("timeout", `no answer to ${packet.name} within ${timeoutMs} ms`))
          ),
      );
      signal?.addEventListener("abort", onAbort, { once: true });
      const pending: PendingCall = {
        from,
        to: this.#endpoints.get(to)?.process ?? null,
        finish: (error) => finish(() => reject(error)),
      };
      this.#pending.add(pending);
      this.#request(from, to, packet, (answer) => {
        if (answer.ok) {
          const body = answer.text === "" ? undefined : JSON.parse(answer.text);
          finish(() => resolve({ body, payload: answer.payload.slice() }));
        } else if ("refused" in answer) {
          const error = new RpcError("unreachable", `nobody listens at ${to}`, { sent: false });
          finish(() => reject(error));
        } else finish(() => reject(errorFromWire(answer.error)));
      });
    });
  }

  #request(
    from: SimProcess,
    to: string,
    packet: Packet,
    onAnswer: ((answer: Answer) => void) | null,
  ): void {
    const answer = (what: Answer) => {
      if (onAnswer === null) return;
      this.transmit(to, from.name, () => from.enter(() => onAnswer(what)));
    };
    if (this.#endpoints.get(to)?.process.alive !== true) {
      // No connection can be made, so the request never leaves.
      return answer({ ok: false, refused: true });
    }
    const deliver = () => this.#serve(to, packet, answer);
    if (LATE_METHODS.includes(packet.name) && this.#random.chance(this.faults.late)) {
      this.#time.after(1_000 + this.#random.next() ** 2 * 39_000, deliver);
    } else this.transmit(from.name, to, deliver, !ONCE_METHODS.includes(packet.name));
  }

  #serve(to: string, packet: Packet, answer: (answer: Answer) => void): void {
    const endpoint = this.#endpoints.get(to);
    // It ended while the request was on its way: `gone` tells the caller, or nobody does.
    if (endpoint === undefined || !endpoint.process.alive) return;
    endpoint.process.enter(() => {
      // A paused process may have closed its door before it got to this.
      if (this.#endpoints.get(to) !== endpoint) return;
      const fail = (error: unknown): void => {
        if (!(error instanceof ProcessEnded)) answer({ ok: false, error: errorToWire(error) });
      };
      const done = (result: unknown): void => {
        const withPayload = isAnswerWithPayload(result);
        const body = withPayload ? result.body : result;
        answer({
          ok: true,
          text: body === undefined ? "" : JSON.stringify(body),
          payload: withPayload ? join(result.payload) : EMPTY,
        });
      };
      const { handle } = endpoint.services.get(packet.name)!;
      let result: unknown;
      try {
        result = handle(JSON.parse(packet.text), packet.payload.slice(), CONNECTION);
      } catch (error) {
        if (error instanceof ProcessEnded) throw error;
        return fail(error);
      }
      if (result instanceof Promise) result.then(done, fail);
      else done(result);
    });
  }
}

type Bytes = Uint8Array | readonly Uint8Array[] | undefined;

/** No handler of a backend or coordinator looks at its connection. */
const CONNECTION = {} as RpcConnection;

const pack = (name: string, body: unknown, payload: Bytes): Packet => ({
  name,
  text: JSON.stringify(body),
  payload: join(payload),
});

function join(payload: Bytes): Uint8Array {
  if (payload === undefined) return EMPTY;
  if (payload instanceof Uint8Array) return payload.slice();
  let length = 0;
  for (const part of payload) length += part.length;
  if (length === 0) return EMPTY;
  const joined = new Uint8Array(length);
  let at = 0;
  for (const part of payload) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
