/**
 * Checks by hand for the most frequent messages: whether a value is exactly what its zod schema would
 * give back as it is. A schema costs several times as much as parsing the JSON; whatever is not
 * recognised here is for the schema to judge, and to explain.
 */

export type Fields = Readonly<Record<string, unknown>>;

/** Whether it is an object, no array, of so many fields, as JSON gives it. */
export function hasFields(value: unknown, count: number): value is Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  let found = 0;
  // What JSON gave has no fields but its own; counting them so makes no list of them.
  for (const _ in value) found += 1;
  return found === count;
}

/** Of a row or a column. */
export const isKey = (value: unknown): value is string =>
  typeof value === "string" && value.length >= 1 && value.length <= 1024;

/** A whole number from 0 on. */
export const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && value as number >= 0;

export const isFiniteNumber = (value: unknown): value is number => Number.isFinite(value);
