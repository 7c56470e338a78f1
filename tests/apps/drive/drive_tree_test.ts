/**
 * Goal: under any interleaving of creates, moves, uploads, deletes, restores and purges, from several
 * frontends at once, the drive's rows stay sound (drive_fixture.ts says what that means).
 *
 * Method: fast-check makes batches of random calls on a handful of folders; each batch runs at once
 * over a store whose calls are delayed by random numbers of turns. Calls may be refused, but only
 * with the drive's own errors. After each batch everything is checked.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Drive } from "../../../apps/drive/drive.ts";
import { DriveError } from "../../../apps/drive/errors.ts";
import { addTo, putItem } from "../../../apps/drive/structure.ts";
import { childColumn, countColumn, DriveTree, treeRow } from "../../../apps/drive/tree.ts";
import { freshId } from "../../../kv/env.ts";
import { KvError } from "../../../kv/errors.ts";
import { type Kv, put, type ScanPage } from "../../../kv/kv.ts";
import { MemoryKv } from "../../../kv/memory_kv.ts";
import {
  checkSound,
  makeDrive,
  pseudoRandomBytes,
  putFile,
  readFile,
  TestEnv,
  USER,
} from "./drive_fixture.ts";

const NAMES = ["a", "b", "c"];
const place = fc.nat({ max: 30 });
const name = fc.constantFrom(...NAMES);
const conflict = fc.constantFrom("fail", "replace", "rename") as fc.Arbitrary<
  "fail" | "replace" | "rename"
>;
const call = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("folder" as const), at: place, name }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant("file" as const), at: place, name, conflict }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("move" as const),
      which: place,
      at: place,
      name,
      conflict,
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("trash" as const), which: place }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("restore" as const), which: place }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("purge" as const), which: place }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("empty" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("sweep" as const) }) },
);
type Call = typeof call extends fc.Arbitrary<infer T> ? T : never;

async function run(drive: Drive, call: Call, ids: string[]): Promise<void> {
  const pick = (n: number) => ids[n % ids.length]!;
  try {
    switch (call.kind) {
      case "folder":
        ids.push(
          (await drive.createFolder(USER, { parent: pick(call.at), name: call.name })).id,
        );
        break;
      case "file": {
        const bytes = new Uint8Array(call.at * 5000);
        const { name, conflict } = call;
        ids.push((await putFile(drive, { parent: pick(call.at), name, bytes, conflict })).id);
        break;
      }
      case "move":
        await drive.move(USER, pick(call.which), {
          parent: pick(call.at),
          name: call.name,
          conflict: call.conflict,
        });
        break;
      case "trash":
        await drive.trash(USER, pick(call.which));
        break;
      case "restore":
        await drive.restore(USER, pick(call.which));
        break;
      case "purge":
        await drive.purge(USER, pick(call.which));
        break;
      case "empty":
        await drive.emptyTrash(USER);
        break;
      case "sweep":
        await drive.sweeper.visit(USER);
    }
  } catch (error) {
    assert(error instanceof DriveError, `${call.kind}: ${(error as Error).stack}`);
    assert.notEqual(error.code, "damaged");
  }
}

/** A user's rows lie in one group; here they are torn apart, so every change takes all its steps. */
const TORN = [`${USER}/drive/folder/i`, `${USER}/drive/node/j`, `${USER}/drive/node/s`];

Deno.test("Drive stays a tree under random concurrent calls from three frontends", async () => {
  await callAtRandom([], 150);
});

Deno.test("Drive stays a tree also where its rows lie in several groups", async () => {
  await callAtRandom(TORN, 60);
});

async function callAtRandom(splitAt: readonly string[], numRuns: number): Promise<void> {
  let calls = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(call, { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1 }),
      async (batches, seed) => {
        const delays = new TestEnv(seed);
        const { kv, config, env } = makeDrive({
          seed,
          splitAt,
          beforeCall: async () => {
            for (let turns = delays.random() * 4; turns > 1; turns--) await Promise.resolve();
            if (delays.random() < 0.1) await delays.sleep(0);
          },
        });
        const frontends = Array.from({ length: 3 }, () => new Drive({ kv, env, config }));
        const ids = ["root"];
        for (const name of NAMES) {
          ids.push((await frontends[0]!.createFolder(USER, { parent: ids.at(-1)!, name })).id);
        }
        for (const batch of batches) {
          calls += batch.length;
          await Promise.all(batch.map((one, i) => run(frontends[i % 3]!, one, ids)));
          await checkSound(kv);
          env.nowMs += 20 * 60_000;
        }
        await frontends[0]!.emptyTrash(USER);
        env.nowMs += 2 * 60 * 60_000;
        while (!await frontends[1]!.sweeper.visit(USER));
        const census = await checkSound(kv);
        assert.equal(census.garbage, 0);
        assert.equal(census.uploads, 0);
      },
    ),
    { numRuns },
  );
  assert(calls > numRuns * 6, `only ${calls} calls were tried`);
  await turn();
}

/** Lets timers end that outlived their calls. */
const turn = () => new Promise((resolve) => setTimeout(resolve, 5));

Deno.test("Drive lets only one of two opposite moves of folders through", async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const delays = new TestEnv(seed);
    const { drive, kv } = makeDrive({
      seed,
      splitAt: seed % 2 === 0 ? TORN : [],
      beforeCall: () => delays.random() < 0.5 ? delays.sleep(0) : undefined,
    });
    const a = await drive.createFolder(USER, { parent: "root", name: "A" });
    const b = await drive.createFolder(USER, { parent: "root", name: "B" });
    const results = await Promise.allSettled([
      drive.move(USER, a.id, { parent: b.id }),
      drive.move(USER, b.id, { parent: a.id }),
    ]);
    const refused = results.filter((one) => one.status === "rejected");
    assert.equal(refused.length, 1);
    assert.equal(refused[0]!.reason.code, "into_itself");
    await checkSound(kv);
  }
  await turn();
});

Deno.test("a folder of 10 000 files takes as many calls as an empty one", async () => {
  let calls = 0;
  const { drive, kv, env } = makeDrive({ beforeCall: () => void (calls += 1) });
  const parent = (await drive.createFolder(USER, { parent: "root", name: "large" })).id;
  const other = (await drive.createFolder(USER, { parent: "root", name: "other" })).id;
  const costs = async () => {
    const cost: Record<string, number> = {};
    const count = async <T>(what: string, run: () => Promise<T>): Promise<T> => {
      const before = calls;
      const result = await run();
      cost[what] = calls - before;
      return result;
    };
    const name = `probe ${calls}`;
    const file = await count(
      "upload",
      () => putFile(drive, { parent, name, bytes: new Uint8Array(10) }),
    );
    await count("list", () => drive.open(USER, parent, { limit: 50 }));
    await count("rename", () => drive.move(USER, file.id, { name: `${name}!` }));
    await count("move out", () => drive.move(USER, file.id, { parent: other }));
    await count("move in", () => drive.move(USER, file.id, { parent }));
    await count("trash", () => drive.trash(USER, file.id));
    await count("purge", () => drive.purge(USER, file.id));
    await count("move the folder", () => drive.move(USER, parent, { parent: other }));
    await count("move it back", () => drive.move(USER, parent, { parent: "root" }));
    return cost;
  };
  const empty = await costs();
  const tree = new DriveTree(kv, env, USER);
  for (let i = 0; i < 10_000; i += 50) {
    const files = Array.from({ length: 50 }, (_, n) => {
      const name = `file ${i + n}`, times = { createdMs: env.nowMs, modifiedMs: env.nowMs };
      const content = { upload: freshId(env), size: 0, type: "text/plain", crc: 0, chunkBytes: 1 };
      const item = { id: freshId(env), name, ...times, content };
      return putItem(childColumn(parent, name, false), item);
    });
    await tree.commit([], [...files.flat(), addTo(countColumn(parent), 50)]);
  }
  assert.deepEqual(await costs(), empty);
  assert.equal((await drive.open(USER, parent)).count, 10_000);
  await checkSound(kv);
});

Deno.test("a drive of one row, as older versions kept it, is brought over whole, also by two at once", async () => {
  const old = makeDrive({ seed: 3 });
  const folder = (await old.drive.createFolder(USER, { parent: "root", name: "folder" })).id;
  const inside = (await old.drive.createFolder(USER, { parent: folder, name: "inside" })).id;
  for (let i = 0; i < 150; i++) {
    const parent = [folder, inside, "root"][i % 3]!;
    await putFile(old.drive, { parent, name: `file ${i}`, bytes: pseudoRandomBytes(i, i + 1) });
  }
  for (const { id } of (await old.drive.open(USER, inside)).children.slice(0, 5)) {
    await old.drive.trash(USER, id);
  }
  const before = await checkSound(old.kv);
  // A crash between any two batches leaves the rest for whoever comes next.
  for (const dieAt of [0, 1, 2, 3, 5, Infinity]) {
    let batches = 0;
    const beforeCall = (call: string) => {
      if (call === "transact" && batches++ >= dieAt) throw new KvError("unavailable", "died");
    };
    const store = new MemoryKv();
    await intoOneRow(old.kv, store);
    const dying = makeDrive({ kv: new MemoryKv({ sharing: store, beforeCall }) }).drive;
    await dying.open(USER, "root").catch((error) => assert.equal(error.code, "unavailable"));
    const [one, two] = [1, 2].map(() => makeDrive({ kv: new MemoryKv({ sharing: store }) }).drive);
    const [left, right] = await Promise.all([one!.open(USER, folder), two!.open(USER, folder)]);
    assert.deepEqual(left.children.map(({ name }) => name), right.children.map(({ name }) => name));
    assert.deepEqual(await checkSound(store), before);
    assert.equal((await one!.listTrash(USER)).count, 5);
  }
});

/** All of the drive's cells in the tree row; chunks and lists stay where they are. */
async function intoOneRow(from: Kv, to: Kv): Promise<void> {
  let after: ScanPage["next"] = null;
  do {
    const page: ScanPage = await from.scan({ limit: 200, ...(after === null ? {} : { after }) });
    for (const { row, column, value } of page.cells) {
      const target = row.startsWith(`${USER}/drive/`) ? treeRow(USER) : row;
      await put(to, target, column, value!);
    }
    after = page.next;
  } while (after !== null);
}

Deno.test("Drive keeps all of 60 files that are uploaded into one folder at once", async () => {
  const { drive, kv } = makeDrive();
  const files = await Promise.all(
    Array.from(
      { length: 60 },
      (_, i) => putFile(drive, { name: `f${i}`, bytes: new Uint8Array(i) }),
    ),
  );
  assert.equal((await drive.open(USER, "root")).count, 60);
  for (const [i, file] of files.entries()) assert.equal((await readFile(drive, file.id)).length, i);
  await checkSound(kv);
});
