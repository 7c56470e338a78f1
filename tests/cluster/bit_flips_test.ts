/**
 * One bit flipped anywhere in one replica's files, 1,200 times. Goal: no wrong answer, ever, and every
 * flip found at the start, by a reader or by scrubbing, unless it changes nothing that anybody reads.
 *
 * Real files and the code that a backend starts with: identity, log, checkpoint, files of large values.
 * Each round copies a folder that was closed in good order, flips one bit of it, opens it, reads all
 * cells and values, and then verifies it as the scrubber does.
 */
import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import type { CheckpointedStore } from "../../kv/cell_store.ts";
import { isBlobRef } from "../../kv/cell_store.ts";
import { type Command, encodeCommand } from "../../kv/command.ts";
import { BlobStore } from "../../kv/disk/blob_store.ts";
import { RealDisk } from "../../kv/disk/disk.ts";
import { type DataFolder, openDataFolder } from "../../kv/disk/identity.ts";
import { seededRandom } from "../../kv/disk/sim_disk.ts";
import { CacheBudget, CheckpointWriter, SqliteCellStore } from "../../kv/disk/sqlite_cell_store.ts";
import { CorruptionError } from "../../kv/errors.ts";
import { GroupState } from "../../kv/group_state.ts";
import { encodeText } from "../../kv/kv.ts";
import { toLogRowOp } from "../../kv/log_value.ts";
import {
  epoch,
  type GroupId,
  groupId,
  incarnation,
  type Lsn,
  lsn,
  nodeId,
} from "../../proto/ids.ts";
import { ClusterConfig } from "../../proto/cluster_config.ts";
import { savedMeta } from "../../roles/checkpoint_meta.ts";
import { readStore } from "../../roles/backend_start.ts";
import type { RoleContext } from "../../roles/role_context.ts";
import { realEnv } from "../../roles/env.ts";
import { openLog } from "../../roles/log.ts";
import { copyFolder, filesBelow } from "./damage.ts";

const FLIPS = 1_200;
const GID = groupId(1);
const CLUSTER = "flips";
const CHECKPOINT_AT = 60, LAST = 90;
const LARGE = new Uint8Array(150_000).map((_, i) => i * 7);
const STATE = { rowBytesMax: 1 << 26 };

const config = ClusterConfig.parse({
  node: [
    { role: "coordinator", id: 0, port: 9999 },
    { role: "backend", id: 0, port: 10000 },
  ],
  store: { replicas: 1, min_in_sync: 1 },
});

function contextIn(dataDir: string): RoleContext {
  return {
    config,
    node: config.node[1]!,
    dataDir,
    clusterDir: dataDir,
    secret: new Uint8Array(32),
    clusterId: CLUSTER,
    spawnId: "test",
    env: realEnv({ node: "test", log: openLog({ node: "test", threshold: "off" }) }),
  };
}

function commandAt(at: number): Command {
  if (at === 1) return { kind: "epochStart", reign: epoch(1), timeMs: 0 };
  const stamp = { clientId: "flips-client", seq: at, firstIncomplete: at, issuedMs: 0 };
  const op = toLogRowOp({
    row: `row ${at % 17}`,
    mutations: [{
      kind: "put",
      column: `c${at % 5}`,
      value: encodeText(`value ${at} `.repeat(at)),
    }],
  });
  if (at % 20 !== 0) return { kind: "rowOp", stamp, timeMs: at, op };
  const value = { size: LARGE.length, crc: crc32(LARGE), value: { blob: `blob-${at}` } };
  const large = { ...op, mutations: [{ kind: "put" as const, column: "large", value }] };
  return { kind: "rowOp", stamp, timeMs: at, op: large };
}

interface Opened {
  readonly folder: DataFolder;
  readonly store: CheckpointedStore;
  readonly state: GroupState;
  readonly blobs: BlobStore;
  readonly verify: () => Promise<CorruptionError | null>;
  readonly close: () => Promise<void>;
}

/** @throws {CorruptionError} found at the start */
async function open(dir: string, writer: CheckpointWriter): Promise<Opened> {
  const folder = await openDataFolder({ dir, clusterId: CLUSTER });
  const disk = new RealDisk(), budget = new CacheBudget(1 << 20);
  const { storeId, bootCount } = folder.identity;
  const parts = {
    disk,
    folder,
    openStore: (gid: GroupId) => SqliteCellStore.open({ dir, gid, budget, writer }),
  };
  const self = { node: nodeId(0), store: storeId, inc: incarnation(bootCount) };
  try {
    const { wal, groups } = await readStore(contextIn(dir), self, parts as never);
    const [found] = groups;
    const { store, recovered } = found!;
    try {
      if (store instanceof Error) throw store;
      const saved = store.checkpointLsn === 0 ? {} : { saved: savedMeta(GID, store).state };
      const log = recovered.log();
      const state = new GroupState(store, { ...STATE, ...saved });
      for (let at = state.appliedLsn + 1; at <= log.lastLsn; at++) {
        state.apply(log.at(lsn(at))!.command, lsn(at));
      }
      return {
        folder,
        store,
        state,
        blobs: await BlobStore.open({ disk, dir }),
        verify: () => wal.verify(() => Promise.resolve()),
        close: async () => {
          store.close();
          await wal.close();
          await folder.close();
        },
      };
    } catch (error) {
      if (!(store instanceof Error)) store.close();
      await wal.close();
      throw error;
    }
  } catch (error) {
    await folder.close();
    throw error;
  }
}

/** A replica with a checkpoint, log before and behind it, and large values; closed in good order. */
async function makeReplica(dir: string, writer: CheckpointWriter): Promise<void> {
  const folder = await openDataFolder({ dir, clusterId: CLUSTER });
  const { storeId, bootCount } = folder.identity;
  const disk = new RealDisk(), budget = new CacheBudget(1 << 20);
  const openStore = (gid: GroupId) => SqliteCellStore.open({ dir, gid, budget, writer });
  const self = { node: nodeId(0), store: storeId, inc: incarnation(bootCount) };
  const parts = { disk, folder, openStore };
  const { wal, groups } = await readStore(contextIn(dir), self, parts as never);
  const blobs = await BlobStore.open({ disk, dir });
  const store = groups[0]!.store as CheckpointedStore;
  const state = new GroupState(store, STATE);
  for (let at = 1; at <= LAST; at++) {
    const command = commandAt(at);
    if (at % 20 === 0) await blobs.put(`blob-${at}`, LARGE);
    await wal.append([{
      type: "entry",
      gid: GID,
      epoch: epoch(1),
      lsn: lsn(at),
      payload: encodeCommand(command),
    }]);
    state.apply(command, lsn(at));
    if (at !== CHECKPOINT_AT) continue;
    const history = [{ epoch: epoch(1), firstLsn: lsn(1) }];
    const log = { store: storeId, batch: wal.lastBatch };
    await store.checkpoint({
      lsn: at as Lsn,
      meta: { gid: GID, state: state.save(), history, log },
    });
  }
  store.close();
  await wal.close();
  await folder.close();
}

/** Everything that a reader could ask for. */
async function readAll({ state, store, blobs }: Opened): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const cell of store.range({})) {
    const bytes = isBlobRef(cell.value) ? await blobs.get(cell.value.blob) : cell.value;
    found.set(`${cell.row}/${cell.column}`, `${cell.version} ${bytes.length} ${crc32(bytes)}`);
  }
  found.set("hash", `${state.appliedLsn} ${state.hash}`);
  return found;
}

async function scrub(opened: Opened): Promise<CorruptionError | null> {
  try {
    await opened.store.checkFile?.();
    for (const { row, damaged } of opened.store.verify?.() ?? []) {
      if (damaged) return new CorruptionError("a cell fails its checksum", row, 0);
    }
  } catch (error) {
    if (error instanceof CorruptionError) return error;
    throw error;
  }
  return await opened.verify();
}

Deno.test(`of ${FLIPS} single bit flips in a replica's files none gives a wrong answer`, async () => {
  const dir = await Deno.makeTempDir();
  const writer = new CheckpointWriter();
  const figures = { start: 0, read: 0, scrub: 0, harmless: 0 };
  const harmlessIn = new Map<string, number>();
  try {
    const sound = `${dir}/sound`;
    await makeReplica(sound, writer);
    await copyFolder(sound, `${dir}/first`);
    const first = await open(`${dir}/first`, writer);
    const expected = await readAll(first);
    assert.equal(await scrub(first), null);
    await first.close();
    assert(expected.size > 50);
    const files = (await filesBelow(sound)).map((path) => path.slice(sound.length))
      .filter((name) => name !== "/LOCK"); // it has no byte
    const random = seededRandom(16);
    for (let i = 0; i < FLIPS; i++) {
      const copy = `${dir}/copy`;
      await copyFolder(sound, copy);
      // Every kind of file in turn, whatever its size.
      const name = files[i % files.length]!;
      const bytes = await Deno.readFile(copy + name);
      const at = Math.floor(random() * bytes.length), bit = Math.floor(random() * 8);
      bytes[at]! ^= 1 << bit;
      await Deno.writeFile(copy + name, bytes);
      const what = `flip ${i}: bit ${bit} of byte ${at} in ${name}`;
      let opened: Opened | null = null;
      try {
        opened = await open(copy, writer);
        const found = await readAll(opened).catch((error) => {
          if (!(error instanceof CorruptionError)) throw error;
          return null;
        });
        if (found === null) figures.read++;
        else {
          // What the log had at its very end may only be missed, and then peers notice (B7).
          assert.deepEqual(found, expected, `GUARANTEE BROKEN: a wrong answer after ${what}`);
          if (await scrub(opened) !== null) figures.scrub++;
          else {
            figures.harmless++;
            harmlessIn.set(name, (harmlessIn.get(name) ?? 0) + 1);
          }
        }
      } catch (error) {
        if (!(error instanceof CorruptionError)) throw new Error(what, { cause: error });
        figures.start++;
      } finally {
        await opened?.close();
        await Deno.remove(copy, { recursive: true });
      }
    }
    console.log(`${FLIPS} flips`, figures, "harmless in", Object.fromEntries(harmlessIn));
    // Nobody reads the unused part of a page, or the seal at the end of the log.
    for (const name of harmlessIn.keys()) assert.match(name, /\.db$|\.log$/);
    assert.equal(figures.start + figures.read + figures.scrub + figures.harmless, FLIPS);
    assert(figures.start > 100 && figures.read > 100, "the flips hit something");
  } finally {
    await writer.close();
    await Deno.remove(dir, { recursive: true });
  }
});
