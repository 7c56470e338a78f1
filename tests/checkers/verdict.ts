/** What a checker says of a history, and how a test turns that into a failure. */

export interface Verdict {
  /** "undecided": the search was given up at its budget; neither good nor bad. */
  readonly valid: boolean | "undecided";
  /** One sentence or short paragraph for each thing that is wrong; empty when valid. */
  readonly problems: readonly string[];
}

/** More would only hide the first one. */
export const PROBLEMS_MAX = 20;

/** Collects problems, keeping only the first few in full. */
export class Problems {
  readonly #list: string[] = [];
  #left = 0;

  add(problem: string): void {
    if (this.#list.length < PROBLEMS_MAX) this.#list.push(problem);
    else this.#left += 1;
  }

  get verdict(): Verdict {
    const problems = this.#left === 0 ? this.#list : [...this.#list, `and ${this.#left} more`];
    return { valid: problems.length === 0, problems };
  }
}

/**
 * Throws unless `verdict` is valid.
 *
 * @throws {Error} "GUARANTEE BROKEN: …" when the history is wrong, which no test run excuses;
 * "Undecided: …" when the checker gave up
 */
export function assertValid(verdict: Verdict, what: string): void {
  if (verdict.valid === true) return;
  const problems = verdict.problems.join("\n");
  throw new Error(
    verdict.valid === false
      ? `GUARANTEE BROKEN: ${what}:\n${problems}`
      : `Undecided: ${what}:\n${problems}`,
  );
}

/** "a", "b" and 7 more. */
export function someOf(items: readonly string[], shown = 5): string {
  const quoted = items.slice(0, shown).map((item) => JSON.stringify(item)).join(", ");
  return items.length > shown ? `${quoted} and ${items.length - shown} more` : quoted;
}
