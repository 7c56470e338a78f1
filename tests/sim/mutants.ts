/**
 * The deliberate bugs of kv/mutant.ts: what each of them breaks, and what finds it: a seed of the
 * simulator, or a directed test. `deno task sim --list-mutants` prints this list, `--mutant NAME` runs
 * one, `--mutants` looks for all of them and prints a table.
 *
 * A directed test is one of the ordinary tests, which fails with the bug: a rule whose breach needs
 * several rare things at once is not left to dice.
 */
import type { MutantName } from "../../kv/mutant.ts";
import { directedFailure, type DirectedTest } from "./directed_tests.ts";
import { failureOf } from "./failing_seed.ts";
import type { SwarmShape } from "./swarm.ts";

/** What finds it: a seed, or a test for what random search does not reach, or not often enough. */
export type MutantInfo =
  & {
    readonly breaks: string;
    /** For its seeds, what is not left to dice. */
    readonly shape?: Partial<SwarmShape>;
  }
  & (
    | { readonly seed: number; readonly test?: undefined }
    | { readonly test: DirectedTest; readonly seed?: undefined }
  );

/** A deposed primary goes on reading for so long that clients have found its successor by then. */
export const LONG_LEASES: Partial<SwarmShape> = {
  heartbeatMs: 200,
  leaseMs: 3_000,
  graceMs: 3_300,
  coldStartWaitMs: 300,
};

export const MUTANTS: Readonly<Record<MutantName, MutantInfo>> = {
  "ack-before-fsync": {
    breaks: "a secondary acknowledges entries that are not on its disk",
    seed: 1,
  },
  "own-fsync-not-counted": {
    breaks: "a primary commits before the entry is on its own disk",
    seed: 1,
  },
  "own-reign-not-durable": {
    breaks: "a new primary commits former entries before its own disk knows of its reign",
    test: {
      file: "kv/replica_rules_test.ts",
      name: "a new primary commits what it found only once its own disk knows of the reign",
    },
  },
  "commit-below-minimum": {
    breaks: "a primary commits with fewer members than the minimum",
    seed: 5,
  },
  "add-not-counted": { breaks: "commits do not wait for the member that is being added", seed: 3 },
  "promises-ignored": {
    breaks: "a new primary does not wait for what it promised to the last one",
    test: {
      file: "kv/replica_test.ts",
      name:
        "a new primary waits for its promises, unless the reign that it made them to is proved dead",
    },
  },
  "no-boot-wait": {
    breaks: "a restarted process forgets the promise that it may have given",
    test: {
      file: "kv/replica_rules_test.ts",
      name: "a primary elected right after its start waits as if it had just promised to follow",
    },
  },
  "short-grace": {
    breaks: "a promise binds for less time than the primary reads by it",
    test: {
      file: "kv/replica_rules_test.ts",
      name: "a new primary that promised to follow waits to the last millisecond of its promise",
    },
  },
  "no-lease": { breaks: "a primary reads without any promise", seed: 5 },
  "lease-from-receipt": {
    breaks: "a lease is counted from the answer, not from the question",
    test: {
      file: "kv/replica_rules_test.ts",
      name: "a lease lasts from when the heartbeat was sent, however late the answer comes",
    },
  },
  "lease-without-eligible": {
    breaks: "no promise is asked of eligible members",
    test: {
      file: "kv/replica_test.ts",
      name:
        "Replica.canReadAt() needs the promises of members that left but could still be elected",
    },
  },
  "lease-without-pending-add": {
    breaks: "no promise is asked of the member that is being added",
    test: {
      file: "kv/replica_test.ts",
      name: "a refused addition counts until its epoch is over: a copy of it may still be granted",
    },
  },
  "stale-read-after-pause": {
    breaks: "a lease is compared with the time before the pause",
    test: {
      file: "kv/replica_test.ts",
      name:
        "Replica.canReadAt() needs a promise of everybody who could be elected, and only while it lasts",
    },
  },
  "limbo-ignored": { breaks: "rows that an undecided entry touches are read as decided", seed: 2 },
  "record-not-asked": {
    breaks: "a read trusts an answer of the records about another epoch",
    seed: 5,
  },
  "round-before-read": {
    breaks: "a read is confirmed by a round that began before it",
    test: {
      file: "kv/replica_reads_test.ts",
      name:
        "with read_mode confirm a read is answered by a round of heartbeats sent after it came in",
    },
  },
  "echo-without-lease": {
    breaks: "a primary without leases vouches for what followers read",
    test: {
      file: "kv/replica_reads_test.ts",
      name: "a primary without leases echoes no stamp: it may have been replaced",
    },
  },
  "epoch-start-not-awaited": { breaks: "a new primary reads before it has reconciled", seed: 2 },
  "relinquished-serves": {
    breaks: "a primary goes on after it has handed over",
    test: {
      file: "kv/replica_test.ts",
      name:
        "a primary whose disk hangs gives its office to the member with the longest log, at once",
    },
  },
  "older-epochs-accepted": { breaks: "a follower obeys the primary of an older epoch", seed: 34 },
  "reign-not-checked": {
    breaks: "answers given in an earlier reign count in this one",
    test: {
      file: "kv/replica_test.ts",
      name: "Replica.step() ignores an ack of an older reign or of an older life of the peer",
    },
  },
  "reign-not-restarted": {
    breaks: "who is elected again keeps what it knew from before",
    test: {
      file: "kv/replica_rules_test.ts",
      name:
        "who is elected again begins anew: it serves once the new reign's first entry is committed",
    },
  },
  "epoch-reused-after-restart": {
    breaks: "a restarted primary goes on in its old epoch",
    test: {
      file: "kv/replica_rules_test.ts",
      name: "a restarted primary is none until it is elected anew",
    },
  },
  "incarnation-not-checked": {
    breaks: "a process answers to what was meant for the one before it",
    seed: 1,
  },
  "store-not-checked": {
    breaks: "acknowledgements of a replaced disk count for the new one",
    test: {
      file: "kv/replica_test.ts",
      name: "Replica.step() ignores an ack of an older reign or of an older life of the peer",
    },
  },
  "epoch-not-durable-before-answer": {
    breaks: "an epoch is obeyed before it is on disk",
    test: {
      file: "kv/replica_rules_test.ts",
      name: "neither ack nor promise leaves before the epoch that it is given in is on disk",
    },
  },
  "match-without-epoch": { breaks: "logs are matched by position alone", seed: 1 },
  "unverified-log-applied": {
    breaks: "a follower applies entries that the primary may not have",
    seed: 1,
  },
  "unknown-change-is-done": {
    breaks: "a removal counts before anybody knows that it happened",
    seed: 27,
  },
  "lost-append-not-resent": { breaks: "what was lost on the way is never sent again", seed: 10 },
  "left-out-entries-verified": {
    breaks: "a follower vouches for entries that it had no memory for",
    test: {
      file: "kv/want_of_memory_test.ts",
      name: "what a follower has behind the entries left out does not count as the primary's",
    },
  },
  "room-not-told": {
    breaks: "a follower that has memory again does not say so",
    test: {
      file: "roles/backend_group_test.ts",
      name:
        "a replica whose memory is full asks for the rest the moment a checkpoint has made room",
    },
  },
  "non-member-elected": { breaks: "a replica that is not in sync becomes primary", seed: 30 },
  "eligible-not-cleared": {
    breaks: "who left stays electable after commits went on without it",
    seed: 1,
  },
  "silence-is-death": {
    breaks: "a silent primary is taken for a dead one",
    test: {
      file: "kv/coordinator_test.ts",
      name: "silence alone elects too, but does not claim that the old primary is dead",
    },
  },
  "proposal-epoch-not-checked": {
    breaks: "a change is made to another configuration than meant",
    test: {
      file: "kv/coordinator_test.ts",
      name: "a change is refused to anyone but the primary of the current epoch",
    },
  },
  "restart-not-noticed": { breaks: "a restarted primary is not elected anew", seed: 3 },
  "rollback-not-noticed": { breaks: "records that went back in time are acted on", seed: 10 },
  "doubt-ignored": {
    breaks: "a copy whose disk may have lied leads alone",
    test: {
      file: "kv/coordinator_test.ts",
      name: "a member whose disk may have lied leads only beside another, by the longest log",
    },
  },
  "group-created-anew": {
    breaks: "a group whose record is lost is created anew while a member that holds it is away",
    test: {
      file: "kv/coordinator_test.ts",
      name:
        "without records nothing is created anew while anybody might hold it, in whatever order they come",
    },
  },
  "completion-not-recorded": { breaks: "a retry is executed again", seed: 1 },
  "completion-not-checkpointed": {
    breaks: "a checkpoint forgets what was executed",
    test: {
      file: "kv/multi_row_test.ts",
      name: "a repeated multi-row request gets its first answer, also after a checkpoint",
    },
  },
  "completion-lost-on-failover": { breaks: "a new primary forgets what was executed", seed: 7 },
  "completion-dropped-early": { breaks: "only a client's last request is remembered", seed: 5 },
  "copy-in-log-executed": {
    breaks: "two copies of one request in the log are both executed",
    seed: 15,
  },
  "condition-checked-again": {
    breaks: "a retried compare-and-put that succeeded says mismatch",
    seed: 1,
  },
  "request-age-not-checked": {
    breaks: "a request older than any record of it is executed",
    seed: 1,
  },
  "group-time-ignored": {
    breaks: "a client whose wall clock is wrong is refused for as long as it is",
    seed: 29,
  },
  "confirmed-executed-again": {
    breaks: "a copy of a request whose answer the client has is executed",
    seed: 1,
  },
  "records-forgotten-early": {
    breaks: "what was executed is forgotten while a copy is still let in",
    seed: 1,
  },
  "leap-forgets-executed": {
    breaks: "a copy in the log behind a leap of the group's time is executed again",
    test: {
      file: "kv/completions_test.ts",
      name:
        "a copy that was let in before the group's time leapt is not executed again behind the leap",
    },
  },
  "forgotten-executed-again": {
    breaks: "what was executed for a client that made room for others is executed again",
    test: {
      file: "kv/completions_test.ts",
      name: "a retry that comes after its record was given up is refused, not executed again",
    },
  },
  "hash-without-version": {
    breaks: "replicas that differ in versions alone look the same",
    seed: 1,
  },
  "lock-ignored-by-writes": {
    breaks: "a plain write goes past a transaction's lock",
    seed: 3,
  },
  "commit-without-anchor": {
    breaks: "a transaction that was aborted is taken for committed",
    test: {
      file: "kv/row_locks_test.ts",
      name: "a commit counts only while the anchor is locked, and an abort only before it",
    },
  },
  "pending-rolled-back": {
    breaks: "a reader rolls back what may still be committed",
    seed: 3,
  },
  "forgotten-before-forward": {
    breaks: "the note of a commit goes before all groups applied it",
    seed: 3,
  },
  "locks-not-checkpointed": {
    breaks: "a checkpoint forgets which rows are locked",
    seed: 4,
  },
  "locks-not-swept": { breaks: "what dead clients locked stays locked", seed: 3 },
  "reads-not-guarded": {
    breaks: "a transaction commits although what it read has changed",
    seed: 3,
  },
  "old-split-obeyed": {
    breaks: "an order for an earlier shape of a tablet is carried out",
    test: {
      file: "kv/tablets_test.ts",
      name: "an order for an earlier shape of a tablet has no effect",
    },
  },
  "merge-counts-lost": { breaks: "a merged tablet counts its left part only", seed: 3 },
  "tablet-ids-reused": {
    breaks: "a checkpoint forgets which tablet numbers were given out",
    seed: 2,
  },
  "reshape-acked-early": { breaks: "a split or merge is reported before it is committed", seed: 3 },
  "freeze-ignored": {
    breaks: "a frozen tablet takes writes that go nowhere",
    test: {
      file: "kv/tablet_moves_test.ts",
      name: "a frozen tablet takes no write, and answers those that it executed before",
    },
  },
  "departure-not-checkpointed": {
    breaks: "a checkpoint forgets that a tablet is being moved away",
    test: { file: "kv/tablet_moves_test.ts", name: "a tablet that moves keeps its shape" },
  },
  "locked-rows-frozen": {
    breaks: "a tablet moves while transactions hold rows of it",
    test: {
      file: "kv/tablet_moves_test.ts",
      name: "rows that a transaction holds bar the tablet to others, until it is through",
    },
  },
  "moved-without-completions": {
    breaks: "a retry is executed again by the group that a tablet moved to",
    test: {
      file: "kv/tablet_moves_test.ts",
      name: "a request that was executed before the move gets its answer from the new group",
    },
  },
  "commit-without-seal": {
    breaks: "a move is committed although nobody compared what arrived",
    test: {
      file: "kv/tablet_moves_test.ts",
      name: "a seal holds only if all that is there was staged, as it is now",
    },
  },
  "half-copy-left": {
    breaks: "a copy that was begun anew after the commit is never completed",
    test: {
      file: "roles/tablet_move_test.ts",
      name: "a copy that a later primary began before it heard of the commit is completed",
    },
  },
  "position-not-raised": {
    breaks: "a version is given twice to a row that moved",
    test: {
      file: "kv/tablet_moves_test.ts",
      name: "no version that a row ever had is given to it again by its new group",
    },
  },
  "committed-move-aborted": {
    breaks: "a move that was committed is given up",
    test: { file: "kv/range_map_test.ts", name: "the first decision about a move stands" },
  },
  "changes-not-followed": {
    breaks: "what changes behind the copy of a moving tablet stays behind",
    test: {
      file: "roles/tablet_move_test.ts",
      name:
        "a write that comes while the tablet is copied comes along; one after the freeze is told to wait",
    },
  },
  "read-after-commit": {
    breaks: "a tablet is read from its old group after another one may have it",
    test: {
      file: "roles/tablet_move_test.ts",
      name: "a frozen tablet is read until the commit is asked for, and not from then on",
    },
  },
  "drop-before-commit": {
    breaks: "a tablet is dropped before it is known to be another group's",
    test: {
      file: "roles/tablet_move_test.ts",
      name: "a tablet is dropped only once the commit is known, however late its answer is",
    },
  },
  "frozen-read-by-successor": {
    breaks: "a later primary reads a tablet that was frozen by the one before",
    test: {
      file: "roles/tablet_move_test.ts",
      name:
        "a primary that finds the tablet frozen by the one before goes on, but does not read it",
    },
  },
  "snapshot-crosses-move": {
    breaks: "a scan goes on into a tablet that came since it began",
    test: {
      file: "roles/tablet_move_test.ts",
      name: "a scan goes on as of its beginning, and not into a tablet that came since",
    },
  },
  "limbo-ignores-moves": {
    breaks: "rows that an undecided move takes away are read",
    test: {
      file: "kv/replica_reads_test.ts",
      name:
        "below the minimum a new primary reads no tablet that may be frozen or another group's by now",
    },
  },
  "old-version-not-kept": {
    breaks: "a scan misses what was overwritten since it began",
    seed: 13,
  },
  "snapshot-not-checked": {
    breaks: "a scan goes on where nothing was kept for it",
    seed: 13,
  },
  "newer-cells-shown": { breaks: "a scan shows what was written since it began", seed: 3 },
  "retry-with-new-number": { breaks: "a client's retry is another request", seed: 2 },
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
    test: {
      file: "kv/disk/wal_recovery_test.ts",
      name: "recovery drops a tail torn at any byte, appends behind it and recovers again",
    },
  },
  "corruption-is-torn-tail": {
    breaks: "damage in the middle of the log is cut off with all behind",
    test: {
      file: "kv/disk/wal_recovery_test.ts",
      name: "recovery refuses damage to the last batch when a clean stop sealed it",
    },
  },
  "recovered-log-not-synced": {
    breaks: "what was read back at the start is taken for durable",
    seed: 9,
  },
  "failed-sync-trusted": {
    breaks: "what a failed sync left in memory is taken for durable",
    seed: 33,
  },
  "log-released-before-checkpoint": {
    breaks: "the log goes before the checkpoint is there",
    test: {
      file: "roles/backend_group_test.ts",
      name: "a checkpoint that fails leaves the whole log behind the one before",
    },
  },
  "checkpoint-claims-too-much": {
    breaks: "a checkpoint says that it holds more than it does",
    seed: 6,
  },
  "commit-hint-too-high": {
    breaks: "the log says that entries are committed which are not",
    seed: 6,
  },
  "large-value-not-awaited": {
    breaks: "an entry is logged before the file that it names is",
    test: {
      file: "roles/backend_group_test.ts",
      name: "an entry that names a large value is logged after the value's file is on disk",
    },
  },
  "snapshot-without-completions": {
    breaks: "a fetched checkpoint forgets what was executed",
    test: {
      file: "roles/backend_group_test.ts",
      name: "a checkpoint that was fetched says which requests were executed",
    },
  },
  "checkpoint-installed-late": {
    breaks: "a fetched checkpoint replaces the log of who has become a member meanwhile",
    test: {
      file: "roles/backend_group_test.ts",
      name: "a checkpoint that comes a second time, or too late, changes nothing",
    },
  },
  "unknown-change-is-refused": {
    breaks: "a proposal without an answer is taken for refused",
    test: {
      file: "kv/replica_test.ts",
      name: "a refused addition counts until its epoch is over: a copy of it may still be granted",
    },
  },
  "scrub-finds-nothing": { breaks: "a damaged cell that nobody reads stays damaged", seed: 8 },
  "rebuilt-under-old-name": {
    breaks: "a replica that begins anew poses as the one that was damaged",
    seed: 37,
  },
  "lost-segment-ignored": {
    breaks: "a log of which a segment is missing is taken for whole",
    test: {
      file: "kv/disk/wal_recovery_test.ts",
      name: "recovery refuses a log that lost its beginning, and one that was released is whole",
    },
  },
  "shrunk-log-accepted": {
    breaks: "a log that ends before a checkpoint was made is taken for whole",
    test: {
      file: "roles/backend_start_test.ts",
      name: "a log that ends before a checkpoint was made has shrunk, and is damage",
    },
  },
  "damaged-store-not-kept": {
    breaks: "a damaged store is given up before anybody else has everything",
    test: {
      file: "roles/backend_start_test.ts",
      name: "a damaged store is touched only once nobody needs it, and then goes on as a new one",
    },
  },
  "clocks-beyond-bound": {
    breaks: "clocks go wrong by more than the bound that leases are made for",
    seed: 59,
    shape: LONG_LEASES,
  },
};

export function listMutants(): string {
  const all = Object.entries<MutantInfo>(MUTANTS).map(([name, { breaks, seed, test }]) => {
    const by = test === undefined ? `seed ${seed}` : `tests/${test.file}`;
    return `${name.padEnd(32)} ${breaks} (${by})`;
  });
  return all.join("\n");
}

/** Looks for every one, among seeds 1 to `seedsMax` where it needs one; false when one is not found. */
export async function findMutants(seedsMax: number): Promise<boolean> {
  let foundAll = true;
  console.log("| mutant | what it breaks | found by | time |\n| --- | --- | --- | --- |");
  for (const [name, { breaks }] of Object.entries(MUTANTS)) {
    const startedMs = performance.now();
    const found = await findMutant(name as MutantName, seedsMax);
    foundAll &&= found !== null;
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.log(`| \`${name}\` | ${breaks} | ${found ?? "**not found**"} | ${seconds} s |`);
  }
  return foundAll;
}

/**
 * Runs its directed test, or the seed that is known and then all up to `seedsMax`. Says what found it;
 * null when nothing did.
 */
export async function findMutant(mutant: MutantName, seedsMax: number): Promise<string | null> {
  const { seed: known, test, shape = {} } = MUTANTS[mutant];
  if (test !== undefined) return await findByTest(mutant, test);
  for (const seed of [known, ...Array.from({ length: seedsMax }, (_, i) => i + 1)]) {
    const failure = await failureOf({ seed, mutant, shape });
    if (failure === null) continue;
    const [check] = /^[A-Z]+\d+|^\w+/.exec(failure.message)!;
    return `seed ${seed} (${check})`;
  }
  return null;
}

async function findByTest(mutant: MutantName, test: DirectedTest): Promise<string | null> {
  const broken = await directedFailure(test, null);
  if (broken !== null) throw new Error(`"${test.name}" fails without a mutant: ${broken}`);
  if (await directedFailure(test, mutant) === null) return null;
  return `\`${test.file}\`: ${test.name}`;
}
