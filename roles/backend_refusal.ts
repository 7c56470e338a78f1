/** Errors of a backend with what a client needs to go on. */
import { KvError, type KvErrorCode } from "../kv/errors.ts";
import type { RefusalDetails } from "../proto/kv_wire.ts";

class Refusal extends KvError {
  constructor(code: KvErrorCode, message: string, readonly details: RefusalDetails) {
    super(code, message);
  }
}

export const refusal = (code: KvErrorCode, message: string, details: RefusalDetails): KvError =>
  new Refusal(code, message, details);
