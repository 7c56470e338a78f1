/**
 * Faults and those who make them. A nemesis draws a fault from a seed, the campaign begins it, lets
 * it hold for a while, and ends it: from then on the cluster must mend itself.
 *
 * Planning may take its time (it asks who is primary, and under which process id); `begin` strikes
 * at once. Whatever `begin` has done, `end` undoes as far as an operator would.
 */
import type { SeededRandom } from "../sim/seeded_random.ts";
import type { FaultCluster } from "./fault_cluster.ts";

export interface Fault {
  /** For people: `kill -9 backend/1`. */
  readonly what: string;
  /** Backends that are away because of it: what that costs their tablets is measured. */
  readonly victims: readonly string[];
  /** What gaps are called, by what a victim was for the tablet. Absent: they are not measured. */
  readonly gaps?: GapNames;
  /** The group whose probes' tablet changes its place, without anybody being away. */
  readonly moved?: number;
  /** No operation may fail because of it. */
  readonly harmless?: boolean;
  /** Between begin and end; 0 for a blow that is over at once. */
  readonly holdMs: number;
  begin(): Promise<void>;
  end(): Promise<void>;
}

/** What a fault itself saw the store do that it may never do. */
export class GuaranteeBroken extends Error {
  override readonly name = "GuaranteeBroken";
  constructor(message: string) {
    super(`GUARANTEE BROKEN: ${message}`);
  }
}

export interface GapNames {
  readonly primary?: string;
  readonly secondary?: string;
  /** Tablets that no victim belongs to. */
  readonly other?: string;
  /** The tablet of the probes of `moved`. */
  readonly moved?: string;
  /** Counts from the end of the fault, not from the last write before it: time to writable. */
  readonly sinceEnd?: boolean;
}

export interface Nemesis {
  /** As in `--only`. */
  readonly name: string;
  /** One line for `--help`. */
  readonly about: string;
  /** Whether another fault may strike while this one holds. */
  readonly combines: boolean;
  /** Whether the cluster has to have links between its hosts. */
  readonly needsLinks?: boolean;
  /** Whether the backends have to have small disks of their own. */
  readonly needsDisks?: boolean;
  /** Null, or the reason why this machine cannot do it. */
  whyNot?(): Promise<string | null>;
  plan(cluster: FaultCluster, random: SeededRandom): Promise<Fault>;
}

/** The primary of a tablet drawn at random: so every blow costs somebody a primary. */
export async function drawPrimary(cluster: FaultCluster, random: SeededRandom): Promise<string> {
  const { tablets } = await cluster.status();
  const primaries = tablets.flatMap(({ primary }) => primary === null ? [] : [primary]);
  if (primaries.length === 0) throw new Error("No tablet has a primary");
  return `backend/${random.pick(primaries)}`;
}

/** Figures for both roles of who was hit. */
export const hit = (how: string): GapNames => ({
  primary: `primary ${how}`,
  secondary: `secondary ${how}`,
});

/** Uniform between the two, whole milliseconds. */
export const drawMs = (random: SeededRandom, min: number, max: number): number =>
  min + random.integer(max - min + 1);

/** All orders of `items`: six of three. */
export function ordersOf<T>(items: readonly T[]): T[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item, i) => ordersOf(items.toSpliced(i, 1)).map((rest) => [item, ...rest]));
}
