/** The drive's calls, one by one: what they do, what they refuse, and in which order lists come. */
import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import { GARBAGE_GRACE_MS } from "../../../apps/drive/garbage.ts";
import { rowOf } from "../../../apps/drive/tree.ts";
import {
  bodyOf,
  checkSound,
  CHUNK,
  makeDrive,
  pseudoRandomBytes,
  putFile,
  readAll,
  readFile,
  USER,
} from "./drive_fixture.ts";

const code = (expected: string) => (error: unknown) => {
  assert.equal((error as { code?: string }).code, expected, String(error));
  return true;
};
const HOUR_MS = 60 * 60_000;

Deno.test("Drive keeps nested folders and says the path to each", async () => {
  const { drive, kv } = makeDrive();
  const a = await drive.createFolder(USER, { parent: "root", name: "A" });
  const b = await drive.createFolder(USER, { parent: a.id, name: "B" });
  const opened = await drive.open(USER, b.id);
  assert.deepEqual(opened.path.map((one) => one.name), ["My drive", "A", "B"]);
  assert.equal(opened.item.parent, a.id);
  assert.equal((await drive.open(USER, "root")).count, 1);
  await checkSound(kv);
});

Deno.test("Drive lists folders first, then by name without case, accents, and with numbers by value", async () => {
  const { drive } = makeDrive();
  const names = ["page 10.txt", "Page 9.txt", "zebra", "Éclair", "apple", "page 9.txt"];
  for (const name of names) await putFile(drive, { name, bytes: new Uint8Array(1) });
  await drive.createFolder(USER, { parent: "root", name: "Zoo" });
  const { children } = await drive.open(USER, "root");
  assert.deepEqual(children.map((one) => one.name), [
    "Zoo",
    "apple",
    "Éclair",
    "Page 9.txt",
    "page 9.txt",
    "page 10.txt",
    "zebra",
  ]);
});

Deno.test("Drive pages through a folder without losing or repeating anything", async () => {
  const { drive } = makeDrive();
  for (let i = 0; i < 25; i++) {
    await drive.createFolder(USER, { parent: "root", name: `f${i}` });
  }
  const seen: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await drive.open(USER, "root", { limit: 7, cursor });
    seen.push(...page.children.map((one) => one.name));
    cursor = page.next ?? undefined;
  } while (cursor !== undefined);
  assert.deepEqual(seen, Array.from({ length: 25 }, (_, i) => `f${i}`));
  await assert.rejects(drive.open(USER, "root", { cursor: "!" }), code("invalid_request"));
  await assert.rejects(drive.open(USER, "root", { limit: 0 }), code("invalid_request"));
});

for (const size of [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 7 * CHUNK + 123]) {
  Deno.test(`Drive gives back the bytes of a file of ${size} bytes, and any range of them`, async () => {
    const { drive, kv } = makeDrive();
    const bytes = pseudoRandomBytes(size);
    const item = await putFile(drive, { name: "data.bin", bytes });
    assert.equal(item.size, size);
    assert.deepEqual(await readFile(drive, item.id), bytes);
    const file = await drive.openFile(USER, item.id);
    for (const [start, end] of [[0, 1], [1, CHUNK + 5], [CHUNK, 2 * CHUNK], [size - 1, size]]) {
      if (start! < 0 || end! > size) continue;
      assert.deepEqual(await readAll(file.read(start!, end!)), bytes.slice(start, end));
    }
    await checkSound(kv);
  });
}

Deno.test("Drive takes a stream of unknown length that is longer than it notes ahead", async () => {
  const { drive, kv } = makeDrive();
  const bytes = pseudoRandomBytes(150 * CHUNK + 1);
  const item = await drive.upload(USER, { parent: "root", name: "long", conflict: "fail" }, {
    size: null,
    body: bodyOf(bytes, 100_003),
  });
  assert.deepEqual(await readFile(drive, item.id), bytes);
  await checkSound(kv);
});

Deno.test("Drive spreads the chunks of a file evenly over the alphabet", async () => {
  const { drive, kv } = makeDrive();
  await putFile(drive, { name: "big", bytes: new Uint8Array(90 * CHUNK) });
  const { cells } = await kv.scan({ limit: 1000, keysOnly: true });
  const chunks = cells.filter(({ row }) => row[3] === "~");
  assert.equal(chunks.length, 90);
  const thirds = ["a", "j", "s"].map((from, i) =>
    chunks.filter(({ row }) => row >= from && row < (["j", "s", "~"][i]!)).length
  );
  for (const count of thirds) assert(count >= 25 && count <= 35, `${thirds}`);
});

Deno.test("Drive refuses a taken name, replaces it or numbers it, as asked", async () => {
  const { drive, kv, env } = makeDrive();
  const old = await putFile(drive, { name: "a.txt", bytes: pseudoRandomBytes(100, 1) });
  await assert.rejects(
    putFile(drive, { name: "a.txt", bytes: new Uint8Array(5) }),
    code("name_exists"),
  );
  await assert.rejects(
    drive.createFolder(USER, { parent: "root", name: "a.txt" }),
    code("name_exists"),
  );
  const numbered = await putFile(drive, {
    name: "a.txt",
    bytes: new Uint8Array(5),
    conflict: "rename",
  });
  assert.equal(numbered.name, "a (2).txt");
  const replaced = await putFile(drive, {
    name: "a.txt",
    bytes: pseudoRandomBytes(3 * CHUNK, 2),
    conflict: "replace",
  });
  assert.equal(replaced.id, old.id);
  assert.notEqual(replaced.etag, old.etag);
  assert.equal((await drive.usage(USER)).used, 5 + 3 * CHUNK);
  const census = await checkSound(kv);
  assert.equal(census.garbage, 1);
  env.nowMs += GARBAGE_GRACE_MS + 1;
  await drive.sweeper.visit(USER);
  assert.deepEqual(await readFile(drive, old.id), pseudoRandomBytes(3 * CHUNK, 2));
  assert.deepEqual(await checkSound(kv), {
    items: 2,
    files: 2,
    uploads: 0,
    garbage: 0,
    chunkRows: 4,
  });
});

Deno.test("Drive lets a reader finish the content that was replaced under it", async () => {
  const { drive } = makeDrive();
  const bytes = pseudoRandomBytes(20 * CHUNK, 1);
  const item = await putFile(drive, { name: "film", bytes });
  const file = await drive.openFile(USER, item.id);
  const reader = file.read(0, file.item.size).getReader();
  const parts = [(await reader.read()).value!];
  await putFile(drive, { name: "film", bytes: new Uint8Array(9), conflict: "replace" });
  await drive.sweeper.visit(USER);
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    parts.push(next.value);
  }
  assert.deepEqual(new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer()), bytes);
});

Deno.test("Drive renames and moves by metadata alone", async () => {
  const { drive, kv } = makeDrive();
  const folder = await drive.createFolder(USER, { parent: "root", name: "F" });
  const file = await putFile(drive, { name: "x", bytes: new Uint8Array(3) });
  const moved = await drive.move(USER, file.id, { name: "y", parent: folder.id });
  assert.equal(moved.parent, folder.id);
  assert.equal(moved.name, "y");
  assert.equal(moved.etag, file.etag);
  assert.equal(moved.modified, file.modified);
  await putFile(drive, { name: "y", bytes: new Uint8Array(4) });
  await assert.rejects(drive.move(USER, file.id, { parent: "root" }), code("name_exists"));
  const kept = await drive.move(USER, file.id, { parent: "root", conflict: "rename" });
  assert.equal(kept.name, "y (2)");
  const taken = await drive.move(USER, file.id, { name: "y", conflict: "replace" });
  assert.equal(taken.id, file.id);
  assert.equal((await drive.listTrash(USER)).children[0]!.size, 4);
  await checkSound(kv);
});

Deno.test("Drive refuses to move a folder into itself or below itself", async () => {
  const { drive } = makeDrive();
  const a = await drive.createFolder(USER, { parent: "root", name: "A" });
  const b = await drive.createFolder(USER, { parent: a.id, name: "B" });
  const c = await drive.createFolder(USER, { parent: b.id, name: "C" });
  for (const parent of [a.id, b.id, c.id]) {
    await assert.rejects(drive.move(USER, a.id, { parent }), code("into_itself"));
  }
  await drive.move(USER, b.id, { parent: "root" });
  await drive.move(USER, a.id, { parent: c.id });
});

Deno.test("Drive refuses names that are no names, and keeps NFC", async () => {
  const { drive } = makeDrive();
  const bad = ["", "  ", ".", "..", "a/b", "a\0b", "a\nb", "\ud800", "x".repeat(256), 7, null];
  for (const name of bad) {
    await assert.rejects(drive.createFolder(USER, { parent: "root", name }), code("invalid_name"));
  }
  const item = await drive.createFolder(USER, { parent: "root", name: "Cafe\u0301" });
  assert.equal(item.name, "Caf\u00e9");
  await drive.createFolder(USER, { parent: "root", name: "한".repeat(85) });
  await drive.createFolder(USER, { parent: "root", name: "9".repeat(255) });
});

Deno.test("Drive answers not_found for ids that do not exist, are malformed or belong to another", async () => {
  const { drive } = makeDrive();
  const mine = await drive.createFolder(USER, { parent: "root", name: "A" });
  for (const id of ["", "x", "trash", "../root", "a".repeat(26), "a".repeat(4000)]) {
    await assert.rejects(drive.open(USER, id), code("not_found"));
    await assert.rejects(drive.createFolder(USER, { parent: id, name: "B" }), code("not_found"));
    await assert.rejects(drive.move(USER, mine.id, { parent: id }), code("not_found"));
  }
  await assert.rejects(drive.open("bob", mine.id), code("not_found"));
  const file = await putFile(drive, { name: "f", bytes: new Uint8Array(1) });
  await assert.rejects(
    drive.createFolder(USER, { parent: file.id, name: "B" }),
    code("not_a_folder"),
  );
  await assert.rejects(drive.openFile(USER, mine.id), code("not_a_file"));
});

Deno.test("Drive moves a folder to the trash with all it holds, and back to where it was", async () => {
  const { drive, kv } = makeDrive();
  const a = await drive.createFolder(USER, { parent: "root", name: "A" });
  const b = await drive.createFolder(USER, { parent: a.id, name: "B" });
  const file = await putFile(drive, { parent: b.id, name: "f", bytes: new Uint8Array(3) });
  const gone = await drive.trash(USER, b.id);
  assert.deepEqual(gone.origin, ["A"]);
  for (const id of [b.id, file.id]) await assert.rejects(drive.open(USER, id), code("not_found"));
  await assert.rejects(drive.openFile(USER, file.id), code("not_found"));
  await assert.rejects(drive.trash(USER, file.id), code("not_found"));
  assert.equal((await drive.usage(USER)).used, 3);
  assert.deepEqual((await drive.listTrash(USER)).children.map((one) => one.id), [b.id]);
  await drive.createFolder(USER, { parent: a.id, name: "B" });
  const back = await drive.restore(USER, b.id);
  assert.equal(back.parent, a.id);
  assert.equal(back.name, "B (2)");
  assert.equal((await readFile(drive, file.id)).length, 3);
  await checkSound(kv);
});

Deno.test("Drive restores into the root what lost its folder", async () => {
  const { drive } = makeDrive();
  const a = await drive.createFolder(USER, { parent: "root", name: "A" });
  const file = await putFile(drive, { parent: a.id, name: "f", bytes: new Uint8Array(3) });
  await drive.trash(USER, file.id);
  await drive.trash(USER, a.id);
  assert.equal((await drive.restore(USER, file.id)).parent, "root");
});

Deno.test("Drive deletes a large folder for good, a piece at a time, and frees its chunks", async () => {
  const { drive, kv, env } = makeDrive();
  const a = await drive.createFolder(USER, { parent: "root", name: "A" });
  for (let i = 0; i < 150; i++) {
    const inner = await drive.createFolder(USER, { parent: a.id, name: `in ${i}` });
    await putFile(drive, { parent: inner.id, name: "f", bytes: new Uint8Array(10) });
    await putFile(drive, { parent: a.id, name: `f${i}`, bytes: new Uint8Array(10) });
  }
  await drive.trash(USER, a.id);
  await assert.rejects(drive.purge(USER, "a".repeat(26)), code("not_found"));
  await drive.emptyTrash(USER);
  assert.equal((await drive.listTrash(USER)).count, 0);
  await checkSound(kv);
  for (let i = 0; i < 10 && !await drive.sweeper.visit(USER); i++);
  env.nowMs += GARBAGE_GRACE_MS + 1;
  await drive.sweeper.visit(USER);
  assert.deepEqual(await checkSound(kv), {
    items: 0,
    files: 0,
    uploads: 0,
    garbage: 0,
    chunkRows: 0,
  });
  assert.equal((await drive.usage(USER)).used, 0);
});

Deno.test("Drive purges by itself what lay in the trash for trash_days, and nothing younger", async () => {
  const { drive, env } = makeDrive({ drive: { trash_days: 2 } });
  const a = await putFile(drive, { name: "a", bytes: new Uint8Array(1) });
  const b = await putFile(drive, { name: "b", bytes: new Uint8Array(1) });
  await drive.trash(USER, a.id);
  env.nowMs += 30 * HOUR_MS;
  await drive.trash(USER, b.id);
  env.nowMs += 20 * HOUR_MS;
  await drive.sweeper.round();
  assert.deepEqual((await drive.listTrash(USER)).children.map((one) => one.id), [b.id]);
});

Deno.test("the drive's sweepers walk on while there is work, then rest and write nothing", async () => {
  const { drive, kv, env } = makeDrive();
  const a = await drive.createFolder(USER, { parent: "root", name: "A" });
  for (let i = 0; i < 450; i++) {
    await drive.createFolder(USER, { parent: a.id, name: `in ${i}` });
  }
  await drive.trash(USER, a.id);
  await drive.emptyTrash(USER);
  // Other frontends, which know of nobody: they have to find the user by walking.
  const other = makeDrive({ kv, seed: 2 }), third = makeDrive({ kv, seed: 3 });
  const written = async () => (await kv.get("drive~sweeper", "lease"))?.version;
  const pass = (ms: number) => {
    env.nowMs += ms;
    other.env.nowMs = third.env.nowMs = env.nowMs;
  };
  const foldersLeft = async () =>
    (await kv.getRow(rowOf(USER, "p/"), { prefix: "p/" })).cells.length;
  let rounds = 0;
  do {
    const before = await written();
    await other.drive.sweeper.round();
    assert.notEqual(await written(), before, "it walks");
    pass(10_000);
  } while (await foldersLeft() > 0 && ++rounds < 20);
  assert.ok(rounds > 0 && rounds < 20, `${rounds} more rounds, one after the other`);

  const last = await written();
  for (let i = 0; i < 20; i++) {
    await other.drive.sweeper.round();
    await third.drive.sweeper.round();
    pass(10_000);
  }
  assert.equal(await written(), last, "a rest of minutes");
  pass(100_000);
  await other.drive.sweeper.round();
  assert.notEqual(await written(), last);
  await checkSound(kv);
});

Deno.test("Drive holds the quota against every kind of growth, also when uploads end together", async () => {
  const { drive, kv } = makeDrive({ drive: { quota_bytes: 10_000 } });
  await assert.rejects(
    putFile(drive, { name: "big", bytes: new Uint8Array(10_001) }),
    code("quota_exceeded"),
  );
  const results = await Promise.allSettled(
    Array.from(
      { length: 20 },
      (_, i) => putFile(drive, { name: `f${i}`, bytes: new Uint8Array(1000) }),
    ),
  );
  assert.equal(results.filter((one) => one.status === "fulfilled").length, 10);
  for (const one of results) {
    if (one.status === "rejected") assert.equal(one.reason.code, "quota_exceeded");
  }
  assert.equal((await drive.usage(USER)).used, 10_000);
  await putFile(drive, { name: "f0", bytes: new Uint8Array(1000), conflict: "replace" }).catch(
    () => {},
  );
  await checkSound(kv);
  await assert.rejects(
    drive.upload(USER, { parent: "root", name: "s", conflict: "fail" }, {
      size: null,
      body: bodyOf(new Uint8Array(5000)),
    }),
    code("quota_exceeded"),
  );
});

Deno.test("Drive refuses a file above file_max_bytes, announced or not", async () => {
  const { drive, kv } = makeDrive({ drive: { file_max_bytes: 3 * CHUNK } });
  const bytes = new Uint8Array(3 * CHUNK + 1);
  await assert.rejects(putFile(drive, { name: "big", bytes }), code("file_too_large"));
  await assert.rejects(
    drive.upload(USER, { parent: "root", name: "big", conflict: "fail" }, {
      size: null,
      body: bodyOf(bytes),
    }),
    code("file_too_large"),
  );
  assert.equal((await checkSound(kv)).items, 0);
});

Deno.test("Drive gives one winner when a name is wanted by many at once", async () => {
  const { drive, kv } = makeDrive();
  const results = await Promise.allSettled(
    Array.from({ length: 30 }, () => drive.createFolder(USER, { parent: "root", name: "A" })),
  );
  assert.equal(results.filter((one) => one.status === "fulfilled").length, 1);
  const renamed = await Promise.all(
    Array.from(
      { length: 10 },
      () => drive.createFolder(USER, { parent: "root", name: "A", conflict: "rename" }),
    ),
  );
  assert.equal(new Set(renamed.map((one) => one.name)).size, 10);
  await checkSound(kv);
});

Deno.test("Drive finds items by words of their name, with their path, and none in the trash", async () => {
  const { drive } = makeDrive();
  const a = await drive.createFolder(USER, { parent: "root", name: "Holiday" });
  await putFile(drive, { parent: a.id, name: "Photo Été 2024.jpg", bytes: new Uint8Array(1) });
  const gone = await putFile(drive, { name: "photo 2024 old.jpg", bytes: new Uint8Array(1) });
  await drive.trash(USER, gone.id);
  const { items, more } = await drive.search(USER, "2024 ete");
  assert.deepEqual(items.map((one) => [one.name, ...one.path]), [[
    "Photo Été 2024.jpg",
    "Holiday",
  ]]);
  assert.equal(more, false);
  assert.equal((await drive.search(USER, "photo")).items.length, 1);
  assert.equal((await drive.search(USER, "")).items.length, 0);
});

Deno.test("Drive records the CRC-32 of a file", async () => {
  const { drive, kv } = makeDrive();
  const bytes = pseudoRandomBytes(3 * CHUNK + 17);
  await putFile(drive, { name: "a", bytes });
  const { cells } = await kv.getRow(`${USER}/drive/folder/root`, { prefix: "c/" });
  assert.equal(JSON.parse(new TextDecoder().decode(cells[0]!.value)).content.crc, crc32(bytes));
});
