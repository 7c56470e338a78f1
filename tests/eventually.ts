/** Waiting for a condition, with a deadline that names what did not happen. */

export interface EventuallyOptions {
  readonly withinMs?: number;
  readonly everyMs?: number;
}

/** Resolves when `condition` holds; throws when it still does not after `withinMs`. */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  what: string,
  { withinMs = 10_000, everyMs = 20 }: EventuallyOptions = {},
): Promise<void> {
  const untilMs = performance.now() + withinMs;
  while (!await condition()) {
    if (performance.now() > untilMs) throw new Error(`Waited ${withinMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
