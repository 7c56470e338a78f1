/** Assertions about what we ourselves computed. They stay on in production. */

/** Our own bug. The process exits and recovery takes over: see `Env.fatal`. */
export class InvariantViolation extends Error {
  override readonly name = "InvariantViolation";
  constructor(readonly id: string, detail: string) {
    super(`Invariant ${id} does not hold: ${detail}`);
  }
}

/** Throws when `condition` is false. `id` is the invariant's number in ARCHITECTURE.md. */
export function invariant(condition: boolean, id: string, detail: () => string): asserts condition {
  if (!condition) throw new InvariantViolation(id, detail());
}
