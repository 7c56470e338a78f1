/**
 * Requests that come again: the very same one, under the same stamp, at once, after a failover, or long
 * after every record of it is gone. It must not be executed again: it is refused, or gets the answer of
 * the first time.
 *
 * Only what was executed is sent again. A connection carries a request once, so a client that was
 * refused knows that nothing will happen; a copy out of nowhere could make a liar of the store there.
 */
import type { KvTransport } from "../../kv/client.ts";
import { KvError } from "../../kv/errors.ts";
import type { RequestOutcome } from "../../kv/outcome.ts";
import { kvConversation } from "../../proto/kv_wire.ts";
import type { PeerLinks } from "../../roles/peers.ts";
import { RpcError } from "../../roles/net/rpc_error.ts";
import type { SeededRandom } from "./seeded_random.ts";
import type { SimProcess } from "./sim_process.ts";
import { SimViolation } from "./violation.ts";

export interface LateCopiesOptions {
  readonly process: SimProcess;
  readonly links: PeerLinks;
  readonly random: SeededRandom;
  readonly nodes: readonly number[];
  /** Share of the requests that come again in the course of a run. */
  readonly share: number;
  readonly onCopy: (how: "copiesAnswered" | "copiesRefused") => void;
  readonly onViolation: (error: unknown) => void;
}

type CallArguments = Parameters<KvTransport["call"]>;

interface SentRequest {
  readonly method: "apply" | "multiRow" | "prepare" | "settle";
  readonly body: Record<string, unknown>;
  readonly payload: readonly Uint8Array[];
  readonly outcome: RequestOutcome;
}

const METHODS: readonly string[] = ["apply", "multiRow", "prepare", "settle"];
/** For the end, when the records of them are about to go or gone. */
const KEPT_MAX = 40;
const ANSWER_MS = 3_000;

export class LateCopies {
  readonly #options: LateCopiesOptions;
  /** The last ones. */
  #kept: SentRequest[] = [];
  #stopped = false;

  constructor(options: LateCopiesOptions) {
    this.#options = options;
  }

  /** Watches what a client sends. */
  watch(transport: KvTransport): KvTransport {
    return {
      call: async (...args) => {
        const answer = await transport.call(...args);
        this.#note(args, answer.body as RequestOutcome);
        return answer;
      },
      fetchRoutes: (...args) => transport.fetchRoutes(...args),
    };
  }

  stop(): void {
    this.#stopped = true;
  }

  /** All that were kept come once more. */
  async repeatAll(): Promise<void> {
    for (const request of this.#kept) await this.#send(request);
  }

  #note([, method, body, payload]: CallArguments, outcome: RequestOutcome): void {
    if (this.#stopped || !METHODS.includes(method)) return;
    if (outcome.kind !== "applied" && outcome.kind !== "settled") return;
    const { random, share, process } = this.#options;
    const request = { method: method as SentRequest["method"], body, payload, outcome };
    this.#kept.push(request);
    if (this.#kept.length > KEPT_MAX) this.#kept.shift();
    for (const delayMs of [random.next() * 20, random.next() * 5_000, random.next() * 40_000]) {
      if (random.chance(share)) process.after(delayMs, () => void this.#send(request));
    }
  }

  async #send({ method, body, payload, outcome }: SentRequest): Promise<void> {
    const { links, random, nodes, onCopy, onViolation } = this.#options;
    try {
      const answer = await links.of("backend", random.pick(nodes))
        // deno-lint-ignore no-explicit-any -- what the client composed once
        .call(kvConversation, method, body as any, payload, { timeoutMs: ANSWER_MS });
      const again = answer.body as RequestOutcome;
      // A primary that does not know its predecessor's last entries yet can meet the request's own lock.
      if (again.kind !== "locked" && JSON.stringify(again) !== JSON.stringify(outcome)) {
        const told = JSON.stringify(outcome), tells = JSON.stringify(again);
        throw new SimViolation(`R1: a copy of a request is answered ${tells}; it was ${told}`);
      }
      onCopy("copiesAnswered");
    } catch (error) {
      if (error instanceof KvError || error instanceof RpcError) onCopy("copiesRefused");
      else onViolation(error);
    }
  }
}
