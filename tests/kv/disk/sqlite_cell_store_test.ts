/**
 * The cell store over SQLite against the store in memory: the same answers under random work, with
 * checkpoints under way and hardly any cache; after a stop at any moment, the state of the last
 * checkpoint; and never an answer from damaged bytes.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { crc32 } from "node:zlib";
import { groupId, lsn, version } from "../../../proto/ids.ts";
import type { CellRange, CellStore, StoredCell } from "../../../kv/cell_store.ts";
import { explainSqlite } from "../../../kv/disk/checkpoint_file.ts";
import { diskFull, isDiskFull } from "../../../kv/disk/disk.ts";
import { seededRandom } from "../../../kv/disk/sim_disk.ts";
import {
  CacheBudget,
  CheckpointWriter,
  SqliteCellStore,
} from "../../../kv/disk/sqlite_cell_store.ts";
import { CorruptionError } from "../../../kv/errors.ts";
import { compareKeys } from "../../../kv/key_order.ts";
import { MemoryCellStore } from "../../../kv/memory_cell_store.ts";
import { readScanPage } from "../../../kv/pages.ts";
import { eventually } from "../../eventually.ts";
import { randomBytes } from "./wal_testing.ts";
import { lifeOf } from "./sqlite_cell_store_life.ts";

const gid = groupId(7);

async function withStore(
  run: (tools: {
    dir: string;
    writer: CheckpointWriter;
    open: (budgetBytes?: number) => SqliteCellStore;
  }) => Promise<void>,
): Promise<void> {
  const dir = await Deno.makeTempDir();
  const writer = new CheckpointWriter();
  try {
    const open = (budgetBytes = 100_000) =>
      SqliteCellStore.open({ dir, gid, budget: new CacheBudget(budgetBytes), writer });
    await run({ dir, writer, open });
  } finally {
    await writer.close();
    await Deno.remove(dir, { recursive: true });
  }
}

function cellOf(row: string, column: string, at: number, value: Uint8Array): StoredCell {
  return { row, column, version: version(at), size: value.length, crc: crc32(value), value };
}

const everything = (store: CellStore, range: CellRange = {}) => [...store.range(range)];

function throwsCorruption(run: () => void): boolean {
  try {
    run();
    return false;
  } catch (error) {
    if (error instanceof CorruptionError) return true;
    throw error;
  }
}

const ROWS = ["", "a", "ab", "b", "row", "é", "\uffff", "\u{1f600}"];

function randomPlace(random: () => number) {
  const pick = (list: readonly string[]) => list[Math.floor(random() * list.length)]!;
  return { row: pick(ROWS), column: `${pick(ROWS)}${Math.floor(random() * 30)}` };
}

function randomCell(random: () => number, at: number): StoredCell {
  const { row, column } = randomPlace(random);
  if (random() < 0.1) {
    const value = { blob: `blob-${at}` };
    return { row, column, version: version(at), size: 100_000, crc: at, value };
  }
  return cellOf(row, column, at, randomBytes(random, Math.floor(random() * 300)));
}

Deno.test("SqliteCellStore answers like the store in memory, over checkpoints and reopening", () =>
  withStore(async ({ open }) => {
    for (const budgetBytes of [0, 3_000, 1_000_000]) {
      const random = seededRandom(budgetBytes);
      const model = new MemoryCellStore();
      let store = open(budgetBytes);
      for (const { row, column } of everything(store)) store.delete(row, column);
      let checkpoint: Promise<void> | null = null, pageCount = 0;
      const firstLsn = store.checkpointLsn;
      for (let at = firstLsn + 1; at <= firstLsn + 3000; at++) {
        const kind = random();
        if (kind < 0.5) {
          const cell = randomCell(random, at);
          store.put(cell);
          model.put(cell);
        } else if (kind < 0.65) {
          const { row, column } = randomPlace(random);
          store.delete(row, column);
          model.delete(row, column);
        } else if (kind < 0.9) {
          const { row, column } = randomPlace(random);
          assert.deepEqual(store.get(row, column), model.get(row, column));
        } else if (kind < 0.97) {
          const reverse = random() < 0.5, inclusive = random() < 0.5;
          const from = random() < 0.2 ? undefined : randomPlace(random);
          const range: CellRange = {
            reverse,
            ...(from === undefined ? {} : { from, inclusive }),
            ...(random() < 0.5 ? {} : { within: randomPlace(random).row }),
            ...(random() < 0.5 ? {} : { until: randomPlace(random).row }),
            ...(random() < 0.5 ? {} : { expected: Math.floor(random() * 60) }),
          };
          const limit = random() < 0.5 ? Infinity : Math.floor(random() * 40);
          const { until } = range;
          const wanted = ({ row }: StoredCell) =>
            until === undefined || range.reverse || compareKeys(row, until) < 0;
          assert.deepEqual(
            Iterator.from(store.range(range)).filter(wanted).take(limit).toArray(),
            Iterator.from(model.range(range)).filter(wanted).take(limit).toArray(),
          );
          const scan = {
            prefix: randomPlace(random).row,
            startRow: randomPlace(random).row,
            endRow: random() < 0.5 ? null : randomPlace(random).row,
            limit: 1 + Math.floor(random() * 30),
          };
          const bounds = { startKey: "", endKey: random() < 0.5 ? null : randomPlace(random).row };
          const page = readScanPage(store, scan, bounds);
          assert.deepEqual(page, readScanPage(model, scan, bounds));
          pageCount += Number(page.cells.length > 0);
        } else if (checkpoint === null) {
          checkpoint = store.checkpoint({ lsn: lsn(at), meta: { at } })
            .then(() => void (checkpoint = null));
        } else if (random() < 0.5) {
          await checkpoint;
        }
      }
      await checkpoint;
      assert.ok(pageCount > 20, `${pageCount} pages had cells`);
      await store.checkpoint({ lsn: lsn(firstLsn + 5000), meta: { done: true } });
      assert.equal(store.dirtyBytes, 0);
      assert.deepEqual(everything(store), everything(model));
      assert.ok([...store.verify()].every(({ damaged }) => !damaged));
      store.close();
      store = open(budgetBytes);
      assert.equal(store.checkpointLsn, firstLsn + 5000);
      assert.deepEqual(store.meta, { done: true });
      assert.deepEqual(everything(store), everything(model));
      store.close();
    }
  }));

Deno.test("SqliteCellStore.checkpoint() leaves cells dirty that change while it is under way", () =>
  withStore(async ({ open }) => {
    const store = open();
    store.put(cellOf("r", "stays", 1, new Uint8Array([1])));
    store.put(cellOf("r", "changes", 1, new Uint8Array([1])));
    store.put(cellOf("r", "goes", 1, new Uint8Array([1])));
    const checkpoint = store.checkpoint({ lsn: lsn(1), meta: {} });
    store.put(cellOf("r", "changes", 2, new Uint8Array([2])));
    store.delete("r", "goes");
    store.put(cellOf("r", "new", 2, new Uint8Array([2])));
    await assert.rejects(store.checkpoint({ lsn: lsn(2), meta: {} }), /one is under way/);
    assert.equal(store.get("r", "goes"), undefined);
    await checkpoint;
    assert.equal(store.get("r", "changes")!.version, 2);
    assert.equal(store.get("r", "goes"), undefined);
    assert.ok(store.dirtyBytes > 0);
    store.close();

    const again = open();
    assert.equal(again.checkpointLsn, 1);
    assert.deepEqual(everything(again).map((cell) => [cell.column, cell.version]), [
      ["changes", 1],
      ["goes", 1],
      ["stays", 1],
    ]);
    again.close();
  }));

Deno.test("SqliteCellStore keeps everything dirty when a checkpoint fails, and writes it the next time", () =>
  withStore(async ({ dir, writer, open }) => {
    let fails = true;
    const failing = new class extends CheckpointWriter {
      override write(...args: Parameters<CheckpointWriter["write"]>): Promise<void> {
        return fails ? Promise.reject(diskFull("a checkpoint")) : writer.write(...args);
      }
    }();
    const options = { dir, gid, budget: new CacheBudget(0), writer: failing };
    const store = SqliteCellStore.open(options);
    store.put(cellOf("a", "1", 1, new Uint8Array([1])));
    store.put(cellOf("a", "2", 1, new Uint8Array([1])));
    const { dirtyBytes } = store;
    const checkpoint = store.checkpoint({ lsn: lsn(1), meta: {} });
    store.put(cellOf("a", "2", 2, new Uint8Array([2])));
    await assert.rejects(checkpoint, isDiskFull);
    assert.equal(store.checkpointLsn, 0);
    assert.equal(store.dirtyBytes, dirtyBytes);
    assert.deepEqual(everything(store).map((cell) => cell.version), [1, 2]);
    fails = false;
    await store.checkpoint({ lsn: lsn(2), meta: {} });
    store.close();
    const again = open();
    assert.deepEqual(everything(again).map((cell) => cell.version), [1, 2]);
    again.close();
  }));

Deno.test("SqliteCellStore reports a checkpoint to a file it cannot write, and goes on", () =>
  withStore(async ({ writer, open }) => {
    const store = open();
    store.put(cellOf("a", "1", 1, new Uint8Array([1])));
    const nowhere = { lsn: 1, meta: "{}", cells: [], bytes: new Uint8Array() };
    await assert.rejects(writer.write("/nowhere/at/all.db", nowhere), /unable to open/);
    await store.checkpoint({ lsn: lsn(1), meta: {} });
    assert.equal(store.checkpointLsn, 1);
    store.close();
  }));

Deno.test("CacheBudget keeps to its bytes, whatever is asked for", () =>
  withStore(async ({ dir, writer }) => {
    const budget = new CacheBudget(20_000);
    const store = SqliteCellStore.open({ dir, gid, budget, writer });
    const other = SqliteCellStore.open({ dir, gid: groupId(8), budget, writer });
    const name = (i: number) => `c${String(i).padStart(3, "0")}`;
    for (let i = 0; i < 200; i++) {
      store.put(cellOf("r", name(i), 1, new Uint8Array(500).fill(i)));
      other.put(cellOf("r", name(i), 1, new Uint8Array(500).fill(i + 1)));
    }
    await store.checkpoint({ lsn: lsn(1), meta: {} });
    await other.checkpoint({ lsn: lsn(1), meta: {} });
    const random = seededRandom(1);
    for (let i = 0; i < 3000; i++) {
      const at = Math.floor(random() * 200);
      const [chosen, fill] = random() < 0.5 ? [store, at] : [other, at + 1];
      assert.deepEqual(chosen.get("r", name(at))!.value, new Uint8Array(500).fill(fill));
      assert.ok(budget.bytes <= 20_000);
    }
    store.close();
    other.close();
    assert.equal(budget.bytes, 0);
  }));

Deno.test("SqliteCellStore is as of a checkpoint after its process was killed at any moment", async () => {
  const dir = await Deno.makeTempDir();
  const random = seededRandom(11);
  const life = new URL("./sqlite_cell_store_life.ts", import.meta.url).pathname;
  const writer = new CheckpointWriter();
  let killedInTheMiddle = 0;
  try {
    let expectedLsn = 0;
    for (let round = 0; round < 8; round++) {
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--no-check", life, dir],
        cwd: new URL("../../../", import.meta.url).pathname,
        stdout: "piped",
        stderr: "inherit",
      }).spawn();
      const killAfter = 1 + Math.floor(random() * 6);
      let finishedCount = 0;
      const lines = child.stdout.pipeThrough(new TextDecoderStream());
      for await (const text of lines) {
        for (const line of text.trim().split("\n")) {
          const [what, at] = line.split(" ");
          if (what === "finished") {
            expectedLsn = Number(at);
            finishedCount++;
          }
          if (what === "begun" && finishedCount >= killAfter) {
            // Let it get somewhere into the transaction.
            for (let spin = random() * 2e6; spin > 0; spin--);
            try {
              child.kill("SIGKILL");
            } catch { /* It had been killed for the line before. */ }
          }
        }
      }
      assert.equal((await child.status).signal, "SIGKILL");
      const budget = new CacheBudget(10_000);
      const store = SqliteCellStore.open({ dir, gid: groupId(1), budget, writer });
      const { checkpointLsn } = store;
      assert.ok(checkpointLsn >= expectedLsn, `${checkpointLsn} is older than ${expectedLsn}`);
      if (checkpointLsn === expectedLsn) killedInTheMiddle++;
      assert.deepEqual(store.meta, checkpointLsn === 0 ? {} : { lsn: checkpointLsn });
      const model = new MemoryCellStore();
      for (let at = 1; at <= checkpointLsn; at++) lifeOf(model, at);
      assert.deepEqual(everything(store), everything(model));
      store.close();
    }
    assert.ok(killedInTheMiddle > 0);
  } finally {
    await writer.close();
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("SqliteCellStore never answers from damaged bytes: opening, reading or verifying finds them", () =>
  withStore(async ({ dir, open }) => {
    const store = open();
    const random = seededRandom(3);
    const model = new MemoryCellStore();
    for (let i = 0; i < 120; i++) {
      const cell = randomCell(random, i + 1);
      store.put(cell);
      model.put(cell);
    }
    const expected = everything(model);
    const meta = { note: "x".repeat(3000) };
    await store.checkpoint({ lsn: lsn(120), meta });
    store.close();
    const path = `${dir}/groups/7.db`;
    const sound = await Deno.readFile(path);
    const outcomes = { atOpen: 0, atRead: 0, atVerify: 0, harmless: 0 };
    for (let trial = 0; trial < 700; trial++) {
      const damaged = sound.slice();
      damaged[Math.floor(random() * damaged.length)]! ^= 1 << Math.floor(random() * 8);
      for (const suffix of ["-wal", "-shm"]) {
        await Deno.remove(path + suffix).catch(() => {});
      }
      await Deno.writeFile(path, damaged);
      let opened: SqliteCellStore;
      try {
        opened = open(0);
      } catch {
        outcomes.atOpen++;
        continue;
      }
      try {
        assert.deepEqual([opened.checkpointLsn, opened.meta], [120, meta]);
        let got: (StoredCell | undefined)[] = [];
        const readsDamage = throwsCorruption(() => {
          got = expected.map(({ row, column }) => opened.get(row, column));
          got.push(...everything(opened));
        });
        const verifies = throwsCorruption(() => {
          for (const { row, damaged } of opened.verify()) {
            if (damaged) throw new CorruptionError("not sound", row, 0);
          }
        });
        if (readsDamage) outcomes.atRead++;
        else if (verifies) outcomes.atVerify++;
        else {
          assert.deepEqual(got, [...expected, ...expected]);
          outcomes.harmless++;
        }
        // Until it is verified, damage may hide a cell; but what is read is right.
        for (const [i, cell] of got.slice(0, expected.length).entries()) {
          if (cell !== undefined) assert.deepEqual(cell, expected[i]);
        }
      } finally {
        opened.close();
      }
    }
    console.log("flipped bits", outcomes);
    assert.ok(outcomes.atOpen > 0 && outcomes.atRead > 0);
  }));

Deno.test("SqliteCellStore.checkFile() finds damage that came after opening", () =>
  withStore(async ({ dir, open }) => {
    const store = open(0);
    for (let i = 1; i <= 200; i++) {
      store.put(cellOf("row", `c${i}`, i, randomBytes(seededRandom(i), 200)));
    }
    await store.checkpoint({ lsn: lsn(200), meta: {} });
    await store.checkFile();
    store.close();
    const opened = open(0);
    await opened.checkFile();
    const file = await Deno.open(`${dir}/groups/7.db`, { write: true });
    // The second page's count of cells, and its first few pointers to them.
    await file.seek(4096 + 3, Deno.SeekMode.Start);
    await file.write(new Uint8Array(9));
    file.close();
    await assert.rejects(opened.checkFile(), CorruptionError);
    opened.close();
  }));

Deno.test("SqliteCellStore.exportSnapshot() makes a consistent copy while work goes on, and install() takes it", () =>
  withStore(async ({ dir, writer, open }) => {
    const source = open();
    const random = seededRandom(5);
    const atCopy = new MemoryCellStore();
    for (let at = 1; at <= 500; at++) {
      const cell = randomCell(random, at);
      source.put(cell);
      atCopy.put(cell);
    }
    await source.checkpoint({ lsn: lsn(500), meta: { at: 500 } });
    const exporting = source.exportSnapshot();
    for (let at = 501; at <= 600; at++) source.put(randomCell(random, at));
    const later = source.checkpoint({ lsn: lsn(600), meta: { at: 600 } });
    const copy = await exporting;
    await later;
    assert.equal(copy.lsn, 500);
    assert.equal((await Deno.stat(copy.path)).size, copy.bytes);
    const incoming = `${dir}/incoming.db`;
    await Deno.copyFile(copy.path, incoming);
    const blobs = everything(atCopy).flatMap(({ value }) => "blob" in value ? [value.blob] : []);
    assert.deepEqual([...SqliteCellStore.blobsIn(incoming)].sort(), blobs.sort());
    const mentioned = new Set(source.blobsReferenced());
    for (const { value } of source.range({})) {
      if ("blob" in value) assert.ok(mentioned.has(value.blob));
    }
    await copy.remove();
    source.close();

    const target = groupId(9);
    const openTarget = () =>
      SqliteCellStore.open({ dir, gid: target, budget: new CacheBudget(1000), writer });
    const before = openTarget();
    before.put(cellOf("old", "state", 1, new Uint8Array([1])));
    await before.checkpoint({ lsn: lsn(1), meta: {} });
    before.close();
    await SqliteCellStore.install({ dir, gid: target, fromPath: incoming });
    const after = openTarget();
    assert.equal(after.checkpointLsn, 500);
    assert.deepEqual(after.meta, { at: 500 });
    assert.deepEqual(everything(after), everything(atCopy));
    after.put(cellOf("new", "state", 501, new Uint8Array([1])));
    await after.checkpoint({ lsn: lsn(501), meta: {} });
    after.close();
    const names = Array.from(Deno.readDirSync(`${dir}/groups`), ({ name }) => name).sort();
    assert.deepEqual(names, ["7.db", "9.db"]);
  }));

Deno.test("SqliteCellStore.install() refuses a damaged copy and leaves the group as it is", () =>
  withStore(async ({ dir, open }) => {
    const store = open();
    store.put(cellOf("r", "c", 1, new Uint8Array([1])));
    await store.checkpoint({ lsn: lsn(1), meta: {} });
    const copy = await store.exportSnapshot();
    const bytes = await Deno.readFile(copy.path);
    await copy.remove();
    store.close();
    const incoming = `${dir}/incoming.db`;
    await Deno.writeFile(incoming, bytes.fill(0, 4000, 4200));
    await assert.rejects(
      SqliteCellStore.install({ dir, gid, fromPath: incoming }),
      CorruptionError,
    );
    const again = open();
    assert.equal(again.get("r", "c")!.version, 1);
    again.close();
  }));

Deno.test("SqliteCellStore.open() removes copies that a crash left behind", () =>
  withStore(async ({ dir, open }) => {
    open().close();
    const leftover = `${dir}/groups/7.db.copy-1234`;
    await Deno.writeTextFile(leftover, "half a copy");
    await Deno.writeTextFile(`${dir}/groups/77.db.copy-1`, "another group's");
    open().close();
    await assert.rejects(Deno.stat(leftover), Deno.errors.NotFound);
    await Deno.stat(`${dir}/groups/77.db.copy-1`);
  }));

Deno.test("a checkpoint of many cells is handed over in pieces, and holds each as it was at its beginning", () =>
  withStore(async ({ open }) => {
    const store = open(), count = 3_000;
    const put = (at: number, version: number) =>
      store.put(cellOf(`row-${at}`, "c", version, new Uint8Array([version])));
    for (let at = 0; at < count; at++) put(at, 1);
    let turns = 0, done = false;
    const checkpoint = store.checkpoint({ lsn: lsn(1), meta: {} }).then(() => done = true);
    while (!done) {
      // Whoever waits has a turn meanwhile, reads what is true, and writes.
      put(turns, 2);
      assert.equal(store.get(`row-${turns}`, "c")!.version, 2);
      assert.equal(store.get(`row-${count - 1}`, "c")!.version, 1);
      turns += 1;
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await checkpoint;
    assert(turns > 5, `others had ${turns} turns`);
    store.close();
    const again = open();
    assert.deepEqual(new Set(everything(again).map((cell) => cell.version)), new Set([1]));
    assert.equal(everything(again).length, count);
    again.close();
  }));

Deno.test("CheckpointWriter ends its worker when idle, and starts another when needed", async () => {
  const dir = await Deno.makeTempDir();
  const writer = new CheckpointWriter({ idleMs: 30 });
  try {
    const store = SqliteCellStore.open({ dir, gid, budget: new CacheBudget(0), writer });
    for (let at = 1; at <= 2; at++) {
      assert.equal(writer.isRunning, false);
      store.put(cellOf("r", "c", at, new Uint8Array([at])));
      await store.checkpoint({ lsn: lsn(at), meta: {} });
      assert.equal(writer.isRunning, true);
      await eventually(() => !writer.isRunning, "the worker to end");
    }
    store.close();
  } finally {
    await writer.close();
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("what SQLite says about a full disk is told from damage", () => {
  const db = new DatabaseSync(":memory:");
  try {
    db.exec("CREATE TABLE cells (val BLOB); PRAGMA max_page_count = 4");
    const fill = () => db.exec("INSERT INTO cells VALUES (zeroblob(1000000))");
    assert.throws(fill, (error) => isDiskFull(explainSqlite(error, "groups/7.db")));
  } finally {
    db.close();
  }
});

Deno.test("a checkpoint of cells that are overwritten writes the pages that they are in, and hardly more", () =>
  withStore(async ({ dir, open }) => {
    const store = open(), random = seededRandom(5), writeAhead = `${dir}/groups/${gid}.db-wal`;
    const put = (row: number, at: number) =>
      store.put(cellOf(`row ${String(row).padStart(5, "0")}`, "c", at, randomBytes(random, 600)));
    for (let row = 0; row < 1_200; row++) put(row, 1);
    await store.checkpoint({ lsn: lsn(1), meta: {} });
    // The pages of the first one go into the file, so that the next begins the write-ahead log anew.
    const db = new DatabaseSync(store.path);
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    db.close();
    // Some six cells share a page, so each of these is in another one.
    for (let row = 0; row < 1_200; row += 20) put(row, 2);
    await store.checkpoint({ lsn: lsn(2), meta: {} });
    const pages = Math.floor(Deno.statSync(writeAhead).size / 4_096);
    assert(pages >= 60 && pages <= 70, `${pages} pages for 60 cells`);
    store.close();
  }));

Deno.test("SqliteCellStore reads no values where keys alone are wanted, forwards or backwards", () =>
  withStore(async ({ dir, open }) => {
    const store = open();
    const values = Array.from({ length: 40 }, (_, i) => new Uint8Array(30_000).fill(i + 1));
    values.forEach((value, i) =>
      store.put(cellOf("r", `c${String(i).padStart(2, "0")}`, 1, value))
    );
    await store.checkpoint({ lsn: lsn(1), meta: {} });
    store.close();
    // Values lie in pages of their own; a bit is flipped in one of them.
    const path = `${dir}/groups/${gid}.db`, bytes = await Deno.readFile(path);
    let at = bytes.length - 1;
    while (bytes[at] !== 7 || bytes[at - 2_000] !== 7) at--;
    bytes[at - 1_000]! ^= 1;
    await Deno.writeFile(path, bytes);
    const opened = open();
    opened.put(cellOf("r", "c05", 2, new Uint8Array(3)));
    for (const reverse of [false, true]) {
      assert.ok(throwsCorruption(() => everything(opened, { reverse })), "one value is damaged");
      const heads = everything(opened, { reverse, keysOnly: true });
      assert.deepEqual(
        heads.map(({ size }) => size),
        heads.map((head) => head.column === "c05" ? 3 : 30_000),
      );
      const columns = heads.map(({ column }) => column);
      assert.deepEqual(columns, reverse ? columns.toSorted().reverse() : columns.toSorted());
      assert.equal(heads.length, 40);
    }
    opened.close();
  }));
