/**
 * Every way in which an operation on the store can fail, and what each says about the write.
 *
 * | code                | outcome     | meaning                                      | what to do            |
 * | ------------------- | ----------- | -------------------------------------------- | --------------------- |
 * | `invalid_request`   | not_applied | a key, column or value breaks a limit        | mend the request      |
 * | `not_primary`       | not_applied | this replica does not order writes           | ask the hinted node   |
 * | `wrong_tablet`      | not_applied | the row is not in the range that was asked   | refresh the map       |
 * | `frozen`            | not_applied | the row is about to move to another group    | try again in a moment |
 * | `unavailable`       | not_applied | no primary answered within the deadline      | try again later       |
 * | `busy`              | not_applied | a queue is full, or others hold the rows     | back off, try again   |
 * | `disk_full`         | not_applied | the disk is full; reads go on                | free space            |
 * | `row_too_large`     | not_applied | the row would exceed its limit               | spread over rows      |
 * | `session_too_old`   | unknown     | the retry came after its record was dropped  | read, then decide     |
 * | `outcome_unknown`   | unknown     | no answer within the deadline                | read, then decide     |
 * | `snapshot_too_old`  | not_applied | what a scan has to see is no longer kept     | start the scan over   |
 * | `corrupted`         | not_applied | a stored value fails its checksum            | operator: see verify  |
 *
 * A compare that fails is an answer, not an error: see `RowResult` in kv.ts.
 * HTTP statuses and SMTP replies are mapped from this table in web/ and roles/mail.ts, once each.
 */
export type KvErrorCode =
  | "invalid_request"
  | "not_primary"
  | "wrong_tablet"
  | "frozen"
  | "unavailable"
  | "busy"
  | "disk_full"
  | "row_too_large"
  | "session_too_old"
  | "outcome_unknown"
  | "snapshot_too_old"
  | "corrupted";

/** Did my write happen? */
export type Outcome = "not_applied" | "unknown";

export class KvError extends Error {
  override readonly name: string = "KvError";
  readonly outcome: Outcome;
  constructor(readonly code: KvErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options);
    this.outcome = code === "outcome_unknown" || code === "session_too_old"
      ? "unknown"
      : "not_applied";
  }
}

/** Bytes on a disk do not match their checksum. The tablet stops; the node may live. */
export class CorruptionError extends Error {
  override readonly name = "CorruptionError";
  constructor(message: string, readonly file: string, readonly offset: number) {
    super(`${message} (${file}, byte ${offset})`);
  }
}
