/**
 * A tablet's move from the first request to the last, between two groups of one replica each on disks in
 * memory; the coordinator's record is played by the test, which looks at both groups whenever it is asked.
 */
import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import type { BlobStore } from "../../kv/disk/blob_store.ts";
import { SimDisk } from "../../kv/disk/sim_disk.ts";
import type { Env } from "../../kv/env.ts";
import { encodeText, INLINE_BYTES_MAX } from "../../kv/kv.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import { NodeMemory } from "../../kv/node_memory.ts";
import { abortMove, beginMove, commitMove, endMove, firstRangeMap } from "../../kv/range_map.ts";
import { UndoBudget } from "../../kv/snapshots.ts";
import type { GroupPlan } from "../../proto/cluster_config.ts";
import {
  epoch as toEpoch,
  type GroupId,
  groupId,
  incarnation,
  lsn,
  nodeId,
  storeId,
} from "../../proto/ids.ts";
import type { MoveRecord, RangeMap } from "../../proto/moves.ts";
import { GroupShell } from "../../roles/backend_group.ts";
import { RecoveredGroup } from "../../roles/backend_recovery.ts";
import { BackendService } from "../../roles/backend_service.ts";
import { BlobIntake } from "../../roles/blob_intake.ts";
import { MoveSource } from "../../roles/move_source.ts";
import { MoveTarget } from "../../roles/move_target.ts";
import { RpcError } from "../../roles/net/rpc_error.ts";
import type { PeerLink } from "../../roles/peers.ts";
import { config } from "../kv/replica_bench.ts";
import { openWal } from "../kv/disk/wal_testing.ts";
import { eventually } from "../eventually.ts";
import { sampleConfig } from "../sample_cluster.ts";
import { SimCheckpoints } from "../sim/sim_checkpoints.ts";

const ONE = groupId(1), TWO = groupId(2);
const SELF = { node: nodeId(0), store: storeId("s0"), inc: incarnation(1) };
const PLANS: readonly GroupPlan[] = [
  { id: ONE, startKey: "", endKey: "m", members: [0] },
  { id: TWO, startKey: "m", endKey: null, members: [0] },
];
const MOVED = { startKey: "c", endKey: "e" };

/** Time passes only while somebody waits. */
class PatientEnv implements Env {
  nowMs = 1_000;
  monotonicMs = () => this.nowMs;
  wallMs = () => this.nowMs;
  random = () => 0.5;
  #secrets = 0;
  secretBytes = (count: number) => new Uint8Array(count).fill(++this.#secrets);
  sleep = async (ms: number) => {
    this.nowMs += ms;
    // Others have their turn.
    await new Promise((resolve) => setTimeout(resolve, 0));
  };
  timer = () => () => {};
  onBeat = () => () => {};
  log = () => {};
  fatal = (error: unknown): never => {
    throw error;
  };
}

class World {
  readonly env = new PatientEnv();
  readonly groups = new Map<GroupId, GroupShell>();
  readonly files = new Map<string, Uint8Array>();
  readonly intake: BlobIntake;
  readonly target: MoveTarget;
  /** How many looks for files that nobody mentions were asked for. */
  filesLeft = 0;
  map: RangeMap = firstRangeMap(PLANS);
  /** What the one that gives the tablet away knows of it. */
  known: RangeMap = this.map;
  /** Called before each request to the coordinator and to the other group. */
  onAsked: (name: string, body: { step?: { kind: string } }) => void = () => {};
  /** Called after the coordinator did what it was asked, before it answers. */
  onDone: (name: string) => void = () => {};
  #seq = 0;

  private constructor() {
    const blobs = {
      put: (id: string, bytes: Uint8Array) => Promise.resolve(void this.files.set(id, bytes)),
      has: (id: string) => Promise.resolve(this.files.has(id)),
      get: (id: string) => Promise.resolve(this.files.get(id)!),
    } as unknown as BlobStore;
    const { env } = this;
    const fetch = () => Promise.resolve(null);
    this.intake = new BlobIntake({ store: blobs, env, onDiskFull: () => {}, fetch });
    this.target = new MoveTarget({
      groups: this.groups,
      intake: this.intake,
      completionBytes: 1 << 20,
      onFilesLeft: () => void (this.filesLeft += 1),
    });
    this.#blobs = blobs;
  }

  readonly #blobs: BlobStore;

  /** Group 1 with rows a to e, and the tablet from c to e between them; group 2 with row n. */
  static async open(): Promise<World> {
    const world = new World();
    for (const plan of PLANS) await world.#start(plan);
    for (const row of ["a", "c", "cc", "d", "dd", "e"]) await world.put(ONE, row, `${row} in one`);
    await world.put(TWO, "n", "n in two");
    for (const key of ["c", "e"]) await world.one.reshape({ kind: "split", key });
    const { tablets } = world.one.replica.state;
    const { id: tabletId, generation } = tablets.at("c")!;
    const map = beginMove(world.map, { ...MOVED, from: ONE, to: TWO, tabletId, generation });
    world.map = world.known = asMap(map);
    return world;
  }

  get one(): GroupShell {
    return this.groups.get(ONE)!;
  }

  get two(): GroupShell {
    return this.groups.get(TWO)!;
  }

  get record(): MoveRecord {
    return this.map.moves[0]!;
  }

  put(gid: GroupId, row: string, value: string, seq = ++this.#seq) {
    const mutations = [{ kind: "put" as const, column: "c", value: encodeText(value) }];
    const op = toLogRowOp({ row, mutations }, (bytes) => {
      this.intake.add(`value-${seq}`, bytes);
      return `value-${seq}`;
    });
    const stamp = { clientId: "client-1", seq, firstIncomplete: 1, issuedMs: this.env.nowMs };
    return this.groups.get(gid)!.apply(stamp, { kind: "rowOp", op });
  }

  /** A primary of group 1 drives the move for as long as it can. */
  async move(isCurrent: () => boolean = () => true): Promise<void> {
    const source = new MoveSource({
      env: this.env,
      group: this.one,
      record: this.record,
      peers: {
        coordinator: this.#link((name, body) => this.#coordinator(name, body)),
        of: () => this.#link((name, body, payload) => this.#backend(name, body, payload)),
        close: () => {},
      },
      intake: this.intake,
      targets: [0],
      bytesPerSecond: 1e9,
      pieceCells: 2,
      map: () => this.known,
      onMap: (map) => void (this.known = map),
      onDamage: () => false,
      isCurrent,
    });
    await source.run();
  }

  /** The only replica is its group's primary again, in a reign of its own. */
  async reelect(gid: GroupId): Promise<void> {
    const group = this.groups.get(gid)!, { epoch } = group.replica.config!;
    const next = toEpoch(epoch + 1);
    const alone = config({ gid, epoch: next, reign: next, inSync: [SELF], minInSync: 1 });
    group.feed({ kind: "config", config: alone, learners: [] });
    await eventually(() => {
      this.env.nowMs += 100;
      group.feed({ kind: "tick" });
      return Promise.resolve(group.replica.canServe());
    }, "the primary serves again");
  }

  service(): BackendService {
    return new BackendService({
      groups: this.groups,
      isSuspect: () => false,
      self: SELF.node,
      peers: { coordinator: NOBODY, of: () => NOBODY, close: () => {} },
      intake: this.intake,
      env: this.env,
      ioBufferBytes: 1 << 20,
      routes: () => ({ version: 0, ranges: 0, routes: [] }),
      onDamage: () => false,
    });
  }

  /** Rows that lie in a group's store, whether it serves them or not. */
  rowsIn(group: GroupShell): string {
    return [...group.store.range({})].map(({ row }) => row).join(" ");
  }

  async #start({ id, startKey, endKey }: GroupPlan): Promise<void> {
    const { env, intake } = this, gid = groupId(id);
    const { wal } = await openWal(new SimDisk({ seed: id }), {});
    const shell = new GroupShell({
      context: { env, config: sampleConfig() },
      gid,
      range: { startKey, endKey },
      self: SELF,
      store: new SimCheckpoints().open(gid, () => Promise.resolve()),
      recovered: new RecoveredGroup(gid, { lsn: lsn(0), history: [] }),
      wal,
      folder: storeId("folder"),
      blobs: this.#blobs,
      intake,
      peers: { coordinator: NOBODY, of: () => NOBODY, close: () => {} },
      memory: new NodeMemory({ bytesMax: 1 << 30, groupCount: 2, users: () => [] }),
      undo: new UndoBudget(1 << 20),
      fetchSnapshot: () => Promise.resolve(),
      onRoleChanged: () => {},
      onStirred: () => {},
      onDiskFull: () => {},
      onFilesLeft: () => {},
      keepDiverged: () => Promise.resolve(),
      onDamage: env.fatal,
      onMismatch: () => {},
      isLifeKnown: () => true,
    });
    this.groups.set(gid, shell);
    const alone = config({ gid, inSync: [SELF], minInSync: 1 });
    shell.feed({ kind: "config", config: alone, learners: [] });
  }

  #link(answer: (name: string, body: never, payload: Uint8Array) => unknown): PeerLink {
    const call = async (_: unknown, name: string, body: unknown, parts: Uint8Array[] = []) => {
      this.onAsked(name, body as never);
      // As it would look on the other side of a wire.
      const sent = JSON.parse(JSON.stringify(body)) as never;
      const payload = new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
      return { body: await answer(name, sent, payload), payload: new Uint8Array(0) };
    };
    return { call, send: () => {} } as unknown as PeerLink;
  }

  #backend(name: string, body: never, payload: Uint8Array): unknown {
    return this.target.handlers[name as "moveStep"](body, payload, undefined as never);
  }

  #coordinator(name: string, body: { id: number; decision: string; reason: string }): unknown {
    const { id, decision, reason } = body, record = this.map.moves.find((move) => move.id === id);
    if (name === "endMove") this.map = asMap(endMove(this.map, id));
    else if (record?.state === "copying") {
      const next = decision === "commit"
        ? commitMove(this.map, id)
        : abortMove(this.map, id, reason);
      this.map = asMap(next);
    }
    this.onDone(name);
    return { rangeMap: this.map };
  }
}

const NOBODY = {
  call: () => Promise.reject(new RpcError("unreachable", "nobody is there", { sent: false })),
  send: () => {},
} as unknown as PeerLink;

function asMap(map: RangeMap | string): RangeMap {
  if (typeof map === "string") throw new Error(map);
  return map;
}

/** Tablets as the state of a group has them. */
const shapeOf = ({ replica: { state: { tablets } } }: GroupShell) =>
  tablets.all().map(({ startKey, endKey, state, departure }) =>
    `${startKey}-${endKey ?? ""} ${departure?.stage ?? state}`
  );

Deno.test("a tablet moves with its rows, large values and records, and the records of the move end", async () => {
  const world = await World.open();
  const large = "x".repeat(INLINE_BYTES_MAX + 1);
  await world.put(ONE, "d", large, 77);
  const before = world.one.store.get("d", "c")!;
  await world.move();
  assert.deepEqual(shapeOf(world.one), ["-c serving", "c-e leaving", "e-m serving"]);
  assert.deepEqual(shapeOf(world.two), ["c-e serving", "m- serving"]);
  assert.deepEqual(world.known.moves, []);
  assert.equal(world.known.ended[0]?.outcome, "committed");
  const after = world.two.store.get("d", "c")!;
  assert.deepEqual([after.version, after.crc], [before.version, before.crc]);
  assert.notDeepEqual(after.value, before.value, "its file has a name of its own");
  const { blob } = after.value as { blob: string };
  assert.equal(crc32(world.files.get(blob)!), before.crc);
  // What was executed in the one group is answered by the other.
  const again = await world.put(TWO, "d", large, 77);
  assert.equal(again.kind === "applied" && again.version, before.version);
  const next = await world.put(TWO, "d", "later");
  assert(next.kind === "applied" && next.version > before.version);
});

Deno.test("a write that comes while the tablet is copied comes along; one after the freeze is told to wait", async () => {
  const world = await World.open();
  let isWritten = false;
  let late: Promise<unknown> | null = null;
  world.onAsked = (name, { step }) => {
    // In the middle of the copy, and behind the place that it has reached.
    if (name === "moveStage" && world.rowsIn(world.two).includes("c") && !isWritten) {
      isWritten = true;
      void world.put(ONE, "c", "c again");
    }
    if (step?.kind === "seal") late = assert.rejects(world.put(ONE, "c", "no"), { code: "frozen" });
  };
  await world.move();
  await late!;
  const { value } = world.two.store.get("c", "c")!;
  assert.deepEqual(value, encodeText("c again"));
});

Deno.test("a frozen tablet is read until the commit is asked for, and not from then on", async () => {
  const world = await World.open();
  const readable: Record<string, boolean> = {};
  world.onAsked = (name, { step }) => {
    readable[step?.kind ?? name] = world.one.isReadable("c");
  };
  await world.move();
  assert.deepEqual([readable.seal, readable.decideMove, readable.endMove], [true, false, false]);
});

Deno.test("a tablet is dropped only once the commit is known, however late its answer is", async () => {
  const world = await World.open();
  let asked = 0;
  world.onDone = (name) => {
    if (name !== "decideMove") return;
    assert.deepEqual(shapeOf(world.one)[1], "c-e frozen");
    assert(!world.two.isReadable("c"), "nor is it served before");
    // It was done, but nobody hears of it.
    if (++asked === 1) throw new RpcError("timeout", "no answer");
  };
  await world.move();
  assert.equal(asked, 2);
  assert.equal(world.known.ended[0]?.outcome, "committed");
  assert.equal(world.rowsIn(world.two), "c cc d dd n");
});

Deno.test("a primary that finds the tablet frozen by the one before goes on, but does not read it", async () => {
  const world = await World.open();
  let isCurrent = true;
  world.onAsked = (_, { step }) => {
    if (step?.kind === "seal") isCurrent = false;
  };
  await world.move(() => isCurrent);
  assert.deepEqual(shapeOf(world.one)[1], "c-e frozen");
  // As in a reign that did not freeze it.
  world.one.setReadable(null);
  let wasReadable = world.one.isReadable("c");
  world.onAsked = () => {
    wasReadable ||= world.one.isReadable("c");
  };
  await world.move();
  assert(!wasReadable);
  assert.equal(world.known.ended[0]?.outcome, "committed");
  assert.equal(world.rowsIn(world.two), "c cc d dd n");
});

Deno.test("a copy that a later primary began before it heard of the commit is completed", async () => {
  const world = await World.open();
  let isCurrent = true;
  // It was done, but the primary that asked is not in office any more.
  world.onDone = (name) => {
    if (name === "decideMove") isCurrent = false;
    if (name === "decideMove") throw new RpcError("timeout", "no answer");
  };
  await world.move(() => isCurrent);
  assert.equal(world.record.state, "committed");
  assert.equal(world.known.moves[0]!.state, "copying");
  await world.reelect(ONE);
  world.onDone = () => {};
  world.onAsked = (name) => {
    if (name === "moveCompare") world.known = world.map;
  };
  await world.move();
  assert(!world.two.isReadable("c"), "what it began is not sealed");
  let looks = 0;
  await world.move(() => ++looks < 1_000);
  assert(world.two.isReadable("c"));
  assert.equal(world.known.ended[0]?.outcome, "committed");
  assert.equal(world.rowsIn(world.two), "c cc d dd n");
  assert.deepEqual(shapeOf(world.one), ["-c serving", "c-e leaving", "e-m serving"]);
});

Deno.test("a move that the coordinator gave up leaves the tablet where it was, writable, and nothing elsewhere", async () => {
  const world = await World.open();
  world.onAsked = (name) => {
    if (name !== "decideMove" || world.record.state !== "copying") return;
    world.map = asMap(abortMove(world.map, world.record.id, "it took too long"));
  };
  await world.move();
  assert.deepEqual(world.known.ended.map(({ outcome, reason }) => [outcome, reason]), [
    ["aborted", "it took too long"],
  ]);
  assert.equal(shapeOf(world.one)[1], "c-e serving");
  assert.equal((await world.put(ONE, "c", "c again")).kind, "applied");
  assert.deepEqual(shapeOf(world.two), ["c-e leaving", "m- serving"]);
  assert(!world.two.isReadable("c"));
});

Deno.test("a piece that came to nothing has its files looked for", async () => {
  const world = await World.open();
  await world.put(ONE, "c", "x".repeat(INLINE_BYTES_MAX + 1));
  let isFirst = true;
  world.onAsked = (name) => {
    if (name !== "moveStage" || !isFirst) return;
    isFirst = false;
    // It comes too late: the move was given up.
    void world.two.move({ kind: "cancel", moveId: world.record.id });
  };
  await world.move();
  assert(world.filesLeft > 0);
  assert.equal(world.known.ended[0]?.outcome, "aborted");
});

Deno.test("a scan goes on as of its beginning, and not into a tablet that came since", async () => {
  const world = await World.open();
  const { handlers } = world.service();
  const head = { gid: TWO, hops: 0, startRow: "a", limit: 1 };
  await world.put(TWO, "o", "o in two");
  const scan = async (body: object) => {
    const answer = await handlers.scan(
      { ...head, ...body } as never,
      new Uint8Array(0),
      undefined as never,
    );
    return (answer as { body: { cells: { row: string }[]; end: string | null } }).body;
  };
  const first = await scan({ startRow: "m", snapshot: "new" }) as {
    cells: { row: string }[];
    snapshot?: { gid: GroupId; lsn: number };
  } & object;
  assert.deepEqual(first.cells.map(({ row }) => row), ["n"]);
  await world.move();
  // Rows that are the group's by now were another's when the scan began.
  await assert.rejects(
    () => scan({ startRow: "c", snapshot: first.snapshot }),
    { code: "snapshot_too_old" },
  );
  assert.deepEqual((await scan({ startRow: "c" })).cells.map(({ row }) => row), ["c"]);
});
