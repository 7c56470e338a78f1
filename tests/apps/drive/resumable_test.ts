/** Uploads in several requests: what counts as received, who wins, and what the end looks like. */
import assert from "node:assert/strict";
import type { Drive } from "../../../apps/drive/drive.ts";
import {
  bodyOf,
  checkSound,
  CHUNK,
  makeDrive,
  pseudoRandomBytes,
  putFile,
  readFile,
  USER,
} from "./drive_fixture.ts";

const code = (expected: string) => (error: unknown) => {
  assert.equal((error as { code?: string }).code, expected, String(error));
  return true;
};
const BYTES = pseudoRandomBytes(6 * CHUNK + 1234);
const REQUEST = { parent: "root", name: "film.mp4", conflict: "fail" as const };

async function* breaksOff(bytes: Uint8Array) {
  yield* bodyOf(bytes);
  await Promise.resolve();
  throw new TypeError("connection reset");
}

async function finish(drive: Drive, upload: string): Promise<string> {
  const { offset } = await drive.uploadState(USER, upload);
  const state = await drive.appendUpload(USER, {
    upload,
    offset,
    body: bodyOf(BYTES.slice(offset)),
  });
  assert.equal(state.offset, BYTES.length);
  return state.item!;
}

Deno.test("a resumable upload keeps every byte that came before the connection broke", async () => {
  const { drive, kv } = makeDrive();
  const { upload } = await drive.createUpload(USER, REQUEST, BYTES.length);
  let sent = 0;
  for (const part of [10, CHUNK, 3, 2 * CHUNK - 13, CHUNK + 1, 0]) {
    const body = breaksOff(BYTES.slice(sent, sent + part));
    const state = await drive.appendUpload(USER, { upload, offset: sent, body });
    sent += part;
    assert.equal(state.offset, sent);
    assert.equal((await drive.uploadState(USER, upload)).offset, sent);
    await checkSound(kv);
  }
  const id = await finish(drive, upload);
  assert.deepEqual(await readFile(drive, id), BYTES);
  assert.equal((await drive.open(USER, id)).item.contentType, "video/mp4");
  await drive.sweeper.visit(USER);
  assert.equal((await checkSound(kv)).uploads, 0);
});

Deno.test("a resumable upload goes on from another frontend", async () => {
  const { drive, kv } = makeDrive();
  const { upload } = await drive.createUpload(USER, REQUEST, BYTES.length);
  await drive.appendUpload(USER, { upload, offset: 0, body: bodyOf(BYTES.slice(0, 100_000)) });
  const other = makeDrive({ kv, seed: 9 }).drive;
  assert.deepEqual(await readFile(other, await finish(other, upload)), BYTES);
});

Deno.test("a resumable upload refuses an offset that is not current, and bytes beyond its size", async () => {
  const { drive } = makeDrive();
  const { upload } = await drive.createUpload(USER, REQUEST, BYTES.length);
  const append = (offset: number, bytes: Uint8Array) =>
    drive.appendUpload(USER, { upload, offset, body: bodyOf(bytes) });
  await assert.rejects(append(1, BYTES), code("upload_conflict"));
  await append(0, BYTES.slice(0, 5));
  await assert.rejects(append(0, BYTES), code("upload_conflict"));
  await assert.rejects(
    drive.appendUpload("bob", { upload, offset: 5, body: bodyOf(BYTES) }),
    code("upload_gone"),
  );
  const state = await append(5, new Uint8Array([...BYTES.slice(5), 1, 2, 3]));
  assert.equal(state.offset, BYTES.length);
});

Deno.test("of two requests that append at once the later wins and the bytes stay right", async () => {
  for (let seed = 1; seed < 12; seed++) {
    const { drive, kv } = makeDrive({ seed });
    const { upload } = await drive.createUpload(USER, REQUEST, BYTES.length);
    let release = () => {};
    const hangs = new Promise<void>((resolve) => release = resolve);
    const hanging = async function* () {
      yield* bodyOf(BYTES.slice(0, 3 * CHUNK + seed * 999));
      await hangs;
      yield* bodyOf(BYTES.slice(3 * CHUNK + seed * 999));
    };
    const first = drive.appendUpload(USER, { upload, offset: 0, body: hanging() });
    const outcome = first.then(() => "done", (error) => (error as { code: string }).code);
    while ((await kv.scan({ limit: 1000, keysOnly: true })).cells.length < 4);
    const id = await finish(makeDrive({ kv, seed: seed + 100 }).drive, upload);
    release();
    assert.equal(await outcome, "upload_conflict");
    assert.deepEqual(await readFile(drive, id), BYTES);
    await checkSound(kv);
  }
});

Deno.test("a finished upload tells so to a client that missed the answer", async () => {
  const { drive } = makeDrive();
  const { upload } = await drive.createUpload(USER, REQUEST, BYTES.length);
  const id = await finish(drive, upload);
  const state = await drive.uploadState(USER, upload);
  assert.deepEqual(state, {
    upload,
    size: BYTES.length,
    offset: BYTES.length,
    item: id,
    target: null,
  });
  const again = await drive.appendUpload(USER, {
    upload,
    offset: BYTES.length,
    body: bodyOf(new Uint8Array(0)),
  });
  assert.equal(again.item, id);
});

Deno.test("a resumable upload whose name or folder went meanwhile still becomes a file", async () => {
  const { drive, kv } = makeDrive();
  const folder = await drive.createFolder(USER, { parent: "root", name: "F" });
  const taken = await drive.createUpload(USER, REQUEST, BYTES.length);
  const inFolder = { ...REQUEST, parent: folder.id };
  const homeless = await drive.createUpload(USER, inFolder, BYTES.length);
  await putFile(drive, { name: REQUEST.name, bytes: new Uint8Array(1) });
  await drive.trash(USER, folder.id);
  await finish(drive, taken.upload);
  await finish(drive, homeless.upload);
  const { children } = await drive.open(USER, "root");
  assert.deepEqual(children.map((one) => one.name), ["film (2).mp4", "film (3).mp4", "film.mp4"]);
  await checkSound(kv);
});

Deno.test("a resumable upload of nothing is a file at once", async () => {
  const { drive } = makeDrive();
  const { item } = await drive.createUpload(USER, REQUEST, 0);
  assert.equal((await drive.open(USER, item!)).item.size, 0);
});

Deno.test("a cancelled upload is gone, and its chunks with it", async () => {
  const { drive, kv } = makeDrive();
  const { upload } = await drive.createUpload(USER, REQUEST, BYTES.length);
  await drive.appendUpload(USER, {
    upload,
    offset: 0,
    body: bodyOf(BYTES.slice(0, CHUNK * 2 + 5)),
  });
  await drive.cancelUpload(USER, upload);
  await assert.rejects(drive.uploadState(USER, upload), code("upload_gone"));
  await assert.rejects(drive.cancelUpload(USER, upload), code("upload_gone"));
  await drive.sweeper.round();
  const census = await checkSound(kv);
  assert.equal(census.uploads, 0);
  assert.equal(census.chunkRows, 0);
});

Deno.test("an upload over the quota is refused before its first byte", async () => {
  const { drive } = makeDrive({ drive: { quota_bytes: 1000 } });
  await assert.rejects(drive.createUpload(USER, REQUEST, 1001), code("quota_exceeded"));
  await assert.rejects(
    drive.createUpload(USER, { ...REQUEST, name: "a/b" }, 1),
    code("invalid_name"),
  );
});
