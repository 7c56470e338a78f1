/** Several runs of the same thing, told as the middle one with the smallest and the largest. */

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** @throws of no values at all */
export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) throw new Error("There is no median of nothing");
  const sorted = values.toSorted((a, b) => a - b), half = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}

export const medianOf = (values: readonly number[]): number => spreadOf(values).median;

/**
 * Ours by theirs, round by round: the two runs of a round followed each other, so what slowed one down
 * probably slowed both.
 */
export function ratiosOf(ours: readonly number[], theirs: readonly number[]): Spread {
  if (ours.length !== theirs.length) throw new Error("Every round has to have both");
  return spreadOf(ours.map((value, round) => value / theirs[round]!));
}

/** Of ratios: twice as fast and half as fast come out as 1. */
export function geometricMean(values: readonly number[]): number {
  if (values.length === 0) throw new Error("There is no mean of nothing");
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}
