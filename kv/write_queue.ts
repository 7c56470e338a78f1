/**
 * The writes that a primary has taken and not yet answered: which of them are let in, who waits for
 * which log entry, and that one request never gets into the log twice in a reign.
 *
 * A request that was executed before is answered from its completion record; one that is under way
 * is waited for. Splits and merges of tablets pass through here too, one at a time.
 */
import type { RequestStamp } from "../proto/command.ts";
import type { Lsn } from "../proto/ids.ts";
import { type LogRequest, rowOpsOf } from "./command.ts";
import {
  IDLE_MS,
  OUTSTANDING_MAX,
  REQUEST_AGE_MAX_MS,
  REQUEST_EARLY_MAX_MS,
} from "./completions.ts";
import { mutated } from "./mutant.ts";
import type { ReplicaCore } from "./replica_core.ts";
import type { LogEntry } from "./replica_log.ts";
import type { Input } from "./replica_types.ts";
import type { AppliedOutcome } from "./group_state.ts";
import type { AwayOutcome } from "./tablet_move.ts";
import { awayFrom } from "./tablet_moves.ts";
import { locksBytes } from "./row_locks.ts";
import {
  nextChange,
  orderFor,
  type TabletChange,
  type TabletLimits,
  type TabletOrder,
} from "./tablet_policy.ts";

/** Entries and bytes that may wait for their commit before new requests are turned away. */
const UNCOMMITTED_ENTRIES_MAX = 4096;
const UNCOMMITTED_BYTES_MAX = 32 * 1024 * 1024;
const TABLETS_LOOK_EVERY_MS = 100;

const NOT_REMEMBERED = "What became of this request is not remembered any more";

export class WriteQueue {
  readonly #core: ReplicaCore;
  readonly #tabletLimits: TabletLimits | null;
  /** The requests that wait for each entry. */
  readonly #waiting = new Map<Lsn, number[]>();
  readonly #inProgress = new RequestsInProgress();
  /** Steps of a tablet's move, by their entries. */
  readonly #moving = new Map<Lsn, number>();
  #uncommittedBytes = 0;
  /** The one split or merge that is under way, and who asked for it. */
  #reshaping: { readonly lsn: Lsn; readonly requestId: number | null } | null = null;
  #tabletsLookedMs = -Infinity;
  /** The entry that makes room for new clients, once there was one. */
  #forgetting: Lsn | null = null;

  /** @param tabletLimits when to split and merge unasked; null: never */
  constructor(core: ReplicaCore, tabletLimits: TabletLimits | null) {
    this.#core = core;
    this.#tabletLimits = tabletLimits;
  }

  onRequest({ requestId, stamp, request, wallMs }: Input & { kind: "request" }): void {
    const core = this.#core;
    // Completion records are only complete once everything of former reigns is applied; until then
    // a copy in the log is recognised when it is applied.
    const known = mutated("condition-checked-again") &&
        rowOpsOf(request).some((op) => op.conditions.length > 0)
      ? undefined
      : core.state.completions.find(stamp);
    if (known === "forgotten") {
      const message = NOT_REMEMBERED;
      return core.refuse(requestId, "session_too_old", message, true);
    }
    if (known !== undefined) {
      core.effects.push({ kind: "reply", requestId, outcome: known });
      return;
    }
    const underWay = this.#inProgress.get(stamp);
    if (underWay !== undefined) {
      this.#waiting.get(underWay)?.push(requestId);
      return;
    }
    // Evaluated again in the log; what follows only spares it what is bound to be in vain.
    const away = awayFrom(core.state.tablets, request);
    if (away !== null) return this.#refuseAway(requestId, away);
    const blocker = core.state.locks.blocker(rowOpsOf(request));
    if (blocker !== null) {
      core.effects.push({ kind: "reply", requestId, outcome: blocker });
      return;
    }
    const timeMs = Math.max(core.state.timeMs, wallMs);
    if (!this.#admits(requestId, stamp, timeMs) || !this.#admitsLocks(requestId, request)) return;
    const entry = core.appendOwn({ ...request, stamp, timeMs });
    this.#waiting.set(entry.lsn, [requestId]);
    this.#inProgress.set(stamp, entry.lsn);
    this.#uncommittedBytes += entry.bytes;
  }

  /** False when the request was refused. */
  #admits(requestId: number, stamp: RequestStamp, timeMs: number): boolean {
    const core = this.#core, { inSync, minInSync } = core.config!;
    const refuse = (
      code: "unavailable" | "disk_full" | "busy",
      why: string,
    ) => {
      core.refuse(requestId, code, why);
      return false;
    };
    if (inSync.length < minInSync) {
      return refuse(
        "unavailable",
        `Group ${core.gid} takes no writes: ${inSync.length} of at least ${minInSync} replicas ` +
          "are in sync",
      );
    }
    if (core.diskFull) return refuse("disk_full", "The disk of the primary is full");
    const ageMs = timeMs - stamp.issuedMs;
    const timely = ageMs <= REQUEST_AGE_MAX_MS && ageMs >= -REQUEST_EARLY_MAX_MS;
    if (!timely && !mutated("request-age-not-checked")) {
      const message = `The request was issued ${ageMs} ms ago by our clock`;
      const refused = { requestId, message, maybeApplied: false, groupTimeMs: timeMs };
      core.effects.push({ kind: "refuse", code: "session_too_old", ...refused });
      return false;
    }
    const count = this.#waiting.size;
    if (count >= UNCOMMITTED_ENTRIES_MAX || this.#uncommittedBytes >= UNCOMMITTED_BYTES_MAX) {
      return refuse("busy", `Group ${core.gid} has ${count} writes under way`);
    }
    if (!core.state.completions.hasRoom(stamp, timeMs, core.memory.completionBytes)) {
      this.#forgetIdleClients(stamp);
      return refuse("busy", `Group ${core.gid} remembers the requests of too many clients`);
    }
    if (stamp.seq - stamp.firstIncomplete >= OUTSTANDING_MAX) {
      return refuse("busy", `A client may have ${OUTSTANDING_MAX} requests under way`);
    }
    return true;
  }

  /** A new client is let in as soon as this is applied, if anybody was silent for long enough. */
  #forgetIdleClients({ issuedMs }: RequestStamp): void {
    const core = this.#core, { completions, appliedLsn, timeMs } = core.state;
    if (this.#forgetting !== null && this.#forgetting > appliedLsn) return;
    const idle = { heardThrough: core.appliedAgo(IDLE_MS), issuedBeforeMs: issuedMs };
    const order = completions.idleToForget(idle, core.memory.completionBytes);
    if (order === null) return;
    this.#forgetting = core.appendOwn({ kind: "forgetClients", timeMs, ...order }).lsn;
  }

  /** False when a transaction was refused for the memory that its locks would take. */
  #admitsLocks(requestId: number, request: LogRequest): boolean {
    if (request.kind !== "prepare") return true;
    const core = this.#core, { txn, ops, others } = request;
    const bytes = locksBytes(txn, ops.map(({ row }) => row), others);
    // What is still in the log is not counted; it is within the window that the log has anyway.
    if (core.state.locks.bytes + bytes <= core.memory.lockBytes) return true;
    core.refuse(requestId, "busy", `Transactions hold too many rows of group ${core.gid}`);
    return false;
  }

  /** An entry was committed and applied: its requests are answered. */
  onApplied(entry: LogEntry, outcome: AppliedOutcome | null): void {
    const core = this.#core, { lsn, command } = entry;
    if (outcome?.kind === "move") {
      const requestId = this.#moving.get(lsn);
      this.#moving.delete(lsn);
      if (requestId !== undefined) core.effects.push({ kind: "moved", requestId, outcome });
      return;
    }
    if (this.#reshaping?.lsn === lsn) {
      const { requestId } = this.#reshaping;
      this.#reshaping = null;
      if (requestId !== null) core.effects.push({ kind: "reshaped", requestId });
    }
    if ("stamp" in command) this.#inProgress.delete(command.stamp);
    const waiting = this.#waiting.get(lsn);
    if (waiting === undefined) return;
    this.#waiting.delete(lsn);
    this.#uncommittedBytes -= entry.bytes;
    for (const requestId of waiting) {
      if (outcome?.kind === "away") this.#refuseAway(requestId, outcome);
      else if (outcome !== null) core.effects.push({ kind: "reply", requestId, outcome });
      else {
        const message = NOT_REMEMBERED;
        core.refuse(requestId, "session_too_old", message, true);
      }
    }
  }

  // ------------------------------------------------------------------------------ tablets

  /** A person asks for a boundary, or for none. */
  onReshape(requestId: number, change: TabletChange): void {
    const core = this.#core;
    const hindrance = this.#whyNotReshape();
    if (hindrance !== null) {
      return core.refuse(requestId, "busy", `Cannot ${change.kind} now: ${hindrance}`);
    }
    const order = orderFor(core.state.tablets, change);
    if (typeof order === "string") return core.refuse(requestId, "invalid_request", order);
    this.#reshape(order, requestId);
  }

  /** Splits what has grown too large and merges what has become small. */
  maybeReshape(): void {
    const core = this.#core;
    if (this.#tabletLimits === null) return;
    if (core.nowMs - this.#tabletsLookedMs < TABLETS_LOOK_EVERY_MS) return;
    this.#tabletsLookedMs = core.nowMs;
    if (this.#whyNotReshape() !== null) return;
    const mayMerge = core.nowMs >= core.mergeFromMs;
    const order = nextChange(core.state.tablets, this.#tabletLimits, mayMerge);
    if (order !== null) this.#reshape(order, null);
  }

  /** One change at a time, so that the applied tablets are those that the order will meet. */
  #whyNotReshape(): string | null {
    if (this.#reshaping !== null) return "another split or merge is under way";
    if (this.#moving.size > 0) return "a tablet is being moved";
    if (this.#core.diskFull) return "the disk of the primary is full";
    const { inSync, minInSync } = this.#core.config!;
    return inSync.length < minInSync ? "too few replicas are in sync" : null;
  }

  #reshape(order: TabletOrder, requestId: number | null): void {
    const entry = this.#core.appendOwn({ ...order, timeMs: this.#core.state.timeMs });
    if (mutated("reshape-acked-early") && requestId !== null) {
      this.#core.effects.push({ kind: "reshaped", requestId });
    }
    this.#reshaping = { lsn: entry.lsn, requestId };
  }

  // -------------------------------------------------------------------------------- moves

  onMove({ requestId, step, timeMs }: Input & { kind: "move" }): void {
    const core = this.#core, { inSync, minInSync } = core.config!;
    if (core.diskFull || inSync.length < minInSync) {
      const why = core.diskFull
        ? "the disk of its primary is full"
        : "too few replicas are in sync";
      return core.refuse(requestId, "busy", `Group ${core.gid} cannot go on with a move: ${why}`);
    }
    const latestMs = Math.round(Math.max(core.state.timeMs, timeMs));
    const { lsn } = core.appendOwn({ kind: "move", timeMs: latestMs, step });
    this.#moving.set(lsn, requestId);
  }

  #refuseAway(requestId: number, { code, row }: AwayOutcome): void {
    const message = code === "frozen"
      ? `Row "${row}" is about to move to another group`
      : `Row "${row}" is not in group ${this.#core.gid}`;
    this.#core.refuse(requestId, code, message);
  }

  /** The reign is over. What is in the log may still be committed, by somebody else. */
  close(): void {
    const core = this.#core;
    const message = `This node is no longer the primary of group ${core.gid}`;
    const requestIds = [...this.#waiting.values(), ...this.#moving.values()].flat();
    const reshaping = this.#reshaping?.requestId ?? null;
    if (reshaping !== null) requestIds.push(reshaping);
    for (const requestId of requestIds) core.refuse(requestId, "not_primary", message, true);
  }
}

/** The entries of requests that are not applied yet. */
class RequestsInProgress {
  readonly #clients = new Map<string, Map<number, Lsn>>();

  get({ clientId, seq }: RequestStamp): Lsn | undefined {
    return this.#clients.get(clientId)?.get(seq);
  }

  set({ clientId, seq }: RequestStamp, lsn: Lsn): void {
    const entries = this.#clients.get(clientId);
    if (entries === undefined) this.#clients.set(clientId, new Map([[seq, lsn]]));
    else entries.set(seq, lsn);
  }

  delete({ clientId, seq }: RequestStamp): void {
    const entries = this.#clients.get(clientId);
    if (entries === undefined) return;
    entries.delete(seq);
    if (entries.size === 0) this.#clients.delete(clientId);
  }
}
