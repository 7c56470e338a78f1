/**
 * Asks what to do when a name is taken: keep both, replace, skip; for one or for all of a batch.
 * Questions wait in line, so that one is shown at a time.
 */
import { signal } from "@preact/signals";

export type Choice = "keep_both" | "replace" | "skip";

export interface ConflictQuestion {
  readonly name: string;
  /** Replacing is no choice for folders. */
  readonly mayReplace: boolean;
  /** Others may follow in the same batch. */
  readonly several: boolean;
  readonly answer: (choice: Choice, forAll: boolean) => void;
}

export const question = signal<ConflictQuestion | null>(null);
let line: Promise<unknown> = Promise.resolve();

/** What one drop or one move has in common: an answer "for all" counts for the rest of it. */
export class ConflictBatch {
  #forAll: Choice | null = null;
  constructor(readonly several: boolean) {}

  ask(name: string, mayReplace: boolean): Promise<Choice> {
    const asked = line.then(async (): Promise<Choice> => {
      if (this.#forAll !== null && (mayReplace || this.#forAll !== "replace")) return this.#forAll;
      return await new Promise<Choice>((resolve) => {
        question.value = {
          name,
          mayReplace,
          several: this.several,
          answer: (choice, forAll) => {
            if (forAll) this.#forAll = choice;
            question.value = null;
            resolve(choice);
          },
        };
      });
    });
    line = asked;
    return asked;
  }
}
