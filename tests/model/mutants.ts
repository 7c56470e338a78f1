/** One wrong rule each. Names as in kv/mutant.ts where the real code has the same one. */

export const MUTANTS = {
  // What counts as safe on disk, or as committed.
  "ack-before-fsync": "a member answers before its disk has the entries",
  "own-fsync-not-counted": "the primary counts its own log before its disk has it",
  "own-reign-not-durable": "a new primary commits before its own disk knows of its reign",
  "commit-below-minimum": "the primary commits with fewer members than the minimum",
  "add-not-counted": "a member that is being added does not count for commits yet",
  "match-without-epoch": "logs are compared by length only",
  "unverified-log-applied": "a follower applies entries that need not be the primary's",
  // Who may be primary.
  "non-member-elected": "anybody may be elected",
  "eligible-not-cleared": "eligible members stay eligible while others commit",
  "older-epochs-accepted": "messages of older epochs are accepted",
  "reign-not-restarted": "a primary that is elected anew goes on with what it knew of its members",
  "reign-not-checked": "answers given to an earlier reign count",
  "epoch-reused-after-restart": "a restarted primary goes on in its old epoch",
  "proposal-epoch-not-checked": "a change proposed in an older epoch is made",
  // Promises and reads.
  "no-lease": "the primary reads without any lease",
  "lease-without-eligible": "eligible members need not promise",
  "lease-without-pending-add": "a member that is being added need not promise",
  "lease-from-receipt": "a lease counts from the answer instead of from the question",
  "short-grace": "a promise ends before the lease that it backs",
  "no-boot-wait": "a restarted process forgets its promises",
  "promises-ignored": "a new primary does not wait for its promises to end",
  "silence-is-death": "a primary that is not heard counts as dead",
  "death-voids-all-promises": "proof of one primary's death voids promises to others, too",
  "relinquished-serves": "a primary that has handed over still serves",
  "epoch-start-not-awaited": "a new primary reads before its first entry is committed",
  "round-begun-before": "a round of heartbeats that began before the read confirms it",
  "record-looked-up-before": "a look at the record before the read began confirms it",
  "limbo-ignored": "rows that undecided entries touch are read",
  // Changes of which nobody knows the outcome.
  "unknown-change-is-refused": "a change that was not answered counts as refused",
  "refusal-without-fence": "a refusal counts although a copy of the change may still be accepted",
} as const;

export type MutantName = keyof typeof MUTANTS;

export const isMutant = (name: string): name is MutantName => name in MUTANTS;
