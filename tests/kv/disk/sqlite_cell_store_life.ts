/**
 * A program that checkpoints one store again and again until it is killed, and the deterministic work
 * that it does, so that a test can say what the state must be as of any log position.
 */
import { crc32 } from "node:zlib";
import { groupId, lsn, version } from "../../../proto/ids.ts";
import type { CellStore } from "../../../kv/cell_store.ts";
import { seededRandom } from "../../../kv/disk/sim_disk.ts";
import {
  CacheBudget,
  CheckpointWriter,
  SqliteCellStore,
} from "../../../kv/disk/sqlite_cell_store.ts";

const ENTRIES_PER_CHECKPOINT = 400;

/** Applies what log entry `at` says. */
export function lifeOf(store: CellStore, at: number): void {
  const random = seededRandom(at);
  const row = `row${Math.floor(random() * 20)}`, column = `column${Math.floor(random() * 50)}`;
  if (random() < 0.2) {
    store.delete(row, column);
    return;
  }
  const value = new Uint8Array(Math.floor(random() * 400)).fill(at);
  const crc = crc32(value);
  store.put({ row, column, version: version(at), size: value.length, crc, value });
}

if (import.meta.main) {
  const writer = new CheckpointWriter();
  const store = SqliteCellStore.open({
    dir: Deno.args[0]!,
    gid: groupId(1),
    budget: new CacheBudget(100_000),
    writer,
  });
  let at: number = store.checkpointLsn;
  while (true) {
    for (let i = 0; i < ENTRIES_PER_CHECKPOINT; i++) lifeOf(store, ++at);
    const checkpoint = store.checkpoint({ lsn: lsn(at), meta: { lsn: at } });
    console.log(`begun ${at}`);
    await checkpoint;
    console.log(`finished ${at}`);
  }
}
