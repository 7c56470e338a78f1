/**
 * Waiting for a condition, with a deadline that names what did not happen.
 *
 * Deadlines are for what never happens; they say nothing about speed, so they are long enough for a
 * machine that has much else to do.
 */
import { AssertionError } from "node:assert/strict";

export interface EventuallyOptions {
  readonly withinMs?: number;
  readonly everyMs?: number;
}

/**
 * Resolves when `condition` holds; throws when it still does not after `withinMs`. A condition that
 * throws does not hold yet: who is asked may be starting. Only a failed assertion ends the waiting.
 */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  what: string,
  { withinMs = 30_000, everyMs = 20 }: EventuallyOptions = {},
): Promise<void> {
  const untilMs = performance.now() + withinMs;
  for (;;) {
    let cause: unknown;
    try {
      if (await condition()) return;
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      cause = error;
    }
    if (performance.now() > untilMs) {
      const why = cause === undefined ? "" : `: ${cause}`;
      throw new Error(`Waited ${withinMs} ms in vain for ${what}${why}`, { cause });
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
