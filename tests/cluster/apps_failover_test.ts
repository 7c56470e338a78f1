/**
 * What users keep while processes die under them: mail that was accepted, uploads, sessions. In each
 * test a frontend is killed -9, and the primary of the user's tablet with it.
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { primariesAtHome, primaryOf, replicasEqual } from "./cluster_calls.ts";
import { startCluster, type TestCluster } from "./harness.ts";
import { MIB } from "./process_watch.ts";
import { frontendDoors, newcomer, randomBytes, type Visitor } from "./visitor.ts";

const FRONTENDS = ["frontend/0", "frontend/1", "frontend/2"];

let cluster: TestCluster;
let doors: string[] = [];

Deno.test.beforeAll(async () => {
  cluster = await startCluster({ config: "tests/cluster/three_doors.toml" });
  doors = frontendDoors(cluster);
});
Deno.test.afterAll(async () => await cluster.stop());

interface Aim {
  readonly names: readonly string[];
  /** kill -9 to all of them, at once. */
  strike(): void;
}

/** Finds a frontend's process and that of the primary of `row`, so that both can die at a word. */
async function aimAt(frontend: string, row: string): Promise<Aim> {
  const names = [frontend, await primaryOf(cluster, row)];
  const pids = await Promise.all(names.map((name) => cluster.pidOf(name)));
  return { names, strike: () => pids.forEach((pid) => Deno.kill(pid, "SIGKILL")) };
}

async function backAgain(names: readonly string[]): Promise<void> {
  for (const name of names) await cluster.waitReady(name);
  await primariesAtHome(cluster);
}

Deno.test("mail that was accepted right before a frontend and a primary die arrives exactly once", async () => {
  const names = ["alma", "kurt", "tara"];
  const people = await Promise.all(names.map((name, i) => newcomer(doors[i]!, name)));
  const accepted = new Set<string>();
  let number = 0;
  for (const [round, frontend] of FRONTENDS.entries()) {
    const sender = people[round]!.at(doors[round]!);
    const aim = await aimAt(frontend, names[round]!);
    let struck = false;
    await Promise.all(Array.from({ length: 20 }, async (_, i) => {
      const subject = `news ${number++}`;
      // A request that the death cut off may or may not have been accepted: it is not counted.
      const answer = await sender.send(names, subject).catch(() => null);
      if (answer?.status === 202) {
        accepted.add(subject);
        // The first answer is the sign: what it promised has to come true without this frontend.
        if (!struck) aim.strike();
        struck = true;
      } else if (answer !== null) assert.equal(answer.status, 503, `${i}: ${answer.text}`);
    }));
    assert(struck, "none was accepted");
    await backAgain(aim.names);
  }
  const missing = (subjects: readonly string[]) =>
    [...accepted].filter((subject) => !subjects.includes(subject));
  for (const [i, person] of people.entries()) {
    const reader = person.at(doors[(i + 1) % 3]!);
    const subjects = async () => (await reader.messages()).map(({ subject }) => subject);
    await eventually(async () => missing(await subjects()).length === 0, "all accepted mail", {
      withinMs: 90_000,
      everyMs: 200,
    });
    const all = await subjects();
    assert.equal(new Set(all).size, all.length, `${person.username} has a message twice`);
    const uids = (await reader.messages()).map(({ uid }) => uid);
    assert.equal(new Set(uids).size, uids.length, "a UID was given twice");
  }
  // And once more when everything has come to rest: nothing is delivered again, and what a death cut
  // off reached either everybody or nobody.
  const inboxes = async () =>
    await Promise.all(people.map(async (person) => {
      return (await person.messages()).map(({ subject }) => subject).sort();
    }));
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  const settled = await inboxes();
  assert.deepEqual(settled[1], settled[0]);
  assert.deepEqual(settled[2], settled[0]);
  assert.equal(new Set(settled[0]).size, settled[0]!.length);
  console.log(`${accepted.size} of ${number} accepted, each with ${names.length} recipients`);
  await replicasEqual(cluster);
});

Deno.test("an upload whose frontend dies leaves no broken file, and can be repeated elsewhere", async () => {
  const user = await newcomer(doors[0]!, "emil");
  const film = randomBytes(24 * MIB);
  for (const [i, frontend] of FRONTENDS.entries()) {
    const halfSent = Promise.withResolvers<void>();
    let at = 0;
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      async pull(controller) {
        if (at >= film.length) return controller.close();
        if (at >= film.length / 2) {
          halfSent.resolve();
          // The rest trickles, so that the death comes in the middle.
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        controller.enqueue(film.slice(at, at += MIB));
      },
    });
    const name = `film ${i}`;
    const broken = user.at(doors[i]!).upload(name, body).then(
      ({ status }) => status,
      () => "broken off",
    );
    const aim = await aimAt(frontend, "emil");
    await halfSent.promise;
    aim.strike();
    assert.equal(await broken, "broken off");
    const elsewhere = user.at(doors[(i + 1) % 3]!);
    const names = (await elsewhere.files()).map((file) => file.name);
    assert(!names.includes(name), "half a file shows");
    const { status, json, text } = await elsewhere.upload(name, film);
    assert.equal(status, 201, text);
    assert.deepEqual(await elsewhere.content(json.id), film);
    await backAgain(aim.names);
  }
  const files = await user.at(doors[0]!).files();
  assert.deepEqual(files.map(({ size }) => size), FRONTENDS.map(() => film.length));
  const { json } = await user.at(doors[0]!).request("/api/v1/drive/usage");
  assert.equal(json.used, film.length * 3, "what was left behind does not count");
});

Deno.test("a resumable upload goes on at another frontend where the dead one left it", async () => {
  const user = await newcomer(doors[0]!, "iris");
  const song = randomBytes(10 * MIB), tus = { "tus-resumable": "1.0.0" };
  const created = await user.request("/api/v1/drive/uploads", {
    method: "POST",
    headers: {
      ...tus,
      "upload-length": String(song.length),
      "upload-metadata": `filename ${btoa("song.mp3")}`,
    },
  });
  const path = created.headers.get("location")!;
  const append = (visitor: Visitor, from: number, to: number) =>
    visitor.request(path, {
      method: "PATCH",
      headers: {
        ...tus,
        "content-type": "application/offset+octet-stream",
        "upload-offset": String(from),
      },
      body: song.subarray(from, to),
    });
  const part = 5 * MIB + 12_345;
  assert.equal((await append(user, 0, part)).status, 204);
  const aim = await aimAt("frontend/0", "iris");
  aim.strike();
  const elsewhere = user.at(doors[1]!);
  const { headers } = await elsewhere.request(path, { method: "HEAD", headers: tus });
  assert.equal(headers.get("upload-offset"), String(part));
  const finished = await append(elsewhere, part, song.length);
  assert.equal(finished.status, 204, finished.text);
  const id = finished.headers.get("upload-item")!;
  assert.deepEqual(await user.at(doors[2]!).content(id), song);
  await backAgain(aim.names);
});

Deno.test("sessions outlive every frontend, and the balancer goes around the dead one", async () => {
  const user = await newcomer(doors[0]!, "jonas");
  for (const [i, frontend] of FRONTENDS.entries()) {
    const aim = await aimAt(frontend, "jonas");
    aim.strike();
    const killedMs = performance.now();
    let longestMs = 0;
    for (let n = 0; n < 12; n++) {
      const startMs = performance.now();
      const sent = await fetch(`${cluster.baseUrl}/api/v1/session`, { redirect: "manual" });
      await sent.body?.cancel();
      assert.equal(sent.status, 307);
      const door = new URL(sent.headers.get("location")!).origin;
      // It may have come back by now; before that, nobody is sent there.
      if (door === doors[i]) await cluster.waitReady(frontend);
      const { status, json } = await user.at(door).request("/api/v1/session");
      assert.equal(status, 200);
      assert.equal(json.username, "jonas");
      longestMs = Math.max(longestMs, performance.now() - startMs);
    }
    const tookMs = performance.now() - killedMs;
    console.log(
      `${frontend}: 12 requests in ${Math.round(tookMs)} ms, longest ${Math.round(longestMs)}`,
    );
    await backAgain(aim.names);
    assert.equal((await user.at(doors[i]!).request("/api/v1/session")).status, 200);
  }
  const out = await user.request("/api/v1/session", { method: "DELETE" });
  assert.equal(out.status, 204);
  for (const door of doors) {
    const old = user.at(door);
    const { status } = await old.request("/api/v1/session");
    assert.equal(status, 401, "logged out at one door is logged out at all");
  }
});
