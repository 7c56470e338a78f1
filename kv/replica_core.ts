/**
 * What a replica has whatever its role: its log and state, how far they are durable, committed and
 * applied, the configuration it adopted, and what it promised.
 *
 * Follower and Primary act upon it; nothing here decides who leads or what is committed. `effects`
 * gathers what the shell is to do once the step is over.
 */
import {
  type Epoch,
  epoch as toEpoch,
  type GroupId,
  type Incarnation,
  type Lsn,
} from "../proto/ids.ts";
import { lsn as toLsn, type NodeId } from "../proto/ids.ts";
import type { EpochHistory, GroupConfig, Member, ReplicaMessage } from "../proto/replication.ts";
import { type Command, encodeCommand } from "./command.ts";
import type { AppliedOutcome, GroupState } from "./group_state.ts";
import { invariant } from "./invariant.ts";
import { mutated } from "./mutant.ts";
import { APPEND_BYTES_MAX } from "./node_memory.ts";
import { LogEntry, type ReplicaLog } from "./replica_log.ts";
import type {
  Effect,
  LogRecord,
  RefusalCode,
  ReplicaMemory,
  ReplicaOptions,
  ReplicaRole,
  ReplicaTiming,
  Self,
} from "./replica_types.ts";
import { MERGE_AFTER_MERGE_MS, MERGE_AFTER_SPLIT_MS } from "./tablet_policy.ts";

const DEFAULT_MEMORY: ReplicaMemory = {
  recentLogBytes: 1024 * 1024,
  appendBytes: APPEND_BYTES_MAX,
  completionBytes: Infinity,
  lagBytes: Infinity,
  lockBytes: Infinity,
};
const FIRST_REIGN = 1;
const CHECK_EVERY_LSN = 256;
const CHECKS_KEPT = 64;
const NOTED_EVERY_MS = 1_000;
const NOTED_MAX = 10;

export interface HashCheck {
  readonly lsn: Lsn;
  readonly hash: string;
}

export class ReplicaCore {
  readonly gid: GroupId;
  readonly self: Self;
  readonly timing: ReplicaTiming;
  readonly memory: ReplicaMemory;
  readonly log: ReplicaLog;
  role: ReplicaRole = "idle";
  nowMs: number;
  diskFull = false;
  /** Tablets are not merged before. */
  mergeFromMs: number;
  effects: Effect[] = [];
  #state: GroupState;
  #config: GroupConfig | null;
  #durableLsn: Lsn;
  #durableEpoch: Epoch;
  #commitLsn: Lsn;
  #lastId = 0;
  #nextWriteId = 1;
  #writes: { writeId: number; lastLsn: Lsn; epoch: Epoch }[] = [];
  #unwritten: LogRecord[] = [];
  /** Until when we promised not to act, by the reign that we promised it to. */
  readonly #promises = new Map<Epoch, number>();
  /** A process that forgot its promises behaves as if it had just made one. */
  readonly #bootPromiseMs: number;
  readonly #checks: HashCheck[] = [];
  /** What was applied at some earlier times, ascending. */
  readonly #appliedThen: { readonly atMs: number; readonly lsn: Lsn }[] = [];

  constructor(options: ReplicaOptions) {
    const { gid, self, timing, log, state, config, nowMs } = options;
    this.gid = gid;
    this.self = self;
    this.timing = timing;
    this.memory = options.memory ?? DEFAULT_MEMORY;
    this.log = log;
    this.nowMs = nowMs;
    this.mergeFromMs = nowMs + MERGE_AFTER_SPLIT_MS;
    this.#state = state;
    this.#config = config;
    this.#durableLsn = log.lastLsn;
    this.#durableEpoch = config?.epoch ?? toEpoch(0);
    const bound = Math.min(options.commitLsn, log.lastLsn);
    this.#commitLsn = toLsn(Math.max(bound, state.appliedLsn));
    this.#bootPromiseMs = mutated("no-boot-wait") ? -Infinity : nowMs + timing.graceMs;
  }

  get state(): GroupState {
    return this.#state;
  }

  get config(): GroupConfig | null {
    return this.#config;
  }

  get epoch(): Epoch {
    return this.#config?.epoch ?? toEpoch(0);
  }

  get durableLsn(): Lsn {
    return this.#durableLsn;
  }

  get durableEpoch(): Epoch {
    return this.#durableEpoch;
  }

  get commitLsn(): Lsn {
    return this.#commitLsn;
  }

  /** Hashes of the state as of earlier entries, ascending. */
  get checks(): readonly HashCheck[] {
    return this.#checks;
  }

  /** The hash of the state as of a recent position, for others to compare. */
  get lastCheck(): HashCheck | null {
    return this.#checks.at(-1) ?? null;
  }

  checkAt(lsn: Lsn): HashCheck | undefined {
    return this.#checks.find((item) => item.lsn === lsn);
  }

  /** For questions whose answers must not be taken for those of others. */
  nextId(): number {
    return ++this.#lastId;
  }

  assertPositions(): void {
    invariant(
      this.#state.appliedLsn <= this.#commitLsn && this.#commitLsn <= this.#durableLsn &&
        this.#durableLsn <= this.log.lastLsn,
      "A1",
      () =>
        `applied ${this.#state.appliedLsn}, committed ${this.#commitLsn}, ` +
        `durable ${this.#durableLsn}, last ${this.log.lastLsn}`,
    );
  }

  /** Called with every tick, whatever the role: a new primary knows what its predecessor's time was. */
  noteApplied(): void {
    const last = this.#appliedThen.at(-1)?.atMs ?? -Infinity;
    if (this.nowMs - last < NOTED_EVERY_MS) return;
    this.#appliedThen.push({ atMs: this.nowMs, lsn: this.#state.appliedLsn });
    if (this.#appliedThen.length > NOTED_MAX) this.#appliedThen.shift();
  }

  /** An entry that had certainly been applied `ms` ago, which may be somewhat longer; 0 when none had. */
  appliedAgo(ms: number): Lsn {
    return this.#appliedThen.findLast(({ atMs }) => atMs <= this.nowMs - ms)?.lsn ?? toLsn(0);
  }

  // ------------------------------------------------------------------------------ effects

  head(toInc: Incarnation) {
    const { node, store, inc } = this.self;
    const reign = this.#config?.reign ?? toEpoch(0);
    return { gid: this.gid, from: node, store, inc, toInc, epoch: this.epoch, reign };
  }

  send(to: NodeId, message: ReplicaMessage, entries: readonly LogEntry[] = []): void {
    this.effects.push({ kind: "send", to, message, entries });
  }

  /** Says that `message` is of another epoch than ours, or was meant for an earlier life of ours. */
  sendBehind(message: ReplicaMessage): void {
    const round = message.kind === "append" ? { round: message.round } : {};
    this.send(message.from, { kind: "behind", ...this.head(message.inc), ...round });
  }

  refuse(requestId: number, code: RefusalCode, message: string, maybeApplied = false): void {
    this.effects.push({ kind: "refuse", requestId, code, message, maybeApplied });
  }

  refuseRead(readId: number, code: RefusalCode, message: string): void {
    this.effects.push({ kind: "unreadable", readId, code, message });
  }

  // --------------------------------------------------------------------------------- log

  append(entry: LogEntry): void {
    this.log.append(entry);
    this.#unwritten.push({ type: "entry", entry });
  }

  /** A new entry of our own, as the primary. */
  appendOwn(command: Command): LogEntry {
    const lsn = toLsn(this.log.lastLsn + 1);
    const entry = new LogEntry(this.epoch, lsn, encodeCommand(command), command);
    this.append(entry);
    return entry;
  }

  truncateAfter(lsn: Lsn, reason: string): void {
    // The check of positions after the step would stop us as well (A1); this one says why.
    invariant(
      lsn >= this.#commitLsn,
      "A4",
      () => `group ${this.gid}: truncation to ${lsn} below committed ${this.#commitLsn}`,
    );
    const entries = this.log.truncateAfter(lsn);
    this.#unwritten.push({ type: "truncate", epoch: this.epoch, lsn });
    if (this.#durableLsn > lsn) this.#durableLsn = lsn;
    for (const write of this.#writes) if (write.lastLsn > lsn) write.lastLsn = lsn;
    this.effects.push({ kind: "diverged", entries, reason });
  }

  /** What is not written yet is entries alone: nothing is answered before it but they. */
  get writesMayWait(): boolean {
    return this.#unwritten.every(({ type }) => type === "entry");
  }

  /** Hands everything that is not written yet to the shell, as one write. */
  flush(): void {
    if (this.#unwritten.length === 0) return;
    const writeId = this.#nextWriteId++;
    this.#writes.push({ writeId, lastLsn: this.log.lastLsn, epoch: this.epoch });
    this.effects.push({ kind: "write", writeId, records: this.#unwritten });
    this.#unwritten = [];
  }

  written(writeId: number): void {
    while (this.#writes.length > 0 && this.#writes[0]!.writeId <= writeId) {
      const write = this.#writes.shift()!;
      if (write.lastLsn > this.#durableLsn) this.#durableLsn = write.lastLsn;
      if (write.epoch > this.#durableEpoch) this.#durableEpoch = write.epoch;
    }
  }

  /** A checkpoint replaced our state and log, and is on disk. */
  replaceBySnapshot(state: GroupState, history: EpochHistory): void {
    this.#state = state;
    this.log.reset(state.appliedLsn, history);
    this.#durableLsn = state.appliedLsn;
    this.#commitLsn = state.appliedLsn;
    for (const write of this.#writes) write.lastLsn = toLsn(0);
    this.#unwritten = this.#unwritten.filter((record) => record.type === "config");
    this.#checks.length = 0;
  }

  // ------------------------------------------------------------------------------ applying

  /** Applies what is committed, up to `lsn`. */
  commitTo(lsn: Lsn, onApplied: (entry: LogEntry, outcome: AppliedOutcome | null) => void): void {
    if (lsn > this.#commitLsn) this.#commitLsn = lsn;
    while (this.#state.appliedLsn < this.#commitLsn) {
      const at = toLsn(this.#state.appliedLsn + 1);
      const entry = this.log.at(at);
      invariant(entry !== undefined, "A1", () => `entry ${at} left memory before it was applied`);
      const { command } = entry, { kind } = command;
      const outcome = this.#state.apply(command, at);
      if (at % CHECK_EVERY_LSN === 0) {
        this.#checks.push({ lsn: at, hash: this.#state.hash });
        if (this.#checks.length > CHECKS_KEPT) this.#checks.shift();
      }
      if (kind === "split") this.mergeFromMs = this.nowMs + MERGE_AFTER_SPLIT_MS;
      if (kind === "merge") this.mergeFromMs = this.nowMs + MERGE_AFTER_MERGE_MS;
      onApplied(entry, outcome);
      this.log.applied(entry);
    }
  }

  /** Lets go of applied entries that nobody up to `neededLsn` still needs from memory. */
  trimLog(neededLsn: number): void {
    const { recentLogBytes } = this.memory;
    this.log.trim(toLsn(Math.min(neededLsn, this.#state.appliedLsn)), recentLogBytes);
  }

  // ------------------------------------------------------------------ epochs and promises

  /** Takes over a newer configuration; it is durable before anything says so. */
  adopt(config: GroupConfig): void {
    invariant(config.epoch > this.epoch, "A2", () => `epoch ${config.epoch} after ${this.epoch}`);
    this.#config = config;
    this.#unwritten.push({ type: "config", epoch: config.epoch, config });
  }

  setRole(role: ReplicaRole): void {
    this.role = role;
    this.effects.push({ kind: "roleChanged", role, epoch: this.epoch });
  }

  isAmong(members: readonly Member[]): boolean {
    const { node, store } = this.self;
    return members.some((member) => member.node === node && member.store === store);
  }

  /** Promises the primary of `reign` not to act as one for a while. */
  promise(reign: Epoch): void {
    const graceMs = mutated("short-grace") ? this.timing.leaseMs / 4 : this.timing.graceMs;
    const untilMs = this.nowMs + graceMs;
    this.#promises.set(reign, Math.max(this.#promises.get(reign) ?? 0, untilMs));
  }

  /** Until when we may not act as the primary of `config`, because of what others were promised. */
  promisedUntilMs({ reign: ours, deadReign }: GroupConfig): number {
    if (mutated("promises-ignored")) return -Infinity;
    // Nobody can hold a lease from before the very first reign.
    let untilMs = ours === FIRST_REIGN ? -Infinity : this.#bootPromiseMs;
    for (const [reign, promisedMs] of this.#promises) {
      if (reign !== deadReign && reign !== ours) untilMs = Math.max(untilMs, promisedMs);
    }
    return untilMs;
  }

  forgetOldPromises(): void {
    for (const [reign, untilMs] of this.#promises) {
      if (untilMs < this.nowMs) this.#promises.delete(reign);
    }
  }
}
