/**
 * Goal: wherever a frontend dies, or the store fails a call, a file is there whole or not at all,
 * and the sweeper frees the rest.
 *
 * Method: each scenario is run once to count its calls to the store, then once per call and kind of
 * failure: the process dies before the call, the process dies after it, or the call alone fails with
 * an unknown outcome, applied or not. Then another frontend looks at what is left. Process death is
 * modelled by failing every later call.
 */
import assert from "node:assert/strict";
import type { Drive } from "../../../apps/drive/drive.ts";
import { DriveError } from "../../../apps/drive/errors.ts";
import { KvError } from "../../../kv/errors.ts";
import type { Kv } from "../../../kv/kv.ts";
import { MemoryKv } from "../../../kv/memory_kv.ts";
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

type Fault = "dies before" | "dies after" | "unknown, applied" | "unknown, not applied";
const FAULTS: Fault[] = ["dies before", "dies after", "unknown, applied", "unknown, not applied"];
const DAY_MS = 24 * 60 * 60_000;

/** A view of a store through which call number `at` fails. */
class FaultyKv implements Kv {
  calls = 0;
  constructor(readonly inner: Kv, readonly at: number, readonly fault: Fault) {}
  get = (...args: Parameters<Kv["get"]>) => this.#call(() => this.inner.get(...args));
  getRow = (...args: Parameters<Kv["getRow"]>) => this.#call(() => this.inner.getRow(...args));
  scan = (...args: Parameters<Kv["scan"]>) => this.#call(() => this.inner.scan(...args));
  apply = (...args: Parameters<Kv["apply"]>) => this.#call(() => this.inner.apply(...args));
  transact = (...args: Parameters<Kv["transact"]>) =>
    this.#call(() => this.inner.transact(...args));

  async #call<T>(run: () => Promise<T>): Promise<T> {
    const call = this.calls++;
    const dies = this.fault.startsWith("dies");
    const unknown = () => new KvError("outcome_unknown", "The store did not answer");
    if (call < this.at || (call > this.at && !dies)) return await run();
    if (call > this.at || this.fault === "dies before" || this.fault === "unknown, not applied") {
      throw unknown();
    }
    await run();
    throw unknown();
  }
}

interface Scenario {
  readonly name: string;
  /** What is there before, by a healthy frontend. */
  prepare(drive: Drive): Promise<string>;
  run(drive: Drive, id: string): Promise<void>;
  /** Looks at the result by a healthy frontend; `done` tells whether `run` returned. */
  check(drive: Drive, id: string, done: boolean): Promise<void>;
}

const BYTES = pseudoRandomBytes(5 * CHUNK + 99, 1);
const OTHER = pseudoRandomBytes(3 * CHUNK, 2);

const SCENARIOS: Scenario[] = [
  {
    name: "an upload",
    prepare: () => Promise.resolve("root"),
    async run(drive) {
      await putFile(drive, { name: "f", bytes: BYTES });
    },
    async check(drive, _id, done) {
      const { children } = await drive.open(USER, "root");
      assert(children.length === 1 || !done, "a stored file is missing");
      for (const item of children) assert.deepEqual(await readFile(drive, item.id), BYTES);
    },
  },
  {
    name: "an upload that replaces a file",
    prepare: async (drive) => (await putFile(drive, { name: "f", bytes: OTHER })).id,
    async run(drive) {
      await putFile(drive, { name: "f", bytes: BYTES, conflict: "replace" });
    },
    async check(drive, id, done) {
      const found = await readFile(drive, id);
      assert.deepEqual(found, done || found.length === BYTES.length ? BYTES : OTHER);
    },
  },
  {
    name: "a resumable upload in two requests",
    prepare: () => Promise.resolve("root"),
    async run(drive) {
      const request = { parent: "root", name: "f", conflict: "fail" as const };
      const { upload } = await drive.createUpload(USER, request, BYTES.length);
      const half = 2 * CHUNK + 17;
      await drive.appendUpload(USER, { upload, offset: 0, body: bodyOf(BYTES.slice(0, half)) });
      await drive.appendUpload(USER, { upload, offset: half, body: bodyOf(BYTES.slice(half)) });
    },
    async check(drive, _id, done) {
      const { children } = await drive.open(USER, "root");
      assert(children.length === 1 || !done, "a stored file is missing");
      for (const item of children) assert.deepEqual(await readFile(drive, item.id), BYTES);
    },
  },
  {
    name: "deleting a folder for good",
    async prepare(drive) {
      const folder = await drive.createFolder(USER, { parent: "root", name: "A" });
      const inner = await drive.createFolder(USER, { parent: folder.id, name: "B" });
      await putFile(drive, { parent: folder.id, name: "f", bytes: OTHER });
      await putFile(drive, { parent: inner.id, name: "f", bytes: OTHER });
      return folder.id;
    },
    async run(drive, id) {
      await drive.trash(USER, id);
      await drive.purge(USER, id);
    },
    async check(drive, _id, done) {
      const { children } = await drive.open(USER, "root");
      if (done) assert.equal(children.length, 0);
    },
  },
];

for (const scenario of SCENARIOS) {
  for (const fault of FAULTS) {
    Deno.test(`crash: ${scenario.name} leaves nothing broken when call n ${fault}`, async () => {
      let tried = 0, finished = 0;
      for (let at = 0; at < 500; at++) {
        const kv = new MemoryKv();
        const healthy = makeDrive({ kv, seed: 1 });
        const id = await scenario.prepare(healthy.drive);
        const faulty = new FaultyKv(kv, at, fault);
        const victim = makeDrive({ kv: faulty, seed: 2 }).drive;
        let done = false;
        try {
          await scenario.run(victim, id);
          done = true;
        } catch (error) {
          assert(error instanceof KvError || error instanceof DriveError, String(error));
        }
        if (faulty.calls <= at) break;
        tried++;
        if (done) finished++;
        await checkSound(kv);
        await scenario.check(healthy.drive, id, done);
        healthy.env.nowMs += 2 * DAY_MS;
        while (!await healthy.drive.sweeper.visit(USER));
        healthy.env.nowMs += DAY_MS;
        while (!await healthy.drive.sweeper.visit(USER));
        const census = await checkSound(kv);
        assert.equal(census.uploads, 0, "an upload was not swept");
        assert.equal(census.garbage, 0, "garbage was not freed");
        await scenario.check(healthy.drive, id, done);
      }
      assert(tried >= 8, `only ${tried} crash points`);
      if (fault === "unknown, applied") assert(finished > 0, "no unknown outcome was settled");
    });
  }
}

Deno.test("crash: a client that goes away in the middle leaves no file and no chunk", async () => {
  const { drive, kv } = makeDrive();
  async function* breaksOff() {
    yield* bodyOf(BYTES.slice(0, 3 * CHUNK));
    await Promise.resolve();
    throw new TypeError("connection reset");
  }
  for (const size of [BYTES.length, null]) {
    await assert.rejects(
      drive.upload(USER, { parent: "root", name: "f", conflict: "fail" }, {
        size,
        body: breaksOff(),
      }),
      (error) => (error as DriveError).code === "upload_aborted",
    );
  }
  await assert.rejects(
    drive.upload(USER, { parent: "root", name: "f", conflict: "fail" }, {
      size: BYTES.length,
      body: bodyOf(BYTES.slice(1)),
    }),
    (error) => (error as DriveError).code === "upload_aborted",
  );
  await drive.sweeper.round();
  const census = await checkSound(kv);
  assert.deepEqual(census, { items: 0, files: 0, uploads: 0, garbage: 0, chunkRows: 0 });
});

Deno.test("crash: an upload that was swept away cannot be linked any more", async () => {
  const { drive, kv, env } = makeDrive({ drive: { upload_hours: 1 } });
  const sweeper = makeDrive({ kv, seed: 5, drive: { upload_hours: 1 } });
  async function* slow() {
    yield* bodyOf(BYTES.slice(0, 2 * CHUNK));
    sweeper.env.nowMs = env.nowMs + 2 * 60 * 60_000;
    await sweeper.drive.sweeper.visit(USER);
    yield* bodyOf(BYTES.slice(2 * CHUNK));
  }
  await assert.rejects(
    drive.upload(USER, { parent: "root", name: "f", conflict: "fail" }, {
      size: BYTES.length,
      body: slow(),
    }),
    (error) => (error as DriveError).code === "upload_gone",
  );
  assert.equal((await drive.open(USER, "root")).count, 0);
});
