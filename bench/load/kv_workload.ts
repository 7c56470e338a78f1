/**
 * The workloads on rows: what each loop of a client process does next.
 *
 * | name    | an operation is                                                        |
 * | ------- | ---------------------------------------------------------------------- |
 * | put     | one value written over what is there, keys uniform                     |
 * | get     | one value read, linearizably, keys uniform                             |
 * | cput    | one value written if its key is as this loop left it                   |
 * | mixed95 | 95 % get, 5 % put, keys zipfian                                        |
 * | mixed50 | half and half, keys zipfian                                            |
 * | scan    | 100 keys in order with their values, from a uniform key on             |
 */
import { SeededRandom } from "../../tests/sim/seeded_random.ts";
import type { StoreClient } from "../clients/store_client.ts";
import { keyName, type KeySpread, uniformKeys, zipfianKeys } from "./key_choice.ts";

export const KV_WORKLOADS = ["put", "get", "cput", "mixed95", "mixed50", "scan"] as const;
export type KvWorkload = typeof KV_WORKLOADS[number];

export interface KvLoad {
  readonly workload: KvWorkload;
  readonly outstanding: number;
  readonly valueBytes: number;
  readonly keyCount: number;
  readonly spread: KeySpread;
  readonly seed: number;
}

const SCAN_KEYS = 100;
/** Keys of its own that a loop of `cput` goes round. */
const CPUT_KEYS = 64;

/** The operation of each loop. Reading a key that the fill has written and not finding it fails. */
export function kvOperation(
  client: StoreClient,
  load: KvLoad,
): (loop: number) => Promise<unknown> {
  const { workload, keyCount, spread, valueBytes } = load;
  const random = new SeededRandom(load.seed);
  const values = someValues(valueBytes, random);
  const nextValue = () => values[random.integer(values.length)]!;
  const uniform = uniformKeys(keyCount, random);
  const put = (n: number) => client.put(keyName(n, spread), nextValue());
  const get = async (n: number) => {
    const size = await client.get(keyName(n, spread));
    if (size !== valueBytes) {
      throw new Error(`Key ${keyName(n, spread)} has ${size} bytes instead of ${valueBytes}`);
    }
  };
  switch (workload) {
    case "put":
      return () => put(uniform());
    case "get":
      return () => get(uniform());
    case "cput": {
      const turns: number[] = [];
      return (loop) => {
        const turn = turns[loop] = (turns[loop] ?? -1) + 1;
        const name = `${load.seed}.${loop}.${turn % CPUT_KEYS}`;
        const own = keyName(turn % CPUT_KEYS + loop * CPUT_KEYS, spread);
        return client.compareAndPut(`${own}/${name}`, nextValue());
      };
    }
    case "mixed95":
    case "mixed50": {
      const zipfian = zipfianKeys(keyCount, random), puts = workload === "mixed95" ? 0.05 : 0.5;
      return () => random.chance(puts) ? put(zipfian()) : get(zipfian());
    }
    case "scan":
      return async () => {
        const found = await client.scan(keyName(uniform(), spread), SCAN_KEYS);
        if (found === 0) throw new Error("A scan found nothing");
      };
  }
}

/** A few values that differ, made once: making them anew would be measured too. */
function someValues(bytes: number, random: SeededRandom): Uint8Array[] {
  const count = bytes > 64 * 1024 ? 2 : 16;
  return Array.from({ length: count }, () => {
    const value = new Uint8Array(bytes);
    for (let at = 0; at < bytes; at++) value[at] = random.integer(256);
    return value;
  });
}

/** Writes keys `from` to `until`, so that everything that is read exists. */
export async function fillKeys(
  client: StoreClient,
  { from, until, spread, valueBytes, outstanding }: {
    from: number;
    until: number;
    spread: KeySpread;
    valueBytes: number;
    outstanding: number;
  },
): Promise<void> {
  const [value] = someValues(valueBytes, new SeededRandom(1));
  let next = from;
  const loop = async () => {
    while (next < until) await client.put(keyName(next++, spread), value!);
  };
  await Promise.all(Array.from({ length: outstanding }, loop));
}
