/**
 * Which keys a workload touches: every client process draws from its own seed, so that two runs ask
 * for the same things.
 *
 * Names begin with letters spread evenly over the alphabet, and so over the replica groups, as the
 * product's own chunk ids do; or, to load one group alone, all with "a". Zipfian keys follow Gray et al.
 * (SIGMOD 1994) as in YCSB: theta 0.99, where of 10,000 keys one in ten requests wants the first.
 */
import type { SeededRandom } from "../../tests/sim/seeded_random.ts";

/** all: over all replica groups. one: in the first. */
export type KeySpread = "all" | "one";

/** The name of key `n`; the same for everybody. */
export function keyName(n: number, spread: KeySpread): string {
  const digits = String(n).padStart(8, "0");
  if (spread === "one") return `a/${digits}`;
  const mixed = scramble(n);
  return `${letter(mixed % 26)}${letter(Math.floor(mixed / 26) % 26)}/${digits}`;
}

const letter = (n: number): string => String.fromCharCode(97 + n);

/** A fixed mixing of a whole number's bits (murmur3's finalizer). */
function scramble(n: number): number {
  let bits = n >>> 0;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}

export type KeyChoice = () => number;

/** Every key as likely as any other. */
export function uniformKeys(keyCount: number, random: SeededRandom): KeyChoice {
  return () => Math.floor(random.next() * keyCount);
}

/** Key 0 the most wanted, then 1, and so on. */
export function zipfianKeys(keyCount: number, random: SeededRandom, theta = 0.99): KeyChoice {
  const zetaN = zeta(keyCount, theta), alpha = 1 / (1 - theta);
  const eta = (1 - (2 / keyCount) ** (1 - theta)) / (1 - zeta(2, theta) / zetaN);
  return () => {
    const u = random.next(), uz = u * zetaN;
    if (uz < 1) return 0;
    if (uz < 1 + 0.5 ** theta) return Math.min(1, keyCount - 1);
    return Math.min(keyCount - 1, Math.floor(keyCount * (eta * u - eta + 1) ** alpha));
  };
}

function zeta(count: number, theta: number): number {
  let sum = 0;
  for (let n = 1; n <= count; n++) sum += 1 / n ** theta;
  return sum;
}
