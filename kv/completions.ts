/**
 * Exactly-once: what became of each client's recent requests, as part of the replicated state.
 *
 * A client numbers its requests. The outcome of a request is recorded in the same step that applies
 * it, so whoever is primary later finds it, and a retry gets the answer of the first execution
 * instead of a second execution. Records go when the client says that it has the answer
 * (`firstIncomplete`), and RECORD_LIFE_MS of log time after the client's last request.
 *
 * A request whose record could have been forgotten is refused instead of executed: it is taken only
 * while `issuedMs` is within REQUEST_AGE_MAX_MS of log time, and a record lives longer than that. So
 * `issuedMs` may be anybody's time, as long as a request that may have been executed keeps it.
 * Wrong clocks delay clients, and never make them write twice. Follows RIFL (Lee et al., SOSP 2015).
 *
 * Memory for records is limited, and clients that come and go (a command-line tool in a loop) leave
 * theirs behind. When a new client finds no room, those that were silent for IDLE_MS and longest are
 * forgotten early, an eighth of the room at a time. From then on nothing is executed for a client
 * without a record that was issued when the last of the forgotten requests was, or before: it could be
 * one of them. So a place is free within seconds after some client ended, and still nothing happens
 * twice. Who forgets so early pays with `session_too_old` for a retry that comes later still.
 */
import { z } from "zod";
import type { RequestStamp } from "../proto/command.ts";
import { type Lsn, lsn as toLsn, Version } from "../proto/ids.ts";
import { mutated } from "./mutant.ts";
import type { RecordedOutcome } from "./outcome.ts";

export const REQUEST_AGE_MAX_MS = 10 * 60_000;
export const REQUEST_EARLY_MAX_MS = 60_000;
export const RECORD_LIFE_MS = REQUEST_AGE_MAX_MS + REQUEST_EARLY_MAX_MS + 4 * 60_000;
/**
 * The record of a request that was issued longer ago than this may be gone: it lives RECORD_LIFE_MS from an
 * execution that was REQUEST_EARLY_MAX_MS before `issuedMs` at the earliest. What is let in is younger by minutes,
 * but the log's time may leap between that and the request's own entry.
 */
export const REMEMBERED_AGE_MS = RECORD_LIFE_MS - REQUEST_EARLY_MAX_MS;
/** A client that was not heard for so long has its answers: it asks again after 2 s at the latest. */
export const IDLE_MS = 5_000;
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

export const SavedCompletions = z.object({
  /** Of clients without a record, what was issued up to then may have been executed. */
  forgottenMs: z.number(),
  clients: z.array(z.object({
    clientId: z.string(),
    firstIncomplete: z.int(),
    lastMs: z.number(),
    lastLsn: z.int(),
    issuedMs: z.number(),
    outcomes: z.array(z.tuple([z.int(), SavedOutcome])),
  })),
});
export type SavedCompletions = z.infer<typeof SavedCompletions>;

/** What records take in memory, roughly: a client, an outcome, a number or letter in one. */
const CLIENT_BYTES = 300;
const OUTCOME_BYTES = 120;

/** Of the room for records, this is freed at a time. */
const FREED_SHARE = 1 / 8;

/** Clients whose last request was applied at `heardThrough` or before, and issued before a time. */
export interface IdleClients {
  readonly heardThrough: Lsn;
  readonly issuedBeforeMs: number;
}

interface ClientRecord {
  firstIncomplete: number;
  /** When and where its last request was applied. */
  lastMs: number;
  lastLsn: Lsn;
  /** When the last of its requests was issued, by its own clock. */
  issuedMs: number;
  readonly outcomes: Map<number, RecordedOutcome>;
}

const NEVER_HEARD = { lastMs: 0, lastLsn: toLsn(0) };

export class Completions {
  /** Those that were heard last come last. */
  readonly #clients = new Map<string, ClientRecord>();
  /** The last of them, so that one client's requests in a row move nothing. */
  #last: ClientRecord | null = null;
  #bytes = 0;
  #forgottenMs = Number.MIN_SAFE_INTEGER;
  /** Nobody was heard last before, so that most entries need not look for such clients. */
  #heardSinceMs = Number.MIN_SAFE_INTEGER;

  static load({ forgottenMs, clients }: SavedCompletions): Completions {
    const completions = new Completions();
    completions.#forgottenMs = forgottenMs;
    for (const { clientId, lastLsn, outcomes, ...record } of clients) {
      completions.#clients.set(clientId, {
        ...record,
        lastLsn: toLsn(lastLsn),
        outcomes: new Map<number, RecordedOutcome>(outcomes),
      });
      completions.#bytes += CLIENT_BYTES;
      for (const [, outcome] of outcomes) completions.#bytes += outcomeBytes(outcome);
    }
    return completions;
  }

  save(): SavedCompletions {
    const forgottenMs = this.#forgottenMs;
    if (mutated("completion-not-checkpointed")) return { forgottenMs, clients: [] };
    const clients = Array.from(this.#clients, ([clientId, { outcomes, ...record }]) => ({
      clientId,
      ...record,
      outcomes: Array.from(
        outcomes,
        ([seq, outcome]): [number, z.infer<typeof SavedOutcome>] => [
          seq,
          outcome.kind === "applied" ? { ...outcome, numbers: [...outcome.numbers] } : outcome,
        ],
      ),
    }));
    return { forgottenMs, clients };
  }

  /**
   * The recorded outcome; "forgotten" when the request may have been executed but its record is
   * gone; undefined when it has certainly not been applied.
   */
  find(stamp: RequestStamp): RecordedOutcome | "forgotten" | undefined {
    const record = this.#clients.get(stamp.clientId);
    if (record === undefined) {
      const maybeForgotten = stamp.issuedMs <= this.#forgottenMs;
      return maybeForgotten && !mutated("forgotten-executed-again") ? "forgotten" : undefined;
    }
    const confirmed = stamp.seq < record.firstIncomplete && !mutated("confirmed-executed-again");
    return record.outcomes.get(stamp.seq) ?? (confirmed ? "forgotten" : undefined);
  }

  /** @param at the entry of the log that is being applied, and its time */
  record(
    stamp: RequestStamp,
    outcome: RecordedOutcome,
    at: { readonly lsn: Lsn; readonly timeMs: number },
  ): void {
    const { issuedMs } = stamp;
    let record = this.#clients.get(stamp.clientId);
    if (record === undefined) {
      record = { firstIncomplete: 1, lastMs: 0, lastLsn: at.lsn, issuedMs, outcomes: new Map() };
      this.#bytes += CLIENT_BYTES;
    }
    if (record !== this.#last) {
      this.#clients.delete(stamp.clientId);
      this.#clients.set(stamp.clientId, record);
      this.#last = record;
    }
    record.lastMs = at.timeMs;
    record.lastLsn = at.lsn;
    if (issuedMs > record.issuedMs) record.issuedMs = issuedMs;
    if (mutated("completion-dropped-early")) this.#drop(record, Infinity);
    this.#bytes += outcomeBytes(outcome);
    record.outcomes.set(stamp.seq, outcome);
    if (stamp.firstIncomplete > record.firstIncomplete) {
      const before = record.firstIncomplete;
      record.firstIncomplete = stamp.firstIncomplete;
      this.#dropConfirmed(record, before);
    }
  }

  /** Called with every entry, so all replicas forget alike. */
  forgetBefore(timeMs: number): void {
    if (mutated("records-forgotten-early")) timeMs += RECORD_LIFE_MS - REQUEST_AGE_MAX_MS / 2;
    if (timeMs <= this.#heardSinceMs) return;
    for (const [clientId, record] of this.#clients) {
      if (record.lastMs >= timeMs) {
        this.#heardSinceMs = record.lastMs;
        return;
      }
      this.#forget(clientId, record);
    }
  }

  /**
   * Which clients to forget so that new ones find room, of those that are idle; null when none is. A
   * client with a clock ahead of the others' stays: forgetting it would shut out whoever comes next.
   */
  idleToForget(idle: IdleClients, bytesMax: number): IdleClients | null {
    const { issuedBeforeMs } = idle;
    let freed = 0, heardThrough: Lsn | null = null;
    for (const record of this.#clients.values()) {
      if (record.lastLsn > idle.heardThrough || freed >= bytesMax * FREED_SHARE) break;
      if (record.issuedMs >= issuedBeforeMs) continue;
      freed += recordBytes(record);
      heardThrough = record.lastLsn;
    }
    return heardThrough === null ? null : { heardThrough, issuedBeforeMs };
  }

  forgetIdle({ heardThrough, issuedBeforeMs }: IdleClients): void {
    for (const [clientId, record] of this.#clients) {
      if (record.lastLsn > heardThrough) return;
      if (record.issuedMs >= issuedBeforeMs) continue;
      this.#forgottenMs = Math.max(this.#forgottenMs, record.issuedMs);
      this.#forget(clientId, record);
    }
  }

  /**
   * Takes in records of another group, whose requests may come here now. A client that is known already
   * keeps what either of them knew; each counts as heard right now.
   */
  absorb(
    { forgottenMs, clients }: SavedCompletions,
    at: { readonly lsn: Lsn; readonly timeMs: number },
  ): void {
    this.#forgottenMs = Math.max(this.#forgottenMs, forgottenMs);
    for (const { clientId, firstIncomplete, issuedMs, outcomes } of clients) {
      const known = this.#clients.get(clientId);
      const record = known ?? { firstIncomplete, issuedMs, ...NEVER_HEARD, outcomes: new Map() };
      if (known === undefined) this.#bytes += CLIENT_BYTES;
      else this.#clients.delete(clientId);
      this.#clients.set(clientId, record);
      this.#last = record;
      record.lastMs = at.timeMs;
      record.lastLsn = at.lsn;
      record.issuedMs = Math.max(record.issuedMs, issuedMs);
      record.firstIncomplete = Math.max(record.firstIncomplete, firstIncomplete);
      for (const [seq, outcome] of outcomes) {
        if (record.outcomes.has(seq)) continue;
        record.outcomes.set(seq, outcome);
        this.#bytes += outcomeBytes(outcome);
      }
      this.#drop(record, record.firstIncomplete);
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

  #forget(clientId: string, record: ClientRecord): void {
    this.#drop(record, Infinity);
    this.#clients.delete(clientId);
    if (record === this.#last) this.#last = null;
    this.#bytes -= CLIENT_BYTES;
  }

  /** Drops what the client has its answers to. Of what is below `from`, that was done before. */
  #dropConfirmed(record: ClientRecord, from: number): void {
    const { outcomes, firstIncomplete } = record;
    // As a rule it goes on by one or two, with as many outcomes as the client has requests under way.
    if (firstIncomplete - from > outcomes.size) return this.#drop(record, firstIncomplete);
    for (let seq = from; seq < firstIncomplete; seq++) {
      const outcome = outcomes.get(seq);
      if (outcome === undefined) continue;
      outcomes.delete(seq);
      this.#bytes -= outcomeBytes(outcome);
    }
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

function recordBytes({ outcomes }: ClientRecord): number {
  let bytes = CLIENT_BYTES;
  for (const outcome of outcomes.values()) bytes += outcomeBytes(outcome);
  return bytes;
}

function outcomeBytes(outcome: RecordedOutcome): number {
  if (outcome.kind === "failed") return OUTCOME_BYTES + 2 * outcome.message.length;
  return OUTCOME_BYTES + (outcome.kind === "applied" ? 8 * outcome.numbers.length : 0);
}
