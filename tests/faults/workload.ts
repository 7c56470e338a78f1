/**
 * What every workload of a campaign has in common: lanes that do one operation after the other, with
 * a breath in between, until they are told to stop; and a check of everything at the end.
 */
import type { FullCell, Kv } from "../../kv/kv.ts";
import type { GroupPlan } from "../../proto/cluster_config.ts";
import type { HistoryEvent } from "../checkers/history.ts";
import type { SeededRandom } from "../sim/seeded_random.ts";
import type { Tally } from "./tally.ts";

export interface WorkloadContext {
  /** Each with connections of its own. */
  readonly clients: readonly Kv[];
  readonly groups: readonly GroupPlan[];
  readonly random: SeededRandom;
  readonly tally: Tally;
  /** The URL of a frontend. */
  readonly door: string;
  /** Asks one replica for a cell. It answers only if it takes itself for the primary. */
  askReplica(question: ReplicaQuestion): Promise<FullCell | null>;
  /** Told of everything that recording clients do, as it happens. */
  onHistory(event: HistoryEvent): void;
  /** Keeps lines as evidence of what went wrong. */
  keep(name: string, lines: Iterable<string>): void;
}

export interface ReplicaQuestion {
  readonly node: number;
  readonly gid: number;
  readonly row: string;
  readonly column: string;
  readonly timeoutMs: number;
}

export interface Workload {
  readonly name: string;
  /** Makes what it needs, before any fault strikes. */
  prepare?(): Promise<void>;
  /** Runs until `stop`; rejects with errors that no store may cause. */
  run(stop: AbortSignal): Promise<void>;
  /** Called between two faults, when the cluster is whole: judges and forgets what is finished. */
  settle?(kv: Kv): Promise<void>;
  /** Called in the quiet at the end. One sentence for everything that is wrong. */
  check(kv: Kv): Promise<string[]>;
  /** What was checked, for people: `1200 appends`. */
  describe(): string;
}

/** Rows of this group begin with it. */
export const prefixOf = ({ startKey }: GroupPlan): string => startKey === "" ? "a" : startKey;

/** Rests for about `ms`, or until `stop`. */
export function breathe(ms: number, { random, stop }: {
  random: SeededRandom;
  stop: AbortSignal;
}): Promise<void> {
  if (stop.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      stop.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms * (0.5 + random.next()));
    stop.addEventListener("abort", done);
  });
}

/** Repeats `step` in so many lanes for each group at once, until `stop`. */
export async function inLanes(
  context: WorkloadContext,
  options: { perGroup: number; breathMs: number; stop: AbortSignal },
  step: (lane: { group: GroupPlan; kv: Kv; name: string }) => Promise<void>,
): Promise<void> {
  const { clients, groups, random } = context, { perGroup, breathMs, stop } = options;
  await Promise.all(groups.flatMap((group, g) =>
    Array.from({ length: perGroup }, async (_, i) => {
      const index = g * perGroup + i, kv = clients[index % clients.length]!;
      while (!stop.aborted) {
        await step({ group, kv, name: `${group.id}.${i}` });
        await breathe(breathMs, { random, stop });
      }
    })
  ));
}

/** The first few of many, for a sentence. */
export function some(items: readonly string[], shownMax = 5): string {
  const shown = items.slice(0, shownMax).join(", ");
  return items.length > shownMax ? `${shown} and ${items.length - shownMax} more` : shown;
}
