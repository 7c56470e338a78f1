/**
 * Deliberate bugs, each behind a switch that is off: they show that the tests can find bugs.
 *
 * A place in the store where one wrong line would break a promise asks `mutated(name)` and goes wrong
 * if the answer is yes. tests/sim/mutants.ts says what each of them breaks; `deno task sim --mutants`
 * turns them on one at a time and demands that every one is found. In production the answer is always
 * no: only `armMutant` changes it, which nothing outside tests/ may name
 * (lint rule `penncloud/mutants-in-tests`), and it costs one comparison with null.
 */

export type MutantName =
  // The replica: what counts as on disk, committed, or promised.
  | "ack-before-fsync"
  | "own-fsync-not-counted"
  | "own-reign-not-durable"
  | "commit-below-minimum"
  | "add-not-counted"
  | "promises-ignored"
  | "no-boot-wait"
  | "short-grace"
  | "no-lease"
  | "lease-from-receipt"
  | "lease-without-eligible"
  | "lease-without-pending-add"
  | "stale-read-after-pause"
  | "epoch-start-not-awaited"
  | "relinquished-serves"
  | "limbo-ignored"
  | "record-not-asked"
  | "round-before-read"
  | "echo-without-lease"
  | "older-epochs-accepted"
  | "reign-not-checked"
  | "reign-not-restarted"
  | "epoch-reused-after-restart"
  | "incarnation-not-checked"
  | "store-not-checked"
  | "epoch-not-durable-before-answer"
  | "match-without-epoch"
  | "unverified-log-applied"
  | "unknown-change-is-done"
  | "lost-append-not-resent"
  | "left-out-entries-verified"
  | "room-not-told"
  // The coordinator.
  | "non-member-elected"
  | "eligible-not-cleared"
  | "silence-is-death"
  | "proposal-epoch-not-checked"
  | "restart-not-noticed"
  | "rollback-not-noticed"
  | "doubt-ignored"
  | "group-created-anew"
  // Exactly-once, and the state.
  | "completion-not-recorded"
  | "completion-not-checkpointed"
  | "completion-lost-on-failover"
  | "completion-dropped-early"
  | "copy-in-log-executed"
  | "condition-checked-again"
  | "request-age-not-checked"
  | "group-time-ignored"
  | "confirmed-executed-again"
  | "records-forgotten-early"
  | "leap-forgets-executed"
  | "forgotten-executed-again"
  | "hash-without-version"
  // Transactions over several groups, and tablets.
  | "lock-ignored-by-writes"
  | "commit-without-anchor"
  | "pending-rolled-back"
  | "forgotten-before-forward"
  | "locks-not-checkpointed"
  | "locks-not-swept"
  | "reads-not-guarded"
  | "old-split-obeyed"
  | "merge-counts-lost"
  | "tablet-ids-reused"
  | "reshape-acked-early"
  // A tablet on its way to another group.
  | "freeze-ignored"
  | "departure-not-checkpointed"
  | "locked-rows-frozen"
  | "moved-without-completions"
  | "commit-without-seal"
  | "half-copy-left"
  | "position-not-raised"
  | "committed-move-aborted"
  | "changes-not-followed"
  | "read-after-commit"
  | "drop-before-commit"
  | "frozen-read-by-successor"
  | "snapshot-crosses-move"
  | "limbo-ignores-moves"
  // Scans as of one position.
  | "old-version-not-kept"
  | "snapshot-not-checked"
  | "newer-cells-shown"
  // The client.
  | "retry-with-new-number"
  | "unknown-reported-as-failed"
  // The log on disk.
  | "log-acks-before-sync"
  | "batch-before-sync"
  | "segment-name-not-synced"
  | "torn-tail-kept"
  | "corruption-is-torn-tail"
  | "recovered-log-not-synced"
  | "failed-sync-trusted"
  // A backend: log, checkpoint and files together.
  | "checkpoint-installed-late"
  | "log-released-before-checkpoint"
  | "checkpoint-claims-too-much"
  | "commit-hint-too-high"
  | "large-value-not-awaited"
  | "snapshot-without-completions"
  | "unknown-change-is-refused"
  // Damage that heals.
  | "scrub-finds-nothing"
  | "rebuilt-under-old-name"
  | "lost-segment-ignored"
  | "shrunk-log-accepted"
  | "damaged-store-not-kept"
  // No bug: the simulator's machines do not keep what leases rely on.
  | "clocks-beyond-bound";

let armed: MutantName | null = null;

/** Whether this deliberate bug is on: never, outside the tests. */
export function mutated(name: MutantName): boolean {
  return armed === name;
}

/** @ignore For tests/ alone; null for none. */
export function armMutant(name: MutantName | null): void {
  armed = name;
}
