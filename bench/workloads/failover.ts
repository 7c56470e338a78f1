/**
 * The death of the node that orders writes, by kill -9 under write load while its host lives: the
 * longest time without an acknowledged write. PennCloud's primary of one group, and etcd's leader, in
 * turn.
 *
 * Writers never give up: what was not acknowledged is asked again until it is, by PennCloud's client
 * itself, and for etcd at the next member.
 */
import { allHealthy, primaryOf } from "../../tests/cluster/cluster_calls.ts";
import { connectEtcd } from "../clients/etcd_client.ts";
import { connectPennCloud } from "../clients/penncloud_client.ts";
import type { StoreClient } from "../clients/store_client.ts";
import type { Bench, BenchRun } from "../bench_run.ts";
import { keyName } from "../load/key_choice.ts";
import { type BenchResult, bytesText, type PeerRatio, type Row } from "../report.ts";
import { ratiosOf, spreadOf } from "../statistics.ts";
import { Etcd } from "../systems/etcd.ts";
import { PennCloud } from "../systems/penncloud.ts";

const WARM_UP_MS = 2_000;
const AFTER_MS_MIN = 3_000;
const GAP_MS_MAX = 60_000;
const KEYS = 1_000;

export const failover: Bench = {
  name: "failover",
  about: "the longest gap under write load when the primary is killed, against etcd's leader",
  run: measureFailover,
};

/** A system whose leading node can be killed. */
interface Mortal {
  readonly name: string;
  readonly connect: () => Promise<StoreClient>;
  /** Kills the one that leads; resolves as soon as it is dead. */
  readonly kill: () => Promise<void>;
  /** Until everything is as it was. */
  readonly mend: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

async function measureFailover(run: BenchRun): Promise<BenchResult> {
  const { rounds, valueBytes: [bytes], outstanding } = run.options;
  const writers = Math.max(...outstanding), mortals = [await mortalPennCloud(run)];
  const gaps = new Map<Mortal, number[]>();
  try {
    const etcd = new Etcd(), reason = await etcd.whyNot();
    if (!run.options.against.includes(etcd.name)) run.say("etcd was not asked for");
    else if (reason === null) mortals.push(await mortalEtcd(run, etcd));
    else run.note(`left out: etcd, because ${reason}`);
    for (let round = 1; round <= rounds; round++) {
      for (const mortal of mortals) {
        await run.untilIdle();
        const gapMs = await longestGap(mortal, { writers, valueBytes: bytes! });
        gaps.set(mortal, [...gaps.get(mortal) ?? [], gapMs]);
        run.say(`kill ${round}: ${mortal.name} acknowledged nothing for ${gapMs.toFixed(0)} ms`);
      }
    }
  } finally {
    await Promise.allSettled(mortals.map((mortal) => mortal.stop()));
  }
  const name = `kill -9 under ${writers} writers of ${bytesText(bytes!)}`;
  const rows = mortals.map((mortal): Row => ({
    system: mortal.name,
    case: name,
    rate: spreadOf(gaps.get(mortal)!),
    unit: "ms gap",
  }));
  const [ours, ...others] = mortals;
  const peers = others.map((other): PeerRatio => ({
    system: other.name,
    case: `${name}: milliseconds, so less is better`,
    ratio: ratiosOf(gaps.get(ours!)!, gaps.get(other)!),
  }));
  return { rows, peers, notes: run.notes };
}

/** One death: writes before, the kill, and writes until the gap is surely over. */
async function longestGap(
  mortal: Mortal,
  { writers, valueBytes }: { writers: number; valueBytes: number },
): Promise<number> {
  const client = await mortal.connect();
  const value = new Uint8Array(valueBytes).fill(7);
  let writing = true, lastAckMs = performance.now(), longestMs = 0, count = 0, killed = false;
  const write = async (writer: number) => {
    for (let n = writer; writing; n += writers) {
      await client.put(keyName(n % KEYS, "one"), value);
      const nowMs = performance.now();
      if (killed) longestMs = Math.max(longestMs, nowMs - lastAckMs);
      lastAckMs = nowMs;
      count += 1;
    }
  };
  const all = Promise.all(Array.from({ length: writers }, (_, writer) => write(writer)));
  const failed = all.then(() => {});
  try {
    await Promise.race([failed, pause(WARM_UP_MS)]);
    killed = true;
    await mortal.kill();
    const countAtDeath = count, killedMs = performance.now();
    do {
      await Promise.race([failed, pause(AFTER_MS_MIN)]);
      if (performance.now() - killedMs > GAP_MS_MAX) {
        throw new Error(`${mortal.name} acknowledged nothing for ${GAP_MS_MAX} ms`);
      }
    } while (count < countAtDeath + writers * 2);
  } finally {
    writing = false;
    await all.catch(() => {});
    client.close();
  }
  await mortal.mend();
  return longestMs;
}

async function mortalPennCloud(run: BenchRun): Promise<Mortal> {
  const { cluster, target, name, stop } = await new PennCloud().start(await run.folder());
  return {
    name,
    connect: () => connectPennCloud(target),
    kill: async () => await cluster.crash(await primaryOf(cluster, keyName(0, "one"))),
    mend: () => allHealthy(cluster),
    stop,
  };
}

async function mortalEtcd(run: BenchRun, etcd: Etcd): Promise<Mortal> {
  const { target, name, leader, crash, restart, stop } = await etcd.start(await run.folder());
  if (target.system !== "etcd") throw new Error("etcd is not etcd");
  let dead = -1;
  return {
    name,
    connect: () => connectEtcd(target.ports, { retryMs: GAP_MS_MAX }),
    kill: async () => await crash(dead = await leader()),
    mend: () => restart(dead),
    stop,
  };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
