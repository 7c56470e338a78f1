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
import { checkSound, makeDrive, putFile, readFile, TestEnv, USER } from "./drive_fixture.ts";

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

Deno.test("Drive stays a tree under random concurrent calls from three frontends", async () => {
  let calls = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(call, { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1 }),
      async (batches, seed) => {
        const delays = new TestEnv(seed);
        const { kv, config, env } = makeDrive({
          seed,
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
    { numRuns: 150 },
  );
  assert(calls > 1000, `only ${calls} calls were tried`);
});

Deno.test("Drive lets only one of two opposite moves of folders through", async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const delays = new TestEnv(seed);
    const { drive, kv } = makeDrive({
      seed,
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
});

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
