/**
 * `deno task check-history FILE [--moved] [--steps N]`: judges a history that `deno task faults`, or
 * anybody who writes the same lines (history.ts), left behind. Rows are checked for
 * linearizability, transactions for strict serializability. Prints what is wrong and exits 1; exits 3
 * when the search was given up for some row, 2 when the file is not a history.
 *
 * `--moved`: rows may have moved between groups, so that versions are only equal or not.
 */
import { parseArgs } from "node:util";
import { HistoryError, type Operation, parseHistory } from "./history.ts";
import { checkLinearizability } from "./linearizability.ts";
import { checkListAppend, listTransactionsOf } from "./list_append.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    moved: { type: "boolean", default: false },
    steps: { type: "string", default: "2000000" },
  },
});
const [file] = positionals, stepsPerRow = Number(values.steps);
if (file === undefined || positionals.length > 1) fail("Name one history file");
if (!Number.isSafeInteger(stepsPerRow) || stepsPerRow < 1) {
  fail(`--steps takes a whole number from 1 on, not "${values.steps}"`);
}

const history = readHistory(file);
const rows = checkLinearizability(history, {
  stepsPerRow,
  versions: values.moved ? "distinct" : "rising",
});
const transactions = checkListAppend(listTransactionsOf(history));
console.log(
  `${rows.operations} operations on ${rows.rows} rows: ${
    inWords(rows.valid)
  } (${rows.steps} steps)`,
);
console.log(
  `${transactions.transactions} transactions: ${
    inWords(transactions.valid)
  } (${transactions.edges} edges)`,
);
for (const problem of [...rows.problems, ...transactions.problems]) console.log(`\n${problem}`);
if (rows.valid === false || transactions.valid === false) Deno.exit(1);
Deno.exit(rows.valid === true ? 0 : 3);

function inWords(valid: boolean | "undecided"): string {
  return valid === "undecided" ? "undecided" : valid ? "right" : "WRONG";
}

function readHistory(path: string): Operation[] {
  try {
    return parseHistory(Deno.readTextFileSync(path));
  } catch (error) {
    if (error instanceof HistoryError || error instanceof Deno.errors.NotFound) {
      fail(`Cannot read the history "${path}": ${error.message}`);
    }
    throw error;
  }
}

function fail(message: string): never {
  console.error(message);
  Deno.exit(2);
}
