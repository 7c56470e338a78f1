/**
 * Exactly-once: what became of each client's recent requests, as part of the replicated state.
 *
 * A client numbers its requests. The outcome of a request is recorded in the same step that applies
 * it, so whoever is primary later finds it, and a retry gets the answer of the first execution
 * instead of a second execution. Records go when the client says that it has the answer
 * (`firstIncomplete`), and RECORD_LIFE_MS of log time after the client's last request.
 *
 * A request whose record could have been forgotten is refused instead of executed: it is taken only
 * while `issuedMs` is within REQUEST_AGE_MAX_MS of log time, and a record lives longer than that.
 * Wrong clocks make clients fail, never write twice. Follows RIFL (Lee et al., SOSP 2015).
 */
import { z } from "zod";
import type { RequestStamp } from "../proto/command.ts";
import { Version } from "../proto/ids.ts";
import { mutated } from "./mutant.ts";
import type { RecordedOutcome } from "./outcome.ts";

export const REQUEST_AGE_MAX_MS = 10 * 60_000;
export const REQUEST_EARLY_MAX_MS = 60_000;
export const RECORD_LIFE_MS = REQUEST_AGE_MAX_MS + REQUEST_EARLY_MAX_MS + 4 * 60_000;
/** Requests that one client may have without an answer. */
export const OUTSTANDING_MAX = 256;

const SavedOutcome = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("applied"), version: Version, numbers: z.array(z.number()) }),
  z.object({
    kind: z.literal("refused"),
    opIndex: z.int(),
    conditionIndex: z.int(),
    version: Version,
  }),
  z.object({
    kind: z.literal("failed"),
    code: z.enum(["row_too_large", "invalid_request", "busy"]),
    message: z.string(),
  }),
  z.object({
    kind: z.literal("settled"),
    state: z.enum(["pending", "committed", "gone"]),
    version: Version,
  }),
]);

export const SavedCompletions = z.array(z.object({
  clientId: z.string(),
  firstIncomplete: z.int(),
  lastMs: z.number(),
  outcomes: z.array(z.tuple([z.int(), SavedOutcome])),
}));
export type SavedCompletions = z.infer<typeof SavedCompletions>;

/** What records take in memory, roughly: a client, an outcome, a number or letter in one. */
const CLIENT_BYTES = 300;
const OUTCOME_BYTES = 120;

interface ClientRecord {
  firstIncomplete: number;
  lastMs: number;
  readonly outcomes: Map<number, RecordedOutcome>;
}

export class Completions {
  /** Those that were heard last come last. */
  readonly #clients = new Map<string, ClientRecord>();
  #bytes = 0;

  static load(saved: SavedCompletions): Completions {
    const completions = new Completions();
    for (const { clientId, firstIncomplete, lastMs, outcomes } of saved) {
      completions.#clients.set(clientId, {
        firstIncomplete,
        lastMs,
        outcomes: new Map<number, RecordedOutcome>(outcomes),
      });
      completions.#bytes += CLIENT_BYTES;
      for (const [, outcome] of outcomes) completions.#bytes += outcomeBytes(outcome);
    }
    return completions;
  }

  save(): SavedCompletions {
    if (mutated("completion-not-checkpointed")) return [];
    return Array.from(this.#clients, ([clientId, record]) => ({
      clientId,
      firstIncomplete: record.firstIncomplete,
      lastMs: record.lastMs,
      outcomes: Array.from(
        record.outcomes,
        ([seq, outcome]): [number, z.infer<typeof SavedOutcome>] => [
          seq,
          outcome.kind === "applied" ? { ...outcome, numbers: [...outcome.numbers] } : outcome,
        ],
      ),
    }));
  }

  /**
   * The recorded outcome; "forgotten" when the request may have been executed but its record is
   * gone; undefined when it has certainly not been applied.
   */
  find(stamp: RequestStamp): RecordedOutcome | "forgotten" | undefined {
    const record = this.#clients.get(stamp.clientId);
    if (record === undefined) return undefined;
    const confirmed = stamp.seq < record.firstIncomplete && !mutated("confirmed-executed-again");
    return record.outcomes.get(stamp.seq) ?? (confirmed ? "forgotten" : undefined);
  }

  record(stamp: RequestStamp, outcome: RecordedOutcome, timeMs: number): void {
    let record = this.#clients.get(stamp.clientId);
    if (record === undefined) {
      record = { firstIncomplete: 1, lastMs: timeMs, outcomes: new Map() };
      this.#bytes += CLIENT_BYTES;
    } else this.#clients.delete(stamp.clientId);
    this.#clients.set(stamp.clientId, record);
    record.lastMs = timeMs;
    if (mutated("completion-dropped-early")) this.#drop(record, Infinity);
    this.#bytes += outcomeBytes(outcome);
    record.outcomes.set(stamp.seq, outcome);
    if (stamp.firstIncomplete > record.firstIncomplete) {
      record.firstIncomplete = stamp.firstIncomplete;
      this.#drop(record, stamp.firstIncomplete);
    }
  }

  /** Called with every entry, so all replicas forget alike. */
  forgetBefore(timeMs: number): void {
    if (mutated("records-forgotten-early")) timeMs += RECORD_LIFE_MS - REQUEST_AGE_MAX_MS / 2;
    for (const [clientId, record] of this.#clients) {
      if (record.lastMs >= timeMs) return;
      this.#drop(record, Infinity);
      this.#clients.delete(clientId);
      this.#bytes -= CLIENT_BYTES;
    }
  }

  /** What the records take in memory. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether a request of this client at `timeMs` leaves the records within `bytesMax`. */
  hasRoom({ clientId }: RequestStamp, timeMs: number, bytesMax: number): boolean {
    if (this.#bytes < bytesMax || this.#clients.has(clientId)) return true;
    // Applying its entry forgets what is old by then.
    for (const { lastMs } of this.#clients.values()) return lastMs < timeMs - RECORD_LIFE_MS;
    return true;
  }

  #drop(record: ClientRecord, belowSeq: number): void {
    for (const [seq, outcome] of record.outcomes) {
      if (seq >= belowSeq) continue;
      record.outcomes.delete(seq);
      this.#bytes -= outcomeBytes(outcome);
    }
  }

  get clientCount(): number {
    return this.#clients.size;
  }
}

function outcomeBytes(outcome: RecordedOutcome): number {
  if (outcome.kind === "failed") return OUTCOME_BYTES + 2 * outcome.message.length;
  return OUTCOME_BYTES + (outcome.kind === "applied" ? 8 * outcome.numbers.length : 0);
}
