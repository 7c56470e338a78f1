/** Tablets that move from one replica group to another in a cluster of real processes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { KvError } from "../../kv/errors.ts";
import { decodeText, encodeText, put, scanSnapshot } from "../../kv/kv.ts";
import type { TabletStatus } from "../../proto/cluster_status.ts";
import { coordinatorConversation } from "../../proto/control.ts";
import { groupId } from "../../proto/ids.ts";
import type { EndedMove } from "../../proto/moves.ts";
import { eventually } from "../eventually.ts";
import { statusOf, verifiedEqual, withConnection } from "./cluster_calls.ts";
import { startCluster, type TestCluster } from "./harness.ts";
import { Workload } from "./workload.ts";

interface Shown {
  readonly id: string;
  readonly groupId: number;
  readonly startKey: string;
  readonly endKey: string | null;
  readonly primary: number | null;
  readonly bytes: number;
}

async function json<T>(cluster: TestCluster, args: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await cluster.penncloud([...args, "--json"]);
  if (code !== 0) throw new Error(`admin ended with ${code}: ${stderr}`);
  return JSON.parse(stdout);
}

/** How many cells the writers added depends on the machine alone. */
const everythingUnder = (prefix: string) => ({ prefix, keysOnly: true, cellsMax: 1_000_000 });

const tabletsOf = (cluster: TestCluster) => json<Shown[]>(cluster, ["admin", "tablets"]);

Deno.test("a tablet moves to another group and back while it is written, and nobody notices", async () => {
  await using cluster = await startCluster();
  const { kv } = cluster;
  const work = new Workload(kv, { rows: ["barn", "bell", "boat", "tree"] });
  await work.progress(200);
  await json(cluster, ["admin", "split", "bd"]);
  await put(kv, "before", "large", new Uint8Array(300_000).fill(7));
  await put(kv, "before", "small", encodeText("7"));
  const source = (await tabletsOf(cluster))[0]!.groupId;
  const target = source === 1 ? 2 : 1;
  const ended = await json<{ outcome: string }>(
    cluster,
    ["admin", "move", `${source}.2`, String(target)],
  );
  assert.equal(ended.outcome, "committed");
  await work.progress(200);
  await eventually(
    async () =>
      (await tabletsOf(cluster)).find(({ startKey }) => startKey === "bd")?.groupId === target,
    "the status shows where it is",
  );
  assert.equal((await kv.get("before", "large"))?.value.length, 300_000);
  const rows = (await scanSnapshot(kv, everythingUnder("b"))).map(({ row }) => row);
  assert.deepEqual([...new Set(rows)], ["barn", "before", "bell", "boat"]);
  const there = (await tabletsOf(cluster)).find(({ startKey }) => startKey === "bd")!;
  await json(cluster, ["admin", "move", there.id, String(source)]);
  await work.progress(200);
  assert.equal(decodeText((await kv.get("before", "small"))!.value), "7");
  await work.stop();
  assert.deepEqual(work.refused, []);
  await work.check();
  await verifiedEqual(cluster);
});

const MIB = 1024 * 1024;
const ROW_BYTES = 4096;
/** A move that nobody goes on with is given up after half a minute. */
const OVER_WITHIN_MS = 120_000;

/** Some megabytes of rows under a prefix, and a boundary on each side: a tablet of its own. */
async function fillTablet(cluster: TestCluster, prefix: string, bytes: number): Promise<void> {
  const value = new Uint8Array(ROW_BYTES);
  const rows = Array.from({ length: Math.ceil(bytes / ROW_BYTES) }, (_, i) => `${prefix}${i}`);
  for (let i = 0; i < rows.length; i += 64) {
    await Promise.all(rows.slice(i, i + 64).map((row) => put(cluster.kv, row, "c", value)));
  }
  await json(cluster, ["admin", "split", prefix]);
  await json(cluster, ["admin", "split", `${prefix}~`]);
  await eventually(
    async () => (await tabletAt(cluster, prefix)).endKey === `${prefix}~`,
    "the status shows both boundaries",
    { withinMs: OVER_WITHIN_MS },
  );
}

/** So slow that there is time to do something in the middle of a move. */
async function startSlow(bytesPerSecond: number): Promise<TestCluster & AsyncDisposable> {
  const config = await Deno.makeTempFile({ suffix: ".toml" });
  const text = await Deno.readTextFile(new URL("../../cluster.small.toml", import.meta.url));
  const rate = /^move_bytes_per_second = .*$/m;
  assert.match(text, rate);
  const slow = text.replace(rate, `move_bytes_per_second = ${bytesPerSecond}`);
  await Deno.writeTextFile(config, slow);
  return await startCluster({ config });
}

/** The tablet that begins at `startKey`, once the status shows it with a primary. */
async function tabletAt(cluster: TestCluster, startKey: string): Promise<TabletStatus> {
  let found: TabletStatus | undefined;
  await eventually(
    async () => {
      const status = await statusOf(cluster).catch(() => null);
      found = status?.tablets.find((tablet) => tablet.startKey === startKey);
      return found !== undefined && found.primary !== null;
    },
    `the status shows the tablet at "${startKey}"`,
    { withinMs: OVER_WITHIN_MS },
  );
  return found!;
}

async function primaryOfGroup(cluster: TestCluster, gid: number): Promise<string> {
  const { tablets } = await statusOf(cluster);
  return `backend/${tablets.find(({ groupId }) => groupId === gid)!.primary}`;
}

/** Once the coordinator has listened to the nodes for long enough to decide about moves. */
async function beginMove(cluster: TestCluster, tablet: TabletStatus, to: number): Promise<number> {
  const tabletId = Number(tablet.id.split(".")[1]);
  const wish = { from: groupId(tablet.groupId), tabletId, to: groupId(to) };
  let id: number | null = null;
  const begin = async () => {
    try {
      id = await withConnection(cluster, cluster.node("coordinator/0"), async (connection) => {
        return (await connection.call(coordinatorConversation, "beginMove", wish)).body.id;
      });
    } catch (error) {
      if (!(error instanceof KvError) || error.code !== "unavailable") throw error;
    }
    return id !== null;
  };
  await eventually(begin, "the coordinator lets a move begin", { withinMs: OVER_WITHIN_MS });
  return id!;
}

/** How a move ended, once it has. */
async function endOf(cluster: TestCluster, id: number): Promise<EndedMove> {
  let ended: EndedMove | undefined;
  await eventually(
    async () => {
      const map = await withConnection(
        cluster,
        cluster.node("coordinator/0"),
        (connection) => connection.call(coordinatorConversation, "rangeMap", {}),
      ).catch(() => null);
      ended = map?.body.ended.find((move) => move.id === id);
      return ended !== undefined;
    },
    `move ${id} is over`,
    { withinMs: OVER_WITHIN_MS },
  );
  return ended!;
}

Deno.test("a tablet is whole, and one group's, whoever is killed in the middle of its move", async (t) => {
  await using cluster = await startSlow(MIB);
  const { kv } = cluster;
  await fillTablet(cluster, "ba", 8 * MIB);
  const work = new Workload(kv, { rows: ["ba0", "ba77", "bb", "tree"] });
  await work.progress(100);
  const victims: [string, (from: number, to: number) => Promise<string>][] = [
    ["the primary of the group that gives it", (from) => primaryOfGroup(cluster, from)],
    ["the primary of the group that takes it", (_, to) => primaryOfGroup(cluster, to)],
    ["the coordinator", () => Promise.resolve("coordinator/0")],
  ];
  for (const [who, victimOf] of victims) {
    await t.step(`${who} is killed`, async () => {
      const tablet = await tabletAt(cluster, "ba"), from = tablet.groupId;
      const to = from === 1 ? 2 : 1, victim = await victimOf(from, to);
      const id = await beginMove(cluster, tablet, to);
      await eventually(
        async () => ((await tabletAt(cluster, "ba")).move?.bytes ?? 0) > MIB,
        "a part of it was copied",
        { withinMs: OVER_WITHIN_MS },
      );
      await cluster.crash(victim);
      const { outcome } = await endOf(cluster, id);
      await cluster.waitReady(victim);
      await work.progress(100);
      const owner = outcome === "committed" ? to : from;
      await eventually(
        async () => (await tabletAt(cluster, "ba")).groupId === owner,
        `group ${owner} shows the tablet, for the move was ${outcome}`,
        { withinMs: OVER_WITHIN_MS },
      );
    });
  }
  await work.stop();
  assert.deepEqual(work.refused, []);
  await work.check();
  const found = new Set<string>();
  for (const { row } of await scanSnapshot(kv, everythingUnder("ba"))) found.add(row);
  assert.equal(found.size, 8 * MIB / ROW_BYTES);
  await verifiedEqual(cluster);
});

Deno.test("lost records about tablets that moved are made anew from the nodes, even if all forgot them", async () => {
  await using cluster = await startCluster();
  const { kv } = cluster;
  await fillTablet(cluster, "ba", 64 * 1024);
  const tablet = await tabletAt(cluster, "ba"), from = tablet.groupId, to = from === 1 ? 2 : 1;
  assert.equal((await endOf(cluster, await beginMove(cluster, tablet, to))).outcome, "committed");
  await put(kv, "ba1", "c", encodeText("there"));
  await cluster.kill("coordinator/0");
  const backends = ["backend/0", "backend/1", "backend/2"];
  for (const name of backends) await cluster.kill(name);
  await Deno.remove(join(cluster.dir, "coordinator-0"), { recursive: true });
  for (const name of ["coordinator/0", ...backends]) await cluster.restart(name);
  for (const name of backends) await cluster.waitAnswering(name);
  await eventually(
    async () => {
      const status = await statusOf(cluster).catch(() => null);
      return status?.problems.some((text) => /newer moves of tablets/.test(text)) === true;
    },
    "the coordinator to say that its records are lost",
    { withinMs: OVER_WITHIN_MS },
  );
  await json(cluster, ["admin", "recover-meta"]);
  await eventually(
    async () => (await tabletAt(cluster, "ba")).groupId === to,
    "the status shows who has the tablet",
    { withinMs: OVER_WITHIN_MS },
  );
  assert.equal(decodeText((await kv.get("ba1", "c", { deadlineMs: 60_000 }))!.value), "there");
  await put(kv, "ba1", "c", encodeText("and back"), { deadlineMs: 60_000 });
  const id = await beginMove(cluster, await tabletAt(cluster, "ba"), from);
  assert(id > 1, "a move's number is not given twice");
  assert.equal((await endOf(cluster, id)).outcome, "committed");
  assert.equal(decodeText((await kv.get("ba1", "c"))!.value), "and back");
});

Deno.test("what cannot be moved is said to be so", async () => {
  await using cluster = await startCluster();
  const [tablet] = await tabletsOf(cluster);
  const refused = async (id: string, group: string) => {
    const { code, stderr } = await cluster.penncloud(["admin", "move", id, group]);
    assert.equal(code, 2, stderr);
    return stderr;
  };
  assert.match(await refused(tablet!.id, String(tablet!.groupId)), /it is there already/);
  assert.match(
    await refused(`${tablet!.groupId}.9`, "2"),
    /Cannot find tablet \d\.9: group \d has \d\.1/,
  );
  assert.match(
    await refused("nonsense", "2"),
    /Cannot find tablet "nonsense": expected a group and a number/,
  );
  assert.match(await refused(tablet!.id, "77"), /Cannot find group "77": expected one of 1, 2, 3/);
});
