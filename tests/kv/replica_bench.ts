/** One replica whose peers, disk, clock and coordinator a test plays by hand. */
import assert from "node:assert/strict";
import { GroupState } from "../../kv/group_state.ts";
import { encodeText, type RowOp } from "../../kv/kv.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { MemoryCellStore } from "../../kv/memory_cell_store.ts";
import {
  type Effect,
  type Input,
  Replica,
  type ReplicaOptions,
  type ReplicaTiming,
} from "../../kv/replica.ts";
import { ReplicaLog } from "../../kv/replica_log.ts";
import type { TabletLimits } from "../../kv/tablet_policy.ts";
import { epoch, groupId, incarnation, lsn, nodeId, storeId } from "../../proto/ids.ts";
import type { AppendAck, GroupConfig, HeartbeatAck } from "../../proto/replication.ts";

export const GID = groupId(1);
export const TIMING = { heartbeatMs: 100, leaseMs: 600, graceMs: 900, ackTimeoutMs: 500 };

export function config(change: Partial<GroupConfig> = {}): GroupConfig {
  const member = (node: number) => ({ node: nodeId(node), store: storeId(`s${node}`) });
  return {
    gid: GID,
    epoch: epoch(1),
    reign: epoch(1),
    primary: { ...member(0), inc: incarnation(1) },
    inSync: [member(0), member(1), member(2)],
    eligible: [],
    minInSync: 2,
    deadReign: null,
    changeId: "made",
    reason: "",
    ...change,
  };
}

/** One replica, node 0 unless told otherwise, with its peers played by the test. */
export class Bench {
  nowMs = 10_000;
  effects: Effect[] = [];
  readonly replica: Replica;
  #lastId = 0;

  /** @param found what the process found on its disk, and when it started; nothing, long ago */
  constructor(
    readonly node = 0,
    tablets?: TabletLimits,
    timing: ReplicaTiming = TIMING,
    found: Partial<ReplicaOptions> = {},
  ) {
    this.replica = new Replica({
      gid: GID,
      self: { node: nodeId(node), store: storeId(`s${node}`), inc: incarnation(1) },
      timing,
      state: new GroupState(new MemoryCellStore(), {
        rowBytesMax: 1 << 20,
        buckets: { bytesMax: 500, largeBytesMax: 1 << 20 },
      }),
      ...(tablets === undefined ? {} : { tablets }),
      log: new ReplicaLog({ baseLsn: lsn(0), history: [], entries: [] }),
      config: null,
      commitLsn: lsn(0),
      nowMs: 0,
      makeId: () => `id${++this.#lastId}`,
      ...found,
    });
  }

  step(input: Input): Effect[] {
    const effects = this.replica.step(this.nowMs, input);
    this.effects.push(...effects);
    return effects;
  }

  /** The disk catches up with everything that was asked of it. */
  sync(): Effect[] {
    this.step({ kind: "flush" });
    const writes = this.effects.filter((effect) => effect.kind === "write");
    const last = writes.at(-1);
    return last === undefined ? [] : this.step({ kind: "written", writeId: last.writeId });
  }

  /** The last heartbeat that it sent. */
  get beat(): number {
    const sent = this.effects.filter((effect) => effect.kind === "send")
      .flatMap(({ message }) => message.kind === "heartbeat" ? [message.beat] : []);
    return sent.at(-1) ?? 0;
  }

  #head(from: number) {
    const current = this.replica.config!;
    return {
      gid: GID,
      from: nodeId(from),
      store: storeId(`s${from}`),
      inc: incarnation(1),
      toInc: incarnation(1),
      epoch: current.epoch,
      reign: current.reign,
    };
  }

  /** The peer makes itself known, as it does when it hears from a primary it does not know. */
  meet(from: number): void {
    const message = { kind: "behind" as const, ...this.#head(from) };
    this.step({ kind: "message", message, entries: [] });
  }

  ack(from: number, matchLsn: number, change: Partial<AppendAck> = {}): Effect[] {
    const head = this.#head(from);
    const message = { kind: "appendAck" as const, ...head, matchLsn: lsn(matchLsn), ...change };
    return this.step({ kind: "message", message, entries: [] });
  }

  promise(from: number, change: Partial<HeartbeatAck> = {}): Effect[] {
    const head = this.#head(from);
    const message = {
      kind: "heartbeatAck" as const,
      ...head,
      sentMs: this.nowMs,
      beat: this.beat,
      stampMs: 0,
      ...change,
    };
    return this.step({ kind: "message", message, entries: [] });
  }

  put(value: string, seq = ++this.#lastId, row = "r"): number {
    const mutations = [{ kind: "put" as const, column: "c", value: encodeText(value) }];
    return this.#request({ row, mutations }, seq);
  }

  remove(row: string): number {
    return this.#request({ row, mutations: [{ kind: "delete", column: "c" }] }, ++this.#lastId);
  }

  #request(op: RowOp, seq: number): number {
    const requestId = ++this.#lastId;
    const stamp = { clientId: "client-1", seq, firstIncomplete: 1, issuedMs: 0 };
    const request = { kind: "rowOp" as const, op: toLogRowOp(op) };
    this.step({ kind: "request", requestId, stamp, request, wallMs: 0 });
    return requestId;
  }

  answerTo(requestId: number): Effect | undefined {
    return this.effects.find((effect) =>
      (effect.kind === "reply" || effect.kind === "refuse") && effect.requestId === requestId
    );
  }
}

/** Node 0 as primary of reign 1 with `epochStart` committed at Lsn 1 and both leases. */
export function primary(
  tablets?: TabletLimits,
  timing?: ReplicaTiming,
  found?: Partial<ReplicaOptions>,
): Bench {
  const bench = new Bench(0, tablets, timing, found);
  bench.step({ kind: "config", config: config(), learners: [] });
  bench.sync();
  for (const peer of [1, 2]) {
    bench.meet(peer);
    bench.promise(peer);
    bench.ack(peer, 1);
  }
  assert(bench.replica.canServe());
  return bench;
}
