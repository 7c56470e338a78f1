/**
 * Saving what a damaged log still holds. Goal: whatever is damaged, what is kept of a group is its log
 * up to some entry and nothing else, and it says so whenever anything may be missing.
 *
 * Method: random work of several groups on the simulated disk, with the group's log after each record
 * kept beside it; then damage anywhere in the files, and the salvaged log is opened as a node would.
 */
import assert from "node:assert/strict";
import { seededRandom, SimDisk } from "../../../kv/disk/sim_disk.ts";
import type { WalRecord } from "../../../kv/disk/wal.ts";
import {
  inspectLog,
  type LogFindings,
  logOwner,
  rewriteLog,
} from "../../../kv/disk/wal_salvage.ts";
import { idDigest, SEGMENT_HEADER_BYTES } from "../../../kv/disk/wal_record.ts";
import { segmentName } from "../../../kv/disk/wal_segment.ts";
import { encodeText } from "../../../kv/kv.ts";
import { type GroupId, groupId, type Lsn, lsn } from "../../../proto/ids.ts";
import { RecoveredGroup } from "../../../roles/backend_recovery.ts";
import { encodeCommand } from "../../../kv/command.ts";
import { epoch } from "../../../proto/ids.ts";
import { commit, config, DIR, entry, openWal, reset, truncate } from "./wal_testing.ts";

const GROUPS = [1, 2, 3];
const SALVAGED = "salvaged";

const payloadOf = (gid: number, ofEpoch: number, at: number, bytes: number) => {
  const text = `${gid}/${ofEpoch}/${at}`;
  const command = { kind: "epochStart", reign: epoch(ofEpoch), timeMs: at } as const;
  return bytes === 0 ? encodeCommand(command) : encodeText(text.padEnd(bytes, "."));
};

/** One group's life: what its log was after each record, and where it may be checkpointed. */
class Life {
  readonly states: string[][] = [[]];
  #log: { line: string; epoch: number }[] = [];
  #epoch = 1;
  committed = 0;

  constructor(readonly gid: number, readonly random: () => number) {}

  next(): WalRecord {
    const record = this.#draw();
    if (record.type === "entry") this.#log.push({ line: lineOf(record), epoch: record.epoch });
    if (record.type === "truncate") this.#log.length = record.lsn;
    this.states.push(this.#log.map(({ line }) => line));
    return record;
  }

  #draw(): WalRecord {
    const { gid, random } = this, dice = random();
    if (dice < 0.1 && this.#log.length > 0) {
      this.committed = Math.max(this.committed, this.#log.length - Math.floor(random() * 3));
      return commit(gid, this.committed);
    }
    if (dice < 0.15) return config(gid, this.#epoch, encodeText("{}"));
    if (dice < 0.2 && this.#log.length > this.committed) {
      this.#epoch += 1;
      const kept = this.committed + Math.floor(random() * (this.#log.length - this.committed));
      return truncate(gid, kept, this.#epoch);
    }
    const bytes = random() < 0.1 ? 70_000 + Math.floor(random() * 140_000) : 20 + random() * 500;
    const at = this.#log.length + 1;
    return entry(gid, at, payloadOf(gid, this.#epoch, at, Math.floor(bytes)), this.#epoch);
  }
}

const lineOf = (record: WalRecord & { type: "entry" }) =>
  `${record.epoch}/${record.lsn}/${new TextDecoder().decode(record.payload)}`;

interface World {
  readonly lives: readonly Life[];
  readonly segments: ReadonlyMap<string, Uint8Array>;
  readonly checkpoints: Map<GroupId, Lsn>;
}

/** Random work in small segments, cleanly stopped. */
async function randomWorld(seed: number): Promise<World> {
  const random = seededRandom(seed), disk = new SimDisk({ seed });
  const { wal } = await openWal(disk, { segmentBytes: 300_000 });
  const lives = GROUPS.map((gid) => new Life(gid, random));
  for (let batch = 0; batch < 60; batch++) {
    const records: WalRecord[] = [];
    for (let i = 0; i <= random() * 4; i++) {
      records.push(lives[Math.floor(random() * lives.length)]!.next());
    }
    await wal.append(records);
  }
  await wal.close();
  const segments = new Map<string, Uint8Array>();
  for (const { name } of await disk.list(DIR)) segments.set(name, disk.bytesOf(`${DIR}/${name}`));
  // Of some groups a checkpoint reaches over part of the log.
  const checkpoints = new Map(
    lives.map(({ gid, committed }) =>
      [groupId(gid), lsn(random() < 0.5 ? 0 : Math.floor(random() * (committed + 1)))] as const
    ),
  );
  return { lives, segments, checkpoints };
}

async function diskOf(segments: ReadonlyMap<string, Uint8Array>): Promise<SimDisk> {
  const disk = new SimDisk({ seed: 1 });
  await disk.mkdir(DIR);
  for (const [name, bytes] of segments) disk.setBytes(`${DIR}/${name}`, bytes);
  return disk;
}

const sourceOf = (disk: SimDisk, { checkpoints }: Pick<World, "checkpoints">) => ({
  disk,
  dir: DIR,
  clusterId: "cluster",
  storeId: "store",
  checkpoints,
});

/** Salvages, opens the result as a node does, and holds it against the group's life. */
async function checkSalvage(
  world: World,
  segments: ReadonlyMap<string, Uint8Array>,
  { endIsSound = true } = {},
) {
  const disk = await diskOf(segments), source = sourceOf(disk, world);
  const before = new Map([...segments].map(([name]) => [name, disk.bytesOf(`${DIR}/${name}`)]));
  const findings = await inspectLog(source);
  await rewriteLog(source, { dir: SALVAGED, storeId: "other" });
  for (const [name, bytes] of before) assert.deepEqual(disk.bytesOf(`${DIR}/${name}`), bytes);
  const { wal, recovered } = await openWal(disk, { dir: SALVAGED, storeId: "other" });
  for (const life of world.lives) checkGroup(life, { findings, recovered, endIsSound });
  const next = GROUPS.map((gid) =>
    entry(gid, findings.groups.get(groupId(gid))!.lastLsn + 1, payloadOf(gid, 99, 1, 10), 99)
  );
  await wal.append(next);
  await wal.close();
  return findings;
}

function checkGroup(life: Life, { findings, recovered, endIsSound }: {
  findings: LogFindings;
  recovered: readonly WalRecord[];
  /** A log that lost its end is told from one that never had it by others alone. */
  endIsSound: boolean;
}): void {
  const { checkpointLsn, lastLsn, lost, isProven } = findings.groups.get(groupId(life.gid))!;
  const kept: string[] = [];
  for (const record of recovered) {
    if (record.gid !== life.gid) continue;
    if (record.type === "entry") {
      assert.equal(record.lsn, checkpointLsn + kept.length + 1);
      kept.push(lineOf(record));
    } else if (record.type === "truncate") kept.length = record.lsn - checkpointLsn;
    else if (record.type === "reset") kept.length = 0;
  }
  assert.equal(checkpointLsn + kept.length, lastLsn);
  const was = life.states.some((state) =>
    kept.every((line, i) => state[checkpointLsn + i] === line)
  );
  assert.ok(was, `group ${life.gid} never had these entries: ${kept.map(short)}`);
  const final = life.states.at(-1)!.slice(checkpointLsn);
  if (isProven && lost.length === 0 && endIsSound) {
    assert.deepEqual(kept.map(short), final.map(short), "said to be whole");
  }
  const known = recovered.findLast((it) => it.type === "commit" && it.gid === life.gid);
  const committed = known?.type === "commit" ? Math.max(0, known.lsn - checkpointLsn) : 0;
  assert.deepEqual(kept.slice(0, committed).map(short), final.slice(0, committed).map(short));
}

const short = (line: string) => line.slice(0, 12);

Deno.test("of a sound log everything is kept, and nothing is said to be lost", async () => {
  for (let seed = 1; seed <= 5; seed++) {
    const world = await randomWorld(seed);
    const { damages, groups } = await checkSalvage(world, world.segments);
    assert.deepEqual(damages, []);
    for (const { lost, isProven } of groups.values()) assert.ok(isProven && lost.length === 0);
  }
});

Deno.test("of a log with a flipped bit, each group keeps its log up to some entry, and says when it is not all", async () => {
  let wholeCount = 0, lostCount = 0;
  for (let seed = 1; seed <= 4; seed++) {
    const world = await randomWorld(seed), random = seededRandom(100 + seed);
    for (let i = 0; i < 15; i++) {
      const segments = new Map(world.segments), names = [...segments.keys()];
      const name = names[Math.floor(random() * names.length)]!;
      const bytes = segments.get(name)!.slice();
      const at = Math.floor(random() * (i % 5 === 0 ? SEGMENT_HEADER_BYTES : bytes.length));
      bytes[at]! ^= 1 << Math.floor(random() * 8);
      segments.set(name, bytes);
      const { groups } = await checkSalvage(world, segments);
      for (const { isProven, lost } of groups.values()) {
        if (isProven && lost.length === 0) wholeCount += 1;
        if (lost.length > 0) lostCount += 1;
      }
    }
  }
  assert.ok(wholeCount > 40, `only ${wholeCount} groups were whole`);
  assert.ok(lostCount > 20, `only ${lostCount} groups lost anything`);
});

Deno.test("of a log with segments cut, emptied, missing or zeroed in places the same holds", async () => {
  for (let seed = 1; seed <= 8; seed++) {
    const world = await randomWorld(seed), random = seededRandom(200 + seed);
    const names = [...world.segments.keys()];
    for (let i = 0; i < 8; i++) {
      const segments = new Map(world.segments);
      let endIsSound = true;
      for (let n = 0; n <= random() * 2; n++) {
        const name = names[Math.floor(random() * names.length)]!;
        const bytes = segments.get(name)?.slice() ?? new Uint8Array(0);
        if (name === names.at(-1)) endIsSound = false;
        const from = Math.floor(random() * bytes.length), dice = random();
        if (dice < 0.2) segments.delete(name);
        else if (dice < 0.6) segments.set(name, bytes.slice(0, from));
        else segments.set(name, bytes.fill(0, from, from + 20_000));
      }
      await checkSalvage(world, segments, { endIsSound });
    }
  }
});

/** A log of single-record batches, and where each record begins. */
async function logOf(records: readonly WalRecord[]) {
  const disk = new SimDisk({ seed: 1 });
  const { wal } = await openWal(disk);
  const path = `${DIR}/${segmentName(1)}`, starts: number[] = [];
  for (const record of records) {
    starts.push(disk.bytesOf(path).length);
    await wal.append([record]);
  }
  await wal.close();
  const damage = (index: number) => {
    const bytes = disk.bytesOf(path);
    bytes[starts[index]! + 30]! ^= 1;
    disk.setBytes(path, bytes);
  };
  return { disk, damage };
}

const e = (gid: number, at: number, ofEpoch = 1) =>
  entry(gid, at, payloadOf(gid, ofEpoch, at, 0), ofEpoch);

Deno.test("entries behind a missing one are lost, but listed; other groups keep all of theirs", async () => {
  const { disk, damage } = await logOf([e(1, 1), e(2, 1), e(1, 2), e(2, 2), e(1, 3), commit(1, 3)]);
  damage(2);
  const { groups, damages } = await inspectLog(sourceOf(disk, { checkpoints: new Map() }));
  assert.equal(damages.length, 1);
  assert.match(damages[0]!.what, /fails its checksum/);
  const one = groups.get(groupId(1))!, two = groups.get(groupId(2))!;
  assert.deepEqual([one.lastLsn, one.lost.map((it) => it.lsn), one.committedLsn], [1, [3], 3]);
  assert.deepEqual([two.lastLsn, two.lost, two.isProven], [2, [], true]);
});

Deno.test("a gap that a checkpoint reaches over loses nothing, also if entries were cut off in it", async () => {
  const records = [
    e(1, 1),
    e(1, 2),
    e(1, 3),
    truncate(1, 2, 2),
    e(1, 3, 2),
    e(1, 4, 2),
    e(1, 5, 2),
  ];
  for (const missing of [1, 2, 3, 4]) {
    const { disk, damage } = await logOf(records);
    damage(missing);
    const source = sourceOf(disk, { checkpoints: new Map([[groupId(1), lsn(4)]]) });
    const group = (await inspectLog(source)).groups.get(groupId(1))!;
    assert.deepEqual([group.lastLsn, group.lost, group.isProven], [5, [], true], `${missing}`);
    await rewriteLog(source, { dir: SALVAGED, storeId: "other" });
    const recovered = new RecoveredGroup(groupId(1), { lsn: lsn(4), history: [] });
    await openWal(disk, { dir: SALVAGED, storeId: "other" }).then(({ wal, recovered: found }) => {
      for (const record of found) recovered.add(record);
      return wal.close();
    });
    assert.equal(recovered.log().lastLsn, 5);
  }
});

Deno.test("a lost note costs nothing between entries of one reign, and all that follows between reigns", async () => {
  for (const [ofEpoch, lastLsn] of [[1, 3], [2, 2]] as const) {
    const { disk, damage } = await logOf([e(1, 1), e(1, 2), commit(1, 1), e(1, 3, ofEpoch)]);
    damage(2);
    const { groups } = await inspectLog(sourceOf(disk, { checkpoints: new Map() }));
    assert.equal(groups.get(groupId(1))!.lastLsn, lastLsn);
  }
});

Deno.test("the rest of a large entry whose beginning is lost is not taken for an entry", async () => {
  const large = entry(1, 3, encodeText("x".repeat(250_000)));
  for (const piece of [0, 1, 2]) {
    const { disk, damage: _ } = await logOf([e(1, 1), e(1, 2), large, e(1, 4)]);
    const path = `${DIR}/${segmentName(1)}`, bytes = disk.bytesOf(path);
    const start = bytes.indexOf("x".charCodeAt(0));
    bytes[start + 100 + piece * (65_536 + 48)]! ^= 1;
    disk.setBytes(path, bytes);
    const { groups } = await inspectLog(
      sourceOf(disk, { checkpoints: new Map([[groupId(1), lsn(2)]]) }),
    );
    const group = groups.get(groupId(1))!;
    assert.deepEqual([group.lastLsn, group.isProven], [2, false]);
    assert.ok(group.lost.every(({ payload, lsn: at }) => at !== 3 || payload.length === 0));
  }
});

Deno.test("a torn end is no damage, and a reset to a newer checkpoint than the one that is there is", async () => {
  const { disk } = await logOf([e(1, 1), e(1, 2)]);
  const path = `${DIR}/${segmentName(1)}`;
  disk.setBytes(path, disk.bytesOf(path).slice(0, -20));
  assert.deepEqual((await inspectLog(sourceOf(disk, { checkpoints: new Map() }))).damages, []);

  const replaced = await logOf([e(1, 1), reset(1, 8), e(1, 9)]);
  const source = sourceOf(replaced.disk, { checkpoints: new Map([[groupId(1), lsn(3)]]) });
  const group = (await inspectLog(source)).groups.get(groupId(1))!;
  assert.deepEqual([group.lastLsn, group.lost.map((it) => it.lsn), group.isProven], [
    3,
    [9],
    false,
  ]);
});

Deno.test("without an identity the segments say whose log it is", async () => {
  const { disk } = await logOf([e(1, 1), e(1, 2)]);
  const source = { ...sourceOf(disk, { checkpoints: new Map() }), storeId: null };
  assert.equal((await inspectLog(source)).groups.get(groupId(1))!.lastLsn, 2);
  assert.deepEqual(await logOwner(disk, DIR), new Uint8Array(idDigest("store")));
  assert.equal(await logOwner(disk, "nowhere"), null);
});
