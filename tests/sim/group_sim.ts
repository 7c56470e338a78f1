/**
 * One replica group, its coordinator and its clients in one process, on a seeded clock, network and
 * disk. The code under test is the real one: `Replica`, `Coordinator`, `GroupState`, the log.
 *
 * Modelled rather than run: disks (a write becomes durable some time after it was asked for; a crash
 * loses a suffix of what was not), memory (a replica may have none left for some of what it is sent,
 * for a while), the network (messages are lost, doubled, delayed and overtake each other; links are cut
 * in one or both directions), processes (crash, restart, pause), the
 * supervisor (it may or may not report an exit) and clients (they retry with the same stamp, on any
 * node). After every step the invariants S1 to S4 of ARCHITECTURE.md are checked, at the end S5.
 *
 * A run is a function of its seed: the same seed gives the same trace.
 */
import {
  Coordinator,
  type CoordinatorEffect,
  type CoordinatorInput,
} from "../../kv/coordinator.ts";
import { rowOpsOf } from "../../kv/command.ts";
import { GroupState } from "../../kv/group_state.ts";
import { encodeText } from "../../kv/kv.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import { type Effect, type Input, type LogRecord, Replica } from "../../kv/replica.ts";
import { spanOfRow } from "../../kv/read_gate.ts";
import { LogEntry, ReplicaLog } from "../../kv/replica_log.ts";
import type { RequestStamp } from "../../proto/command.ts";
import type { StoreReport } from "../../proto/control.ts";
import {
  groupId,
  incarnation,
  type Lsn,
  lsn as toLsn,
  type NodeId,
  nodeId,
  storeId,
} from "../../proto/ids.ts";
import type { GroupConfig, Member, ReplicaMessage } from "../../proto/replication.ts";
import { SeededRandom } from "./seeded_random.ts";

const GID = groupId(1);
const TIMING = { heartbeatMs: 50, leaseMs: 300, graceMs: 450, ackTimeoutMs: 250 };
const COORDINATOR_TIMING = {
  reportTimeoutMs: 600,
  pollMs: 80,
  coldStartWaitMs: 1_000,
  rebalanceAfterMs: 1_500,
};

export interface SimOptions {
  readonly seed: number;
  readonly replicas?: number;
  /** Simulated milliseconds under faults; a quiet phase of 20 s follows. */
  readonly durationMs?: number;
  readonly minInSync?: number;
  /** Whether replicas may lack memory; drawn unless it is said. */
  readonly shortMemory?: boolean;
}

export interface SimResult {
  readonly acked: number;
  readonly reads: number;
  /** Reads beside undecided entries. */
  readonly limboReads: number;
  readonly crashes: number;
  readonly elections: number;
  readonly truncations: number;
  /** Appends of which only a part was taken. */
  readonly cuts: number;
  readonly unknown: number;
  readonly steps: number;
  readonly traceHash: string;
}

interface DiskRecord {
  readonly record: LogRecord;
}

interface SimNode {
  readonly id: NodeId;
  readonly disk: { durable: DiskRecord[]; pending: { writeId: number; records: DiskRecord[] }[] };
  inc: number;
  up: boolean;
  pausedUntil: number;
  replica: Replica | null;
  spawnId: string;
  /** Entries that there is memory for until then. */
  room: { entries: number; untilMs: number };
}

interface SimOp {
  readonly stamp: RequestStamp;
  readonly value: string;
  acked: boolean;
  given: boolean;
}

const ROWS = ["r0", "r1", "r2"];
const rowOf = (value: string) => ROWS[Number(value.slice(1)) % ROWS.length]!;

/** A violated promise; `seed` replays it. */
export class SimViolation extends Error {}

export class GroupSim {
  readonly #random: SeededRandom;
  readonly #options: Required<Omit<SimOptions, "shortMemory">>;
  readonly #readMode: "lease" | "confirm";
  readonly #nodes: SimNode[];
  #coordinator: Coordinator;
  #coordinatorUp = true;
  readonly #records = new Map<number, GroupConfig>();
  #nowMs = 0;
  #queue: { atMs: number; order: number; run: () => void }[] = [];
  #order = 0;
  #steps = 0;
  #trace = 0;
  #quiet = false;
  #clientsDone = false;
  /** Directed links that are cut, `from>to`; "c" is the coordinator. */
  readonly #cuts = new Set<string>();
  readonly #weights: Record<"loss" | "dup" | "crash" | "cut" | "pause" | "slow" | "coord", number>;
  /** Everything that any primary ever committed, in order. */
  readonly #committed: { epoch: number; value: string; atMs: number }[] = [];
  /** Dice of its own, so that seeds without short memory stay as they are. */
  readonly #memoryDice: SeededRandom;
  readonly #shortMemory: number;
  readonly #ops: SimOp[] = [];
  readonly #reads = new Map<number, { node: NodeId; row: string; floor: number }>();
  readonly #requests = new Map<number, SimOp>();
  #requestId = 0;
  #stats = {
    acked: 0,
    reads: 0,
    limboReads: 0,
    crashes: 0,
    elections: 0,
    truncations: 0,
    cuts: 0,
    unknown: 0,
  };
  #log: string[] = [];

  constructor(options: SimOptions) {
    this.#options = { replicas: 3, durationMs: 20_000, minInSync: 2, ...options };
    this.#random = new SeededRandom(options.seed);
    const swarm = (base: number) => this.#random.chance(0.3) ? 0 : base * this.#random.next() * 3;
    this.#weights = {
      loss: swarm(0.05),
      dup: swarm(0.05),
      crash: swarm(0.5),
      cut: swarm(0.4),
      pause: swarm(0.4),
      slow: swarm(0.2),
      coord: swarm(0.2),
    };
    this.#memoryDice = new SeededRandom(options.seed * 6_841 + 11);
    const isShort = options.shortMemory ?? this.#memoryDice.chance(0.5);
    this.#shortMemory = isShort ? this.#memoryDice.next() : 0;
    this.#readMode = this.#random.chance(0.3) ? "confirm" : "lease";
    this.#nodes = Array.from({ length: this.#options.replicas }, (_, i) => ({
      id: nodeId(i),
      disk: { durable: [], pending: [] },
      inc: 0,
      up: false,
      pausedUntil: 0,
      replica: null,
      spawnId: "",
      room: { entries: Infinity, untilMs: 0 },
    }));
    this.#coordinator = this.#startCoordinator();
    for (const node of this.#nodes) this.#boot(node);
  }

  run(): SimResult {
    const { durationMs } = this.#options;
    this.#every(20, () => this.#tickAll());
    this.#every(40, () => this.#reportAll());
    this.#every(15, () => this.#issue());
    this.#every(30, () => this.#read());
    this.#every(200, () => this.#fault());
    this.#runUntil(durationMs);
    this.#quieten();
    this.#runUntil(durationMs + 15_000);
    // The last commits reach the secondaries with the next heartbeat.
    this.#clientsDone = true;
    this.#runUntil(durationMs + 20_000);
    this.#checkEnd();
    return {
      ...this.#stats,
      steps: this.#steps,
      traceHash: (this.#trace >>> 0).toString(16).padStart(8, "0"),
    };
  }

  /** The last lines of what happened, for a failing seed. */
  get trace(): readonly string[] {
    return this.#log;
  }

  // ------------------------------------------------------------------------------- time

  #at(delayMs: number, run: () => void): void {
    const item = { atMs: this.#nowMs + delayMs, order: this.#order++, run };
    let low = 0, high = this.#queue.length;
    while (low < high) {
      const middle = (low + high) >> 1, other = this.#queue[middle]!;
      // Descending, so that the next event is popped off the end.
      if (other.atMs > item.atMs || (other.atMs === item.atMs && other.order > item.order)) {
        low = middle + 1;
      } else high = middle;
    }
    this.#queue.splice(low, 0, item);
  }

  #every(ms: number, run: () => void): void {
    const again = () => {
      run();
      this.#at(ms * (0.8 + 0.4 * this.#random.next()), again);
    };
    this.#at(ms * this.#random.next(), again);
  }

  #runUntil(endMs: number): void {
    while (this.#queue.length > 0 && this.#queue.at(-1)!.atMs <= endMs) {
      const item = this.#queue.pop()!;
      this.#nowMs = item.atMs;
      item.run();
      this.#steps += 1;
    }
    this.#nowMs = endMs;
  }

  #note(text: string): void {
    for (let i = 0; i < text.length; i++) {
      this.#trace = (Math.imul(this.#trace, 31) + text.charCodeAt(i)) | 0;
    }
    this.#log.push(`${this.#nowMs.toFixed(1)} ${text}`);
    if (this.#log.length > 400) this.#log.shift();
  }

  // ------------------------------------------------------------------------------ nodes

  #boot(node: SimNode): void {
    node.inc += 1;
    node.up = true;
    node.pausedUntil = 0;
    node.spawnId = `${node.id}-${node.inc}`;
    const recovered = recover(node.disk.durable);
    const state = new GroupState(new MemoryCellStore(), { rowBytesMax: 1 << 30 });
    node.replica = new Replica({
      gid: GID,
      self: { node: node.id, store: storeId(`s${node.id}`), inc: incarnation(node.inc) },
      timing: { ...TIMING, readMode: this.#readMode },
      state,
      log: new ReplicaLog({ baseLsn: toLsn(0), history: [], entries: recovered.entries }),
      config: recovered.config,
      commitLsn: toLsn(0),
      nowMs: this.#nowMs,
      makeId: () => `c${this.#order++}`,
    });
    this.#note(`boot ${node.id} inc ${node.inc} last ${recovered.entries.length}`);
    this.#at(1, () => this.#report(node));
  }

  #crash(node: SimNode): void {
    this.#stats.crashes += 1;
    this.#note(`crash ${node.id}`);
    // Of what was not synced, any prefix may have reached the disk all the same.
    const unsynced = node.disk.pending.flatMap((write) => write.records);
    const kept = this.#random.integer(unsynced.length + 1);
    node.disk.durable.push(...unsynced.slice(0, kept));
    node.disk.pending = [];
    node.up = false;
    node.replica = null;
    const { spawnId } = node;
    for (const [id, read] of this.#reads) if (read.node === node.id) this.#reads.delete(id);
    if (this.#random.chance(0.6)) {
      const gone = () => this.#toCoordinator(node.id, { kind: "exited", spawnId });
      this.#at(this.#random.next() * 20, gone);
    }
  }

  #feed(node: SimNode, input: Input): void {
    if (!node.up || node.replica === null) return;
    if (node.pausedUntil > this.#nowMs) {
      const { inc } = node;
      this.#at(node.pausedUntil - this.#nowMs + this.#random.next(), () => {
        if (node.inc === inc) this.#feed(node, input);
      });
      return;
    }
    const before = node.replica.progress.commitLsn;
    const effects = node.replica.step(this.#nowMs, input);
    this.#observeCommit(node, before);
    for (const effect of effects) this.#perform(node, effect);
    if (input.kind !== "flush" && input.kind !== "tick") {
      for (const effect of node.replica.step(this.#nowMs, { kind: "flush" })) {
        this.#perform(node, effect);
      }
    }
    this.#checkS1();
  }

  #perform(node: SimNode, effect: Effect): void {
    switch (effect.kind) {
      case "write": {
        const records = effect.records.map((record) => ({ record }));
        node.disk.pending.push({ writeId: effect.writeId, records });
        const slow = this.#random.chance(this.#weights.slow) ? 100 : 1;
        const { inc } = node;
        this.#at(this.#random.next() * slow, () => {
          if (node.inc === inc && node.up) this.#synced(node, effect.writeId);
        });
        return;
      }
      case "send":
        this.#send(node.id, effect.to, effect.message, effect.entries);
        return;
      case "reply":
        this.#onReply(effect);
        return;
      case "refuse":
        this.#requests.delete(effect.requestId);
        return;
      case "readable":
        this.#onReadable(node, effect.readId);
        return;
      case "unreadable":
        this.#reads.delete(effect.readId);
        return;
      case "propose": {
        const { inc } = node;
        const requestId = ++this.#requestId;
        this.#proposals.set(requestId, { node, inc, changeId: effect.changeId });
        this.#toCoordinator(node.id, {
          kind: "propose",
          requestId,
          proposal: {
            gid: GID,
            node: node.id,
            store: storeId(`s${node.id}`),
            inc: incarnation(node.inc),
            epoch: effect.epoch,
            changeId: effect.changeId,
            change: effect.change,
          },
        });
        return;
      }
      case "suspect":
        this.#toCoordinator(node.id, {
          kind: "suspect",
          gid: GID,
          node: node.id,
          epoch: effect.epoch,
        });
        return;
      case "checkRecord": {
        const { inc } = node, { checkId } = effect, self = String(node.id);
        this.#overNetwork(self, "c", () => {
          const config = this.#records.get(GID) ?? null;
          this.#overNetwork("c", self, () => {
            if (node.inc === inc) this.#feed(node, { kind: "recordChecked", checkId, config });
          });
        });
        return;
      }
      case "askConfig":
        this.#overNetwork("c", String(node.id), () => {
          const config = this.#records.get(GID);
          if (config !== undefined) this.#feed(node, { kind: "config", config, learners: null });
        });
        return;
      case "readLog": {
        const { inc } = node;
        const entries = recover(node.disk.durable).entries
          .filter((entry) => entry.lsn >= effect.fromLsn).slice(0, 50);
        this.#at(this.#random.next() * 5, () => {
          if (node.inc !== inc) return;
          this.#feed(node, {
            kind: "logRead",
            node: effect.node,
            fromLsn: effect.fromLsn,
            entries: entries[0]?.lsn === effect.fromLsn ? entries : null,
          });
        });
        return;
      }
      case "diverged":
        this.#stats.truncations += 1;
        this.#note(`truncate ${node.id}: ${effect.entries.length}`);
        return;
      case "hashMismatch":
        throw new SimViolation(`A7: state hashes differ at ${effect.lsn}`);
      case "roleChanged":
        this.#note(`role ${node.id} ${effect.role} epoch ${effect.epoch}`);
        return;
      case "fetchSnapshot":
        this.#feed(node, { kind: "snapshotFailed" });
    }
  }

  readonly #proposals = new Map<number, { node: SimNode; inc: number; changeId: string }>();

  #synced(node: SimNode, writeId: number): void {
    while (node.disk.pending.length > 0 && node.disk.pending[0]!.writeId <= writeId) {
      node.disk.durable.push(...node.disk.pending.shift()!.records);
    }
    this.#feed(node, { kind: "written", writeId });
  }

  // ---------------------------------------------------------------------------- network

  #overNetwork(from: string, to: string, deliver: () => void): void {
    if (this.#cuts.has(`${from}>${to}`)) return;
    if (!this.#quiet && this.#random.chance(this.#weights.loss)) return;
    const copies = !this.#quiet && this.#random.chance(this.#weights.dup) ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      const tail = this.#random.chance(0.02) && !this.#quiet ? 400 : 4;
      this.#at(0.1 + this.#random.next() ** 2 * tail, () => {
        if (!this.#cuts.has(`${from}>${to}`)) deliver();
      });
    }
  }

  #send(
    from: NodeId,
    to: NodeId,
    message: ReplicaMessage,
    entries: readonly LogEntry[],
  ): void {
    // Through the bytes, as on a real wire, so that nothing is shared between two nodes.
    const copies = entries.map(({ epoch, lsn, payload }) => ({
      epoch,
      lsn,
      payload: payload.slice(),
    }));
    this.#overNetwork(String(from), String(to), () => {
      const arrived = copies.map(({ epoch, lsn, payload }) => new LogEntry(epoch, lsn, payload));
      const node = this.#nodes[to]!, entries = this.#taken(node, arrived);
      this.#feed(node, { kind: "message", message: structuredClone(message), entries });
    });
  }

  /** Of entries that arrive those, the first, that the node has memory for. */
  #taken(node: SimNode, arrived: readonly LogEntry[]): readonly LogEntry[] {
    const dice = this.#memoryDice;
    if (arrived.length === 0 || this.#shortMemory === 0) return arrived;
    if (node.room.untilMs <= this.#nowMs && !this.#quiet && dice.chance(0.3 * this.#shortMemory)) {
      const ms = dice.next() ** 2 * 1_000, { inc } = node;
      node.room = { entries: dice.integer(4), untilMs: this.#nowMs + ms };
      this.#at(ms, () => {
        if (node.inc === inc) this.#feed(node, { kind: "room" });
      });
    }
    if (node.room.untilMs <= this.#nowMs || arrived.length <= node.room.entries) {
      node.room.entries -= arrived.length;
      return arrived;
    }
    this.#stats.cuts += 1;
    const taken = arrived.slice(0, node.room.entries);
    node.room.entries = 0;
    return taken;
  }

  // ------------------------------------------------------------------------- coordinator

  #startCoordinator(): Coordinator {
    return new Coordinator({
      plans: [{
        id: GID,
        startKey: "",
        endKey: null,
        members: this.#nodes.map((node) => Number(node.id)),
      }],
      configs: [...this.#records.values()],
      minInSync: this.#options.minInSync,
      timing: COORDINATOR_TIMING,
      nowMs: this.#nowMs,
      makeId: () => `k${this.#order++}`,
    });
  }

  #toCoordinator(from: NodeId, input: CoordinatorInput): void {
    this.#overNetwork(String(from), "c", () => this.#feedCoordinator(input));
  }

  #feedCoordinator(first: CoordinatorInput): void {
    if (!this.#coordinatorUp) return;
    const inputs = [first];
    for (let input; (input = inputs.shift()) !== undefined;) {
      for (const effect of this.#coordinator.step(this.#nowMs, input)) {
        this.#performCoordinator(effect, inputs);
      }
    }
    this.#checkS1();
  }

  #performCoordinator(effect: CoordinatorEffect, inputs: CoordinatorInput[]): void {
    switch (effect.kind) {
      case "swap": {
        const { gid, expected, config } = effect;
        const current = this.#records.get(gid);
        const done = (current?.epoch ?? 0) === expected;
        if (done) {
          if (current?.reign !== config.reign) this.#stats.elections += 1;
          this.#records.set(gid, config);
          const sets = `${config.inSync.map((m) => m.node)} / ${
            config.eligible.map((m) => m.node)
          }`;
          this.#note(
            `config ${config.epoch} reign ${config.reign} p${config.primary.node} ${sets}: ${config.reason}`,
          );
        }
        inputs.push({ kind: "swapped", gid, done, config: this.#records.get(gid) ?? null });
        return;
      }
      case "answer": {
        const asked = this.#proposals.get(effect.requestId);
        this.#proposals.delete(effect.requestId);
        if (asked === undefined) return;
        const { node, inc, changeId } = asked;
        const { result, config } = effect;
        this.#overNetwork("c", String(node.id), () => {
          if (node.inc === inc) this.#feed(node, { kind: "proposed", changeId, result, config });
        });
        return;
      }
      case "sendConfig": {
        const { to, config, learners } = effect;
        this.#overNetwork("c", String(to), () => {
          this.#feed(this.#nodes[to]!, { kind: "config", config, learners });
        });
        return;
      }
      case "poll": {
        const node = this.#nodes[effect.node]!;
        this.#overNetwork("c", String(node.id), () => this.#report(node));
        return;
      }
      case "memberDown": {
        const { to, node, inc } = effect;
        this.#overNetwork("c", String(to), () => {
          this.#feed(this.#nodes[to]!, { kind: "memberDown", node, inc });
        });
        return;
      }
      case "handOver": {
        const { to, successor } = effect;
        this.#overNetwork("c", String(to), () => {
          this.#feed(this.#nodes[to]!, { kind: "handOver", to: successor });
        });
        return;
      }
      case "routesChanged":
      case "log":
    }
  }

  #report(node: SimNode): void {
    if (!node.up || node.replica === null || node.pausedUntil > this.#nowMs) return;
    const { progress, epoch, role } = node.replica;
    const report: StoreReport = {
      store: storeId(`s${node.id}`),
      inc: incarnation(node.inc),
      draining: false,
      logBytes: 0,
      dataBytes: 0,
      groups: [{
        gid: GID,
        epoch,
        role,
        lastEpoch: progress.lastEpoch,
        lastLsn: progress.lastLsn,
        commitLsn: progress.commitLsn,
        serving: progress.serving,
        silentMs: progress.silentMs,
        tablets: [],
      }],
    };
    const { spawnId } = node;
    this.#toCoordinator(node.id, { kind: "report", node: node.id, spawnId, report });
  }

  #tickAll(): void {
    for (const node of this.#nodes) this.#feed(node, { kind: "tick" });
    this.#feedCoordinator({ kind: "tick" });
  }

  #reportAll(): void {
    for (const node of this.#nodes) this.#report(node);
  }

  // ----------------------------------------------------------------------------- clients

  #issue(): void {
    if (this.#clientsDone) return;
    const retry = this.#ops.filter((op) => !op.acked && !op.given);
    let op: SimOp;
    if (retry.length > 0 && this.#random.chance(0.7)) op = this.#random.pick(retry);
    else if (this.#ops.length < 600 && !this.#quiet) {
      const seq = this.#ops.length + 1;
      const stamp = {
        clientId: "sim-client",
        seq,
        firstIncomplete: Math.max(1, seq - 200),
        issuedMs: Math.round(this.#nowMs),
      };
      op = { stamp, value: `v${seq}`, acked: false, given: false };
      this.#ops.push(op);
    } else return;
    const node = this.#random.pick(this.#nodes);
    const requestId = ++this.#requestId;
    this.#requests.set(requestId, op);
    this.#overNetwork("client", String(node.id), () =>
      this.#feed(node, {
        kind: "request",
        requestId,
        stamp: op.stamp,
        wallMs: Math.round(this.#nowMs),
        request: {
          kind: "rowOp",
          op: toLogRowOp({
            row: rowOf(op.value),
            mutations: [{
              kind: "append",
              counter: "n",
              prefix: "m/",
              value: encodeText(op.value),
            }],
          }),
        },
      }));
  }

  #onReply(effect: Effect & { kind: "reply" }): void {
    const op = this.#requests.get(effect.requestId);
    this.#requests.delete(effect.requestId);
    if (op === undefined || effect.outcome.kind !== "applied") return;
    if (!this.#committed.some((entry) => entry.value === op.value)) {
      throw new SimViolation(`${op.value} was acknowledged but is not committed`);
    }
    // The answer itself may be lost; then the client asks again.
    if (this.#random.chance(0.9)) {
      if (!op.acked) this.#stats.acked += 1;
      op.acked = true;
    }
  }

  #read(): void {
    const node = this.#random.pick(this.#nodes), row = this.#random.pick(ROWS);
    const readId = ++this.#requestId;
    this.#reads.set(readId, { node: node.id, row, floor: this.#committed.length });
    this.#feed(node, { kind: "read", readId, span: spanOfRow(row) });
    this.#checkStaleness(this.#random.pick(this.#nodes));
  }

  /** S3: what is read contains everything that was committed to the row before the read began. */
  #onReadable(node: SimNode, readId: number): void {
    const read = this.#reads.get(readId);
    this.#reads.delete(readId);
    if (read === undefined) return;
    this.#stats.reads += 1;
    const applied = node.replica!.progress.appliedLsn;
    const missed = this.#committed.slice(applied, read.floor)
      .find(({ value }) => rowOf(value) === read.row);
    if (applied < read.floor) this.#stats.limboReads += 1;
    if (missed === undefined) return;
    throw new SimViolation(
      `S3: node ${node.id} answers a read of "${read.row}" at ${applied}, but ${missed.value} of ` +
        `${read.floor} entries had been committed before`,
    );
  }

  /** S6: a replica that calls its state at most so old has what was committed before that. */
  #checkStaleness(node: SimNode): void {
    if (!node.up || node.pausedUntil > this.#nowMs) return;
    const { progress } = node.replica!, staleMs = node.replica!.stalenessAt(this.#nowMs);
    const missed = this.#committed.slice(progress.appliedLsn)
      .find(({ atMs }) => atMs < this.#nowMs - staleMs);
    if (missed === undefined) return;
    throw new SimViolation(
      `S6: node ${node.id} calls its state at most ${staleMs} ms old, but lacks ${missed.value}, ` +
        `committed ${this.#nowMs - missed.atMs} ms ago`,
    );
  }

  // ------------------------------------------------------------------------------ faults

  #fault(): void {
    if (this.#quiet) return;
    const { crash, cut, pause, coord } = this.#weights;
    for (const node of this.#nodes) {
      if (!node.up && this.#random.chance(0.3)) this.#boot(node);
    }
    if (this.#random.chance(crash * 0.4)) {
      const up = this.#nodes.filter((node) => node.up);
      if (up.length > 0) {
        const victims = this.#random.chance(0.1) ? up : [this.#random.pick(up)];
        for (const node of victims) this.#crash(node);
      }
    }
    if (this.#random.chance(pause * 0.3)) {
      const node = this.#random.pick(this.#nodes);
      node.pausedUntil = this.#nowMs + this.#random.next() * 1_500;
      this.#note(`pause ${node.id}`);
    }
    if (this.#cuts.size > 0 && this.#random.chance(0.3)) this.#cuts.clear();
    if (this.#random.chance(cut * 0.4)) {
      const ends = [...this.#nodes.map((node) => String(node.id)), "c"];
      const from = this.#random.pick(ends), to = this.#random.pick(ends);
      this.#cuts.add(`${from}>${to}`);
      if (this.#random.chance(0.6)) this.#cuts.add(`${to}>${from}`);
      if (this.#random.chance(0.3)) {
        for (const other of ends) {
          this.#cuts.add(`${from}>${other}`);
          this.#cuts.add(`${other}>${from}`);
        }
      }
      this.#note(`cut ${[...this.#cuts].join(" ")}`);
    }
    if (this.#random.chance(coord * 0.4)) {
      this.#coordinatorUp = false;
      this.#note("coordinator down");
      this.#at(this.#random.next() * 1_500, () => {
        this.#coordinator = this.#startCoordinator();
        this.#coordinatorUp = true;
      });
    }
  }

  #quieten(): void {
    this.#quiet = true;
    this.#note("quiet");
    this.#cuts.clear();
    this.#coordinator = this.#startCoordinator();
    this.#coordinatorUp = true;
    for (const node of this.#nodes) {
      node.pausedUntil = 0;
      if (!node.up) this.#boot(node);
    }
  }

  // ---------------------------------------------------------------------------- checks

  /** S2 and S4: all replicas commit one and the same sequence. */
  #observeCommit(node: SimNode, beforeLsn: Lsn): void {
    const replica = node.replica!;
    for (let lsn = beforeLsn + 1; lsn <= replica.progress.commitLsn; lsn++) {
      const entry = replica.entryAt(toLsn(lsn));
      if (entry === undefined) continue;
      const mine = { epoch: Number(entry.epoch), value: labelOf(entry), atMs: this.#nowMs };
      const known = this.#committed[lsn - 1];
      if (known === undefined) {
        if (lsn !== this.#committed.length + 1) throw new SimViolation(`S2: gap before ${lsn}`);
        this.#committed.push(mine);
        this.#note(`commit ${lsn} ${mine.value} by ${node.id}`);
      } else if (known.epoch !== mine.epoch || known.value !== mine.value) {
        throw new SimViolation(
          `S2: at ${lsn} node ${node.id} commits ${mine.value} of epoch ${mine.epoch}, ` +
            `another committed ${known.value} of epoch ${known.epoch}`,
        );
      }
    }
  }

  /** S1: whoever could be elected has everything that was committed, on disk. */
  #checkS1(): void {
    const config = this.#records.get(GID);
    if (config === undefined) return;
    for (const member of [...config.inSync, ...config.eligible] as Member[]) {
      const node = this.#nodes[member.node]!;
      const durable = node.up && node.replica !== null
        ? node.replica.progress.durableLsn
        : recover(node.disk.durable).entries.length;
      if (durable < this.#committed.length) {
        throw new SimViolation(
          `S1: node ${member.node} could be elected at epoch ${config.epoch} but has only ` +
            `${durable} of ${this.#committed.length} committed entries on disk`,
        );
      }
    }
  }

  /** S5 and exactly-once: all is well again, every acknowledged write is there, and none twice. */
  #checkEnd(): void {
    const config = this.#records.get(GID);
    const primary = config === undefined ? undefined : this.#nodes[config.primary.node]!;
    if (primary?.replica?.stalenessAt(this.#nowMs) !== 0) {
      throw new SimViolation("S5: no primary serves 20 s after the last fault");
    }
    if (config!.inSync.length !== this.#nodes.length) {
      const progress = JSON.stringify(primary.replica.progress);
      throw new SimViolation(
        `S5: ${config!.inSync.length} of ${this.#nodes.length} are in sync; primary: ${progress}`,
      );
    }
    const values = new Map<string, number>();
    for (const cell of primary.replica.state.store.range({ from: { row: "", column: "" } })) {
      if (!cell.column.startsWith("m/")) continue;
      const value = new TextDecoder().decode(cell.value as Uint8Array);
      values.set(value, (values.get(value) ?? 0) + 1);
    }
    for (const op of this.#ops) {
      const count = values.get(op.value) ?? 0;
      if (op.acked && count === 0) throw new SimViolation(`R1: ${op.value} was lost`);
      if (count > 1) throw new SimViolation(`R1: ${op.value} was applied ${count} times`);
      if (!op.acked) this.#stats.unknown += 1;
    }
    const hashes = new Set(this.#nodes.map((node) => node.replica!.state.hash));
    const applied = this.#nodes.map((node) => node.replica!.state.appliedLsn);
    if (hashes.size !== 1) {
      throw new SimViolation(`A7: replicas differ at the end, applied ${applied.join()}`);
    }
  }
}

function labelOf(entry: LogEntry): string {
  const { command } = entry;
  if (command.kind === "epochStart") return `start${command.reign}`;
  if (command.kind === "split" || command.kind === "merge") return command.kind;
  const [mutation] = rowOpsOf(command)[0]!.mutations;
  return mutation !== undefined && "value" in mutation
    ? new TextDecoder().decode(mutation.value.value as Uint8Array)
    : "?";
}

/** What a restarted process finds: the log after truncations, and the last configuration. */
function recover(durable: readonly DiskRecord[]): {
  entries: LogEntry[];
  config: GroupConfig | null;
} {
  let entries: LogEntry[] = [], config: GroupConfig | null = null;
  for (const { record } of durable) {
    switch (record.type) {
      case "entry": {
        const { epoch, lsn, payload } = record.entry;
        entries.push(new LogEntry(epoch, lsn, payload));
        break;
      }
      case "truncate":
        entries = entries.filter((entry) => entry.lsn <= record.lsn);
        break;
      case "config":
        config = record.config;
        break;
      case "commit":
    }
  }
  return { entries, config };
}
