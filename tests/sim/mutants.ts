/**
 * The deliberate bugs of kv/mutant.ts: what each of them breaks, and a seed with which the simulator
 * finds it. `deno task sim --list-mutants` prints this list, `--mutant NAME` runs one,
 * `--mutants` searches for all of them anew.
 *
 * A mutant that no seed finds would mean that the simulator does not look where the bug is. What
 * random search does not reach has a scenario of its own (scenarios.ts).
 */
import type { MutantName } from "../../kv/mutant.ts";
import { failureOf } from "./failing_seed.ts";
import { SCENARIOS } from "./scenarios.ts";

export interface MutantInfo {
  readonly breaks: string;
  /** One that finds it; absent while none is known. */
  readonly seed?: number;
}

export const MUTANTS: Readonly<Record<MutantName, MutantInfo>> = {
  "ack-before-fsync": {
    breaks: "a secondary acknowledges entries that are not on its disk",
    seed: 1,
  },
  "own-fsync-not-counted": {
    breaks: "a primary commits before the entry is on its own disk",
    seed: 1,
  },
  "commit-below-minimum": {
    breaks: "a primary commits with fewer members than the minimum",
    seed: 5,
  },
  "add-not-counted": { breaks: "commits do not wait for the member that is being added", seed: 3 },
  "promises-ignored": {
    breaks: "a new primary does not wait for what it promised to the last one",
  },
  "no-boot-wait": { breaks: "a restarted process forgets the promise that it may have given" },
  "short-grace": { breaks: "a promise binds for less time than the primary reads by it" },
  "no-lease": { breaks: "a primary reads without any promise", seed: 5 },
  "lease-from-receipt": { breaks: "a lease is counted from the answer, not from the question" },
  "lease-without-eligible": { breaks: "no promise is asked of eligible members", seed: 27 },
  "lease-without-pending-add": { breaks: "no promise is asked of the member that is being added" },
  "stale-read-after-pause": { breaks: "a lease is compared with the time before the pause" },
  "limbo-ignored": { breaks: "rows that an undecided entry touches are read as decided", seed: 2 },
  "record-not-asked": {
    breaks: "a read trusts an answer of the records about another epoch",
    seed: 5,
  },
  "round-before-read": { breaks: "a read is confirmed by a round that began before it" },
  "echo-without-lease": { breaks: "a primary without leases vouches for what followers read" },
  "epoch-start-not-awaited": { breaks: "a new primary reads before it has reconciled", seed: 2 },
  "relinquished-serves": { breaks: "a primary goes on after it has handed over" },
  "older-epochs-accepted": { breaks: "a follower obeys the primary of an older epoch", seed: 1 },
  "reign-not-checked": { breaks: "answers given in an earlier reign count in this one" },
  "reign-not-restarted": { breaks: "who is elected again keeps what it knew from before" },
  "epoch-reused-after-restart": { breaks: "a restarted primary goes on in its old epoch" },
  "incarnation-not-checked": {
    breaks: "a process answers to what was meant for the one before it",
    seed: 1,
  },
  "store-not-checked": { breaks: "acknowledgements of a replaced disk count for the new one" },
  "epoch-not-durable-before-answer": { breaks: "an epoch is obeyed before it is on disk" },
  "match-without-epoch": { breaks: "logs are matched by position alone", seed: 1 },
  "truncation-below-commit": { breaks: "committed entries may be cut off" },
  "unverified-log-applied": {
    breaks: "a follower applies entries that the primary may not have",
    seed: 1,
  },
  "unknown-change-is-done": {
    breaks: "a removal counts before anybody knows that it happened",
    seed: 27,
  },
  "lost-append-not-resent": { breaks: "what was lost on the way is never sent again", seed: 7 },
  "non-member-elected": { breaks: "a replica that is not in sync becomes primary", seed: 7 },
  "eligible-not-cleared": {
    breaks: "who left stays electable after commits went on without it",
    seed: 1,
  },
  "silence-is-death": { breaks: "a silent primary is taken for a dead one" },
  "proposal-epoch-not-checked": { breaks: "a change is made to another configuration than meant" },
  "restart-not-noticed": { breaks: "a restarted primary is not elected anew", seed: 7 },
  "rollback-not-noticed": { breaks: "records that went back in time are acted on", seed: 3 },
  "completion-not-recorded": { breaks: "a retry is executed again", seed: 1 },
  "completion-not-checkpointed": { breaks: "a checkpoint forgets what was executed" },
  "completion-lost-on-failover": { breaks: "a new primary forgets what was executed", seed: 7 },
  "completion-dropped-early": { breaks: "only a client's last request is remembered", seed: 5 },
  "copy-in-log-executed": {
    breaks: "two copies of one request in the log are both executed",
    seed: 18,
  },
  "condition-checked-again": {
    breaks: "a retried compare-and-put that succeeded says mismatch",
    seed: 3,
  },
  "request-age-not-checked": { breaks: "a request older than any record of it is executed" },
  "hash-without-version": {
    breaks: "replicas that differ in versions alone look the same",
    seed: 1,
  },
  "retry-with-new-number": { breaks: "a client's retry is another request", seed: 1 },
  "unknown-reported-as-failed": {
    breaks: "a client says that a write did not happen, unknowing",
    seed: 4,
  },
  "log-acks-before-sync": { breaks: "the log does not wait for its syncs", seed: 7 },
  "batch-before-sync": {
    breaks: "a batch is written before the one before it is on disk",
    seed: 10,
  },
  "segment-name-not-synced": { breaks: "a new segment's name is not made durable", seed: 7 },
  "torn-tail-kept": {
    breaks: "a torn batch stays in the log, and others are written behind it",
    seed: 41,
  },
  "corruption-is-torn-tail": {
    breaks: "damage in the middle of the log is cut off with all behind",
  },
  "recovered-log-not-synced": {
    breaks: "what was read back at the start is taken for durable",
    seed: 9,
  },
  "failed-sync-trusted": {
    breaks: "what a failed sync left in memory is taken for durable",
    seed: 9,
  },
  "log-released-before-checkpoint": { breaks: "the log goes before the checkpoint is there" },
  "checkpoint-claims-too-much": {
    breaks: "a checkpoint says that it holds more than it does",
    seed: 6,
  },
  "commit-hint-too-high": {
    breaks: "the log says that entries are committed which are not",
    seed: 6,
  },
  "large-value-not-awaited": { breaks: "an entry is logged before the file that it names is" },
  "snapshot-without-completions": { breaks: "a fetched checkpoint forgets what was executed" },
  "unknown-change-is-refused": { breaks: "a proposal without an answer is taken for refused" },
};

export function listMutants(): string {
  return Object.entries(MUTANTS).map(([name, { breaks }]) => `${name.padEnd(32)} ${breaks}`)
    .join("\n");
}

/** Searches for every one among seeds 1 to `seedsMax`; false when one is not found. */
export async function findMutants(seedsMax: number): Promise<boolean> {
  let foundAll = true;
  console.log(
    `| mutant | what it breaks | found by | seed | time |\n| --- | --- | --- | --- | --- |`,
  );
  for (const [name, { breaks }] of Object.entries(MUTANTS)) {
    const startedMs = performance.now();
    const found = await findMutant(name as MutantName, seedsMax);
    foundAll &&= found !== null;
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    const by = found === null ? "**not found**" : /^[A-Z]+\d+|^\w+/.exec(found.message)![0];
    console.log(`| \`${name}\` | ${breaks} | ${by} | ${found?.by ?? ""} | ${seconds} s |`);
  }
  return foundAll;
}

/** Tries the seed that is known, then all up to `seedsMax`; null when none finds it. */
export async function findMutant(
  mutant: MutantName,
  seedsMax: number,
): Promise<{ message: string; by: string } | null> {
  const scenario = SCENARIOS[mutant];
  if (scenario !== undefined) {
    const message = await scenario(mutant);
    return message === null ? null : { message, by: "scenario" };
  }
  const { seed: known } = MUTANTS[mutant];
  const others = Array.from({ length: seedsMax }, (_, i) => i + 1);
  for (const seed of known === undefined ? others : [known, ...others]) {
    const failure = await failureOf({ seed, mutant });
    if (failure !== null) return { message: failure.message, by: String(seed) };
  }
  return null;
}
