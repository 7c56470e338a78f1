/**
 * Single tests of other files, run in this process with a deliberate bug: a rule that no random run
 * of the simulator misses has a test that does.
 *
 * A test file is imported once with `Deno.test` replaced by a function that only writes down what is
 * registered; its tests can then be run by name, as often as wanted.
 */
import { armMutant, type MutantName } from "../../kv/mutant.ts";

/** One test, by its file below tests/ and its name. */
export interface DirectedTest {
  readonly file: string;
  readonly name: string;
}

type TestFunction = () => void | Promise<void>;

const files = new Map<string, Map<string, TestFunction>>();

/** What the test says with this deliberate bug, or without; null when it passes. */
export async function directedFailure(
  { file, name }: DirectedTest,
  mutant: MutantName | null,
): Promise<string | null> {
  const run = (await testsOf(file)).get(name);
  if (run === undefined) throw new Error(`tests/${file} has no test "${name}"`);
  armMutant(mutant);
  try {
    await run();
    return null;
  } catch (error) {
    return (error as Error).message;
  } finally {
    armMutant(null);
  }
}

/** The tests of a file that stand for themselves: without steps and options. */
export async function testsOf(file: string): Promise<ReadonlyMap<string, TestFunction>> {
  const known = files.get(file);
  if (known !== undefined) return known;
  const tests = new Map<string, TestFunction>();
  const registerTest = Deno.test;
  const note = (name: string, run: TestFunction) => void tests.set(name, run);
  Object.assign(Deno, { test: Object.assign(note, registerTest) });
  try {
    await import(new URL(`../${file}`, import.meta.url).href);
  } finally {
    Object.assign(Deno, { test: registerTest });
  }
  files.set(file, tests);
  return tests;
}
