/** Errors of a backend with what a client needs to go on: proto/kv_wire.ts, `NotPrimaryDetails`. */
import { KvError, type KvErrorCode } from "../kv/errors.ts";
import type { NodeId } from "../proto/ids.ts";

export interface RefusalDetails {
  readonly hint?: NodeId | null;
  readonly maybeApplied?: boolean;
}

class Refusal extends KvError {
  constructor(code: KvErrorCode, message: string, readonly details: RefusalDetails) {
    super(code, message);
  }
}

export const refusal = (code: KvErrorCode, message: string, details: RefusalDetails): KvError =>
  new Refusal(code, message, details);
