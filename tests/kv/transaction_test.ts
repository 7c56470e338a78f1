/**
 * Transactions over several groups. First the protocol step by step, then many clients run through
 * each other by a seeded scheduler (transaction_world.ts), with lost answers, jumps in time and deaths
 * at any point, and what they saw judged by the checkers of tests/checkers/.
 */
import assert from "node:assert/strict";
import type { KvError } from "../../kv/errors.ts";
import { transaction } from "../../kv/interactive.ts";
import { decodeText, encodeText, type Kv, type RowOp } from "../../kv/kv.ts";
import { LOCK_LIFE_MS } from "../../kv/transaction.ts";
import { TransactionWorkload } from "./transaction_workload.ts";
import { TransactionWorld, type WorldClient } from "./transaction_world.ts";

const put = (column: string, value: string) =>
  ({ kind: "put", column, value: encodeText(value) }) as const;
const TWO_GROUPS = ["m"];

async function textOf(kv: Kv, row: string, column = "c"): Promise<string | null> {
  const cell = await kv.get(row, column);
  return cell === null ? null : decodeText(cell.value);
}

function quietWorld(seed = 1): TransactionWorld {
  const world = new TransactionWorld({ seed, splitAt: TWO_GROUPS });
  world.faults = false;
  return world;
}

/** What `work` returns, with everybody else running as well. */
async function result<T>(world: TransactionWorld, work: Promise<T>): Promise<T> {
  await world.run(work);
  return await work;
}

/** Runs `work` until its client has taken so many turns, and no further. */
async function dieAfter(
  world: TransactionWorld,
  turns: number,
  work: (client: WorldClient) => Promise<unknown>,
): Promise<{ finished: boolean }> {
  const client = world.client("mortal", turns);
  const done = work(client).then(() => client.kv.transactions.idle());
  await world.run(Promise.race([done, client.died]));
  return { finished: !client.dead };
}

const MOVE: RowOp[] = [
  { row: "a", mutations: [put("c", "new a")] },
  { row: "b", conditions: [{ column: "guard", is: "present" }], mutations: [] },
  { row: "x", mutations: [put("c", "new x"), { kind: "delete", column: "old" }] },
  { row: "y", mutations: [{ kind: "append", counter: "n", prefix: "m/", value: encodeText("1") }] },
];

async function prepareRows(kv: Kv): Promise<void> {
  for (const row of ["a", "x", "y"]) {
    await kv.apply({ row, mutations: [put("c", `old ${row}`), put("old", "here")] });
  }
  await kv.apply({ row: "b", mutations: [put("guard", "here")] });
}

Deno.test("transact() over several groups changes all rows and leaves nothing behind", async () => {
  const world = quietWorld(), { kv } = world.client("one");
  await result(world, prepareRows(kv));
  const done = await result(world, kv.transact(MOVE));
  assert(done.applied);
  assert.deepEqual(done.results.map(({ numbers }) => numbers), [[], [], [], [1]]);
  await result(world, kv.transactions.idle());
  assert.deepEqual(world.internalCells(), []);
  const cell = (await result(world, kv.get("x", "c")))!;
  assert.equal(decodeText(cell.value), "new x");
  assert.equal(cell.version, done.results[2]!.version);
  assert.equal(await result(world, kv.get("x", "old")), null);
  assert.equal(await result(world, textOf(kv, "a")), "new a");
});

Deno.test("transact() over several groups names the condition that failed and changes nothing", async () => {
  const world = quietWorld(), { kv } = world.client("one");
  await result(world, prepareRows(kv));
  const version = (await result(world, kv.get("x", "c")))!.version;
  const refused = await result(
    world,
    kv.transact([
      {
        row: "x",
        conditions: [{ column: "c", is: "present" }, { column: "c", is: "absent" }],
        mutations: [put("c", "no")],
      },
      { row: "a", mutations: [put("c", "no")] },
    ]),
  );
  assert.deepEqual(refused, { applied: false, opIndex: 0, row: "x", conditionIndex: 1, version });
  await result(world, kv.transactions.idle());
  assert.deepEqual(world.internalCells(), []);
  assert.equal(await result(world, textOf(kv, "a")), "old a");
});

Deno.test("transact() over several groups fails as a whole where one row cannot be written", async () => {
  const world = quietWorld(), { kv } = world.client("one");
  await result(world, prepareRows(kv));
  const attempt = kv.transact([
    { row: "a", mutations: [put("c", "no")] },
    { row: "x", mutations: [{ kind: "add", column: "c", by: 1 }] },
  ]).then(() => "done", (error) => (error as KvError).code);
  assert.equal(await result(world, attempt), "invalid_request");
  await result(world, kv.transactions.idle());
  assert.deepEqual(world.internalCells(), []);
  assert.equal(await result(world, textOf(kv, "a")), "old a");
});

Deno.test("a client that dies at any step leaves all rows old or all rows new, for every reader", async () => {
  let died = 0, old = 0;
  for (let turns = 0;; turns++) {
    const world = quietWorld();
    const other = world.client("other");
    await result(world, prepareRows(other.kv));
    const { finished } = await dieAfter(world, turns, ({ kv }) => kv.transact(MOVE));
    // Readers decide nothing: what they see of one row is what they see of all.
    const seen = [];
    for (const row of ["x", "a"]) seen.push(await result(world, textOf(other.kv, row)));
    const page = await result(world, other.kv.scan({ limit: 1000 }));
    assert(page.cells.every(({ column }) => !column.startsWith("\u0001")), "locks are hidden");
    const kept = page.cells.filter(({ row, column }) => row === "y" && column.startsWith("m/"));
    assert.equal(kept.length, seen[0] === "new x" ? 1 : 0, `after ${turns} turns`);
    assert(
      ["new x,new a", "old x,old a"].includes(seen.join()),
      `after ${turns} turns readers see ${seen}`,
    );
    if (seen[0] === "old x") old += 1;
    // A writer gets through, whatever the dead client held.
    for (const row of ["a", "x", "y", "b"]) {
      const written = await result(world, other.kv.apply({ row, mutations: [put("w", "1")] }));
      assert(written.applied);
    }
    await world.clearLocks();
    assert.deepEqual(world.internalCells(), [], `after ${turns} turns`);
    assert.equal(await result(world, textOf(other.kv, "x")), seen[0], "decided once and for all");
    if (finished) break;
    died += 1;
  }
  assert(died >= 8 && old > 2 && old < died, `${died} deaths, ${old} before the commit`);
});

Deno.test("a lock that nobody meets is cleared by the primaries alone", async () => {
  const world = quietWorld();
  await result(world, prepareRows(world.client("other").kv));
  await dieAfter(world, 3, ({ kv }) => kv.transact(MOVE));
  assert.notDeepEqual(world.internalCells(), []);
  await world.clearLocks();
  assert.deepEqual(world.internalCells(), []);
});

Deno.test("a write waits for a living transaction, and aborts one whose time is over", async () => {
  const world = quietWorld();
  const { kv, env } = world.client("other");
  await result(world, prepareRows(kv));
  await dieAfter(world, 3, (client) => client.kv.transact(MOVE));
  const startMs = env.monotonicMs();
  const write = kv.apply({ row: "a", mutations: [put("c", "mine")] });
  assert((await result(world, write)).applied);
  const waitedMs = env.monotonicMs() - startMs;
  assert(waitedMs >= LOCK_LIFE_MS - 100 && waitedMs < LOCK_LIFE_MS + 1000, `waited ${waitedMs} ms`);
  assert.equal(await result(world, textOf(kv, "x")), "old x");
});

Deno.test("transaction() runs again when what it read has changed, and reads its own writes", async () => {
  const world = quietWorld(), one = world.client("one"), two = world.client("two");
  await result(world, one.kv.apply({ row: "a", mutations: [put("c", "1")] }));
  let runs = 0;
  const work = transaction(one, async (tx) => {
    runs += 1;
    const value = Number(await tx.text("a", "c"));
    if (runs === 1) await two.kv.apply({ row: "a", mutations: [put("c", "10")] });
    tx.put("z", "c", encodeText(String(value + 1)));
    assert.equal(await tx.text("z", "c"), String(value + 1));
    tx.delete("a", "c");
    assert.equal(await tx.text("a", "c"), null);
    return value;
  });
  assert.equal(await result(world, work), 10);
  assert.equal(runs, 2);
  assert.equal(await result(world, textOf(one.kv, "z")), "11");
  assert.equal(await result(world, textOf(one.kv, "a")), null);
});

Deno.test("transaction() hands on an error of its code only if what it read was consistent", async () => {
  const world = quietWorld(), one = world.client("one"), two = world.client("two");
  let runs = 0;
  const work = transaction(one, async (tx) => {
    runs += 1;
    await tx.get("a", "c");
    if (runs === 1) await two.kv.apply({ row: "a", mutations: [put("c", "1")] });
    throw new Error(`run ${runs}`);
  }).catch((error) => (error as Error).message);
  assert.equal(await result(world, work), "run 2");
});

// ------------------------------------------------------------------ many clients at once

async function runSeed(seed: number): Promise<{ committed: number; deaths: number }> {
  const pause = [0, 0.01, 0.1][seed % 3]!, loss = [0.02, 0, 0.05, 0.01][seed % 4]!;
  const world = new TransactionWorld({ seed, splitAt: ["g", "p"], pause, loss });
  const { random, store } = world, workload = new TransactionWorkload(world);
  await workload.open(store);
  const clients = Array.from(
    { length: 2 + random.integer(4) },
    (_, index) => world.client(`c${index}`, random.chance(0.6) ? random.integer(120) : Infinity),
  );
  const running = clients.map((client) => workload.run(client, 6 + random.integer(8)));
  const living = running.filter((_, index) => clients[index]!.turnsMax === Infinity);
  const witness = world.client("witness");
  await world.run(Promise.all([...living, workload.run(witness, 8)]));
  for (const client of clients) if (client.turnsMax < Infinity) client.die();
  await world.clearLocks();
  assert.deepEqual(world.internalCells(), [], "no lock and no decision is left");
  await world.run(workload.readAll(witness));
  await workload.check(store);
  return { committed: workload.committed, deaths: clients.filter(({ dead }) => dead).length };
}

Deno.test("transactions through each other are strictly serializable, whoever dies and whatever is lost", async () => {
  const [first, count] = [Number(Deno.env.get("SEED") ?? 1), Number(Deno.env.get("SEEDS") ?? 60)];
  let committed = 0, deaths = 0;
  for (let seed = first; seed < first + count; seed++) {
    try {
      const run = await runSeed(seed);
      committed += run.committed;
      deaths += run.deaths;
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
  if (count < 20) return;
  assert(committed > count * 5, `only ${committed} transactions committed in ${count} runs`);
  assert(deaths > count / 4, `only ${deaths} clients died in ${count} runs`);
});
