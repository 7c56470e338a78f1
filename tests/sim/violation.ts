/** A promise of the store was broken; the message says which and how. */
export class SimViolation extends Error {
  override readonly name = "SimViolation";
}
