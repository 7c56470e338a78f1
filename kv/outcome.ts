/** What became of a request to a replica group: the answer, and what its completion record says. */
import type { Version } from "../proto/ids.ts";
import type { RowOutcome } from "./row_op.ts";

/** A transaction, and the row whose fate is the whole transaction's. */
export interface TxnRef {
  readonly id: string;
  readonly anchor: string;
}

/**
 * What the anchor's group knows of a transaction: locked and undecided; committed, and perhaps not
 * yet applied everywhere; or neither, so that it can no longer be committed (aborted, or all done).
 */
export type TxnState = "pending" | "committed" | "gone";

/** A row belongs to another transaction. Nothing is recorded: the same request may come again. */
export interface LockedOutcome {
  readonly kind: "locked";
  readonly row: string;
  readonly txn: TxnRef;
}

/** The answer to a step of a transaction: where it stands now. */
export interface SettledOutcome {
  readonly kind: "settled";
  readonly state: TxnState;
  /** Of the cells that this step made visible; 0 when it found nothing to do. */
  readonly version: Version;
}

export type RecordedOutcome = RowOutcome | SettledOutcome;
export type RequestOutcome = RecordedOutcome | LockedOutcome;
